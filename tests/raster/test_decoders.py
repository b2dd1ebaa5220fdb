"""What decoders hold, told from headers of small files and of made-up bytes."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy as rasterio_copy

from lib.errors import MemoryRefused
from lib.raster import engine
from lib.raster.decoders import held_bytes, is_split
from lib.raster.facts import RasterFacts, gather
from lib.raster.formats import environment
from lib.units import MIB
from tests.conformance.sources import interlaced_png
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
SIZE = 600
PIXELS = SIZE * SIZE
# GDAL shows one strip of more than 2000 rows as rows.
TALL, NARROW = 2100, 200
STRIP = np.random.default_rng(5).integers(0, 250, (3, TALL, NARROW), dtype="uint8")
NOISE = np.random.default_rng(4).integers(0, 250, (3, SIZE, SIZE), dtype="uint8")


def facts_of(path: Path) -> RasterFacts:
    """The facts of a file."""
    with environment(), rasterio.open(path) as dataset:
        return gather(dataset, str(path))


def copied(write: Write, name: str, driver: str, bands: int = 3, **options: object) -> Path:
    """The noise in another format."""
    path = write(NOISE[:bands], "noise.tif")
    rasterio_copy(path, path.with_name(name), driver=driver, **options)
    return path.with_name(name)


@pytest.mark.parametrize(
    ("compress", "held"), [("deflate", 0), ("lerc", 9 / 8), ("lerc_zstd", 17 / 8), ("zstd", 1), ("webp", 3)]
)
def test_a_split_strip_is_held(write: Write, compress: str, held: float) -> None:
    """The compressed strip is a block's, though GDAL shows rows; what its codec keeps beside it is the decoder's."""
    bands, more = (3, {"interleave": "pixel"}) if compress == "webp" else (1, {})
    path = write(STRIP[:bands], blockysize=TALL, compress=compress, **more)
    with rasterio.open(path) as dataset:
        assert is_split(dataset)
        strip = int(dataset.get_tag_item("BLOCK_SIZE_0_0", "TIFF", bidx=1))
    facts = facts_of(path)
    assert facts.read.block == (1, NARROW)
    assert facts.read.last_bytes == strip + facts.read.block_bytes * facts.read.pixel_interleaved
    assert facts.read.decoder_bytes == int(held * TALL * NARROW)
    assert facts.blocks == 1


def test_the_largest_strip_of_any_band_counts(write: Write) -> None:
    """Bands one after another have a strip each."""
    bands = np.stack([np.zeros_like(STRIP[0]), STRIP[0]])
    facts = facts_of(write(bands, blockysize=TALL, compress="deflate", interleave="band"))
    assert facts.read.last_bytes > 0.9 * TALL * NARROW
    assert facts.blocks == 2


@pytest.mark.parametrize("options", [{"blockysize": 1, "compress": "deflate"}, {"blockysize": TALL}, {"tiled": True}])
def test_what_is_not_split(write: Write, options: dict[str, object]) -> None:
    """Strips of a row, an uncompressed strip and tiles are read block by block."""
    path = write(STRIP[:1], **options)
    with rasterio.open(path) as dataset:
        assert not is_split(dataset)
    facts = facts_of(path)
    assert facts.read.decoder_bytes == 0
    assert facts.read.last_bytes < 2 * NARROW


def test_a_strip_that_compresses_well_is_no_forgery(write: Write) -> None:
    """One strip of a few bytes needs no table of its rows."""
    assert facts_of(write(np.zeros((1, TALL, NARROW), "uint8"), blockysize=TALL, compress="zstd")).blocks == 1


@pytest.mark.parametrize(("bands", "samples"), [(1, 1.0), (3, 1.5)])
def test_progressive_jpeg(write: Write, bands: int, samples: float) -> None:
    """Two bytes a coefficient of the whole image, chroma at a quarter; a baseline JPEG holds none."""
    for progressive, held in (("YES", 2 * samples * PIXELS), ("NO", 0)):
        path = copied(write, f"{progressive}.jpg", "JPEG", bands, PROGRESSIVE=progressive)
        assert facts_of(path).read.decoder_bytes == held


def test_a_baseline_jpeg_of_several_scans(write: Write) -> None:
    """A first scan that lacks a component makes libjpeg keep the image, progressive or not."""
    path = copied(write, "in.jpg", "JPEG", PROGRESSIVE="NO")
    scan = path.read_bytes().index(b"\xff\xda\x00\x0c\x03")
    path.write_bytes(path.read_bytes()[:scan] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00")
    with rasterio.open(copied(write, "open.jpg", "JPEG", PROGRESSIVE="NO")) as dataset:
        assert held_bytes(dataset, str(path)) == 3 * PIXELS


def test_interlaced_png(write: Write, tmp_path: Path) -> None:
    """Adam7 holds the image, other PNGs do not."""
    interlaced = facts_of(interlaced_png(tmp_path, "uint8"))
    assert interlaced.read.decoder_bytes == interlaced.decoded_bytes
    assert facts_of(copied(write, "in.png", "PNG")).read.decoder_bytes == 0


def test_webp(write: Write) -> None:
    """WebP holds the image and the file."""
    path = copied(write, "in.webp", "WEBP")
    assert facts_of(path).read.decoder_bytes == 3 * PIXELS + path.stat().st_size


def test_jp2(write: Write) -> None:
    """A tile is held as int32, of one band twice; and the largest as it is in the file."""
    for bands, planes in ((3, 3), (1, 2)):
        path = copied(write, f"{bands}.jp2", "JP2OpenJPEG", bands, BLOCKXSIZE=SIZE // 2, BLOCKYSIZE=SIZE // 2)
        compressed = facts_of(path).read.decoder_bytes - PIXELS // 4 * planes * 4
        assert compressed == pytest.approx(path.stat().st_size / 4, rel=0.05)  # of noise, all alike


def test_the_largest_page_of_an_mrf(write: Write) -> None:
    """Beside its decoded page an MRF has the largest compressed one, as its index says, not as much as a page."""
    path = copied(write, "in.mrf", "MRF", COMPRESS="DEFLATE", INTERLEAVE="PIXEL", BLOCKSIZE=256)
    index = path.with_suffix(".idx").read_bytes()
    largest = max(size for _, size in struct.iter_unpack(">QQ", index))
    page = 256 * 256 * 3
    assert 0 < largest < page
    assert facts_of(path).read.last_bytes == largest + page


@pytest.mark.parametrize("compress", ["PNG", "PPNG", "TIF", "NONE"])
def test_codecs_that_rasterio_does_not_know(write: Write, compress: str) -> None:
    """An MRF's are planned as any; one that is not compressed has no compressed page."""
    bands = 3 if compress == "PNG" else 1
    path = copied(write, "in.mrf", "MRF", bands, COMPRESS=compress, BLOCKSIZE=256)
    assert facts_of(path).read.compression == compress.replace("NONE", "")


