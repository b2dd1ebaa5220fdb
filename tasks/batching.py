"""The tasks of a batch: planning all of its files, and doing one, or several where there are very many."""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from lib.batch.order import Order, Stopped, check_goes_on, fulfil, seated
from lib.batch.planning import Foreseen, foresee_all
from lib.batch.request import Batch
from lib.errors import BatchFailed
from lib.log import Line
from lib.reports import Report
from lib.telling import outcome
from lib.units import file_label
from tasks.logs import run_logger, tell
from tasks.states import OPTIONS, failed


@task(name="Plan files", **OPTIONS)
def plan_files(batch: Batch) -> list[Foreseen]:
    """What each file takes by its header; those that are done or cannot be are told apart."""
    found = list(foresee_all(batch))
    to_do, before = sum(1 for each in found if each.limit_bytes), sum(each.is_done for each in found)
    words = f"{len(found)} files: {to_do} to do, {before} done before"
    tell(run_logger(), Line("INFO", "batch.planned", words))
    return found


def _named() -> Callable[..., str]:
    def name(*, parameters: dict[str, Any]) -> str:
        orders = parameters.get("orders") or ()
        first = file_label(orders[0].job.source) if orders else "nothing"
        more = f" and {len(orders) - 1} more" if len(orders) > 1 else ""
        return f"Do {first}{more}"

    return name


@task(name="Do files", task_run_name=_named(), **OPTIONS)
def do_files(orders: Sequence[Order]) -> list[tuple[int, Report]] | State[Any]:
    """Each file in its turn, by one child as long as it is as good as new; a failure does not stop the others."""
    ended, run = [], orders[0].run
    try:
        with seated(run) as runner:
            for order in orders:
                report = fulfil(order, runner)
                check_goes_on(run)  # else its end is that of a child that was killed
                ended.append((order.at, report))
                tell(run_logger(), outcome(report), report.job)
    except Stopped:
        return Cancelled(message="the batch was stopped")
    wrong = [(at, report) for at, report in ended if not report.ok and report.error]
    if not wrong:
        return ended
    first = wrong[0][1].error
    assert first is not None  # noqa: S101 - for mypy: asked before
    error = (
        first.to_error() if len(orders) == 1 else BatchFailed(f"{len(wrong)} of {len(ended)} files: {first.message}")
    )
    state = failed(error)
    state.data = ended
    return state
