"""What resident memory is made of, from inside the child: nothing here guesses, and what is left is called unexplained.

Sources: tracemalloc's domains (NumPy traces its own, `numpy.lib.tracemalloc_domain`), GDALGetCacheUsed64 of every libgdal that
is loaded (rasterio and pyogrio each bring one), Arrow's pool, glibc's mallinfo2 (free lists), RssFile of proc(5).
"""

import ctypes
import os
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

__all__ = ["Attributor"]


class _MallInfo2(ctypes.Structure):
    """Glibc's struct mallinfo2, mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


class Attributor:
    """Splits resident memory; made when tracing starts, so that what imports left is known as such."""

    def __init__(self) -> None:
        status = _status()
        self._imports_bytes = status.get("RssAnon", 0)
        self._free_before = _free_lists_bytes()
        self._gdal = _loaded_gdal()

    def split(self, snapshot: tracemalloc.Snapshot | None) -> dict[str, int]:
        """Bytes by origin; they sum to `resident_bytes`, the last of them being `unexplained_bytes` (never below 0).

        Args:
            snapshot: of now; None where tracemalloc does not trace.
        """
        self._gdal = self._gdal or _loaded_gdal()
        status = _status()
        numpy_bytes, python_bytes = _traced(snapshot)
        parts = {
            "file_backed_bytes": status.get("RssFile", 0) + status.get("RssShmem", 0),
            "imports_bytes": self._imports_bytes,
            "python_heap_bytes": python_bytes,
            "numpy_bytes": numpy_bytes,
            "gdal_cache_bytes": sum(_cache_used(library) for library in self._gdal),
            "arrow_pool_bytes": _arrow_bytes(),
            "malloc_free_bytes": max(0, _free_lists_bytes() - self._free_before),
        }
        resident = status.get("VmRSS", 0)
        parts["unexplained_bytes"] = max(0, resident - sum(parts.values()))
        return {"resident_bytes": resident, **parts}


def _status() -> dict[str, int]:
    found: dict[str, int] = {}
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = int(value.split()[0]) * 1024
    return found


def _traced(snapshot: tracemalloc.Snapshot | None) -> tuple[int, int]:
    """NumPy's bytes and all other traced bytes."""
    if snapshot is None:
        return 0, 0
    current = tracemalloc.get_traced_memory()[0]
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return 0, current
    domain = tracemalloc.DomainFilter(inclusive=True, domain=numpy.lib.tracemalloc_domain)
    size = sum(trace.size for trace in snapshot.filter_traces((domain,)).traces)
    return size, max(0, current - size)


def _loaded_gdal() -> list[ctypes.CDLL]:
    paths: set[str] = set()
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            path = line.split(maxsplit=5)[-1]
            if "/libgdal" in path:
                paths.add(path)
    libraries = []
    for path in sorted(paths):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            library.GDALGetCacheUsed64.restype = ctypes.c_longlong
            libraries.append(library)
    return libraries


def _cache_used(library: ctypes.CDLL) -> int:
    return int(library.GDALGetCacheUsed64())


def _arrow_bytes() -> int:
    arrow = sys.modules.get("pyarrow")
    return int(arrow.total_allocated_bytes()) if arrow is not None else 0


def _free_lists_bytes() -> int:
    with suppress(AttributeError, OSError):
        mallinfo2 = ctypes.CDLL(None).mallinfo2
        mallinfo2.restype = _MallInfo2
        return int(mallinfo2().fordblks)
    return 0
