"""Many jobs, one budget: a ledger of tickets held by file locks, first come first served, for terminal and flows alike.

A ticket is a file: its name is its place in the queue, its content what it asks for, its owner's lock its life. Whoever
waits looks again every `_LOOK_SECONDS`; nobody needs to be told. A budget that is measured (budget.py) is measured anew then.
Memory comes first, disk when its job is planned: who has been promised disk waits for nothing more, so none wait for each other.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

from lib.errors import HostLimitError, SettingsError
from lib.units import format_bytes

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Entry:
    """A ticket: its place, what it asks for or holds in bytes, whether it is admitted, whose it is.

    Attributes:
        disk_bytes: what its job may write at most; all of it counts until the place is left, whatever is written by then.
        device: the file system that it writes to, by its number; None before that is known, and where nothing is written.
        has_disk: whether that is promised to it; else it waits for it.
    """

    number: int
    bytes: int
    admitted: bool
    pid: int
    label: str
    disk_bytes: int = 0
    device: int | None = None
    has_disk: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """What a job may write.

    Attributes:
        size_bytes: how much, at most.
        folder: where.
        device: that folder's file system, by its number.
    """

    size_bytes: int
    folder: Path
    device: int

    @classmethod
    def below(cls, folder: Path, size_bytes: int) -> Self:
        """So many bytes in a folder that is there."""
        return cls(size_bytes, folder, folder.stat().st_dev)

    @property
    def free_bytes(self) -> int:
        """What is free there now."""
        return shutil.disk_usage(self.folder).free


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

    def promise(self, disk: Disk) -> list[Entry]:
        """Ask for bytes of disk.

        They are ours where nobody who came before us waits for that file system, and what is free there has room for them
        beside all that others were promised. Where nobody was, there is nobody to wait for: our own plan decides.

        Returns:
            Those who stand before us; empty where it is promised.

        Raises:
            SettingsError: somebody holds a ticket that cannot be read.
        """
        with _locked(self.folder):
            mine = _number(Path(self.ticket.name))
            there = [each for each in _others(self.folder, {mine}) if each.device == disk.device]
            before = [each for each in there if each.has_disk or each.number < mine]
            taken = sum(each.disk_bytes for each in before if each.has_disk)
            fits = not taken or taken + disk.size_bytes <= disk.free_bytes
            is_ours = fits and all(each.has_disk for each in before)
            self._note(disk_bytes=disk.size_bytes, device=disk.device, has_disk=is_ours)
        return [] if is_ours else before

    def promised(
        self,
        disk: Disk,
        on_wait: Callable[[list[Entry]], None] | None = None,
        patience: Callable[[], None] | None = None,
    ) -> None:
        """Ask for bytes of disk until they are promised; arguments and errors as of `admitted`."""
        while before := self.promise(disk):
            if on_wait:
                on_wait(before)
                on_wait = None
            time.sleep(_LOOK_SECONDS)
            if patience:
                patience()

    def release_disk(self) -> None:
        """What was written is written, and no more of it is free; the memory stays held."""
        with _locked(self.folder):
            self._note(disk_bytes=0, device=None, has_disk=False)

    def _note(self, **changed: Any) -> None:
        if entry := _read(Path(self.ticket.name)):
            _write(self.ticket, replace(entry, **changed))


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
    _write(ticket, Entry(number, size_bytes, admitted, os.getpid(), label))
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
        others = _others(folder, ours)
        if any(not entry.admitted and entry.number < mine for entry in others):
            return False
        asked = Entry(mine, size_bytes, admitted=False, pid=os.getpid(), label=label)
        taken = sum(entry.bytes for entry in others if entry.admitted)
        if taken and taken + size_bytes > (budget if isinstance(budget, int) else budget([*others, asked])):
            return False
        _write(ticket, replace(asked, admitted=True))
        return True


def _others(folder: Path, ours: set[int]) -> list[Entry]:
    """The tickets whose owners live but for ours, by their numbers."""
    return [_readable(path) for path in _tickets(folder) if _number(path) not in ours and _is_held(path)]


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


def _write(ticket: IO[str], entry: Entry) -> None:
    ticket.seek(0)
    json.dump(asdict(entry), ticket)
    ticket.truncate()  # behind, not before: on a full disk the place that a ticket had is there for the next content
    ticket.flush()


def _read(path: Path) -> Entry | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size, admitted = int(content["bytes"]), bool(content["admitted"])
        disk, device = int(content.get("disk_bytes", 0)), content.get("device")  # an older version's ticket has none
        has_disk = bool(content.get("has_disk"))
        return Entry(_number(path), size, admitted, content["pid"], content["label"], disk, device, has_disk)
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
