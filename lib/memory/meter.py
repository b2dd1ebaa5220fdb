"""The meter: baseline, drift chunk by chunk, peak, residue, leaks, attribution and top allocators, from inside the child.

It releases, too, at chunk boundaries, some sixty times a job and whenever memory stands higher than ever: a leak is fitted
through what stays (`leaks.py`). What is traced is in `traces.py`, what memory is made of in `attribution.py`.
"""

import gc
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lib.errors import DriftExceeded
from lib.memory.attribution import Attributor
from lib.memory.cap import trim
from lib.memory.leaks import Residues, Sizes, Slope, fit, growing, would_cross
from lib.memory.proc import peak_bytes, process_memory
from lib.memory.traces import Lines, Tracer, growth
from lib.units import MIB, format_bytes

_RELEASES, _FEWEST_RELEASES, _MANY_CHUNKS = 60, 12, 512
_LOOK_EVERY_SECONDS = 0.05
# A user's function may make a million objects a second: what tracing takes is looked at more often there.
_CHECK_EVERY_SECONDS = 0.01
_HEARTBEAT_EVERY_SECONDS = 0.1
_PEAK_STEP_BYTES = MIB
_PEAK_GROWTH = 1.10
_REST = 100  # releases and looks stop the work: each is followed by a rest of so many times what it took
_EARLY_RELEASES = 8
_FEWEST_CHUNKS_TO_COMPARE = 4
_LEAST_SHARE = 0.1


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
        self._noted_bytes = 0
        self._cached_before = self._unexplained_bytes = 0
        self._chunks = self._of_chunks = self._released_chunk = 0
        self._attributor: Attributor | None = None
        self._tracer = Tracer()
        self._early: Lines | None = None
        self._residues = Residues(drift_threshold_bytes)
        self._sizes = Sizes()
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None
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
        """Tell the meter what is projected by now: growth within it is no drift; from here on memory is attributed."""
        self._projected_bytes = projected_bytes
        self._attributor = self._attributor or Attributor()

    def phase(self, name: str, *, patient: bool = False) -> None:
        """Announce a phase; `patient` ones (index building, closing) send no heartbeats and may take long."""
        self._send({"event": "phase", "name": name, "patient": patient})

    def start(self, chunks: int = 0) -> None:
        """Take the baseline: datasets are open, buffers touched, the loop comes next; 0 chunks where not known."""
        gc.collect()
        self._of_chunks = chunks
        self.baseline_bytes = process_memory().resident_bytes
        self._cached_before = self._attributor.cached_bytes() if self._attributor else 0
        self._residues.begin(self.baseline_bytes)
        self._send({"event": "baseline", "resident_bytes": self.baseline_bytes, "chunks": chunks})
        self._note_if_higher()
        self._unexplained_bytes = self.attribution.get("unexplained_bytes", 0)
        self._early = self._tracer.last
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch_peak, name="swath-meter", daemon=True)
            self._watcher.start()

    def chunk(self) -> None:
        """One chunk is done: check drift, send a heartbeat, now and then release.

        Raises:
            DriftExceeded: memory grew past the drift threshold and past the projection.
        """
        self._chunks += 1
        self._tracer.check(self._chunks)
        now = time.monotonic()
        resident = process_memory().resident_bytes
        self._sizes.add(self._chunks, resident)
        self.max_drift_bytes = max(self.max_drift_bytes, self._drift(resident))
        if self._has_drifted(resident):
            self._raise_if_drift_stays(resident)
        if now - self._beat > _HEARTBEAT_EVERY_SECONDS or self._chunks == self._of_chunks:
            self._beat = now
            of = self._of_chunks and max(self._of_chunks, self._chunks)  # batches that are full by their bytes are more
            self._send({"event": "chunk", "done": self._chunks, "of": of, "resident_bytes": resident})
        if self._residues.asks(resident - self._cached()) or self._is_time_to_release(now):
            self._released_chunk = self._chunks
            self._release(resident)
            self._judge_leak()
            done = time.monotonic()
            self._rested_at = done + _REST * (done - now)

    def finish(self, held_bytes: int = 0) -> None:
        """After closing: release, and compare with the baseline. What follows, the job's own checks, is not traced.

        Args:
            held_bytes: what is known to be held by what must stay open, a source with its decoder: no residue is made of it.
        """
        if self.baseline_bytes is None:
            self.start()
        self._end_watch()
        self._note_if_higher()
        self._judge_leak()
        gc.collect()
        trim()
        self.final_bytes = process_memory().resident_bytes
        self.attribution_end = self._split()
        self._tracer.stop()
        self.residual_bytes = self._drift(self.final_bytes) - self._cached()
        if self.residual_bytes > held_bytes + self._residual_tolerance_bytes:
            self.warnings.append(
                f"{format_bytes(self.residual_bytes)} more than the baseline of "
                f"{format_bytes(self.baseline_bytes or 0)} stayed after release "
                f"(tolerance {format_bytes(self._residual_tolerance_bytes)})"
            )
        self._warn_of_end_of_tracing()

    def note_failure(self) -> None:
        """The allocators and the attribution of a job that failed before it was finished."""
        self._end_watch()
        if self.final_bytes is None and self._attributor is not None:
            self._note_if_higher()
            self.attribution_end = self._split()
            self._warn_of_end_of_tracing()

    def record(self) -> dict[str, Any]:
        """What was measured, as `reports.MemoryRecord` has it; its samples over time are the parent's."""
        now = process_memory()
        slope = fit(self._residues.points)
        return {
            "baseline_bytes": self.baseline_bytes,
            "peak_bytes": peak_bytes(),
            "final_bytes": self.final_bytes if self.final_bytes is not None else now.resident_bytes,
            "residual_bytes": self.residual_bytes,
            "max_drift_bytes": self.max_drift_bytes,
            "slope_bytes_per_chunk": slope.bytes_per_chunk if slope else None,
            "slope_interval": [slope.low, slope.high] if slope else None,
            "leak": self.leak,
            "top_allocators": self.top,
            "attribution": self.attribution,
            "attribution_end": self.attribution_end,
            "tracing_stopped": self._tracer.stopped,
        }

    def _drift(self, resident: int) -> int:
        return resident - (self.baseline_bytes or resident)

    def _cached(self) -> int:
        """What GDAL's block cache has come to hold since the baseline: no residue, it goes when the dataset is closed."""
        return max(0, self._attributor.cached_bytes() - self._cached_before) if self._attributor else 0

    def _has_drifted(self, resident: int) -> bool:
        return self._drift(resident) > self._drift_threshold_bytes and resident > self._projected_bytes

    def _is_time_to_release(self, now: float) -> bool:
        since = self._chunks - self._released_chunk
        if now < self._rested_at:  # on a slow machine rests are long: a slope needs some points all the same
            return self._of_chunks >= _MANY_CHUNKS and since >= self._of_chunks // _FEWEST_RELEASES
        return not self._of_chunks or since >= self._of_chunks // _RELEASES

    def _release(self, before: int) -> int:
        """Collect and trim, remember what stayed; its size in bytes."""
        gc.collect()
        trim()
        resident = process_memory().resident_bytes
        cached = self._cached()
        self._residues.add(self._chunks, before - cached, resident - cached)
        if len(self._residues.points) == _EARLY_RELEASES:
            self._early = self._tracer.look(self._chunks) or self._early
        return resident

    def _split(self) -> dict[str, int]:
        return self._attributor.split(lambda: self._tracer.look(self._chunks)) if self._attributor else {}

    def _judge_leak(self) -> None:
        """Name a leak, once, when its slope is sure to cross the drift threshold before the job's end."""
        if self.leak is not None or not self._residues.points:
            return
        chunk, resident = self._residues.points[-1]
        held = self._drift(resident)
        if held <= self._unexplained_bytes:  # no more than what nothing explained before the first chunk
            return
        if held >= self._drift_threshold_bytes // 2 and (slope := growing(self._residues.points)):
            self._name_leak(slope, chunk, held)

    def _name_leak(self, slope: Slope, chunk: int, held: int) -> None:
        chunks, threshold = max(self._chunks, self._of_chunks), self._drift_threshold_bytes
        crossing = would_cross(slope, chunk=chunk, held_bytes=held, chunks=chunks, threshold_bytes=threshold)
        if crossing is None:
            return
        lines = self._grown(slope.bytes_per_chunk)
        self.leak = {
            "bytes_per_chunk": slope.bytes_per_chunk,
            "interval": [slope.low, slope.high],
            "confidence": 0.95,
            "crosses_at_chunk": crossing,
            "lines": lines,
        }
        self.warnings.append(
            f"a leak of {format_bytes(int(slope.bytes_per_chunk))} per chunk (95 % between {format_bytes(int(slope.low))} "
            f"and {format_bytes(int(slope.high))}), which passes the drift threshold of "
            f"{format_bytes(threshold)} at chunk {crossing} of {chunks}; it grows at {self._named(lines)}"
        )
        self._send({"event": "leak", **self.leak})

    def _grown(self, bytes_per_chunk: float) -> list[dict[str, Any]]:
        """The lines whose traced memory has grown since the first releases by a fair part of so much a chunk."""
        now, early = self._tracer.look(self._chunks) or self._tracer.last, self._early
        if not now or not early or now.chunk - early.chunk < _FEWEST_CHUNKS_TO_COMPARE:
            return []
        return growth(early, now, least_bytes=_LEAST_SHARE * bytes_per_chunk * (now.chunk - early.chunk))

    def _named(self, lines: list[dict[str, Any]]) -> str:
        """The lines that grew, in words; where there are none, why."""
        if lines:
            return ", ".join(f"{each['location']} (+{format_bytes(each['size_bytes'])})" for each in lines)
        if not self._tracer.stopped:
            return "no line of Python or NumPy: native memory"
        said = "a line that is not known: tracing had ended before"
        for each in self._tracer.top(1):
            said += f", when most was held at {each['location']} ({format_bytes(each['size_bytes'])})"
        return said

    def _warn_of_end_of_tracing(self) -> None:
        """Where a user's function runs: of our own jobs (a verification's plain path over a huge polygon) the record will do."""
        stopped = self._tracer.stopped
        if stopped is not None and self._tracer.is_of_function:
            self.warnings.append(
                f"tracing stopped after {stopped['chunk']} chunks, as it took {format_bytes(stopped['tracing_bytes'])} itself: "
                f"the lines named are of the {stopped['allocations']:,} allocations last looked at, and what Python and NumPy "
                "hold since then counts as unexplained"
            )

    def _watch_peak(self) -> None:
        """Note what memory is made of whenever it stands higher, so that a child killed in mid-chunk has named its allocators.

        That is rationed to a hundredth of the time: a look stops the work. Past the projection nothing waits.
        """
        rested_at = 0.0
        look_every_seconds = _CHECK_EVERY_SECONDS if self._tracer.is_of_function else _LOOK_EVERY_SECONDS
        while not self._over.wait(look_every_seconds):
            self._tracer.check(self._chunks)
            resident, now = process_memory().resident_bytes, time.monotonic()
            is_urgent = resident > self._projected_bytes and resident > self._noted_bytes * _PEAK_GROWTH
            if is_urgent or (now > rested_at and resident > self._noted_bytes + _PEAK_STEP_BYTES):
                with suppress(MemoryError):  # near the cap, there may be no room to look
                    self._note_peak(resident)
                done = time.monotonic()
                rested_at = done + _REST * (done - now)

    def _end_watch(self) -> None:
        self._over.set()
        if self._watcher is not None:
            self._watcher.join()

    def _note_if_higher(self) -> None:
        resident = process_memory().resident_bytes
        if resident > self._noted_bytes + _PEAK_STEP_BYTES:
            self._note_peak(resident)

    def _note_peak(self, resident: int) -> None:
        self._noted_bytes = resident
        self.attribution, self.top = self._split(), self._tracer.top()
        seen = {"top": self.top, "attribution": self.attribution, "tracing_stopped": self._tracer.stopped}
        self._send({"event": "allocators", "resident_bytes": resident, **seen})

    def _raise_if_drift_stays(self, before: int) -> None:
        resident = self._release(before)
        if not self._has_drifted(resident):
            return
        held = self._drift(resident)
        self._judge_leak()
        slope = growing(self._sizes.points) or fit(self._sizes.points)
        if self.leak is None and slope:  # too few releases to be sure: the sizes at every chunk may be
            self._name_leak(slope, self._chunks, held)
        lines = self.leak["lines"] if self.leak else self._grown(held / self._chunks)
        self.top = self._tracer.top()
        where = ""
        if lines:
            where = f"; it grew at {self._named(lines[:3])}"
        elif self.top and self.top[0]["size_bytes"] > held // 2:
            where = f"; most of it at {self.top[0]['location']} {format_bytes(self.top[0]['size_bytes'])}"
        raise DriftExceeded(
            f"memory drifted by {format_bytes(held)} over its baseline after {self._chunks} chunks, past "
            f"the threshold of {format_bytes(self._drift_threshold_bytes)} and the projected "
            f"{format_bytes(self._projected_bytes)}{where}",
            drift_bytes=held,
            chunks=self._chunks,
        )
