"""The engine Dask beside workers that come and go, without a cluster: what is handed on, what is refused, what is stopped."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed

from flows import dask_engine, run_batch
from flows.dask_engine import Dask, Room
from lib.batch.order import Order, stop
from lib.errors import JobFailed, MemoryRefused, UsageError
from lib.jobs import RasterJob, Resources
from lib.operations import Normalise
from lib.units import MIB


class _Future:
    """What a task runner of Prefect's gives, as far as it is used here."""

    def __init__(self) -> None:
        self.wrapped_future: Future[Any] = Future()

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        self.wrapped_future.add_done_callback(lambda _: call(self))


class _Cluster:
    """A runner, its client and its scheduler in one; workers are what they declare, by threads."""

    def __init__(self, *workers: int | None, threads: int = 1) -> None:
        self.workers, self.threads, self.is_silent = list(workers), threads, False
        self.client = self.scheduler = self
        self.handed: list[tuple[Any, list[Order]]] = []
        self.calls: list[Any] = []

    def identity(self, **_: Any) -> dict[str, Any]:
        if self.is_silent:
            raise OSError("nobody answers")
        declared = [{} if each is None else {"MEMORY": each} for each in self.workers]
        return {"workers": {n: {"resources": each, "nthreads": self.threads} for n, each in enumerate(declared)}}

    def sync(self, call: Callable[..., Any], n_workers: int, **_: Any) -> Any:
        return call(n_workers=n_workers)

    def submit(self, _: Any, parameters: dict[str, Any]) -> _Future:
        from dask.base import get_annotations

        future = _Future()
        self.handed.append((future, parameters["orders"]))
        self.calls.append(get_annotations())
        return future

    def cancel(self, futures: list[Future[Any]], **_: Any) -> None:
        self.calls.append(("cancel", len(futures)))

    def run(self, call: Any, *given: Any, **_: Any) -> None:
        self.calls.append((call, given))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the engine sees, seconds; each look at it takes what `[1]` says."""
    now = [0.0, 0.0]

    def monotonic() -> float:
        now[0] += now[1]
        return now[0]

    monkeypatch.setattr(dask_engine.time, "monotonic", monotonic)
    return now


def _order(at: int, size_mib: int) -> Order:
    job = RasterJob(
        source=f"s{at}.tif",
        destination=f"out/s{at}.tif",
        operation=Normalise(),
        resources=Resources(limit_bytes=size_mib * MIB),
    )
    return Order(at, job, None, Path("out"), "run")


def test_a_worker_that_comes_back_was_never_missed(clock: list[float]) -> None:
    """Room is what there was within half a minute: a larger worker that is gone that long is gone, one that comes back is not."""
    room = Room(8.0)
    for clock[0], largest, has in (
        (1, 4, 8),
        (29, 0, 8),
        (30, 8, 8),
        (31, 4, 8),
        (40, 0, 8),
        (62, 0, 4),
        (63, 0, 4),
        (94, 0, 0),
    ):
        room.see(largest)
        assert (clock[0], room.bytes) == (clock[0], has)
    room.see(16)
    assert room.bytes == 16


def test_what_only_the_worker_that_left_could_hold_ends(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """With one error each that says what is missing; the others go on, of the same group, too."""
    cluster = _Cluster(100 * MIB, 900 * MIB)
    engine = Dask(cluster, "run")
    large, group, small = [_order(0, 500)], [_order(1, 500), _order(2, 50)], [_order(3, 50)]
    monkeypatch.setattr(run_batch, "_LOOK_SECONDS", 0.01)
    done = run_batch._done(engine, iter([large, group, small]))
    cluster.workers.pop()
    clock[1] = 5.0
    ends: dict[int, Any] = {}

    def finish() -> None:
        for future, orders in cluster.handed:
            if all(each.job.resources.limit_bytes < 100 * MIB for each in orders) and not future.wrapped_future.done():
                future.wrapped_future.set_result(Completed(data=[(each.at, "done") for each in orders]))

    for some in done:
        ends |= dict(some)
        finish()
    assert {at: end for at, end in ends.items() if end == "done"} == {2: "done", 3: "done"}
    assert [ends[at].error.type for at in (0, 1)] == ["MemoryRefused", "MemoryRefused"]
    assert (
        "s0.tif: needs 500 MiB, and no worker of Dask has more than 100.0 MiB of the resource MEMORY"
        in ends[0].error.message
    )
    assert cluster.calls.count(("cancel", 1)) == 2


@pytest.mark.parametrize("silent", [False, True])
def test_no_worker_at_all_ends_everything(silent: bool, clock: list[float]) -> None:
    """Where workers declare nothing, too, and where the scheduler itself is gone."""
    cluster = _Cluster(None)
    engine = Dask(cluster, "run")
    assert engine.refusal(_order(0, 500)) is None
    cluster.workers, cluster.is_silent = [], silent
    for clock[0] in (5, 20, 40):
        assert engine.refusal(_order(0, 500)) is None
        assert engine.ahead
    assert isinstance(engine.refusal(_order(0, 500)), JobFailed)


def test_a_file_that_never_had_room_is_refused() -> None:
    """Before it is handed on."""
    engine = Dask(_Cluster(100 * MIB, None), "run")
    assert isinstance(engine.refusal(_order(0, 101)), MemoryRefused)
    assert engine.refusal(_order(0, 100)) is None


@pytest.mark.parametrize(("workers", "threads", "ahead"), [(1, 1, 64), (40, 1, 80), (4, 32, 256)])
def test_what_is_ahead_follows_the_workers(workers: int, threads: int, ahead: int, clock: list[float]) -> None:
    """Two groups a thread, as workers come; a few at least."""
    cluster = _Cluster(None, threads=threads)
    engine = Dask(cluster, "run")
    cluster.workers = [None] * workers
    clock[0] = 10
    assert engine.ahead == ahead


def test_the_stop_reaches_queue_and_workers() -> None:
    """What is handed on is cancelled, and workers end what they do of this run; what had ended is not asked for."""
    cluster = _Cluster(100 * MIB)
    engine = Dask(cluster, "run")
    ended = engine.submit([_order(0, 50)])
    engine.submit([_order(1, 50), _order(2, 60)])
    ended.wrapped_future.set_result(Completed(data=[]))  # type: ignore[attr-defined]
    engine.stop()
    memory = [{"resources": {"MEMORY": size * MIB}} for size in (50, 60)]
    assert cluster.calls == [*memory, ("cancel", 1), (stop, ("run",))]


def test_a_result_that_is_lost_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ends before its result was fetched holds up no other; an error of Dask's is a crash."""
    monkeypatch.setattr(dask_engine, "_LOOK_SECONDS", 0.01)
    engine = Dask(_Cluster(None), "run")
    lost, killed = engine.submit([_order(0, 50)]), engine.submit([_order(1, 50)])
    assert engine.end_of(lost) is None
    killed.wrapped_future.set_exception(RuntimeError("KilledWorker"))  # type: ignore[attr-defined]
    state = engine.end_of(killed)
    assert state is not None
    assert (state.name, state.message) == ("Crashed", "KilledWorker")


def test_an_address_that_is_silent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time that it is given."""
    monkeypatch.setattr(dask_engine, "_ANSWER_SECONDS", 0.2)
    address = "tcp://127.0.0.1:1"
    with (
        pytest.raises(UsageError, match=f"dask_address {address} does not answer"),
        dask_engine.dask_engine(address, run="", workers=1, limit_bytes=MIB),
    ):
        pass


def test_the_engine_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without prefect-dask: the extra to install."""
    import builtins

    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("prefect_dask"):
            raise ImportError("No module named 'prefect_dask'")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with (
        pytest.raises(UsageError, match="engine dask needs prefect-dask") as caught,
        dask_engine.dask_engine(None, run="", workers=1, limit_bytes=MIB),
    ):
        pass
    assert ".[dask]" in caught.value.hint
