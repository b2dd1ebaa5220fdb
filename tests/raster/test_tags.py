"""Tags that repeat what a band says (netCDF, GRIB, GDAL's statistics) stay where they are true, and go where not."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from lib.raster import gdal
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RAW = np.arange(1, 2801, dtype="int16").reshape(1, 40, 70)
SCALES, FILLS, RANGES = {"scale_factor", "add_offset"}, {"_FillValue"}, {"valid_range"}


@pytest.fixture
def climate(write: Write) -> Path:
    """A netCDF by GDAL's own writer: scale, offset, fill value, range and unit stand in the band and in its tags."""
    plain = write(RAW, "plain.tif", nodata=-999)
    with rasterio.open(plain, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (0.01,), (273.15,), ("K",)
        dataset.update_tags(1, valid_range="{0,3000}", NOTE="dry", STATISTICS_MEAN="1400.5")
    path = plain.with_name("in.nc")
    subprocess.run(["gdal_translate", "-q", "-of", "netCDF", str(plain), str(path)], check=True)
    with rasterio.open(path) as dataset:
        assert set(dataset.tags(1)) >= SCALES | FILLS
    return path


def tags(path: Path, band: int = 1) -> dict[str, str]:
    """A band's tags, or the dataset's."""
    with environment(), rasterio.open(path) as dataset:
        return dict(dataset.tags(band))


def test_a_copy_keeps_them_all(shop: Workshop, climate: Path) -> None:
    """They are as true of it as of the source, and nothing is said."""
    _, outcome = shop.transform(climate)
    assert tags(shop.folder / "out.tif") == tags(climate)
    assert {key for key in tags(climate, 0) if "#" in key} <= set(tags(shop.folder / "out.tif", 0))
    assert outcome.warnings == ()


@pytest.mark.parametrize(
    ("choices", "lost"),
    [
        ({"nodata": -5}, FILLS | RANGES),
        ({"operation": {"name": "rescale", "multiply": 2}}, SCALES | FILLS | RANGES),
        ({"operation": {"name": "rescale", "multiply": 2}, "nodata": -5}, SCALES | FILLS | RANGES),
        ({"operation": {"name": "normalise", "scale": 100}}, SCALES | FILLS | RANGES),
        (
            {"operation": {"name": "custom", "function": "tests.raster.test_wide_integers:same"}},
            SCALES | FILLS | RANGES,
        ),
    ],
)
def test_what_is_no_longer_true_goes(shop: Workshop, climate: Path, choices: dict[str, Any], lost: set[str]) -> None:
    """No tag contradicts the band's own scale, offset, nodata and unit; others stay; which went is said."""
    _, outcome = shop.transform(climate, **choices)
    before, after = tags(climate), tags(shop.folder / "out.tif")
    assert set(before) - set(after) >= lost & set(before)
    assert after["NOTE"] == "dry"
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        assert float(after.get("scale_factor", dataset.scales[0])) == dataset.scales[0]
        assert float(after.get("add_offset", dataset.offsets[0])) == dataset.offsets[0]
        assert after.get("units", dataset.units[0]) == dataset.units[0]
        assert not [key for key in dataset.tags() if key.rpartition("#")[2] in lost]
    assert any("tags of the source's values or their layout are not kept: " in said for said in outcome.warnings)


def test_statistics_are_not_kept(shop: Workshop, write: Write) -> None:
    """Of no output, as nobody measured them of it; what a band says of its values stays with a copy."""
    source = write(RAW)
    with rasterio.open(source, "r+") as dataset:
        dataset.update_tags(1, STATISTICS_MEAN="1400.5", GRIB_UNIT="[K]")
    _, outcome = shop.transform(source)
    assert tags(shop.folder / "out.tif") == {"GRIB_UNIT": "[K]"}
    assert outcome.warnings == ("in.tif: tags of the source's values or their layout are not kept: STATISTICS_MEAN",)
    _, outcome = shop.transform(source, operation={"name": "normalise"})
    assert tags(shop.folder / "out.tif") == {}
    assert outcome.warnings == (
        "in.tif: tags of the source's values or their layout are not kept: GRIB_UNIT, STATISTICS_MEAN",
    )


def test_a_units_end_is_said(shop: Workshop, write: Write) -> None:
    """Metres divided by ten thousand are no metres: the unit goes, and that is said."""
    source = write(RAW)
    with rasterio.open(source, "r+") as dataset:
        dataset.units = ("m",)
    _, outcome = shop.transform(source, operation={"name": "normalise"})
    assert outcome.warnings == ("in.tif: the unit of changed values is not known: m is not kept",)


def test_a_colour_profile_is_a_copys(shop: Workshop, write: Write) -> None:
    """An ICC profile goes with the pixels that it speaks of."""
    source = write(RAW.astype("uint8"), SOURCE_ICC_PROFILE="AAAMSExpbm8=")
    with rasterio.open(source) as dataset:
        profile = dataset.tags(ns="COLOR_PROFILE")["SOURCE_ICC_PROFILE"]
    shop.transform(source)
    with rasterio.open(shop.folder / "out.tif") as dataset:
        assert dataset.tags(ns="COLOR_PROFILE")["SOURCE_ICC_PROFILE"] == profile
    _, outcome = shop.transform(source, operation={"name": "rescale"})
    assert outcome.warnings == ("in.tif: its colour profile would be wrong of the values written: not kept",)


def test_an_attribute_table_has_no_second_file(shop: Workshop, write: Write) -> None:
    """It stands in the TIFF; names of classes stand beside it, and what stood there of a former attempt does not."""
    source = write(RAW.astype("uint8") % 3)
    source.with_name("in.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable><FieldDefn index="0"><Name>Value</Name><Type>0</Type>'
        '<Usage>5</Usage></FieldDefn><Row index="0"><F>1</F></Row></GDALRasterAttributeTable></PAMRasterBand></PAMDataset>',
        encoding="ascii",
    )
    (shop.folder / "out.tif.aux.xml").write_text("<PAMDataset/>", encoding="ascii")
    _, outcome = shop.transform(source)
    assert outcome.warnings == ()
    assert not (shop.folder / "out.tif.aux.xml").exists()
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        assert gdal.attribute_rows(dataset, 1) == 1


def test_a_colour_table_of_two_bands_is_said_to_be_lost(shop: Workshop, write: Write) -> None:
    """A TIFF has one of a single band."""
    write(RAW.astype("uint8"), "real.tif")
    band = (
        '<ColorInterp>Palette</ColorInterp><ColorTable><Entry c1="9" c2="8" c3="7" c4="255"/></ColorTable><SimpleSource>'
        '<SourceFilename relativeToVRT="1">real.tif</SourceFilename></SimpleSource></VRTRasterBand>'
    )
    path = shop.folder / "in.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="70" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1">'
        f'{band}<VRTRasterBand dataType="Byte" band="2">{band}</VRTDataset>'
    )
    _, outcome = shop.transform(path)
    assert outcome.warnings == (
        "in.vrt: a GeoTIFF has a colour table of a single band of 8 or 16 bits only: it is not kept",
    )
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        assert ColorInterp.palette not in dataset.colorinterp
