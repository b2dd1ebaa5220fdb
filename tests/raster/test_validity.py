"""A pixel is valid where GDAL's own mask says so and, in floating point, where it is not NaN: for every way to say nodata."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import example, given
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from lib.raster.block import Block, Buffer
from lib.raster.formats import environment
from lib.raster.operations import nudge_off_nodata
from lib.raster.sources.dataset import RasterSource, open_raster
from lib.raster.windows import Window

Write = Callable[..., Path]
HEIGHT, WIDTH = 40, 60
LARGEST = float(np.finfo("float32").max)


def told(source: RasterSource) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What a reader and what GDAL say of each band's validity."""
    [reader] = source.readers(1)
    shape = source.grid.shape
    buffer = Buffer(shape[0] * shape[1], source.dtype)
    for band in source.bands:
        whole = Window(0, 0, *shape)
        block = reader.read(whole, (band,), 0, buffer.block(whole, (band,)))
        wanted = source.dataset.read_masks(band) != 0
        pixels = source.dataset.read(band)
        if pixels.dtype.kind == "f":
            wanted &= ~np.isnan(pixels)
        np.testing.assert_array_equal(block.pixels[0], pixels)
        yield _valid(block)[0].copy(), wanted


def _valid(block: Block) -> np.ndarray:
    return np.ones(block.pixels.shape, bool) if block.all_valid else block.valid


def agrees(path: str | Path) -> int:
    """A reader says what GDAL says, of each band; how many pixels are not valid."""
    lost = 0
    with environment():
        source = open_raster(str(path))
        try:
            for found, wanted in told(source):
                np.testing.assert_array_equal(found, wanted)
                lost += np.count_nonzero(~wanted)
        finally:
            source.close()
    return lost


def near(value: float, dtype: str) -> list[float]:
    """A value's neighbours, up to some units in the last place away."""
    scalar = np.dtype(dtype).type(value)
    found = [scalar]
    for toward in (-np.inf, np.inf):
        each = scalar
        for step in range(40):
            with np.errstate(over="ignore", under="ignore"):
                each = np.nextafter(each, np.dtype(dtype).type(toward))
            if step % 3 == 0:
                found.append(each)
    return [each for each in found if np.isfinite(each)]


FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -9999.0, 1e-40, 1e20, 3.40282347e38, -3.40282347e38, LARGEST, -LARGEST, 1e300]),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    st.floats(allow_nan=True, allow_infinity=True),
)


@given(st.sampled_from(["float16", "float32", "float64"]), FLOATS)
@example("float32", 3.40282347e38)
@example("float32", 1e300)
@example("float32", 1.014120449959438e31)
@example("float32", -9.969209968386869e36)
@example("float64", 1e300)
@example("float64", -3.4028234663852886e38)
def test_a_declared_float_and_its_neighbours(dtype: str, nodata: float) -> None:
    """Pixels within some units in the last place of the nodata value are nodata exactly where GDAL takes them for it."""
    with np.errstate(over="ignore", invalid="ignore"):
        some = [0.0, 1.0, nodata, np.nan, np.inf, -np.inf, LARGEST, -LARGEST, *near(nodata, dtype)]
        pixels = np.resize(np.array(some).astype(dtype), (1, HEIGHT, WIDTH))
    with MemoryFile() as file:
        profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 1, "dtype": dtype}
        with environment(), file.open(**profile) as dataset:
            dataset.write(pixels)
        _declare(file.name, nodata)
        agrees(file.name)


def _declare(path: str, nodata: float) -> None:
    """Declare a nodata value; one out of the dtype's range stays undeclared, which is a case, too."""
    with environment(), rasterio.open(path, "r+") as dataset, contextlib.suppress(ValueError):
        dataset.nodata = nodata


INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@given(st.sampled_from(INTEGERS), st.data())
def test_a_declared_integer(dtype: str, data: st.DataObject) -> None:
    """Of any integer dtype, exactly, also where a float64 could not hold the value."""
    limits = np.iinfo(dtype)
    edges = [limits.min, limits.max, limits.max - 1, 0, 1]
    nodata = data.draw(st.one_of(st.sampled_from(edges), st.integers(limits.min, limits.max)))
    beside = [each for each in (nodata - 1, nodata + 1, *edges) if limits.min <= each <= limits.max]
    pixels = np.resize(np.array([nodata, *beside], dtype), (1, HEIGHT, WIDTH))
    with MemoryFile() as file:
        profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 1, "dtype": dtype, "nodata": nodata}
        with environment(), file.open(**profile) as dataset:
            dataset.write(pixels)
        lost = agrees(file.name)
        if abs(nodata) < 10**15:  # rasterio writes larger ones wrongly
            assert lost == np.count_nonzero(pixels == np.dtype(dtype).type(nodata))


MASK = np.where(np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.3, 0, 255).astype("uint8")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("declared", [None, 5])
def test_every_way_beside_every_other(write: Write, dtype: str, bands: int, alpha: bool, declared: int | None) -> None:
    """Nodata, alpha, NODATA_VALUES, an internal mask and a `.msk` in all combinations: what GDAL looks at first counts."""
    pixels = np.random.default_rng(2).integers(0, 9, (bands, HEIGHT, WIDTH)).astype(dtype)
    if dtype == "float32":
        pixels[:, :3] = np.nan
    alpha = alpha and bands > 1
    for values, mask in itertools.product((None, " ".join("7" * bands)), (None, True, False)):
        path = write(
            pixels, f"{values}-{mask}.tif", nodata=declared, alpha="yes" if alpha else "no", photometric="minisblack",
            mask=None if mask is None else MASK, internal_mask=bool(mask),
        )  # fmt: skip
        if values:
            with environment(), rasterio.open(path, "r+") as dataset:
                dataset.update_tags(NODATA_VALUES=values)
        lost = agrees(path)
        if mask is not None:
            gone = np.broadcast_to(MASK == 0, pixels.shape) | (np.isnan(pixels) if dtype == "float32" else False)
            assert lost == np.count_nonzero(gone)


def test_masks_that_differ_by_band(tmp_path: Path, write: Write) -> None:
    """A VRT's bands may have masks of their own."""
    for number in range(2):
        write(np.full((1, HEIGHT, WIDTH), 9, "uint8"), f"{number}.tif", mask=np.roll(MASK, number * 7, axis=1))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number + 1}"><SimpleSource><SourceFilename relativeToVRT="1">{number}.tif'
        '</SourceFilename></SimpleSource><MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename '
        f'relativeToVRT="1">{number}.tif</SourceFilename><SourceBand>mask,1</SourceBand></SimpleSource></VRTRasterBand>'
        "</MaskBand></VRTRasterBand>"
        for number in range(2)
    )
    path = tmp_path / "in.vrt"
    path.write_text(f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{bands}</VRTDataset>')
    assert agrees(path) == 2 * np.count_nonzero(MASK == 0)


NUMBERS = {
    "uint8": ("Byte", [0, 1, 2, 254, 255]),
    "int16": ("Int16", [-2, -1, 0, 1, 2]),
    "int64": ("Int64", [-(2**63), 1 - 2**63, 2**53, 2**53 + 1, 2**63 - 1, 5, 6, -9]),
    "uint64": ("UInt64", [2**64 - 1, 2**64 - 2, 2**53, 2**53 + 1, 5, 0]),
    "float32": ("Float32", [LARGEST, -LARGEST, 1e38, np.inf, 0, 0.1, 1e-45, 1e-40, 3.4e38]),
    "float64": ("Float64", [LARGEST, -LARGEST, 1e38, np.inf, 0, 0.1, 1e-45, 1e-40, 1e300]),
}
TEXTS = (
    "0.5",
    "-0.5",
    "255.5",
    "1e300",
    "nan",
    "-inf",
    "0.1",
    "1e-45",
    "3.40282347e+38",
    "-3.4028234663852886e+38",
    "5.5",
)
TEXTS_OF_64_BITS = ("-9223372036854775808", "9007199254740993", "18446744073709551615", "9223372036854775807")


@pytest.mark.parametrize("dtype", NUMBERS)
def test_nodata_values_as_texts_have_them(tmp_path: Path, write: Write, dtype: str) -> None:
    """Values with a fraction, out of range, rounded beyond the largest float or of 64 bits, as a VRT's text may say them."""
    kind, values = NUMBERS[dtype]
    write(np.resize(np.array(values, dtype), (1, HEIGHT, WIDTH)), "real.tif")
    path = tmp_path / "in.vrt"
    for text in TEXTS + TEXTS_OF_64_BITS:
        path.write_text(
            f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><VRTRasterBand dataType="{kind}" band="1"><NoDataValue>'
            f'{text}</NoDataValue><SimpleSource><SourceFilename relativeToVRT="1">real.tif</SourceFilename></SimpleSource>'
            "</VRTRasterBand></VRTDataset>"
        )
        agrees(path)


@given(
    st.integers(-9, HEIGHT + 5),
    st.integers(0, WIDTH - 1),
    st.integers(1, HEIGHT),
    st.integers(1, WIDTH),
    st.integers(0, 12),
)
def test_an_overlap_is_the_padded_raster(top: int, left: int, height: int, width: int, overlap: int) -> None:
    """A window with pixels around it is that part of the padded raster; what lies beyond its edge is 0 and not valid."""
    top = min(max(top, 0), HEIGHT - 1)
    window = Window(top, left, min(height, HEIGHT - top), min(width, WIDTH - left))
    pixels = np.random.default_rng(4).integers(1, 9, (2, HEIGHT, WIDTH), dtype="uint8")
    with MemoryFile() as file, environment():
        profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 2, "dtype": "uint8", "nodata": 5}
        with file.open(**profile) as dataset:
            dataset.write(pixels)
        source = open_raster(file.name)
        [reader] = source.readers(1)
        buffer = Buffer(2 * (height + 24) * (width + 24), source.dtype)
        into = buffer.block(window, (2, 1), overlap)
        into.pixels.fill(77)  # left over from another window
        block = reader.read(window, (2, 1), overlap, into)
        source.close()
    around = ((0, 0), (overlap, overlap), (overlap, overlap))
    rows, columns = (slice(low, high + 2 * overlap) for low, high in window.ranges)
    np.testing.assert_array_equal(block.pixels, np.pad(pixels[::-1], around)[:, rows, columns])
    np.testing.assert_array_equal(_valid(block), np.pad(pixels[::-1] != 5, around)[:, rows, columns])


