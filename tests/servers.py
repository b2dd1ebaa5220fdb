"""A real Prefect server with the repository's deployments and a real process worker, on loopback, in processes of their own."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient

_ROOT = Path(__file__).resolve().parents[1]
_PREFECT = [sys.executable, "-m", "prefect"]


def until(condition: Callable[[], Any], *, seconds: float = 120, what: str) -> Any:
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
        until(self._is_healthy, what="the server answers")
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

    def run(self, deployment: str = "transform-raster/ad-hoc", **parameters: Any) -> UUID:
        """Start a run of a deployment, as the UI does."""
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def state(self, run: UUID) -> str:
        """The name of a run's state."""
        return str(self.client.read_flow_run(run).state_name)

    def wait_for(self, run: UUID, *names: str) -> str:
        """Wait until a run's state has one of these names."""

        def ended() -> str | None:
            name = self.state(run)
            return name if name in names else None

        return str(until(ended, what=f"run {run} is one of {names}"))

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

        return until(find, what=f"a capped child of kind {kind}")

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
