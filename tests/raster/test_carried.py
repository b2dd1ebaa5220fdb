"""What an output takes over from its source, read back with rasterio; nothing stands beside the TIFF."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from lib.errors import SourceError
from lib.jobs import RasterJob
from lib.operations import Normalise
from lib.raster.carried import read_provenance
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RAW = np.random.default_rng(1).integers(1, 9000, (2, 70, 90), dtype="uint16")


def test_georeferencing_tags_and_descriptions(shop: Workshop, write: Write) -> None:
    """CRS, transform, tags of dataset and bands in every plain namespace, descriptions and AREA_OR_POINT are carried."""
    source = write(RAW, nodata=0)
    with rasterio.open(source, "r+") as dataset:
        dataset.update_tags(SENSOR="MSI", AREA_OR_POINT="Point", TIFFTAG_DATETIME="2020:01:01 00:00:00")
        dataset.update_tags(ns="ORBIT", NUMBER="77", NOTE="a < b & ünï")
        dataset.update_tags(1, WAVELENGTH="665", STATISTICS_MEAN="12", STATISTICS_MAXIMUM="13")
        dataset.update_tags(2, ns="CALIBRATION", GAIN="1.5")
        dataset.set_band_description(1, "red")
        dataset.set_band_description(2, "near infrared")
    shop.transform(source, operation=Normalise(), bands=(2, 1))
    with rasterio.open(source) as before, rasterio.open(shop.folder / "out.tif") as after:
        assert after.crs == before.crs
        assert after.transform == before.transform
        assert after.descriptions == ("near infrared", "red")
        tags = after.tags()
        assert (tags["SENSOR"], tags["AREA_OR_POINT"], tags["TIFFTAG_DATETIME"]) == (
            "MSI",
            "Point",
            "2020:01:01 00:00:00",
        )
        assert after.tags(ns="ORBIT") == {"NUMBER": "77", "NOTE": "a < b & ünï"}
        assert after.tags(1, ns="CALIBRATION") == {"GAIN": "1.5"}
        assert after.tags(2) == {"WAVELENGTH": "665"}
        assert np.isnan(after.nodata)
    assert sorted(path.name for path in shop.folder.iterdir()) == ["in.tif", "out.tif"]


def test_ground_control_points(shop: Workshop, write: Write) -> None:
    """Points and their CRS take the transform's place."""
    corners = ((0, 0), (0, 90), (70, 0), (70, 90))
    points = [
        GroundControlPoint(row, col, 10 + col / 100, 50 - row / 100, 3, id=f"{row} {col}") for row, col in corners
    ]
    source = write(RAW, placed=False, gcps=points, crs="EPSG:4326")
    shop.transform(source)
    with rasterio.open(source) as before, rasterio.open(shop.folder / "out.tif") as after:
        (found, crs), (wanted, _) = after.gcps, before.gcps
        assert crs.to_epsg() == 4326
        assert [(p.row, p.col, p.x, p.y, p.z) for p in found] == [(p.row, p.col, p.x, p.y, p.z) for p in wanted]


