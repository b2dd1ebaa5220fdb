"""How runs end: names, messages and data of states; nothing here needs a server."""

import asyncio
import signal
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ParameterTypeError, TerminationSignal
from prefect.states import Completed, Failed, State, exception_to_crashed_state

from lib.errors import (
    ChildDied,
    DataError,
    DestinationBusy,
    DiskRefused,
    MemoryExceeded,
    MemoryRefused,
    OutputError,
    SwathError,
    UsageError,
    VerificationFailed,
)
from lib.reports import Report
from tasks.states import cancelled_by_signal, ended, named_end, report_of, settled, worth_retrying

_ERROR = MemoryRefused("a.tif: 60 MiB are too few", hint="raise it", smallest_limit_bytes=1)


def test_a_report_that_is_well_stays_a_report() -> None:
    """A task of a completed or planned job returns the report itself."""
    report = Report(status="completed", exit_code=0)
    assert ended(report) is report
    assert settled(report) is report


def test_a_failed_report_becomes_a_failed_state_of_its_errors_name() -> None:
    """The state has the error's name, the exit code and one line, and gives the report back."""
    report = Report.of_error(_ERROR, {"kind": "raster"})
    state = ended(report)
    assert isinstance(state, State)
    assert (state.type.value, state.name) == ("FAILED", "MemoryRefused")
    assert state.message == "exit 137: a.tif: 60 MiB are too few (raise it)"
    assert report_of(state) is report


def test_settled_raises_what_a_task_ended_with() -> None:
    """The flow sees the error itself, with its facts and the report."""
    report = Report.of_error(_ERROR)
    with pytest.raises(MemoryRefused, match="60 MiB") as raised:
        settled(ended(report))
    assert raised.value.report is report
    assert raised.value.smallest_limit_bytes == 1


def test_named_end_keeps_signature_and_docstring() -> None:
    """Prefect reads a flow's parameters and their descriptions from the function that it is given."""

    def work(source: str, limit_mb: int = 3) -> str:
        """Doc."""
        raise _ERROR

    import inspect

    wrapped = named_end(work)
    assert inspect.signature(wrapped) == inspect.signature(work)
    assert wrapped.__doc__ == "Doc."
    state = wrapped("a")
    assert isinstance(state, State)
    assert state.name == "MemoryRefused"


def test_named_end_lets_cancellation_through() -> None:
    """Only errors of ours become states: an interrupt passes."""

    def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        named_end(work)()


def test_report_of_an_error_that_never_got_to_a_child() -> None:
    """Bad input has a report too: of the error alone."""
    report = report_of(Failed(data=UsageError("no such thing")))
    assert (report.exit_code, report.status) == (2, "failed")


def test_report_of_parameters_that_prefect_refused() -> None:
    """What Prefect's own validation of parameters refuses is bad usage."""
    report = report_of(Failed(message="Validation failed", data=ParameterTypeError("scale: not a number")))
    assert report.exit_code == 2
    assert report.error
    assert "Validation failed" in report.error.message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryExceeded("m"), False),
        (_ERROR, False),
        (UsageError("u"), False),
        (DataError("d"), False),
        (VerificationFailed("v"), False),
        (OutputError("o"), True),
        (DestinationBusy("b"), True),
        (DiskRefused("d"), True),
        (ChildDied("c"), True),
    ],
)
def test_prefect_retries_are_vetoed_where_they_cannot_help(error: SwathError, expected: bool) -> None:
    """Memory, bad input and bad data are never retried by Prefect; what may pass is, where retries are asked for."""
    assert worth_retrying(None, None, Failed(data=error)) is expected


def test_report_of_a_state_with_a_report() -> None:
    """A completed run's report is what it returned."""
    report = Report(status="completed", exit_code=0)
    assert report_of(Completed(data=report)) is report


@pytest.mark.parametrize(
    ("ended_by", "cancels"),
    [
        (KeyboardInterrupt(), True),
        (TerminationSignal(signal.SIGTERM), True),
        (SystemExit(1), False),
        (OSError(), False),
    ],
    ids=repr,
)
def test_what_a_signal_has_crashed_was_cancelled(
    ended_by: BaseException, cancels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Prefect's own words for it; any other crash stays one."""
    client = MagicMock()
    client.__enter__.return_value = client
    monkeypatch.setattr("tasks.states.get_client", lambda **_: client)
    crashed = asyncio.run(exception_to_crashed_state(ended_by))
    cancelled_by_signal(None, FlowRun(flow_id=uuid4(), name="x"), crashed)
    states = [call.args[1].name for call in client.set_flow_run_state.call_args_list]
    assert states == (["Cancelled"] if cancels else [])
