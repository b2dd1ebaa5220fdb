"""Windowed equals whole: what the engine writes against plain NumPy on the whole array, for every way to say nodata."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from lib.errors import FunctionError
from lib.operations import Normalise
from lib.raster.formats import cache_bytes, environment
from lib.raster.windows import count, windows
from tests.raster.conftest import Workshop

HEIGHT, WIDTH = 301, 417
Write = Callable[..., Path]
NORMALISE = Normalise()


def pixels(dtype: str, bands: int = 1, seed: int = 7) -> np.ndarray:
    """Random pixels over most of a dtype's range, 0 rare."""
    draw = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return draw.normal(3000, 4000, (bands, HEIGHT, WIDTH)).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -12000), min(limits.max, 12000)
    return draw.integers(low, high, (bands, HEIGHT, WIDTH)).astype(dtype)


def normalised(raw: np.ndarray, scale: float = 10000.0, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """The oracle: one expression on the whole array."""
    return np.clip(raw.astype(np.float64) / scale, low, high)


def patch(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Where nodata is in these tests: blotches that cross window borders, and a whole corner."""
    draw = np.random.default_rng(3)
    where = draw.random((height, width)) < 0.2
    where[:80, :80] = True
    where[100:200, 250:260] = True
    return where


def agrees(output: np.ndarray, wanted: np.ndarray, nodata: np.ndarray) -> None:
    """Output is NaN exactly where nodata, and elsewhere the oracle to two units in the last place of float32."""
    np.testing.assert_array_equal(np.isnan(output), np.broadcast_to(nodata, output.shape))
    np.testing.assert_allclose(output[~np.isnan(output)], wanted[~np.isnan(output)], rtol=2.5e-7, atol=1e-38)


SMALL_WINDOWS = {"block_size": 64, "resources": {"max_chunk_bytes": 180_000}}


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
)
def test_normalise_equals_numpy_for_every_dtype(shop: Workshop, write: Write, dtype: str) -> None:
    """Windowed normalise is NumPy's on the whole array."""
    raw = pixels(dtype)
    plan, outcome = shop.transform(write(raw), operation={"name": "normalise", "scale": 100}, **SMALL_WINDOWS)
    agrees(shop.output, normalised(raw, 100), np.zeros((HEIGHT, WIDTH), bool))
    assert plan.chunks == outcome.result["windows"] > 1
    assert outcome.result["valid_pixels"] == HEIGHT * WIDTH


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_rescale_equals_numpy(shop: Workshop, write: Write, dtype: str) -> None:
    """Windowed rescale is NumPy's in float64, rounded once where float32 holds every pixel of the source's type."""
    raw = pixels(dtype, bands=2)
    shop.transform(write(raw), operation={"name": "rescale", "multiply": 0.37, "add": -812.5}, **SMALL_WINDOWS)
    wanted = raw.astype(np.float64) * 0.37 - 812.5
    output = shop.output
    assert output.dtype == (np.float64 if dtype in {"int32", "float64"} else np.float32)
    np.testing.assert_array_equal(output, wanted.astype(output.dtype))


def test_rescale_keeps_digits_where_an_offset_cancels(shop: Workshop, write: Write) -> None:
    """A 32 bit pixel minus an offset as large is exact: arithmetic in float32 would lose all its digits."""
    raw = (np.arange(HEIGHT * WIDTH, dtype=np.int32) + 1_000_000_000).reshape(1, HEIGHT, WIDTH)
    shop.transform(write(raw), operation={"name": "rescale", "add": -1e9})
    np.testing.assert_array_equal(shop.output, np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(1, HEIGHT, WIDTH))


LAYOUTS = {
    "tiled 128 band": {
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "interleave": "band",
        "compress": "deflate",
    },
    "tiled 64 pixel lzw": {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel", "compress": "lzw"},
    "tiled 48x80": {"tiled": True, "blockxsize": 48, "blockysize": 80, "compress": "zstd"},
    "strips of 1 row": {"blockysize": 1, "compress": "deflate", "interleave": "band"},
    "strips of 37 rows pixel": {"blockysize": 37, "compress": "lzw", "interleave": "pixel"},
    "one strip": {"blockysize": HEIGHT, "compress": "deflate"},
    "raw strips": {},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cache", [0, 64 * 1024 * 1024])
def test_every_layout_gives_the_same_pixels(shop: Workshop, write: Write, layout: str, cache: int) -> None:
    """Tiles, strips and interleaving change nothing, with and without a block cache."""
    raw = pixels("uint16", bands=4)
    bounds = {"max_chunk_bytes": 1_200_000, "gdal_cache_max_bytes": cache}
    source = write(raw, nodata=7, **LAYOUTS[layout])
    shop.transform(source, operation=NORMALISE, block_size=64, resources=bounds)
    agrees(shop.output, normalised(raw), raw == 7)


def test_a_declared_value_stays_nodata_in_every_band(shop: Workshop, write: Write) -> None:
    """Each band has its own nodata pixels."""
    raw = pixels("int16", bands=3)
    for band in range(3):
        raw[band][np.roll(patch(), 40 * band, axis=0)] = -9999
    _, outcome = shop.transform(write(raw, nodata=-9999), operation=NORMALISE, **SMALL_WINDOWS)
    agrees(shop.output, normalised(raw), raw == -9999)
    assert outcome.result["nodata_pixels"] == np.count_nonzero(raw == -9999)


@pytest.mark.parametrize("declared", [None, float("nan"), -3.4028234663852886e38, 1e20])
def test_nan_and_declared_floats_stay_nodata(shop: Workshop, write: Write, declared: float | None) -> None:
    """NaN pixels are nodata whether declared or not; a declared float is met in float32."""
    raw = pixels("float32")
    gone = patch()
    raw[0][gone] = np.nan
    other = np.zeros_like(gone)
    if declared is not None and np.isfinite(declared):
        other[200:, 300:] = True
        raw[0][other] = np.float32(declared)
    shop.transform(write(raw, nodata=declared), operation=NORMALISE, **SMALL_WINDOWS)
    agrees(shop.output, normalised(raw), gone | other)


def test_infinity_is_a_value_that_clip_clips(shop: Workshop, write: Write) -> None:
    """Infinite pixels are clipped by normalise, and stay infinite under rescale."""
    raw = pixels("float32")
    raw[0, :5], raw[0, 5:9] = np.inf, -np.inf
    source = write(raw)
    shop.transform(source, operation=NORMALISE)
    assert (shop.output[0, :5] == 1).all()
    assert (shop.output[0, 5:9] == 0).all()
    shop.transform(source, operation={"name": "rescale", "multiply": 2})
    np.testing.assert_array_equal(shop.output, raw * 2)


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("declared", [None, 11])
def test_a_mask_band_or_msk_file_stays_nodata(
    shop: Workshop, write: Write, internal: bool, declared: int | None
) -> None:
    """An internal mask or a `.msk` sidecar masks all bands; a value declared beside it does not count, as GDAL has it."""
    raw = pixels("uint16", bands=3)
    gone = patch()
    source = write(raw, mask=np.where(gone, 0, 255).astype("uint8"), internal_mask=internal, nodata=declared)
    assert internal != (source.parent / "in.tif.msk").exists()
    shop.transform(source, operation=NORMALISE, **SMALL_WINDOWS)
    assert declared is None or np.count_nonzero((raw == declared) & ~gone)
    agrees(shop.output, normalised(raw), gone)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
@pytest.mark.parametrize("declared", [None, 200])
def test_alpha_zero_is_nodata_and_alpha_is_carried(
    shop: Workshop, write: Write, interleave: str, declared: int | None
) -> None:
    """Where alpha is 0 every other band is nodata, unless a declared value says so; the alpha band itself stays as it is."""
    raw = pixels("uint8", bands=4)
    raw[3] = np.where(patch(), 0, np.maximum(raw[3], 1))
    rgba = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    source = write(raw, photometric="RGB", alpha="YES", interleave=interleave, nodata=declared)
    with rasterio.open(source) as dataset:
        assert list(dataset.colorinterp) == rgba
    _, outcome = shop.transform(source, operation={"name": "normalise", "scale": 255}, **SMALL_WINDOWS)
    gone = raw[:3] == declared if declared else np.broadcast_to(raw[3] == 0, (3, HEIGHT, WIDTH))
    agrees(shop.output[:3], normalised(raw[:3], 255), gone)
    np.testing.assert_array_equal(shop.output[3], raw[3])
    with rasterio.open(shop.folder / "out.tif") as dataset:
        assert list(dataset.colorinterp) == rgba
    assert outcome.result["nodata_pixels"] == np.count_nonzero(np.isnan(shop.output))


def test_alpha_masks_although_it_is_not_selected(shop: Workshop, write: Write) -> None:
    """A selection without the alpha band is still masked by it, in the order asked for."""
    raw = pixels("uint8", bands=4)
    raw[3] = np.where(patch(), 0, 255)
    source = write(raw, photometric="RGB", alpha="YES")
    shop.transform(source, bands=(3, 1), operation={"name": "normalise", "scale": 255}, **SMALL_WINDOWS)
    agrees(shop.output, normalised(raw[[2, 0]], 255), raw[3] == 0)


def test_a_valid_result_never_becomes_nodata(shop: Workshop, write: Write) -> None:
    """A valid result that equals the output's nodata moves beside it, so that GDAL sees it; nodata pixels get the value."""
    raw = pixels("uint16")
    raw[0, :50], raw[0, 50:60], raw[0, 60:70] = 0, 20000, 3
    _, outcome = shop.transform(write(raw, nodata=3), operation=NORMALISE, nodata=0.0)
    output = shop.output
    np.testing.assert_array_equal(output == 0, raw == 3)
    assert (output[0, :50] == np.nextafter(np.float32(0), np.float32(1))).all()
    assert outcome.result["nodata_pixels"] == np.count_nonzero(raw == 3)
    shop.transform(write(raw, nodata=3), operation=NORMALISE, nodata=1.0)
    np.testing.assert_array_equal(shop.output == 1, raw == 3)
    assert (np.abs(shop.output[0, 50:60] - 1) < 1e-6).all()
    with rasterio.open(shop.folder / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read_masks(1) == 0, raw[0] == 3)


def test_many_bands_are_done_in_groups(shop: Workshop, write: Write) -> None:
    """A band-interleaved raster of many bands is done band by band where a chunk may not hold all."""
    raw = pixels("uint16", bands=12)
    source = write(raw, interleave="band", tiled=True, blockxsize=64, blockysize=64)
    small = {"max_chunk_bytes": 76_000}
    plan, outcome = shop.transform(source, operation=NORMALISE, block_size=64, resources=small)
    agrees(shop.output, normalised(raw), np.zeros((HEIGHT, WIDTH), bool))
    assert outcome.result["windows"] == plan.chunks == 12 * count((HEIGHT, WIDTH), plan.window)


def test_a_function_gets_pixels_and_validity(shop: Workshop, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's function is called with each window, NaN where nodata, and what it returns is written."""
    (shop.folder / "own.py").write_text(
        "import numpy as np\n"
        "def double(pixels, valid):\n"
        "    assert pixels.dtype == np.float32 and pixels.shape == valid.shape and valid.dtype == bool\n"
        "    assert (np.isnan(pixels) == ~valid).all()\n"
        "    return pixels * 2\n"
        "def fail(pixels, valid):\n    raise ValueError('no water here')\n"
        "def short(pixels, valid):\n    return pixels[:, :1]\n"
        "def greedy(pixels, valid):\n    raise MemoryError('mine')\n"
    )
    monkeypatch.syspath_prepend(shop.folder)
    raw = pixels("int16", bands=2)
    raw[:, patch()] = -1
    source = write(raw, nodata=-1)
    shop.transform(source, operation={"name": "custom", "function": "own:double"}, **SMALL_WINDOWS)
    agrees(shop.output, raw * 2.0, raw == -1)
    with pytest.raises(FunctionError, match="own:fail raised ValueError: no water here"):
        shop.transform(source, operation={"name": "custom", "function": "own:fail"})
    with pytest.raises(FunctionError, match="returned an array of shape"):
        shop.transform(source, operation={"name": "custom", "function": "own:short"})
    with pytest.raises(MemoryError, match="mine"):
        shop.transform(source, operation={"name": "custom", "function": "own:greedy"})


@pytest.mark.parametrize(("driver", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("GTiff", "tif")])
def test_any_raster_driver_is_a_source(shop: Workshop, write: Write, driver: str, suffix: str) -> None:
    """PNG and JPEG sources without georeferencing give the same grid, and no sidecar is written beside them."""
    raw = pixels("uint8", bands=3)
    source = write(raw, f"in.{suffix}", driver=driver, placed=False)
    for sidecar in shop.folder.glob("*.aux.xml"):
        sidecar.unlink()
    with environment(), rasterio.open(source) as dataset:
        decoded = dataset.read()
    shop.transform(source, operation={"name": "normalise", "scale": 255}, **SMALL_WINDOWS)
    agrees(shop.output, normalised(decoded, 255), np.zeros((HEIGHT, WIDTH), bool))
    assert sorted(path.name for path in shop.folder.iterdir()) == sorted([source.name, "out.tif"])


def test_a_mosaic_is_a_source(shop: Workshop, write: Write) -> None:
    """A VRT of two rasters is read as one; its NaN-free gap is its nodata."""
    raw = pixels("uint16", bands=1)
    first, second = write(raw, "a.tif", nodata=5), write(raw[:, ::-1], "b.tif", nodata=5)
    sources = "".join(
        f'<ComplexSource><SourceFilename relativeToVRT="1">{path.name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/>'
        f'<DstRect xOff="{left}" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/><NODATA>5</NODATA></ComplexSource>'
        for path, left in ((first, 0), (second, WIDTH + 20))
    )
    vrt = shop.folder / "both.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{2 * WIDTH + 20}" rasterYSize="{HEIGHT}"><VRTRasterBand dataType="UInt16" band="1">'
        f"<NoDataValue>5</NoDataValue>{sources}</VRTRasterBand></VRTDataset>"
    )
    shop.transform(vrt, operation=NORMALISE, **SMALL_WINDOWS)
    whole = np.full((1, HEIGHT, 2 * WIDTH + 20), 5, "uint16")
    whole[..., :WIDTH], whole[..., WIDTH + 20 :] = raw, raw[:, ::-1]
    agrees(shop.output, normalised(whole), whole == 5)


@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "zstd"])
def test_the_output_is_a_tiled_geotiff(shop: Workshop, write: Write, compress: str) -> None:
    """Tiles, codec and size are what the plan expected."""
    source = write(pixels("uint16"))
    plan, _ = shop.transform(source, operation=NORMALISE, compress=compress, block_size=64, resources={"threads": 2})
    with rasterio.open(shop.folder / "out.tif") as dataset:
        assert dataset.block_shapes == [(64, 64)]
        assert dataset.profile["tiled"]
        assert (dataset.compression.value.lower() if dataset.compression else "none") == compress
    assert (shop.folder / "out.tif").stat().st_size <= plan.disk_bytes


@pytest.mark.parametrize("layout", ["tiled 128 band", "strips of 1 row"])
@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_any_number_of_workers_gives_the_same_bytes(shop: Workshop, write: Write, compress: str, layout: str) -> None:
    """An output is reproducible byte for byte: it carries no time, and workers' tiles are written in the order of work."""
    source = write(pixels("uint16", bands=2), nodata=7, **LAYOUTS[layout])
    outputs = set()
    for threads in (1, 2, 3, 3):
        bounds = SMALL_WINDOWS["resources"] | {"threads": threads}
        plan, _ = shop.transform(source, operation=NORMALISE, compress=compress, block_size=64, resources=bounds)
        assert plan.threads == threads
        assert plan.chunks > 17  # more than the probe takes, so that the workers have something left
        outputs.add((shop.folder / "out.tif").read_bytes())
    assert len(outputs) == 1


def test_one_pixel_is_a_raster(shop: Workshop, write: Write) -> None:
    """The smallest raster there is."""
    shop.transform(write(np.full((1, 1, 1), 5000, "uint16")), operation=NORMALISE)
    assert shop.output.tolist() == [[[0.5]]]


def test_windows_of_the_plan_cover_the_raster(shop: Workshop, write: Write) -> None:
    """The engine's chunk count is the planner's."""
    plan, outcome = shop.transform(write(pixels("uint8")), **SMALL_WINDOWS)
    assert len(list(windows((HEIGHT, WIDTH), plan.window))) == outcome.result["windows"]


def test_the_cache_is_set_for_each_job_in_turn(shop: Workshop, write: Write) -> None:
    """The second job's cache is effective in the same process, and what it holds stays below it."""
    source = write(pixels("uint16"), compress="deflate", blockysize=1)
    sizes = []
    for bound in (0, 64 * 1024 * 1024):
        plan, _ = shop.transform(source, block_size=64, resources={"gdal_cache_max_bytes": bound})
        assert cache_bytes()[0] == plan.gdal_cache_bytes
        sizes.append(plan.gdal_cache_bytes)
    assert sizes[0] == 0
    assert sizes[1] > 0
