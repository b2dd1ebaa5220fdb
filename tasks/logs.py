"""Where lines of a run go: sentences to the UI, one JSON object each to the process's stderr and to the log file.

Prefect's own lines go the same way, as event `log`. Credentials are taken out of all of them. What the lines of a job are is in
lib/telling.py, what a JSON line is in lib/log.py.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from prefect import get_run_logger
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler

from lib.errors import SwathError, shown, shown_lines
from lib.knobs import as_a_flow_says
from lib.log import Level, Line, append, as_json, wants_json
from lib.redact import redacted
from lib.settings import load_settings

Logger = logging.Logger | logging.LoggerAdapter[Any]

_LOGGERS = ("", "prefect", "prefect.extra", "prefect.flow_runs", "prefect.task_runs")


def install() -> None:
    """Let this process's log lines be as the settings say; a second time changes nothing. Called when `tasks` is imported."""
    try:
        settings = load_settings().settings
    except SwathError:
        settings = load_settings(environ={}).settings  # a run says what is wrong with them
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, (PrefectConsoleHandler, APILogHandler)) and not any(
                isinstance(each, _Redacting) for each in handler.filters
            ):
                handler.addFilter(_Redacting())
    for runs in map(logging.getLogger, ("prefect.flow_runs", "prefect.task_runs")):
        if not any(isinstance(each, _Untraced) for each in runs.filters):
            runs.addFilter(_Untraced())
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, PrefectConsoleHandler)]:
        if wants_json(settings.log_format, handler.stream):
            root.removeHandler(handler)
            root.addHandler(_JsonLines(stream=handler.stream))
    if settings.log_path and not any(isinstance(each, _JsonLines) and each.path for each in root.handlers):
        root.addHandler(_JsonLines(path=settings.log_path))


def tell(logger: Logger, line: Line, job: Mapping[str, Any] | None = None) -> None:
    """Log a line: its sentence, and with it what the JSON has; flags are called by the names of parameters."""
    words = f"child: {line.message}" if line.event == "child.said" else as_a_flow_says(line.message)
    logger.log(logging.getLevelNamesMapping()[line.level], "%s", shown(words), extra={"swath": (line, job)})


def run_logger() -> Logger:
    """The run's logger; that of `swath` outside of one: a script, a test."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("swath")


class _Redacting(logging.Filter):
    """Takes credentials out of a record before it is formatted or sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        with suppress(Exception):  # a record that does not format is its handler's to report
            message = record.getMessage()
            if (told := redacted(message)) != message:
                record.msg, record.args = told, ()
        return True


class _Untraced(logging.Filter):
    """Drops what Prefect's engine says of an error of ours behind the line that told it: its own sixty lines of traceback.

    Of a task that returned Failed it asks for a traceback, too, where there is none: "NoneType: None" in the page.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0] is None:
            record.exc_info = None
        return not (record.exc_info and isinstance(record.exc_info[1], SwathError))


class _JsonLines(logging.Handler):
    """Writes records as lines of JSON: to a stream, or to a file."""

    def __init__(self, *, stream: IO[str] | None = None, path: Path | None = None) -> None:
        super().__init__()
        self._stream, self.path = stream, path

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one line; nobody is told where it cannot be written."""
        try:
            line = to_json(record)
        except Exception:  # noqa: BLE001 - a line of a log ends no run
            self.handleError(record)
            return
        if self.path is not None:
            append(self.path, line)
        if self._stream is not None:
            with suppress(ValueError, OSError):  # closed at exit, or nobody reads any more
                self._stream.write(line + "\n")
                self._stream.flush()


def to_json(record: logging.LogRecord) -> str:
    """A record of Python's logging as a line of the log."""
    told: tuple[Line, Mapping[str, Any] | None] | None = getattr(record, "swath", None)
    if told is not None:
        line, job = told[0]._replace(message=record.getMessage()), told[1]
    else:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = shown_lines(logging.Formatter().formatException(record.exc_info))
        line, job = Line(cast("Level", record.levelname), "log", record.getMessage(), fields), None
    flow_run, task_run = _runs(record)
    return as_json(line, job=job, flow_run=flow_run, task_run=task_run, seconds=record.created)


def _runs(record: logging.LogRecord) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The flow run and the task run that a record is of: as its logger says, else those that we are in."""
    of_flow, of_task = FlowRunContext.get(), TaskRunContext.get()
    flow_run, task_run = of_flow.flow_run if of_flow else None, of_task.task_run if of_task else None
    return (
        _run(getattr(record, "flow_run_id", None), getattr(record, "flow_run_name", None), flow_run),
        _run(getattr(record, "task_run_id", None), getattr(record, "task_run_name", None), task_run),
    )


def _run(run_id: Any, name: Any, run: Any) -> dict[str, Any] | None:
    run_id = None if run_id in {None, "<unknown>"} else str(run_id)
    if run is not None and run_id in {None, str(run.id)}:
        return {"id": str(run.id), "name": run.name}
    return {"id": run_id, "name": None if name is None else str(name)} if run_id else None
