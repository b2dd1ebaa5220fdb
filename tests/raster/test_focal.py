"""`focal` against NumPy's own functions on each pixel's neighbours, bit by bit where sums are exact; windows change nothing."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import ValidationError

from lib.errors import UsageError
from lib.operations import Focal
from lib.raster.formats import environment
from lib.raster.operations.focal import parse_kernel
from lib.request import raster_job
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RANDOM = np.random.default_rng(1818)
STATISTICS = ["mean", "min", "max", "sum", "std", "median", "gaussian", "kernel"]
UNEVEN = "1 -2 3 0 1; 4 5 -6 1 0; 0.5 2 1 -1 2"


def truth(model: Focal, raw: np.ndarray, valid: np.ndarray, size: int) -> np.ndarray:
    """The statistic of each pixel of one band, NaN where it is not valid: NumPy's own functions, pixel by pixel."""
    weights = np.ones((size, size))
    if model.statistic == "gaussian":
        line = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * (model.sigma or 1) ** 2))
        weights = np.outer(line, line)
    elif model.statistic == "kernel":
        weights = parse_kernel(model.kernel or "")
    down, across = (edge // 2 for edge in weights.shape)
    seen = np.pad(
        np.where(valid, raw.astype("float64"), np.nan), ((down, down), (across, across)), constant_values=np.nan
    )
    found = np.full(raw.shape, np.nan)
    simple: dict[str, Callable[[np.ndarray], Any]] = {
        "mean": np.mean, "min": np.min, "max": np.max, "sum": np.sum, "std": np.std, "median": np.median,
    }  # fmt: skip
    for place, near in zip(
        np.ndindex(raw.shape), sliding_window_view(seen, weights.shape).reshape(-1, *weights.shape), strict=True
    ):
        if not valid[place]:
            continue
        known = ~np.isnan(near)
        if model.statistic == "gaussian":
            found[place] = (near[known] * weights[known]).sum() / weights[known].sum()
        elif model.statistic == "kernel":
            found[place] = (np.where(known, near, near[down, across]) * weights).sum()
        else:
            found[place] = simple[model.statistic](near[known])
    return found


def run(shop: Workshop, source: Path, model: Focal, **choices: Any) -> tuple[np.ndarray, np.ndarray]:
    """Run it, verified; the output's pixels, and where GDAL takes them for valid."""
    _, outcome = shop.transform(source, operation=model, **choices)
    assert all(check.passed for check in outcome.checks), outcome.checks
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        found = dataset.read()
        masks = np.stack([dataset.read_masks(band) for band in dataset.indexes])
    return found, (masks != 0) & (found == found)  # noqa: PLR0124 - not NaN


def model_of(statistic: str, size: int = 3) -> Focal:
    """A model of each statistic."""
    if statistic == "kernel":
        return Focal(statistic="kernel", kernel=UNEVEN)
    return Focal(statistic=statistic, size=size, sigma=1.3 if statistic == "gaussian" else None)


def scene(
    dtype: str, kind: str, shape: tuple[int, int, int] = (2, 29, 35)
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Pixels with holes, where they are valid, and how a file says so."""
    kinds = np.dtype(dtype).kind
    low, high = (0 if kinds == "u" else -120, 120)
    raw = RANDOM.integers(low, high, shape).astype(dtype)
    if kinds == "f":
        raw = raw + RANDOM.random(shape).astype(dtype)
    hidden = RANDOM.random(shape[1:]) < 0.3
    hidden[5:15, 8:20] = True
    holes = np.broadcast_to(hidden, shape)
    match kind:
        case "value":
            raw[raw == 7] = 8
            raw[holes] = 7
            return raw, ~holes, {"nodata": 7}
        case "nan":
            raw[holes] = np.nan
            return raw, ~holes, {}
        case "mask":
            return raw, ~holes, {"mask": ~hidden}
    return raw, np.ones(shape, bool), {}


KINDS = [
    ("uint8", "value"), ("uint8", "mask"), ("uint16", "none"), ("int16", "value"), ("int32", "value"), ("float32", "nan"),
    ("float64", "value"),
]  # fmt: skip
SOME_KINDS = [("int8", "value"), ("uint32", "none"), ("float32", "mask"), ("float64", "nan"), ("float32", "none")]
CASES = [(*kind, each) for kind in KINDS for each in STATISTICS]
CASES += [(*kind, each) for kind in SOME_KINDS for each in ("mean", "min", "std")]


@pytest.mark.parametrize(("dtype", "kind", "statistic"), CASES)
def test_every_dtype_and_nodata(dtype: str, kind: str, statistic: str, shop: Workshop, write: Write) -> None:
    """Each result is NumPy's of the valid neighbours, and valid where the pixel itself is; integers' exactly."""
    raw, valid, options = scene(dtype, kind, (1 + (statistic == "mean"), 29, 35))
    model = model_of(statistic, 5)
    found, good = run(shop, write(raw, **options), model, block_size=16)
    np.testing.assert_array_equal(good, valid)
    wanted = np.stack([truth(model, *pair, 5) for pair in zip(raw, valid, strict=True)])
    if statistic in {"min", "max"}:
        assert found.dtype == dtype
    exact = statistic in {"min", "max", "median"} or (np.dtype(dtype).kind in "iu" and statistic in {"mean", "sum"})
    if exact:
        np.testing.assert_array_equal(found[good], wanted[valid].astype(found.dtype))
    else:
        np.testing.assert_allclose(
            found[good], wanted[valid], rtol=5e-7 if found.dtype == "float32" else 1e-12, atol=1e-10
        )


_TILES = {"tiled": True, "blockxsize": 32, "blockysize": 64}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_windows_change_nothing(statistic: str, dtype: str, shop: Workshop, write: Write) -> None:
    """Bit by bit the same in many windows as in one, in rows of blocks as in tiles, at edges and holes."""
    raw, _, options = scene(dtype, "value", (1, 150, 170))
    raw = (raw * np.array(500.3)).astype(dtype)
    raw[0, :, 60:63] = 7
    results = []
    for name, layout, choices in [
        ("a.tif", {}, {"block_size": 256}),
        ("b.tif", _TILES, {"block_size": 16, "resources": {"max_chunk_bytes": 820_000}}),
        ("c.tif", {"blockysize": 7}, {"block_size": 48, "resources": {"threads": 2, "threads_max": 2}}),
    ]:  # fmt: skip
        found, good = run(shop, write(raw, name, **options, **layout), model_of(statistic, 7), **choices)
        results.append((found.tobytes(), good.tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize(("shape", "size"), [((1, 1, 1), 1), ((1, 1, 9), 1), ((1, 3, 3), 3), ((1, 33, 17), 17)])
@pytest.mark.parametrize("statistic", ["mean", "max", "median"])
def test_sizes_up_to_the_raster(
    shape: tuple[int, int, int], size: int, statistic: str, shop: Workshop, write: Write
) -> None:
    """One pixel, a row, a kernel as large as the raster."""
    raw = RANDOM.integers(0, 60000, shape).astype("uint16")
    model = model_of(statistic, size)
    found, _ = run(shop, write(raw), model)
    np.testing.assert_allclose(found[0], truth(model, raw[0], np.ones(shape[1:], bool), size), rtol=1e-6, atol=1e-3)


def test_large_values_that_differ_by_little(shop: Workshop, write: Write) -> None:
    """A standard deviation of floats near a million keeps its digits."""
    raw = (1e6 + RANDOM.normal(0, 1e-3, (1, 30, 30))).astype("float64")
    found, _ = run(shop, write(raw), Focal(statistic="std", size=3))
    np.testing.assert_allclose(found[0], truth(Focal(statistic="std"), raw[0], raw[0] > 0, 3), rtol=1e-5)


def test_alpha_is_carried(shop: Workshop, write: Write) -> None:
    """As it is; colours where it is 0 count nowhere."""
    raw = RANDOM.integers(1, 255, (4, 40, 50)).astype("uint8")
    raw[3] = np.where(RANDOM.random((40, 50)) < 0.2, 0, 255)
    colours = [rasterio.enums.ColorInterp[each] for each in ("red", "green", "blue", "alpha")]
    path = write(raw, photometric="rgb", alpha="yes", colorinterp=colours)
    found, _ = run(shop, path, Focal(statistic="max", size=3), block_size=16)
    np.testing.assert_array_equal(found[3], raw[3])
    wanted = truth(Focal(statistic="max"), raw[0], raw[3] > 0, 3)
    np.testing.assert_array_equal(found[0][raw[3] > 0], wanted[raw[3] > 0])


def test_a_type_may_be_asked_for(shop: Workshop, write: Write) -> None:
    """Rounded and saturated like any result; nodata stays."""
    raw, valid, options = scene("uint8", "value", (1, 30, 30))
    found, good = run(shop, write(raw, **options), Focal(size=3), dtype="uint8")
    np.testing.assert_array_equal(good, valid)
    mean = np.floor(truth(Focal(), raw[0], valid[0], 3) + 0.5)
    mean[mean == 7] = 8  # beside the nodata value
    np.testing.assert_array_equal(found[good], mean[valid[0]])


def test_infinity_and_wide_integers(shop: Workshop, write: Write) -> None:
    """Where infinities cancel the result is nodata; integers beyond 2**53 are told to be rounded, and their extremes are not."""
    raw = np.zeros((1, 5, 5))
    raw[0, 2, 1], raw[0, 2, 3] = math.inf, -math.inf
    _, good = run(shop, write(raw), Focal(size=3))
    assert not good[0, 1:4, 2].any()
    assert good.sum() == 22
    wide = np.full((1, 5, 5), 2**60 + 1)
    _, outcome = shop.transform(write(wide, "wide.tif"), operation=Focal(size=3))
    assert any("rounded to float64" in each for each in outcome.warnings)
    found, _ = run(shop, write(wide, "wide.tif"), Focal(statistic="max", size=3))
    assert found.max() == 2**60 + 1


def test_a_kernel_may_be_a_file(shop: Workshop, write: Write) -> None:
    """Rows of a YAML list; the job has its weights, not its name."""
    file = shop.folder / "edges.yaml"
    file.write_text("- [0, 1, 0]\n- [1, -4, 1]\n- [0, 1, 0]\n")
    source = str(write(np.zeros((1, 8, 8), "uint8")))
    choices = {"operation": "focal", "statistic": "kernel"}
    job = raster_job(source, str(shop.folder / "out.tif"), kernel=str(file), **choices)
    assert job.operation == Focal(statistic="kernel", kernel="0 1 0; 1 -4 1; 0 1 0")
    inline = raster_job(source, str(shop.folder / "out.tif"), kernel="1 2 1", **choices)
    assert inline.operation == Focal(statistic="kernel", kernel="1 2 1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("a: 1\n", "holds no list of rows"),
        ("- 1\n- 2\n", "holds no list of rows"),
        ("- [1, [2], 3]\n", "for a weight"),
        ("- [1\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_kernel_is_told(content: str | None, words: str, shop: Workshop, write: Write) -> None:
    """With its name."""
    file = shop.folder / "kernel.yaml"
    if content is not None:
        file.write_text(content)
    source = str(write(np.zeros((1, 8, 8), "uint8")))
    with pytest.raises(UsageError, match=words) as caught:
        raster_job(source, str(shop.folder / "out.tif"), operation="focal", statistic="kernel", kernel=str(file))
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2; 3 4", "both must be odd"),
        ("1 2 3; 4 5 6", "both must be odd"),
        ("1 2 3; 4 5; 6 7 8", "rows of 2 and 3 weights"),
        ("1 x 3", "no number: 'x'"),
        ("", "both must be odd"),
        ("0 0 0", "not all 0"),
        ("1 inf 1", "finite"),
    ],
)
def test_a_kernel_that_is_none_is_told(text: str, words: str) -> None:
    """With how one is written."""
    with pytest.raises(UsageError, match=words) as caught:
        parse_kernel(text)
    assert "0 1 0; 1 -4 1; 0 1 0" in caught.value.hint


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"size": 4}, "4 is even"),
        ({"size": -1}, "greater than or equal to 1"),
        ({"sigma": 2.0}, "sigma is of statistic gaussian, not of mean"),
        ({"statistic": "gaussian", "sigma": 0.0}, "greater than 0"),
        ({"statistic": "kernel"}, "go together"),
        ({"kernel": "1"}, "go together"),
        ({"statistic": "kernel", "kernel": "1", "size": 3}, "size is not of statistic kernel"),
    ],
)
def test_choices_that_do_not_fit(choices: dict[str, Any], words: str) -> None:
    """Each is told."""
    with pytest.raises(ValidationError, match=words):
        Focal(**choices)


def test_a_neighbourhood_larger_than_the_raster(shop: Workshop, write: Write) -> None:
    """Is an error that says how large it may be."""
    path = write(np.zeros((1, 8, 20), "uint8"))
    with pytest.raises(UsageError, match="9 x 9 pixels is larger than the raster of 20 x 8") as caught:
        shop.transform(path, operation=Focal(size=9))
    assert "at most 7" in caught.value.hint


def test_a_gaussian_larger_than_the_raster(shop: Workshop, write: Write) -> None:
    """Is told before there is an array of its weights."""
    with pytest.raises(UsageError, match="is larger than the raster of 20 x 8"):
        shop.transform(write(np.zeros((1, 8, 20), "uint8")), operation=Focal(statistic="gaussian", sigma=1e9))
