"""Bad sources: each said in one line with its exit code, before anything is written, or as soon as it is met."""

import shlex
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lib.errors import DataError, MemoryRefused, SourceError, UsageError
from lib.raster.formats import environment
from lib.raster.sources.dataset import open_raster
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RAW = np.random.default_rng(2).integers(0, 9000, (1, 300, 300), dtype="uint16")


def refused(shop: Workshop, source: Path | str, error: type[Exception], match: str, **choices: object) -> None:
    """Planning raises, in one line that names the file; nothing is written."""
    with pytest.raises(error, match=match) as raised:
        shop.first(shop.job(source, **choices))
    assert "\n" not in str(raised.value)
    assert not (shop.folder / "out.tif").exists()


def test_missing(shop: Workshop) -> None:
    """A missing file is said to be missing."""
    refused(shop, shop.folder / "no.tif", SourceError, r"no\.tif does not exist")


def test_a_folder(shop: Workshop) -> None:
    """A folder is no raster."""
    refused(shop, shop.folder, SourceError, "is a folder")


def test_text(shop: Workshop) -> None:
    """A text file is no raster."""
    (shop.folder / "in.tif").write_text("not a raster at all\n" * 50)
    refused(shop, shop.folder / "in.tif", SourceError, "is not a raster that GDAL can read")


@pytest.mark.parametrize("name", ["in.geojson", "in.gpkg", "in.shp"])
def test_a_vector(shop: Workshop, name: str) -> None:
    """A vector file is sent to `swath vector`."""
    (shop.folder / name).write_text('{"type": "FeatureCollection", "features": []}')
    refused(shop, shop.folder / name, SourceError, "is a vector file: use `swath vector`")


def test_complex_pixels(shop: Workshop, write: Write) -> None:
    """Complex pixels are not transformed."""
    refused(shop, write(RAW.astype("complex64")), SourceError, "complex64")


@pytest.mark.parametrize(("bands", "match"), [((3,), "no band 3: its bands are 1 to 2"), ((1, 1), "more than once")])
def test_bands_that_are_not_there(shop: Workshop, write: Write, bands: tuple[int, ...], match: str) -> None:
    """A band out of range or named twice is refused."""
    refused(shop, write(np.concatenate([RAW, RAW])), SourceError, match, bands=bands)


def test_a_driver_that_is_not_written(shop: Workshop, write: Write) -> None:
    """A name that no suffix stands for, given past the command line."""
    job = shop.job(write(RAW)).model_copy(update={"driver": "XYZ"})
    with pytest.raises(UsageError, match="driver XYZ is not written"):
        shop.first(job)


