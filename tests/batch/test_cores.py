"""No more threads of a batch's files are at work together than there are cores."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.batch import order as module
from lib.batch import run
from lib.batch.cores import Cores
from lib.batch.order import Order, fulfil
from lib.batch.request import Batch
from lib.memory.process import Runner
from lib.reports import Report


def _nothing() -> None:
    """Holds no memory that could be let go."""


def test_who_needs_many_waits_and_is_not_overtaken() -> None:
    """First come, first served: one thread beside one, both before two, which come before the next one."""
    free, order, waits = Cores(2), list[str](), threading.Event()
    first, second = free.taken(1, pytest.fail), free.taken(1, pytest.fail)
    first.__enter__()
    second.__enter__()

    def wide() -> None:
        with free.taken(2, waits.set):
            order.append("wide")

    def late() -> None:
        with free.taken(1, late_waits.set):
            order.append("late")

    late_waits = threading.Event()
    threads = [threading.Thread(target=each) for each in (wide, late)]
    threads[0].start()
    assert waits.wait(10)
    threads[1].start()
    assert late_waits.wait(10)
    first.__exit__(None, None, None)
    assert order == [], "one is free, and the one that came first needs two"
    second.__exit__(None, None, None)
    for each in threads:
        each.join(10)
    assert order == ["wide", "late"]
    with free.taken(7, pytest.fail):  # more than there are: all of them
        pass


def test_patience_ends_the_wait_and_takes_nothing() -> None:
    """What it raises comes out, and the next one has its turn."""
    free = Cores(1)

    def patience() -> None:
        raise TimeoutError

    with free.taken(1, pytest.fail), pytest.raises(TimeoutError), free.taken(1, _nothing, patience):
        pass
    with free.taken(1, pytest.fail):
        pass


def test_rows_threads_are_counted(
    tmp_path: Path, tiles: Callable[..., Any], batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cores: files of one thread side by side, one of two threads alone; who waits for cores has no child and no place."""
    tiles(4)
    rows = "".join(f"in/t{n:02}.tif,{2 if n % 3 == 0 else ''}\n" for n in range(4))
    (tmp_path / "list.csv").write_text(f"source,threads\n{rows}", encoding="utf-8")
    made = batch(tmp_path / "list.csv")
    assert [made.job(at).resources.threads for at in range(4)] == [2, 1, 1, 2]
    monkeypatch.setattr(run, "cores", lambda: 2)
    assert run.workers_of(made) == 2
    monkeypatch.setattr(module, "_cores", Cores(2))
    at_work, seen, closed, lock = list[int](), list[int](), threading.Semaphore(0), threading.Lock()
    together = threading.Barrier(2, timeout=30)  # the two in the middle: one beside the other

    def work(job: Any, *_: Any, **__: Any) -> Report:
        threads = job.resources.threads
        with lock:
            at_work.append(threads)
            seen.append(sum(at_work))
        if Path(job.source).stem == "t00":
            for _ in range(2):
                assert closed.acquire(timeout=30), "the next two wait for cores, and have let go of their memory"
        if threads == 1:
            together.wait()
        with lock:
            at_work.remove(threads)
        return Report(status="failed", exit_code=1)

    monkeypatch.setattr(module, "run_published", work)
    runner: Runner = SimpleNamespace(close=closed.release, patience=None)  # type: ignore[assignment]
    orders = [Order(at, made.job(at), None, tmp_path / "out") for at in range(4)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda each: fulfil(each, runner), orders))
    assert max(seen) == 2
