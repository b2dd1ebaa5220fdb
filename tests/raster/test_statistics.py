"""Statistics of what is written against NumPy's of the whole array, and against GDAL's own."""

import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from lib.operations import Clip, Expression, Rescale
from lib.raster.formats import environment
from lib.raster.statistics import PIECE, Gatherer, Statistics
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RNG = np.random.default_rng(11)
SHAPE = (201, 317)
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def raw(dtype: str, bands: int = 1) -> np.ndarray:
    """All values of integers, a wide range of floats."""
    if np.dtype(dtype).kind == "f":
        return (RNG.normal(300, 40, (bands, *SHAPE)) * 10.0 ** RNG.integers(-2, 3, (bands, *SHAPE))).astype(dtype)
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, (bands, *SHAPE), dtype=dtype, endpoint=True)


def agree(found: dict[str, Any], pixels: np.ndarray, good: np.ndarray, *, rel: float = 1e-9) -> None:
    """Those of a report are what NumPy makes of all valid pixels at once: integers without rounding."""
    values = pixels[good]
    assert found["valid_pixels"] == values.size
    assert found["valid_percent"] == round(100 * values.size / pixels.size, 4)
    if not values.size:
        assert [found[name] for name in ("min", "max", "mean", "std")] == [None] * 4
        return
    assert (found["min"], found["max"]) == (values.min().item(), values.max().item())
    if values.dtype.kind == "f":
        wide = values.astype(np.longdouble)
        assert found["mean"] == pytest.approx(float(wide.mean()), rel=rel)
        assert found["std"] == pytest.approx(float(wide.std()), rel=rel)
    else:
        whole = [int(each) for each in values]
        total = sum(whole)
        assert found["mean"] == total / len(whole)
        squares = sum((each * len(whole) - total) ** 2 for each in whole)
        assert found["std"] == pytest.approx(math.sqrt(squares / len(whole) ** 3), rel=rel)


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
@pytest.mark.parametrize("kind", ["none", "nodata", "mask"])
def test_whole_array(shop: Workshop, write: Write, dtype: str, kind: str) -> None:
    """Of every dtype and kind of nodata, over many windows, the report says what NumPy does; without nodata and NaN."""
    pixels = raw(dtype, 2)
    hidden = RNG.random(SHAPE) < 0.3
    hidden[:130] = False
    more: dict[str, Any] = {}
    if kind == "mask":
        more = {"mask": ~hidden}
    elif kind == "nodata":
        more = {"nodata": float("nan") if np.dtype(dtype).kind == "f" else 7}
        pixels[:, hidden] = more["nodata"]
    source = write(pixels, **more)
    _, outcome = shop.transform(
        source, block_size=64, resources={"max_chunk_bytes": 60_000 * pixels.itemsize, "threads": 2}
    )
    assert outcome.result["windows"] > 2
    for band, found in enumerate(outcome.result["statistics"], 1):
        good = (
            np.ones(SHAPE, bool) if kind == "none" else ~hidden if kind == "mask" else ~is_hole(pixels[band - 1], more)
        )
        assert found["band"] == band
        agree(found, pixels[band - 1], good)


def is_hole(pixels: np.ndarray, more: dict[str, Any]) -> np.ndarray:
    """Where pixels are nodata."""
    return np.isnan(pixels) if pixels.dtype.kind == "f" else pixels == more["nodata"]


def test_integers_beyond_floats(shop: Workshop, write: Write) -> None:
    """Neighbours that float64 does not tell apart have their own lowest, highest, mean and deviation."""
    pixels = (2**62 + RNG.integers(0, 50, (1, *SHAPE))).astype("int64")
    _, outcome = shop.transform(write(pixels))
    [found] = outcome.result["statistics"]
    agree(found, pixels[0], np.ones(SHAPE, bool))
    assert found["std"] == pytest.approx((pixels[0] - 2**62).std())


def test_a_far_first_pixel(shop: Workshop, write: Write) -> None:
    """A first pixel far from all others does not cost the others their digits."""
    pixels = RNG.normal(5, 1e-3, (1, *SHAPE))
    pixels[0, 0, 0] = 1e9
    hidden = np.zeros(SHAPE, bool)
    hidden[::3] = True
    gatherer = Gatherer(pixels.dtype)
    without = gatherer.of(pixels[0, 1:], ~hidden[1:]).record(pixels[0, 1:].size)
    agree(without, pixels[0, 1:], ~hidden[1:])
    agree(gatherer.of(pixels[0], ~hidden).record(pixels[0].size), pixels[0], ~hidden)


