"""A real server and worker: forms as they are stored, runs with wrong parameters, copies and retries as the UI makes them."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Scheduled, State

from lib.operations import OPERATIONS
from lib.publish import find_leftovers
from tests.servers import Prefect, until

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

_FINAL = ("UsageError", "SourceError", "FunctionError", "Completed", "Failed", "Crashed")
DEPLOYMENTS = [
    f"{flow}/ad-hoc" for flow in ("transform-raster", "filter-vector", "profile-memory", "verify-output", "demo")
]


def _form(prefect: Prefect, deployment: str) -> dict[str, dict[str, Any]]:
    """The form's inputs in the order in which the UI shows them."""
    schema = prefect.client.read_deployment_by_name(deployment).parameter_openapi_schema
    return dict(sorted(schema["properties"].items(), key=lambda each: each[1]["position"]))


def _unchecked(prefect: Prefect, deployment: str, parameters: dict[str, Any]) -> UUID:
    """A run that the server makes without looking at its parameters, as its own scheduler does."""
    found = prefect.client.read_deployment_by_name(deployment)
    asked = {"parameters": parameters, "enforce_parameter_schema": False, "state": {"type": "SCHEDULED"}}
    made = prefect.client.request("POST", "/deployments/{id}/create_flow_run", path_params={"id": found.id}, json=asked)
    return UUID(made.json()["id"])


def _later(prefect: Prefect, deployment: str, parameters: dict[str, Any]) -> UUID:
    """A run whose parameters the server checks, of tomorrow: the worker leaves it alone."""
    found = prefect.client.read_deployment_by_name(deployment)
    tomorrow = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    return prefect.client.create_flow_run_from_deployment(found.id, parameters=parameters, state=tomorrow).id


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_form_can_be_filled_in(prefect: Prefect, deployment: str) -> None:
    """As stored by the server: every input has a title and a description, none is a choice between a value and None."""
    form = _form(prefect, deployment)
    for name, each in form.items():
        assert each["title"].startswith(name)
        assert each["description"].endswith(".")
        assert each.get("default", "") is not None
        assert {"type": "null"} not in each.get("anyOf", [])
    assert form["memory_limit_mb"]["title"] == "memory_limit_mb (MiB)"
    assert form["memory_limit_mb"]["exclusiveMinimum"] == 0
    if deployment.startswith("transform"):
        assert list(form)[:5] == ["source", "destination", "operation", "overwrite", "memory_limit_mb"]
        assert form["operation"]["enum"] == list(OPERATIONS)
        assert form["scale"]["default"] == 10000


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_copy_of_a_run_is_taken(prefect: Prefect, deployment: str) -> None:
    """What a custom run sends (every default), and what a copy of that run sends (what it is said to have had)."""
    form = _form(prefect, deployment)
    sent = {name: each["default"] for name, each in form.items() if "default" in each}
    sent |= {name: "a.tif" for name in ("source", "destination", "output") if name in form}
    first = _later(prefect, deployment, sent)
    copy = _later(prefect, deployment, prefect.client.read_flow_run(first).parameters)
    assert prefect.client.read_flow_run(copy).parameters == prefect.client.read_flow_run(first).parameters == sent
    for run in (first, copy):
        prefect.client.delete_flow_run(run)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"memory_limit_mb": -3}, "Validation failed for field 'memory_limit_mb'. Failure reason: -3 is less than"),
        ({"operation": "sharpen"}, "'sharpen' is not one of ['copy', 'normalise'"),
        ({"source": None}, "Validation failed for field 'source'"),
    ],
)
def test_a_form_refuses_wrong_values_at_once(prefect: Prefect, wrong: dict[str, Any], says: str) -> None:
    """The server itself, so that no run is made; the words name the field."""
    with pytest.raises(PrefectHTTPStatusError) as refused:
        _later(prefect, "transform-raster/ad-hoc", {"source": "a.tif", "destination": "b.tif"} | wrong)
    assert says in refused.value.response.json()["detail"]


