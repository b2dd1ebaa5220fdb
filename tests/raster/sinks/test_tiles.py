"""Files whose tiles we encode: read by GDAL and others as if GDAL had encoded them."""

import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from lib.errors import OutputError
from lib.raster.formats import environment
from lib.raster.sinks import tiles
from lib.raster.sinks.encode import Encoding, TileEncoder
from tests.raster.sinks.conftest import LEVELS, Press, every_encoding, pixels

FLOATS = Encoding("lzw", np.dtype("float32"), 64, 2)
# One tile, one that is mostly padding, several with edges, several with a mask, and places of 64 bits.
LAYOUTS: dict[str, dict[str, Any]] = {
    "one tile": {"shape": (1, 64, 64)},
    "padding": {"shape": (1, 1, 1)},
    "bands": {"shape": (3, 130, 67)},
    "mask": {"shape": (2, 70, 140), "masked": True},
    "one tile, mask": {"shape": (1, 33, 64), "masked": True},
    "big": {"shape": (2, 65, 129), "masked": True, "options": {"BIGTIFF": "YES"}},
    "big, one tile": {"shape": (1, 20, 20), "masked": True, "options": {"BIGTIFF": "YES"}},
}


def _name(value: Any) -> str:
    if isinstance(value, Encoding):
        return f"{value.compress}-{value.dtype}-p{value.predictor}"
    return str(value)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Pixels, mask, and what a reader is told of the file."""
    with environment(), rasterio.open(path) as dataset:
        told = {"profile": dict(dataset.profile), "tags": dataset.tags(), "flags": dataset.mask_flag_enums}
        told["structure"] = dataset.tags(ns="IMAGE_STRUCTURE")
        return dataset.read(), dataset.read_masks(1), told


# How large places are, and where tables stand, has to do with no dtype.
CASES = [
    (encoding, layout)
    for encoding, layout in itertools.product(every_encoding(64), LAYOUTS)
    if layout in ("padding", "bands", "mask") or encoding.dtype == np.float32
]


@pytest.mark.parametrize(("encoding", "layout"), CASES, ids=_name)
def test_a_reader_cannot_tell_who_encoded(press: Press, encoding: Encoding, layout: str) -> None:
    """Bit by bit the same pixels as went in and as GDAL's encoder writes, the same mask, the same metadata."""
    shape, options = LAYOUTS[layout]["shape"], LAYOUTS[layout].get("options", {})
    values = pixels(shape, encoding.dtype)
    mask = np.random.default_rng(1).random(shape[1:]) < 0.5 if LAYOUTS[layout].get("masked") else None
    ours = _read(press.ours(values, encoding, mask, options=options))
    gdals = _read(press.gdals(values, encoding, mask, **options))
    assert ours[0].tobytes() == values.tobytes() == gdals[0].tobytes()
    assert ours[1].tobytes() == gdals[1].tobytes()
    assert ours[2] == gdals[2]


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 100), st.integers(1, 100)),
    block=st.sampled_from((16, 48)),
    encoding=st.sampled_from(every_encoding(16)),
    big=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_shape_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    block: int,
    encoding: Encoding,
    big: bool,
    seed: int,
) -> None:
    """Whatever the shape, with small tiles whose sizes stand in 16 bits, and a mask."""
    press = Press(tmp_path_factory.mktemp("shapes"))
    encoding = Encoding(encoding.compress, encoding.dtype, block, encoding.predictor, encoding.level)
    values, mask = pixels(shape, encoding.dtype, seed), np.random.default_rng(seed).random(shape[1:]) < 0.5
    read, read_mask, _ = _read(press.ours(values, encoding, mask, options={"BIGTIFF": "YES"} if big else {}))
    assert read.tobytes() == values.tobytes()
    assert (read_mask == mask * 255).all()


@pytest.mark.parametrize("encoding", every_encoding(32), ids=_name)
def test_tifffile_reads_it(press: Press, encoding: Encoding) -> None:
    """A second reader, with its own decoders, which says of what it does not read that it does not."""
    values = pixels((2, 50, 70), encoding.dtype)
    path = press.ours(values, encoding)
    try:
        read = tifffile.imread(path)
    except (NotImplementedError, ValueError):
        assert (encoding.predictor, encoding.dtype.kind) == (2, "f")  # FACTS
        return
    if (
        encoding.compress == "lerc" and encoding.dtype.kind == "f"
    ):  # what LERC's mask hides is NaN to libtiff, anything to tifffile
        read = np.where(np.isnan(values), values, read)
    assert read.tobytes() == values.tobytes()


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="no gdalinfo on PATH")
@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "zstd"])
def test_gdalinfo_has_nothing_to_say_against_it(press: Press, compress: str) -> None:
    """GDAL's own program, perhaps of another version, decodes every tile: its checksum is that of GDAL's encoder's file."""
    predictor = 1 if compress == "none" else 2
    encoding = Encoding(compress, np.dtype("float32"), 64, predictor, LEVELS.get(compress))
    values, mask = pixels((2, 100, 150), np.float32), np.random.default_rng(1).random((100, 150)) < 0.5
    said = [
        subprocess.run(["gdalinfo", "-checksum", path], check=True, capture_output=True, text=True)
        for path in (press.ours(values, encoding, mask), press.gdals(values, encoding, mask))
    ]
    ours, gdals = ([line for line in each.stdout.splitlines() if "tif" not in line] for each in said)
    assert ours == gdals
    assert any("Checksum" in line for line in ours)
    assert not said[0].stderr


