"""The flow `run-batch`: many files under one budget, a task each, in threads or on Dask."""

import contextlib
import difflib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Literal, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import opaque

from flows.forms import job_flow
from lib.batch import BATCH_KNOBS, DASK_ADDRESS, ENGINE
from lib.batch.inputs import KINDS
from lib.batch.order import Order, order_of, stoppable
from lib.batch.planning import Foreseen, check_disk
from lib.batch.request import Batch, batch_of
from lib.batch.run import at_once, budget_in, sampled
from lib.batch.summary import Reports, Summary, reports_in, row_of
from lib.errors import BatchFailed, JobFailed, MemoryRefused, SwathError, UsageError
from lib.knobs import Knob
from lib.reports import Report
from lib.request import job_knobs
from lib.settings import settings_knobs
from lib.units import format_bytes, mib
from tasks.batch_page import show_batch
from tasks.batching import do_files, plan_files

KIND = Knob(name="kind", type=Literal["raster", "vector"], sentence="what the files are", default="raster", common=True)
OPTIONS = Knob(
    name="options",
    type=dict[str, Any] | None,
    sentence="choices for all files, by the names of parameters of transform-raster or filter-vector, such as "
    '{"operation": "normalise", "scale": 10000}',
    common=True,
)
_SETTINGS = settings_knobs(["memory_limit_mb", "threads"])
KNOBS = (KIND, *BATCH_KNOBS, OPTIONS, ENGINE, DASK_ADDRESS, *_SETTINGS)
_T = TypeVar("_T")
# Beyond so many files several are one task: a server keeps some thousand task runs of a run at ease.
_MOST_TASKS = 2000
_LARGEST_GROUP = 100
_AHEAD = 64


@job_flow("run-batch", KNOBS, kind="batch", verb="batch")
def run_batch(*, engine: str, dask_address: str | None, fail_fast: bool, **given: Any) -> dict[str, Any]:
    """Do many files under one memory budget: plan all, do what is missing; one failure does not stop the others.

    Paths are those of the worker's host.
    """
    batch, began = _batch(**given), time.monotonic()
    summary = Summary(batch.into, len(batch.items), budget_bytes=budget_in(batch))
    with reports_in(batch.into) as reports:
        end = _Ends(batch, summary, reports)
        todo = []
        for each in plan_files(_as_is(batch)):
            if each.is_done or each.report:
                end(each.at, each.report)
            else:
                todo.append(each)
        if fail_fast and summary.failed:
            todo = []
        summary.planning_seconds = time.monotonic() - began
        check_disk(batch, todo)
        with (
            _engine(engine, dask_address, batch, at_once(batch, todo, apart=engine == "dask")) as (runner, most),
            sampled(summary, batch, began),
        ):
            for ends in _done(runner, _orders(batch, todo, most, end)):
                for at, report in ends:
                    end(at, report)
                if fail_fast and summary.failed:
                    break
    summary.conclude(time.monotonic() - began)
    show_batch(summary, batch)
    record = summary.to_record()
    if summary.error:
        error = BatchFailed(summary.error.message, hint=summary.error.hint, record=record)
        error.report = Report.of_error(error, {"kind": "batch", "source": str(batch.into)})  # its page is shown
        raise error
    return record


def _batch(
    *,
    kind: Literal["raster", "vector"],
    inputs: Sequence[str],
    into: str,
    options: Mapping[str, Any] | None,
    **given: Any,
) -> Batch:
    known = {each.name for each in job_knobs(KINDS[kind])} - {"source", "destination", "append"}
    for name in options or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(sorted(known))}"
            raise UsageError(f"options: unknown choice {name!r}", hint=hint)
    common = {name: value for name, value in given.items() if value is not None}
    return batch_of(kind, inputs, into, word="parameter", **dict(options or {}) | common)


