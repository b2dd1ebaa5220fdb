"""`warp` against GDAL's own reproject of the whole raster: CRSs, resolutions, kernels, nodata, windows, bad input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import calculate_default_transform, reproject

from lib.errors import UsageError
from lib.operations import Warp
from lib.raster.formats import environment
from lib.raster.sources.dataset import open_raster
from lib.raster.sources.warped import open_warped
from lib.request import raster_job
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RANDOM = np.random.default_rng(31)
NAMES = {"cubicspline": "cubic_spline"}


def smooth(bands: int, height: int, width: int, dtype: str) -> np.ndarray:
    """A field that warps without jumps, 20 to 120."""
    rows, columns = np.mgrid[0:height, 0:width]
    base = 70 + 30 * np.sin(rows / 17) + 20 * np.cos(columns / 23)
    return np.stack([base + band for band in range(bands)]).astype(dtype)


def oracle(path: Path, found: Any, resampling: str, *, exact: bool = True, **more: Any) -> np.ndarray:
    """All bands by GDAL at once, on the grid of an output."""
    model = Warp(to_crs=found.crs.to_string(), resampling=resampling)
    with environment():
        warped = open_warped(open_raster(str(path)), model)
        x, y = warped.place.scale
        warped.close()
        with rasterio.open(path) as source:
            filled = np.zeros((source.count, *found.shape), source.dtypes[0])
            reproject(
                rasterio.band(source, source.indexes), filled, dst_transform=found.transform, dst_crs=found.crs,
                resampling=Resampling[NAMES.get(resampling, resampling)], tolerance=0 if exact else 0.125,
                XSCALE=x, YSCALE=y, **more,
            )  # fmt: skip
    return filled


@pytest.mark.parametrize(
    ("resampling", "dtype"),
    [
        *((each, dtype) for each in ("nearest", "bilinear", "average") for dtype in ("uint8", "int16", "float32")),
        ("cubic", "uint8"), ("cubicspline", "int16"), ("lanczos", "float32"), ("mode", "int16"), ("max", "uint8"),
        ("med", "float32"), ("q1", "int16"),
    ],
)  # fmt: skip
def test_it_is_what_gdal_makes_of_the_whole(resampling: str, dtype: str, shop: Workshop, write: Write) -> None:
    """On the grid that GDAL suggests; pixels and what is beyond the source are GDAL's, but for tiny shifts."""
    rows, columns = (58, 76) if resampling == "mode" else (231, 303)  # GDAL takes half a minute for the other
    raw = smooth(2, rows, columns, dtype)
    path = write(raw, nodata=0)
    shop.transform(path, operation=Warp(to_crs="EPSG:3857", resampling=resampling))
    with environment(), rasterio.open(path) as source, rasterio.open(shop.folder / "out.tif") as found:
        transform, width, height = calculate_default_transform(source.crs, "EPSG:3857", columns, rows, *source.bounds)
        assert (found.width, found.height) == (width, height)
        np.testing.assert_allclose(found.transform, transform, rtol=1e-12)
        wanted = oracle(path, found, resampling, src_nodata=0, dst_nodata=0)
        valid, pixels = found.read_masks() != 0, found.read()
    assert np.count_nonzero(valid != (wanted != 0)) <= 0.05 * 2 * 2 * (rows + columns)  # whose places lie on an edge
    both = valid & (wanted != 0)
    apart = np.abs(pixels[both].astype("float64") - wanted[both])
    assert apart.max() <= (
        4 if resampling in {"nearest", "mode", "max", "med", "q1"} else 1 if dtype != "float32" else 0.1
    )
    assert np.count_nonzero(apart > 0.05) < 0.05 * apart.size
    assert both.mean() > 0.9


