"""Threads that take files in turn for a flow: their children, their places, and how all of that is stopped."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lib.batch import order
from lib.batch.order import Order, Stopped, check_goes_on, fulfil, seated, stop
from lib.jobs import RasterJob, Resources
from lib.memory.ledger import Place, admitted, entries
from lib.operations import Custom, Normalise
from lib.units import MIB
from tests.batch.conftest import write_tile

BUDGET = 400 * MIB


@pytest.fixture(autouse=True)
def _goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run was stopped by another test."""
    monkeypatch.setattr(order, "_stopped", set())


@pytest.fixture
def orders(tmp_path: Path) -> Callable[..., Order]:
    """Orders of small rasters, in a ledger of the test's own."""

    def made(name: str = "a", operation: Any = None, run: str = "run") -> Order:
        resources = Resources(
            limit_bytes=180 * MIB, host_budget_bytes=BUDGET, ledger_path=tmp_path / "ledger", threads=1
        )
        job = RasterJob(
            source=str(write_tile(tmp_path / f"{name}.tif")),
            destination=str(tmp_path / "out" / f"{name}.tif"),
            operation=operation or Normalise(),
            resources=resources,
        )
        return Order(0, job, "key", tmp_path / "out", run)

    (tmp_path / "out").mkdir()
    return made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Place]:
    """Somebody else's job, which leaves no room for ours."""
    place = admitted(tmp_path / "ledger", 300 * MIB, BUDGET, "other")
    yield place
    place.leave()


def _until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class _Thread(threading.Thread):
    """Does one order; keeps what became of it."""

    def __init__(self, given: Order) -> None:
        super().__init__(daemon=True)
        self.given = given
        self.end: Any = None
        self.pid: int | None = None

    def run(self) -> None:
        try:
            with seated(self.given.run) as runner:
                self.end = fulfil(self.given, runner, lambda _: setattr(self, "pid", runner.pid))
                check_goes_on(self.given.run)
        except Stopped as stopped:
            self.end = stopped


@pytest.mark.usefixtures("other")
def test_who_waits_for_a_place_is_stopped(orders: Callable[..., Order], tmp_path: Path) -> None:
    """At once, though nobody leaves; its ticket is gone."""
    thread = _Thread(orders())
    thread.start()
    _until(lambda: len(entries(tmp_path / "ledger")) == 2)
    began = time.monotonic()
    stop("run")
    thread.join(10)
    assert time.monotonic() - began < 5
    assert isinstance(thread.end, Stopped)
    assert [each.label for each in entries(tmp_path / "ledger")] == ["other"]


def test_who_is_at_work_is_stopped(orders: Callable[..., Order], tmp_path: Path) -> None:
    """Its child is killed, and what is asked for afterwards is not begun; another run's goes on, of the same batch, too."""
    thread = _Thread(orders(operation=Custom(function="tests.batch.functions:sleepy")))
    thread.start()
    _until(lambda: thread.pid)
    stop("run")
    thread.join(10)
    assert isinstance(thread.end, Stopped)
    with pytest.raises(Stopped), seated("run"):
        pass
    with seated("another"):
        pass
    assert not psutil.pid_exists(thread.pid or 0) or thread.pid is None
    assert entries(tmp_path / "ledger") == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_child_that_waits_for_the_next_file_ends_with_the_batch(
    orders: Callable[..., Order], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its place; without an end of the batch after a while."""
    with seated("run") as runner:
        assert fulfil(orders(), runner).ok
    pid = runner.pid
    assert len(entries(tmp_path / "ledger")) == 1
    stop("run")
    assert (runner.pid, entries(tmp_path / "ledger"), psutil.pid_exists(pid or 0)) == (None, [], False)
    monkeypatch.setattr(order, "_IDLE_SECONDS", 0.2)
    with seated("another") as runner:
        assert fulfil(orders("b"), runner).ok
    assert runner.pid
    _until(lambda: runner.pid is None and entries(tmp_path / "ledger") == [])
