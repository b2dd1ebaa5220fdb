"""Several rasters as one source, against arrays laid over each other: gaps, overlaps, nodata, alignment, operations."""

import itertools
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.lib.stride_tricks import sliding_window_view
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from lib import verify
from lib.errors import DataError, DestinationError, SourceError, UsageError
from lib.jobs import ProfileJob, VerifyJob
from lib.operations import Clip, Custom, Expression, Focal, Rescale, Terrain, Warp
from lib.probe import probe
from lib.raster import engine, profile
from lib.raster.carried import read_provenance
from lib.raster.formats import environment
from lib.raster.sources import mosaic
from lib.request import raster_job
from tests.raster.conftest import Workshop

LEFT, TOP = 500_000, 5_000_000
# Name: top, left, height, width; b lies over a, c apart from both, d is one pixel over b.
TILES = {"a": (0, 0, 61, 70), "b": (40, 50, 50, 60), "c": (10, 131, 33, 19), "d": (45, 60, 1, 1)}
SHAPE = (90, 150)
SMALL = {"block_size": 16, "resources": {"max_chunk_bytes": 30_000, "threads_max": 2}}
HIDDEN = 3  # what hides a pixel in a tile that has nodata of any kind

Tiles = Callable[..., Path]
Laid = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def tiles(tmp_path: Path) -> Tiles:
    """Writes a folder of tiles of random small numbers; `kind` says how those of 3 are hidden; b is shifted as asked for."""
    random = np.random.default_rng(4)

    def written(
        dtype: str = "uint16", bands: int = 2, *, which: str = "abcd", kind: str = "none", folder: str = "tiles",
        shift: float = 0, **options: Any,
    ) -> Path:  # fmt: skip
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        for name in which:
            top, left, height, width = TILES[name]
            place = from_origin(LEFT + 10 * left + (shift if name == "b" else 0), TOP - 10 * top, 10, 10)
            pixels = random.integers(0, 9, (bands, height, width)).astype(dtype)
            hidden = pixels[0] == HIDDEN
            if kind == "nan":
                pixels[pixels == HIDDEN] = np.nan
            if kind == "alpha":
                pixels = np.concatenate([pixels, np.where(hidden, 0, 200).astype(dtype)[None]])
            with (
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
                rasterio.open(
                    path / f"{name}.tif", "w", driver="GTiff", width=width, height=height, count=len(pixels), dtype=dtype,
                    **{"crs": "EPSG:32633", "transform": place, "nodata": HIDDEN if kind == "value" else None} | options,
                ) as dataset,
            ):  # fmt: skip
                if kind == "alpha":
                    dataset.colorinterp = (
                        [ColorInterp.gray] + [ColorInterp.undefined] * (bands - 1) + [ColorInterp.alpha]
                    )
                dataset.write(pixels)
                if kind == "mask":
                    dataset.write_mask(~hidden)
        return path

    return written


def laid(folder: Path, order: str = "abcd") -> Laid:
    """The tiles laid over each other, and where there is a valid pixel, by GDAL's masks of each; alpha as a mask of all bands."""
    with rasterio.open(folder / f"{order[0]}.tif") as first:
        whole = np.zeros((first.count, *SHAPE), first.dtypes[0])
    valid = np.zeros(whole.shape, bool)
    for name in order:
        top, left, height, width = TILES[name]
        part = (slice(None), slice(top, top + height), slice(left, left + width))
        with rasterio.open(folder / f"{name}.tif") as tile:
            pixels, good = tile.read(), tile.read_masks() != 0
            if ColorInterp.alpha in tile.colorinterp:
                good[:] = pixels[-1] != 0
        if pixels.dtype.kind == "f":
            good &= ~np.isnan(pixels)
        whole[part] = np.where(good, pixels, whole[part])
        valid[part] |= good
    return whole, valid


KINDS = [
    (dtype, kind)
    for dtype in ("uint8", "int16", "uint16", "float32", "float64", "int64")
    for kind in ("none", "value", "nan", "mask", "alpha")
    if (kind != "nan" or dtype[0] == "f") and (kind != "alpha" or dtype in {"uint8", "uint16"})
]


