"""`make up`: server, page, database, deployments, automations and a worker on this machine; Ctrl-C ends all of it.

Everything listens on the loopback interface alone. What it makes is in the state folder (lib/running.py): the database,
logs, and the file that says what is up. For a server that others use, see the guide: this is one machine's, without a password.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import psutil

from deployments import database, postgres
from deployments.main import run
from deployments.processes import end, last_lines, same, spawn
from deployments.server import check_port, is_healthy
from lib import running
from lib.errors import SwathError, UsageError
from lib.running import Running
from lib.units import format_seconds

ROOT = Path(__file__).resolve().parents[1]
_PREFECT = (sys.executable, "-m", "prefect")
_HEALTHY_SECONDS = 180.0
# Runs under way are ended with the worker; each takes its child along.
_ENDING_SECONDS = 20.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Up:
    """What this process has started, in that order, and whether it is to end."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.logs = folder / "log"
        self.ending = threading.Event()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.state = Running(os.getpid(), f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/api", "", {})

    def note(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        """Remember a child, in the file too: who comes after a `kill -9` of us looks there."""
        self.processes[name] = process
        began = psutil.Process(process.pid).create_time()
        self.tell(children=self.state.children | {name: (process.pid, began)})

    def tell(self, **changes: object) -> None:
        """Change what the file says."""
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        running.write(self.folder, self.state)

    def dead(self) -> str | None:
        """A child that has ended by itself."""
        return next((name for name, each in self.processes.items() if each.poll() is not None), None)

    def stop(self) -> None:
        """End the worker with its runs, then the server, then the database: each can say its last word to the next."""
        for name, process in reversed(self.processes.items()):
            if process.poll() is None:
                if name == "worker":
                    _end_runs(psutil.Process(process.pid))
                number = signal.SIGINT if name == "postgres" else signal.SIGTERM
                end(psutil.Process(process.pid), number, seconds=_ENDING_SECONDS)
            process.wait()


def _end_runs(worker: psutil.Process) -> None:
    """Let runs under way say that they were ended: the worker would kill them, and they would stay Running."""
    with contextlib.suppress(psutil.NoSuchProcess):
        flows = [each for each in worker.children(recursive=True) if "prefect.engine" in each.cmdline()]
        for each in flows:
            each.terminate()
        psutil.wait_procs(flows, timeout=_ENDING_SECONDS)


def main(arguments: list[str] | None = None) -> int:
    """Bring everything up and stay until it is to end; the exit code.

    Raises:
        SwathError: something does not come up, or ends by itself.
    """
    port = _port(arguments)
    folder = running.state_folder()
    with running.hold(folder) as is_free:
        if not is_free:
            return _say_up(running.last(folder), port)
        _sweep(folder)
        up = _Up(folder, port or 4200)
        for number in _SIGNALS:
            signal.signal(number, _ends(up))
        try:
            _bring_up(up)
            _stay(up)
        except _Ended:
            pass
        finally:
            say("ending worker, server and database")
            up.stop()
            running.forget(folder)
            say("down")
    return 0


class _Ended(Exception):  # noqa: N818 - no error
    """Somebody wants it to end while it comes up."""


def say(text: str) -> None:
    """A line for the operator."""
    with contextlib.suppress(BrokenPipeError):  # a closed terminal
        sys.stdout.write(f"swath: {text}\n")
        sys.stdout.flush()


def _port(arguments: list[str] | None) -> int | None:
    parser = argparse.ArgumentParser(prog="python -m deployments.up", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", default="", help="of the page and the API, default 4200; make up takes it as PORT=")
    text = parser.parse_args(arguments).port.strip()
    most = 65535
    if text and not (text.isdecimal() and 0 < int(text) <= most):
        raise UsageError(f"PORT={text} is no port", hint=f"write a number from 1 to {most}; below 1024 only root may")
    return int(text) if text else None


def _say_up(up: Running | None, port: int | None) -> int:
    if up is None:
        say("another `make up` has just begun")
        return 0
    if not up.ready:
        say(f"another `make up` (process {up.pid}) is bringing it up at {up.ui}")
        return 0
    if port and up.ui != f"http://127.0.0.1:{port}":
        raise SwathError(f"it is up already at {up.ui}, not on port {port}", hint="`make down` first, then again")
    say(f"it is up already: page {up.ui}, API {up.api}, {up.database} (process {up.pid}); `make down` ends it")
    return 0


def _sweep(folder: Path) -> None:
    """End what a killed `make up` has left; a process that only has its id by now is none of ours."""
    if left := running.last(folder):
        for name, (pid, began) in reversed(left.children.items()):
            if process := same(pid, began):
                say(f"ending {name} (process {pid}), left by a `make up` that was killed")
                end(process, signal.SIGINT if name == "postgres" else signal.SIGTERM, seconds=_ENDING_SECONDS)
        running.forget(folder)


def _ends(up: _Up) -> Callable[[int, FrameType | None], None]:
    def hear(_number: int, _frame: FrameType | None) -> None:
        up.ending.set()

    return hear


def _bring_up(up: _Up) -> None:
    began = time.monotonic()
    check_port(up.port)
    up.logs.mkdir(parents=True, exist_ok=True)
    address = _database(up)
    environment = server_environment(address, up.state.api)
    words = ("server", "start", "--host", "127.0.0.1", "--port", str(up.port))
    up.note("server", spawn([*_PREFECT, *words], up.logs / "server.log", environment, folder=ROOT))
    _wait(up, lambda: is_healthy(up.state.api), "server", _HEALTHY_SECONDS)
    say(f"the server is healthy after {format_seconds(time.monotonic() - began)}")

    client = client_environment(up.state.api)
    log = up.logs / "apply.log"
    up.note("apply", spawn([sys.executable, "-m", "deployments.apply"], log, client, folder=ROOT))
    worker = ("worker", "start", "--pool", "default", "--type", "process", "--name", "up")
    _wait(up, lambda: up.processes["apply"].poll() is not None, "apply", _HEALTHY_SECONDS)
    if up.processes.pop("apply").returncode:
        raise SwathError(log.read_text(encoding="utf-8").strip().removeprefix("swath: "), hint=f"see {up.logs}")
    say(log.read_text(encoding="utf-8").strip().removeprefix("swath: "))
    up.note("worker", spawn([*_PREFECT, *worker], up.logs / "worker.log", client, folder=ROOT))
    _wait(up, lambda: _polls(up.logs / "worker.log"), "worker", _HEALTHY_SECONDS)
    up.tell(ready=True)
    say(f"up after {format_seconds(time.monotonic() - began)}: page {up.state.ui}, API {up.state.api}, logs {up.logs}")
    say("Ctrl-C ends all of it, or `make down` from another shell")


def _polls(log: Path) -> bool:
    return b"started!" in log.read_bytes()


def _wait(up: _Up, condition: Callable[[], bool], name: str, seconds: float) -> None:
    """Wait for what a child is to do.

    Raises:
        SwathError: one of them ended, or it takes too long.
        _Ended: somebody wants it to end.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if up.ending.wait(0.1):
            raise _Ended
        dead = up.dead()
        if (dead and dead != "apply") or time.monotonic() > deadline:
            log = up.logs / f"{dead or name}.log"
            what = f"the {dead} has ended" if dead else f"the {name} is not ready after {format_seconds(seconds)}"
            raise SwathError(what, hint=f"see {log}, which ends with", traceback=last_lines(log))


def _stay(up: _Up) -> None:
    """Until somebody ends it.

    Raises:
        SwathError: the server, the worker or the database has ended by itself.
    """
    while not up.ending.wait(0.5):
        if dead := up.dead():
            log = up.folder / "postgresql" / "postgres.log" if dead == "postgres" else up.logs / f"{dead}.log"
            code = up.processes[dead].returncode
            raise SwathError(f"the {dead} has ended by itself (exit {code}); see {log}", hint="run `make up` again")


def _database(up: _Up) -> str:
    """The address of the server's database, which answers."""
    if named := database.named():
        name, address = named
        database.check(address, name)
        up.tell(database=database.shown_address(address))
        say(f"database: {up.state.database} ({name})")
        if not database.is_postgres(address):
            say(_SQLITE_COSTS)
        return address
    if cluster := postgres.find_cluster(up.folder):
        say(f"database: {cluster.words}")
        up.tell(database=cluster.words)
        up.note("postgres", postgres.start(cluster, up.ending.is_set))
        if up.ending.is_set():
            raise _Ended
        database.check(cluster.address, "its own")
        return cluster.address
    address = database.sqlite_address(up.folder)
    database.check(address, "its own")
    up.tell(database=database.shown_address(address))
    say(f"database: {up.state.database}, as PostgreSQL's programs are not installed")
    say(_SQLITE_COSTS)
    return address


_SQLITE_COSTS = (
    "SQLite lets one write at a time: many runs submitted at once wait for each other, and a click in the page may answer "
    '"database is locked" and want to be repeated; install postgresql, or name one by DATABASE_URL'
)


def server_environment(address: str, api: str) -> dict[str, str]:
    """What the server needs: its database, and the address at which its page finds the API (else it calls port 4200)."""
    return os.environ | {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": address,
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_UI_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
    }


def client_environment(api: str) -> dict[str, str]:
    """What worker and deployer need: the API, patience with it (2 + 4 + … + 256 s), no port that others can reach."""
    password = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    authorised = {"PREFECT_API_AUTH_STRING": password} if password else {}
    return (
        os.environ
        | authorised
        | {
            "PREFECT_API_URL": api,
            "PREFECT_CLIENT_MAX_RETRIES": "8",
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "2"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
    )


if __name__ == "__main__":
    run(main)
