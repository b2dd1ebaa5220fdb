"""What resident memory is made of: planted bytes are found where they were planted, and the parts sum up."""

import ctypes
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio

from lib.memory.attribution import Attributor
from lib.memory.cap import trim
from lib.memory.meter import snapshot
from lib.raster.formats import set_cache
from lib.units import MIB

SIZE = 24 * MIB


@pytest.fixture
def attributor() -> Iterator[Attributor]:
    """An attributor that was made when tracing began."""
    tracemalloc.start(1)
    try:
        yield Attributor()
    finally:
        tracemalloc.stop()


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}


def test_numpy_is_told_from_the_python_heap(attributor: Attributor) -> None:
    """24 MiB of an array count as NumPy's, 24 MiB of a bytearray as Python's."""
    before = attributor.split(snapshot())
    array = np.ones(SIZE, dtype="uint8")
    grown = _grown(before, attributor.split(snapshot()))
    assert grown["numpy_bytes"] == pytest.approx(SIZE, abs=MIB)
    assert grown["python_heap_bytes"] < MIB
    held = bytearray(b"x") * SIZE
    grown = _grown(before, attributor.split(snapshot()))
    assert grown["python_heap_bytes"] == pytest.approx(SIZE, abs=MIB)
    assert len(array) == len(held)


def test_arrows_pool_is_told(attributor: Attributor) -> None:
    """A buffer from Arrow's pool counts as the pool's."""
    before = attributor.split(snapshot())
    buffer = pa.allocate_buffer(SIZE)
    assert _grown(before, attributor.split(snapshot()))["arrow_pool_bytes"] >= SIZE
    assert buffer.size == SIZE


def test_gdals_block_cache_is_told(attributor: Attributor, tmp_path: Path) -> None:
    """16 MiB of blocks that were read and stay cached count as GDAL's."""
    path = tmp_path / "tiles.tif"
    options = {"driver": "GTiff", "width": 4096, "height": 4096, "count": 1, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", transform=rasterio.Affine.scale(2), **options) as out:
        out.write(np.ones((1, 4096, 4096), dtype="uint8"))
    set_cache(64 * MIB)
    with rasterio.open(path) as source:
        for _, window in source.block_windows(1):
            source.read(1, window=window)
        assert attributor.split(snapshot())["gdal_cache_bytes"] >= 15 * MIB


def test_native_memory_is_unexplained_and_the_parts_sum_up(attributor: Attributor) -> None:
    """What nobody traces is said to be unexplained; all parts together are the resident size."""
    size = 48 * MIB
    trim()  # other tests of this process may have left that much in malloc's free lists
    before = attributor.split(snapshot())
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    block = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(block, 1, size)
    after = attributor.split(snapshot())
    libc.free(block)
    assert after["resident_bytes"] - before["resident_bytes"] >= size - MIB
    parts = sum(size for name, size in after.items() if name != "resident_bytes")
    assert parts >= after["resident_bytes"]
    assert parts == after["resident_bytes"] or after["unexplained_bytes"] == 0
