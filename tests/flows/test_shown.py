"""What a run shows, as the API has it: its log in sentences, its page over the nights, its events, and what a killed run left."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import rasterio
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.settings import PREFECT_API_URL

from flows.transform_raster import transform_raster
from flows.verify_output import verify_output
from lib.jobs import RasterJob, Resources
from lib.reports import MemoryRecord, Report
from lib.underway import Notes
from lib.units import MIB
from tasks import events
from tasks.logs import run_logger
from tasks.states import report_of
from tests.servers import until

pytestmark = [pytest.mark.slow, pytest.mark.flow, pytest.mark.usefixtures("prefect_api")]

_QUICK = {"operation": "normalise", "profile": False, "verify": "basic", "memory_limit_mb": 512}


def _ask(path: str, **query: Any) -> Any:
    answer = httpx.post(f"{PREFECT_API_URL.value()}/{path}", json=query)
    answer.raise_for_status()
    return answer.json()


def _events(run: UUID, name: str) -> dict[str, Any]:
    """The one event of that name which is related to a flow run; events come a moment later than states."""
    related = {"id": [f"prefect.flow-run.{run}"]}
    wanted = {"event": {"name": [name]}, "related": related}
    found = until(lambda: _ask("events/filter", filter=wanted)["events"], seconds=60, what=f"event {name} of run {run}")
    assert len(found) == 1
    event: dict[str, Any] = found[0]
    return event


def _log(run: UUID, last: str) -> list[tuple[int, str]]:
    """Level and message of a run's log, once a line with `last` in it is there."""
    wanted = {"flow_run_id": {"any_": [str(run)]}}

    def lines() -> list[tuple[int, str]]:
        found = [(each["level"], each["message"]) for each in _ask("logs/filter", logs=wanted, sort="TIMESTAMP_ASC")]
        return found if any(last in text for _, text in found) else []

    said: list[tuple[int, str]] = until(lines, seconds=60, what=f"a line with {last!r}")
    return said


