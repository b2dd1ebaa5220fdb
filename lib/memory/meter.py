"""The meter: baseline, drift chunk by chunk, peak, residual, slope and top allocators, from inside the child.

It reads `/proc` and tracemalloc and knows nothing of pixels or features. Releasing happens here too, at chunk boundaries
and at most every few seconds: `gc.collect` costs milliseconds and a chunk may take as little.
"""

import gc
import time
import tracemalloc
from collections.abc import Callable
from statistics import median
from typing import Any

from lib.errors import DriftExceeded
from lib.memory.cap import trim
from lib.memory.proc import process_memory
from lib.units import format_bytes

__all__ = ["Meter", "top_allocators"]

_MOST_SAMPLES = 240
_RELEASE_EVERY_SECONDS = 5.0
_HEARTBEAT_EVERY_SECONDS = 0.1
_PEAK_GROWTH = 1.10
_SLOPE_NEEDS = 8


class Meter:
    """Measures one job.

    Args:
        send: sends one event to the parent.
        drift_threshold_bytes: growth over the baseline that is an error if also above the projection.
        residual_tolerance_bytes: growth left after release that is worth a warning.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        *,
        drift_threshold_bytes: int,
        residual_tolerance_bytes: int,
    ) -> None:
        self._send = send
        self._drift_threshold_bytes = drift_threshold_bytes
        self._residual_tolerance_bytes = residual_tolerance_bytes
        self._projected_bytes = 0
        self._released = self._beat = time.monotonic()
        self._reported_peak_bytes = 0
        self._chunks = self._of_chunks = 0
        self._chunk_samples: list[tuple[int, int]] = []
        self._stride = 1
        self.baseline_bytes: int | None = None
        self.final_bytes: int | None = None
        self.residual_bytes: int | None = None
        self.max_drift_bytes = 0
        self.warnings: list[str] = []
        self.top: list[dict[str, Any]] = []

    def expect(self, projected_bytes: int) -> None:
        """Tell the meter the plan's projection: growth within it is no drift."""
        self._projected_bytes = projected_bytes

    def phase(self, name: str, *, patient: bool = False) -> None:
        """Announce a phase; `patient` ones (index building, closing) send no heartbeats and may take long."""
        self._send({"event": "phase", "name": name, "patient": patient})

    def start(self, chunks: int = 0) -> None:
        """Take the baseline: datasets are open, buffers touched, the loop comes next."""
        gc.collect()
        self._of_chunks = chunks
        self.baseline_bytes = self._sample()
        self._send({"event": "baseline", "resident_bytes": self.baseline_bytes, "chunks": chunks})

    def chunk(self) -> None:
        """One chunk is done: sample, check drift, send a heartbeat, now and then release.

        Raises:
            DriftExceeded: memory grew past the drift threshold and past the projection.
        """
        self._chunks += 1
        now = time.monotonic()
        if now - self._released > _RELEASE_EVERY_SECONDS:
            self._released = now
            gc.collect()
        resident = self._sample()
        drift = resident - (self.baseline_bytes or resident)
        self.max_drift_bytes = max(self.max_drift_bytes, drift)
        if drift > self._drift_threshold_bytes and resident > self._projected_bytes:
            self._raise_if_drift_stays()
        if resident > self._reported_peak_bytes * _PEAK_GROWTH:
            self._reported_peak_bytes = resident
            self.top = top_allocators()
            self._send({"event": "allocators", "top": self.top, "resident_bytes": resident})
        if now - self._beat > _HEARTBEAT_EVERY_SECONDS or self._chunks == self._of_chunks:
            self._beat = now
            self._send({"event": "chunk", "done": self._chunks, "of": self._of_chunks, "resident_bytes": resident})

    def finish(self) -> None:
        """After closing: release, and compare with the baseline."""
        if self.baseline_bytes is None:
            self.start()
        self.top = self.top or top_allocators()
        gc.collect()
        trim()
        self.final_bytes = self._sample()
        self.residual_bytes = self.final_bytes - (self.baseline_bytes or self.final_bytes)
        if self.residual_bytes > self._residual_tolerance_bytes:
            self.warnings.append(
                f"{format_bytes(self.residual_bytes)} more than the baseline of "
                f"{format_bytes(self.baseline_bytes or 0)} stayed after release "
                f"(tolerance {format_bytes(self._residual_tolerance_bytes)})"
            )

    def record(self) -> dict[str, Any]:
        """What was measured, as `reports.MemoryRecord` has it; its samples over time are the parent's."""
        now = process_memory()
        return {
            "baseline_bytes": self.baseline_bytes,
            "peak_bytes": now.peak_bytes,
            "final_bytes": self.final_bytes if self.final_bytes is not None else now.resident_bytes,
            "residual_bytes": self.residual_bytes,
            "max_drift_bytes": self.max_drift_bytes,
            "slope_bytes_per_chunk": self._slope(),
            "top_allocators": self.top,
        }

    def _raise_if_drift_stays(self) -> None:
        gc.collect()
        trim()
        baseline = self.baseline_bytes or 0
        resident = process_memory().resident_bytes
        if resident - baseline <= self._drift_threshold_bytes or resident <= self._projected_bytes:
            return
        self.top = top_allocators()
        where = ", ".join(f"{each['location']} {format_bytes(each['size_bytes'])}" for each in self.top[:1])
        raise DriftExceeded(
            f"memory drifted by {format_bytes(resident - baseline)} over its baseline after {self._chunks} chunks, past "
            f"the threshold of {format_bytes(self._drift_threshold_bytes)} and the projected "
            f"{format_bytes(self._projected_bytes)}" + (f"; most of it at {where}" if where else ""),
            drift_bytes=resident - baseline,
            chunks=self._chunks,
        )

    def _sample(self) -> int:
        resident = process_memory().resident_bytes
        if self._chunks % self._stride == 0:
            self._chunk_samples.append((self._chunks, resident))
            if len(self._chunk_samples) > _MOST_SAMPLES:
                del self._chunk_samples[1::2]
                self._stride *= 2
        return resident

    def _slope(self) -> float | None:
        """Theil-Sen slope of resident size over chunks, bytes per chunk; the first quarter is warm-up."""
        points = self._chunk_samples[len(self._chunk_samples) // 4 :]
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :] if b[0] > a[0]]
        return round(median(slopes), 1) if len(points) >= _SLOPE_NEEDS and slopes else None


def top_allocators(most: int = 5) -> list[dict[str, Any]]:
    """Tracemalloc's largest lines, as `reports.Allocator` has them; empty where it does not trace."""
    if not tracemalloc.is_tracing():
        return []
    snapshot = tracemalloc.take_snapshot().filter_traces(
        (tracemalloc.Filter(inclusive=False, filename_pattern=tracemalloc.__file__),)
    )
    return [
        {
            "location": f"{stat.traceback[0].filename}:{stat.traceback[0].lineno}",
            "size_bytes": stat.size,
            "blocks": stat.count,
        }
        for stat in snapshot.statistics("lineno")[:most]
    ]