def test_windows_do_not_change_pixels(shop: Workshop, write: Write) -> None:
    """Blocks of 16 and of 512, one worker and two, tiles and strips: the same bits, reduced ones too."""
    raw = (smooth(1, 230, 300, "float32") + RANDOM.normal(0, 9, (1, 230, 300))).astype("float32")
    for resolution in (None, (45.0,)):
        found = []
        for options, choices in [
            ({"tiled": True, "blockxsize": 128, "blockysize": 128}, {"block_size": 512}),
            ({}, {"block_size": 16, "resources": {"max_chunk_bytes": 20_000, "threads": 2}}),
            ({"blockysize": 1}, {"block_size": 240, "resources": {"threads": 2}}),
        ]:
            path = write(raw, **options)
            shop.transform(
                path, operation=Warp(to_crs="EPSG:3035", resampling="bilinear", resolution=resolution), **choices
            )
            found.append(shop.output)
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])


def test_a_resolution_and_an_aligned_grid(shop: Workshop, write: Write) -> None:
    """Pixels of that size, edges that are multiples of it; in the raster's own CRS where none is named."""
    raw = smooth(1, 120, 150, "float64")
    shop.transform(write(raw), operation=Warp(resolution=(30.0, 20.0), target_aligned=True, resampling="average"))
    with rasterio.open(shop.folder / "out.tif") as found:
        assert found.res == (30, 20)
        assert found.crs.to_epsg() == 32633
        assert [edge % size for edge, size in zip(found.bounds, (30, 20, 30, 20), strict=True)] == [0, 0, 0, 0]
        blocks = raw[0, :, 1:148].reshape(60, 2, 49, 3).mean(axis=(1, 3))  # the left edge lies at 500010
        np.testing.assert_allclose(found.read(1)[:, :49], blocks, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_integers_without_nodata_get_one(dtype: str, shop: Workshop, write: Write) -> None:
    """It is said; the source's own pixels of that value are the one beside it."""
    raw = smooth(1, 100, 130, dtype)
    limits = np.iinfo(dtype)
    chosen = int(limits.min) or int(limits.max)
    raw[0, 40:60, 40:60] = chosen
    path = write(raw)
    _, outcome = shop.transform(path, operation=Warp(to_crs="EPSG:4326"))
    assert any(f"declares no nodata value: pixels beyond it are {chosen}" in each for each in outcome.warnings)
    with environment(), rasterio.open(shop.folder / "out.tif") as found:
        assert found.nodata == chosen
        beside = chosen + (1 if limits.min else -1)
        assert np.count_nonzero(found.read(1) == beside) > 300
        wanted = oracle(path, found, "nearest")
        inside = oracle(write(np.ones((1, 100, 130), "uint8"), "ones.tif"), found, "nearest")
        assert np.count_nonzero((found.read_masks() != 0) != (inside != 0)) <= 4
        assert np.count_nonzero((found.read() != wanted) & (inside != 0) & (wanted != chosen)) < 0.05 * wanted.size


def test_a_nodata_value_that_is_asked_for_is_the_only_one(shop: Workshop, write: Write) -> None:
    """Pixels of the value that would have been chosen stay what they are."""
    path = write(np.full((1, 60, 70), 255, "uint8"))
    shop.transform(path, operation=Warp(to_crs="EPSG:4326"), nodata=0)
    with environment(), rasterio.open(shop.folder / "out.tif") as found:
        assert found.nodata == 0
        assert set(np.unique(found.read())) <= {0, 255}


@pytest.mark.parametrize("kind", ["mask band", "alpha"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_masks_are_warped_too(kind: str, resampling: str, shop: Workshop, write: Write) -> None:
    """A mask band stays one, alpha stays alpha; beyond the source nothing is valid."""
    raw = smooth(4, 120, 140, "uint8")
    hole = np.full((120, 140), 255, "uint8")
    hole[30:60, 40:80] = 0
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    if kind == "alpha":
        raw[3] = hole
        path = write(raw, colorinterp=colours)
    else:
        path = write(raw, mask=hole, photometric="minisblack", alpha="no")
    shop.transform(path, operation=Warp(to_crs="EPSG:3857", resampling=resampling))
    with environment(), rasterio.open(path) as source, rasterio.open(shop.folder / "out.tif") as found:
        ones = write(hole[None], "hole.tif")
        wanted = oracle(ones, found, "nearest")[0] != 0
        apart = (found.read_masks(1) != 0) != wanted
        assert found.colorinterp == source.colorinterp
        assert np.count_nonzero(apart) <= (4 if resampling == "nearest" else 300)
        assert 0.5 < wanted.mean() < 0.95


def test_points_and_bands(shop: Workshop, write: Write) -> None:
    """Ground control points are used up: the output has a grid; bands are those asked for, with their names."""
    raw = smooth(5, 100, 120, "uint16")
    path = write(raw, nodata=0, placed=False)
    corners = [(0, 0), (0, 120), (100, 0), (100, 120)]
    points = [GroundControlPoint(row, column, 500_000 + 10 * column, 5_000_000 - 10 * row) for row, column in corners]
    with environment(), rasterio.open(path, "r+") as dataset:
        dataset.gcps = points, rasterio.CRS.from_epsg(32633)
        dataset.descriptions = ["a", "b", "c", "d", "e"]
        dataset.update_tags(4, colour="red")
    shop.transform(path, operation=Warp(resolution=(10.0,)), bands=(4, 2))
    with environment(), rasterio.open(shop.folder / "out.tif") as found:
        assert found.descriptions == ("d", "b")
        assert found.tags(1) == {"colour": "red"}
        assert not found.gcps[0]
        np.testing.assert_allclose(found.transform[:6], (10, 0, 500_000, 0, -10, 5_000_000), rtol=1e-9)
        np.testing.assert_array_equal(found.read(), raw[[3, 1]])


def test_a_palette_is_kept_where_values_are(shop: Workshop, write: Write) -> None:
    """Classes picked from those that were there keep their colours; means of them are no classes."""
    path = write(RANDOM.integers(0, 3, (1, 60, 70)).astype("uint8"), nodata=255)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (255, 0, 0, 255), 1: (0, 255, 0, 255), 2: (0, 0, 255, 255)})
    for resampling, kept in (("mode", True), ("bilinear", False)):
        _, outcome = shop.transform(path, operation=Warp(to_crs="EPSG:3857", resampling=resampling))
        with rasterio.open(shop.folder / "out.tif") as found:
            assert (found.colorinterp[0] == ColorInterp.palette) == kept
        assert any("colour table" in each for each in outcome.warnings) != kept


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_one_pixel(dtype: str, shop: Workshop, write: Write) -> None:
    """It has a place on the other grid."""
    shop.transform(write(np.full((1, 1, 1), 9, dtype), nodata=0), operation=Warp(to_crs="EPSG:3857"))
    assert np.count_nonzero(shop.output == 9) == 1


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"to_crs": "EPSG:99999999"}, "--to-crs: EPSG:99999999 is no CRS that PROJ knows"),
        ({"to_crs": "nonsense"}, "--to-crs: nonsense is no CRS"),
        ({"resolution": "0"}, "--resolution: "),
        ({"resolution": "1,2,3"}, "--resolution: "),
        ({"resolution": "x"}, "--resolution: 'x' is no resolution"),
        ({"target_aligned": True}, "target_aligned needs a resolution"),
        ({"resampling": "best"}, "--resampling: "),
    ],
)
def test_what_cannot_be_warped_is_told(choices: dict[str, Any], words: str, shop: Workshop, write: Write) -> None:
    """In one line, with the flag."""
    source = write(np.zeros((1, 40, 50), "uint8"))
    with pytest.raises(UsageError, match=words):
        shop.run(raster_job(str(source), str(shop.folder / "out.tif"), operation="warp", **choices))


def test_a_raster_without_a_crs_is_told(shop: Workshop, write: Write) -> None:
    """Nothing says where it lies."""
    with pytest.raises(UsageError, match="has no CRS: nothing says where on Earth it lies"):
        shop.transform(write(np.zeros((1, 40, 50), "uint8"), placed=False), operation=Warp(to_crs="EPSG:3857"))


def test_a_place_that_the_crs_does_not_have(shop: Workshop, write: Write) -> None:
    """The far side of the Earth has none in an orthographic view."""
    with pytest.raises(UsageError, match=r"cannot be warped|leaves no pixels"):
        shop.transform(
            write(np.zeros((1, 40, 50), "uint8")), operation=Warp(to_crs="+proj=ortho +lat_0=-45 +lon_0=-165 +type=crs")
        )