@given(st.sampled_from(["float32", "float64", "uint8", "int16"]), st.data())
def test_a_valid_result_is_moved_off_nodata(dtype: str, data: st.DataObject) -> None:
    """What GDAL would take for nodata is moved to a neighbour that it does not, by next to nothing; the rest stays."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        nodata = data.draw(st.sampled_from([0.0, 1.0, -9999.0, LARGEST, -LARGEST, 1e-30, float("inf"), float("nan")]))
        values = np.array([*near(nodata, dtype), 0.5, 2.0] if np.isfinite(nodata) else [0.5, nodata], dtype)
        values = values[~np.isnan(values) & np.isfinite(values)]
    else:
        limits = np.iinfo(dtype)
        nodata = data.draw(st.sampled_from([limits.min, limits.max, 0, 1]))
        values = np.array([limits.min, limits.max, 0, 1, 2], dtype)
    pixels = np.resize(values, (HEIGHT, WIDTH))
    moved = pixels.copy()
    nudge_off_nodata(moved, nodata, None, np.zeros(pixels.shape, np.bool_))
    taken, lost = (_masked(each, nodata) for each in (pixels, moved))
    assert not lost.any()
    np.testing.assert_array_equal(moved[~taken], pixels[~taken])
    if abs(nodata) == LARGEST:  # GDAL takes nearly all large numbers for it
        return
    far = 1 if kind.kind != "f" else max(abs(float(nodata)) * 2e-6, float(np.finfo(dtype).tiny)) if taken.any() else 0
    assert (np.abs(moved[taken].astype("float64") - pixels[taken].astype("float64")) <= far).all()


def _masked(pixels: np.ndarray, nodata: float) -> np.ndarray:
    """Where GDAL takes pixels for nodata."""
    profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 1, "dtype": pixels.dtype, "nodata": nodata}
    with MemoryFile() as file, environment():
        with file.open(**profile) as dataset:
            dataset.write(pixels, 1)
        with rasterio.open(file.name) as dataset:
            return dataset.read_masks(1) == 0