def hostile(path: Path, width: int, height: int, tile: int) -> Path:
    """A TIFF header of some hundred bytes that declares deflated tiles which are not there."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, tile),
        (323, 4, 1, tile),
        (324, 4, 1, 8),
        (325, 4, 1, 100),
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + b"\0" * 200)
    return path


def test_a_header_that_declares_more_than_the_file_holds(shop: Workshop) -> None:
    """A few hundred bytes cannot hold the table of 38,416 tiles."""
    refused(shop, hostile(shop.folder / "in.tif", 100_000, 100_000, 512), SourceError, "cannot even hold their table")


def test_one_block_larger_than_the_limit(shop: Workshop) -> None:
    """One tile of 1 GiB is refused for memory, with the limit that it would take."""
    source = hostile(shop.folder / "in.tif", 32_768, 32_768, 32_768)
    with pytest.raises(MemoryRefused, match=r"one source block of 32768 x 32768 pixels alone is 1\.0 GiB") as raised:
        shop.first(shop.job(source))
    assert raised.value.smallest_limit_bytes > 2**30


@pytest.mark.parametrize("compress", [None, "deflate"])
def test_a_truncated_raster(shop: Workshop, write: Write, compress: str | None) -> None:
    """Blocks past the end of the file are told beforehand."""
    source = write(RAW, tiled=True, blockxsize=64, blockysize=64, **({"compress": compress} if compress else {}))
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 2 // 3])
    refused(shop, source, DataError, "is truncated")


def test_a_sparse_raster_is_sound(shop: Workshop, write: Write) -> None:
    """Tiles that a sparse TIFF leaves out are zeros or nodata, not damage."""
    with rasterio.open(write(RAW)) as like:
        profile = like.profile | {"tiled": True, "blockxsize": 64, "blockysize": 64, "sparse_ok": True, "nodata": 0}
    with rasterio.open(shop.folder / "sparse.tif", "w", **profile) as dataset:
        dataset.write(RAW[:, :64, :64], window=((0, 64), (0, 64)))
    _, outcome = shop.transform(shop.folder / "sparse.tif")
    assert outcome.result["nodata_pixels"] == 300 * 300 - np.count_nonzero(RAW[:, :64, :64])


def test_a_damaged_block_names_file_and_window(shop: Workshop, write: Write) -> None:
    """A block that does not decode fails the job with its window, and the output is not taken for whole."""
    source = write(RAW, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with rasterio.open(source) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_3", "TIFF", bidx=1))
    with source.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 200)
    with pytest.raises(
        DataError, match=r"in\.tif: a block in the window rows \d+:\d+, columns \d+:\d+ does not decode"
    ):
        shop.transform(source)


def test_a_raw_file_shorter_than_its_header(shop: Workshop) -> None:
    """A raw raster whose pixels are missing does not open as zeros."""
    (shop.folder / "in.hdr").write_text(
        "ENVI\nsamples = 500\nlines = 500\nbands = 1\nheader offset = 0\nfile type = ENVI Standard\n"
        "data type = 2\ninterleave = bsq\nbyte order = 0\n"
    )
    (shop.folder / "in.dat").write_bytes(b"\0" * 1000)
    refused(shop, shop.folder / "in.dat", SourceError, r"in\.dat is not a raster")


def test_complex_integers_are_refused_in_words(shop: Workshop) -> None:
    """NumPy has no type for them: what GDAL calls CInt16 is refused as other complex pixels are."""
    path = shop.folder / "complex.tif"
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=1, dtype="complex_int16", **place):
        pass
    with pytest.raises(SourceError, match="complex_int16"):
        shop.transform(path)


def test_a_container_names_what_it_holds_as_a_shell_takes_it(tmp_path: Path) -> None:
    """Two raster tables in a GeoPackage: each of the names that the error gives opens."""
    container = tmp_path / "two tables.gpkg"
    for name in ("dem", "slope"):
        with rasterio.open(
            container, "w", driver="GPKG", width=64, height=64, count=1, dtype="uint8", crs="EPSG:3857",
            transform=rasterio.Affine(10, 0, 0, 0, -10, 0), raster_table=name, append_subdataset="YES",
        ) as dataset:  # fmt: skip
            dataset.write(np.ones((1, 64, 64), "uint8"))
    with environment(), pytest.raises(SourceError, match="has no bands of its own") as said:
        open_raster(str(container))
    names = shlex.split(said.value.hint.removeprefix("name one of what it holds: "))
    assert [name.rpartition(":")[2] for name in names] == ["dem", "slope"]
    with environment():
        for name in names:
            open_raster(name).close()


def test_an_odd_name_is_taken_literally(shop: Workshop, write: Callable[..., Path], tmp_path: Path) -> None:
    """What rasterio and GDAL would read into a name of an existing file, they do not; nothing comes beside it."""
    folder = tmp_path / "zip:!x?y#z"
    folder.mkdir()
    odd = folder / "GTIFF_DIR:1:zip+s3:a!b%41c;d?e#f|g&h'i\"j\nlü[bold]{m}.tif"
    write(np.full((1, 16, 16), 7, np.uint8)).rename(odd)
    _, outcome = shop.transform(odd)
    assert all(check.passed for check in outcome.checks)
    assert (shop.output == 7).all()
    assert list(folder.iterdir()) == [odd]


def test_rows_in_one_uncompressed_strip_are_no_forgery(shop: Workshop, write: Callable[..., Path]) -> None:
    """GDAL shows them as blocks of one row each, of which the file lists one."""
    column = np.random.default_rng(3).integers(0, 255, (1, 5000, 1), dtype="uint8")
    shop.transform(write(column, blockysize=5000))
    assert (shop.output == column).all()
