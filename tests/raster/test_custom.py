"""What a user's function declares: pixels around a window, a dtype, bands of its own; and how it hears where it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from lib.errors import FunctionError, UsageError
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RANDOM = np.random.default_rng(7)
SMALL = {"block_size": 32, "resources": {"max_chunk_bytes": 150_000}}

MODULE = """
import numpy as np

def blurred(pixels, valid):
    rows = pixels[:, :-4] + pixels[:, 4:]
    return rows[:, :, 2:-2]
blurred.overlap = 2

def same_shape(pixels, valid):
    assert np.isnan(pixels[~valid]).all()
    return np.roll(pixels, 1, axis=2)
same_shape.overlap = 1

def index(pixels, valid):
    red, infrared = pixels
    return (100 * (infrared - red) / (infrared + red))[None]
index.dtype, index.bands = "int8", 1

def masked(pixels, valid):
    two = np.concatenate([pixels, pixels * 1000]).astype("int32")
    return np.ma.masked_array(two, np.broadcast_to(pixels < 50, two.shape))
masked.dtype, masked.bands = np.uint8, 2

def placed(pixels, valid, context):
    rows, columns = np.mgrid[0:pixels.shape[1], 0:pixels.shape[2]] + 0.5
    x, y = context.transform @ (columns.ravel(), rows.ravel())
    assert context.bands == (2, 1) and context.crs.to_epsg() == 32633
    assert (context.window.height, context.window.width) == (pixels.shape[1] - 2, pixels.shape[2] - 2)
    return np.stack([x.reshape(rows.shape), y.reshape(rows.shape)])
placed.overlap, placed.dtype = 1, "float64"

def keyword(pixels, valid, scale=3):
    return pixels * scale

def optional(pixels, valid, context=None):
    return pixels * (context is not None)

def wide(pixels, valid):
    return pixels
wide.bands = 3

def negative(pixels, valid): return pixels
negative.overlap = -1
def fraction(pixels, valid): return pixels
fraction.overlap = 1.5
def odd_dtype(pixels, valid): return pixels
odd_dtype.dtype = "complex64"
def no_dtype(pixels, valid): return pixels
no_dtype.dtype = "colour"
def no_bands(pixels, valid): return pixels
no_bands.bands = 0
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "declaring.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "declaring", raising=False)


def run(shop: Workshop, source: Path, name: str, **choices: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Run it, verified; pixels, where they are valid, names of bands and nodata."""
    _, outcome = shop.transform(
        source, operation={"name": "custom", "function": f"declaring:{name}"}, **SMALL | choices
    )
    assert all(check.passed for check in outcome.checks), outcome.checks
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        found = dataset.read()
        masks = np.stack([dataset.read_masks(band) for band in dataset.indexes]) != 0
        return found, masks, (dataset.descriptions, dataset.nodata)


def scene(bands: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Pixels with holes that differ by band, nodata 0, and where they are valid."""
    raw = RANDOM.integers(1, 250, (bands, 100, 120)).astype("uint8")
    raw[RANDOM.random(raw.shape) < 0.1] = 0
    return raw, raw > 0


def test_pixels_around_a_window(shop: Workshop, write: Write) -> None:
    """It gets as many as it declares, NaN beyond the edge; its result, with them or without, is that of the whole raster."""
    raw, valid = scene()
    source = write(raw, nodata=0)
    seen = np.pad(np.where(valid, raw, np.nan).astype("float32"), ((0, 0), (2, 2), (2, 2)), constant_values=np.nan)
    found, good, _ = run(shop, source, "blurred")
    wanted = np.where(valid, seen[:, :-4, 2:-2] + seen[:, 4:, 2:-2], np.nan)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(good, ~np.isnan(wanted))
    found, _, _ = run(shop, source, "same_shape")
    np.testing.assert_array_equal(found, np.where(valid, seen[:, 2:-2, 1:-3], np.nan))


def test_bands_and_dtype_of_its_own(shop: Workshop, write: Write) -> None:
    """Results are rounded; NaN, and where not all bands are valid, is nodata; the band has the function's name."""
    raw, valid = scene()
    found, good, (names, nodata) = run(shop, write(raw, nodata=0), "index")
    red, infrared = raw.astype("float32")
    with np.errstate(all="ignore"):
        exact = 100 * (infrared - red) / (infrared + red)
    np.testing.assert_array_equal(good[0], valid.all(axis=0))
    wanted = np.trunc(exact + np.copysign(0.5, exact))[good[0]]
    np.testing.assert_array_equal(found[0][good[0]], wanted)
    assert (found.dtype, found.shape, names, nodata) == (np.int8, (1, 100, 120), ("index",), -128)


def test_masked_integers_saturate(shop: Workshop, write: Write) -> None:
    """A masked array's mask is nodata among integers; what the dtype does not hold is its end, beside nodata."""
    raw, valid = scene(1)
    found, good, (names, nodata) = run(shop, write(raw, nodata=0), "masked")
    assert (names, nodata) == (("masked 1", "masked 2"), 255)
    np.testing.assert_array_equal(good[0], valid[0] & (raw[0] >= 50))
    np.testing.assert_array_equal(found[0][good[0]], raw[0][good[0]])
    assert (found[1][good[0]] == 254).all()


def test_a_function_may_know_where_it_is(shop: Workshop, write: Write) -> None:
    """Window, transform of what it gets, CRS and bands, by its signature; a third parameter with a default stays its own."""
    raw, _ = scene()
    found, _, _ = run(shop, write(raw), "placed", bands=(2, 1))
    rows, columns = np.mgrid[0:100, 0:120] + 0.5
    np.testing.assert_allclose(found[0], 500_000 + 10 * columns)
    np.testing.assert_allclose(found[1], 5_000_000 - 10 * rows)
    found, _, _ = run(shop, write(raw), "keyword")
    np.testing.assert_array_equal(found, raw * 3.0)
    found, _, _ = run(shop, write(raw), "optional")
    np.testing.assert_array_equal(found, raw)


def test_another_number_of_bands_than_declared(shop: Workshop, write: Write) -> None:
    """Is an error that says both."""
    with pytest.raises(
        FunctionError, match=r"returned an array of shape \(2, \d+, \d+\), not .* of shape \(3, "
    ) as caught:
        run(shop, write(scene()[0]), "wide")
    assert "as many bands as it declares: 3" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("negative", "declares overlap -1"),
        ("fraction", r"declares overlap 1\.5"),
        ("odd_dtype", "declares dtype 'complex64'"),
        ("no_dtype", "declares dtype 'colour'"),
        ("no_bands", "declares bands 0"),
    ],
)
def test_declarations_that_cannot_be(name: str, words: str, shop: Workshop, write: Write) -> None:
    """Are told before any work."""
    with pytest.raises(UsageError, match=words):
        run(shop, write(scene()[0]), name)
