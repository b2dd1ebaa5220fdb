"""A real server and a real process worker on loopback: what cancelling and killing leave behind, which must be nothing."""

import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.states import Cancelling

from lib.publish import find_leftovers
from tests.servers import Prefect, until

# One worker of pytest-xdist for this module and two more: one server, and a count of processes that nobody else disturbs.
pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]


@pytest.fixture
def slow(raster: Path, tmp_path: Path) -> dict[str, Any]:
    """Parameters of a run that takes minutes."""
    return {
        "source": str(raster),
        "destination": str(tmp_path / "out.tif"),
        "operation": "custom",
        "function": "tests.flows.functions:linger",
        "memory_limit_mb": 512,
        "profile": False,
    }


def _started(prefect: Prefect, slow: dict[str, Any]) -> tuple[UUID, psutil.Process]:
    """A slow run whose child has begun to write."""
    run = prefect.run(**slow)
    child = prefect.child("raster")
    staged = Path(slow["destination"]).parent / ".out.tif.swath"
    until((staged / "out.tif").exists, what="the child writes its staged file")
    return run, child


def test_a_cancelled_run_leaves_nothing_but_its_artifact(prefect: Prefect, slow: dict[str, Any]) -> None:
    """Cancelling from the UI ends the child, the staging folder and the run, as Prefect's own Cancelled; the memory is shown."""
    destination = Path(slow["destination"])
    run, child = _started(prefect, slow)
    prefect.client.set_flow_run_state(run, Cancelling())
    assert prefect.wait_for(run, "Cancelled", "Crashed", "Failed", "Completed") == "Cancelled"
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone == [child]
    assert not destination.exists()
    until(lambda: find_leftovers(destination.parent) == [], seconds=30, what="the staging folder is gone")
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    pages = {str(each.key): each.data for each in prefect.client.read_artifacts(artifact_filter=of_run)}
    (page,) = (data for key, data in pages.items() if not key.endswith("-allocators"))
    assert min(pages).startswith("raster-ad-hoc-small-")
    assert page.startswith("# Cancelled: ")


def test_a_killed_flow_process_leaves_no_child_and_the_next_run_sweeps(prefect: Prefect, slow: dict[str, Any]) -> None:
    """After kill -9 of the flow's process its child is dead, the run Crashed; the next run sweeps its folder and tells of it."""
    destination = Path(slow["destination"])
    run, child = _started(prefect, slow)
    owner = child.parent()
    assert owner is not None
    assert owner.pid not in {os.getpid(), prefect.worker.pid}
    os.kill(owner.pid, signal.SIGKILL)
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone == [child]
    assert prefect.wait_for(run, "Crashed", "Failed", "Completed") == "Crashed"
    (leftover,) = find_leftovers(destination.parent)
    assert leftover.dead
    again = prefect.run(
        source=slow["source"], destination=slow["destination"], memory_limit_mb=512, profile=False, verify="basic"
    )
    assert prefect.wait_for(again, "Completed", "Failed", "Crashed") == "Completed"
    assert destination.exists()
    assert find_leftovers(destination.parent) == []
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[again]))
    told = [each.message for each in prefect.client.read_logs(of_run) if "was interrupted" in each.message]
    assert [f"({run})" in message for message in told] == [True]
    assert f"raster job of small.tif in flow run {prefect.client.read_flow_run(run).name}" in told[0]
