"""The flow `run-batch`: many files under one budget, a task each, in threads or on Dask."""

import contextlib
import difflib
import itertools
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar, cast
from uuid import uuid4

from prefect.client.schemas.objects import State
from prefect.exceptions import MissingResult
from prefect.futures import PrefectFuture
from prefect.utilities.annotations import opaque

from flows.engines import Engine, engine_of
from flows.forms import job_flow
from lib.batch import BATCH_KNOBS, DASK_ADDRESS, ENGINE
from lib.batch.inputs import KINDS
from lib.batch.order import Order, order_of
from lib.batch.planning import Foreseen, check_disk
from lib.batch.request import Batch, batch_of
from lib.batch.run import budget_in, phases, sampled
from lib.batch.summary import Reports, Summary, reports_in, row_of
from lib.errors import BatchFailed, JobFailed, SwathError, UsageError
from lib.knobs import Knob
from lib.reports import Report
from lib.request import job_knobs
from lib.settings import settings_knobs
from tasks.batch_page import show_batch
from tasks.batching import plan_files

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
_LOOK_SECONDS = 2.0


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
        todo = [] if fail_fast and summary.failed else todo
        summary.planning_seconds = time.monotonic() - began
        check_disk(batch, todo)
        with (
            contextlib.closing(_ended(engine, dask_address, batch, todo, end)) as ended,
            sampled(summary, batch, began),
        ):
            for ends in ended:
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
        self._summary.add(row, is_reported=self._reports.add(row, report))


def _ended(
    engine: str, address: str | None, batch: Batch, todo: Sequence[Foreseen], end: _Ends
) -> Generator[list[tuple[int, Report]]]:
    """The files' ends, as they come, a phase after the other; Dask's workers are there for all of them."""
    run, limit, parts = uuid4().hex, batch.base.resources.limit_bytes, phases(batch, todo)
    if engine == "dask" and parts:  # a rerun of what is done starts no cluster
        parts = [(parts[-1][0], [each for _, files in parts for each in files])]
    for workers, files in parts:
        with engine_of(engine, address, run=run, workers=workers, limit_bytes=limit) as at_work:
            yield from _done(at_work, _orders(batch, files, at_work, run, end))
        run = uuid4().hex  # that one has been stopped


def _orders(batch: Batch, todo: Sequence[Foreseen], engine: Engine, run: str, end: _Ends) -> Iterator[list[Order]]:
    """What each task is given; files that nobody could take are at their end."""
    size = min(max(1, -(-len(todo) // _MOST_TASKS)), _LARGEST_GROUP)
    group: list[Order] = []
    for each in todo:
        try:
            order = order_of(batch, each, run)
            if refused := engine.refusal(order):
                raise refused
        except SwathError as error:
            end(each.at, Report.of_error(error, {"kind": batch.wing, "source": batch.items[each.at].source}))
            continue
        group.append(order)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _done(engine: Engine, groups: Iterator[list[Order]]) -> Generator[list[tuple[int, Report]]]:
    """The files' ends, as they come; no more groups are made and handed on than keep the workers busy."""
    ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()
    under_way: dict[PrefectFuture[Any], list[Order]] = {}
    while True:
        for orders in itertools.islice(groups, max(0, engine.ahead - len(under_way))):
            future = engine.submit(orders)
            under_way[future] = orders
            future.add_done_callback(ended.put)
        if not under_way:
            return
        try:
            future = ended.get(timeout=_LOOK_SECONDS)
        except Empty:
            for future in list(under_way):
                refused, others = _refused(engine, under_way[future])
                if refused:
                    engine.give_up(future)
                    del under_way[future]
                    yield refused
                    groups = itertools.chain([others] if others else [], groups)
            continue
        if future not in under_way:
            continue
        if state := engine.end_of(future):
            yield _ends_of(state, under_way.pop(future))
        else:
            future.add_done_callback(ended.put)


def _refused(engine: Engine, orders: Sequence[Order]) -> tuple[list[tuple[int, Report]], list[Order]]:
    """The ends of those that nobody will take any more, and the others."""
    refused, others = [], []
    for each in orders:
        if error := engine.refusal(each):
            refused.append((each.at, Report.of_error(error, each.job.model_dump(mode="json"))))
        else:
            others.append(each)
    return refused, others


def _as_is(value: _T) -> _T:
    """A parameter in which Prefect looks for no futures."""
    return cast("_T", opaque(value))


def _ends_of(state: State[Any], orders: Sequence[Order]) -> list[tuple[int, Report]]:
    """A task's reports; where it came to no end of its own (its worker was killed, too often), that is the end of its files."""
    data = None
    with contextlib.suppress(MissingResult):
        data = state.result(raise_on_failure=False)
    if isinstance(data, list):
        return data
    if isinstance(data, BaseException) and not isinstance(data, Exception):
        raise data
    failed = JobFailed(
        f"its task ended {state.name}: {data if isinstance(data, Exception) else state.message}",
        hint="is its worker there, and of this version? a rerun does it again",
    )
    return [(each.at, Report.of_error(failed, each.job.model_dump(mode="json"))) for each in orders]
