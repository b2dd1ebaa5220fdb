"""`dtype`, `scale_offset` and `rescale --unscale` against NumPy and gdal_translate: rounding, saturation, nodata, the header."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from lib.errors import UsageError
from lib.operations import Copy, Expression, Normalise, Rescale
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RANDOM = np.random.default_rng(18)
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def header(shop: Workshop) -> dict[str, Any]:
    """What the output says of itself."""
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        return dataset.profile | {"scales": dataset.scales, "offsets": dataset.offsets, "units": dataset.units}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_results_are_rounded_and_saturate(dtype: str, shop: Workshop, write: Write) -> None:
    """Half away from zero; what is beyond an end of the type is that end, and does not wrap around."""
    limits = np.iinfo(dtype)
    odd = [0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 1e30, -1e30, float(limits.max), float(limits.min), 7.4, np.inf]
    raw = np.resize(np.array(odd, "float64"), (1, 30, 41))
    shop.transform(write(raw), operation=Copy(), dtype=dtype)
    exact = np.where(raw < 0, np.ceil(raw - 0.5), np.floor(raw + 0.5))
    wanted = np.array([min(max(each, float(limits.min)), float(limits.max)) for each in exact.reshape(-1)])
    said = subprocess.run(["gdalinfo", "-json", shop.folder / "out.tif"], capture_output=True, text=True, check=True)
    nodata = int(json.loads(said.stdout)["bands"][0]["noDataValue"])
    assert nodata == (limits.min or limits.max)
    expected = [min(int(each), limits.max) for each in wanted]
    beside = limits.min + 1 if limits.min else limits.max - 1  # a valid pixel that nodata would hide
    expected = [beside if each == nodata else each for each in expected]
    assert shop.output.reshape(-1).tolist() == expected


@pytest.mark.parametrize(("source", "dtype"), [("float32", "uint8"), ("float32", "int16"), ("int16", "uint8")])
def test_it_is_what_gdal_translate_writes(source: str, dtype: str, shop: Workshop, write: Write) -> None:
    """The pixels of `gdal_translate -ot`, but for those that would be taken for nodata."""
    raw = (RANDOM.random((1, 90, 110)) * 700 - 200).astype(source)
    path = write(raw)
    kind = {"uint8": "Byte", "int16": "Int16"}[dtype]
    subprocess.run(["gdal_translate", "-q", "-ot", kind, str(path), str(shop.folder / "peer.tif")], check=True)
    shop.transform(path, operation=Copy(), dtype=dtype)
    with environment(), rasterio.open(shop.folder / "peer.tif") as peer:
        expected = peer.read()
    nodata = header(shop)["nodata"]
    found = shop.output
    np.testing.assert_array_equal(found[expected != nodata], expected[expected != nodata])
    assert (found != nodata).all()


@pytest.mark.parametrize("kind", ["value", "nan", "mask"])
def test_nodata_stays_nodata(kind: str, shop: Workshop, write: Write) -> None:
    """A value that the new type cannot hold, NaN, a mask band."""
    holes = RANDOM.random((70, 80)) < 0.3
    raw = (RANDOM.random((2, 70, 80)) * 100).astype("float32")
    if kind == "value":
        raw[:, holes] = -9999
        path = write(raw, nodata=-9999)
    elif kind == "nan":
        raw[:, holes] = np.nan
        path = write(raw)
    else:
        path = write(raw, mask=~holes)
    shop.transform(path, operation=Copy(), dtype="uint8")
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read_masks() == 0, np.stack([holes, holes]))
        np.testing.assert_array_equal(dataset.read()[:, ~holes], np.floor(raw[:, ~holes].astype("f8") + 0.5))


def test_reflectance_fits_int16(shop: Workshop, write: Write) -> None:
    """Scaled by what the header then says: GDAL's unscaled values are the results to half a step."""
    raw = RANDOM.integers(1, 10000, (2, 90, 110)).astype("uint16")
    raw[:, :5] = 0
    operation = Expression(expr="(b1 - b2) / (b1 + b2)")
    shop.transform(write(raw, nodata=0), operation=operation, dtype="int16", scale_offset=(0.0001, 0.0))
    said = header(shop)
    assert (said["dtype"], said["scales"], said["offsets"], said["nodata"]) == ("int16", (0.0001,), (0.0,), -32768)
    one, other = raw.astype("float64")
    exact = (one[5:] - other[5:]) / (one[5:] + other[5:])
    np.testing.assert_allclose(shop.output[0, 5:] * 0.0001, exact, atol=0.00005001)
    assert (shop.output[0, :5] == -32768).all()


