"""What each file will take, by its header: planning children take many one after another."""

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import cast

from lib.batch.finished import key_of
from lib.batch.request import Batch, nearest
from lib.errors import DiskRefused, SwathError
from lib.jobs import RasterJob, Resources, VectorJob
from lib.memory.ledger import Place, admitted, divided
from lib.memory.process import Runner, budget_of
from lib.redact import redacted
from lib.reports import Report
from lib.units import MIB, format_bytes, mib

# What a planning child holds, most of it its imports; one that holds more is renewed.
_PLANNER_BYTES, _MOST_PLANNERS = 128 * MIB, 2
# So many plans are asked for ahead of those that are taken.
_AHEAD = 256
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


def foresee(batch: Batch, at: int, runner: Runner) -> Foreseen:
    """One file's plan, as the runner's child tells it."""
    try:
        job = batch.job(at)
    except SwathError as error:
        if where := batch.items[at].where:
            error.message = f"{where}: {error.message}"
        return Foreseen(at, report=Report.of_error(error, job_record(batch, at)))
    key = key_of(job)
    if not batch.force and batch.finished.is_done(batch.outputs[at], key):
        return Foreseen(at, is_done=True, key=key)
    report = runner.foresee(job, _PLANNER_BYTES)
    if not report.ok or report.plan is None:
        return Foreseen(at, report=report, key=key)
    return Foreseen(at, _limit(report.plan["projected_bytes"], job), report.plan["disk_bytes"], key=key)


def job_record(batch: Batch, at: int) -> dict[str, str]:
    """What is said of a file's job where there is none."""
    item, output = batch.items[at], batch.outputs[at]
    return {"kind": batch.wing, "source": redacted(item.source), "destination": str(output)}


def _limit(projected: int, job: RasterJob | VectorJob) -> int:
    more = max(int(projected * _SHARE), _LEAST_BYTES)
    return min(mib(projected + more) * MIB, job.resources.limit_bytes)


def foresee_all(
    batch: Batch,
    on_planned: Callable[[Foreseen], None] | None = None,
    *,
    runners: Sequence[Runner] = (),
    threads: ThreadPoolExecutor | None = None,
) -> Generator[Foreseen]:
    """The plans of all files, in their order, as they come; two children plan at most, in one place of the ledger.

    Args:
        batch: what there is to do.
        on_planned: hears each.
        runners: whose children plan, and are theirs afterwards, each with a place of its own; without them they end.
        threads: where they are started: a child dies with the thread that started it.
    """
    resources, files = batch.base.resources, len(batch.items)
    count = max(1, min(_MOST_PLANNERS, os.cpu_count() or 1, files, resources.limit_bytes // _PLANNER_BYTES))
    planners = list(runners[:count]) or [Runner() for _ in range(count)]
    place = _room(resources, len(planners))
    free: SimpleQueue[Runner] = SimpleQueue()
    for each in planners:
        free.put(each)

    def one(at: int) -> Foreseen:
        planner = free.get()
        try:
            return foresee(batch, at, planner)
        finally:
            free.put(planner)

    with nullcontext(threads) if threads else ThreadPoolExecutor(len(planners), "swath-planning") as pool:
        try:
            for first in range(0, files, _AHEAD):
                with closing(
                    cast("Generator[Foreseen]", pool.map(one, range(first, min(first + _AHEAD, files))))
                ) as some:
                    for found in some:
                        if on_planned:
                            on_planned(found)
                        yield found
        except BaseException:
            for each in planners:
                each.kill()
            raise
        finally:
            for _ in planners:  # none is at work any more
                free.get()
            _hand_over(place, planners, keeps=bool(runners))


def _room(resources: Resources, planners: int) -> Place | None:
    if resources.ledger_path is None:
        return None
    size = min(planners * _PLANNER_BYTES, resources.limit_bytes)
    return admitted(resources.ledger_path, size, budget_of(resources), "planning of a batch")


def _hand_over(place: Place | None, planners: Sequence[Runner], *, keeps: bool) -> None:
    """Planning is over: who has a child that goes on gets a share of the place."""
    for each in planners:
        if not keeps:
            each.close()
    if place is None:
        return
    stay = [each for each in planners if each.pid]
    for runner, share in zip(stay, divided(place, [place.size_bytes // len(planners)] * len(stay)), strict=True):
        runner.take_place(share)


def check_disk(batch: Batch, foreseen: list[Foreseen]) -> None:
    """All outputs together fit on their disk, with what they replace.

    Raises:
        DiskRefused: they do not, by what plans say at most.
    """
    needed = sum(each.disk_bytes for each in foreseen)
    state = os.statvfs(nearest(batch.into))
    free = state.f_bavail * state.f_frsize
    if needed > free:
        raise DiskRefused(
            f"{sum(1 for each in foreseen if each.limit_bytes)} outputs in {batch.into} take up to {format_bytes(needed)}, and "
            f"{format_bytes(free)} are free there",
            hint="free space there, choose another disk, or do it in parts: a rerun does only what is missing",
            needed_bytes=needed,
            free_bytes=free,
        )
