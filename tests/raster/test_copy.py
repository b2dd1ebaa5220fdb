"""`copy` gives back what GDAL reads of the source, bit for bit: pixels, masks, and what says how to look at them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp, MaskFlags

from lib.errors import SourceError, UsageError
from lib.operations import Copy, Normalise
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
HEIGHT, WIDTH = 203, 317
SMALL_WINDOWS = {"block_size": 64, "resources": {"max_chunk_bytes": 200_000}}
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")


def noise(dtype: str, bands: int = 1) -> np.ndarray:
    """Any bit pattern that the dtype has, NaNs with payloads among them."""
    draw = np.random.default_rng(9)
    itemsize = np.dtype(dtype).itemsize
    return np.frombuffer(draw.bytes(bands * HEIGHT * WIDTH * itemsize), dtype).reshape(bands, HEIGHT, WIDTH)


def blotches() -> np.ndarray:
    """A mask, 0 where invalid: a rectangle across windows, and single pixels."""
    mask = np.where(np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.1, 0, 255).astype("uint8")
    mask[40:150, 100:110] = 0
    return mask


def read(path: Path) -> dict[str, Any]:
    """What a user's other tools see of a raster."""
    with environment(), rasterio.open(path) as dataset:
        bands = dataset.indexes
        return {
            "pixels": dataset.read().tobytes(),
            "masks": [(dataset.read_masks(band) != 0).tobytes() for band in bands],
            "dtypes": dataset.dtypes,
            "colours": dataset.colorinterp,
            "scales": dataset.scales,
            "offsets": dataset.offsets,
            "units": dataset.units,
            "crs": dataset.crs,
            "transform": dataset.transform,
        }


def copied(shop: Workshop, source: Path, **choices: Any) -> dict[str, Any]:
    """Copies a raster, holds what is read of the copy against what is read of the source, and says how the copy tells nodata."""
    _, outcome = shop.transform(source, **(SMALL_WINDOWS | choices))
    before, after = read(source), read(shop.folder / "out.tif")
    assert after == before
    with environment(), rasterio.open(source) as dataset:
        masks = [dataset.read_masks(band) != 0 for band in dataset.indexes]
        if np.dtype(dataset.dtypes[0]).kind == "f":
            masks = [mask & ~np.isnan(dataset.read(band)) for band, mask in enumerate(masks, 1)]
        assert outcome.result["valid_pixels"] == sum(np.count_nonzero(mask) for mask in masks)
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        return {"nodata": dataset.nodata, "flags": dataset.mask_flag_enums[0]}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_keeps_its_bits(shop: Workshop, write: Write, dtype: str) -> None:
    """Of any bit pattern; no nodata is declared where the source declares none."""
    found = copied(shop, write(noise(dtype, bands=2)))
    assert found["nodata"] is None
    assert found["flags"] == [MaskFlags.all_valid]


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 0),
        ("int8", -128),
        ("uint16", 65535),
        ("int16", -9999),
        ("int32", -(2**31)),
        ("uint64", 10**15 - 1),
        ("int64", -9999),
        ("float32", -9999),
        ("float32", -3.4028234663852886e38),
        ("float32", float("nan")),
        ("float32", float("inf")),
        ("float64", 1e300),
    ],
)
def test_a_nodata_value_stays(shop: Workshop, write: Write, dtype: str, nodata: float) -> None:
    """The declared value is the copy's, exactly, whatever the dtype, and so is each pixel that has it."""
    raw = noise(dtype).copy()
    raw[0][blotches() == 0] = nodata
    found = copied(shop, write(raw, nodata=nodata))
    assert found["nodata"] == nodata or (np.isnan(nodata) and np.isnan(found["nodata"]))


def declaring(real: Path, kind: str, nodata: float) -> Path:
    """A mosaic of one raster that declares a nodata value which rasterio would not write."""
    path = real.with_name("in.vrt")
    path.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><VRTRasterBand dataType="{kind}" band="1"><ColorInterp>Gray'
        f"</ColorInterp><NoDataValue>{nodata}</NoDataValue>"
        f'<SimpleSource><SourceFilename relativeToVRT="1">{real.name}</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    return path


@pytest.mark.parametrize("nodata", [-9999, 256, float("nan")])
def test_a_nodata_value_that_no_pixel_can_have_is_dropped(shop: Workshop, write: Write, nodata: float) -> None:
    """All bytes are valid where -9999 is declared of them."""
    source = write(noise("uint8"), "real.tif")
    assert copied(shop, declaring(source, "Byte", nodata))["nodata"] is None


