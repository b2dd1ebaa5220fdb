"""What resident memory is made of, from inside the child: nothing here guesses, and what is left is called unexplained.

Sources: tracemalloc's domains (`traces.py`), GDALGetCacheUsed64 of every libgdal that is loaded, Arrow's pool, proc(5).

Malloc's free memory is what is resident of its heap (mincore(2)) less what is allocated in it (mallinfo2): its own count,
fordblks, holds pages that the kernel has long had back.
"""

import ctypes
import mmap
import os
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lib.memory.traces import Lines

_MINCORE_PAGES = 16384


class _MallInfo2(ctypes.Structure):
    """Glibc's struct mallinfo2, mallinfo(3): ten sizes, of which the eighth is what is allocated."""

    _fields_ = (
        ("before", ctypes.c_size_t * 7),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


class Attributor:
    """Splits resident memory; made when tracing starts, so that what imports left is known as such."""

    def __init__(self) -> None:
        maps = _maps()
        self._heap = _Heap(maps)
        resident, file_backed = _resident()
        self._imports_bytes = max(0, resident - file_backed - self._heap.free_bytes())
        self._gdal = _loaded_gdal(maps)

    def cached_bytes(self) -> int:
        """What GDAL's block caches hold: given back when another block needs room, or its dataset is closed."""
        return sum(library.GDALGetCacheUsed64() for library in self._gdal)

    def split(self, look: Callable[[], Lines | None]) -> dict[str, int]:
        """Bytes by origin; all but `resident_bytes` sum up to it exactly.

        The rest is `unexplained_bytes` (native memory, stacks, what was not traced), or where it is below 0 `not_resident_bytes`:
        allocated, and no page is resident for it, as of an array that was not yet written to.

        Args:
            look: looks at what is traced now, `traces.Tracer.look`; None where nothing is. Called last: it takes memory.
        """
        self._gdal = self._gdal or _loaded_gdal(_maps())
        resident, file_backed = _resident()
        parts = {
            "file_backed_bytes": file_backed,
            "imports_bytes": self._imports_bytes,
            "gdal_cache_bytes": self.cached_bytes(),
            "arrow_pool_bytes": _arrow_bytes(),
            "malloc_free_bytes": self._heap.free_bytes(),
        }
        tracing_bytes = tracemalloc.get_tracemalloc_memory()
        traced = look()
        parts |= {
            "python_heap_bytes": max(0, traced.traced_bytes - traced.numpy_bytes) if traced else 0,
            "numpy_bytes": traced.numpy_bytes if traced else 0,
            "tracing_bytes": tracing_bytes if traced else 0,
        }
        rest = resident - sum(parts.values())
        return {
            "resident_bytes": resident,
            **parts,
            "not_resident_bytes": min(0, rest),
            "unexplained_bytes": max(0, rest),
        }


class _Heap:
    """Malloc's heap, the one that grows by brk(2); larger blocks are mapped each for itself and have nothing free."""

    def __init__(self, maps: list[str]) -> None:
        self._start = next((int(line.split("-")[0], 16) for line in maps if line.endswith("[heap]")), 0)
        self._libc = ctypes.CDLL(None)
        with suppress(AttributeError):
            self._libc.mallinfo2.restype = _MallInfo2
            self._libc.sbrk.restype = ctypes.c_void_p
            self._libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

    def free_bytes(self) -> int:
        """Resident bytes of the heap that nothing is allocated in; 0 where the C library is not glibc."""
        with suppress(AttributeError):
            allocated = int(self._libc.mallinfo2().uordblks)
            return max(0, self._resident_bytes() - allocated)
        return 0

    def _resident_bytes(self) -> int:
        end = self._libc.sbrk(0) or 0
        seen = ctypes.create_string_buffer(_MINCORE_PAGES)
        resident_pages = 0
        for start in range(self._start, end if self._start else 0, _MINCORE_PAGES * mmap.PAGESIZE):
            size = min(end - start, _MINCORE_PAGES * mmap.PAGESIZE)
            if self._libc.mincore(start, size, seen) == 0:
                resident_pages += seen.raw[: -(-size // mmap.PAGESIZE)].count(1)
        return resident_pages * mmap.PAGESIZE


def _resident() -> tuple[int, int]:
    """Resident bytes, and those of them that files or shared memory back: proc(5), statm."""
    with suppress(OSError):
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
        return resident * mmap.PAGESIZE, shared * mmap.PAGESIZE
    return 0, 0


def _maps() -> list[str]:
    with suppress(OSError):
        return Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return []


def _loaded_gdal(maps: list[str]) -> list[ctypes.CDLL]:
    paths = {line.split(maxsplit=5)[-1] for line in maps if "/libgdal" in line}
    libraries = []
    for path in sorted(paths):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            library.GDALGetCacheUsed64.restype = ctypes.c_longlong
            libraries.append(library)
    return libraries


def _arrow_bytes() -> int:
    # Not `is None` alone: a user's function may be importing it in another thread.
    allocated = getattr(sys.modules.get("pyarrow"), "total_allocated_bytes", None)
    return int(allocated()) if allocated is not None else 0
