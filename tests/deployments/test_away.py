"""What is away for a while: the worker, the API, the whole host of a run. Real processes, on SQLite; nothing may be lost."""

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.states import Scheduled

from lib.publish import find_leftovers
from tests.deployments.conftest import write_raster
from tests.servers import Listener, Prefect, until

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

# Twenty were measured (the guide has the times); fewer are enough to see that none is lost.
_AT_ONCE = 8
_SECONDS = 2


@pytest.fixture(scope="module", autouse=True)
def _as_it_was(prefect: Prefect) -> Iterator[None]:
    """A pool of two; the automations that are made here, which are impatient, go before other modules have runs."""
    prefect.client.update_work_pool("default", _limit(2))
    yield
    prefect.client.update_work_pool("default", _limit(None))
    for each in prefect.client.read_automations():
        prefect.client.delete_automation(each.id)


def _limit(count: int | None) -> Any:
    from prefect.client.schemas.actions import WorkPoolUpdate

    return WorkPoolUpdate(concurrency_limit=count)


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, Any]:
    """Parameters of a run that works for some ten seconds."""
    source = write_raster(tmp_path / "source.tif")
    return {
        "source": str(source), "destination": str(tmp_path / "out.tif"), "profile": False, "verify": "basic",
        "operation": "custom", "function": "tests.deployments.functions:linger", "threads": 1, "overwrite": True,
    }  # fmt: skip


def _working(prefect: Prefect, slow: dict[str, Any]) -> tuple[UUID, psutil.Process]:
    """A slow run whose child writes, and its flow's process."""
    run = prefect.run(**slow)
    child = prefect.child("raster")
    staged = Path(slow["destination"]).parent / ".out.tif.swath" / "out.tif"
    until(staged.exists, what="the child writes its staged file")
    owner = child.parent()
    assert owner is not None
    return run, owner


def test_runs_submitted_at_once_on_sqlite_are_not_lost(prefect: Prefect) -> None:
    """Four clients submit together and the worker starts them meanwhile: locked writes are tried again, all complete."""
    deployment = prefect.client.read_deployment_by_name("clean-leftovers/ad-hoc").id
    prefect.client.update_work_pool("default", _limit(4))
    folder = {"folder": str(prefect.home)}

    def submit(_client: int) -> list[UUID]:
        with SyncPrefectClient(prefect.url) as client:
            runs = range(_AT_ONCE // 4)
            return [client.create_flow_run_from_deployment(deployment, parameters=folder).id for _ in runs]

    with ThreadPoolExecutor(4) as clients:
        runs = [run for made in clients.map(submit, range(4)) for run in made]
    assert len(set(runs)) == _AT_ONCE
    assert {prefect.end_of(run, seconds=400).name for run in runs} == {"Completed"}


def test_a_run_outlives_its_worker_and_the_next_worker_takes_what_was_late(
    prefect: Prefect, slow: dict[str, Any]
) -> None:
    """After kill -9 of the worker the run goes on to Completed; what comes due meanwhile is Late, then taken by the next one."""
    run, _ = _working(prefect, slow)
    prefect.worker.send_signal(signal.SIGKILL)
    prefect.worker.wait()
    missed = prefect.run("clean-leftovers/weekly", folder=str(prefect.home))
    passed = Scheduled(scheduled_time=dt.datetime.now(dt.UTC) - dt.timedelta(hours=6))
    prefect.client.set_flow_run_state(missed, passed, force=True)
    assert prefect.end_of(run).is_completed()
    assert find_leftovers(Path(slow["destination"]).parent) == []
    assert prefect.wait_for(missed, "Late") == "Late"
    prefect.worker = prefect.start_worker()
    assert prefect.end_of(missed).is_completed()


def test_the_api_may_go_away_in_the_middle_of_a_run(prefect: Prefect, slow: dict[str, Any]) -> None:
    """The server is killed while the child works, and comes back after that: the run completes, with all its tasks."""
    run, owner = _working(prefect, slow)
    child = prefect.child("raster")
    prefect.server.send_signal(signal.SIGKILL)
    prefect.server.wait()
    until(lambda: not child.is_running(), what="the child's work is done without the API")
    assert owner.is_running()
    prefect.server = prefect.start_server()
    assert prefect.end_of(run).is_completed()
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    # They reach the API as events, behind the run's own state.

    def ended() -> bool:
        tasks = prefect.client.read_task_runs(flow_run_filter=of_run)
        return [each.state_name for each in tasks] == ["Completed"] * 3

    until(ended, seconds=60, what="its three tasks are there, all completed")


def test_runs_that_came_due_while_the_server_was_away_are_late_and_run(prefect: Prefect) -> None:
    """The schedule's runs are in the database beforehand: the server finds one whose time has passed, and a worker runs it."""
    run = prefect.client.create_flow_run_from_deployment(
        prefect.client.read_deployment_by_name("clean-leftovers/weekly").id,
        parameters={"folder": str(prefect.home)},
        state=Scheduled(scheduled_time=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_SECONDS)),
    ).id
    prefect.server.send_signal(signal.SIGKILL)
    prefect.server.wait()
    prefect.server = prefect.start_server()
    assert prefect.end_of(run).is_completed()


