"""The tasks that verify an output: a staged one with its work's report at hand, or any file on its own."""

from pathlib import Path

from prefect import task

from lib.jobs import RasterJob, VectorJob, VerifyJob
from lib.reports import Report
from lib.run import verification_of, with_verification
from tasks.capped import capped, measured
from tasks.names import task_name
from tasks.states import OPTIONS, Ended, ended


@task(name="Verify output", task_run_name=task_name("Verify", "staged"), **OPTIONS)
def verify_staged(job: RasterJob | VectorJob, report: Report, staged: Path) -> Ended:
    """Verify a staged file in full; the work's report with what was found, which a failed check fails."""
    return ended(with_verification(report, measured(verification_of(job, report, staged))))


@task(name="Verify output", task_run_name=task_name("Verify", "job.output"), **OPTIONS)
def verify(job: VerifyJob) -> Ended:
    """Verify an output against its source; the verification's own report."""
    return capped(job)
