"""What `make up` says of itself: an address in a file, true while a lock is held. `deployments` writes it, flows read it.

The lock dies with its holder, so a file that a killed one left is known to be stale, whoever has its process id by now.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_LOCK = "up.lock"
_FILE = "up.json"


@dataclass(frozen=True, slots=True)
class Running:
    """What is up.

    Attributes:
        pid: the process that ends all of it on SIGTERM.
        ui: address of the page.
        api: address of the API, as PREFECT_API_URL takes it.
        database: what its runs are kept in, in words without a password.
        children: process ids with their start times, seconds since the epoch.
        ready: whether the server has answered and the deployments are applied.
    """

    pid: int
    ui: str
    api: str
    database: str
    children: dict[str, tuple[int, float]]
    ready: bool = False


def state_folder() -> Path:
    """Where `make up` keeps what it makes: XDG_STATE_HOME/swath, else ~/.local/state/swath."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state").absolute() / "swath"


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Be the one that is up: yields whether the lock was free. It is released on the way out, or by the kernel."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def write(folder: Path, running: Running) -> None:
    """Say what is up, whole or not at all."""
    staged = folder / f"{_FILE}.{os.getpid()}"
    staged.write_text(json.dumps(asdict(running)), encoding="utf-8")
    staged.replace(folder / _FILE)


def forget(folder: Path) -> None:
    """Nothing is up any more."""
    (folder / _FILE).unlink(missing_ok=True)


def last(folder: Path) -> Running | None:
    """What the file says, be it up or not; None where it says nothing."""
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        found["children"] = {name: (int(pid), float(began)) for name, (pid, began) in found["children"].items()}
        return Running(**found)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def running(folder: Path | None = None) -> Running | None:
    """What is up now, for the user who asks; None where nothing is."""
    folder = folder or state_folder()
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return last(folder)
    except OSError:
        return None
    return None