@pytest.mark.parametrize(
    ("dtype", "kind", "nodata", "found"),
    [
        ("uint8", "Byte", 0.5, 0),
        ("int16", "Int16", -1.5, -1),
    ],
)
def test_a_nodata_value_with_a_fraction_is_what_gdal_makes_of_it(
    shop: Workshop, write: Write, dtype: str, kind: str, nodata: float, found: float | None
) -> None:
    """GDAL cuts a fraction off."""
    raw = noise(dtype).copy()
    raw[0][blotches() == 0] = int(nodata)
    assert copied(shop, declaring(write(raw, "real.tif"), kind, nodata))["nodata"] == found
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        assert np.count_nonzero(dataset.read_masks(1) == 0) >= np.count_nonzero(blotches() == 0)


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("declared", [None, 17])
@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "zstd"])
def test_a_mask_stays(shop: Workshop, write: Write, internal: bool, declared: int | None, compress: str) -> None:
    """An internal mask or a `.msk` beside the source becomes the copy's internal mask; what it hides keeps its pixels.

    So does a nodata value that stands beside it.
    """
    source = write(noise("uint8", bands=3), mask=blotches(), internal_mask=internal, nodata=declared)
    found = copied(shop, source, compress=compress)
    assert MaskFlags.per_dataset in found["flags"]
    assert MaskFlags.alpha not in found["flags"]
    assert found["nodata"] == declared  # which masks nothing beside a mask band
    assert [path.name for path in shop.folder.glob("out*")] == ["out.tif"]


@pytest.mark.parametrize("operation", ["copy", "normalise"])
def test_black_pixels_of_imagery_stay_inside_its_mask(shop: Workshop, write: Write, operation: str) -> None:
    """YCbCr JPEG tiles with nodata 0 and a mask: black water inside the mask is valid, as GDAL has it; issue 15, item 3."""
    raw = np.maximum(noise("uint8", bands=3), 60).copy()
    raw[:, 64:128, 64:192] = 0
    mask = blotches()
    raw[:, mask == 0] = 0
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "jpeg", "photometric": "ycbcr"}
    source = write(raw, nodata=0, mask=mask, **tiles)
    with environment(), rasterio.open(source) as dataset:
        black = (dataset.read() == 0).all(axis=0) & (mask != 0)
        assert dataset.nodata == 0
        assert np.count_nonzero(black) > 2000
    if operation == "copy":
        copied(shop, source)
    else:
        shop.transform(source, operation=Normalise(scale=255), **SMALL_WINDOWS)
    with rasterio.open(shop.folder / "out.tif") as dataset:
        output = dataset.read(masked=True)
    np.testing.assert_array_equal(np.ma.getmaskarray(output), np.broadcast_to(mask == 0, output.shape))
    assert (output.data[:, black] == 0).all()


@pytest.mark.parametrize(("bands", "dtype"), [(2, "uint8"), (4, "uint8"), (4, "uint16"), (4, "float32"), (5, "uint8")])
def test_alpha_stays(shop: Workshop, write: Write, bands: int, dtype: str) -> None:
    """An alpha band is carried and masks where GDAL lets it mask: the last of 2 or 4 bands of bytes or 16 bits."""
    raw = np.nan_to_num(noise(dtype, bands)).copy()
    raw[-1] = blotches()
    source = write(raw, colorinterp=[ColorInterp.gray, *[ColorInterp.undefined] * (bands - 2), ColorInterp.alpha])
    with rasterio.open(source) as dataset:
        assert dataset.colorinterp[-1] == ColorInterp.alpha
    found = copied(shop, source)
    assert (MaskFlags.alpha in found["flags"]) == (bands in {2, 4} and dtype != "float32")