@pytest.mark.parametrize(("nodata", "hole"), [(-9999.0, -9999.0), (None, 0.0)])
def test_a_sparse_tile_takes_no_place(press: Press, nodata: float | None, hole: float) -> None:
    """It is read as nodata, or as 0 where there is none, and no byte of it is written."""
    press.profile["nodata"] = nodata
    values = pixels((2, 200, 200), np.float32)
    values[:, :64] = hole
    values[1, :, 128:192] = hole
    path = press.ours(values, FLOATS, sparse=lambda tile: bool((tile == hole).all()))
    assert _read(path)[0].tobytes() == values.tobytes()
    with environment(), rasterio.open(path) as dataset:
        places = {
            (band, row, column): dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
            for band, row, column in itertools.product((1, 2), range(4), range(4))
        }
    sparse = {place for place, offset in places.items() if offset is None}
    assert sparse == {(band, 0, column) for band in (1, 2) for column in range(4)} | {(2, row, 2) for row in range(4)}
    offsets = [int(offset) for offset in places.values() if offset is not None]
    assert len(offsets) == len(set(offsets)) == 21


def test_a_tile_of_a_mask_that_is_left_out_is_invalid(press: Press) -> None:
    """As GDAL has it: also the one that made the mask exist."""
    values = pixels((1, 64, 128), np.float32)
    encoder = TileEncoder(FLOATS)
    with press.create(values.shape, FLOATS, mask=True) as writer:
        for column in range(2):
            writer.append(0, 0, column, encoder.encode(values[0, :, column * 64 : column * 64 + 64]))
        writer.append_mask(0, 0, None)
        writer.append_mask(0, 1, encoder.encode_mask(np.ones((64, 64), np.bool_)))
    mask = _read(press.folder / "ours.tif")[1]
    assert not mask[:, :64].any()
    assert (mask[:, 64:] == 255).all()


def test_what_describes_the_raster_is_gdals(press: Press) -> None:
    """Place, tags, colours, scales: as `describe` wrote them, beside the pixels."""
    press.profile |= {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": 7}

    def describe(dataset: Any) -> None:
        dataset.update_tags(text="x" * 100_000)
        dataset.update_tags(2, band="two")
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.undefined]
        dataset.scales, dataset.units = (0.5, 1.0, 2.0), ("m", "", "s")

    values = pixels((3, 70, 70), np.float32)
    with environment(), rasterio.open(press.ours(values, FLOATS, describe=describe)) as dataset:
        assert dataset.read().tobytes() == values.tobytes()
        assert (dataset.crs.to_epsg(), dataset.transform.c, dataset.nodata) == (32633, 500_000, 7)
        assert dataset.tags()["text"] == "x" * 100_000
        assert dataset.tags(2)["band"] == "two"
        assert dataset.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.undefined)
        assert (dataset.scales, dataset.units) == ((0.5, 1.0, 2.0), ("m", None, "s"))


@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "zstd"])
def test_a_file_is_no_larger_than_its_bound(press: Press, compress: str) -> None:
    """Noise does not compress: LZW makes it larger."""
    encoding = Encoding(compress, np.dtype("uint8"), 64, 1, LEVELS.get(compress))
    shape = (2, 200, 300)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    size = press.ours(noise, encoding, noise[0] > 127).stat().st_size
    assert size <= tiles.disk_bytes(shape[1:], 2, encoding, mask=True)
    assert size > noise.nbytes


@pytest.mark.parametrize(
    ("shape", "encoding", "big"),
    [
        ((1, 100, 100), FLOATS, False),
        ((1, 30_000, 30_000), FLOATS, True),  # GDAL's IF_SAFER: 3.6 GB of pixels
        ((1, 1_000_000, 1), Encoding("none", np.dtype("float64"), 512), True),  # 8 MB of pixels in 4 GiB of tiles
        ((1, 33_000, 25_000), Encoding("none", np.dtype("uint8"), 512), False),
        ((3, 33_000, 25_000), Encoding("zstd", np.dtype("uint8"), 512, 2, 1), True),
    ],
)
def test_what_may_pass_4_gib_is_a_bigtiff(
    press: Press, shape: tuple[int, int, int], encoding: Encoding, big: bool
) -> None:
    """By the size of the raster, as GDAL decides, and by that of its tiles, which GDAL leaves out."""
    press.create(shape, encoding).close()
    assert (press.folder / "ours.tif").read_bytes()[:4] == (b"II+\0" if big else b"II*\0")


