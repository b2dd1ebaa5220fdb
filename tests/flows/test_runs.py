"""What a run is called and tagged, how it ends where its parameters are wrong, and what a retry does again."""

import logging
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

from flows.forms import JobFlow, chosen_name, run_name
from flows.transform_raster import transform_raster
from lib.errors import ChildDied, DestinationBusy, OutputError, UsageError, VerificationFailed
from lib.jobs import RasterJob
from lib.publish import find_leftovers, staging
from lib.request import job_knobs
from tasks import publishing, verification
from tasks.states import report_of

pytestmark = [pytest.mark.slow, pytest.mark.flow, pytest.mark.usefixtures("prefect_api")]


def _run_of(state: State[Any]) -> FlowRun:
    run = state.state_details.flow_run_id
    assert isinstance(run, UUID)
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"source": "a.tif", "destination": "b.tif", "memory_limt_mb": 5}, "no parameter 'memory_limt_mb'"),
        ({"source": "a.tif", "destination": "b.tif", "memory-limit-mb": 5}, "no parameter 'memory-limit-mb'"),
        ({"destination": "b.tif"}, "made-up needs a value of source"),
        ({}, "made-up needs a value of source and destination"),
        ({"source": ["a"], "destination": "b.tif"}, "source: Input should be a valid string"),
        (
            {"source": "a.tif", "destination": "b.tif", "verify": "thoroughly"},
            "verify: Input should be 'none', 'basic'",
        ),
    ],
)
def test_a_run_with_wrong_parameters_fails_and_says_which(
    parameters: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the process of a run starts it, whose parameters nobody checked: Failed, named UsageError, never Crashed."""
    flow = JobFlow(lambda **_: None, "made-up", job_knobs(RasterJob), "raster", "operation")
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow, parameters=parameters)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(run.id))
    state = run_flow(flow, flow_run=run, return_type="state")
    assert isinstance(state, State)
    assert (state.type.value, state.name) == ("FAILED", "UsageError")
    assert state.message is not None
    assert state.message.startswith("exit 2: ")
    assert says in state.message
    found = _run_of(state)
    assert (found.state_name, found.name.startswith("copy"), found.tags) == ("UsageError", True, ["raster"])


@pytest.mark.parametrize(
    ("verb", "given", "name"),
    [
        (
            "operation",
            {"operation": "normalise", "source": "/d/T32.tif", "destination": "/e/s.tif"},
            "normalise T32.tif → s.tif",
        ),
        ("filter", {"source": "https://x/y/p.gpkg?key=secret", "destination": "l.gpkg"}, "filter p.gpkg → l.gpkg"),
        ("verify", {"source": "a.tif", "output": "o/b.tif"}, "verify b.tif against a.tif"),
        ("profile", {"source": "a.tif"}, "profile a.tif"),
        ("operation", {}, "operation"),
        ("operation", {"operation": 5, "source": ["a"], "destination": "x\ny" * 300}, None),
    ],
)
def test_a_run_is_called_what_it_is(verb: str, given: dict[str, Any], name: str | None) -> None:
    """Base names, without folders and secrets; wrong parameters are named all the same, in one line of bearable length."""
    found = run_name(verb, given)
    assert found == name or (name is None and "\n" not in found and len(found) <= 200)


@pytest.mark.parametrize(
    ("has", "chosen"),
    [
        ("Generic-Nutria", ""),
        ("brave-blue-ox", ""),
        ("", ""),
        (None, ""),
        ("before the release", "before the release"),
        ("copy a.tif", "copy a.tif"),
    ],
)
def test_a_name_that_a_person_gave_stays(has: str | None, chosen: str) -> None:
    """What the server or the form makes up is replaced."""
    assert chosen_name(has) == chosen


def _failing_once(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, error: Exception) -> list[int]:
    """Let a step end with an error the first time."""
    works, calls = getattr(where, name), []

    def fail_once(report: Any, *more: Any) -> Any:
        calls.append(1)
        return report.with_error(error) if len(calls) == 1 else works(report, *more)

    monkeypatch.setattr(where, name, fail_once)
    return calls


def test_a_retry_does_again_what_it_must_and_says_so(
    raster: Path, tmp_path: Path, task_runs: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that was full for a moment: drivers and profile are not looked at again, the staged file is verified and published.

    Nothing is left behind: neither the staging folder, nor the results that were kept for a retry.
    """
    _failing_once(monkeypatch, publishing, "published", OutputError("o.tif: no space left"))
    destination = tmp_path / "o.tif"
    with caplog.at_level(logging.INFO):
        state = transform_raster.with_options(retries=1)(str(raster), str(destination), return_state=True)
    assert state.is_completed(), state.message
    assert task_runs(state) == {
        "Validate drivers for GTiff": "Cached",
        "Profile small.tif": "Cached",
        "Transform small.tif": "Reused",
        "Verify o.tif": "Completed",
        "Publish o.tif": "Completed",
    }
    reused, again = "Validate drivers, Profile source, Transform raster", "Verify output, Publish output"
    assert f"try 2 of this run: reused: {reused}; done again: {again}" in caplog.messages
    assert destination.exists()
    assert find_leftovers(tmp_path) == []
    kept = Path(PREFECT_LOCAL_STORAGE_PATH.value()).expanduser() / "swath" / str(state.state_details.flow_run_id)
    assert not kept.exists()


def test_a_retry_does_not_trust_what_changed(
    raster: Path, tmp_path: Path, task_runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A staged file that somebody touched, and a source that is another one by now: both steps are done again."""
    works = publishing.published

    def touched(report: Any, staged: Any) -> Any:
        monkeypatch.setattr(publishing, "published", works)
        staged.path.touch()
        raster.touch()
        return report.with_error(OutputError("o.tif: no space left"))

    monkeypatch.setattr(publishing, "published", touched)
    flow = transform_raster.with_options(retries=1)
    state = flow(str(raster), str(tmp_path / "o.tif"), verify="basic", return_state=True)
    assert state.is_completed(), state.message
    assert set(task_runs(state).values()) == {"Completed"}


def test_what_cannot_pass_is_not_tried_again(
    raster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Prefect's retries are taken from a run whose output is wrong, and from one of bad input; a staged file does not stay."""
    calls = _failing_once(monkeypatch, verification, "with_verification", VerificationFailed("o.tif: a pixel is wrong"))
    flow = transform_raster.with_options(retries=3)
    with caplog.at_level(logging.INFO):
        state = flow(str(raster), str(tmp_path / "o.tif"), profile=False, return_state=True)
    assert (state.name, len(calls), _run_of(state).run_count) == ("VerificationFailed", 1, 1)
    assert "not tried again: VerificationFailed does not pass by itself" in caplog.messages
    assert find_leftovers(tmp_path) == []
    state = flow(str(tmp_path / "gone.tif"), str(tmp_path / "o.tif"), return_state=True)
    assert (state.name, _run_of(state).run_count) == ("SourceError", 1)


def test_a_busy_destination_is_tried_again(raster: Path, tmp_path: Path, task_runs: Any) -> None:
    """Where retries are asked for, a run waits for the other one; else it says at once who is writing."""
    destination = tmp_path / "o.tif"
    with staging(destination, overwrite=False):
        state = transform_raster.with_options(retries=1)(str(raster), str(destination), return_state=True)
    assert (state.name, _run_of(state).run_count) == ("DestinationBusy", 2)
    assert isinstance(report_of(state).error.to_error(), DestinationBusy)


def test_a_staged_file_stays_for_its_own_retry_alone(tmp_path: Path) -> None:
    """Another run sweeps what was kept; a try that nobody follows keeps nothing."""
    from lib.resume import finished, note_finished

    destination, died = tmp_path / "o.tif", ChildDied("it died")

    def fail(by: str, *, keep: bool) -> None:
        with staging(destination, overwrite=False, by=by, keep=lambda _: keep) as staged:
            staged.path.write_bytes(b"whole")
            note_finished(staged.folder, by, {"status": "completed"})
            raise died

    with pytest.raises(ChildDied):
        fail("one", keep=False)
    assert find_leftovers(tmp_path) == []
    for by, report in (("one", {"status": "completed"}), ("another", None), ("", None)):
        with pytest.raises(ChildDied):
            fail("one", keep=True)
        with staging(destination, overwrite=False, by=by) as staged:
            assert (finished(staged.folder, by), staged.path.exists()) == (report, report is not None)
    with pytest.raises(UsageError), staging(destination, overwrite=False, by="one", keep=lambda _: True) as staged:
        raise UsageError("nothing was staged")
    assert find_leftovers(tmp_path) == []
