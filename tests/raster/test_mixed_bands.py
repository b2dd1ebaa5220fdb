"""Bands of different dtypes: all in the type that holds each of their pixels, or refused before any work."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lib.errors import SourceError
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
HEIGHT, WIDTH = 70, 90
KINDS = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "int64": "Int64", "uint64": "UInt64", "float32": "Float32", "float64": "Float64",
}  # fmt: skip


def extremes(dtype: str) -> np.ndarray:
    """Pixels of the whole range of a dtype, its ends among them."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = [np.finfo(kind).max, np.finfo(kind).tiny, 0.1, -0.1, 0]
    else:
        values = [np.iinfo(kind).min, np.iinfo(kind).max, 7, 1, np.iinfo(kind).max - 1]
    return np.resize(np.array(values, kind), (HEIGHT, WIDTH))


def separate(write: Write, *dtypes: str, nodata: tuple[float | None, ...] = (None, None, None)) -> Path:
    """A VRT with a band of each dtype, as `gdalbuildvrt -separate` makes them."""
    bands = ""
    for number, dtype in enumerate(dtypes, 1):
        write(extremes(dtype)[None], f"{number}.tif")
        value = nodata[number - 1]
        bands += (
            f'<VRTRasterBand dataType="{KINDS[dtype]}" band="{number}">'
            + ("" if value is None else f"<NoDataValue>{value}</NoDataValue>")
            + f'<SimpleSource><SourceFilename relativeToVRT="1">{number}.tif</SourceFilename></SimpleSource></VRTRasterBand>'
        )
    path = write(extremes("uint8")[None], "unused.tif").with_name("in.vrt")
    path.write_text(f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{bands}</VRTDataset>', encoding="ascii")
    return path


@pytest.mark.parametrize(
    ("dtypes", "common"),
    [
        (("uint8", "uint16"), "uint16"),
        (("uint16", "int16"), "int32"),
        (("uint32", "int8"), "int64"),
        (("int16", "float32"), "float32"),
        (("int32", "float32"), "float64"),
        (("uint8", "uint64", "uint32"), "uint64"),
    ],
)
@pytest.mark.parametrize("max_chunk_bytes", [100_000, 2_000_000])
def test_a_copy_is_of_the_type_that_holds_all(
    shop: Workshop, write: Write, dtypes: tuple[str, ...], common: str, max_chunk_bytes: int
) -> None:
    """Each band's pixels are its own in NumPy's common type, and the report says so; plan and work agree."""
    source = separate(write, *dtypes)
    choices = {"block_size": 64, "resources": {"max_chunk_bytes": max_chunk_bytes}}
    assert shop.first(shop.job(source, **choices)).expected["dtype"] == common
    plan, outcome = shop.transform(source, **choices)
    assert plan.expected["dtype"] == common
    np.testing.assert_array_equal(shop.output, np.stack([extremes(each).astype(common) for each in dtypes]))
    assert outcome.warnings == (
        f"in.vrt: its bands of {', '.join(dtypes)} are written as {common}, which holds each of their pixels",
    )


def test_nodata_of_all_is_kept(shop: Workshop, write: Write) -> None:
    """One value that all bands declare is the output's."""
    source = separate(write, "uint8", "int16", nodata=(7, 7, None))
    shop.transform(source)
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        assert (dataset.dtypes[0], dataset.nodata) == ("int16", 7)
        for number, dtype in enumerate(("uint8", "int16"), 1):
            np.testing.assert_array_equal(dataset.read_masks(number) == 0, extremes(dtype) == 7)


@pytest.mark.parametrize("nodata", [(0, None, None), (0, 7, None)])
def test_nodata_of_one_band_needs_a_choice(shop: Workshop, write: Write, nodata: tuple[float | None, ...]) -> None:
    """Refused before any work; with a value for all, each band's own pixels are nodata."""
    source = separate(write, "uint8", "int16", nodata=nodata)
    with pytest.raises(SourceError, match="different nodata values"):
        shop.first(shop.job(source))
    shop.transform(source, nodata=-5)
    with environment(), rasterio.open(source) as before, rasterio.open(shop.folder / "out.tif") as after:
        for band in (1, 2):
            np.testing.assert_array_equal(after.read_masks(band), before.read_masks(band))


@pytest.mark.parametrize(
    "operation", [{"name": "rescale", "add": 1}, {"name": "normalise", "scale": 2, "clip": (-9, 9)}]
)
def test_operations_take_them(shop: Workshop, write: Write, operation: dict) -> None:
    """Both bands are NumPy's, and what the first declares as nodata is NaN in it alone."""
    source = separate(write, "uint8", "uint16", nodata=(7, None, None))
    shop.transform(source, operation=operation)
    for found, dtype, nodata in zip(shop.output, ("uint8", "uint16"), (7, None), strict=True):
        raw = extremes(dtype).astype("float64")
        wanted = raw + 1 if operation["name"] == "rescale" else np.clip(raw / 2, -9, 9)
        np.testing.assert_array_equal(found, np.where(raw == nodata, np.nan, wanted).astype("float32"))


def test_no_type_holds_all(shop: Workshop, write: Write) -> None:
    """64-bit integers beside floats are refused before any work, in words that name the bands; one type at a time is written."""
    source = separate(write, "int64", "float32", "uint8")
    with pytest.raises(SourceError, match="int64 in 1, float32 in 2, uint8 in 3") as caught:
        shop.first(shop.job(source))
    assert caught.value.hint == "write them one type at a time, with --bands 1 and so on"
    assert caught.value.exit_code == 2
    shop.transform(source, bands=(1,))
    np.testing.assert_array_equal(shop.output[0], extremes("int64"))
