"""The fold of a child's events into a Report: what is known of a job at any moment, for whoever hears it.

The runner makes each job's report of it, a task the report of a job that was cancelled. How a death is judged is `evidence.py`.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from lib.errors import MemoryExceeded, MemoryRefused, SwathError, from_record
from lib.jobs import Job
from lib.memory.leaks import Sizes
from lib.memory.noise import GDAL, note
from lib.reports import Allocator, Cap, Check, ErrorRecord, MemoryRecord, Report, Seconds, Verification
from lib.units import MIB, format_bytes, mib

_MOST_SAMPLES = 240


@dataclass(slots=True)
class Record:
    """What a child has said of one job.

    Attributes:
        plan: the latest plan, as a record.
        first_plan: the one from before the probe, likewise.
        settled: whether it is the final one: the probe is over.
        planned_after: seconds from the beginning to the first plan.
        memory: what the child measured, as far as it has said.
        samples: sizes over seconds since the beginning.
        held_bytes: the size at the last sample.
        peak_bytes: the highest size that was seen or said.
        address_space_bytes: the soft RLIMIT_AS that holds, if one does.
        error: what ended the job, where it did not end well.
        done: whether the child has said its last word of it.
        patient: whether it is in a phase without heartbeats.
        noted: what libraries said beside their results.
        ended_processes: how many processes a user's function had left behind.
    """

    job: Job
    began: float = field(default_factory=time.monotonic)
    plan: dict[str, Any] | None = None
    first_plan: dict[str, Any] | None = None
    settled: bool = False
    planned_after: float | None = None
    memory: MemoryRecord = field(default_factory=MemoryRecord)
    samples: Sizes = field(default_factory=lambda: Sizes(_MOST_SAMPLES))
    held_bytes: int = 0
    peak_bytes: int = 0
    address_space_bytes: int | None = None
    checks: list[Check] = field(default_factory=list)
    error: SwathError | None = None
    done: bool = False
    patient: bool = False
    noted: list[str] = field(default_factory=list)
    ended_processes: int = 0
    _held_by: tuple[str, ...] = ("watchdog",)
    _result: dict[str, Any] = field(default_factory=dict)
    _warnings: list[str] = field(default_factory=list)
    _work_seconds: float = 0.0

    def take(self, event: dict[str, Any]) -> None:
        """One event of the child."""
        self.peak_bytes = max(
            self.peak_bytes, event.get("resident_bytes", 0)
        )  # of a child that dies, all that is known
        match event["event"]:
            case "planned":
                self.plan, self.settled = event["plan"], event["final"]
                self.first_plan = self.first_plan or self.plan
                self.planned_after = self.planned_after or time.monotonic() - self.began
            case "capped":
                self.address_space_bytes = event["address_space_bytes"]
                also = {"RLIMIT_AS": self.address_space_bytes, "cgroup v2": event["leaf"]}
                self._held_by = ("watchdog", *[name for name, holds in also.items() if holds is not None])
            case "phase":
                self.patient = event["patient"]
            case "baseline":
                self.memory.baseline_bytes = event["resident_bytes"]
            case "allocators":
                self.memory.top_allocators = [Allocator(**each) for each in event["top"]]
                self.memory.attribution = event["attribution"]
                self.memory.tracing_stopped = event["tracing_stopped"]
            case "check":
                self.checks.append(Check(event["name"], event["passed"], event["detail"]))
            case "warning":  # of a child that dies, all that is known; else its last event has it, too
                note(event["text"], self.noted)
            case "done" | "error":
                self._take_end(event)

    def _take_end(self, event: dict[str, Any]) -> None:
        self.done = True
        self.ended_processes = event["ended_processes"]
        self.memory = MemoryRecord.model_validate(event["memory"])
        self._work_seconds = event.get("seconds", 0.0)
        outcome = event.get("outcome") or {}
        self._result = outcome.get("result", {})
        self._warnings += outcome.get("warnings", event.get("warnings", []))
        if "error" in event:
            self.fail(from_record(event["error"]), event["traceback"])

    def sample(self, size_bytes: int) -> None:
        """What the job holds now."""
        self.held_bytes = size_bytes
        self.peak_bytes = max(self.peak_bytes, size_bytes)
        if size_bytes:  # else it is gone
            self.samples.add(round(time.monotonic() - self.began, 3), size_bytes)

    @property
    def ran_out(self) -> bool:
        """Whether memory ran out, in the work or already in the probe."""
        return self.error is not None and (
            isinstance(self.error, MemoryExceeded) or "reached_bytes" in self.error.facts
        )

    def fail(self, error: SwathError, traceback: str | None = None) -> None:
        """The job ended with this; memory that ran out in the probe is a refusal: nothing of the job was to be published."""
        if isinstance(error, MemoryExceeded) and self.plan is not None and not self.settled:
            error = self._refused_in_probe(error)
        error.traceback = traceback
        self.error = error

    def _refused_in_probe(self, error: MemoryExceeded) -> MemoryRefused:
        """Not reached by `settle`, so what would do is not known, only that it is more than the limit, and than the peak."""
        reached = max(self.peak_bytes, self.memory.peak_bytes or 0)
        asked = error.facts.get("asked_bytes", 0)
        smallest = max(reached + asked, self.job.resources.limit_bytes + MIB)
        more = f", and {format_bytes(asked)} more asked for" if asked else ""
        return MemoryRefused(
            f"{self.job.label}: needs a limit of at least {mib(smallest)} MiB: {format_bytes(reached)} were reached "
            f"while its first chunks were measured{more} ({error.message})",
            hint=f"raise the memory limit to {mib(smallest)} MiB or more: `swath plan` under an ample one tells what is enough",
            smallest_limit_bytes=smallest,
            reached_bytes=reached,
        )

    def _told(self) -> list[str]:
        """The child's warnings, and what its libraries said besides."""
        warnings = list(self._warnings)
        for text in self.noted:
            note(text, warnings)
        said = "" if self.error is None else self.error.message
        return [each for each in warnings if not (each.startswith(GDAL) and each.removeprefix(GDAL) in said)]

    def report(self, *, plan_only: bool = False) -> Report:
        """What is known by now, as a report."""
        error, job = self.error, self.job
        memory = self.memory.model_copy(
            update={
                "cap": Cap(mechanism=" + ".join(self._held_by), bytes=job.resources.limit_bytes) if self.plan else None,
                "samples": self.samples.points,
                "peak_bytes": max(self.memory.peak_bytes or 0, self.peak_bytes) or None,
                "final_bytes": self.memory.final_bytes or self.held_bytes or None,
            }
        )
        level = getattr(job, "verify", None) or getattr(job, "level", "basic")
        passed = all(check.passed for check in self.checks)
        return Report(
            status=error.status if error else ("planned" if plan_only else "completed"),
            exit_code=error.exit_code if error else 0,
            error=ErrorRecord.of(error) if error else None,
            job=job.model_dump(mode="json"),
            plan=self.plan,
            memory=memory,
            result=self._result,
            verification=Verification(level=level, passed=passed, checks=self.checks) if self.checks else None,
            warnings=self._told(),
            seconds=Seconds(startup=round(self.planned_after or 0.0, 3), work=round(self._work_seconds, 3)),
        )
