"""A real server and a real process worker on loopback: what cancelling and killing leave behind, which must be nothing."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.states import Cancelling

from lib.publish import find_leftovers

# One worker of pytest-xdist for the whole module: one server, and a count of processes that nobody else disturbs.
pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

_ROOT = Path(__file__).resolve().parents[2]
_PREFECT = [sys.executable, "-m", "prefect"]
_DEPLOYMENT = "ad-hoc"


def _until(condition: Callable[[], Any], *, seconds: float = 120, what: str) -> Any:
    """The condition's first true value; other processes decide when, so it is asked ten times a second."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.1)
    return value


class Prefect:
    """A server with the repository's deployments, and a worker of its pool."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = os.environ | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        self.home = home
        self._ends = contextlib.ExitStack()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._start("server", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        _until(self._is_healthy, what="the server answers")
        self._call("work-pool", "create", "default", "--type", "process")
        self._call("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        self.worker = self._start("worker", "worker", "start", "--pool", "default", "--type", "process")
        self.client = self._ends.enter_context(SyncPrefectClient(self.url))

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _start(self, name: str, *arguments: str) -> psutil.Process:
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*_PREFECT, *arguments], cwd=_ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        return psutil.Process(process.pid)

    def _call(self, *arguments: str) -> None:
        done = subprocess.run(
            [*_PREFECT, *arguments],
            cwd=_ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, **parameters: Any) -> UUID:
        """Start a run of the raster deployment, as the UI does."""
        deployment = self.client.read_deployment_by_name(f"transform-raster/{_DEPLOYMENT}")
        return self.client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def state(self, run: UUID) -> str:
        """The name of a run's state."""
        return str(self.client.read_flow_run(run).state_name)

    def wait_for(self, run: UUID, *names: str) -> str:
        """Wait until a run's state has one of these names."""

        def ended() -> str | None:
            name = self.state(run)
            return name if name in names else None

        return str(_until(ended, what=f"run {run} is one of {names}"))

    def child(self, kind: str) -> psutil.Process:
        """Wait for the capped child of a job kind, below the worker."""

        def find() -> psutil.Process | None:
            for process in self.worker.children(recursive=True):
                try:
                    words = process.cmdline()
                except psutil.NoSuchProcess:
                    continue
                if "lib.memory.child" in words and kind in words:
                    return process
            return None

        return _until(find, what=f"a capped child of kind {kind}")

    def stop(self) -> None:
        """End the worker, then the server: those that were started here, by their ids."""
        self._ends.close()
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """The server and the worker, once for this module."""
    running = Prefect(tmp_path_factory.mktemp("prefect"))
    yield running
    running.stop()


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
    _until((staged / "out.tif").exists, what="the child writes its staged file")
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
    _until(lambda: find_leftovers(destination.parent) == [], seconds=30, what="the staging folder is gone")
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    pages = {each.key: each.data for each in prefect.client.read_artifacts(artifact_filter=of_run)}
    assert pages["raster-memory"].startswith("# Raster job cancelled\n")


def test_a_killed_flow_process_leaves_no_child_and_the_next_run_sweeps(prefect: Prefect, slow: dict[str, Any]) -> None:
    """After kill -9 of the flow's process its child is dead, the run Crashed, and the next run sweeps what was staged."""
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