def test_a_copy_may_be_scaled(shop: Workshop, write: Write) -> None:
    """Kelvin in float32 as Celsius' steps in uint16: offset and scale in the header, invalid pixels at the type's end."""
    raw = (RANDOM.random((1, 60, 70)) * 60 + 250).astype("float32")
    raw[0, 0, :9] = np.nan
    shop.transform(write(raw), operation=Copy(), dtype="uint16", scale_offset=(0.01, 200.0))
    said = header(shop)
    assert (said["scales"], said["offsets"], said["nodata"]) == ((0.01,), (200.0,), 65535)
    np.testing.assert_allclose(shop.output[0, 1:] * 0.01 + 200, raw[0, 1:], atol=0.00501)


def test_pixels_become_what_they_stand_for(shop: Workshop, write: Write) -> None:
    """Each band by its own scale and offset, which the output then has not; its unit stays true."""
    raw = RANDOM.integers(-3000, 3000, (2, 90, 110)).astype("int16")
    path = write(raw, nodata=-3000)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (0.5, 0.001), (10.0, -2.0), ("K", "m")
    shop.transform(path, operation=Rescale(unscale=True))
    expected = np.stack([raw[0] * 0.5 + 10, raw[1] * 0.001 - 2]).astype("float32")
    expected[raw == -3000] = np.nan
    np.testing.assert_array_equal(shop.output, expected)
    said = header(shop)
    assert (said["scales"], said["offsets"], said["units"]) == ((1.0, 1.0), (0.0, 0.0), ("K", "m"))


def test_what_was_scaled_comes_back(shop: Workshop, write: Write) -> None:
    """Unscaled and scaled again alike, pixels are what they were."""
    raw = RANDOM.integers(-3000, 3000, (1, 90, 110)).astype("int16")
    path = write(raw, nodata=-32768)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.01,), (5.0,)
    shop.transform(path, operation=Rescale(unscale=True), dtype="int16", scale_offset=(0.01, 5.0))
    np.testing.assert_array_equal(shop.output, raw)
    assert (header(shop)["scales"], header(shop)["offsets"]) == ((0.01,), (5.0,))


def test_a_wider_type_keeps_every_value(shop: Workshop, write: Write) -> None:
    """64-bit integers stay exact from type to type."""
    raw = np.array([[[2**63 - 1, 2**53 + 1, -5, 0]]], "int64")
    shop.transform(write(raw), operation=Copy(), dtype="uint64")
    assert shop.output.reshape(-1).tolist() == [2**63 - 1, 2**53 + 1, 0, 0]


def test_a_nodata_value_of_the_new_type(shop: Workshop, write: Write) -> None:
    """As asked, if the type can hold it."""
    raw = np.full((1, 30, 30), np.nan, "float32")
    shop.transform(write(raw), operation=Normalise(scale=1), dtype="uint8", nodata=9)
    assert (shop.output == 9).all()
    with pytest.raises(UsageError, match="nodata 300 does not fit into uint8"):
        shop.transform(write(raw), operation=Normalise(scale=1), dtype="uint8", nodata=300)


def test_a_scale_of_nothing_is_an_error(shop: Workshop, write: Write) -> None:
    """It would divide by zero."""
    with pytest.raises(ValueError, match="scale_offset must not be 0"):
        shop.job(write(np.zeros((1, 8, 8), "uint8")), scale_offset=(0, 1))


@pytest.mark.parametrize("dtype", ["uint32", "int64", "float64"])
@pytest.mark.parametrize(
    "operation", [Rescale(multiply=65537.5), Expression(expr="b1 * 65537.5")], ids=["rescale", "expr"]
)
def test_a_wide_type_gets_all_digits(operation: Any, dtype: str, shop: Workshop, write: Write) -> None:
    """What is written in a type with more digits than float32 is computed with them, however narrow the source is."""
    raw = RANDOM.integers(1, 32768, (1, 40, 50)).astype("uint16")
    shop.transform(write(raw), operation=operation, dtype=dtype)
    exact = raw.astype("float64") * 65537.5
    np.testing.assert_array_equal(shop.output, exact if dtype == "float64" else np.floor(exact + 0.5).astype(dtype))
