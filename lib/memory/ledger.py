"""Many jobs, one budget: a ledger of tickets held by file locks, first come first served, for terminal and flows alike.

A ticket is a file: its name is its place in the queue, its content what it asks for, its owner's lock its life. Whoever
waits looks again every `_LOOK_SECONDS`; nobody needs to be told. A budget that is measured (budget.py) is measured anew then.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lib.errors import HostLimitError, SettingsError
from lib.units import format_bytes

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Entry:
    """A ticket: its place, what it asks for or holds in bytes, whether it is admitted, whose it is."""

    number: int
    bytes: int
    admitted: bool
    pid: int
    label: str


@dataclass(slots=True)
class Place:
    """A place in the ledger that is held until it is left.

    Attributes:
        folder: the ledger's.
        ticket: the file, locked.
        size_bytes: what it holds.
    """

    folder: Path
    ticket: IO[str]
    size_bytes: int

    def leave(self) -> None:
        """Give it up."""
        if self.ticket.closed:
            return
        with _locked(self.folder):  # or it would be gone between another's two looks at it
            Path(self.ticket.name).unlink(missing_ok=True)
        self.ticket.close()


@contextlib.contextmanager
def admission(
    folder: Path,
    size_bytes: int,
    budget: int | Callable[[Sequence[Entry]], int],
    label: str,
    on_wait: Callable[[list[Entry]], None] | None = None,
) -> Iterator[None]:
    """Hold `size_bytes` of the budget meanwhile; see `admitted`."""
    place = admitted(folder, size_bytes, budget, label, on_wait)
    try:
        yield
    finally:
        place.leave()


def admitted(
    folder: Path,
    size_bytes: int,
    budget: int | Callable[[Sequence[Entry]], int],
    label: str,
    on_wait: Callable[[list[Entry]], None] | None = None,
    *,
    instead_of: Place | None = None,
    patience: Callable[[], None] | None = None,
) -> Place:
    """A place for `size_bytes` of the budget; waits until all who came before are admitted and there is room.

    Where no other job is admitted there is nobody to wait for: the job was granted what the host left.

    Args:
        folder: the ledger's folder; made where missing.
        size_bytes: what to hold.
        budget: the host's budget in bytes, which all jobs share, or what measures it from all tickets, ours among them.
        label: what an operator reads in the ledger.
        on_wait: called once with those who stand before us, where we have to wait.
        instead_of: a place of ours that is left for this one: at once where there is room, else when `on_wait` has been called,
            which lets go of what it was for.
        patience: called before each further look; what it raises ends the waiting.

    Raises:
        HostLimitError: `size_bytes` is more than the whole budget: it would wait for ever.
        SettingsError: the folder cannot be used, or somebody holds a ticket in it that cannot be read.
    """
    if isinstance(budget, int) and size_bytes > budget:
        raise HostLimitError(
            f"{label}: {format_bytes(size_bytes)} is above host_budget_mb ({format_bytes(budget)})",
            budget_bytes=budget,
            limit_bytes=size_bytes,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = Place(folder, _draw(folder, size_bytes, label), size_bytes)
    except OSError as error:
        raise SettingsError(
            f"ledger_path {folder} cannot be used: {error.strerror}",
            hint="name a folder that this user can write, or set host_budget_mb to off: jobs then do not wait for each other",
            key="ledger_path",
        ) from error
    try:
        ticket, left = place.ticket, instead_of
        while not _admit(folder, ticket, size_bytes, budget, label, left):
            if on_wait:
                on_wait([entry for entry in entries(folder) if entry.number < _number(Path(ticket.name))])
                on_wait = None
            if left:
                left.leave()
                left = None
            time.sleep(_LOOK_SECONDS)
            if patience:
                patience()
        if left:
            left.leave()
    except BaseException:
        place.leave()
        raise
    return place


def divided(place: Place, sizes_bytes: Sequence[int]) -> list[Place]:
    """Places of those sizes instead of one that holds as much or more; nobody is admitted between."""
    with _locked(place.folder):
        label = entry.label if (entry := _read(Path(place.ticket.name))) else ""
        places = [Place(place.folder, _next(place.folder, size, label, admitted=True), size) for size in sizes_bytes]
        Path(place.ticket.name).unlink(missing_ok=True)
    place.ticket.close()
    return places


def entries(folder: Path) -> list[Entry]:
    """The tickets whose owners live, in their order."""
    return [entry for path in _tickets(folder) if _is_held(path) and (entry := _read(path))]


def _draw(folder: Path, size_bytes: int, label: str) -> IO[str]:
    """A new ticket behind all others, locked before anyone can see that it is there."""
    with _locked(folder):
        for path in _tickets(folder):
            if not _is_held(path):
                path.unlink(missing_ok=True)
        return _next(folder, size_bytes, label, admitted=False)


def _next(folder: Path, size_bytes: int, label: str, *, admitted: bool) -> IO[str]:
    number = max((_number(path) for path in _tickets(folder)), default=0) + 1
    ticket = (folder / f"{number}.ticket").open("w+", encoding="utf-8")
    fcntl.flock(ticket, fcntl.LOCK_EX)
    _write(ticket, size_bytes, admitted=admitted, label=label)
    return ticket


def _admit(
    folder: Path,
    ticket: IO[str],
    size_bytes: int,
    budget: int | Callable[[Sequence[Entry]], int],
    label: str,
    left: Place | None,
) -> bool:
    """Whether there is room, and nobody before us waits; `left` is a place of ours that is none of the others'."""
    with _locked(folder):
        mine = _number(Path(ticket.name))
        ours = {mine} if left is None else {mine, _number(Path(left.ticket.name))}
        others = [_readable(path) for path in _tickets(folder) if _number(path) not in ours and _is_held(path)]
        if any(not entry.admitted and entry.number < mine for entry in others):
            return False
        if taken := sum(entry.bytes for entry in others if entry.admitted):
            asked = Entry(mine, size_bytes, admitted=False, pid=os.getpid(), label=label)
            if taken + size_bytes > (budget if isinstance(budget, int) else budget([*others, asked])):
                return False
        _write(ticket, size_bytes, admitted=True, label=label)
        return True


def _readable(path: Path) -> Entry:
    """A ticket that is held; under the ledger's lock nobody is just writing it."""
    entry = _read(path)
    if entry is None:
        raise SettingsError(
            f"ledger_path: {path} is held but cannot be read, so that nobody knows how much of the budget it takes",
            hint="end whoever holds it, or remove it if it is no ticket of swath's",
            key="ledger_path",
        )
    return entry


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The ledger itself, for the moment of one reading and writing."""
    with (folder / "ledger.lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(ticket: IO[str], size_bytes: int, *, admitted: bool, label: str) -> None:
    ticket.seek(0)
    ticket.truncate()
    json.dump({"bytes": size_bytes, "admitted": admitted, "pid": os.getpid(), "label": label}, ticket)
    ticket.flush()


def _read(path: Path) -> Entry | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size, admitted = int(content["bytes"]), bool(content["admitted"])
        return Entry(_number(path), size, admitted, content["pid"], content["label"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tickets(folder: Path) -> list[Path]:
    # isdigit alone takes "²" for a digit, which int does not.
    return sorted(
        (path for path in folder.glob("*.ticket") if path.stem.isascii() and path.stem.isdigit()), key=_number
    )


def _number(path: Path) -> int:
    return int(path.stem)


def _is_held(path: Path) -> bool:
    try:
        with path.open("r", encoding="utf-8") as ticket:
            fcntl.flock(ticket, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # locked; or it cannot be looked at, which does not say that its owner is dead
        return True
    return False