def check(shop: Workshop, whole: np.ndarray, valid: np.ndarray) -> None:
    """The output's valid pixels are those."""
    with environment(), rasterio.open(shop.folder / "out.tif") as found:
        pixels, good = found.read(), found.read_masks() != 0
        if pixels.dtype.kind == "f":
            good &= ~np.isnan(pixels)
        np.testing.assert_array_equal(good, valid)
        np.testing.assert_array_equal(pixels[valid], whole[valid])


@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_a_folder_is_one_raster(dtype: str, kind: str, shop: Workshop, tiles: Tiles) -> None:
    """Later names lie on top, with their valid pixels; what lies in none is nodata, and 0 is not where none is declared."""
    folder = tiles(dtype, 1 if kind == "alpha" else 2, kind=kind)
    _, outcome = shop.transform(folder, **SMALL)
    whole, valid = laid(folder)
    if kind == "alpha":  # which is valid itself, and 0 where nothing is
        with rasterio.open(shop.folder / "out.tif") as found:
            assert found.colorinterp[-1] == ColorInterp.alpha
            np.testing.assert_array_equal(found.read(2), whole[1])
            np.testing.assert_array_equal(found.read_masks(1) != 0, valid[0])
            np.testing.assert_array_equal(found.read(1)[valid[0]], whole[0][valid[0]])
    else:
        check(shop, whole, valid)
        assert outcome.result["nodata_pixels"] == np.count_nonzero(~valid)


def test_pixels_do_not_depend_on_windows(shop: Workshop, tiles: Tiles) -> None:
    """Those under a mask neither: two layouts give the same bytes of every pixel, of one or several files open."""
    folder = tiles(kind="mask")
    shop.transform(folder)
    whole = shop.output
    shop.transform(folder, **SMALL)
    np.testing.assert_array_equal(shop.output, whole)