def test_far_from_zero() -> None:
    """A deviation of a millionth of the mean keeps its digits over many pieces."""
    pixels = RNG.normal(1e8, 10, (64, PIECE // 8))
    agree(Gatherer(pixels.dtype).of(pixels, None).record(pixels.size), pixels, np.ones(pixels.shape, bool), rel=1e-7)


def test_workers_change_no_digit(shop: Workshop, write: Write) -> None:
    """One worker and two give the same statistics, to the last digit."""
    source = write(raw("float32", 3), nodata=5)
    found = []
    for threads in (1, 2):
        choices = {"block_size": 64, "resources": {"threads": threads, "max_chunk_bytes": 1_200_000}}
        _, outcome = shop.transform(source, operation=Rescale(multiply=0.37), **choices)
        found.append(outcome.result["statistics"])
    assert found[0] == found[1]


def test_new_bands_and_parts(shop: Workshop, write: Write) -> None:
    """Results have their own statistics: of an expression's bands, of the part that a clip keeps, of nothing."""
    pixels = raw("uint16", 2)
    source = write(pixels)
    _, outcome = shop.transform(source, operation=Expression(expr="b1 / (b2 - b2); b2 * 2"))
    empty, doubled = outcome.result["statistics"]
    agree(empty, shop.output[0], np.zeros(SHAPE, bool))
    agree(doubled, shop.output[1], np.ones(SHAPE, bool))
    _, outcome = shop.transform(source, operation=Clip(bbox=(500_000, 4_999_000, 500_500, 5_000_000)), bands=(2,))
    agree(outcome.result["statistics"][0], pixels[1, :100, :50], np.ones((100, 50), bool))


def test_holes(shop: Workshop, write: Write) -> None:
    """Tiles that are not written count as what is read there: nodata, or zeros."""
    for nodata in (9, None):
        path = write(np.zeros((1, 1, 1), "uint8"))
        profile = {"width": 400, "height": 300, "count": 1, "dtype": "uint8", "nodata": nodata}
        with environment(), rasterio.open(path, "w", driver="GTiff", tiled=True, SPARSE_OK=True, **profile) as dataset:
            dataset.write(np.full((1, 16, 16), 5, "uint8"), window=((0, 16), (0, 16)))
        _, outcome = shop.transform(path)
        assert outcome.result["holes"] > 0
        with environment(), rasterio.open(path) as dataset:
            agree(outcome.result["statistics"][0], dataset.read(1), dataset.read_masks(1) != 0)


def test_infinities_are_no_numbers_of_a_report() -> None:
    """What JSON cannot say is null; the rest stands."""
    found = Gatherer(np.dtype("float64")).of(np.array([[1.0, np.inf]]), None).record(2)
    assert (found["min"], found["max"], found["mean"], found["std"]) == (1.0, None, None, None)
    assert found["valid_pixels"] == 2


def test_merging_is_in_any_parts() -> None:
    """Parts of any size merge to the whole; nothing adds nothing."""
    pixels = RNG.normal(0, 1, 1000)
    whole = Statistics()
    gatherer = Gatherer(pixels.dtype)
    for part in np.split(pixels, [1, 1, 400, 999]):
        whole.add(gatherer.of(part.reshape(1, -1), None))
    agree(whole.record(1000), pixels, np.ones(1000, bool))


def test_gdals_own(shop: Workshop, write: Write) -> None:
    """`gdalinfo -stats` of the output says the same."""
    pixels = raw("uint16", 2)
    _, outcome = shop.transform(write(pixels, nodata=7), operation=Rescale(multiply=0.01), verify="none")
    run = subprocess.run(
        ["gdalinfo", "-stats", str(shop.folder / "out.tif")], capture_output=True, text=True, check=True
    )
    values = [line.split("=")[1] for line in run.stdout.splitlines() if "STATISTICS_" in line and "APPROX" not in line]
    for found in outcome.result["statistics"]:
        maximum, mean, minimum, std, percent = map(float, values[:5])
        del values[:5]
        assert (found["min"], found["max"]) == (pytest.approx(minimum), pytest.approx(maximum))
        assert (found["mean"], found["std"]) == (pytest.approx(mean), pytest.approx(std))
        assert found["valid_percent"] == pytest.approx(percent, abs=0.1)
