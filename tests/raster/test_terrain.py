"""`terrain` against gdaldem where it is installed, and against the formulas with geodesic distances; windows change nothing."""

import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pydantic import ValidationError
from pyproj import Geod
from rasterio.transform import Affine, from_origin

from lib.errors import SourceError
from lib.operations import Terrain
from lib.raster.formats import environment
from lib.raster.grid import Grid
from lib.raster.operations.terrain import spacing
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RANDOM = np.random.default_rng(181)
ATTRIBUTES = ["slope", "aspect", "hillshade", "roughness", "tpi", "tri"]
MODES = {"roughness": "roughness", "tpi": "TPI", "tri": "TRI"}


def surface(dtype: str, shape: tuple[int, int] = (61, 83)) -> np.ndarray:
    """Hills with noise and a flat lake, one band."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    heights = 900 + 300 * np.sin(rows / 7) * np.cos(columns / 9) + RANDOM.normal(0, 10, shape)
    heights[10:20, 30:45] = 777
    return heights.astype(dtype)[None]


def run(shop: Workshop, source: Path, model: Terrain, **choices: Any) -> np.ma.MaskedArray:
    """Run it, verified; the output of one band as GDAL masks it."""
    _, outcome = shop.transform(source, operation=model, **choices)
    assert all(check.passed for check in outcome.checks), outcome.checks
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        return dataset.read(1, masked=True)


def gdaldem(source: Path, mode: str, *options: str) -> np.ma.MaskedArray:
    """What gdaldem makes of it."""
    program = shutil.which("gdaldem")
    if program is None:
        pytest.skip("NOT RUN: gdaldem is not installed (gdal-bin)")
    output = source.with_name("gdaldem.tif")
    output.unlink(missing_ok=True)
    subprocess.run(
        [program, mode, str(source), str(output), "-q", *options], check=True, capture_output=True, timeout=60
    )
    with rasterio.open(output) as dataset:
        return dataset.read(1, masked=True)


def alike(found: np.ma.MaskedArray, wanted: np.ma.MaskedArray, tolerance: float) -> None:
    """The same pixels are valid, and none differs by more; directions by the shorter way round."""
    np.testing.assert_array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(wanted))
    away = np.abs(found.compressed().astype("float64") - wanted.compressed())
    assert away.max(initial=0) <= tolerance


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("dtype", ["int16", "float32", "float64", "uint8"])
def test_as_gdaldem(attribute: str, dtype: str, shop: Workshop, write: Write) -> None:
    """Whatever the dtype, with nodata among three by three and at the edges: the same pixels, within float32 and a shade."""
    raw = surface(dtype) if dtype != "uint8" else (surface("float32") / 8).astype("uint8")
    raw[0][RANDOM.random(raw[0].shape) < 0.02] = 0
    source = write(raw, nodata=0)
    found = run(shop, source, Terrain(attribute=attribute), block_size=16)
    wanted = gdaldem(source, MODES.get(attribute, attribute))
    tolerance = {"hillshade": 1, "slope": 2e-3, "aspect": 2e-2}.get(attribute, 1e-2)
    alike(found, wanted, tolerance if dtype.startswith("float") or attribute == "hillshade" else 1e-4)
    if attribute == "hillshade":
        assert (found != wanted).mean() < 0.001


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Terrain(attribute="slope", percent=True), ["slope", "-p"]),
        (Terrain(attribute="aspect", zero_for_flat=True), ["aspect", "-zero_for_flat"]),
        (Terrain(attribute="hillshade", z_factor=3, azimuth=120), ["hillshade", "-z", "3", "-az", "120"]),
        (Terrain(attribute="hillshade", altitude=20), ["hillshade", "-alt", "20"]),
        (Terrain(attribute="slope", z_factor=2), ["slope", "-s", "0.5"]),
    ],
)  # fmt: skip
def test_options_as_gdaldem(model: Terrain, options: list[str], shop: Workshop, write: Write) -> None:
    """Each option is gdaldem's."""
    source = write(surface("int16"))
    found, wanted = run(shop, source, model), gdaldem(source, *options)
    if model.zero_for_flat:  # which is gdaldem's nodata value, too
        found, wanted = (np.ma.array(each.filled(0)) for each in (found, wanted))
    alike(found, wanted, 1 if model.attribute == "hillshade" else 1e-3)


