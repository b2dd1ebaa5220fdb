"""Where a run's lines go: sentences to the UI, valid JSON to stderr and the log file, Prefect's own words too; no credentials."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler

from lib.log import Line
from tasks.logs import install, tell, to_json
from tests.test_log import read_log

_JOB = {"kind": "raster", "source": "https://ann:s3cr3t@h/a.tif", "destination": "/o/b.tif"}


@pytest.fixture
def fresh() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """The root logger with Prefect's console handler alone, as a new process has it, and its stream; put back as it was."""
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:]
    root.handlers = [PrefectConsoleHandler(stream=stream)]
    yield root, stream
    root.handlers = before


def test_stderr_is_json_where_nobody_sits_before_it(fresh: tuple[logging.Logger, io.StringIO]) -> None:
    """Ours and Prefect's lines are valid, one a line; the console's handler is gone, and a second time changes nothing."""
    install()
    install()
    root, stream = fresh
    assert not [each for each in root.handlers if isinstance(each, PrefectConsoleHandler)]
    logger = logging.getLogger("prefect.shown")
    logger.setLevel(logging.INFO)
    extra = {
        "flow_run_id": "0f3c",
        "flow_run_name": "brave-otter",
        "task_run_id": "77",
        "task_run_name": "Transform raster-abc",
    }
    tell(
        logging.LoggerAdapter(logger, extra, merge_extra=True) if sys.version_info >= (3, 13) else logger, _line(), _JOB
    )
    logger.warning(
        "state of https://ann:s3cr3t@h/x\nis %s", "odd", extra={"flow_run_id": "0f3c", "flow_run_name": "brave-otter"}
    )
    ours, prefects = read_log(stream.getvalue())
    assert (ours["event"], ours["fields"], ours["job"]["kind"]) == ("job.progress", {"done": 3}, "raster")
    assert (prefects["event"], prefects["level"]) == ("log", "WARNING")
    assert prefects["message"] == "state of https://***@h/x is odd"
    assert prefects["flow_run"] == {"id": "0f3c", "name": "brave-otter"}
    assert ours["job"]["source"] == "https://***@h/a.tif"


def _line() -> Line:
    return Line("INFO", "job.progress", "3 of 4 chunks", {"done": 3})


def test_as_asked_it_is_text(
    fresh: tuple[logging.Logger, io.StringIO], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """BATCH_LOG_FORMAT=text leaves Prefect's console as it is; BATCH_LOG_PATH adds a file; wrong settings end nothing."""
    monkeypatch.setenv("BATCH_LOG_FORMAT", "text")
    monkeypatch.setenv("BATCH_LOG_PATH", str(tmp_path / "log"))
    install()
    assert any(isinstance(each, PrefectConsoleHandler) for each in fresh[0].handlers)
    logging.getLogger("prefect.shown").warning("hello")
    assert [line["message"] for line in read_log((tmp_path / "log").read_text())] == ["hello"]
    monkeypatch.setenv("BATCH_LOG_FORMAT", "jsn")
    install()


def test_what_goes_to_the_ui_has_no_credentials() -> None:
    """Prefect's handler of its API redacts whatever is logged, its own lines and exceptions' texts, too."""
    install()
    (handler,) = [each for each in logging.getLogger("prefect.flow_runs").handlers if isinstance(each, APILogHandler)]
    record = logging.LogRecord(
        "prefect.flow_runs", logging.ERROR, "", 0, "cannot open %s", ("/vsicurl/https://a:s3cr3t@h/x?sig=s3cr3t",), None
    )
    assert handler.filter(record)
    assert "s3cr3t" not in handler.format(record)
    assert "h/x" in handler.format(record)


def test_an_exception_is_a_field() -> None:
    """Its traceback stands in one line, without credentials."""
    try:
        int("https://a:s3cr3t@h/x")
    except ValueError:
        record = logging.LogRecord("any", logging.ERROR, "", 0, "broken", (), sys.exc_info())
    (line,) = read_log(to_json(record))
    assert line["fields"]["exception"].startswith("Traceback (most recent call last)")
    assert "s3cr3t" not in json.dumps(line)


def test_a_failed_tasks_line_has_no_empty_traceback(fresh: tuple[logging.Logger, io.StringIO]) -> None:
    """Prefect asks for a traceback where no error is being handled: its words for none would stand in the page."""
    assert fresh
    install()
    record = logging.LogRecord("prefect.task_runs", logging.ERROR, "f.py", 1, "Task run failed", (), (None, None, None))
    assert logging.getLogger("prefect.task_runs").filter(record)
    assert logging.Formatter().format(record) == "Task run failed"