def test_more_points_than_a_tiff_holds(shop: Workshop, write: Write) -> None:
    """As many points as a TIFF's tag takes are all carried; with one more, which GDAL puts beside the file, a job is refused."""
    points = [GroundControlPoint(n // 90 % 70, n % 90, n / 1000, n / 2000, 0) for n in range(10_922)]
    source = write(RAW, placed=False, gcps=points, crs="EPSG:4326")
    shop.transform(source)
    with rasterio.open(shop.folder / "out.tif") as after:
        assert len(after.gcps[0]) == 10_922
    assert sorted(path.name for path in shop.folder.iterdir()) == ["in.tif", "out.tif"]
    listed = "".join(f'<GCP Id="{n}" Pixel="{n % 90}" Line="{n // 90 % 70}" X="{n}" Y="{n}"/>' for n in range(10_923))
    more = shop.folder / "more.vrt"
    more.write_text(
        f'<VRTDataset rasterXSize="90" rasterYSize="70"><GCPList Projection="EPSG:4326">{listed}</GCPList><VRTRasterBand '
        'dataType="UInt16" band="1"><SimpleSource><SourceFilename relativeToVRT="1">in.tif</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>",
        encoding="ascii",
    )
    with pytest.raises(SourceError, match="10923 ground control points, a GeoTIFF holds 10922"):
        shop.transform(more)


def test_points_beside_a_transform(shop: Workshop, write: Write) -> None:
    """A VRT may have both: the points are carried, and that the transform is not is said."""
    write(RAW, "real.tif")
    path = shop.folder / "in.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="90" rasterYSize="70"><SRS>EPSG:32633</SRS><GeoTransform>500000,10,0,5000000,0,-10'
        '</GeoTransform><GCPList Projection="EPSG:4326"><GCP Id="a" Pixel="0" Line="0" X="10" Y="50"/></GCPList><VRTRasterBand '
        'dataType="UInt16" band="1"><SimpleSource><SourceFilename relativeToVRT="1">real.tif</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>",
        encoding="ascii",
    )
    _, outcome = shop.transform(path)
    assert outcome.warnings == (
        "in.vrt: a GeoTIFF has ground control points or a transform: its transform is not kept beside its points",
    )
    with environment(), rasterio.open(shop.folder / "out.tif") as after:
        assert [(p.x, p.y) for p in after.gcps[0]] == [(10, 50)]


def test_rational_polynomials(shop: Workshop, write: Write) -> None:
    """RPCs are carried."""
    rpcs = RPC(100, 10, 50, 1, [1.0] * 20, [2.0] * 20, 35, 35, 11, 1, [3.0] * 20, [4.0] * 20, 45, 45, 0.5, 0.5)
    source = write(RAW, placed=False, rpcs=rpcs)
    shop.transform(source)
    with environment(), rasterio.open(shop.folder / "out.tif") as after:
        assert after.rpcs == rpcs


@pytest.mark.parametrize(
    ("operation", "factor", "shift"),
    [
        ({"name": "normalise", "scale": 500, "clip": (0, 1e9)}, 1 / 500, 0.0),
        ({"name": "rescale", "multiply": -4, "add": 100}, -4.0, 100.0),
    ],
)
def test_physical_values_stay(shop: Workshop, write: Write, operation: dict, factor: float, shift: float) -> None:
    """Scale and offset are adjusted so that scale * pixel + offset is the same quantity, in the same unit."""
    source = write(RAW)
    with rasterio.open(source, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (0.02, 0.5), (-3.0, 7.0), ("K", "m")
    shop.transform(source, operation=operation)
    with rasterio.open(shop.folder / "out.tif") as after:
        assert after.units == ("K", "m")
        for i, (scale, offset) in enumerate(((0.02, -3.0), (0.5, 7.0))):
            physical = after.read(i + 1).astype(float) * after.scales[i] + after.offsets[i]
            np.testing.assert_allclose(physical, RAW[i] * scale + offset, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(after.scales, [0.02 / factor, 0.5 / factor])
        assert shift == 0 or after.offsets[0] == pytest.approx(-3 - shift * 0.02 / factor)


def test_a_unit_of_unscaled_pixels_is_not_carried(shop: Workshop, write: Write) -> None:
    """Metres divided by ten thousand are no metres: the unit of changed values goes; unchanged ones keep it."""
    source = write(RAW)
    with rasterio.open(source, "r+") as dataset:
        dataset.units = ("m", "m")
    shop.transform(source, operation=Normalise())
    with rasterio.open(shop.folder / "out.tif") as after:
        assert after.units == (None, None)
        assert after.scales == (1.0, 1.0)
    shop.transform(source, operation={"name": "rescale"})
    with rasterio.open(shop.folder / "out.tif") as after:
        assert after.units == ("m", "m")


def test_a_colour_table_of_changed_pixels_is_not_carried(shop: Workshop, write: Write) -> None:
    """Float pixels are no indexes into a colour table."""
    source = write(RAW[:1].astype("uint8"), photometric="PALETTE")
    with rasterio.open(source, "r+") as dataset:
        dataset.write_colormap(1, {0: (255, 0, 0, 255), 1: (0, 255, 0, 255)})
    shop.transform(source, operation=Normalise())
    with rasterio.open(shop.folder / "out.tif") as after:
        assert after.colorinterp == (ColorInterp.gray,)
        with pytest.raises(ValueError, match="NULL color table"):
            after.colormap(1)


def test_provenance(shop: Workshop, write: Write) -> None:
    """The output says how it was made and of what, as a job that can be read back; no folders, limits or times."""
    source = write(RAW, nodata=0)
    shop.transform(source, operation={"name": "rescale", "multiply": 2}, bands=(2,), compress="lzw")
    with rasterio.open(shop.folder / "out.tif") as dataset:
        tags = dataset.tags()
    identity = json.loads(tags["SWATH_SOURCE"])
    assert identity == {"name": "in.tif", "bytes": source.stat().st_size, "mtime_ns": source.stat().st_mtime_ns}
    assert str(shop.folder) not in "".join(tags.values())
    record = read_provenance(shop.folder / "out.tif")
    job = RasterJob.model_validate(record | {"resources": {"limit_bytes": 1}})
    assert (job.operation.name, job.operation.multiply, job.bands, job.compress) == ("rescale", 2.0, (2,), "lzw")
    assert read_provenance(source) is None


def rich(write: Write, **more: Any) -> Path:
    """Two bands that say all that bands can say of themselves."""
    source = write(RAW, nodata=0, **more)
    with rasterio.open(source, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (0.5, 0.25), (1.0, 2.0), ("K", "m")
        for band in (1, 2):
            dataset.set_band_description(band, f"band {band}")
            dataset.update_tags(band, WAVELENGTH=str(band))
    return source


# By operation: what its bands still have, and which words tell of the rest.
ALL = {"scale", "unit", "description", "tags"}
OPERATIONS: list[tuple[dict[str, Any], set[str], str]] = [
    ({}, ALL, ""),
    ({"cog": True}, ALL, ""),
    ({"dtype": "float64"}, ALL, ""),
    ({"operation": {"name": "rescale"}}, ALL, ""),
    ({"operation": {"name": "rescale", "unscale": True}}, ALL - {"scale"}, ""),
    ({"scale_offset": (0.5, 1.0)}, ALL - {"unit"}, "the unit of changed values is not known: m, K is not kept"),
    ({"operation": {"name": "expression", "expr": "b1 + 1; b2"}}, set(), "bands' scale and offset, descriptions, tags"),
    (
        {"operation": {"name": "reclassify", "table": "0:5000=1,*=2"}},
        {"description", "tags"},
        "bands' scale and offset",
    ),
    ({"operation": {"name": "focal"}}, ALL, ""),
    ({"operation": {"name": "focal", "statistic": "max"}}, ALL, ""),
    ({"operation": {"name": "focal", "statistic": "sum"}}, {"description", "tags"}, "bands' scale and offset"),
    ({"operation": {"name": "focal", "statistic": "std"}}, {"description", "tags"}, "bands' scale and offset"),
    ({"operation": {"name": "terrain", "attribute": "tpi"}}, {"description", "tags"}, "bands' scale and offset"),
    ({"operation": {"name": "clip", "bbox": (500_000, 4_999_700, 500_300, 5_000_000)}}, ALL, ""),
    ({"operation": {"name": "warp", "resolution": (20.0,), "resampling": "average"}}, ALL, ""),
    (
        {"operation": {"name": "warp", "resolution": (20.0,), "resampling": "sum"}},
        {"description", "tags"},
        "bands' scale and offset",
    ),
    (
        {"operation": {"name": "custom", "function": "tests.faults.functions:unchanged"}},
        {"description", "tags"},
        "bands' scale and offset",
    ),
]


@pytest.mark.parametrize(("choices", "kept", "words"), OPERATIONS)
def test_bands_by_operation(shop: Workshop, write: Write, choices: dict[str, Any], kept: set[str], words: str) -> None:
    """In the order of --bands, each operation keeps what stays true of its bands; a warning names the rest, or there is none."""
    _, outcome = shop.transform(rich(write), bands=(2, 1), verify="none", **choices)
    with environment(), rasterio.open(shop.folder / "out.tif") as after:
        assert (after.scales == (0.25, 0.5)) == ("scale" in kept and "scale_offset" not in choices)
        assert (after.units == ("m", "K")) == ("unit" in kept)
        assert (after.descriptions == ("band 2", "band 1")) == ("description" in kept)
        assert ([after.tags(band).get("WAVELENGTH") for band in (1, 2)] == ["2", "1"]) == ("tags" in kept)
    said = "\n".join(each for each in outcome.warnings if "valid pixels equal" not in each)
    assert (words in said) if words else not said


def test_points_of_pixels_that_are_points(shop: Workshop, write: Write) -> None:
    """GDAL moves ground control points by a pixel where AREA_OR_POINT is Point: that is said, and the points stay."""
    corners = ((0, 0), (0, 90), (70, 0), (70, 90))
    source = write(RAW, placed=False, gcps=[GroundControlPoint(r, c, c, r, 0) for r, c in corners], crs="EPSG:4326")
    with rasterio.open(source, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point")
    _, outcome = shop.transform(source)
    with environment(), rasterio.open(source) as before, rasterio.open(shop.folder / "out.tif") as after:
        assert [(p.row, p.col) for p in after.gcps[0]] == [(p.row, p.col) for p in before.gcps[0]]
    assert any("AREA_OR_POINT=Point is not kept beside ground control points" in each for each in outcome.warnings)


def test_polynomials_of_a_part(shop: Workshop, write: Write) -> None:
    """RPCs of a part are of its own lines and samples."""
    rpcs = RPC(100, 10, 50, 1, [1.0] * 20, [2.0] * 20, 35, 35, 11, 1, [3.0] * 20, [4.0] * 20, 45, 45, 0.5, 0.5)
    source = write(RAW, rpcs=rpcs)
    shop.transform(source, operation={"name": "clip", "bbox": (500_200, 4_999_500, 500_500, 4_999_900)})
    with environment(), rasterio.open(shop.folder / "out.tif") as after:
        assert (after.rpcs.line_off, after.rpcs.samp_off) == (25, 25)
