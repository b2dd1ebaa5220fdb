"""`--bands` selects and reorders for every operation: as if the source had these bands alone, in that order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from lib.operations import OPERATIONS
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RAW = np.random.default_rng(9).integers(1, 9000, (4, 150, 170), dtype="uint16")
HOLES = np.random.default_rng(10).random(RAW.shape[1:]) < 0.1
CASES: list[dict[str, Any]] = [
    {"name": "copy"},
    {"name": "normalise"},
    {"name": "rescale", "multiply": 0.5, "add": 3},
    {"name": "rescale", "unscale": True},
    {"name": "expression", "expr": "b1 - 2 * b2; b2"},
    {"name": "reclassify", "table": "0:2000=1,2000:6000=2"},
    {"name": "focal", "statistic": "mean", "size": 3},
    {"name": "terrain", "attribute": "roughness"},
    {"name": "clip", "bbox": (500_100, 4_999_000, 501_000, 4_999_900)},
    {"name": "warp", "resolution": (15.0,), "resampling": "bilinear"},
    {"name": "custom", "function": "tests.faults.functions:unchanged"},
]


def test_all_operations_are_here() -> None:
    """An operation that is added to the registry needs a case."""
    assert {each["name"] for each in CASES} == set(OPERATIONS)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
@pytest.mark.parametrize("operation", CASES, ids=lambda case: "-".join(map(str, case.values()))[:30])
def test_selected_and_reordered(shop: Workshop, write: Write, operation: dict[str, Any], interleave: str) -> None:
    """Pixels, what is valid, and what bands say of themselves are those of a source of these bands in this order."""
    raw = np.where(HOLES, 0, RAW)
    found = []
    for name, pixels, numbers, bands in (
        ("all.tif", raw, (1, 2, 3, 4), (3, 1)),
        ("some.tif", raw[[2, 0]], (3, 1), None),
    ):
        source = write(pixels, name, nodata=0, interleave=interleave, photometric="minisblack")
        with rasterio.open(source, "r+") as dataset:
            dataset.scales, dataset.offsets = [0.5 * each for each in numbers], list(numbers)
            for at, number in enumerate(numbers, 1):
                dataset.set_band_description(at, f"band {number}")
        shop.transform(source, operation=operation, bands=bands)
        with environment(), rasterio.open(shop.folder / "out.tif") as after:
            assert after.count == 2
            found.append((after.read(), after.read_masks(), after.descriptions, after.scales, after.offsets))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    if operation["name"] == "copy":
        np.testing.assert_array_equal(found[0][0], raw[[2, 0]])


def test_one_of_many_with_alpha_elsewhere(shop: Workshop, write: Write) -> None:
    """Where alpha is among the bands but not last, or is left out, what it hides stays hidden."""
    pixels = RAW.astype("uint8")
    pixels[3] = np.where(HOLES, 0, 255)
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    source = write(pixels, colorinterp=colours)
    for bands in ((2, 1), (4, 3, 2), (3,)):
        shop.transform(source, bands=bands)
        np.testing.assert_array_equal(shop.output, pixels[[each - 1 for each in bands]])
        with environment(), rasterio.open(shop.folder / "out.tif") as after:
            colour = bands.index(next(each for each in bands if each != 4)) + 1
            np.testing.assert_array_equal(after.read_masks(colour) == 0, HOLES)
