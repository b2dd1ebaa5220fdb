"""`make up` for real, on a PostgreSQL cluster of its own: what it starts and schedules, whom it tells, that it ends whole."""

import datetime as dt
import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Scheduled

from lib.publish import find_leftovers
from tests.deployments.conftest import write_raster
from tests.servers import Listener, Up, free_port, until

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("up")]

_SCHEDULED = {
    "transform-raster/nightly": 1,
    "filter-vector/nightly": 1,
    "verify-output/daily": 2,
    "clean-leftovers/weekly": 1,
}
_AT_ONCE = 200
_CLIENTS = 8


def _scheduled(up: Up, name: str) -> list[FlowRun]:
    """Runs that a deployment's schedules have made and that have not begun."""
    deployment = up.client.read_deployment_by_name(name)
    return up.client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            tags=FlowRunFilterTags(all_=["auto-scheduled"]),
        ),
    )


def _make_due(up: Up, name: str) -> UUID:
    """Take the next run that a schedule has made, and let its time be now."""
    runs: list[FlowRun] = until(lambda: _scheduled(up, name), what=f"the schedule of {name} makes runs")
    run = min(runs, key=lambda each: str(each.expected_start_time))
    up.client.set_flow_run_state(run.id, Scheduled(), force=True)
    return run.id


def test_it_listens_on_loopback_alone_and_its_page_finds_the_api(up: Up) -> None:
    """Every socket of its processes is loopback's, and the page is told the port that the API has."""
    said = up.said()
    assert f"page http://127.0.0.1:{up.port}" in said
    assert "PostgreSQL" in said
    listening = {
        socket.laddr.ip
        for process in up.tree()
        for socket in process.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    assert httpx.get(f"http://127.0.0.1:{up.port}/ui-settings").json()["api_url"] == up.url
    assert httpx.get(f"http://127.0.0.1:{up.port}/", follow_redirects=True).is_success


def test_a_second_one_says_that_it_is_up(up: Up) -> None:
    """With exit 0 and its address; on another port it cannot be had, exit 1 with what to do."""
    again = up.call("deployments.up")
    assert again.returncode == 0
    assert f"it is up already: page http://127.0.0.1:{up.port}" in again.stdout
    elsewhere = up.call("deployments.up", "--port", str(free_port()))
    assert elsewhere.returncode == 1
    assert "make down" in elsewhere.stderr


def test_a_taken_port_is_said_with_who_has_it(up: Up, tmp_path: Path) -> None:
    """Another state folder's `make up` on this port ends at once: by whom, a Prefect server of which version, what to do."""
    environment = up.environment | {"XDG_STATE_HOME": str(tmp_path)}
    other = subprocess.run(
        [sys.executable, "-m", "deployments.up", "--port", str(up.port)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert other.returncode == 1
    assert f"port {up.port} is taken by" in other.stderr
    assert f"(process {up.children()['server']})" in other.stderr
    assert "a Prefect server 3." in other.stderr
    assert "make up PORT=" in other.stderr


def test_runs_are_scheduled_for_the_next_day_and_a_second_deploy_doubles_none(up: Up) -> None:
    """Each daily schedule has a run within 24 hours, at its local hour; applying everything again leaves one of each."""
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1, minutes=1)

    def next_day() -> dict[str, int]:
        counts = {
            name: len([run for run in _scheduled(up, name) if run.expected_start_time <= now + day])  # type: ignore[operator]
            for name in _SCHEDULED
        }
        weekly = [run for run in _scheduled(up, "clean-leftovers/weekly") if run.expected_start_time <= now + 7 * day]  # type: ignore[operator]
        return counts | {"clean-leftovers/weekly": len(weekly)}

    until(lambda: next_day() == _SCHEDULED, what="the scheduler has made the runs of the next day")
    applied = up.call("deployments.apply")
    assert applied.returncode == 0, applied.stderr
    deployments = {
        f"{up.client.read_flow(each.flow_id).name}/{each.name}": len(each.schedules)
        for each in up.client.read_deployments()
    }
    assert {name: deployments[name] for name in _SCHEDULED} == _SCHEDULED
    until(lambda: next_day() == _SCHEDULED, what="applying again doubles no run")
    (nightly,) = up.client.read_deployment_by_name("transform-raster/nightly").schedules
    assert (nightly.schedule.cron, nightly.schedule.timezone) == ("30 1 * * *", "Europe/Vienna")  # type: ignore[union-attr]
    assert up.client.read_work_pool("default").concurrency_limit == 3


def test_a_nightly_run_made_due_completes_over_last_nights_output(up: Up, data: Path) -> None:
    """A run that the schedule made replaces what is published, and completes."""
    write_raster(data / "incoming" / "scene.tif")
    destination = data / "published" / "scene_scaled.tif"
    destination.write_bytes(b"last night's")
    run = _make_due(up, "transform-raster/nightly")
    state = up.end_of(run)
    assert state.is_completed(), state
    assert destination.stat().st_size > 1000
    assert find_leftovers(data) == []


def test_a_schedule_made_by_hand_ends_in_a_state_that_says_why(up: Up) -> None:
    """`prefect deployment schedule create` on an ad-hoc deployment runs with its defaults, and fails with a reason."""
    name = "filter-vector/ad-hoc"
    made = up.call("prefect", "deployment", "schedule", "create", name, "--interval", "86400")
    assert made.returncode == 0, made.stdout + made.stderr
    state = up.end_of(_make_due(up, name))
    assert (state.type, state.name) == (StateType.FAILED, "SourceError")
    assert "incoming/parcels.gpkg" in str(state.message)


def test_a_failed_run_is_told_to_the_webhook(up: Up, listener: Listener) -> None:
    """Its flow, its state under the error's own name, its message and its page, as JSON; it was not tried again in vain."""
    run = up.run("filter-vector/nightly")
    state = up.end_of(run)
    assert up.client.read_flow_run(run).run_count == 1
    (told,) = until(lambda: [each for each in listener.heard if each["run_id"] == str(run)], what="the webhook hears")
    assert (told["flow"], told["state"], told["state_type"]) == ("filter-vector", "SourceError", "FAILED")
    assert told["content_type"] == "application/json"
    assert told["message"] == state.message
    assert str(run) in told["url"]


def test_two_due_runs_of_a_deployment_follow_each_other(up: Up, tmp_path: Path) -> None:
    """The second waits until the first has ended, although the pool has room: both complete and neither was busy."""
    source = write_raster(tmp_path / "two.tif")
    same = {
        "source": str(source), "destination": str(tmp_path / "out.tif"), "overwrite": True, "profile": False,
        "operation": "custom", "function": "tests.deployments.functions:linger", "verify": "basic",
    }  # fmt: skip
    runs = [up.run("transform-raster/nightly", **same) for _ in range(2)]
    assert all(up.end_of(run, seconds=180).is_completed() for run in runs)
    first, second = sorted((up.client.read_flow_run(run) for run in runs), key=lambda each: str(each.start_time))
    assert first.end_time
    assert second.start_time
    assert first.end_time <= second.start_time


def test_200_runs_submitted_at_once_are_all_there(up: Up) -> None:
    """Eight clients submit together: no error, and every run is in the database, once."""
    deployment = up.client.read_deployment_by_name("profile-memory/ad-hoc")
    up.client.pause_deployment(deployment.id)
    later = Scheduled(scheduled_time=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))

    def submit(_client: int) -> list[UUID]:
        with SyncPrefectClient(up.url) as client:
            return [
                client.create_flow_run_from_deployment(deployment.id, state=later, tags=["at-once"]).id
                for _ in range(_AT_ONCE // _CLIENTS)
            ]

    with ThreadPoolExecutor(_CLIENTS) as clients:
        made = {run for runs in clients.map(submit, range(_CLIENTS)) for run in runs}
    assert len(made) == _AT_ONCE
    tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=["at-once"]))
    there = up.client.read_flow_runs(flow_run_filter=tagged, limit=200)
    assert {run.id for run in there} == made


