"""The parent: runs jobs in capped children, watches them, and says what came of each as a Report.

One runner for every kind of job, terminal and flows alike. The loop hears the child's events, looks at its resident memory
every `watch_interval_seconds`, and holds the deadlines; `launch.py` has the process itself, `evidence.py` judges deaths.
A caller's KeyboardInterrupt (or a flow's cancellation) passes through after the child is gone.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from lib.errors import ChildStalled, MemoryExceeded, MemoryRefused, SettingsError, SwathError, TimedOut, from_record
from lib.jobs import DriversJob, ProfileJob, RasterJob, Resources, VectorJob, VerifyJob
from lib.memory import history
from lib.memory.cap import STARTUP_CEILING_BYTES
from lib.memory.evidence import Death, classify
from lib.memory.launch import Child
from lib.memory.ledger import admission
from lib.memory.proc import cpu_seconds, tree_held_bytes
from lib.reports import Attempt, Cap, Check, ErrorRecord, MemoryRecord, Report, Seconds, Verification
from lib.units import format_bytes, format_seconds

__all__ = ["AnyJob", "OnEvent", "Runner", "run_job"]

AnyJob = RasterJob | VectorJob | VerifyJob | ProfileJob | DriversJob
OnEvent = Callable[[dict[str, Any]], None]

_MOST_SAMPLES = 240
_JOBS_PER_CHILD = 200
_LADDER_FRACTION = 0.7
_LIMIT_GROWTH = 1.5
_PATIENT_CPU_SECONDS = 0.01
_leaf_numbers = itertools.count()


def run_job(
    job: AnyJob, *, staged: Path | None = None, plan_only: bool = False, on_event: OnEvent | None = None
) -> Report:
    """Run one job in a capped child of its own; see `Runner.run`."""
    with Runner() as runner:
        return runner.run(job, staged=staged, plan_only=plan_only, on_event=on_event)


class Runner:
    """Runs jobs one after another; the child is kept for the next job of the same kind while it is as good as new."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._leaf: Path | None = None
        self._taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child that is kept, if there is one."""
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._leaf is not None:
            with contextlib.suppress(OSError):
                self._leaf.rmdir()
            self._leaf = None

    def run(
        self,
        job: AnyJob,
        *,
        staged: Path | None = None,
        plan_only: bool = False,
        on_event: OnEvent | None = None,
    ) -> Report:
        """Run a job; a death of memory is tried again with a smaller plan, then with a higher limit where that is allowed.

        Args:
            job: what to do.
            staged: the file to write, for kinds that write one.
            plan_only: stop after the plan; the report's status is "planned".
            on_event: called with each of the child's events, and with `{"event": "attempt"}` before a further attempt.

        Returns:
            The report of the last attempt, with all attempts in it.
        """
        hear = on_event or _ignore
        began = time.monotonic()
        attempts: list[Attempt] = []
        report: Report | None = None
        rung: _Rung | None = _Rung(job.resources.limit_bytes, 1.0)
        while rung is not None:
            if attempts:
                hear({"event": "attempt", "number": len(attempts) + 1, **rung._asdict()})
            resources = job.resources.model_copy(update={"limit_bytes": rung.limit_bytes})
            tried = job.model_copy(update={"resources": resources})
            with contextlib.ExitStack() as admitted:
                if not plan_only:
                    admitted.enter_context(_admission(tried, hear))
                latest = self._attempt(tried, staged, plan_only=plan_only, fraction=rung.fraction, hear=hear)
            attempts.append(_attempt_of(latest, rung.limit_bytes))
            if report is None or rung.fraction == 1 or latest.status != "refused":
                report = latest  # where no smaller plan is to be had, what the death before said stands
            rung = _next_rung(latest, rung, job.resources)
        if report is None:  # pragma: no cover - the loop runs at least once
            raise AssertionError
        report.attempts = attempts
        _remember(report, job.resources.history_path)
        report.seconds.total = round(time.monotonic() - began, 3)
        return report

    def _attempt(self, job: AnyJob, staged: Path | None, *, plan_only: bool, fraction: float, hear: OnEvent) -> Report:
        reused = self._child is not None and self._child.kind == job.kind and self._taken < _JOBS_PER_CHILD
        if not reused:
            self._renew(job, staged)
        watch = self._watch(job, staged, plan_only=plan_only, fraction=fraction, hear=hear)
        if reused and isinstance(watch.error, MemoryRefused):
            # A used child is larger than a fresh one: the refusal must not depend on what ran before.
            self._renew(job, staged)
            watch = self._watch(job, staged, plan_only=plan_only, fraction=fraction, hear=hear)
        if watch.died or (watch.memory.residual_bytes or 0) > job.resources.residual_tolerance_bytes:
            self.close()
        return watch.report(job, plan_only=plan_only)

    def _renew(self, job: AnyJob, staged: Path | None) -> None:
        self.close()
        self._leaf = _make_leaf(job.resources.cgroup_parent)
        self._child = Child(job.kind, job.label, job.resources, staged.parent if staged else None, self._leaf)
        self._taken = 0

    def _watch(self, job: AnyJob, staged: Path | None, *, plan_only: bool, fraction: float, hear: OnEvent) -> "_Watch":
        child = self._child
        if child is None:  # pragma: no cover - `_attempt` has just made sure
            raise AssertionError
        self._taken += 1
        watch = _Watch(child, job, self._leaf)
        child.send(
            {
                "job": job.model_dump(mode="json"),
                "staged": str(staged) if staged else None,
                "plan_only": plan_only,
                "budget_fraction": fraction,
            }
        )
        try:
            watch.until_done(hear)
        except BaseException:
            child.stop()
            self.close()
            raise
        return watch


class _Rung(NamedTuple):
    """One attempt: the limit in bytes, and the fraction of it that may be planned with."""

    limit_bytes: int
    fraction: float


@dataclass(slots=True)
class _Watch:
    """One job in one child, from its sending to its end."""

    child: Child
    job: AnyJob
    leaf: Path | None = None
    began: float = field(default_factory=time.monotonic)
    planned_after: float | None = None
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
    patient: bool = False
    work_seconds: float = 0.0
    _progress_at: float = field(default_factory=time.monotonic)
    _cpu_seconds: float = 0.0
    _stride: int = 1
    _looks: int = 0

    def until_done(self, hear: OnEvent) -> None:
        """Hear and look until the job is done, failed or dead."""
        interval = self.job.resources.watch_interval_seconds
        looked = 0.0
        while not self.done:
            events, speaks = self.child.hear(interval)
            for event in events:
                self._take(event)
                hear(event)
            if self.done:
                return
            if not speaks:
                self._died(self.child.wait())
                return
            if time.monotonic() - looked >= interval:
                looked = time.monotonic()
                self._look()

    def _take(self, event: dict[str, Any]) -> None:
        self._progress_at = time.monotonic()
        match event["event"]:
            case "planned":
                self.plan = event["plan"]
                self.planned_after = time.monotonic() - self.began
            case "capped":
                self.address_space_bytes = event["address_space_bytes"]
                self.in_leaf = event["leaf"] is not None
            case "phase":
                self.patient = event["patient"]
            case "baseline":
                self.memory.baseline_bytes = event["resident_bytes"]
            case "allocators":
                self.memory = self.memory.model_copy(
                    update={"top_allocators": event["top"], "attribution": event["attribution"]}
                )
            case "check":
                self.checks.append(Check(event["name"], event["passed"], event["detail"]))
            case "done":
                self.done = True
                self._take_memory(event["memory"])
                self.work_seconds = event.get("seconds", 0.0)
                outcome = event["outcome"] or {}
                self.result = outcome.get("result", {})
                self.warnings += outcome.get("warnings", [])
            case "error":
                self.done = True
                self._take_memory(event["memory"])
                self.error = from_record(event["error"])

    def _take_memory(self, record: dict[str, Any]) -> None:
        self.memory = MemoryRecord.model_validate(record)

    def _look(self) -> None:
        """The watchdog's look, and the deadlines."""
        self.held_bytes, virtual = tree_held_bytes(self.child.pid)
        self.virtual_bytes = virtual or self.virtual_bytes
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        self._sample()
        limit = self.job.resources.limit_bytes if self.plan is not None else STARTUP_CEILING_BYTES
        now = time.monotonic()
        resources = self.job.resources
        if self.held_bytes > limit:
            self._end(self._over(limit))
        elif resources.timeout_seconds is not None and now - self.began > resources.timeout_seconds:
            self._end(
                TimedOut(
                    f"{self.job.label}: not done within its time limit of {format_seconds(resources.timeout_seconds)}"
                )
            )
        elif self.plan is None and now - self.began > resources.startup_seconds:
            self._end(
                ChildStalled(
                    f"{self.job.label}: no plan within startup_seconds ({format_seconds(resources.startup_seconds)})",
                    hint="raise startup_seconds if the source is that slow to open",
                )
            )
        elif now - self._progress_at > resources.stall_seconds and not self._is_patiently_busy():
            silent = now - self._progress_at
            self.child.stop()
            self._died(None, silent)

    def _over(self, limit: int) -> MemoryExceeded:
        planned = "" if self.plan is not None else " (the start-up ceiling)"
        return MemoryExceeded(
            f"{self.job.label}: stopped by the watchdog at {format_bytes(self.held_bytes)}, over its limit of "
            f"{format_bytes(limit)}{planned}",
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
        self.child.stop()
        self.error, self.done, self.died = error, True, True

    def _died(self, returncode: int | None, stalled_seconds: float | None = None) -> None:
        self.done = self.died = True
        self.error = classify(
            Death(
                returncode=returncode,
                stalled_seconds=stalled_seconds,
                limit_bytes=self.job.resources.limit_bytes,
                held_bytes=self.held_bytes,
                virtual_bytes=self.virtual_bytes,
                address_space_bytes=self.address_space_bytes,
                oom_kills=_oom_kills(self.leaf),
                last_words=self.child.last_text(),
            ),
            self.job.label,
        )

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


def _admission(job: AnyJob, hear: OnEvent) -> contextlib.AbstractContextManager[None]:
    """A place in the host's ledger, where jobs share a budget."""
    resources = job.resources
    if resources.host_budget_bytes is None or resources.ledger_path is None:
        return contextlib.nullcontext()
    return admission(
        resources.ledger_path,
        resources.limit_bytes,
        resources.host_budget_bytes,
        f"{job.kind} {job.label}",
        lambda before: hear({"event": "waiting", "behind": len(before)}),
    )


def _remember(report: Report, path: Path | None) -> None:
    if path is not None and report.status == "completed" and report.plan and report.memory.peak_bytes:
        warning = history.record(path, report.model_dump(mode="json"))
        if warning:
            report.warnings.append(warning)


def _ignore(_: dict[str, Any]) -> None:
    return


def _next_rung(latest: Report, rung: _Rung, granted: Resources) -> _Rung | None:
    """The next attempt after a death or a refusal of memory: a smaller plan under the same cap, then a higher limit."""
    type_ = latest.error.type if latest.error else None
    smallest = (latest.plan or {}).get("smallest_limit_bytes", 0)
    is_first = rung == _Rung(granted.limit_bytes, 1.0)
    if type_ == MemoryExceeded.__name__ and is_first and smallest <= rung.limit_bytes * _LADDER_FRACTION:
        return _Rung(rung.limit_bytes, _LADDER_FRACTION)
    limit_max_bytes = granted.limit_max_bytes
    of_memory = type_ in {MemoryExceeded.__name__, MemoryRefused.__name__}
    if not of_memory or limit_max_bytes is None or rung.limit_bytes >= limit_max_bytes:
        return None
    needed = latest.error.facts.get("smallest_limit_bytes", 0) if latest.error and rung.fraction == 1 else 0
    return _Rung(min(max(int(rung.limit_bytes * _LIMIT_GROWTH), needed), limit_max_bytes), 1.0)


def _attempt_of(report: Report, limit_bytes: int) -> Attempt:
    plan = report.plan or {}
    chunk = None
    if plan.get("window"):
        chunk = f"{plan['window'][0]} x {plan['window'][1]} px"
    elif plan.get("batch_rows"):
        chunk = f"{plan['batch_rows']} rows"
    return Attempt(
        outcome=report.status,
        limit_bytes=limit_bytes,
        chunk=chunk,
        threads=plan.get("threads"),
        peak_bytes=report.memory.peak_bytes,
    )


def _make_leaf(parent: Path | None) -> Path | None:
    """A leaf of our own in a delegated cgroup v2 folder."""
    if parent is None:
        return None
    leaf = parent / f"swath-{os.getpid()}-{next(_leaf_numbers)}"
    try:
        if "memory" not in (parent / "cgroup.subtree_control").read_text(encoding="ascii").split():
            raise SettingsError(
                f"cgroup_parent {parent} does not hand the memory controller down",
                hint="write +memory to its cgroup.subtree_control, or leave cgroup_parent unset",
                key="cgroup_parent",
            )
        leaf.mkdir()
    except OSError as error:
        raise SettingsError(
            f"cgroup_parent {parent} is no delegated cgroup v2 folder: {error.strerror}",
            hint="delegate one (systemd: Delegate=memory), or leave cgroup_parent unset",
            key="cgroup_parent",
        ) from error
    return leaf


def _oom_kills(leaf: Path | None) -> int:
    if leaf is None:
        return 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        events = (leaf / "memory.events").read_text(encoding="ascii").split()
        return int(events[events.index("oom_kill") + 1])
    return 0
