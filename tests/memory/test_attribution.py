"""What resident memory is made of: planted bytes are found where they were planted, and the parts sum up.

Each test has a process of its own, as a job has. In one that ran others before, malloc's heap has free pages that the kernel
took back, and whatever is allocated next brings some of them to life: 0 to 1.3 MiB between two looks.
"""

import ctypes
import mmap
import sys
import tracemalloc
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import wraps
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio

from lib.memory.attribution import Attributor
from lib.memory.cap import trim
from lib.memory.traces import Tracer
from lib.raster.formats import set_cache
from lib.units import KIB, MIB

SIZE = 24 * MIB

Split = Callable[[], dict[str, int]]


def _alone(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Run a test in a fresh process; what it asserts fails here."""

    @wraps(test)
    def run(tmp_path: Path) -> None:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(_call, test.__name__, tmp_path).result()

    return run


def _call(name: str, folder: Path) -> None:
    globals()[name].__wrapped__(folder)


def _splitter() -> Split:
    """Begin tracing, and an attributor of that moment."""
    tracemalloc.start(1)
    attributor, tracer = Attributor(), Tracer()
    attributor.split(lambda: tracer.look(0))  # what the first look takes and frees stays in malloc's heap
    return lambda: attributor.split(lambda: tracer.look(0))


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


def _smaps(field: str, path: str) -> int:
    """A field of proc(5) smaps over the mappings of a file, bytes: another source than the one that is tested."""
    found, is_of_file = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if not line.split()[0].endswith(":"):
            is_of_file = line.endswith(path)
        elif is_of_file and line.startswith(f"{field}:"):
            found += int(line.split()[1]) * KIB
    return found


@_alone
def test_numpy_is_told_from_the_python_heap(tmp_path: Path) -> None:
    """24 MiB of an array count as NumPy's, 24 MiB of a bytearray as Python's."""
    split = _splitter()
    before = split()
    array = np.ones(SIZE, dtype="uint8")
    grown = _grown(before, split())
    assert grown["numpy_bytes"] == pytest.approx(SIZE, abs=MIB)
    assert abs(grown["python_heap_bytes"]) < MIB
    held = bytearray(b"x") * SIZE
    grown = _grown(before, split())
    assert grown["python_heap_bytes"] == pytest.approx(SIZE, abs=MIB)
    assert abs(grown["unexplained_bytes"]) < 2 * MIB
    assert len(array) == len(held)


@_alone
def test_the_look_itself_is_not_in_the_python_heap(tmp_path: Path) -> None:
    """Of 10,000 traces a look makes megabytes of objects: the heap has the 10,000 objects, and not those."""
    split = _splitter()
    before = split()
    kept = [bytes(100) for _ in range(10_000)]
    objects = len(kept) * (100 + 33) + 90_000  # as sys.getsizeof has them, and the list
    assert _grown(before, split())["python_heap_bytes"] == pytest.approx(objects, rel=0.1)


@_alone
def test_arrows_pool_is_told(tmp_path: Path) -> None:
    """A buffer from Arrow's pool counts as the pool's."""
    split = _splitter()
    before = split()
    buffer = pa.allocate_buffer(SIZE)
    assert _grown(before, split())["arrow_pool_bytes"] >= SIZE
    assert buffer.size == SIZE


@pytest.mark.parametrize("loaded", [None, types.ModuleType("pyarrow")], ids=["not imported", "being imported"])
def test_arrow_may_be_half_imported(loaded: types.ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look from the meter's thread while a user's function imports pyarrow sees a module without its functions."""
    monkeypatch.setitem(sys.modules, "pyarrow", loaded)
    assert Attributor().split(lambda: None)["arrow_pool_bytes"] == 0


@_alone
def test_gdals_block_cache_is_told(tmp_path: Path) -> None:
    """16 MiB of blocks that were read and stay cached count as GDAL's."""
    split = _splitter()
    path = tmp_path / "tiles.tif"
    options = {"driver": "GTiff", "width": 4096, "height": 4096, "count": 1, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", transform=rasterio.Affine.scale(2), **options) as out:
        out.write(np.ones((1, 4096, 4096), dtype="uint8"))
    set_cache(64 * MIB)
    with rasterio.open(path) as source:
        for _, window in source.block_windows(1):
            source.read(1, window=window)
        assert split()["gdal_cache_bytes"] >= 15 * MIB


@_alone
def test_native_memory_is_unexplained(tmp_path: Path) -> None:
    """What nobody traces is unexplained, all of it, and nothing else grows by it."""
    split = _splitter()
    size = 48 * MIB
    libc = _libc()
    before = split()
    block = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(block, 1, size)
    grown = _grown(before, split())
    libc.free(block)
    assert grown["resident_bytes"] >= size  # a huge page may reach over its end
    found = grown["unexplained_bytes"] + grown["not_resident_bytes"]
    assert found == pytest.approx(grown["resident_bytes"], abs=MIB), grown
    assert abs(grown["malloc_free_bytes"]) < MIB


@_alone
def test_freed_memory_is_mallocs_until_it_is_given_back(tmp_path: Path) -> None:
    """What was freed below a block that stays is malloc's free memory, until malloc_trim gives it back."""
    split = _splitter()
    libc = _libc()
    libc.malloc(100)
    before = split()
    blocks = [libc.malloc(ctypes.c_size_t(60_000)) for _ in range(400)]
    for block in blocks:
        ctypes.memset(block, 1, 60_000)
    held = split()
    for block in blocks[:-1]:
        libc.free(block)
    freed = _grown(held, split())
    assert freed["malloc_free_bytes"] == pytest.approx(399 * 60_000, rel=0.1)
    assert abs(freed["resident_bytes"]) < MIB
    trim()
    trimmed = _grown(before, split())
    libc.free(blocks[-1])
    assert trimmed["malloc_free_bytes"] < 2 * MIB
    assert trimmed["resident_bytes"] < 2 * MIB


@_alone
def test_file_backed_pages_are_told(tmp_path: Path) -> None:
    """A large file that is mapped and read is file-backed as far as the kernel holds its pages, and is not when it is unmapped.

    Large, because the kernel maps pages of libraries that are run, and takes others back, whenever it likes.
    """
    split = _splitter()
    size = 10 * SIZE
    path = tmp_path / "mapped"
    path.write_bytes(b"x" * size)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = split()
        assert sum(mapped[at] for at in range(0, size, mmap.PAGESIZE)) > 0
        read = split()
        assert _grown(before, read)["file_backed_bytes"] == pytest.approx(_smaps("Rss", str(path)), rel=1 / 24)
        assert _smaps("Rss", str(path)) > size - 10 * MIB
    assert _grown(split(), read)["file_backed_bytes"] == pytest.approx(size, rel=1 / 24)


@_alone
def test_an_array_that_was_not_written_to_is_not_resident(tmp_path: Path) -> None:
    """600 MiB that np.empty reserved are NumPy's by its own count, and said not to be resident."""
    split = _splitter()
    before = split()
    array = np.empty(600 * MIB, dtype="uint8")
    after = split()
    assert array.size == 600 * MIB
    grown = _grown(before, after)
    assert grown["numpy_bytes"] == pytest.approx(600 * MIB, abs=MIB)
    assert grown["not_resident_bytes"] + grown["unexplained_bytes"] == pytest.approx(-600 * MIB, abs=2 * MIB)
    assert after["unexplained_bytes"] == 0


@_alone
def test_the_parts_sum_up_to_the_resident_size_exactly(tmp_path: Path) -> None:
    """Before, with an array, with one that is not resident, and after tracing ended: never more, never less."""
    split = _splitter()
    kept = []
    for size, fill in ((0, 0), (SIZE, 1), (100 * MIB, None)):
        array = np.empty(size, dtype="uint8")
        if fill is not None:
            array.fill(fill)
        kept.append(array)
        found = split()
        assert sum(found.values()) - found["resident_bytes"] == found["resident_bytes"]
        assert found["tracing_bytes"] > 0
        assert found["unexplained_bytes"] == 0 or found["not_resident_bytes"] == 0
    tracemalloc.stop()
    found = split()
    assert sum(found.values()) - found["resident_bytes"] == found["resident_bytes"]
    assert (found["tracing_bytes"], found["numpy_bytes"], found["python_heap_bytes"]) == (0, 0, 0)
    assert found["unexplained_bytes"] >= SIZE - MIB
