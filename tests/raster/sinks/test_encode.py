"""Encoders: what they refuse, hold and return; that their bytes are right is `test_tiles.py`'s."""

import subprocess
import sys
import threading
import time

import imagecodecs
import numpy as np
import pytest

from lib.raster.sinks.encode import Encoding, TileEncoder
from tests.raster.sinks.conftest import LEVELS, every_encoding, pixels

FLOAT32 = np.dtype("float32")


@pytest.mark.parametrize(
    "choices",
    [
        {"compress": "jpeg"},
        {"compress": "none", "predictor": 2},
        {"compress": "lzw", "predictor": 4},
        {"compress": "lzw", "level": 1},
        {"compress": "zstd"},
        {"compress": "deflate", "level": 13},
        {"compress": "lzw", "predictor": 3, "dtype": np.dtype("int16")},
        {"compress": "lzw", "predictor": 3, "dtype": np.dtype("float16")},
        {"compress": "lzw", "predictor": 2, "dtype": np.dtype("complex64")},
        {"compress": "lzw", "dtype": np.dtype("bool")},
        {"compress": "lzw", "block": 100},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_not_encoded(choices: dict) -> None:
    """Refused before there is a file."""
    with pytest.raises(ValueError, match="no such encoding"):
        Encoding(**({"dtype": FLOAT32, "block": 64} | choices))


@pytest.mark.parametrize("tile", [np.zeros((65, 64), FLOAT32), np.zeros((0, 64), FLOAT32), np.zeros((64, 64))])
def test_a_tile_of_another_kind_is_refused(tile: np.ndarray) -> None:
    """Too large, empty, or of another dtype."""
    with pytest.raises(ValueError, match="a tile of"):
        TileEncoder(Encoding("lzw", FLOAT32, 64, 2)).encode(tile)


@pytest.mark.parametrize("encoding", every_encoding(48), ids=str)
def test_strides_do_not_matter(encoding: Encoding) -> None:
    """A tile may be a view into a window, a transposed one too; what an encoder did before leaves no trace."""
    encoder = TileEncoder(encoding)
    window = pixels((1, 96, 96), encoding.dtype)[0]
    for height, width in ((48, 48), (17, 48), (48, 5), (1, 1)):
        view = window[20 : 20 + height, 30 : 30 + width]
        expected = TileEncoder(encoding).encode(view.copy())
        assert encoder.encode(view) == expected
        assert encoder.encode(np.asfortranarray(view)) == expected


@pytest.mark.parametrize("encoding", every_encoding(16), ids=str)
def test_noise_stays_within_the_bound(encoding: Encoding) -> None:
    """Bytes at random are the worst case; also of the smallest tile."""
    noise = np.random.default_rng(0).integers(0, 256, encoding.tile_bytes, np.uint8).view(encoding.dtype)
    encoded = TileEncoder(encoding).encode(noise.reshape(16, 16))
    assert len(encoded) <= encoding.bound_bytes


def test_a_mask_is_one_bit_a_pixel() -> None:
    """Rows of whole bytes, most significant bit first; beyond the edge nothing is valid."""
    valid = np.random.default_rng(0).random((5, 11)) < 0.5
    encoded = TileEncoder(Encoding("none", FLOAT32, 16)).encode_mask(valid)
    bits = np.unpackbits(np.frombuffer(imagecodecs.zlib_decode(encoded), np.uint8).reshape(16, 2), axis=1)
    assert (bits[:5, :11] == valid).all()
    assert bits.sum() == valid.sum()


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding("lzw", FLOAT32, 2048, 2),
        Encoding("deflate", FLOAT32, 2048, 2, 6),
        Encoding("zstd", FLOAT32, 2048, 2, 9),
    ],
    ids=lambda each: each.compress,
)
def test_threads_do_not_wait_for_an_encoder(encoding: Encoding) -> None:
    """The interpreter's lock is free while a tile is encoded: another thread never stands still for half of it."""
    encoder, tile = TileEncoder(encoding), pixels((1, 2048, 2048), FLOAT32)[0]
    thread = threading.Thread(target=encoder.encode, args=(tile,))
    started = last = time.perf_counter()
    longest = 0.0
    thread.start()
    while thread.is_alive():
        now = time.perf_counter()
        last, longest = now, max(longest, now - last)
    assert longest < (last - started) / 2


_MEASURE = """
import ctypes, sys
ctypes.CDLL(None).mallopt(-3, 65536)  # large blocks are given back when they are freed
import numpy as np
from lib.raster.sinks.encode import Encoding, TileEncoder

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

compress, level, predictor, block = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
small = Encoding(compress, np.dtype("float32"), 16, predictor, int(level) if level else None)
TileEncoder(small).encode(np.zeros((16, 16), np.float32))
encoding = Encoding(compress, np.dtype("float32"), block, predictor, int(level) if level else None)
tile = np.random.default_rng(0).normal(size=(block, block)).astype(np.float32)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
encoded = TileEncoder(encoding).encode(tile)
print(status("VmHWM") - before - len(encoded), encoding.scratch_bytes)
"""


@pytest.mark.parametrize(
    ("compress", "level", "predictor"),
    [("lzw", "", 2), ("lzw", "", 3), ("lerc", "", 1), *(("deflate", each, 2) for each in (1, 6, 12))]
    + [("zstd", each, 2) for each in (1, 3, 9, 22)],
)
def test_an_encoder_holds_no_more_than_it_says(compress: str, level: int | str, predictor: int) -> None:
    """The kernel's high-water mark in a fresh process, and what is foreseen is not far above it."""
    command = [sys.executable, "-c", _MEASURE, compress, str(level), str(predictor), "1024"]
    measured, foreseen = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert measured <= foreseen + 256 * 1024  # pages of code
    assert foreseen <= 2 * measured or compress == "lerc"  # which needs its buffer at the edges, and where there is NaN


_STARVE = """
import resource
import numpy as np
from lib.raster.sinks.encode import Encoding, TileEncoder

encoder = TileEncoder(Encoding("zstd", np.dtype("uint8"), 2048, 1, 22))
tile = np.zeros((2048, 2048), np.uint8)
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + 8 * 2**20,) * 2)
try:
    encoder.encode(tile)
except MemoryError as error:
    print(error)
"""


def test_a_codec_that_cannot_allocate_is_memory() -> None:
    """Under an address-space cap, where Zstandard's highest level wants 65 MiB more."""
    said = subprocess.run([sys.executable, "-c", _STARVE], check=True, capture_output=True, text=True).stdout
    assert said.startswith("no memory for the zstd encoder: ")
    assert all(issubclass(each, RuntimeError) for each in (imagecodecs.LzwError, imagecodecs.DeflateError))


def test_every_codec_has_a_level_or_none() -> None:
    """What the parametrised tests stand on: each codec is among them, with each predictor that it takes."""
    found = {(each.compress, each.predictor) for each in every_encoding(16)}
    assert found == {("none", 1), ("lerc", 1)} | {(codec, each) for codec in ("lzw", *LEVELS) for each in (1, 2, 3)}
