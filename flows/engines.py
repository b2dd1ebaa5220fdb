"""Where a batch's tasks are done: threads of the flow run, or Dask (`dask_engine.py`)."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from lib.batch.order import Order, stop
from lib.errors import SwathError, UsageError
from tasks.batching import do_files


class Engine(Protocol):
    """Takes groups of files, a task run each."""

    @property
    def ahead(self) -> int:
        """How many groups it is to have at a time, so that nobody in it waits for us."""

    def submit(self, orders: Sequence[Order]) -> PrefectFuture[Any]:
        """Hand a group on."""

    def end_of(self, future: PrefectFuture[Any]) -> State[Any] | None:
        """Of a group that is said to be done; None: not yet, its worker has gone before it was asked, and another does it."""

    def refusal(self, order: Order) -> SwathError | None:
        """Why nobody in it will do that file; it may be asked of files that were handed on, too."""

    def give_up(self, future: PrefectFuture[Any]) -> None:
        """A group that was handed on is not to be done any more."""


class Threads:
    """Threads of this process.

    Args:
        runner: Prefect's.
        workers: how many they are.
    """

    def __init__(self, runner: TaskRunner[Any], workers: int) -> None:
        self._runner = runner
        self.ahead = 2 * workers

    def submit(self, orders: Sequence[Order]) -> PrefectFuture[Any]:
        """See `Engine`."""
        future: PrefectFuture[Any] = self._runner.submit(do_files, {"orders": orders})
        return future

    def end_of(self, future: PrefectFuture[Any]) -> State[Any]:
        """See `Engine`."""
        future.wait()
        return future.state

    def refusal(self, _: Order) -> None:
        """What is larger than the budget was refused by its plan."""

    def give_up(self, future: PrefectFuture[Any]) -> None:
        """Nothing waits here that is not taken some time."""


@contextlib.contextmanager
def engine_of(name: str, address: str | None, *, run: str, workers: int, limit_bytes: int) -> Iterator[Engine]:
    """The engine of that name; on the way out all that it still does for the batch's run is stopped.

    Args:
        name: "threads" or "dask".
        address: of Dask's scheduler; None: a cluster of our own, for this run.
        run: the batch's run, as its orders name it.
        workers: how many files are done at once, where that is ours to say.
        limit_bytes: what one file may be given there.

    Raises:
        UsageError: there is no such engine here.
    """
    if name == "dask":
        from flows.dask_engine import dask_engine

        with dask_engine(address, run=run, workers=workers, limit_bytes=limit_bytes) as dask:
            yield dask
        return
    if address:
        raise UsageError("dask_address is of engine dask", hint="let engine be dask, or leave dask_address out")
    threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=workers)
    with threads as runner:
        try:
            yield Threads(runner, workers)
        finally:  # else the runner waits for all that is under way, whoever was interrupted
            stop(run)
