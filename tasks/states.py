"""How task runs and flow runs end: as a value, or as `Failed` under the error's own name, with one line of message.

In Prefect 3.9 a task that returns `Failed(name=…)` and is called plainly does not raise, and a flow that returns a task's
state loses the name: so a task ends with `ended`, a flow looks with `settled` and is decorated with `named_end`.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.exceptions import ParameterTypeError
from prefect.states import Cancelled, Failed
from prefect.tasks import Task

from lib.errors import JobFailed, SwathError, UsageError
from lib.knobs import as_a_flow_says
from lib.reports import Report
from tasks.retries import note_failure, passes

# What a task of ours ends with, see `ended`.
Ended = Report | State[Any]
P = ParamSpec("P")
R = TypeVar("R")


def ended(report: Report) -> Ended:
    """A task's return value: the report of a job that went well, else `Failed` under its error's name."""
    if report.ok or report.error is None:
        return report
    error = report.error.to_error()
    error.report = report
    return failed(error)


def failed(error: SwathError) -> State[Any]:
    """`Failed` under the error's name; its data is the error, so that a plain call of the flow raises it."""
    return Failed(
        name=type(error).__name__,
        message=as_a_flow_says(f"exit {error.exit_code}: {error.message}{f' ({error.hint})' if error.hint else ''}"),
        data=error,
    )


def settled(value: R | State[Any]) -> R:
    """What a task returned, or its error raised.

    Raises:
        SwathError: the error of a task that ended Failed.
    """
    if not isinstance(value, State):
        return value
    if value.is_completed():
        made: R = _data(value)
        return made
    raise _error_of(value)


def named_end(work: Callable[P, R]) -> Callable[P, R | State[Any]]:
    """Let a flow function end its run as `Failed` under the name of the SwathError that it raises."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | State[Any]:
        try:
            return work(*args, **kwargs)
        except SwathError as error:
            note_failure(error)
            return failed(error)

    return run


def cancelled_by_signal(_flow: object, run: FlowRun, state: State[Any]) -> None:
    """A flow's `on_crashed` hook: what Ctrl-C or SIGTERM has ended was cancelled by somebody; Prefect calls it Crashed."""
    if "signal" in (state.message or ""):  # "Execution was aborted by an interrupt signal", "… by a termination signal"
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelled(message=state.message), force=True)


def report_of(state: State[Any]) -> Report:
    """The Report of a run of ours, from its final state (`return_state=True`).

    Raises:
        BaseException: what interrupted the run (a cancellation), where it was no error.
    """
    data = _data(state)
    if isinstance(data, Report):
        return data
    error = _error_of(state)
    return error.report or Report.of_error(error)


def worth_retrying(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Veto Prefect's retries of a task where another try must end the same."""
    return passes(_data(state))


# Of every task of ours: what it did is on the disk, so nothing of it is cached.
OPTIONS: dict[str, Any] = {"cache_policy": NO_CACHE, "retry_condition_fn": worth_retrying}


def _error_of(state: State[Any]) -> SwathError:
    """The error that ended a run; what is none of ours is described as one, with itself as the cause."""
    data = _data(state)
    if isinstance(data, SwathError):
        return data
    if isinstance(data, BaseException) and not isinstance(data, Exception):
        raise data
    kind = UsageError if isinstance(data, ParameterTypeError) else JobFailed
    error = kind(f"the run ended {state.name}: {state.message or 'no message'}")
    error.__cause__ = data if isinstance(data, Exception) else None
    return error


def _data(state: State[Any]) -> Any:
    return state.result(raise_on_failure=False)
