"""Job → staged → verified → published → Report, without Prefect: the terminal's way. Flows make the same steps as tasks."""

import time
from collections.abc import Callable
from pathlib import Path

from lib.errors import DestinationBusy, DestinationError, JobFailed, OutputError
from lib.jobs import RasterJob, VectorJob, VerifyJob
from lib.memory.process import Runner, run_job
from lib.memory.watch import OnEvent
from lib.publish import Staging, sidecars, staging
from lib.reports import Output, Report, Verification


def run_published(
    job: RasterJob | VectorJob,
    on_event: OnEvent | None = None,
    *,
    runner: Runner | None = None,
    before: Callable[[Staging], None] | None = None,
) -> Report:
    """Run a job and publish what it wrote, if all is well; the report says what came of it.

    Args:
        job: what to do.
        on_event: hears the child.
        runner: whose child does it; None: one of its own.
        before: called with what is staged before it is published.

    Raises:
        DestinationBusy: another job writes this destination.
        DestinationError: the staging folder cannot be made.
    """
    began = time.monotonic()
    with staging(Path(job.destination), overwrite=job.replaces) as staged:
        swept = staged.unfinished
        if swept and on_event:
            on_event({"event": "interrupted", "words": swept.words, **swept.to_record()})
        run = runner.run if runner else run_job
        report = run(job, staged=staged.path, on_event=on_event)
        report.warnings[:0] = [swept.words] if swept else []
        if report.ok and job.verify == "full":
            found = run(verification_of(job, report, staged.path), on_event=on_event)
            report = with_verification(report, found)
        if report.ok and before:
            before(staged)
        if report.ok:
            report = published(report, staged)
    report.seconds.total = round(time.monotonic() - began, 3)
    return report


def verification_of(job: RasterJob | VectorJob, report: Report, output: Path) -> VerifyJob:
    """The full verification of what a job wrote, as a job of its own."""
    return VerifyJob(
        source=job.source,
        output=str(output),
        work=job,
        expected=(report.plan or {}).get("expected"),
        result=report.result,
        level="full",
        resources=job.resources,
    )


def with_verification(report: Report, of_verify: Report) -> Report:
    """A work's report with what its verification found; a failed verification fails it."""
    before = report.verification.checks if report.verification else []
    found = of_verify.verification.checks if of_verify.verification else []
    merged = report.model_copy(
        update={
            "verification": Verification(level="full", passed=of_verify.ok, checks=[*before, *found]),
            "warnings": [*report.warnings, *of_verify.warnings],
        }
    )
    merged.seconds.verify = round(merged.seconds.verify + of_verify.seconds.total, 3)
    if of_verify.ok or of_verify.error is None:
        return merged
    return merged.with_error(of_verify.error.to_error())


def published(report: Report, staged: Staging) -> Report:
    """The report with the staged file published, or with the error that prevented it."""
    if report.verification is None:
        return report.with_error(
            JobFailed(
                f"{Path(report.job['source']).name}: the job's process said that it was done, but not what it had checked",
                hint="a function that writes to open descriptors may have spoken for it",
            )
        )
    removed = [path.name for path in sidecars(staged.destination)] if staged.overwrite else []
    try:
        size = staged.publish()
    except (OutputError, DestinationError, DestinationBusy) as error:
        return report.with_error(error)
    output = Output(path=str(staged.destination), bytes=size, driver=report.job["driver"])
    warnings = [f"sidecars of the file that was replaced are gone: {', '.join(removed)}"] if removed else []
    return report.model_copy(update={"output": output, "warnings": [*report.warnings, *warnings]})
