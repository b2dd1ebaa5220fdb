"""Real Prefect servers with the repository's deployments and a real process worker, on loopback, in processes of their own.

`Prefect` starts each by itself, on SQLite; `Up` is `make up`, on a PostgreSQL cluster of its own.
"""

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State

_ROOT = Path(__file__).resolve().parents[1]
_PREFECT = [sys.executable, "-m", "prefect"]
_UP = [sys.executable, "-m", "deployments.up"]


def until(condition: Callable[[], Any], *, seconds: float = 120, what: str) -> Any:
    """The condition's first true value; other processes decide when, so it is asked ten times a second."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.1)
    return value


def free_port() -> int:
    """A port of the kernel's choosing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Api:
    """What tests ask and tell a server, as its page does."""

    url: str
    client: SyncPrefectClient

    def is_healthy(self) -> bool:
        """Whether the server answers."""
        try:
            return httpx.get(f"{self.url}/health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def run(self, deployment: str = "transform-raster/ad-hoc", **parameters: Any) -> UUID:
        """Start a run of a deployment, as the UI does."""
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def state(self, run: UUID) -> str:
        """The name of a run's state."""
        return str(self.client.read_flow_run(run).state_name)

    def wait_for(self, run: UUID, *names: str, seconds: float = 120) -> str:
        """Wait until a run's state has one of these names."""

        def ended() -> str | None:
            name = self.state(run)
            return name if name in names else None

        return str(until(ended, seconds=seconds, what=f"run {run} is one of {names}"))

    def end_of(self, run: UUID, *, seconds: float = 240) -> State[Any]:
        """Wait until a run has ended; its last state."""

        def final() -> State[Any] | None:
            state = self.client.read_flow_run(run).state
            return state if state and state.is_final() else None

        found: State[Any] = until(final, seconds=seconds, what=f"run {run} has ended")
        return found


class Listener(http.server.ThreadingHTTPServer):
    """Takes what is posted to it, on loopback."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        heard = self.heard

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                words = self.rfile.read(int(self.headers["Content-Length"]))
                heard.append(json.loads(words) | {"content_type": self.headers["Content-Type"]})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}/alerts"


class Prefect(Api):
    """A server with the repository's deployments, and a worker of its pool."""

    def __init__(self, home: Path, **environment: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = os.environ | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            **environment,
        }
        self.home = home
        self._ends = contextlib.ExitStack()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.port = port
        try:
            self.server = self.start_server()
            self._call("work-pool", "create", "default", "--type", "process")
            self._call("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
            self.worker = self.start_worker()
        except BaseException:
            self.stop()
            raise
        self.client = self._ends.enter_context(SyncPrefectClient(self.url))

    def start_server(self) -> psutil.Process:
        """Start the server, and wait until it answers."""
        server = self._start("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        until(self.is_healthy, seconds=240, what="the server answers")
        return server

    def start_worker(self) -> psutil.Process:
        """Start a worker of the pool."""
        return self._start("worker", "worker", "start", "--pool", "default", "--type", "process")

    def _start(self, name: str, *arguments: str) -> psutil.Process:
        with (self.home / f"{name}.log").open("ab") as log:
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


class Up(Api):
    """`make up` in a state folder of its own, which user `postgres` can reach where the tests run as root."""

    def __init__(self, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="swath-up-"))
        self.folder.chmod(0o711)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = os.environ | {
            "XDG_STATE_HOME": str(self.folder / "state"),
            "PREFECT_HOME": str(self.folder / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            **environment,
        }
        self.log = self.folder / "up.log"
        self._ends = contextlib.ExitStack()
        self.process = self.start()
        self.client = self._ends.enter_context(SyncPrefectClient(self.url))

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it, and wait until it says that it is up."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [*_UP, "--port", str(self.port)], cwd=_ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        until(lambda: process.poll() is not None or "Ctrl-C" in self.said(), seconds=240, what="make up is up")
        assert process.poll() is None, self.said()
        return process

    def said(self) -> str:
        """What it has said."""
        return self.log.read_text(encoding="utf-8")

    def call(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Another command of an operator, in the same environment."""
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=_ROOT,
            env=self.environment | {"PREFECT_API_URL": self.url},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def tree(self) -> list[psutil.Process]:
        """Its processes, all that it has started among them."""
        return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]

    def children(self) -> dict[str, int]:
        """What it says of its children: name → process id."""
        found = json.loads((self.folder / "state" / "swath" / "up.json").read_text(encoding="utf-8"))
        return {name: pid for name, (pid, _) in found["children"].items()}

    def stop(self) -> None:
        """End it, as Ctrl-C does, and remove its folder."""
        self._ends.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(90)
        shutil.rmtree(self.folder, ignore_errors=True)
