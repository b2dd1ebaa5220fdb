"""Job → Report inside a Prefect task: the child's events to the run's log, its report to the run's page, its end to a state.

Called from the thread that runs the task, which outlives the child (the child's death signal follows that thread). The running
itself, retries included, is lib/memory/process.py.
"""

from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext, TaskRunContext

from lib.errors import Interrupted, SwathError, Terminated
from lib.jobs import Job
from lib.memory.process import run_job
from lib.memory.record import Record
from lib.reports import Report
from lib.telling import Telling
from lib.underway import RUN
from tasks.logs import Logger, run_logger, tell
from tasks.run_page import page_of_run, show
from tasks.states import Ended, ended


def capped(job: Job, *, staged: Path | None = None) -> Ended:
    """Run a job in its capped child; a task's return value, whatever came of it."""
    return ended(measured(job, staged=staged))


def measured(job: Job, *, staged: Path | None = None) -> Report:
    """Run a job in its capped child, log what it says, show its report, and return it.

    A cancellation passes through after the child is gone, and is shown too.
    """
    logger = run_logger()
    listener = _Listener(job, logger)
    token = RUN.set(_flow_run())
    try:
        report = run_job(job, staged=staged, on_event=listener.hear)
    except SwathError as error:  # before there was a child: a setting, the host's budget
        report = Report.of_error(error, job.model_dump(mode="json"))
    except BaseException as error:
        if not isinstance(error, Exception):
            listener.end(listener.cancelled(error))
        raise
    finally:
        RUN.reset(token)
    listener.end(report)
    return report


class _Listener:
    """Hears a child's events: logs them, and keeps the record of which a cancelled job's report is made."""

    def __init__(self, job: Job, logger: Logger) -> None:
        self._record = Record(job)
        self._telling = Telling(job)
        self._told = job.model_dump(mode="json")
        self._logger = logger

    def hear(self, event: dict[str, Any]) -> None:
        """One event: fold it into the record, and log it."""
        if event["event"] == "attempt":
            self._record = Record(self._record.job, self._record.began)
        self._record.take(event)
        if "resident_bytes" in event:
            self._record.sample(event["resident_bytes"])
        for line in self._telling.lines(event):
            tell(self._logger, line, self._told)

    def cancelled(self, reason: BaseException) -> Report:
        """The report of a job that was cancelled while it ran."""
        kind = Interrupted if isinstance(reason, KeyboardInterrupt) else Terminated
        self._record.fail(kind(f"{self._record.job.label}: cancelled while it ran"))
        return self._record.report()

    def end(self, report: Report) -> None:
        """Log warnings and end, and hand the report to the run's page; a run that has none shows it by itself."""
        *warnings, last = self._telling.ending(report)
        for line in warnings:
            tell(self._logger, line, self._told)
        if (page := page_of_run()) is not None:
            tell(self._logger, last, self._told)
            page.add(report)
        else:
            show(report, self._logger)


def _flow_run() -> dict[str, str] | None:
    """The flow run that we are in, as a job's note has it."""
    of_flow, of_task = FlowRunContext.get(), TaskRunContext.get()
    if of_flow is not None and of_flow.flow_run is not None:
        return {"id": str(of_flow.flow_run.id), "name": str(of_flow.flow_run.name)}
    return {"id": str(of_task.task_run.flow_run_id), "name": ""} if of_task is not None else None
