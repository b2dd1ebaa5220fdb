"""Integers of 32 and 64 bits: values and nodata stay exact, or it is said; the oracles are NumPy and gdalinfo."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from lib.errors import UsageError
from lib.jobs import RasterJob, VerifyJob
from lib.raster import verify
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
HEIGHT, WIDTH = 70, 90
HOLES = np.random.default_rng(5).random((HEIGHT, WIDTH)) < 0.2
KINDS = {"int64": "Int64", "uint64": "UInt64"}
SENTINELS = [
    ("int64", -(2**63)),
    ("int64", 2**63 - 1),
    ("int64", 2**53 + 1),
    ("uint64", 2**64 - 1),
    ("uint64", 2**60 + 1),
]


def declared(path: Path) -> int:
    """The nodata value of a raster's first band, as gdalinfo has it."""
    said = subprocess.run(["gdalinfo", "-json", str(path)], capture_output=True, text=True, check=True).stdout
    return int(json.loads(said)["bands"][0]["noDataValue"])


def pixels(dtype: str, nodata: int) -> np.ndarray:
    """Numbers beside the nodata value that one float64 takes for it, and the value itself in the holes."""
    beside = [nodata - 1 if nodata > 0 else nodata + 1, 5, 2**53, 2**53 + 2, 0]
    raw = np.resize(np.array(beside, dtype), (1, HEIGHT, WIDTH))
    raw[0][HOLES] = nodata
    return raw


def sources(write: Write, dtype: str, nodata: int) -> list[Path]:
    """The same raster as a VRT and, made of it by GDAL's own program, as a GeoTIFF."""
    plain = write(pixels(dtype, nodata), "plain.tif")
    mosaic = plain.with_name("in.vrt")
    mosaic.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><VRTRasterBand dataType="{KINDS[dtype]}" band="1">'
        f'<NoDataValue>{nodata}</NoDataValue><SimpleSource><SourceFilename relativeToVRT="1">plain.tif'
        "</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
        encoding="ascii",
    )
    tiff = plain.with_name("in.tif")
    subprocess.run(["gdal_translate", "-q", str(mosaic), str(tiff)], check=True)
    return [mosaic, tiff]


def verified(shop: Workshop, job: RasterJob, expected: dict[str, Any]) -> None:
    """The full verification passes."""
    check = VerifyJob(
        source=job.source, output=job.destination, work=job, expected=expected, level="full", resources=job.resources
    )
    bench = shop.bench(None)
    work = verify.prepare(check, shop.room(check))
    work.first()
    work.run(bench)
    work.close()
    assert {each.name for each in bench.checks} >= {"structure", "decodes", "recomputed windows"}
    assert all(each.passed for each in bench.checks), bench.checks


@pytest.mark.parametrize(("dtype", "nodata"), SENTINELS)
def test_a_copy_keeps_the_nodata_value(shop: Workshop, write: Write, dtype: str, nodata: int) -> None:
    """It is declared with all its digits, each pixel is what it was, and those that a float takes for it are valid."""
    for source in sources(write, dtype, nodata):
        job = shop.job(source)
        plan, outcome = shop.run(job)
        assert declared(shop.folder / "out.tif") == nodata
        np.testing.assert_array_equal(shop.output, pixels(dtype, nodata))
        assert outcome.result["nodata_pixels"] == np.count_nonzero(HOLES)
        with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
            np.testing.assert_array_equal(dataset.read_masks(1) == 0, HOLES)
        verified(shop, job, json.loads(json.dumps(plan.expected)))


@pytest.mark.parametrize(("dtype", "nodata"), SENTINELS)
@pytest.mark.parametrize("operation", [{"name": "rescale"}, {"name": "normalise", "scale": 4, "clip": (-1e19, 1e19)}])
def test_what_was_nodata_is_nan(shop: Workshop, write: Write, dtype: str, nodata: int, operation: dict) -> None:
    """Exactly the holes are, and the rest is float64 of the integers; that those beyond 2**53 are rounded is said."""
    for source in sources(write, dtype, nodata):
        job = shop.job(source, operation=operation)
        plan, outcome = shop.run(job)
        wanted = pixels(dtype, nodata)[0].astype("float64") / operation.get("scale", 1)
        np.testing.assert_array_equal(shop.output[0], np.where(HOLES, np.nan, wanted))
        assert outcome.warnings == (f"{source.name}: pixels of {dtype} beyond 2**53 are rounded to float64",)
        verified(shop, job, plan.expected)


@pytest.mark.parametrize(("dtype", "nodata"), SENTINELS)
def test_a_nodata_value_that_is_asked_for(shop: Workshop, write: Write, dtype: str, nodata: int) -> None:
    """As a text with all its digits; a valid pixel that has it moves beside it."""
    raw = pixels(dtype, nodata)
    source = write(raw, nodata=5)
    job = shop.job(source, nodata=str(nodata))
    plan, _ = shop.run(job)
    moved = nodata - 1 if nodata == np.iinfo(dtype).max else nodata + 1
    wanted = np.where(raw == 5, nodata, np.where(raw == nodata, np.array(moved, dtype), raw)).astype(dtype)
    np.testing.assert_array_equal(shop.output, wanted)
    assert declared(shop.folder / "out.tif") == nodata
    verified(shop, job, json.loads(json.dumps(plan.expected)))


def test_a_nodata_value_one_too_large_is_refused(shop: Workshop, write: Write) -> None:
    """The error has all its digits."""
    source = write(pixels("int64", 7))
    with pytest.raises(UsageError, match="nodata 9223372036854775808 does not fit into int64"):
        shop.transform(source, nodata=str(2**63))


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("name", ["rescale", "normalise"])
def test_wide_integers_keep_their_digits(shop: Workshop, write: Write, dtype: str, name: str) -> None:
    """Beyond 2**24, where float32 ends, results are float64: exact up to 2**53."""
    most = min(np.iinfo(dtype).max, 2**53)
    raw = np.resize(np.array([2**24 + 1, most, most - 1, 100_000_001, np.iinfo(dtype).min % 2**31], dtype), (1, 40, 50))
    operation = {"name": name} if name == "rescale" else {"name": name, "scale": 1, "clip": (0, 1e17)}
    _, outcome = shop.transform(write(raw), operation=operation)
    assert shop.output.dtype == np.float64
    np.testing.assert_array_equal(shop.output.astype(dtype), raw)
    assert outcome.warnings == ()


def test_a_function_gets_float32_and_it_is_said(shop: Workshop, write: Write) -> None:
    """Integers beyond 2**24 reach a user's function rounded."""
    raw = np.full((1, 40, 50), 2**24 + 1, "int32")
    _, outcome = shop.transform(
        write(raw), operation={"name": "custom", "function": "tests.raster.test_wide_integers:same"}
    )
    assert outcome.warnings == ("in.tif: pixels of int32 beyond 2**24 reach the function rounded to float32",)


def same(pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A function that changes nothing."""
    del valid
    return pixels