def test_an_mrf_without_its_index(write: Write) -> None:
    """Its pages may be as large as if they did not compress."""
    path = copied(write, "in.mrf", "MRF", COMPRESS="DEFLATE", INTERLEAVE="PIXEL", BLOCKSIZE=256)
    path.with_suffix(".idx").unlink()
    assert facts_of(path).read.last_bytes == 2 * 256 * 256 * 3


@pytest.mark.parametrize("box", [b"", struct.pack(">I4sQ", 1, b"free", 16), struct.pack(">I4s", 12, b"free") + b"none"])
def test_jp2_behind_other_boxes(write: Write, box: bytes) -> None:
    """The codestream is found behind boxes of any length, long ones too."""
    path = copied(write, "in.jp2", "JP2OpenJPEG", 1, BLOCKXSIZE=SIZE // 2, BLOCKYSIZE=SIZE // 2)
    whole = path.read_bytes()
    other = path.with_name("other.jp2")
    other.write_bytes(whole[:12] + box + whole[12:])
    with rasterio.open(path) as dataset:
        difference = held_bytes(dataset, str(other)) - held_bytes(dataset, str(path))
    assert 0 <= difference <= len(box)


def test_what_is_no_local_file_is_taken_for_the_worst(write: Write) -> None:
    """A JPEG or PNG whose header cannot be looked into is planned as if it were held whole."""
    for name, driver, held in (("in.jpg", "JPEG", 6), ("in.png", "PNG", 3)):
        with rasterio.open(copied(write, name, driver)) as dataset:
            assert held_bytes(dataset, f"/vsizip/elsewhere.zip/{name}") == held * PIXELS


class Unknown:
    """An open dataset of a format that nobody has measured."""

    driver, count, shape, dtypes = "RIK", 1, (SIZE, SIZE), ("uint8",)

    def tags(self, **_: str) -> dict[str, str]:
        """None."""
        return {}


@pytest.mark.parametrize(("size", "held"), [(PIXELS - 1, PIXELS), (PIXELS, 0)])
def test_an_unknown_format(tmp_path: Path, size: int, held: int) -> None:
    """A file smaller than its pixels has a decoder that may hold them all; a larger one is raw."""
    (tmp_path / "in.rik").write_bytes(b"\0" * size)
    assert held_bytes(Unknown(), str(tmp_path / "in.rik")) == held


def test_each_open_source_of_a_mosaic_holds_its_own(write: Write, tmp_path: Path) -> None:
    """Decoders of the sources that may be open at once are added up."""
    sources = [write(STRIP[:1], f"{i}.tif", blockysize=TALL, compress="lerc") for i in range(3)]
    bands = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{each.name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{NARROW}" ySize="{TALL}"/>'
        f'<DstRect xOff="{i * NARROW}" yOff="0" xSize="{NARROW}" ySize="{TALL}"/></SimpleSource>'
        for i, each in enumerate(sources)
    )
    mosaic = tmp_path / "in.vrt"
    mosaic.write_text(
        f'<VRTDataset rasterXSize="{3 * NARROW}" rasterYSize="{TALL}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{bands}</VRTRasterBand></VRTDataset>'
    )
    assert facts_of(mosaic).read.sources == 3
    assert facts_of(mosaic).read.decoder_bytes == 3 * facts_of(sources[0]).read.decoder_bytes > 3 * TALL * NARROW


def test_too_small_a_limit_is_refused_for_the_decoder(shop: Workshop, tmp_path: Path) -> None:
    """The refusal's number has what the decoder holds in it, and a plan names it."""
    path = interlaced_png(tmp_path, "uint8")
    job = shop.job(path)
    engine.plan(job, shop.room(job))  # a process's first plan registers GDAL's drivers, which a child has done
    plan = engine.plan(job, shop.room(job))
    assert plan.terms["decoder"] > 12 * MIB
    with pytest.raises(MemoryRefused) as refused:
        engine.plan(job := shop.job(path, extra_mb=16), shop.room(job))
    assert refused.value.smallest_limit_bytes == pytest.approx(plan.smallest_limit_bytes, abs=4 * MIB)
