"""The steps that every writing flow makes, in their one order: validate drivers, profile, work, verify, publish."""

import time
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.tasks import Task

from lib.errors import MemoryRefused
from lib.jobs import DriversJob, Job, ProfileJob, RasterJob, VectorJob
from lib.memory.process import run_job
from lib.publish import staging
from lib.reports import Report
from lib.resume import finished, note_finished
from lib.units import MIB, mib
from tasks.drivers import validate_drivers
from tasks.profiling import profile_source
from tasks.publishing import publish
from tasks.retries import forget_results, is_retried, run_id, tries
from tasks.run_page import run_page
from tasks.states import settled
from tasks.verification import verify_staged

# A child's size after its imports, from which it plans, was seen to differ by up to 2 MiB from start to start.
_SPREAD_BYTES = 3 * MIB
# So that the next try names the same limit: what children differ by seldom passes a multiple of this.
_ROUND_BYTES = 8 * MIB
# States of what a retry did not do again: by Prefect, by us.
_REUSED = ("Cached", "Reused")

_Job = TypeVar("_Job", RasterJob, VectorJob)


def make(job: _Job, work: Task[..., Report | State[Any]], *, profile: bool) -> Report:
    """Run a writing job's steps as tasks; the work's report, with `verification` and `output` filled in.

    The staging folder is held throughout, so that a second run to the same destination is refused before it works.

    Raises:
        SwathError: the error of the first step that failed, with the report so far as its `report`.
    """
    began, run = time.monotonic(), run_id()
    with (
        run_page(job) as page,
        staging(Path(job.destination), overwrite=job.replaces, by=run, keep=is_retried) as staged,
        _Steps() as steps,
    ):
        page.found(staged)
        try:
            steps.make(validate_drivers, drivers_of(job))
            if profile:
                steps.make(profile_source, profile_of(job))
            done = finished(staged.folder, run)
            report = steps.make(work, job, staged.path, Report.model_validate(done) if done else None)
            note_finished(staged.folder, run, report.model_dump(mode="json"))
            if job.verify == "full":
                report = steps.make(verify_staged, job, report, staged.path)
        except MemoryRefused as error:
            raise _for_all_steps(error, job, profile=profile) from None
        report = page.conclude(steps.make(publish, report, staged))
    forget_results()
    report.seconds.total = round(time.monotonic() - began, 3)
    return report


class _Steps:
    """The steps of one try; of a retry, the run's log says at its end which were not made again."""

    def __init__(self) -> None:
        self._reused: list[str] = []
        self._made: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if tries() > 1:
            reused, made = (", ".join(names) or "nothing" for names in (self._reused, self._made))
            get_run_logger().info("try %d of this run: reused: %s; done again: %s", tries(), reused, made)

    def make(self, step: Task[..., Report | State[Any]], *arguments: Any) -> Report:
        """Run a step as a task; its report, or its error raised."""
        ended = cast("State[Any]", step(*arguments, return_state=True))
        (self._reused if ended.name in _REUSED else self._made).append(step.name)
        report: Report = settled(ended)
        return report


def drivers_of(job: RasterJob | VectorJob) -> DriversJob:
    """The validation that a writing job wants: its source opens, its destination's driver creates."""
    return DriversJob(
        names=(job.driver,), create=(job.driver,), source=job.source, data=job.kind, resources=job.resources
    )


def profile_of(job: RasterJob | VectorJob) -> ProfileJob:
    """The profile of a writing job's source, under the same limit."""
    return ProfileJob(source=job.source, layer=getattr(job, "layer", None), resources=job.resources)


def _for_all_steps(refused: MemoryRefused, job: RasterJob | VectorJob, *, profile: bool) -> MemoryRefused:
    """A step's refusal with the smallest limit that all steps accept: the user must not have to raise it step by step.

    The verification's plan needs the output: it is among them only where it is what refused.
    """
    if "smallest_limit_bytes" not in refused.facts:
        return refused
    steps: list[Job] = [drivers_of(job), job, *([profile_of(job)] if profile else [])]
    plans = [run_job(step, plan_only=True) for step in steps]
    known = [plan.error.facts if plan.error else plan.plan or {} for plan in plans]
    most = max([refused.smallest_limit_bytes, *(each.get("smallest_limit_bytes", 0) for each in known)])
    most = -(-(most + _SPREAD_BYTES) // _ROUND_BYTES) * _ROUND_BYTES
    has_culprit = bool(refused.facts.get("culprit"))
    granted = f"{job.resources.limit_bytes // MIB} MiB are granted"
    # One number, in the message and in the hint: the step's own would be refused by the next step.
    error = MemoryRefused(
        refused.message if has_culprit else f"{job.label}: needs a limit of at least {mib(most)} MiB, {granted}",
        hint=refused.hint if has_culprit else f"raise the memory limit to {mib(most)} MiB",
        **refused.facts | {"smallest_limit_bytes": most},
    )
    error.report = refused.report.with_error(error)
    return error
