"""The parent: runs jobs in capped children, with the one loop of retries, and says what came of each as a Report.

`launch.py` has the process itself, `watch.py` hears it and holds limit and deadlines, `record.py` folds what it says. A
caller's KeyboardInterrupt (or a flow's cancellation) passes through after the child is gone.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from lib.errors import MemoryExceeded, MemoryRefused, SettingsError
from lib.jobs import Job, Resources, VerifyJob
from lib.memory import history
from lib.memory.budget import host_memory
from lib.memory.launch import Child, job_environment, take_early
from lib.memory.ledger import Disk, Entry, Place, admitted
from lib.memory.proc import process_memory
from lib.memory.record import Record
from lib.memory.watch import OnEvent, Watch
from lib.reports import Attempt, Report, chunk_words
from lib.underway import Notes, notes_of
from lib.units import format_bytes, mib

_JOBS_PER_CHILD = 200
_LADDER_FRACTION = 0.7
_LIMIT_GROWTH = 1.5
_leaf_numbers = itertools.count()


def run_job(
    job: Job, *, staged: Path | None = None, plan_only: bool = False, on_event: OnEvent | None = None
) -> Report:
    """Run one job in a capped child of its own; see `Runner.run`."""
    with Runner() as runner:
        return runner.run(job, staged=staged, plan_only=plan_only, on_event=on_event)


class Runner:
    """Runs jobs one after another; the child is kept for the next job of the same kind while it is as good as new.

    Args:
        keeps: under a shared budget, too: with its last job's place in the ledger, which is left for the next one's. Where that
            has to wait, the child ends. Else nothing is held between jobs there.
        patience: called while a job waits for its place; what it raises ends the waiting.
    """

    def __init__(self, *, keeps: bool = False, patience: Callable[[], None] | None = None) -> None:
        self._keeps, self.patience = keeps, patience
        self._place: Place | None = None
        self._child: Child | None = None
        self._leaf: Path | None = None
        self._taken = 0
        self._deadline: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the child that there is."""
        child = self._child
        return None if child is None else child.pid

    def kill(self) -> None:
        """From another thread: kill the child; the job that it does is at its end."""
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> None:
        """End the child that is kept, if there is one, and leave its place."""
        self._end()
        if self._place is not None:
            self._place.leave()
            self._place = None

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._leaf is not None:
            with contextlib.suppress(OSError):
                self._leaf.rmdir()
            self._leaf = None

    def take_place(self, place: Place) -> None:
        """Where it keeps: hold a place in the ledger until the first job's, or until it is closed."""
        self._place = place

    def foresee(self, job: Job, most_bytes: int | None = None) -> Report:
        """What a job would take by its header and own terms alone: the child reads no pixel and no row; status "planned".

        A child that came to hold more than `most_bytes` is renewed first.
        """
        request = _request(job, None, plan="header", fraction=1.0)
        child = self._child
        if child is None or (most_bytes and process_memory(child.pid).resident_bytes > most_bytes):
            child = self._renew(job)
        taken = self._taken
        self._deadline = None
        watch = self._watch(child, job, request, None)
        self._taken = taken
        if watch.died:
            self._end()
        return watch.record.report(plan_only=True)

    def run(
        self, job: Job, *, staged: Path | None = None, plan_only: bool = False, on_event: OnEvent | None = None
    ) -> Report:
        """Run a job; a death of memory is tried again with a smaller plan, then with a higher limit where that is allowed.

        Args:
            job: what to do.
            staged: the file to write, for kinds that write one.
            plan_only: stop after the plan; the report's status is "planned".
            on_event: called with each of the child's events, with `{"event": "attempt"}` before a further attempt, and with
                `{"event": "alive"}` every few seconds in which the child says nothing.

        Returns:
            The report of the last attempt, with all attempts in it.
        """
        notes = notes_of(job, staged)
        hear = _both(notes, on_event)
        began = time.monotonic()
        attempts: list[Attempt] = []
        report = None
        rung: _Rung | None = _Rung(job.resources.limit_bytes, 1.0)
        timeout = job.resources.timeout_seconds
        self._deadline = None if timeout is None else began + timeout
        while rung is not None:
            if attempts:
                hear({"event": "attempt", "number": len(attempts) + 1, **rung._asdict()})
            record = self._admitted(job, rung, staged, plan_only=plan_only, hear=hear)
            latest = record.report(plan_only=plan_only)
            attempts.append(_attempt_of(latest, rung.limit_bytes))
            if report is None or rung.fraction == 1 or latest.status != "refused" or record.ran_out:
                report = latest  # where no smaller plan is to be had, what the death before said stands
            rung = _next_rung(record, rung, job.resources)
        if report is None:  # pragma: no cover - the loop runs at least once
            raise AssertionError
        report.attempts = attempts
        _warn_of_overrun(report, job.resources)
        _remember(report, job.resources.history_path)
        report.seconds.total = round(time.monotonic() - began, 3)
        if notes:
            notes.end(report)
        return report

    def _admitted(self, job: Job, rung: "_Rung", staged: Path | None, *, plan_only: bool, hear: OnEvent) -> Record:
        """One attempt, with a place in the host's ledger where jobs share a budget."""
        resources = job.resources.model_copy(update={"limit_bytes": rung.limit_bytes})
        tried = job.model_copy(update={"resources": resources})
        asked = time.monotonic()
        with contextlib.nullcontext() if plan_only else self._admission(tried, hear) as place:
            self._waited(asked)
            return self._attempt(tried, staged, place, plan_only=plan_only, fraction=rung.fraction, hear=hear)

    def _waited(self, since: float) -> None:
        """Waiting is not the job's time."""
        if self._deadline is not None:
            self._deadline += time.monotonic() - since

    @contextlib.contextmanager
    def _admission(self, job: Job, hear: OnEvent) -> Iterator[Place | None]:
        """A place in the host's ledger, where jobs share a budget."""
        resources = job.resources
        if resources.ledger_path is None:
            yield None
            return

        def wait(before: list[Entry]) -> None:
            take_early("", "")  # what was launched for us holds none of the others' budget meanwhile
            self.close()
            hear({"event": "waiting", "for": "memory", "bytes": size, "behind": len(before)})

        label, size = f"{job.kind} {job.label}", resources.limit_bytes
        place = admitted(
            resources.ledger_path,
            size,
            budget_of(resources),
            label,
            wait,
            instead_of=self._place,
            patience=self.patience,
        )
        self._place = None
        try:
            yield place
        finally:
            if self._keeps and self._child is not None:
                place.release_disk()
                self._place = place
            else:
                place.leave()

    def _attempt(
        self, job: Job, staged: Path | None, place: Place | None, *, plan_only: bool, fraction: float, hear: OnEvent
    ) -> Record:
        request = _request(job, staged, plan="look" if plan_only else None, fraction=fraction)
        kept = self._child if self._taken < _JOBS_PER_CHILD else None
        child = kept if kept is not None and kept.kind == self._kind(job) else self._renew(job)
        disk = None if place is None or staged is None else _DiskOf(place, staged.parent)
        watch = self._with_disk(child, job, request, hear, disk)
        if child is kept and isinstance(watch.record.error, MemoryRefused):
            # A used child is larger than a fresh one: the refusal must not depend on what ran before.
            watch = self._with_disk(self._renew(job), job, request, hear, disk)
        record = watch.record
        residue = record.memory.residual_bytes or 0
        worn = residue > job.resources.residual_tolerance_bytes or record.ended_processes
        if watch.died or worn or (job.resources.host_budget_bytes and not self._keeps):
            self._end()
        return record

    def _with_disk(
        self, child: Child, job: Job, request: dict[str, Any], hear: OnEvent, disk: "_DiskOf | None"
    ) -> Watch:
        """The job, which goes on behind its first plan when what that says of the disk is promised; it may have to wait.

        Then it is planned anew: what others have written meanwhile is no longer free.
        """
        if disk is None:
            return self._watch(child, job, request, hear)
        watch = self._watch(child, job, request | {"asks": True}, hear, disk.is_promised)
        if not watch.held_back or watch.record.error is not None:
            return watch
        asked = time.monotonic()
        disk.wait(hear, self.patience)
        self._waited(asked)
        return self._watch(child, job, request, hear)

    def _renew(self, job: Job) -> Child:
        kind = self._kind(job)
        self._end()
        self._leaf = _make_leaf(job.resources.cgroup_parent)
        early = None if self._leaf else take_early(kind, job.label)
        self._child = early or Child(kind, job.label, self._leaf)
        self._taken = 0
        return self._child

    def _kind(self, job: Job) -> str:
        """Of the child that takes it; one that is kept verifies what it has written, too."""
        return job.work.kind if self._keeps and isinstance(job, VerifyJob) and job.work else job.kind

    def _watch(
        self,
        child: Child,
        job: Job,
        request: dict[str, Any],
        hear: OnEvent | None,
        may_go_on: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Watch:
        self._taken += 1
        child.forget_words()
        watch = Watch(child, Record(job), self._leaf, self._deadline, may_go_on)
        child.send(request)
        try:
            watch.until_done(hear) if hear else watch.until_planned()
        except BaseException:
            child.stop()
            self.close()
            raise
        return watch


def _request(job: Job, staged: Path | None, *, plan: str | None, fraction: float) -> dict[str, Any]:
    """A job as its child is sent it; with `plan` nothing is done: "header" by the first plan, "look" by the final one."""
    return {
        "job": job.model_dump(mode="json"),
        "staged": str(staged) if staged else None,
        "environment": job_environment(job.resources, staged.parent if staged else None),
        "plan": plan,
        "budget_fraction": fraction,
        "asks": False,
    }


class _DiskOf:
    """What a job may write, as its plan says it, and the promise of it."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place, self._folder = place, folder
        self._disk: Disk | None = None

    def is_promised(self, plan: dict[str, Any]) -> bool:
        self._disk = Disk.below(self._folder, plan["disk_bytes"])
        return not self._disk.size_bytes or not self._place.promise(self._disk)

    def wait(self, hear: OnEvent, patience: Callable[[], None] | None) -> None:
        """Until what was not promised is."""
        if (disk := self._disk) is not None:
            said = {"event": "waiting", "for": "disk", "bytes": disk.size_bytes}
            self._place.promised(disk, lambda before: hear(said | {"behind": len(before)}), patience)


def _both(notes: Notes | None, on_event: OnEvent | None) -> OnEvent:
    """Hears an event for both, or for the one that there is."""

    def hear(event: dict[str, Any]) -> None:
        if notes is not None:
            notes.hear(event)
        if on_event is not None:
            on_event(event)

    return hear


def budget_of(resources: Resources) -> int | Callable[[Sequence[Entry]], int]:
    """What all jobs of this host share, bytes: a number, or what measures it."""

    def measured(sharing: Sequence[Entry]) -> int:
        return host_memory().budget_bytes(resources.host_reserve_fraction, sharing)

    return resources.host_budget_bytes or measured


class _Rung(NamedTuple):
    """One attempt: the limit in bytes, and the fraction of it that may be planned with."""

    limit_bytes: int
    fraction: float


def _warn_of_overrun(report: Report, resources: Resources) -> None:
    """A job that completed above its projection did not keep the contract: it says so, and what would have covered it."""
    if report.status != "completed" or report.plan is None:
        return
    peak, projected, limit = report.memory.peak_bytes or 0, report.plan["projected_bytes"], report.plan["limit_bytes"]
    if peak <= projected:
        return
    over = f", and above the limit of {format_bytes(limit)} between two looks of the watchdog" if peak > limit else ""
    report.warnings.append(
        f"the peak of {format_bytes(peak)} was above the projected {format_bytes(projected)}{over}: "
        f"margin_mb {mib(resources.margin_bytes + peak - projected)} would have covered it"
    )


def _remember(report: Report, path: Path | None) -> None:
    if path is not None and report.status in {"completed", "exceeded"} and report.plan and report.memory.peak_bytes:
        warning = history.record(path, report.model_dump(mode="json"))
        report.warnings += [warning] if warning else []


def _next_rung(latest: Record, rung: _Rung, granted: Resources) -> _Rung | None:
    """The next attempt after a death or a refusal of memory: a smaller plan under the same cap, then a higher limit."""
    error = latest.error
    if rung == _Rung(granted.limit_bytes, 1.0) and latest.ran_out and latest.first_plan:
        # Of the first plan: what the probe adds to it does not grow with the budget, and the plan that died would be made again.
        projected, smallest = latest.first_plan["projected_bytes"], latest.first_plan["smallest_limit_bytes"]
        budget = max(smallest, projected * _LADDER_FRACTION)
        if budget < projected:
            return _Rung(rung.limit_bytes, budget / rung.limit_bytes)
    most = granted.limit_max_bytes or 0
    if granted.host_budget_bytes is not None:
        most = min(most, granted.host_budget_bytes)
    if not isinstance(error, (MemoryExceeded, MemoryRefused)) or rung.limit_bytes >= most:
        return None
    needed = error.facts.get("smallest_limit_bytes", 0) if rung.fraction == 1 else 0
    return _Rung(min(max(int(rung.limit_bytes * _LIMIT_GROWTH), needed), most), 1.0)


def _attempt_of(report: Report, limit_bytes: int) -> Attempt:
    return Attempt(
        outcome=report.status,
        limit_bytes=limit_bytes,
        chunk=chunk_words(report.plan) or None,
        threads=(report.plan or {}).get("threads"),
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
