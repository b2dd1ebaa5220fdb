"""What libraries hold, measured: how far the kernel's high-water mark rises while the first chunks are worked through.

Where to look is in `sources/tables.py`; how many chunks are enough was tried out (FACTS, "The probe, prototyped").
"""

from lib.memory.proc import peak_bytes, process_memory, restart_peak
from lib.raster.formats import cache_bytes
from lib.units import MIB

# What may be mapped beyond what is touched: less than the slack that RLIMIT_AS leaves (`memory/cap.py`).
_UNTOUCHED_BYTES = 32 * MIB
_QUIET_BYTES, _QUIET_CHUNKS, _MOST_CHUNKS = MIB, 2, 17
# netCDF and HDF5 fill a cache of chunks that no bounded look sees full.
_CHUNK_CACHED = frozenset({"netCDF", "HDF5", "HDF5Image", "BAG"})
_CHUNK_CACHE_BYTES = 48 * MIB


class Growth:
    """How far the process's peak has risen since this was made, without what GDAL's cache has come to hold.

    Args:
        block_bytes: one block of the source, which stays in a cache that is smaller, too; planned with the cache.
    """

    def __init__(self, block_bytes: int = 0) -> None:
        self._block_bytes = block_bytes
        restart_peak()
        self._before = process_memory()
        self._cached = cache_bytes()[1]

    def bytes(self) -> int:
        """Bytes, at least 0. What more than a block is in a cache that is too small for it counts here.

        So does what is mapped and not touched, as far as RLIMIT_AS would not allow it: a long zstd window.
        """
        bound, cached = cache_bytes()
        touched = peak_bytes(since_restart=True) - self._before.resident_bytes
        mapped = process_memory().virtual_bytes - self._before.virtual_bytes - _UNTOUCHED_BYTES
        return max(0, max(touched, mapped) - min(max(0, cached - self._cached), max(bound, self._block_bytes)))


class Quiet:
    """Tells when enough chunks have been seen: two in a row that add next to nothing, or a good many.

    Args:
        growth: what is watched.
        least: chunks that must be seen (the first window's groups of bands).
    """

    def __init__(self, growth: Growth, least: int) -> None:
        self._growth, self._least = growth, least
        self._last = growth.bytes()
        self._seen = self._quiet = 0

    def reached(self) -> bool:
        """Asked after each chunk."""
        now = self._growth.bytes()
        self._seen += 1
        self._quiet = self._quiet + 1 if now - self._last < _QUIET_BYTES else 0
        self._last = now
        return self._seen >= self._least and (self._quiet >= _QUIET_CHUNKS or self._seen >= _MOST_CHUNKS)


def undecoded_bytes(driver: str, decoded: int, read: int) -> int:
    """What a driver with a cache of chunks may still come to hold of what was not read, bytes; 0 for others."""
    return min(max(0, decoded - read), _CHUNK_CACHE_BYTES) if driver in _CHUNK_CACHED else 0
