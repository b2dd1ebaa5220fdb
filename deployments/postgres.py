"""A PostgreSQL cluster of its own for `make up`: made once in the state folder, reached by a socket that is its owner's.

PostgreSQL refuses to run as root: then it runs as the user `postgres`, and where that user cannot reach the state folder, in
/var/lib/swath. Clusters of the machine's own are never touched.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployments.processes import as_user, last_lines, spawn
from lib.errors import SwathError

_SYSTEM_USER = "postgres"
_SYSTEM_FOLDER = Path("/var/lib/swath")
_DATABASE = "prefect"
# A path of sockaddr_un holds 107 bytes; the socket's own name takes 16.
_LONGEST_SOCKET_FOLDER = 90
_START_SECONDS = 60.0
_COMMAND_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is not yet running.

    Attributes:
        folder: holds `data` and `postgres.log`.
        programs: where initdb, postgres and createdb are.
        user: the user that it runs as; None: ours.
    """

    folder: Path
    programs: Path
    user: str | None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def sockets(self) -> Path:
        """Where its socket is: in the folder, or in a short one of the same owner where that path is too long."""
        beside = self.folder / "run"
        if len(os.fsencode(beside)) <= _LONGEST_SOCKET_FOLDER:
            return beside
        return Path(tempfile.gettempdir()) / f"swath-postgresql-{self.folder.stat().st_uid}"

    @property
    def address(self) -> str:
        """The address of its database, as Prefect takes it; there is no password, as only the owner can reach the socket."""
        return f"postgresql+asyncpg://{_DATABASE}@/{_DATABASE}?host={self.sockets}"

    @property
    def words(self) -> str:
        """What it is, for people."""
        owner = f", as user {self.user}" if self.user else ""
        return f"PostgreSQL {_version(self.programs)}, a cluster of its own in {self.folder}{owner}"


def find_programs(data: Path | None = None) -> Path | None:
    """The folder of PostgreSQL's newest programs, or of those that made a data directory; None where there are none.

    Raises:
        SwathError: the data directory is of a version whose programs are not installed.
    """
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve().parent)
    usable = {_version(each): each for each in found if (each / "postgres").exists()}
    if data and (data / "PG_VERSION").is_file():
        made_by = (data / "PG_VERSION").read_text(encoding="ascii").strip()
        if made_by not in usable:
            raise SwathError(
                f"{data} is of PostgreSQL {made_by}, whose programs are not installed",
                hint=f"install postgresql-{made_by}, or dump it and move the folder away",
            )
        return usable[made_by]
    return usable[max(usable, key=int)] if usable else None


def _version(programs: Path) -> str:
    said = subprocess.run([programs / "initdb", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+", said)
    return found[0] if found else "0"


def find_cluster(state: Path) -> Cluster | None:
    """The cluster of a state folder, made or to be made; None where PostgreSQL cannot be run here."""
    user = None
    folder = state / "postgresql"
    if os.geteuid() == 0:
        user = _SYSTEM_USER
        try:
            pwd.getpwnam(user)
        except KeyError:
            return None
        state.mkdir(parents=True, exist_ok=True)
        if not _can_reach(state, user):
            folder = _SYSTEM_FOLDER / "postgresql"
    programs = find_programs(folder / "data")
    return None if programs is None else Cluster(folder, programs, user)


def _can_reach(folder: Path, user: str) -> bool:
    return subprocess.call(["test", "-x", folder], **as_user(user)) == 0


def start(cluster: Cluster, stopped: Callable[[], bool]) -> "subprocess.Popen[bytes]":
    """Start the cluster, which is made first where there is none, and wait until it answers.

    Raises:
        SwathError: it does not come up.
    """
    for folder in (cluster.folder, cluster.sockets):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cluster.user:
            shutil.chown(folder, cluster.user, pwd.getpwnam(cluster.user).pw_gid)
    if not cluster.data.exists():
        _make(cluster)
    log = cluster.folder / "postgres.log"
    command: list[str | Path] = [
        cluster.programs / "postgres",
        "-D",
        cluster.data,
        "-k",
        cluster.sockets,
        "-c",
        "listen_addresses=",
    ]
    process = spawn(
        command, log, os.environ, last_signal=signal.SIGINT, user=cluster.user, folder=cluster.folder
    )  # SIGINT is its fast shutdown: SIGTERM waits for clients to leave
    deadline = time.monotonic() + _START_SECONDS
    while _call(cluster, "pg_isready", "-q", "-h", cluster.sockets).returncode:
        if process.poll() is not None or time.monotonic() > deadline or stopped():
            raise SwathError(
                f"{cluster.words}, does not come up",
                hint=f"mend what {log} says, or name another database by DATABASE_URL; it ends with",
                traceback=last_lines(log),
            )
        time.sleep(0.1)
    has = _call(cluster, "psql", "-h", cluster.sockets, "-U", _DATABASE, "-d", _DATABASE, "-c", "")
    if has.returncode:
        _must(cluster, "createdb", "-h", cluster.sockets, "-U", _DATABASE, _DATABASE)
    return process


def _make(cluster: Cluster) -> None:
    """Make the data directory under another name first, so that one which is there is whole."""
    staged = cluster.folder / "data.new"
    shutil.rmtree(staged, ignore_errors=True)
    _must(cluster, "initdb", "-D", staged, "-U", _DATABASE, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
    staged.rename(cluster.data)


def _call(cluster: Cluster, program: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [cluster.programs / program, *arguments],
        cwd=cluster.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_SECONDS,
        **as_user(cluster.user),
    )
    return done


def _must(cluster: Cluster, program: str, *arguments: str | Path) -> None:
    done = _call(cluster, program, *arguments)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise SwathError(
            f"{program} failed in {cluster.folder}: {said}",
            hint="mend what it says, or name another database by DATABASE_URL",
        )
