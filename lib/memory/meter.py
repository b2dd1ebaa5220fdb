"""The meter: baseline, drift chunk by chunk, peak, residue, leaks, attribution and top allocators, from inside the child.

It reads `/proc` and tracemalloc and knows nothing of pixels or features. Releasing happens here too, at chunk boundaries, some
sixty times a job and whenever memory has grown by a part of the drift threshold: what stays after a release is what a
leak is fitted through (`leaks.py`), early enough to name it before the threshold is crossed.
"""

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from lib.errors import DriftExceeded
from lib.memory.attribution import Attributor
from lib.memory.cap import trim
from lib.memory.leaks import Slope, fit, would_cross
from lib.memory.proc import process_memory
from lib.units import format_bytes

__all__ = ["Meter", "snapshot", "top_allocators"]

_RELEASES = 60
_MOST_RESIDUES = 128
_LOOK_EVERY_SECONDS = 0.05
_HEARTBEAT_EVERY_SECONDS = 0.1
_PEAK_GROWTH = 1.10
_REST = 100  # releases and snapshots stop the work: each is followed by a rest of so many times what it took
_GROWTH_STEPS = 32  # releases on the way to the drift threshold
_JUDGE_EVERY_RELEASES = 4
_EARLY_RELEASES = 8


class Meter:
    """Measures one job.

    Args:
        send: sends one event to the parent.
        drift_threshold_bytes: growth over the baseline that is an error if also above the projection.
        residual_tolerance_bytes: growth left after release that is worth a warning.
    """

    def __init__(
        self, send: Callable[[dict[str, Any]], None], *, drift_threshold_bytes: int, residual_tolerance_bytes: int
    ) -> None:
        self._send = send
        self._drift_threshold_bytes = drift_threshold_bytes
        self._residual_tolerance_bytes = residual_tolerance_bytes
        self._projected_bytes = 0
        self._beat = time.monotonic()
        self._rested_at = 0.0
        self._reported_peak_bytes = 0
        self._chunks = self._of_chunks = self._released_chunk = 0
        self._attributor: Attributor | None = None
        self._residues: list[tuple[int, int]] = []
        self._growth_step = drift_threshold_bytes // _GROWTH_STEPS
        self._judge_at = _EARLY_RELEASES + _JUDGE_EVERY_RELEASES
        self._over = threading.Event()
        self._watching = False
        self._early: tracemalloc.Snapshot | None = None
        self._early_chunk = 0
        self.baseline_bytes: int | None = None
        self.final_bytes: int | None = None
        self.residual_bytes: int | None = None
        self.max_drift_bytes = 0
        self.warnings: list[str] = []
        self.top: list[dict[str, Any]] = []
        self.leak: dict[str, Any] | None = None
        self.attribution: dict[str, int] = {}
        self.attribution_end: dict[str, int] = {}

    def expect(self, projected_bytes: int) -> None:
        """Tell the meter the plan's projection: growth within it is no drift; from here on memory is attributed."""
        self._projected_bytes = projected_bytes
        self._attributor = Attributor()

    def phase(self, name: str, *, patient: bool = False) -> None:
        """Announce a phase; `patient` ones (index building, closing) send no heartbeats and may take long."""
        self._send({"event": "phase", "name": name, "patient": patient})

    def start(self, chunks: int = 0) -> None:
        """Take the baseline: datasets are open, buffers touched, the loop comes next; 0 chunks where not known."""
        gc.collect()
        self._of_chunks = chunks
        self.baseline_bytes = process_memory().resident_bytes
        self._send({"event": "baseline", "resident_bytes": self.baseline_bytes, "chunks": chunks})
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch_peak, name="swath-meter", daemon=True).start()

    def chunk(self) -> None:
        """One chunk is done: check drift, send a heartbeat, now and then release.

        Raises:
            DriftExceeded: memory grew past the drift threshold and past the projection.
        """
        self._chunks += 1
        now = time.monotonic()
        resident = process_memory().resident_bytes
        drift = resident - (self.baseline_bytes or resident)
        self.max_drift_bytes = max(self.max_drift_bytes, drift)
        if drift > self._drift_threshold_bytes and resident > self._projected_bytes:
            self._raise_if_drift_stays()
        if now - self._beat > _HEARTBEAT_EVERY_SECONDS or self._chunks == self._of_chunks:
            self._beat = now
            self._send({"event": "chunk", "done": self._chunks, "of": self._of_chunks, "resident_bytes": resident})
        if self._is_time_to_release(now, resident):
            self._released_chunk = self._chunks
            self._release()
            done = time.monotonic()
            self._rested_at = done + _REST * (done - now)

    def finish(self) -> None:
        """After closing: release, and compare with the baseline. What follows, the job's own checks, is not traced."""
        if self.baseline_bytes is None:
            self.start()
        self._over.set()
        gc.collect()
        trim()
        self.final_bytes = process_memory().resident_bytes
        now = snapshot()
        self.top = self.top or top_allocators(now)
        self.attribution_end = self._split(now)
        tracemalloc.stop()
        self.residual_bytes = self.final_bytes - (self.baseline_bytes or self.final_bytes)
        if self.residual_bytes > self._residual_tolerance_bytes:
            self.warnings.append(
                f"{format_bytes(self.residual_bytes)} more than the baseline of "
                f"{format_bytes(self.baseline_bytes or 0)} stayed after release "
                f"(tolerance {format_bytes(self._residual_tolerance_bytes)})"
            )

    def note_failure(self) -> None:
        """The allocators and the attribution of a job that failed before its peak was noted."""
        self._over.set()
        now = snapshot()
        self.top = self.top or top_allocators(now)
        self.attribution_end = self._split(now)

    def _split(self, now: tracemalloc.Snapshot | None) -> dict[str, int]:
        return self._attributor.split(now) if self._attributor else {}

    def record(self) -> dict[str, Any]:
        """What was measured, as `reports.MemoryRecord` has it; its samples over time are the parent's."""
        now = process_memory()
        slope = fit(self._residues)
        return {
            "baseline_bytes": self.baseline_bytes,
            "peak_bytes": now.peak_bytes,
            "final_bytes": self.final_bytes if self.final_bytes is not None else now.resident_bytes,
            "residual_bytes": self.residual_bytes,
            "max_drift_bytes": self.max_drift_bytes,
            "slope_bytes_per_chunk": slope.bytes_per_chunk if slope else None,
            "slope_interval": [slope.low, slope.high] if slope else None,
            "leak": self.leak,
            "top_allocators": self.top,
            "attribution": self.attribution or self.attribution_end,
            "attribution_end": self.attribution_end,
        }

    def _is_time_to_release(self, now: float, resident: int) -> bool:
        last = self._residues[-1][1] if self._residues else self.baseline_bytes or resident
        if resident - last > self._growth_step:
            return True
        if now < self._rested_at:
            return False
        return not self._of_chunks or self._chunks - self._released_chunk >= self._of_chunks // _RELEASES

    def _release(self) -> None:
        gc.collect()
        trim()
        resident = process_memory().resident_bytes
        if self._residues and resident - self._residues[-1][1] < self._growth_step // 2:
            self._growth_step *= 2  # what had grown was free, or soon to be: look less often
        self._residues.append((self._chunks, resident))
        if len(self._residues) > _MOST_RESIDUES:
            del self._residues[1::2]
            self._judge_at = _MOST_RESIDUES // 2 + _JUDGE_EVERY_RELEASES
        if self._early is None and len(self._residues) == _EARLY_RELEASES and tracemalloc.is_tracing():
            self._early, self._early_chunk = tracemalloc.take_snapshot(), self._chunks
        if self.leak is None and len(self._residues) >= self._judge_at:
            self._judge_at += _JUDGE_EVERY_RELEASES
            self._judge_leak()

    def _judge_leak(self) -> None:
        """Name a leak once, when its slope is sure to cross the drift threshold before the job's end."""
        slope = fit(self._residues)
        chunks = max(self._chunks, self._of_chunks)
        crossing = slope and would_cross(slope, chunks=chunks, threshold_bytes=self._drift_threshold_bytes)
        if slope is None or crossing is None:
            return
        self.leak = {
            "bytes_per_chunk": slope.bytes_per_chunk,
            "interval": [slope.low, slope.high],
            "confidence": slope.confidence,
            "crosses_at_chunk": crossing,
            "lines": self._grown_lines(slope),
        }
        lines = ", ".join(f"{line['location']} (+{format_bytes(line['size_bytes'])})" for line in self.leak["lines"])
        self.warnings.append(
            f"a leak of {format_bytes(int(slope.bytes_per_chunk))} per chunk (95 % between {format_bytes(int(slope.low))} "
            f"and {format_bytes(int(slope.high))}), which passes the drift threshold of "
            f"{format_bytes(self._drift_threshold_bytes)} at chunk {crossing} of {chunks}; it grows at "
            + (lines or "no line of Python or NumPy: native memory")
        )
        self._send({"event": "leak", **self.leak})

    def _grown_lines(self, slope: Slope) -> list[dict[str, Any]]:
        """The lines whose traced memory has grown since the first releases by a fair part of the leak."""
        if self._early is None:
            return []
        chunks = self._chunks - self._early_chunk
        least = slope.bytes_per_chunk * chunks / 10
        grown = _without_tracer(tracemalloc.take_snapshot()).compare_to(_without_tracer(self._early), "lineno")
        return [
            {
                "location": f"{each.traceback[0].filename}:{each.traceback[0].lineno}",
                "size_bytes": each.size_diff,
                "blocks": each.count_diff,
            }
            for each in grown[:5]
            if each.size_diff > max(least, 0)
        ]

    def _watch_peak(self) -> None:
        """Name the allocators whenever the peak has grown by a tenth, so that a child killed in mid-chunk has named them.

        Within the projection that is rationed to a hundredth of the time: a snapshot stops the work. Past it nothing waits.
        """
        self._reported_peak_bytes, rested_at = self.baseline_bytes or 0, 0.0
        while not self._over.wait(_LOOK_EVERY_SECONDS):
            resident, now = process_memory().resident_bytes, time.monotonic()
            if resident > self._reported_peak_bytes * _PEAK_GROWTH and (
                now > rested_at or resident > self._projected_bytes
            ):
                self._note_peak(resident)
                done = time.monotonic()
                rested_at = done + _REST * (done - now)

    def _note_peak(self, resident: int) -> None:
        self._reported_peak_bytes = resident
        now = snapshot()
        self.top = top_allocators(now)
        self.attribution = self._split(now)
        self._send(
            {"event": "allocators", "top": self.top, "attribution": self.attribution, "resident_bytes": resident}
        )

    def _raise_if_drift_stays(self) -> None:
        gc.collect()
        trim()
        baseline = self.baseline_bytes or 0
        resident = process_memory().resident_bytes
        if resident - baseline <= self._drift_threshold_bytes or resident <= self._projected_bytes:
            return
        self.top = top_allocators(snapshot())
        where = ", ".join(f"{each['location']} {format_bytes(each['size_bytes'])}" for each in self.top[:1])
        raise DriftExceeded(
            f"memory drifted by {format_bytes(resident - baseline)} over its baseline after {self._chunks} chunks, past "
            f"the threshold of {format_bytes(self._drift_threshold_bytes)} and the projected "
            f"{format_bytes(self._projected_bytes)}" + (f"; most of it at {where}" if where else ""),
            drift_bytes=resident - baseline,
            chunks=self._chunks,
        )


def snapshot() -> tracemalloc.Snapshot | None:
    """What is traced now; None where tracemalloc does not trace."""
    return tracemalloc.take_snapshot() if tracemalloc.is_tracing() else None


def top_allocators(now: tracemalloc.Snapshot | None, most: int = 5) -> list[dict[str, Any]]:
    """The largest lines of a snapshot, as `reports.Allocator` has them."""
    if now is None:
        return []
    return [
        {
            "location": f"{stat.traceback[0].filename}:{stat.traceback[0].lineno}",
            "size_bytes": stat.size,
            "blocks": stat.count,
        }
        for stat in _without_tracer(now).statistics("lineno")[:most]
    ]


def _without_tracer(snapshot: tracemalloc.Snapshot) -> tracemalloc.Snapshot:
    return snapshot.filter_traces((tracemalloc.Filter(inclusive=False, filename_pattern=tracemalloc.__file__),))