def test_a_classic_tiff_never_passes_4_gib(press: Press) -> None:
    """Its places have 32 bits: an error, no file that is wrong."""
    press.create((1, 64, 64), FLOATS).close()
    path = press.folder / "ours.tif"
    os.truncate(path, 2**32 - 10)
    writer = tiles.Writer(path)
    with pytest.raises(OutputError, match="4 GiB"), writer:
        writer.append(0, 0, 0, b"eleven bytes")


_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from lib.raster.formats import environment
from lib.raster.sinks import tiles
from lib.raster.sinks.encode import Encoding

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

def create(edge):
    profile = {"width": edge, "height": edge, "count": 1}
    return tiles.create(path, profile=profile, encoding=encoding, describe=lambda dataset: None, mask=True)

path, edge, encoding = Path(sys.argv[1]), 12_000, Encoding("lzw", np.dtype("uint8"), 16)
with environment():
    create(64).close()
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    with create(edge) as writer:
        for index in range(0, 750**2, 256):  # every page of the tables
            writer.append(0, *divmod(index, 750), b"*")
            writer.append_mask(*divmod(index, 750), b"*")
print(status("VmHWM") - before, tiles.memory_bytes((edge, edge), 1, 16, mask=True))
"""


def test_a_writer_holds_no_more_than_it_says(tmp_path: Path) -> None:
    """A million tiles: libtiff's tables while the skeleton is made, then ours; never a tile."""
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "many.tif")]
    measured, foreseen = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert foreseen / 2 <= measured <= foreseen


def _is_empty_skeleton(path: Path) -> bool:
    read, _, told = _read(path)
    return not read.any() and told["tags"]["made"] == "here"


@pytest.fixture
def small_files() -> Iterator[None]:
    """A limit of 64 KiB for files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_file_size_limit_is_said(press: Press) -> None:
    """In the words that a full disk has; what is left opens and is empty."""
    noise = np.random.default_rng(0).normal(size=(1, 200, 200)).astype(np.float32)
    with pytest.raises(OutputError, match=r"ours\.tif: the disk is full or a file-size limit was reached"):
        press.ours(noise, FLOATS)
    assert _is_empty_skeleton(press.folder / "ours.tif")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said(press: Press, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It takes a part of a tile, then nothing."""
    write, calls = os.pwrite, iter(range(100))

    def full(file: int, data: Any, position: int) -> int:
        if next(calls) < 3:
            return write(file, data[: len(data) // 2 + 1], position)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match=r"ours\.tif: the disk is full or a file-size limit was reached"):
        press.ours(pixels((1, 200, 200), np.float32), FLOATS)
    assert _is_empty_skeleton(press.folder / "ours.tif")


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="Linux only")
def test_the_disk_is_busy_while_tiles_are_made(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of the file is given to it as soon as it is there, once."""
    parts, advise = [], os.posix_fadvise

    def noted(file: int, start: int, length: int, advice: int) -> None:
        parts.append((start, start + length))
        advise(file, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", noted)
    values = pixels((1, 2500, 2500), np.float32)
    path = press.ours(values, Encoding("none", np.dtype("float32"), 512))
    assert _read(path)[0].tobytes() == values.tobytes()
    assert [start for start, _ in parts[1:]] == [stop for _, stop in parts[:-1]]
    assert len(parts) == path.stat().st_size // (8 * 2**20)


def test_a_disk_that_says_so_late_is_heard(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems keep the error until they are asked: no table names what was not stored."""

    def late(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", late)
    with pytest.raises(OutputError, match="the disk is full"):
        press.ours(pixels((1, 64, 64), np.float32), FLOATS)
    assert _is_empty_skeleton(press.folder / "ours.tif")


def test_an_error_while_tiles_are_made_leaves_an_empty_raster(press: Press) -> None:
    """And no descriptor."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    encoder = TileEncoder(FLOATS)

    def half() -> None:
        with press.create((1, 64, 128), FLOATS) as writer:
            writer.append(0, 0, 0, encoder.encode(np.ones((64, 64), np.float32)))
            raise KeyError("half-way")

    with pytest.raises(KeyError, match="half-way"):
        half()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert _is_empty_skeleton(press.folder / "ours.tif")


def test_a_folder_that_is_not_there_is_an_output_error(press: Press) -> None:
    """As for every other output."""
    press.folder /= "missing"
    with pytest.raises(OutputError, match=r"ours\.tif"):
        press.create((1, 10, 10), FLOATS)
