"""Dask as a batch's engine, by prefect-dask: a scheduler's address, or a cluster on this host for one run.

A worker that declares the resource MEMORY (`dask worker --resources MEMORY=8e9`) is given no more than that at once. On each host
the ledger has the last word. Dask lets a task that no worker has room for wait for ever: here it comes to an end.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Crashed

from lib.batch.order import Order, stop
from lib.errors import JobFailed, MemoryRefused, SwathError, UsageError
from lib.units import format_bytes, mib
from tasks.batching import do_files

_ANSWER_SECONDS = 10
_MEMORY = "MEMORY"
_LOOK_SECONDS = 2.0
# A worker that was killed is started again by its nanny, which takes seconds; a pod takes some more.
_GONE_SECONDS = 30.0
# A few large files that wait for the one worker with room for them leave the others something to do.
_LEAST_AHEAD = 64


@contextlib.contextmanager
def dask_engine(address: str | None, *, run: str, workers: int, limit_bytes: int) -> Iterator["Dask"]:
    """Dask, for a run of a batch; see `flows.engines.engine_of`.

    Raises:
        UsageError: prefect-dask is not installed, nothing answers at the address, or there are no workers.
    """
    try:
        import dask
        import distributed
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise UsageError(
            f"engine dask needs prefect-dask: {error}",
            hint="install the checkout with the extra dask: pip install -e '.[dask]'",
        ) from error
    for name in ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny", "distributed.core"):
        logging.getLogger(name).setLevel(logging.WARNING)  # two dozen lines of comings and goings
    if address is None:
        # Workers are threads: what may take memory is each file's child, and a process for it would import Prefect once more.
        declared = {
            "n_workers": workers,
            "threads_per_worker": 1,
            "processes": False,
            "resources": {_MEMORY: limit_bytes},
        }
        quiet = {"dashboard_address": "127.0.0.1:0", "memory_limit": None, "silence_logs": 40}
        runner = DaskTaskRunner(cluster_kwargs=declared | quiet)
    else:
        _check_answers(distributed, address)
        runner = DaskTaskRunner(address=address)
    # Its profiler looks at all threads a hundred times a second.
    with dask.config.set({"distributed.worker.profile.enabled": False}), runner:
        engine = Dask(runner, run)
        if address is not None and not engine.has_workers:
            raise UsageError(f"the Dask scheduler at {address} has no workers", hint="start some: dask worker")
        try:
            yield engine
        finally:
            engine.stop()


def _check_answers(distributed: Any, address: str) -> None:
    try:
        with distributed.Client(address, timeout=_ANSWER_SECONDS, set_as_default=False):
            pass
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"dask_address {address} does not answer within {_ANSWER_SECONDS} s: {error}",
            hint="check the address, such as tcp://host:8786, and that its scheduler runs",
        ) from error


class Dask:
    """A scheduler and its workers, which may come and go; see `flows.engines.Engine`.

    Args:
        runner: Prefect's, started.
        run: the batch's run, as its orders name it.
    """

    def __init__(self, runner: Any, run: str) -> None:
        self._runner, self._client, self._run = runner, runner.client, run
        self._under_way: set[PrefectFuture[Any]] = set()
        self._threads, self._looked = 0, -math.inf
        workers = self._look()
        self._declares = any(_MEMORY in _resources(each) for each in workers)
        self._room = Room(self._largest(workers))

    @property
    def has_workers(self) -> bool:
        """Whether there is one now."""
        return bool(self._threads)

    @property
    def ahead(self) -> int:
        """One group for each thread and the next one, by the workers that there are now."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._room.see(self._largest(self._look()))
        return max(_LEAST_AHEAD, 2 * self._threads)

    def submit(self, orders: Sequence[Order]) -> PrefectFuture[Any]:
        """Hand a group on; it waits for a worker that has so many bytes left, where workers declare any."""
        from dask.base import annotate

        needed = {_MEMORY: max(map(_needed, orders))} if self._declares else None
        with annotate(resources=needed) if needed else contextlib.nullcontext():
            future: PrefectFuture[Any] = self._runner.submit(do_files, {"orders": orders})
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def end_of(self, future: PrefectFuture[Any]) -> State[Any] | None:
        """See `flows.engines.Engine`; a task whose workers were killed, or whose scheduler is gone, has crashed."""
        try:
            state: State[Any] = future.wrapped_future.result(timeout=_LOOK_SECONDS)  # type: ignore[attr-defined]
        except TimeoutError:
            return None
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever Dask raises
            return Crashed(message=str(error))
        return state

    def refusal(self, order: Order) -> SwathError | None:
        """Whether workers had room for it within the last half minute."""
        if self._room.bytes <= 0:
            return JobFailed(
                f"{order.job.label}: no worker of Dask answered for {_GONE_SECONDS:.0f} s",
                hint="see whether its scheduler and its workers run: dask worker; a rerun does what is missing",
            )
        if _needed(order) <= self._room.bytes:
            return None
        return MemoryRefused(
            f"{order.job.label}: needs {mib(_needed(order))} MiB, and no worker of Dask has more than "
            f"{format_bytes(int(self._room.bytes))} of the resource MEMORY",
            hint="start workers with more: dask worker --resources MEMORY=<bytes>; a rerun does what is missing",
            smallest_limit_bytes=_needed(order),
        )

    def give_up(self, future: PrefectFuture[Any]) -> None:
        """Take a group back."""
        self._cancel([future])

    def stop(self) -> None:
        """End what is queued, and what workers do; who does not answer within some seconds is let be."""
        left = list(self._under_way)
        self._cancel(left)
        with contextlib.suppress(
            Exception
        ):  # whatever became of the scheduler or of a worker; nothing more is to be had
            self._client.run(stop, self._run, on_error="ignore", callback_timeout=_ANSWER_SECONDS)

    def _cancel(self, futures: Sequence[PrefectFuture[Any]]) -> None:
        with contextlib.suppress(Exception):
            self._client.cancel([each.wrapped_future for each in futures], force=True)  # type: ignore[attr-defined]

    def _look(self) -> list[Mapping[str, Any]]:
        """The workers that there are; none where nobody answers, of whom `Client.scheduler_info` would say what it last knew."""
        try:
            asked = self._client.sync(self._client.scheduler.identity, n_workers=-1, callback_timeout=_ANSWER_SECONDS)
            workers = list(asked["workers"].values())
        except Exception:  # noqa: BLE001 - whatever the client raises when its connection is gone
            workers = []
        self._looked = time.monotonic()
        self._threads = sum(int(each["nthreads"]) for each in workers)
        return workers

    def _largest(self, workers: Sequence[Mapping[str, Any]]) -> float:
        """The most that one of them declares, bytes; without bound where they declared nothing."""
        if self._declares:
            return max((float(_resources(each).get(_MEMORY, 0)) for each in workers), default=0)
        return math.inf if workers else 0


class Room:
    """The most bytes that a worker has, as it was within the last `_GONE_SECONDS`."""

    def __init__(self, largest: float) -> None:
        self.bytes = largest
        self._less_since: float | None = None
        self._less = 0.0

    def see(self, largest: float) -> None:
        """Of those that are there now."""
        now = time.monotonic()
        if largest >= self.bytes:
            self.bytes, self._less_since = largest, None
        elif self._less_since is None:
            self._less_since, self._less = now, largest
        else:
            self._less = max(self._less, largest)
            if now - self._less_since > _GONE_SECONDS:
                self.bytes, self._less_since = self._less, None


def _needed(order: Order) -> int:
    return order.job.resources.limit_bytes


def _resources(worker: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = worker.get("resources") or {}
    return found
