"""The steps that every writing flow makes, in their one order: validate drivers, profile, work, verify, publish."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect.client.schemas.objects import State

from lib.errors import MemoryRefused
from lib.jobs import DriversJob, Job, ProfileJob, RasterJob, VectorJob
from lib.memory.process import run_job
from lib.publish import staging
from lib.reports import Report
from lib.units import MIB, mib
from tasks.drivers import validate_drivers
from tasks.profiling import profile_source
from tasks.publishing import publish
from tasks.run_page import run_page
from tasks.states import settled
from tasks.verification import verify_staged

# A child's size after its imports, from which it plans, was seen to differ by up to 2 MiB from start to start.
_SPREAD_BYTES = 3 * MIB

_Job = TypeVar("_Job", RasterJob, VectorJob)


def make(job: _Job, work: Callable[[_Job, Path], Report | State[Any]], *, profile: bool) -> Report:
    """Run a writing job's steps as tasks; the work's report, with `verification` and `output` filled in.

    The staging folder is held throughout, so that a second run to the same destination is refused before it works.

    Raises:
        SwathError: the error of the first step that failed, with the report so far as its `report`.
    """
    began = time.monotonic()
    with run_page(job) as page, staging(Path(job.destination), overwrite=job.overwrite) as staged:
        page.found(staged)
        try:
            settled(validate_drivers(drivers_of(job)))
            if profile:
                settled(profile_source(profile_of(job)))
        except MemoryRefused as error:
            raise _for_all_steps(error, job, profile=profile) from error
        report = settled(work(job, staged.path))
        if job.verify == "full":
            report = settled(verify_staged(job, report, staged.path))
        report = page.conclude(settled(publish(report, staged)))
    report.seconds.total = round(time.monotonic() - began, 3)
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

    The verification's plan needs the output, and is not among them.
    """
    steps: list[Job] = [drivers_of(job), job, *([profile_of(job)] if profile else [])]
    plans = [run_job(step, plan_only=True) for step in steps]
    smallest = [plan.error.facts.get("smallest_limit_bytes", 0) for plan in plans if plan.error]
    most = max([refused.smallest_limit_bytes, *smallest]) + _SPREAD_BYTES
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
