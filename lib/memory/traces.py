"""What Python and NumPy hold, line by line: small tables from tracemalloc, which itself stays within a bound.

No snapshot is kept, and past `MOST_TRACER_BYTES` there is one look more and tracing ends (MEASURED, "Traces"). What the
tables say of a leak is in `leaks.py`, what of resident memory in `attribution.py`.
"""

import sys
import sysconfig
import threading
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from lib.units import KIB

# By its own count, which is half of what it takes: some 15,000 traces (MEASURED, "Traces").
MOST_TRACER_BYTES = 768 * KIB
# A single call into C may make any number of objects between two checks: past this it ends without a look.
_MOST_LOOKED_AT_BYTES = 3072 * KIB
# Where a user's function runs: `np.ones` allocates in NumPy's own Python, its caller is the line to name. Three cost too much.
FUNCTION_FRAMES = 2
_LEAST_LINE_BYTES = 4 * KIB

Allocators = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Traced memory at one moment.

    Attributes:
        chunk: chunks done by then.
        allocations: how many there were.
        traced_bytes: all that was traced, NumPy's included.
        numpy_bytes: data of NumPy arrays.
        by_location: `file:line` to bytes and blocks, for lines that hold 4 KiB or more.
    """

    chunk: int
    allocations: int
    traced_bytes: int
    numpy_bytes: int
    by_location: dict[str, tuple[int, int]]


def growth(earlier: Lines, later: Lines, *, least_bytes: float, most: int = 5) -> Allocators:
    """The lines that hold more than they did, by at least so many bytes, largest first; sizes and blocks are the growth."""
    grown = {}
    for location, (size, blocks) in later.by_location.items():
        before_size, before_blocks = earlier.by_location.get(location, (0, 0))
        if size - before_size >= max(least_bytes, 1):
            grown[location] = size - before_size, blocks - before_blocks
    return _largest(grown, most)


def _largest(lines: dict[str, tuple[int, int]], most: int) -> Allocators:
    largest = sorted(lines.items(), key=lambda line: -line[1][0])[:most]
    return [{"location": location, "size_bytes": size, "blocks": blocks} for location, (size, blocks) in largest]


class Tracer:
    """Looks at what tracemalloc traces, from any thread, and ends the tracing where it would take too much.

    Attributes:
        last: the last look that there was; None before the first.
        stopped: None; or where tracing has ended for its own size: the `chunk`, its `tracing_bytes` by its own count, and how
            many `allocations` the last look saw.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last: Lines | None = None
        self.stopped: dict[str, int] | None = None

    @property
    def is_of_function(self) -> bool:
        """Several frames are traced: a user's function runs, and what is traced may grow fast."""
        return tracemalloc.get_traceback_limit() > 1

    def top(self, most: int = 5) -> Allocators:
        """The largest lines at the last look; none before the first."""
        return _largest(self.last.by_location, most) if self.last else []

    def look(self, chunk: int) -> Lines | None:
        """The lines that hold memory after so many chunks; None where nothing is traced any more."""
        with self._lock:
            self._keep_within(chunk)
            if tracemalloc.is_tracing():
                self.last = _lines(chunk)
                return self.last
            return None

    def check(self, chunk: int) -> None:
        """End the tracing, after a last look, where it has come to take more than `MOST_TRACER_BYTES`."""
        if tracemalloc.get_tracemalloc_memory() > MOST_TRACER_BYTES:
            with self._lock:
                self._keep_within(chunk)

    def stop(self) -> None:
        """End the tracing, as the job's work is done."""
        with self._lock:
            tracemalloc.stop()

    def _keep_within(self, chunk: int) -> None:
        own_bytes = tracemalloc.get_tracemalloc_memory()
        if own_bytes <= MOST_TRACER_BYTES or not tracemalloc.is_tracing():
            return
        if own_bytes <= _MOST_LOOKED_AT_BYTES:
            self.last = _lines(chunk)
        tracemalloc.stop()
        allocations = self.last.allocations if self.last else 0
        self.stopped = {"chunk": chunk, "tracing_bytes": own_bytes, "allocations": allocations}


def _lines(chunk: int) -> Lines:
    traced_bytes = tracemalloc.get_traced_memory()[0]  # before the snapshot, which is traced itself
    numpy = sys.modules.get("numpy")
    domain = numpy.lib.tracemalloc_domain if numpy is not None else None
    held: dict[tuple[Any, ...], tuple[int, int]] = {}
    allocations = numpy_bytes = 0
    # As tuples: `statistics` and `filter_traces` make objects of each, and take twenty times as long.
    for trace_domain, size, frames, _ in tracemalloc.take_snapshot().traces._traces:  # type: ignore[attr-defined] # noqa: SLF001
        allocations += 1
        if trace_domain == domain:
            numpy_bytes += size
        so_far, blocks = held.get(frames, (0, 0))
        held[frames] = so_far + size, blocks + 1
    return Lines(chunk, allocations, traced_bytes, numpy_bytes, _by_location(held))


def _by_location(held: dict[tuple[Any, ...], tuple[int, int]]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for frames, (size, blocks) in held.items():
        if frames[0][0] != tracemalloc.__file__:
            location = _location(frames)
            so_far = found.get(location, (0, 0))
            found[location] = so_far[0] + size, so_far[1] + blocks
    return {location: total for location, total in found.items() if total[0] >= _LEAST_LINE_BYTES}


def _location(frames: Iterable[tuple[str, int]]) -> str:
    """`file:line` of the innermost frame that is neither the standard library's nor an installed package's; else the innermost.

    Args:
        frames: file and line of each, the innermost first.
    """
    every = list(frames)
    file, line = next((frame for frame in every if not _is_library(frame[0])), every[0])
    return f"{file}:{line}"


@cache
def _standard() -> tuple[str, ...]:
    """How files of the standard library begin; to ask takes 0.3 ms."""
    return "<frozen ", f"{sysconfig.get_path('stdlib')}/", f"{sysconfig.get_path('platstdlib')}/"


@cache
def _is_library(file: str) -> bool:
    return file.startswith(_standard()) or "/site-packages/" in file or "/dist-packages/" in file