def test_200_concurrent_task_runs_are_recorded_without_an_error(up: Up) -> None:
    """A flow with 200 tasks under way at once completes, and the database has each of them Completed."""
    done = up.call("tests.deployments.functions", str(_AT_ONCE))
    assert done.returncode == 0, done.stderr
    of_flow = FlowFilter(name=FlowFilterName(any_=["many-tasks"]))

    def states() -> Counter[str]:
        found = up.client.read_task_runs(flow_filter=of_flow, limit=_AT_ONCE)
        return Counter(str(each.state_name) for each in found)

    until(lambda: states() == {"Completed": _AT_ONCE}, seconds=60, what="all task runs are recorded")
    log = (up.folder / "state" / "swath" / "log" / "server.log").read_text(encoding="utf-8")
    assert "Traceback" not in log


def test_a_run_from_the_terminal_is_seen_there(up: Up, tmp_path: Path) -> None:
    """`swath … --flow` without PREFECT_API_URL uses what is up, and says so."""
    source = write_raster(tmp_path / "terminal.tif")
    environment = {key: value for key, value in up.environment.items() if key != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "flows", "raster", source, tmp_path / "out.tif", "--flow"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"on the server of `make up`: http://127.0.0.1:{up.port}" in done.stderr
    of_flow = FlowFilter(name=FlowFilterName(any_=["transform-raster"]))
    runs = up.client.read_flow_runs(flow_filter=of_flow, limit=50)
    assert [run for run in runs if str(run.parameters.get("source")) == str(source) and run.deployment_id is None]


def test_the_commands_of_an_operator_need_a_server(up: Up, tmp_path: Path) -> None:
    """Applying without a server, and to one that does not answer, is a line that says so."""
    nothing = {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    for module in ("deployments.apply", "deployments.automations"):
        for environment, said in ((nothing, "no Prefect server answers"), ({}, "no server is named and none is up")):
            base = {key: value for key, value in up.environment.items() if key != "PREFECT_API_URL"}
            done = subprocess.run(
                [sys.executable, "-m", module],
                env=base | {"XDG_STATE_HOME": str(tmp_path)} | environment,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode in {1, 2}
            assert said in done.stderr
            assert done.stderr.count("\n") == 1


def test_killed_with_9_it_leaves_no_process_and_comes_up_again_with_its_runs(up: Up) -> None:
    """The kernel ends what it started; the next one finds the same database, and Ctrl-C ends that one with exit 0."""
    before = {run.id for run in up.client.read_flow_runs(limit=200)}
    tree = up.tree()
    assert {"postgres", "server", "worker"} <= set(up.children())
    os.kill(up.process.pid, signal.SIGKILL)
    up.process.wait()
    _, alive = psutil.wait_procs(tree, timeout=30)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
    up.process = up.start()
    assert {run.id for run in up.client.read_flow_runs(limit=200)} & before
    tree = up.tree()
    ended = up.call("deployments.down")
    assert ended.returncode == 0
    assert "down: http://" in ended.stdout
    assert up.process.wait(30) == 0
    assert not [each for each in tree if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    nothing = up.call("deployments.down")
    assert (nothing.returncode, nothing.stdout) == (0, "swath: nothing is up\n")