def test_a_run_whose_host_is_gone_is_crashed_and_told(
    prefect: Prefect, slow: dict[str, Any], listener: Listener
) -> None:
    """Nobody is left to say that it died: its heartbeats stop, it is Crashed, the webhook hears, a rerun is clean."""
    environment = prefect.environment | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "SWATH_ALERT_WEBHOOK": listener.url}
    timing = "from deployments.automations import Timing, apply; apply(Timing(silent_seconds=32, late_seconds=10))"
    subprocess.run([sys.executable, "-c", timing], env=environment, check=True)
    words = [f"--{key.replace('_', '-')}={slow[key]}" for key in ("operation", "function", "threads")]
    command = [sys.executable, "-m", "flows", "raster", slow["source"], slow["destination"], "--flow", *words]
    with subprocess.Popen(command, env=environment) as flow:
        staged = Path(slow["destination"]).parent / ".out.tif.swath" / "out.tif"
        until(staged.exists, what="the child writes its staged file")
        os.kill(flow.pid, signal.SIGKILL)
    (leftover,) = find_leftovers(Path(slow["destination"]).parent)
    assert leftover.dead
    found = prefect.client.read_flow_runs(limit=50)
    (run,) = [each for each in found if each.parameters.get("source") == slow["source"]]
    assert run.state_name == "Running"
    state = prefect.end_of(run.id)
    assert state.type == StateType.CRASHED
    assert "no heartbeat for 32 s" in str(state.message)
    until(lambda: [each for each in listener.heard if each["run_id"] == str(run.id)], what="the webhook hears")
    again = prefect.run(**slow | {"function": None, "operation": "copy"})
    assert prefect.end_of(again).is_completed()
    assert find_leftovers(Path(slow["destination"]).parent) == []


def test_a_run_that_nobody_takes_is_told_once_it_is_late(prefect: Prefect, listener: Listener) -> None:
    """With its pool paused a run becomes Late, and after the time that was set the webhook hears of it, once."""
    prefect.client.update_work_pool("default", _paused(is_paused=True))
    run = prefect.run("clean-leftovers/ad-hoc", folder=str(prefect.home))
    (told,) = until(lambda: [each for each in listener.heard if each["run_id"] == str(run)], what="the webhook hears")
    assert (told["state"], told["automation"]) == ("Late", "swath: tell of late runs")
    prefect.client.update_work_pool("default", _paused(is_paused=False))
    assert prefect.end_of(run).is_completed()
    assert len([each for each in listener.heard if each["run_id"] == str(run)]) == 1


def _paused(*, is_paused: bool) -> Any:
    from prefect.client.schemas.actions import WorkPoolUpdate

    return WorkPoolUpdate(is_paused=is_paused)