@pytest.mark.parametrize("operation", [Copy(), Normalise(scale=100)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_nodata_value_is_not_filled_into_alpha(shop: Workshop, write: Write, dtype: str, operation: Any) -> None:
    """What alpha hides becomes nodata in the other bands; alpha is opacity and stays, and is counted as GDAL will mask it."""
    raw = np.random.default_rng(4).integers(1, 200, (4, 70, 90), dtype=dtype)
    raw[3, :40] = 0
    source = write(raw, photometric="RGB", alpha="YES")
    _, outcome = shop.transform(source, operation=operation, nodata=0.0)
    assert (shop.output[3] == raw[3]).all()
    assert (shop.output[:3, :40] == 0).all()
    assert (shop.output[:3, 40:] != 0).all()
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        assert outcome.result["nodata_pixels"] == np.count_nonzero(dataset.read_masks() == 0)


@pytest.mark.parametrize(("operation", "moved"), [(Copy(), 12), (Normalise(scale=1, clip=(0, 255)), 12)])
def test_valid_pixels_that_equal_the_nodata_value_are_told(
    shop: Workshop, write: Write, operation: Any, moved: int
) -> None:
    """They would be lost as nodata: they become the next value, and the report says of how many."""
    raw = np.random.default_rng(6).integers(10, 200, (1, 60, 60), dtype="uint8")
    raw[0, 5, 7:19] = 3
    _, outcome = shop.transform(write(raw), operation=operation, nodata=3.0)
    assert (shop.output[raw == 3] > 3).all()
    assert (shop.output[raw == 3] < 4.1).all()
    assert outcome.result["moved_pixels"] == moved
    assert any(f"{moved} valid pixels equal the nodata value 3" in each for each in outcome.warnings)


def test_a_selection_without_alpha_gets_its_mask(shop: Workshop, write: Write) -> None:
    """What alpha hid stays hidden where the alpha band is not selected."""
    raw = noise("uint8", 4).copy()
    raw[3] = blotches()
    source = write(raw, photometric="RGB", alpha="YES")
    shop.transform(source, bands=(3, 1), **SMALL_WINDOWS)
    with rasterio.open(shop.folder / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), raw[[2, 0]])
        for band in (1, 2):
            np.testing.assert_array_equal(dataset.read_masks(band), raw[3])


@pytest.mark.parametrize("bands", [(1, 2, 4), (4,), (1, 4), (4, 3, 2, 1), (4, 1)])
def test_a_selection_with_alpha(shop: Workshop, write: Write, bands: tuple[int, ...]) -> None:
    """Alpha masks as the last of 2 or 4 bands, alone it is a band like any other; elsewhere a mask band does, which is said."""
    raw = noise("uint8", 4).copy()
    raw[3] = blotches()
    source = write(raw, photometric="RGB", alpha="YES")
    _, outcome = shop.transform(source, bands=bands, **SMALL_WINDOWS)
    masks_there = bands in {(4,), (1, 4)}
    said = "in.tif: alpha masks nothing where it stands among these bands: a mask band does so in its place"
    assert outcome.warnings == (() if masks_there else (said,))
    with rasterio.open(source) as before, rasterio.open(shop.folder / "out.tif") as after:
        assert after.colorinterp == tuple(before.colorinterp[band - 1] for band in bands)
        for number, band in enumerate(bands, 1):
            np.testing.assert_array_equal(after.read(number), raw[band - 1])
            wanted = before.read_masks(band) if masks_there else raw[3]
            np.testing.assert_array_equal(after.read_masks(number) != 0, wanted != 0)
    shop.transform(source, bands=bands, operation=Normalise(scale=255), **SMALL_WINDOWS)


def test_a_selection_in_which_alpha_would_begin_to_mask(shop: Workshop, write: Write) -> None:
    """The alpha band of five masks nothing, and does so in a copy of four either."""
    raw = noise("uint8", 5).copy()
    raw[4] = blotches()
    source = write(raw, colorinterp=[ColorInterp.gray, *[ColorInterp.undefined] * 3, ColorInterp.alpha])
    shop.transform(source, bands=(1, 2, 3, 5), **SMALL_WINDOWS)
    with rasterio.open(shop.folder / "out.tif") as dataset:
        assert all(dataset.read_masks(band).all() for band in dataset.indexes)


def test_a_palette_stays(shop: Workshop, write: Write) -> None:
    """Indexes keep their colour table; of several bands none can keep one."""
    source = write(noise("uint8"), photometric="PALETTE", nodata=3)
    table = {index: (index, 255 - index, 7, 255) for index in range(256)}
    with rasterio.open(source, "r+") as dataset:
        dataset.write_colormap(1, table)
    with rasterio.open(source) as dataset:
        table = dataset.colormap(1)
    assert copied(shop, source)["nodata"] == 3
    with rasterio.open(shop.folder / "out.tif") as dataset:
        assert dataset.colormap(1) == table


def test_scales_offsets_and_units_stay(shop: Workshop, write: Write) -> None:
    """As they are in the source, also of a band without any scale."""
    source = write(noise("int16", bands=2))
    with rasterio.open(source, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (0.02, 1.0), (-3.0, 0.0), ("K", "m")
    copied(shop, source)
    with rasterio.open(shop.folder / "out.tif") as dataset:
        assert (dataset.scales, dataset.offsets, dataset.units) == ((0.02, 1.0), (-3.0, 0.0), ("K", "m"))


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles by band": {"tiled": True, "blockxsize": 128, "blockysize": 128, "interleave": "band", "compress": "deflate"},
    "tiles by pixel": {"tiled": True, "blockxsize": 48, "blockysize": 80, "interleave": "pixel", "compress": "lzw"},
    "strips of a row": {"blockysize": 1, "compress": "deflate", "interleave": "band"},
    "strips by pixel": {"blockysize": 37, "compress": "zstd", "interleave": "pixel"},
    "one strip": {"blockysize": HEIGHT, "compress": "lzw"},
    "plain": {},
    "sparse": {"tiled": True, "blockxsize": 64, "blockysize": 64, "sparse_ok": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_layout_is_copied_whole(shop: Workshop, write: Write, layout: str, threads: int) -> None:
    """Tiles, strips, interleaving and holes, one worker or several, all bands at once or one by one: the same pixels."""
    raw = noise("uint16", bands=4).copy()
    raw[:, 64:192, 64:128] = 0  # sparse tiles
    source = write(raw, nodata=0, photometric="minisblack", alpha="no", **LAYOUTS[layout])
    for most in (110_000, 2_000_000):
        copied(shop, source, block_size=64, resources={"threads": threads, "max_chunk_bytes": most})


@pytest.mark.parametrize("options", [{}, {"driver": "PNG"}, {"driver": "COG"}])
def test_other_formats_are_copied(shop: Workshop, write: Write, options: dict[str, str]) -> None:
    """A GeoTIFF, a PNG and a COG with overviews give the same pixels."""
    plain = write(noise("uint16"), "plain.tif", nodata=7)
    source = plain
    if options:
        source = shop.folder / f"in.{options['driver']}.x"
        rasterio.shutil.copy(plain, source, **options)
    copied(shop, source)


def test_a_nodata_value_that_is_asked_for_marks_what_a_mask_hid(shop: Workshop, write: Write) -> None:
    """Then there is no mask, invalid pixels hold the value, and valid ones that had it move beside it."""
    raw, mask = noise("uint8", bands=2), blotches()
    shop.transform(write(raw, mask=mask), nodata=5, **SMALL_WINDOWS)
    with rasterio.open(shop.folder / "out.tif") as dataset:
        assert dataset.nodata == 5
        output = dataset.read()
        for band in (1, 2):
            np.testing.assert_array_equal(dataset.read_masks(band), mask)
    np.testing.assert_array_equal(output, np.where(mask == 0, 5, np.where(raw == 5, 6, raw)))


def test_a_nodata_value_that_does_not_fit_is_refused(shop: Workshop, write: Write) -> None:
    """Minus one is no byte."""
    with pytest.raises(UsageError, match="nodata -1 does not fit into uint8"):
        shop.transform(write(noise("uint8")), nodata=-1.0)


def test_what_a_geotiff_cannot_say_is_refused(shop: Workshop, write: Write) -> None:
    """Two nodata values are more than a GeoTIFF holds; one band of them at a time is copied, or all with one value for all."""
    write(noise("int16", bands=2), "real.tif")
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{band}"><NoDataValue>{-band}</NoDataValue><SimpleSource><SourceFilename '
        f'relativeToVRT="1">real.tif</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>'
        for band in (1, 2)
    )
    source = shop.folder / "in.vrt"
    source.write_text(f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{bands}</VRTDataset>')
    with pytest.raises(SourceError, match="different nodata values in its bands, and a GeoTIFF holds one"):
        shop.transform(source)
    shop.transform(source, bands=(2,), **SMALL_WINDOWS)
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        assert dataset.nodata == -2
    shop.transform(source, nodata=-7.0, **SMALL_WINDOWS)
    with environment(), rasterio.open(source) as before, rasterio.open(shop.folder / "out.tif") as after:
        for band in (1, 2):
            np.testing.assert_array_equal(after.read_masks(band), before.read_masks(band))


def test_few_bits_are_told(shop: Workshop, write: Write) -> None:
    """Pixels of four bits are right in whole bytes, and the report says that NBITS is not kept."""
    pixels = np.random.default_rng(7).integers(0, 16, (1, 40, 50), dtype="uint8")
    _, outcome = shop.transform(write(pixels, NBITS=4))
    np.testing.assert_array_equal(shop.output, pixels)
    assert outcome.warnings == ("in.tif: its pixels have 4 bits, the output's 8: NBITS is not kept",)