def test_wrong_parameters_end_a_run_failed_and_named(prefect: Prefect, raster: Path, tmp_path: Path) -> None:
    """Misspelt, of another version, missing, of the wrong type, a vanished source: Failed with what is wrong, not Crashed."""
    transform = "transform-raster/ad-hoc"
    paths = {"source": str(raster), "destination": str(tmp_path / "o.tif")}
    runs = {
        prefect.run(**paths, memory_limt_mb=512): (
            "UsageError",
            "exit 2: transform-raster has no parameter 'memory_limt_mb' (did you mean memory_limit_mb? known are source,",
        ),
        _unchecked(prefect, transform, {"src": "a.tif", "memory_limit": "2 GB"}): (
            "UsageError",
            "exit 2: transform-raster has no parameter 'src' and 'memory_limit' (did you mean memory_limit_mb for memory_limit? ",
        ),
        _unchecked(prefect, transform, paths | {"memory_limit_mb": "a lot"}): (
            "SettingsError",
            "exit 2: parameter memory_limit_mb: ",
        ),
        prefect.run("profile-memory/ad-hoc", source=str(tmp_path / "gone.tif")): (
            "SourceError",
            f"exit 2: source {tmp_path / 'gone.tif'} does not exist",
        ),
    }
    for run, (name, says) in runs.items():
        assert prefect.wait_for(run, *_FINAL, "SettingsError") == name
        state = prefect.client.read_flow_run(run).state
        assert state is not None
        assert state.type == StateType.FAILED
        assert str(state.message).startswith(says)


def _retry(prefect: Prefect, run: UUID) -> None:
    """As the button Retry does it."""
    again = State(type=StateType.SCHEDULED, name="AwaitingRetry", message="Retry from the UI")
    prefect.client.set_flow_run_state(run, again, force=True)


def test_a_retried_run_reuses_what_it_had_finished(prefect: Prefect, raster: Path, tmp_path: Path) -> None:
    """The source is not profiled again, the transform is made again, and the run's log says so."""
    flag, destination = prefect.home / "flag", tmp_path / "o.tif"
    flag.touch()
    run = prefect.run(
        source=str(raster), destination=str(destination), operation="custom", verify="basic",
        function="tests.flows.functions:fail_while_flagged", memory_limit_mb=512,
    )  # fmt: skip
    assert prefect.wait_for(run, *_FINAL) == "FunctionError"
    assert find_leftovers(tmp_path) == []
    flag.unlink()
    _retry(prefect, run)
    assert prefect.wait_for(run, "Completed", "Crashed") == "Completed"
    assert destination.exists()
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))

    def reused() -> set[str] | None:
        found = prefect.client.read_task_runs(flow_run_filter=of_run)
        return {each.name for each in found if each.state_name == "Cached"} if len(found) == 3 + 4 else None

    names = until(reused, what="the tasks of both tries have reached the API")
    assert names == {"Validate drivers for GTiff", "Profile small.tif"}
    log = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    said = "try 2 of this run: reused: Validate drivers, Profile source; done again: Transform raster, Publish output"
    until(lambda: said in [each.message for each in prefect.client.read_logs(log)], what="the log of the retry")
    found = prefect.client.read_flow_run(run)
    assert (found.name, set(found.tags)) == ("custom small.tif → o.tif", {"ad-hoc", "raster", "custom"})
    assert any("RuntimeError: not yet" in each.message for each in prefect.client.read_logs(log))


def test_a_run_that_was_killed_after_its_transform_is_retried_from_there(
    prefect: Prefect, raster: Path, tmp_path: Path
) -> None:
    """Kill -9 while it verifies: Crashed, its staged file stays, and a retry verifies and publishes that."""
    flag, destination = prefect.home / "flag", tmp_path / "o.tif"
    flag.touch()
    run = prefect.run(
        source=str(raster), destination=str(destination), operation="custom", profile=False,
        function="tests.flows.functions:linger_in_verification", memory_limit_mb=512,
    )  # fmt: skip
    owner = prefect.child("verify").parent()
    assert owner is not None
    assert owner.pid not in {os.getpid(), prefect.worker.pid}
    owner.kill()
    assert prefect.wait_for(run, *_FINAL) == "Crashed"
    (leftover,) = find_leftovers(tmp_path)
    staged = (leftover.folder / "o.tif").stat()
    flag.unlink()
    _retry(prefect, run)
    assert prefect.wait_for(run, "Completed", *_FINAL[:3], "Failed") == "Completed"
    assert destination.stat().st_ino == staged.st_ino
    assert find_leftovers(tmp_path) == []
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))

    def reused() -> set[str]:
        found = prefect.client.read_task_runs(flow_run_filter=of_run)
        return {each.name for each in found if each.state_name in {"Cached", "Reused"}}

    both = {"Validate drivers for GTiff", "Transform small.tif"}
    until(lambda: reused() == both, what="the tasks that were reused have reached the API")
