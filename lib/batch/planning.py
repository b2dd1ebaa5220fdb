"""What each file will take, by its header: planning children take many one after another."""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from lib.batch.request import Batch
from lib.errors import DiskRefused, SwathError
from lib.jobs import RasterJob, Resources, VectorJob
from lib.memory.ledger import admission
from lib.memory.process import Runner, budget_of
from lib.reports import Report
from lib.units import MIB, format_bytes, mib

# What planning children hold together, most of it their imports.
_PLANNING_BYTES = 256 * MIB
# Over what headers say, which is little where libraries hold more than own terms: a job that needs more waits once more.
_SHARE, _LEAST_BYTES = 0.1, 12 * MIB


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One file's plan.

    Attributes:
        at: its place in the batch.
        limit_bytes: what it is to be admitted with; 0 where there is nothing to do.
        disk_bytes: what its output and temporary files take at most.
        is_done: its output is there, and made of just that.
        report: of one that will not be done: refused, or failed before it began.
        key: what its output is made of.
    """

    at: int
    limit_bytes: int = 0
    disk_bytes: int = 0
    is_done: bool = False
    report: Report | None = None
    key: str | None = None


class Planner:
    """Plans of a batch's files, one after another, as its child tells them."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._runner = Runner()

    def foresee(self, at: int) -> Foreseen:
        """One file's plan."""
        from lib.batch.finished import key_of

        batch = self._batch
        try:
            job = batch.job(at)
        except SwathError as error:
            return Foreseen(at, report=Report.of_error(error, _job_record(batch, at)))
        key = key_of(job)
        if not batch.force and batch.finished.is_done(batch.outputs[at], key):
            return Foreseen(at, is_done=True, key=key)
        report = self._runner.foresee(job)
        if not report.ok or report.plan is None:
            return Foreseen(at, report=report, key=key)
        return Foreseen(at, _limit(report.plan["projected_bytes"], job), report.plan["disk_bytes"], key=key)

    def close(self) -> None:
        """End its child."""
        self._runner.close()


def _job_record(batch: Batch, at: int) -> dict[str, str]:
    return {"kind": batch.wing, "source": batch.items[at].source, "destination": str(batch.outputs[at])}


def _limit(projected: int, job: RasterJob | VectorJob) -> int:
    more = max(int(projected * _SHARE), _LEAST_BYTES)
    return min(mib(projected + more) * MIB, job.resources.limit_bytes)


def foresee_all(batch: Batch, on_planned: Callable[[Foreseen], None] | None = None) -> Iterator[Foreseen]:
    """The plans of all files, in their order, as they come; two children plan at most."""
    with _room(batch.base.resources), contextlib.ExitStack() as stack:
        workers = min(2, os.cpu_count() or 1, len(batch.items))
        free: SimpleQueue[Planner] = SimpleQueue()
        for _ in range(workers):
            planner = Planner(batch)
            stack.callback(planner.close)
            free.put(planner)

        def one(at: int) -> Foreseen:
            planner = free.get()
            try:
                return planner.foresee(at)
            finally:
                free.put(planner)

        pool = stack.enter_context(ThreadPoolExecutor(workers, "swath-planning"))
        for found in pool.map(one, range(len(batch.items))):
            if on_planned:
                on_planned(found)
            yield found


@contextlib.contextmanager
def _room(resources: Resources) -> Iterator[None]:
    if resources.ledger_path is None:
        yield
        return
    size = min(_PLANNING_BYTES, resources.limit_bytes)
    with admission(resources.ledger_path, size, budget_of(resources), "planning of a batch"):
        yield


def check_disk(batch: Batch, foreseen: list[Foreseen]) -> None:
    """All outputs together fit on their disk, with what they replace.

    Raises:
        DiskRefused: they do not, by what plans say at most.
    """
    needed = sum(each.disk_bytes for each in foreseen)
    state = os.statvfs(batch.into)
    free = state.f_bavail * state.f_frsize
    if needed > free:
        raise DiskRefused(
            f"{sum(1 for each in foreseen if each.limit_bytes)} outputs in {batch.into} take up to {format_bytes(needed)}, and "
            f"{format_bytes(free)} are free there",
            hint="free space there, choose another disk, or do it in parts: a rerun does only what is missing",
            needed_bytes=needed,
            free_bytes=free,
        )
