"""One job in one child, from its sending to its end: what it says, what it holds, and the deadlines.

The watchdog is here. It looks at the resident and swapped memory of the child's process tree every
`watch_interval_seconds`, and ends the child past its limit; before there is a plan, past the start-up ceiling.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.errors import ChildStalled, MemoryExceeded, SwathError, TimedOut, from_record
from lib.jobs import DriversJob, ProfileJob, RasterJob, VectorJob, VerifyJob
from lib.memory.cap import STARTUP_CEILING_BYTES
from lib.memory.evidence import Death, classify
from lib.memory.launch import Child
from lib.memory.proc import cpu_seconds, tree_memory
from lib.reports import Allocator, Cap, Check, ErrorRecord, MemoryRecord, Report, Seconds, Verification
from lib.units import format_bytes, format_seconds

__all__ = ["AnyJob", "OnEvent", "Watch"]

AnyJob = RasterJob | VectorJob | VerifyJob | ProfileJob | DriversJob
OnEvent = Callable[[dict[str, Any]], None]

_MOST_SAMPLES = 240
_PATIENT_CPU_SECONDS = 0.01
_HEAR_SECONDS = 0.5
_FORK_SECONDS = 0.005


@dataclass(slots=True)
class Watch:
    """One job in one child, from its sending to its end."""

    child: Child
    job: AnyJob
    leaf: Path | None = None
    began: float = field(default_factory=time.monotonic)
    planned_after: float | None = None
    settled: bool = False
    plan: dict[str, Any] | None = None
    result: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    memory: MemoryRecord = field(default_factory=MemoryRecord)
    samples: list[tuple[float, int]] = field(default_factory=list)
    error: SwathError | None = None
    done: bool = False
    died: bool = False
    held_bytes: int = 0
    peak_bytes: int = 0
    virtual_bytes: int = 0
    address_space_bytes: int | None = None
    in_leaf: bool = False
    ended_processes: int = 0
    patient: bool = False
    work_seconds: float = 0.0
    deadline: float | None = None
    _over: threading.Event = field(default_factory=threading.Event)
    _in_callback: bool = False
    _stalled_seconds: float | None = None
    _progress_at: float = field(default_factory=time.monotonic)
    _cpu_seconds: float = 0.0
    _stride: int = 1
    _looks: int = 0

    def until_done(self, hear: OnEvent) -> None:
        """Hear the child until the job is done, failed or dead, while a thread looks at its memory.

        A thread of its own, so that no callback that blocks (a slow terminal, an API that is away) blinds the watchdog.
        """
        looking = threading.Thread(target=self._keep_looking, name="swath-watchdog", daemon=True)
        looking.start()
        try:
            self._keep_hearing(hear)
        finally:
            self._over.set()
            looking.join()

    def _keep_hearing(self, hear: OnEvent) -> None:
        while not self.done:
            events, speaks = self.child.hear(_HEAR_SECONDS)
            for event in events:
                self._take(event)
                self._in_callback = True
                hear(event)
                self._in_callback = False
            if not speaks and not self.done:
                self._over.set()
                self._died(self.child.wait())

    def _keep_looking(self) -> None:
        while not self._over.wait(self.job.resources.watch_interval_seconds) and not self.done:
            self._look()

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] != "stderr":  # words are no progress: a hang may log for ever
            self._progress_at = time.monotonic()
        self.peak_bytes = max(
            self.peak_bytes, event.get("resident_bytes", 0)
        )  # of a child that dies, all that is known
        match event["event"]:
            case "planned":
                self.plan = event["plan"]
                self.settled = event["final"]
                self.planned_after = self.planned_after or time.monotonic() - self.began
            case "capped":
                self.address_space_bytes = event["address_space_bytes"]
                self.in_leaf = event["leaf"] is not None
            case "phase":
                self.patient = event["patient"]
            case "baseline":
                self.memory.baseline_bytes = event["resident_bytes"]
            case "allocators":
                self.memory = self.memory.model_copy(
                    update={
                        "top_allocators": [Allocator(**each) for each in event["top"]],
                        "attribution": event["attribution"],
                        "tracing_stopped": event["tracing_stopped"],
                    }
                )
            case "check":
                self.checks.append(Check(event["name"], event["passed"], event["detail"]))
            case "done":
                self.done = True
                self.ended_processes = event["ended_processes"]
                self._take_memory(event["memory"])
                self.work_seconds = event.get("seconds", 0.0)
                outcome = event["outcome"] or {}
                self.result = outcome.get("result", {})
                self.warnings += outcome.get("warnings", [])
            case "error":
                self.done = True
                self.ended_processes = event["ended_processes"]
                self._take_memory(event["memory"])
                self.error = self._of_probe(from_record(event["error"]))
                self.warnings += event["warnings"]

    def _take_memory(self, record: dict[str, Any]) -> None:
        self.memory = MemoryRecord.model_validate(record)

    def _look(self) -> None:
        """The watchdog's look, and the deadlines."""
        memory = tree_memory(self.child.pid)
        if memory.processes > 1 and memory.held_bytes > self.peak_bytes:
            # Between vfork and exec a new process shows its parent's size as its own: seen twice, it is real.
            self._over.wait(_FORK_SECONDS)
            memory = min(memory, tree_memory(self.child.pid))
        self.held_bytes = memory.held_bytes
        self.virtual_bytes = memory.virtual_bytes or self.virtual_bytes
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        self._sample()
        if self.held_bytes > self._limit_bytes:
            self._end(self._over_limit())
            return
        now, resources = time.monotonic(), self.job.resources
        if self.deadline is not None and now > self.deadline:
            seconds = format_seconds(resources.timeout_seconds or 0.0)
            self._end(TimedOut(f"{self.job.label}: not done within its time limit of {seconds}"))
        elif self.plan is None and now - self.began > resources.startup_seconds:
            seconds = format_seconds(resources.startup_seconds)
            self._end(
                ChildStalled(
                    f"{self.job.label}: no plan within startup_seconds ({seconds})",
                    hint="raise startup_seconds if the source is that slow to open",
                )
            )
        elif self._has_stalled(now):
            self._stalled_seconds = now - self._progress_at
            self.child.kill()
            self._over.set()

    @property
    def _limit_bytes(self) -> int:
        """What holds now: the job's limit, or before there is a plan the start-up ceiling."""
        return STARTUP_CEILING_BYTES if self.plan is None else self.job.resources.limit_bytes

    def _has_stalled(self, now: float) -> bool:
        if self.plan is None or self._in_callback or now - self._progress_at <= self.job.resources.stall_seconds:
            return False
        return not self._is_patiently_busy()

    def _over_limit(self) -> MemoryExceeded:
        ceiling = "" if self.plan is not None else " (the start-up ceiling)"
        return MemoryExceeded(
            f"{self.job.label}: stopped by the watchdog at {format_bytes(self.held_bytes)}, over its limit of "
            f"{format_bytes(self._limit_bytes)}{ceiling}",
            held_bytes=self.held_bytes,
        )

    def _is_patiently_busy(self) -> bool:
        """Index building and closing send no heartbeats; the processor's time tells them from a hang."""
        if not self.patient:
            return False
        used = cpu_seconds(self.child.pid)
        busy = used > self._cpu_seconds + _PATIENT_CPU_SECONDS
        self._cpu_seconds = used
        if busy:
            self._progress_at = time.monotonic()
        return busy

    def _end(self, error: SwathError) -> None:
        """From the watchdog's thread: the child is killed; the thread that hears it finds its pipe closed."""
        if not self.done:
            self.error = error
            self.child.kill()
            self._over.set()

    def _died(self, returncode: int) -> None:
        """The child ended without a report: by our own verdict, or by something to be judged."""
        self.done = self.died = True
        stalled = self._stalled_seconds
        self.error = self._of_probe(
            self.error
            or classify(
                Death(
                    returncode=None if stalled is not None else returncode,
                    stalled_seconds=stalled,
                    limit_bytes=self._limit_bytes,
                    held_bytes=self.held_bytes,
                    virtual_bytes=self.virtual_bytes,
                    address_space_bytes=self.address_space_bytes,
                    oom_kills=_oom_kills(self.leaf),
                    last_words=self.child.last_text(),
                ),
                self.job.label,
            )
        )

    def _of_probe(self, error: SwathError) -> SwathError:
        """A death of memory before the final plan is marked: after the ladder it is a refusal (`process.py`)."""
        if isinstance(error, MemoryExceeded) and not self.settled:
            error.facts["reached_bytes"] = max(self.peak_bytes, self.held_bytes)
        return error

    def _sample(self) -> None:
        if self._looks % self._stride == 0 and self.held_bytes:
            self.samples.append((round(time.monotonic() - self.began, 3), self.held_bytes))
            if len(self.samples) > _MOST_SAMPLES:
                del self.samples[1::2]
                self._stride *= 2
        self._looks += 1

    def report(self, job: AnyJob, *, plan_only: bool) -> Report:
        """What came of it."""
        error = self.error
        memory = self.memory.model_copy(
            update={
                "cap": self._cap(),
                "samples": self.samples,
                "peak_bytes": max(self.memory.peak_bytes or 0, self.peak_bytes) or None,
                "final_bytes": self.memory.final_bytes or self.held_bytes or None,
            }
        )
        passed = all(check.passed for check in self.checks)
        level = getattr(job, "verify", None) or getattr(job, "level", "basic")
        return Report(
            status=error.status if error else ("planned" if plan_only else "completed"),
            exit_code=error.exit_code if error else 0,
            error=ErrorRecord.of(error) if error else None,
            job=job.model_dump(mode="json"),
            plan=self.plan,
            memory=memory,
            result=self.result,
            verification=Verification(level=level, passed=passed, checks=self.checks) if self.checks else None,
            warnings=self.warnings,
            seconds=Seconds(startup=round(self.planned_after or 0.0, 3), work=round(self.work_seconds, 3)),
        )

    def _cap(self) -> Cap | None:
        if self.plan is None:
            return None
        held = ["watchdog"]
        if self.address_space_bytes is not None:
            held.append("RLIMIT_AS")
        if self.in_leaf:
            held.append("cgroup v2")
        return Cap(mechanism=" + ".join(held), bytes=self.job.resources.limit_bytes)


def _oom_kills(leaf: Path | None) -> int:
    if leaf is None:
        return 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        events = (leaf / "memory.events").read_text(encoding="ascii").split()
        return int(events[events.index("oom_kill") + 1])
    return 0
