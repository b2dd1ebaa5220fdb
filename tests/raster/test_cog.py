"""COGs: valid for an independent validator, and each overview is what NumPy makes of the whole level above."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from lib.jobs import RasterJob, Resources
from lib.raster import overview_checks, overviews
from lib.raster.formats import environment
from lib.raster.sinks import gap
from lib.raster.sinks.directory import directories
from lib.raster.sources.dataset import open_raster
from lib.units import MIB
from tests.raster import matrix
from tests.raster.conftest import Workshop

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _many_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small rasters have levels, too."""
    monkeypatch.setattr(overviews, "_SMALLEST", 64)


def halved(pixels: np.ndarray, valid: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    """One level, `(height, width)`: the four corners of each 2 x 2, the invalid masked; means are rounded half away from 0."""
    edge = [(0, length % 2) for length in pixels.shape]
    pixels, valid = np.pad(pixels, edge), np.pad(valid, edge)
    four = np.ma.stack([np.ma.array(pixels[r::2, c::2], mask=~valid[r::2, c::2]) for r in (0, 1) for c in (0, 1)])
    if how == "nearest":
        return four[0].data, ~np.ma.getmaskarray(four[0])
    if how == "average":
        values = four.filled(0)
        if pixels.dtype.kind in "iu":
            # Whole numbers of any size, of Python's own where four of 64 bits do not fit into as many.
            total = values.astype(object if pixels.dtype.itemsize == 8 else "int64").sum(axis=0)
            count = np.maximum(four.count(axis=0), 1)
            found = ((2 * abs(total) + count) // (2 * count) * np.where(total >= 0, 1, -1)).astype(pixels.dtype)
        else:
            wide = values.astype("float64")
            with np.errstate(all="ignore"):
                total = (wide[0] + wide[2]) + (wide[1] + wide[3])
                found = (total / np.maximum(four.count(axis=0), 1)).astype(pixels.dtype)
        return found, four.count(axis=0) > 0
    valid = ~np.ma.getmaskarray(four)
    counts = np.where(valid, [(valid & (four.data == corner)).sum(axis=0) for corner in four.data], 0)
    often = counts.argmax(axis=0)  # the first of several
    return np.take_along_axis(four.data, often[None], axis=0)[0], valid.any(axis=0)


def check(output: Path, how: str = "average") -> list[int]:
    """Valid without errors and warnings; each level of each band is what is made of the one above. The factors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, errors, said = cog_validate(str(output), strict=True, quiet=True)
    with environment(), rasterio.open(output) as dataset:
        factors = dataset.overviews(1)
        above = [_with_validity(dataset, band) for band in dataset.indexes]
        nodata = dataset.nodata
        if dataset.width == 1:  # GDAL says how much smaller a level is by its width alone
            errors = [each for each in errors if "Invalid Decimation" not in each]
    assert (errors, said) == ([], [])
    for level in range(len(factors)):
        with environment(), rasterio.open(output, overview_level=level) as dataset:
            for band in dataset.indexes:
                wanted, wanted_valid = halved(*above[band - 1], how)
                if nodata is not None and not np.isnan(nodata):
                    assert not (wanted[wanted_valid] == nodata).any(), "a case for the test of collisions"
                found, valid = above[band - 1] = _with_validity(dataset, band)
                np.testing.assert_array_equal(valid, wanted_valid)
                np.testing.assert_array_equal(found[valid], wanted[valid])
    return factors


def _with_validity(dataset: Any, band: int) -> tuple[np.ndarray, np.ndarray]:
    pixels, valid = dataset.read(band), dataset.read_masks(band) != 0
    return pixels, valid & ~np.isnan(pixels) if pixels.dtype.kind == "f" else valid


def _noise(dtype: str, shape: tuple[int, int, int]) -> np.ndarray:
    draw = np.random.default_rng(4)
    low, high = (-1000, 1000) if np.dtype(dtype).kind in "if" else (1, 200)
    low, high = (-100, 100) if dtype == "int8" else (low, high)
    values = draw.integers(low, high, shape)
    if np.dtype(dtype).kind == "f":
        return (values * 1.1).astype(dtype)
    if np.dtype(dtype).itemsize == 8:
        return (values.astype(dtype) * np.dtype(dtype).type(2**52)) + draw.integers(0, 9, shape).astype(dtype)
    return values.astype(dtype)


SHAPES = {
    "one window": ({}, (2, 150, 130), 64),
    "windows of one tile": ({"max_chunk_bytes": 50_000}, (2, 500, 301), 64),
    "windows of several": ({"max_chunk_bytes": 200_000}, (1, 311, 700), 64),
    "one row": ({}, (1, 1, 1500), 128),
    "one column": ({"max_chunk_bytes": 200_000}, (1, 1501, 1), 64),
    "large tiles": ({}, (1, 300, 270), 1024),
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("how", ["average", "nearest", "mode"])
def test_every_level_of_every_shape(shop: Workshop, write: Write, case: str, how: str) -> None:
    """However the raster is cut up, with one worker and with two."""
    resources, shape, block = SHAPES[case]
    values = _noise("int16", shape)
    values[:, : shape[1] // 2, : shape[2] // 3] = -9999
    source = write(values, nodata=-9999)
    for threads in (1, 2):
        shop.transform(
            source, cog=True, overview_resampling=how, block_size=block, resources=resources | {"threads": threads}
        )
        assert np.array_equal(shop.output, values)
        levels = len(check(shop.folder / "out.tif", how))
        assert max(shape[1:]) / 2**levels <= 64 < max(shape[1:]) / 2 ** (levels - 1)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("nodata", ["none", "value", "nan", "mask", "alpha"])
def test_every_dtype_and_kind_of_nodata(shop: Workshop, write: Write, dtype: str, nodata: str) -> None:
    """Only valid pixels count."""
    if (nodata == "nan" and np.dtype(dtype).kind != "f") or (nodata == "alpha" and dtype not in {"uint8", "uint16"}):
        return
    bands = 4 if nodata == "alpha" else 1
    values, hidden = _noise(dtype, (bands, 200, 270)), np.random.default_rng(1).random((200, 270)) < 0.4
    hidden[50:150, 30:220] = True
    options: dict[str, Any] = {}
    if nodata == "mask":
        options["mask"] = ~hidden * np.uint8(255)
    elif nodata == "alpha":
        values[3] = np.where(hidden, 0, 255)
        options["colorinterp"] = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    elif nodata != "none":
        options["nodata"] = np.nan if nodata == "nan" else np.dtype(dtype).type(0) if dtype[0] == "u" else 101
        values[:, hidden] = options["nodata"]
        if nodata == "value" and dtype[0] != "u":  # no average is 101
            values[:, ~hidden] = np.where(values[:, ~hidden] > 0, 120, -120)
            options["nodata"] = 121
            values[:, hidden] = 121
    shop.transform(write(values, **options), cog=True, block_size=64, resources={"max_chunk_bytes": 100_000})
    assert shop.output.tobytes() == values.tobytes()
    check(shop.folder / "out.tif") if nodata != "alpha" else _check_beside_alpha(shop.folder / "out.tif", values)


def _check_beside_alpha(output: Path, values: np.ndarray) -> None:
    with environment(), rasterio.open(output, overview_level=0) as dataset:
        found = dataset.read()
    valid = values[3] > 0
    for band in range(3):
        wanted, there = halved(values[band], valid, "average")
        np.testing.assert_array_equal(found[band][there], wanted[there])
    np.testing.assert_array_equal(found[3], halved(values[3], np.ones_like(valid), "average")[0])


def test_an_average_that_equals_nodata_stays_valid(shop: Workshop, write: Write) -> None:
    """Of 1 and -1 with nodata 0 it is the value beside it."""
    values = np.where(np.indices((600, 600)).sum(axis=0) % 2, 1, -1).astype("int16")[None]
    values[:, :300] = 0
    shop.transform(write(values, nodata=0), cog=True)
    with environment(), rasterio.open(shop.folder / "out.tif", overview_level=0) as dataset:
        found = dataset.read(1)
    assert (found[:150] == 0).all()
    assert (found[150:] == 1).all()


def test_classes_are_not_averaged(shop: Workshop, write: Write) -> None:
    """A palette's indexes and what reclassify makes have overviews by nearest, all else averages."""
    values = np.random.default_rng(0).integers(0, 9, (1, 700, 700)).astype("uint8")
    source = write(values)
    with rasterio.open(source, "r+") as dataset:
        dataset.write_colormap(1, {n: (n, n, n, 255) for n in range(9)})
    shop.transform(source, cog=True)
    check(shop.folder / "out.tif", "nearest")
    shop.transform(source, cog=True, operation={"name": "reclassify", "table": ":4=1,4:=2"})
    check(shop.folder / "out.tif", "nearest")


def test_an_operation_straight_to_a_cog(shop: Workshop, write: Write) -> None:
    """Averages are of results, not of what was read."""
    values = _noise("uint16", (2, 200, 170))
    values[:, 100:150] = 0
    _, outcome = shop.transform(write(values, nodata=0), cog=True, operation={"name": "normalise", "scale": 150})
    assert check(shop.folder / "out.tif") == [2, 4]
    assert {each.name for each in outcome.checks if each.passed} >= {
        "structure",
        "tile table",
        "overviews",
        "recomputed overviews",
    }


def test_a_small_raster_has_none(shop: Workshop, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 512 pixels and less a COG has no overviews; a plain GeoTIFF never has."""
    monkeypatch.undo()
    shop.transform(write(_noise("uint8", (1, 512, 300))), cog=True)
    assert check(shop.folder / "out.tif") == []
    shop.transform(write(_noise("uint8", (1, 700, 300))))
    with rasterio.open(shop.folder / "out.tif") as dataset:
        assert dataset.overviews(1) == []


def test_where_no_range_can_be_inserted(shop: Workshop, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The raster's tiles are moved up by copying: the file is the same byte for byte."""
    source = write(_noise("float32", (1, 2500, 1700)))
    shop.transform(source, cog=True, compress="none")
    inserted = (shop.folder / "out.tif").read_bytes()
    monkeypatch.setattr(gap, "_insert_range", lambda *_: False)
    shop.transform(source, cog=True, compress="none")
    assert (shop.folder / "out.tif").read_bytes() == inserted
    assert [each.name for each in shop.folder.iterdir()] == ["in.tif", "out.tif"]


@pytest.mark.parametrize("nodata", [None, 7])
def test_holes_stay_holes(shop: Workshop, write: Write, nodata: float | None) -> None:
    """Of a sparse source, in all levels; counts and pixels are as without, and each other tile is there."""
    values = _noise("uint16", (1, 600, 500))
    values[:, 128:512, :384] = nodata or 0
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "nodata": nodata, "compress": "deflate"}
    for cog, sparse_ok in ((True, True), (False, True), (True, False)):
        source = write(values, sparse_ok=sparse_ok, **options)
        _, outcome = shop.transform(source, block_size=64, cog=cog)
        assert shop.output.tobytes() == values.tobytes()
        hidden = np.count_nonzero(values == nodata) if nodata else 0
        assert (outcome.result["nodata_pixels"], outcome.result["holes"] > 0) == (hidden, sparse_ok)
        if cog:
            check(shop.folder / "out.tif")
        with rasterio.open(shop.folder / "out.tif") as dataset:
            at = [dataset.get_tag_item(f"BLOCK_OFFSET_0_{row}", "TIFF", bidx=1) for row in range(10)]
        assert [each is None for each in at] == [sparse_ok and 2 <= row < 8 for row in range(10)]


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_a_cog_keeps_what_a_plain_geotiff_keeps(shop: Workshop, kind: str) -> None:
    """Ground control points, palettes, masks, tags: and the directories stay in front."""
    source = matrix.make(shop.folder, kind, "GTiff")
    assert source is not None
    _, plain = shop.transform(source)
    kept = matrix.carried(shop.folder / "out.tif", kind)
    for former in shop.folder.glob("out.tif*"):
        former.unlink()
    _, outcome = shop.transform(source, cog=True)
    assert matrix.carried(shop.folder / "out.tif", kind) == kept
    assert outcome.warnings == plain.warnings
    check(shop.folder / "out.tif", "nearest" if kind == "classes" else "average")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"cog": True, "block_size": 48}, "block_size of a COG is one of 64, 128"),
        ({"overview_resampling": "mode"}, "overview_resampling is for cog"),
    ],
)
def test_what_cannot_be(choices: dict[str, Any], said: str) -> None:
    """What GDAL makes no overviews of, and a choice that would do nothing, are refused."""
    with pytest.raises(ValueError, match=said):
        RasterJob(source="in.tif", destination="out.tif", resources=Resources(limit_bytes=MIB), **choices)


@pytest.mark.parametrize("level", [0, 1])
def test_a_level_that_is_wrong_is_found(shop: Workshop, write: Write, level: int) -> None:
    """Two tiles of an overview that stand in each other's place."""
    source = write(_noise("uint8", (1, 300, 200)))
    shop.transform(source, cog=True, block_size=64)
    output = shop.folder / "out.tif"
    with output.open("r+b") as file:
        table = [each for each in directories(file.fileno()) if not each.is_mask][level + 1]
        file.seek(table.offsets.position)
        first, second = np.fromfile(file, table.offsets.dtype, 2)
        file.seek(table.offsets.position)
        np.array([second, first], table.offsets.dtype).tofile(file)
        file.seek(table.byte_counts.position)
        sizes = np.fromfile(file, table.byte_counts.dtype, 2)
        file.seek(table.byte_counts.position)
        sizes[::-1].tofile(file)
    with environment():
        subject = open_raster(str(output))
        bench = shop.bench(None)
        expected = {"overviews": [[150, 100], [75, 50]], "overview_resampling": "average"}
        overview_checks.recomputed(subject.dataset, expected, bench)
        subject.close()
    assert [each.passed for each in bench.checks] == [False]