class _Ends:
    """Takes files' ends, one by one."""

    def __init__(self, batch: Batch, summary: Summary, reports: Reports) -> None:
        self._batch, self._summary, self._reports = batch, summary, reports

    def __call__(self, at: int, report: Report | None) -> None:
        row = row_of(self._batch, at, report)
        self._reports.add(row, report)
        self._summary.add(row)


def _orders(batch: Batch, todo: Sequence[Foreseen], most: int | None, end: _Ends) -> Iterator[list[Order]]:
    """What each task is given; files that no worker could take are at their end."""
    size = min(max(1, -(-len(todo) // _MOST_TASKS)), _LARGEST_GROUP)
    group: list[Order] = []
    for each in todo:
        try:
            order = order_of(batch, each)
            if most is not None and order.job.resources.limit_bytes > most:
                needed = order.job.resources.limit_bytes
                raise MemoryRefused(
                    f"{order.job.label}: needs {mib(needed)} MiB, and no worker of Dask has more than {format_bytes(most)}",
                    hint="start workers with more: dask worker --resources MEMORY=<bytes>",
                    smallest_limit_bytes=needed,
                )
        except SwathError as error:
            end(each.at, Report.of_error(error, {"kind": batch.wing, "source": batch.items[each.at].source}))
            continue
        group.append(order)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _done(runner: TaskRunner[Any], groups: Iterator[list[Order]]) -> Iterator[list[tuple[int, Report]]]:
    """The groups' ends, as they come; no more are made and handed on than keep the workers busy."""
    ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()
    under_way: dict[PrefectFuture[Any], list[Order]] = {}
    while True:
        for orders in itertools.islice(groups, _AHEAD - len(under_way)):
            with _memory(runner, max(each.job.resources.limit_bytes for each in orders)):
                future = runner.submit(do_files, {"orders": orders})
            under_way[future] = orders
            future.add_done_callback(ended.put)
        if not under_way:
            return
        future = ended.get()
        future.wait()
        yield _ends_of(future, under_way.pop(future))


def _as_is(value: _T) -> _T:
    """A parameter in which Prefect looks for no futures."""
    return cast("_T", opaque(value))


def _ends_of(future: PrefectFuture[Any], orders: Sequence[Order]) -> list[tuple[int, Report]]:
    """A task's reports; where it came to no end of its own (its worker was killed, too often), that is the end of its files."""
    try:
        state: State[Any] = future.state
        data = state.result(raise_on_failure=False)
        said = f"{state.name}: {data if isinstance(data, Exception) else state.message}"
    except Exception as error:  # noqa: BLE001 - whatever the API's client raises, or it has not ended
        data, said = None, str(error)
    if isinstance(data, list):
        return data
    if isinstance(data, BaseException) and not isinstance(data, Exception):
        raise data
    failed = JobFailed(f"its task ended {said}", hint="is its worker there, and of this version? a rerun does it again")
    return [(each.at, Report.of_error(failed, each.job.model_dump(mode="json"))) for each in orders]


@contextlib.contextmanager
def _engine(
    engine: str, address: str | None, batch: Batch, workers: int
) -> Iterator[tuple[TaskRunner[Any], int | None]]:
    """The task runner, and what the largest of its workers can hold, where they say so."""
    if engine == "threads":
        if address:
            raise UsageError("dask_address is of engine dask", hint="let engine be dask, or leave dask_address out")
        threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=workers)
        with stoppable(batch.into) as stop, threads as runner:
            try:
                yield runner, None
            finally:  # else the runner waits for all that is under way, whoever was interrupted
                stop()
        return
    from flows.dask_engine import dask_runner

    with dask_runner(address, workers, batch.base.resources.limit_bytes) as (dask, most):
        yield dask, most


def _memory(runner: TaskRunner[Any], size_bytes: int) -> contextlib.AbstractContextManager[Any]:
    """What is submitted meanwhile needs so much of a worker's resource MEMORY, where the runner is Dask's."""
    if isinstance(runner, ThreadPoolTaskRunner):
        return contextlib.nullcontext()
    from flows.dask_engine import needing

    return needing(runner, size_bytes)