def test_more_files_than_stay_open(shop: Workshop, tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """One handle goes before the next comes."""
    monkeypatch.setattr(mosaic, "_MOST_OPEN", 1)
    folder = tiles(kind="value")
    shop.transform(folder, **SMALL)
    check(shop, *laid(folder))


def test_further_rasters_are_in_the_order_given(shop: Workshop, tiles: Tiles) -> None:
    """The last is on top, the source at the bottom; output and report name all files, with their sizes and times."""
    folder = tiles()
    more = [str(folder / f"{name}.tif") for name in "bda"]
    plan, _ = shop.run(raster_job(str(folder / "c.tif"), str(shop.folder / "out.tif"), sources=more))
    check(shop, *laid(folder, "cbda"))
    with rasterio.open(shop.folder / "out.tif") as found:
        tags = found.tags()
    assert '"sources":["b.tif","d.tif","a.tif"]' in tags["SWATH_JOB"]
    said = json.loads(tags["SWATH_SOURCE"])["files"]
    stats = {name: (folder / name).stat() for name in ("c.tif", "b.tif", "d.tif", "a.tif")}
    assert said == [{"name": name, "bytes": s.st_size, "mtime_ns": s.st_mtime_ns} for name, s in stats.items()]
    assert plan.facts["files"] == list(stats)


def test_a_folder_of_one_is_that_raster(shop: Workshop, tiles: Tiles) -> None:
    """No mask, no gaps."""
    folder = tiles(which="a")
    _, outcome = shop.transform(folder)
    with rasterio.open(folder / "a.tif") as source:
        np.testing.assert_array_equal(shop.output, source.read())
    assert outcome.result["nodata_pixels"] == 0


def test_tiles_side_by_side_need_no_mask(shop: Workshop, write: Callable[..., Path]) -> None:
    """Where there are no gaps and nothing is hidden the output has no mask, and its tags are those that all files have."""
    pixels = np.arange(6000, dtype="uint16").reshape(1, 60, 100)
    folder = shop.folder / "halves"
    folder.mkdir()
    for i in range(2):
        path = write(
            pixels[:, 30 * i : 30 * i + 30],
            f"{i}.tif",
            transform=from_origin(LEFT, TOP - 300 * i, 10, 10),
            placed=False,
            crs="EPSG:32633",
        )
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(SENSOR="A", ORBIT=str(i))
            dataset.update_tags(1, STATISTICS_MAXIMUM="1", WAVELENGTH="665")
            dataset.descriptions = (f"half {i}",)
        path.rename(folder / path.name)
    _, outcome = shop.transform(folder)
    with rasterio.open(shop.folder / "out.tif") as found:
        np.testing.assert_array_equal(found.read(), pixels)
        assert found.mask_flag_enums[0] == [rasterio.enums.MaskFlags.all_valid]
        assert (found.tags()["SENSOR"], found.tags().get("ORBIT"), found.descriptions) == ("A", None, (None,))
        assert found.tags(1) == {"WAVELENGTH": "665"}
    assert set(outcome.warnings) == {
        "halves: of its files' tags those that differ are not kept: ORBIT, descriptions of bands",
        "halves: tags of the source's values or their layout are not kept: STATISTICS_MAXIMUM",
    }


@pytest.mark.parametrize("kind", ["none", "value", "mask"])
def test_operations_take_a_mosaic_like_any_raster(kind: str, shop: Workshop, tiles: Tiles) -> None:
    """A part of it, arithmetic of it and of another, neighbourhoods across seams: as of the whole array."""
    folder, other = tiles(kind=kind), tiles(kind=kind, folder="other")
    (whole, valid), (second, there) = laid(folder), laid(other)
    shop.transform(folder, operation=Rescale(multiply=2, add=1), **SMALL)
    check(shop, whole * np.float32(2) + 1, valid)
    shop.transform(folder, operation=Clip(bbox=(LEFT + 400, TOP - 700, LEFT + 1000, TOP - 300)), **SMALL)
    check(shop, whole[:, 30:70, 40:100], valid[:, 30:70, 40:100])
    expression = Expression(expr="b1 + 2 * other.b2", sources=(f"other={other}",))
    shop.transform(folder, operation=expression, **SMALL)
    check(shop, whole[:1] + 2.0 * second[1:], valid[:1] & there[1:])
    shop.transform(folder, operation=Focal(statistic="max", size=5), bands=(2,), **SMALL)
    around = np.pad(np.where(valid[1], whole[1].astype(int), -1), 2, constant_values=-1)
    most = sliding_window_view(around, (5, 5)).max(axis=(2, 3))
    check(shop, most[None], valid[1:])
    shop.transform(folder, operation=Custom(function="tests.faults.functions:unchanged"), **SMALL)
    with environment(), rasterio.open(shop.folder / "out.tif") as found:
        pixels = found.read(masked=True)
    every = valid.all(axis=0)
    np.testing.assert_array_equal(pixels.data[:, every], whole[:, every])


@pytest.mark.parametrize(
    "operation",
    [Terrain(attribute="hillshade"), Warp(resolution=(7.0,), resampling="bilinear"), Warp(to_crs="EPSG:4326")],
)
@pytest.mark.parametrize("kind", ["none", "value", "nan", "mask"])
def test_terrain_and_warp_are_those_of_one_file(operation: Any, kind: str, shop: Workshop, tiles: Tiles) -> None:
    """What is made of the mosaic is what is made of the same pixels in one file, which GDAL is held against elsewhere."""
    folder = tiles("float32" if kind == "nan" else "int16", 1, kind=kind)
    whole, valid = laid(folder)
    single = shop.folder / "single.tif"
    nodata = {"value": HIDDEN, "nan": np.nan}.get(kind)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            single, "w", driver="GTiff", width=SHAPE[1], height=SHAPE[0], count=1, dtype=whole.dtype, nodata=nodata,
            crs="EPSG:32633", transform=from_origin(LEFT, TOP, 10, 10),
        ) as dataset,
    ):  # fmt: skip
        dataset.write(np.where(valid, whole, 0 if nodata is None else nodata))
        if nodata is None:
            dataset.write_mask(valid[0])
    shop.transform(folder, operation=operation)
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        found, good = dataset.read(), dataset.read_masks()
    shop.transform(single, operation=operation)
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        np.testing.assert_array_equal(good, dataset.read_masks())
        np.testing.assert_array_equal(found[good != 0], dataset.read()[good != 0])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"dtype": "float32"}, "its dtype is float32, not uint16"),
        ({"bands": 1}, "its number of bands is 1, not 2"),
        ({"kind": "value"}, r"its nodata value is 3\.0, not none"),
        ({"shift": 4.0}, r"its pixels lie 0\.4 of a pixel beside the others'"),
        ({"crs": "EPSG:32634"}, "its CRS is EPSG:32634, not EPSG:32633"),
        ({"transform": from_origin(LEFT, TOP, 20, 20)}, "its pixels are 20 x 20, not 10 x 10"),
        ({"transform": None}, "has no grid"),
    ],
)
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform", "ignore:The given matrix is equal")
def test_rasters_that_do_not_fit_are_told(other: dict[str, Any], words: str, shop: Workshop, tiles: Tiles) -> None:
    """Which one, and how it differs."""
    folder = tiles(which="ac")
    tiles(which="b", **other)
    with pytest.raises(SourceError, match=words) as caught:
        shop.transform(folder)
    assert caught.value.message.startswith(str(folder / "b.tif"))
    assert caught.value.exit_code == 2


