"""What is shown of a run as a whole: one page, one table, one closing line of the log, and its events.

A flow of several steps opens a `run_page`, and its tasks hand their reports in. Where there is none, a task shows its own.
"""

import importlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext, TaskRunContext

from lib.errors import Interrupted, JobFailed, SwathError, Terminated
from lib.jobs import Job
from lib.log import Line
from lib.publish import Staging
from lib.reports import Report
from lib.telling import outcome
from tasks.artifacts import emit
from tasks.events import announce
from tasks.logs import Logger, run_logger, tell

_PAGE: ContextVar["RunPage | None"] = ContextVar("_PAGE", default=None)


class RunPage:
    """Collects the reports of a run's steps, and shows them when it ends."""

    def __init__(self, job: Job) -> None:
        self._job = job.model_dump(mode="json")
        self._began = time.monotonic()
        self._steps: list[Report] = []
        self._final: Report | None = None
        self._found: list[str] = []
        self._said = ""

    def add(self, report: Report) -> None:
        """A step has ended; its own task has logged it."""
        self._steps.append(report)
        self._said = report.error.message if report.error else ""
        if report.job.get("kind") == self._job["kind"]:
            self._final = report

    def conclude(self, report: Report) -> Report:
        """The work's report, with what was verified or published since; with what was found in the staging folder, too."""
        report.warnings[:0] = [each for each in self._found if each not in report.warnings]
        self._final = report
        return report

    def found(self, staged: Staging) -> None:
        """Say what the run was whose leftovers were swept for this one, if there was one."""
        if staged.unfinished is not None:
            self._found = [staged.unfinished.words]
            tell(
                run_logger(),
                Line("WARNING", "run.interrupted", self._found[0], staged.unfinished.to_record()),
                self._job,
            )

    def end(self, error: BaseException | None) -> None:
        """Show the run: of an error its report, else the last that was handed in."""
        report = self._report(error)
        if report is None:
            return
        report.warnings[:0] = [each for each in self._found if each not in report.warnings]
        # A copy: a step's report has its own time.
        seconds = report.seconds.model_copy(update={"total": round(time.monotonic() - self._began, 3)})
        report = report.model_copy(update={"seconds": seconds})
        show(report, run_logger(), page=self, say=report.error is None or report.error.message != self._said)

    def _report(self, error: BaseException | None) -> Report | None:
        if error is None or (
            self._final is not None and self._final.error is not None and not isinstance(error, SwathError)
        ):
            return self._final
        if isinstance(error, SwathError):
            error.report = error.report or Report.of_error(error, self._job)
            report: Report = error.report
            return report
        kind: type[SwathError] = JobFailed
        if not isinstance(error, Exception):
            kind = Interrupted if isinstance(error, KeyboardInterrupt) else Terminated
        said = f"ended by {type(error).__name__}: {error}" if kind is JobFailed else "cancelled while it ran"
        return (self._final or Report(status="failed", exit_code=1, job=self._job)).with_error(kind(said))

    @property
    def job(self) -> dict[str, object]:
        """The run's job, as a record."""
        return self._job

    @property
    def steps(self) -> list[Report]:
        """The reports of the steps, in order."""
        return self._steps


@contextmanager
def run_page(job: Job) -> Iterator[RunPage]:
    """Show all steps of a flow run on one page when it ends, however it does."""
    # Half a second of imports and drawing, while the first child works.
    threading.Thread(
        target=importlib.import_module, args=("matplotlib.figure",), name="swath-picture", daemon=True
    ).start()
    page = RunPage(job)
    token = _PAGE.set(page)
    try:
        yield page
    except BaseException as error:
        page.end(error)
        raise
    else:
        page.end(None)
    finally:
        _PAGE.reset(token)


@contextmanager
def page_of_refusal(kind: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Show an error that came before there was a job: a source that has vanished is a night of its history, too.

    Args:
        kind: of the flow's jobs.
        given: the run's parameters as they came, or as they were taken: the key is the one that its job would have.
    """
    try:
        yield
    except SwathError as error:
        if error.report is None:
            named = {name: str(given[name]) for name in ("source", "destination", "output") if given.get(name)}
            operation = {"name": given.get("operation"), "function": given.get("function")}
            folder = str(Path(given["into"]).absolute()) if given.get("into") else given.get("folder")
            job = {"kind": kind, "source": folder, "operation": operation, **named}
            error.report = Report.of_error(error, job)
            show(error.report, run_logger())
        raise


def page_of_run() -> RunPage | None:
    """The page of the run that we are in, if it has one."""
    return _PAGE.get()


def show(report: Report, logger: Logger, *, page: RunPage | None = None, say: bool = True) -> None:
    """Create the artifacts of a report, emit its events and log its end; nothing of it undoes the work."""
    compared = ""
    job = page.job if page else None
    if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
        try:
            compared = emit(report, job=job, steps=page.steps if page else ())
        except Exception as error:  # noqa: BLE001 - whatever the API's client raises
            tell(logger, Line("WARNING", "log", f"no page of this run: {error}", {}))
        announce(report, logger, job=job)
    if say:
        line = outcome(report)
        told = f"{line.message}; compared with the last run {compared}" if compared else line.message
        tell(logger, line._replace(message=told), report.job)