_TILES = {"tiled": True, "blockxsize": 32, "blockysize": 64}
_SMALL = {"block_size": 16, "resources": {"max_chunk_bytes": 30_000}}


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_windows_change_nothing(attribute: str, dtype: str, shop: Workshop, write: Write) -> None:
    """Bit by bit the same in many windows as in one; in geographic coordinates, where each row has its own distances."""
    raw, results = surface(dtype, (150, 170)), []
    raw[0, 70:75, 60:66] = -1
    for name, layout, choices in [
        ("a.tif", {}, {"block_size": 256}),
        (
            "b.tif",
            {"tiled": True, "blockxsize": 32, "blockysize": 64},
            {"block_size": 16, "resources": {"max_chunk_bytes": 30_000}},
        ),
    ]:
        path = write(raw, name, nodata=-1, **layout)
        with rasterio.open(path, "r+") as dataset:
            dataset.crs, dataset.transform = "EPSG:4326", from_origin(7, 46, 1 / 3600, 1 / 3600)
        found = run(shop, path, Terrain(attribute=attribute), **choices)
        results.append((found.filled(0).tobytes(), np.ma.getmaskarray(found).tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize("latitude", [0.0, 46.0, -70.0, 89.0])
def test_ground_distances_are_geodesic(latitude: float) -> None:
    """From one pixel to the next on the ellipsoid, as pyproj measures it, at each row's own latitude."""
    step = 1 / 3600
    grid = Grid((400, 10), rasterio.CRS.from_epsg(4326), from_origin(7, latitude, step, step))
    east, south = spacing(grid, slice(100, 300))
    for i in (0, 199):
        middle = latitude - (100 + i + 0.5) * step
        geod = Geod(ellps="WGS84")
        assert east[i, 0] == pytest.approx(geod.inv(7, middle, 7 + step, middle)[2], rel=1e-6)
        assert south[i, 0] == pytest.approx(geod.inv(7, middle - step / 2, 7, middle + step / 2)[2], rel=1e-6)


def test_units_of_length(shop: Workshop, write: Write) -> None:
    """A grid in US survey feet with heights in them has the slopes of the same in metres; one without units has metres."""
    raw, transform = surface("float64"), from_origin(500_000, 5_000_000, 10, 10)
    metres = run(shop, write(raw), Terrain(attribute="slope"))
    feet = write(raw, "feet.tif")
    with rasterio.open(feet, "r+") as dataset:
        dataset.crs, dataset.transform, dataset.units = "EPSG:2263", transform, ("US survey foot",)
    alike(run(shop, feet, Terrain(attribute="slope")), metres, 1e-9)
    with rasterio.open(feet, "r+") as dataset:
        dataset.units = ("m",)
    steeper = run(shop, feet, Terrain(attribute="slope"))
    alike(steeper, np.ma.arctan(np.ma.tan(metres * (math.pi / 180)) * (3937 / 1200)) * (180 / math.pi), 1e-9)


def test_rows_from_south_to_north(shop: Workshop, write: Write) -> None:
    """A grid upside down has the same slopes, directions and shades."""
    raw = surface("int16")
    for attribute in ("slope", "aspect", "hillshade"):
        wanted = run(shop, write(raw), Terrain(attribute=attribute))
        path = write(raw[:, ::-1], "upside.tif")
        with rasterio.open(path, "r+") as dataset:
            dataset.transform = Affine(10, 0, 500_000, 0, 10, 5_000_000 - 610)
        alike(run(shop, path, Terrain(attribute=attribute))[::-1], wanted, 1e-4)


def test_small_rasters_have_no_result(shop: Workshop, write: Write) -> None:
    """One pixel, or two rows, have no pixel with eight neighbours; three by three have one."""
    for shape, count in (((1, 1), 0), ((2, 9), 0), ((3, 3), 1)):
        found = run(shop, write(surface("int16", (61, 83))[:, : shape[0], : shape[1]]), Terrain(attribute="slope"))
        assert found.count() == count


def test_what_is_not_finite_is_nodata(shop: Workshop, write: Write) -> None:
    """An infinite height has no slope around it (its own is of its neighbours'), and NaN is nodata as ever."""
    raw = surface("float32")
    raw[0, 40, 40], raw[0, 50, 60] = math.inf, math.nan
    found = run(shop, write(raw), Terrain(attribute="hillshade"))
    hidden = np.ma.getmaskarray(found)[1:-1, 1:-1]
    assert hidden.sum() == 8 + 9
    assert found.min() >= 1


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["rotated", "unplaced", "unit"])
def test_grids_that_say_no_distance(kind: str, shop: Workshop, write: Write) -> None:
    """Are refused for what needs one, and no more."""
    path = write(surface("int16"), placed=kind != "unplaced")
    with rasterio.open(path, "r+") as dataset:
        if kind == "rotated":
            dataset.transform = Affine(10, 2, 500_000, 2, -10, 5_000_000)
        elif kind == "unit":
            dataset.units = ("K",)
    words = {"rotated": "is rotated", "unplaced": "has no transform", "unit": "band 1 is in k, which is no known unit"}
    with pytest.raises(SourceError, match=words[kind]):
        shop.transform(path, operation=Terrain(attribute="slope"))
    assert run(shop, path, Terrain(attribute="tri")).count() == 59 * 81


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"attribute": "curvature"}, "slope"),
        ({"attribute": "slope", "z_factor": 0}, "greater than 0"),
        ({"attribute": "tpi", "percent": True}, "percent is of attribute slope, not of tpi"),
        ({"attribute": "slope", "azimuth": 90.0}, "azimuth is of attribute hillshade"),
        ({"attribute": "hillshade", "altitude": 91.0}, "less than or equal to 90"),
    ],
)
def test_choices_that_do_not_fit(choices: dict[str, Any], words: str) -> None:
    """Each is told."""
    with pytest.raises(ValidationError, match=words):
        Terrain(**choices)