def _page(run: UUID) -> Any:
    """The artifact that is a run's page."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        (page,) = [each for each in client.read_artifacts(artifact_filter=of_run) if each.type == "markdown"]
    return page


def _run(flow: Callable[..., Any], *given: Any, **named: Any) -> tuple[UUID, Any]:
    state = flow(*map(str, given), **named, return_state=True)
    return state.state_details.flow_run_id, state


def test_two_nights_are_one_history(raster: Path, tmp_path: Path) -> None:
    """What was published is a line and an event with numbers; the second night compares itself with the first, under one key."""
    destination = tmp_path / "out.tif"
    first, state = _run(transform_raster, raster, destination, **_QUICK)
    report = report_of(state)
    said = _log(first, "published ")
    (published,) = [text for _, text in said if text.startswith("published ")]
    size = f"{destination.stat().st_size / MIB:.1f} MiB"
    assert all(
        words in published for words in (f"{destination}: {size} (GTiff) in ", " s, peak ", " of a limit of 512.0 MiB")
    )
    assert not [text for _, text in said if text.startswith("{") or '"event"' in text]
    event = _events(first, events.PUBLISHED)
    assert event["resource"]["prefect.resource.id"] == f"swath.output.{destination}"
    payload = event["payload"]
    assert (payload["bytes"], payload["peak_bytes"]) == (destination.stat().st_size, report.memory.peak_bytes)
    assert (payload["limit_bytes"], payload["source"]) == (512 * MIB, str(raster))
    assert {"flow-run", "flow"} <= {each["prefect.resource.role"] for each in event["related"]}
    assert "Compared with the last run" not in _page(first).data
    second, _ = _run(transform_raster, raster, destination, **_QUICK, overwrite=True)
    page = _page(second)
    assert page.key == _page(first).key
    assert "**Compared with the last run** (" in page.data
    assert "## Last runs" in page.data
    assert "Compared with the last run (" in page.description
    assert "; compared with the last run (" in "".join(text for _, text in _log(second, "published "))


def test_a_refused_run_tells_the_smallest_limit(raster: Path, tmp_path: Path) -> None:
    """Its event has the number that the state names; page and log name the parameter, not a flag."""
    run, state = _run(transform_raster, raster, tmp_path / "out.tif", **_QUICK | {"memory_limit_mb": 40})
    smallest = report_of(state).error.smallest_limit_mb
    payload = _events(run, events.REFUSED)["payload"]
    assert (payload["smallest_limit_mb"], payload["type"]) == (smallest, "MemoryRefused")
    page = _page(run)
    assert page.data.startswith("# Refused: out.tif is not published (MemoryRefused, exit 137)\n")
    assert f"raise memory_limit_mb to {smallest} MiB" in page.data
    assert page.description.startswith(
        "Refused: out.tif is not published (MemoryRefused, exit 137). small.tif: needs a limit of "
    )


def test_an_exceeded_run_tells_its_peak(raster: Path, tmp_path: Path) -> None:
    """Its event says limit, peak and attempts, and that nothing was published."""
    hoard = {"operation": "custom", "function": "tests.flows.functions:hoard_late", "max_chunk_mb": 1, "block_size": 64}
    run, _ = _run(transform_raster, raster, tmp_path / "out.tif", **_QUICK | hoard | {"memory_limit_mb": 300})
    payload = _events(run, events.EXCEEDED)["payload"]
    assert (payload["limit_bytes"], payload["exit_code"]) == (300 * MIB, 137)
    assert payload["peak_bytes"] > 100 * MIB
    assert "path" not in payload


def test_a_failed_verification_is_an_event(raster: Path, tmp_path: Path) -> None:
    """With the checks that failed, about the output that was checked."""
    destination = tmp_path / "out.tif"
    _run(transform_raster, raster, destination, **_QUICK)
    with rasterio.open(destination, "r+") as dataset:
        dataset.write(dataset.read(1) * 0 + 0.123, 1)
    run, _ = _run(verify_output, raster, destination, memory_limit_mb=512)
    event = _events(run, events.VERIFICATION_FAILED)
    assert event["resource"]["prefect.resource.id"] == f"swath.output.{destination}"
    assert [each["passed"] for each in event["payload"]["failed_checks"]] == [False]
    assert any(text.startswith("check ") and level == 40 for level, text in _log(run, "FAILED"))


def test_the_next_run_tells_what_a_killed_one_was(raster: Path, tmp_path: Path) -> None:
    """A staging folder of a dead owner: its job is in the run's log, page and report, and the run completes."""
    destination = tmp_path / "out.tif"
    folder = tmp_path / ".out.tif.swath"
    folder.mkdir()
    (folder / "owner").write_text(json.dumps({"host": socket.gethostname(), "pid": 4_000_000}))
    job = RasterJob(source=str(raster), destination=str(destination), resources=Resources(limit_bytes=99 * MIB))
    Notes(folder, job).hear({"event": "planned", "plan": {"projected_bytes": MIB}, "final": True})
    run, state = _run(transform_raster, raster, destination, **_QUICK)
    (warning,) = report_of(state).warnings
    assert warning.startswith("an earlier run to this destination was interrupted: raster job of small.tif, begun 20")
    assert (30, warning) in _log(run, "interrupted")
    assert "## Warnings\n\n- an earlier run to this destination was interrupted" in _page(run).data


def test_what_cannot_be_shown_undoes_no_work(
    raster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_runs: Callable[[UUID], dict[str, str]]
) -> None:
    """An API that takes neither pages nor events costs two lines of the log."""

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("the API is away")

    monkeypatch.setattr("tasks.run_page.emit", away)
    monkeypatch.setattr("tasks.events.emit_event", away)
    run, state = _run(transform_raster, raster, tmp_path / "out.tif", **_QUICK)
    assert state.is_completed()
    assert (tmp_path / "out.tif").exists()
    said = _log(run, "published ")
    assert [text for level, text in said if level == 30] == [
        "no page of this run: the API is away",
        "the event swath.output.published was not sent: the API is away",
    ]


def test_a_leak_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job that completed all the same; with the numbers of the leak, and no credential."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: sent.append(event))
    leak = {"bytes_per_chunk": 1024.0, "crosses_at_chunk": 9, "lines": []}
    job = {"kind": "raster", "source": "https://a:s3cr3t@h/x.tif", "destination": "/o/b.tif"}
    events.announce(Report(status="completed", exit_code=0, job=job, memory=MemoryRecord(leak=leak)), run_logger())
    ((event),) = sent
    assert event["event"] == "swath.memory.leak-suspected"
    assert event["payload"]["leak_bytes_per_chunk"] == 1024.0
    assert "s3cr3t" not in json.dumps(event)
