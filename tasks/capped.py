"""Job → Report inside a Prefect task: the child's events to the run's log, its memory to artifacts, its end to a state.

Called from the thread that runs the task, which outlives the child (the child's death signal follows that thread). The running
itself, retries included, is lib/memory/process.py.
"""

import json
import logging
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError

from lib.errors import Interrupted, SwathError, Terminated
from lib.jobs import Job
from lib.knobs import as_parameters
from lib.memory.process import run_job
from lib.memory.record import Record
from lib.reports import Report, chunk_words
from lib.units import format_bytes
from tasks.artifacts import emit
from tasks.states import Ended, ended

Logger = logging.Logger | logging.LoggerAdapter[Any]

_TENTHS = 10


def capped(job: Job, *, staged: Path | None = None) -> Ended:
    """Run a job in its capped child; a task's return value, whatever came of it."""
    return ended(measured(job, staged=staged))


def measured(job: Job, *, staged: Path | None = None) -> Report:
    """Run a job in its capped child, log what it says, emit its artifacts, and return its report.

    A cancellation passes through after the child is gone, and leaves its artifacts too.
    """
    logger = _logger()
    listener = _Listener(job, logger)
    try:
        report = run_job(job, staged=staged, on_event=listener.hear)
    except SwathError as error:  # before there was a child: a setting, the host's budget
        report = Report.of_error(error, job.model_dump(mode="json"))
    except BaseException as error:
        if not isinstance(error, Exception):
            _emit(listener.cancelled(error), logger)
        raise
    for warning in report.warnings:
        logger.warning("%s", as_parameters(warning))
    _emit(report, logger)
    return report


class _Listener:
    """Hears a child's events: logs them, and keeps the record of which a cancelled job's report is made."""

    def __init__(self, job: Job, logger: Logger) -> None:
        self._record = Record(job)
        self._logger = logger
        self._tenth = 0

    def hear(self, event: dict[str, Any]) -> None:
        """One event: fold it into the record, and log it."""
        if event["event"] == "attempt":
            self._record, self._tenth = Record(self._record.job, self._record.began), 0
        self._record.take(event)
        if "resident_bytes" in event:
            self._record.sample(event["resident_bytes"])
        self._log(event)

    def cancelled(self, reason: BaseException) -> Report:
        """The report of a job that was cancelled while it ran."""
        kind = Interrupted if isinstance(reason, KeyboardInterrupt) else Terminated
        self._record.fail(kind(f"{self._record.job.label}: cancelled while it ran"))
        return self._record.report()

    def _log(self, event: dict[str, Any]) -> None:
        """Checks as JSON lines, progress in tenths, what the child printed line by line."""
        match event["event"]:
            case "planned":
                if event["final"]:
                    self._log_plan(event["plan"])
            case "chunk":
                self._log_progress(event)
            case "check":
                level = logging.INFO if event["passed"] else logging.ERROR
                self._logger.log(level, "%s", json.dumps(event, ensure_ascii=False))
            case "stderr":
                for line in str(event["text"]).splitlines():
                    self._logger.info("child: %s", line)
            case "waiting":
                self._logger.info("waiting for the host's memory budget, behind %s", event["behind"])
            case "attempt":
                share, limit = f"{event['fraction']:.0%}", format_bytes(event["limit_bytes"])
                self._logger.warning("attempt %s: planning with %s of a limit of %s", event["number"], share, limit)

    def _log_plan(self, plan: dict[str, Any]) -> None:
        chunk = chunk_words(plan)
        self._logger.info(
            "%s: projected peak %s of a limit of %s%s",
            self._record.job.label,
            format_bytes(plan["projected_bytes"]),
            format_bytes(plan["limit_bytes"]),
            f", in chunks of {chunk}" if chunk else "",
        )

    def _log_progress(self, event: dict[str, Any]) -> None:
        done, of = event["done"], event["of"]
        tenth = done * _TENTHS // of if of else 0
        if tenth > self._tenth:
            self._tenth = tenth
            self._logger.info("%d of %d chunks, %s resident", done, of, format_bytes(event["resident_bytes"]))


def _logger() -> Logger:
    try:
        return get_run_logger()
    except MissingContextError:  # a task's function called outside a run: a script, a test
        return logging.getLogger("swath")


def _emit(report: Report, logger: Logger) -> None:
    """Emit the artifacts, inside a run only; a server that is away must not undo the work."""
    if TaskRunContext.get() is None:
        return
    try:
        emit(report)
    except Exception as error:  # noqa: BLE001 - whatever the API's client raises
        logger.warning("no artifacts of this job: %s", error)