def test_a_shift_of_next_to_nothing(shop: Workshop, tiles: Tiles) -> None:
    """Some thousandths of a pixel change no pixel."""
    folder = tiles(shift=0.03)
    shop.transform(folder)
    check(shop, *laid(folder))


def test_folders_that_are_no_mosaic(shop: Workshop, tiles: Tiles) -> None:
    """Without rasters: told. A file in it that is none: told by name. Hidden files and other things are passed over."""
    folder = shop.folder / "empty"
    folder.mkdir()
    (folder / "notes.txt").write_text("none")
    with pytest.raises(SourceError, match="empty is a folder in which there are no rasters"):
        shop.transform(folder)
    full = tiles()
    (full / "._a.tif").write_bytes(b"x")
    (full / "notes.txt").write_text("none")
    (full / "deeper.tif").mkdir()
    shop.transform(full)
    check(shop, *laid(full))
    (full / "z.tif").write_bytes(b"no raster at all")
    with pytest.raises(SourceError, match=r"z\.tif is not a raster"):
        shop.transform(full)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_folder_that_is_a_dataset_stays_one(shop: Workshop, tiles: Tiles) -> None:
    """What GDAL opens by its folder is that, whatever rasters lie in it."""
    store = shop.folder / "scene.zarr"
    pixels = np.arange(600, dtype="uint16").reshape(1, 20, 30)
    with rasterio.open(store, "w", driver="Zarr", width=30, height=20, count=1, dtype="uint16") as dataset:
        dataset.write(pixels)
    tiles(folder="scene.zarr")
    assert probe(str(store)).driver == "Zarr"
    shop.transform(store)
    np.testing.assert_array_equal(shop.output, pixels)


def test_a_file_that_is_damaged_or_gone_is_named(shop: Workshop, tiles: Tiles) -> None:
    """Truncated, it is told when it is opened; changed or removed under way, when it is read."""
    folder = tiles(which="abc")
    job = shop.job(folder)
    with closing(engine.prepare(job, shop.room(job))) as work:
        (folder / "b.tif").unlink()
        with pytest.raises(SourceError, match=r"b\.tif does not exist"):
            work.look()
    tiles(which="b", compress="deflate")
    (folder / "b.tif").write_bytes((folder / "b.tif").read_bytes()[:-200])
    with pytest.raises((SourceError, DataError), match=r"b\.tif"):
        shop.transform(folder)


