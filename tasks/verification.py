"""The tasks that verify an output: a staged one with its work's report at hand, or any file on its own."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from lib.jobs import RasterJob, VectorJob, VerifyJob
from lib.reports import Report
from lib.run import verification_of, with_verification
from tasks.capped import capped, measured
from tasks.states import ended, worth_retrying

__all__ = ["verify", "verify_staged"]


@task(name="Verify output", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def verify_staged(job: RasterJob | VectorJob, report: Report, staged: Path) -> Report | State[Any]:
    """Verify a staged file in full; the work's report with what was found, which a failed check fails."""
    return ended(with_verification(report, measured(verification_of(job, report, staged))))


@task(name="Verify output", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def verify(job: VerifyJob) -> Report | State[Any]:
    """Verify an output against its source; the verification's own report."""
    return capped(job)