def test_an_output_is_verified_against_its_folder(shop: Workshop, tiles: Tiles) -> None:
    """By its own words alone, with the rasters that lie over the source beside it; a changed file is noticed."""
    folder = tiles(which="abd")
    tiles(which="c", folder=".")
    out = shop.folder / "out.tif"
    shop.run(raster_job(str(folder), str(out), sources=[str(shop.folder / "c.tif")]))
    record = read_provenance(out)
    assert record is not None
    assert (record["source"], record["sources"]) == ("tiles", ["c.tif"])

    def wrong() -> list[str]:
        job = VerifyJob(source=str(folder), output=str(out), resources=shop.job(folder).resources)
        bench = shop.bench(None)
        with environment(), closing(verify.prepare(job, shop.room(job))) as prepared:
            prepared.run(bench)
        return [each.name for each in bench.checks if not each.passed]

    assert wrong() == []
    with rasterio.open(folder / "a.tif", "r+") as dataset:
        dataset.write(dataset.read() + 1)
    assert wrong() == ["recomputed windows"]


def test_a_folder_is_profiled(shop: Workshop, tiles: Tiles) -> None:
    """As the raster that its rasters are."""
    folder = tiles()
    job = ProfileJob(source=str(folder), resources=shop.job(folder).resources)
    assert probe(str(folder)) == ("raster", "GTiff")
    with closing(profile.prepare(job, shop.room(job))) as work:
        work.first()
        outcome = work.run(shop.bench(None))
    assert (outcome.result["height"], outcome.result["width"]) == SHAPE


def test_destinations_among_the_sources_are_refused(tiles: Tiles, tmp_path: Path) -> None:
    """In a folder that is a source it would be one of its rasters the next time; a source is not replaced."""
    folder = tiles()
    with pytest.raises(DestinationError, match="lies in the folder that is a source"):
        raster_job(str(folder), str(folder / "out.tif"))
    with pytest.raises(DestinationError, match="is a source itself"):
        raster_job(
            str(folder), str(tmp_path / "c.tif"), sources=[str(tiles(which="c", folder=".") / "c.tif")], overwrite=True
        )


def test_sources_with_and_without_names(tiles: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name makes it one of an expression, which other operations do not take; a path with = in it is written with ./."""
    folder = tiles()
    monkeypatch.chdir(folder)
    (folder / "a.tif").rename(folder / "year=2020.tif")
    out = str(tmp_path / "out.tif")
    job = raster_job("b.tif", out, operation="expression", expr="b1 + x.b1", sources=["x=c.tif", "./year=2020.tif"])
    assert (job.sources, job.operation.sources) == ((str(folder / "year=2020.tif"),), (f"x={folder / 'c.tif'}",))
    with pytest.raises(UsageError, match=r"--source x=c\.tif has a name, which only operation expression asks for"):
        raster_job("b.tif", out, sources=["x=c.tif"])
    with pytest.raises(SourceError, match=r"source z\.tif does not exist"):
        raster_job("b.tif", out, sources=["z.tif"])


@pytest.mark.parametrize("seed", range(20))
def test_how_files_lie(seed: int) -> None:
    """Gaps and overlaps are those of a painted array."""
    random = np.random.default_rng(seed)
    starts = random.integers(0, 6, (random.integers(1, 30), 2))
    ends = starts + random.integers(1, 5, starts.shape)
    bounds = np.stack([starts[:, 0], ends[:, 0], starts[:, 1], ends[:, 1]], axis=1)
    bounds -= np.array([bounds[:, 0].min()] * 2 + [bounds[:, 2].min()] * 2)
    shape = (int(bounds[:, 1].max()), int(bounds[:, 3].max()))
    painted = np.zeros(shape, int)
    for top, bottom, left, right in bounds:
        painted[top:bottom, left:right] += 1
    assert mosaic.layered.lie(bounds, shape) == (painted.min() > 0, painted.max() > 1)
    tiled = np.array([[y, y + 2, x, x + 3] for y, x in itertools.product(range(0, 6, 2), range(0, 9, 3))])
    assert mosaic.layered.lie(tiled, (6, 9)) == (True, False)
