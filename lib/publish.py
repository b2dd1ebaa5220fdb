"""The one publisher: a staging folder beside the destination, an owner's lock, then fsync and rename. Needs no GIS library.

The folder `.<name>.swath/` belongs to whoever holds the lock on its `owner` file; a dead owner's is swept. Another host's
(a shared disk) is left alone, as its lock cannot be seen from here with certainty; `clean` removes it by age.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import DestinationBusy, DestinationError, DiskRefused, OutputError
from lib.paths import check_exists, is_local, is_local_output, is_text
from lib.resume import ASIDE, BESIDE, finished
from lib.underway import Unfinished, unfinished

_OWNER = "owner"
# What a former file at the destination leaves beside it: readers would take it for the new file's.
_SIDECARS = (".aux.xml", ".msk", ".ovr", ".msk.ovr")
# World files of pictures, by the picture's extension: GDAL prefers them to `.aux.xml`. A `.wld` may be another file's.
_WORLD_FILES = {".png": (".pgw", ".pngw"), ".jpg": (".jgw", ".jpgw"), ".jpeg": (".jgw", ".jpegw")}
_ANYBODYS_WORLD_FILE = ".wld"
# Of a dataset that is several files, by the extension of the one that is named: those with the same stem.
_PARTS = {
    ".shp": (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".qpj", ".idm", ".ind", ".shp.xml"),
}
# SQLite would replay these into the new database.
_LIVE = ("-wal", "-journal")
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Staging:
    """A staging folder that this process owns.

    Attributes:
        folder: the folder beside the destination.
        path: where the child writes; same name, hence same extension, as the destination.
        destination: what `publish` replaces.
        overwrite: whether an existing destination may be replaced.
        unfinished: the job whose leftovers were swept for this one; None where there were none.
    """

    folder: Path
    path: Path
    destination: Path
    overwrite: bool
    unfinished: Unfinished | None = None

    def publish(self) -> int:
        """Move the staged file to the destination: fsync, mode, rename, fsync of the folder.

        Sidecars of a file that is replaced go first, into the staging folder. Those that were staged beside the file come next,
        and the file last: all together is not atomic. Where we fail or are killed before, new ones go and old ones come back.

        Returns:
            The size of what was published, bytes.

        Raises:
            OutputError: where the staged file is gone or the disk refuses.
            DestinationError: where somebody else created the destination meanwhile, or a sidecar of it is in the way.
        """
        try:
            size = self._to_disk(self.path, _mode(self.destination))
            _check_not_live(self.destination)
            try:
                self._place_sidecars()
                if self.overwrite:
                    self.path.replace(self.destination)
                else:
                    _rename_new(self.path, self.destination)
            except OSError:
                _bring_back(self.folder)
                raise
            _sync(self.destination.parent)
        except FileExistsError as error:
            raise DestinationError(f"destination {self.destination} appeared while the job ran") from error
        except OSError as error:
            raise OutputError(
                f"cannot publish {self.destination}: {error.strerror}", hint="check the rights and the free space there"
            ) from error
        return size

    def _to_disk(self, path: Path, mode: int) -> int:
        """Bring a staged file to the disk with the mode that it will have; its size in bytes."""
        with path.open("r+b") as staged:
            os.fchmod(staged.fileno(), mode)
            os.fsync(staged.fileno())
            return os.fstat(staged.fileno()).st_size

    def _place_sidecars(self) -> None:
        if not self.overwrite and os.path.lexists(self.destination):
            raise FileExistsError(self.destination)
        old, new = sidecars(self.destination), sidecars(self.path)
        if self.overwrite and old:
            aside = self.folder / ASIDE
            aside.mkdir(exist_ok=True)
            for sidecar in old:
                sidecar.rename(aside / sidecar.name)
        elif new and old:
            raise DestinationError(
                f"{old[0]} is in the way: it would be read along with the output", hint="move it away"
            )
        if new:
            beside = self.folder / BESIDE  # says, after a kill, that what is at the destination is ours
            beside.mkdir(exist_ok=True)
            for sidecar in new:
                staged = sidecar.rename(beside / sidecar.name)
                placed = _link_or_copy(staged, self.destination.with_name(sidecar.name))
                self._to_disk(placed, _mode(self.destination))
        _sync(self.destination.parent)


def _bring_back(folder: Path) -> None:
    """Where a destination was not replaced (what was staged is still there), undo what was done to its sidecars."""
    name = folder.name.removeprefix(".").removesuffix(".swath")
    staged, destination = folder / name, folder.parent / name
    if not staged.exists() or (destination.exists() and destination.samefile(staged)):
        return
    for placed in _entries(folder / BESIDE):
        (folder.parent / placed.name).unlink(missing_ok=True)
    for sidecar in _entries(folder / ASIDE):
        if not (there := folder.parent / sidecar.name).exists():
            sidecar.rename(there)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sidecars(destination: Path) -> list[Path]:
    """Files beside the destination that GDAL reads along with it."""
    beside = [destination.with_name(destination.name + suffix) for suffix in _SIDECARS]
    parts = _PARTS.get(destination.suffix.lower(), ()) + _WORLD_FILES.get(destination.suffix.lower(), ())
    beside += [destination.with_suffix(each) for suffix in parts for each in dict.fromkeys((suffix, suffix.upper()))]
    return [path for path in beside if path.is_file()]


def _in_the_way(beside: list[Path]) -> str:
    return f"{', '.join(map(str, beside))} is in the way: it would be read along with the output"


def _check_not_live(destination: Path) -> None:
    for suffix in _LIVE:
        log = destination.with_name(destination.name + suffix)
        if log.is_file() and log.stat().st_size:
            raise DestinationError(
                f"destination {destination} has a log beside it ({log.name}): a program has it open, or died while it wrote",
                hint="end that program, or open and close the file once with it, then run again",
            )


def check_destination(destination: str, source: str | None, *, overwrite: bool) -> Path:
    """The destination as an absolute path, known to be usable.

    Raises:
        SourceError: the source is a local path that does not exist.
        DestinationError: it exists without `overwrite`, is a folder, equals the source, or its folder is missing or not writable.
    """
    if not is_local_output(destination):
        raise DestinationError(
            f"destination {destination} is not a local path", hint="write to a local path, then copy it"
        )
    if not is_text(os.path.abspath(destination)):  # noqa: PTH100 - see below
        raise DestinationError(
            f"destination {destination} has a path that is not UTF-8, which GDAL cannot be given",
            hint="name it otherwise",
        )
    try:
        path = Path(os.path.abspath(destination))  # noqa: PTH100 - resolve() would follow a link that is to be replaced
        _check_paths(path, destination, source, overwrite=overwrite)
    except OSError as error:
        said = f"destination {destination} or its source cannot be looked at: {error.strerror}"
        raise DestinationError(said, hint="check both paths") from error
    return path


def _check_paths(path: Path, destination: str, source: str | None, *, overwrite: bool) -> None:
    if source is not None:
        check_exists("source", source)
    is_source = source is not None and is_local(source) and path.exists() and path.samefile(source)
    name, folder = f"destination {destination}", f"folder {path.parent} of the destination"
    beside = [] if overwrite else sidecars(path)
    world = path.with_suffix(_ANYBODYS_WORLD_FILE)
    is_misplaced = path.suffix.lower() in _WORLD_FILES and world.is_file()
    is_writable = os.access(path.parent, os.W_OK | os.X_OK)
    for is_so, problem, hint in (
        (is_source, f"{name} is the source itself", "write to another path"),
        (path.is_dir(), f"{name} is a folder", "name a file in it"),
        (os.path.lexists(path) and not overwrite, f"{name} exists", "replace it with --overwrite"),
        (bool(beside), _in_the_way(beside), "move it away, or replace it with --overwrite"),
        (is_misplaced, _in_the_way([world]), "move it away, or name the output otherwise"),
        (not path.parent.is_dir(), f"{folder} does not exist", "create the folder first"),
        (not is_writable, f"{folder} is not writable", "choose a folder that is"),
    ):
        if is_so:
            raise DestinationError(problem, hint=hint)
    _check_not_live(path)


@contextlib.contextmanager
def staging(
    destination: Path, *, overwrite: bool, by: str = "", keep: Callable[[BaseException], bool] | None = None
) -> Iterator[Staging]:
    """Own the staging folder of a destination; it is removed on the way out, whatever happened.

    Args:
        destination: what is to be published.
        overwrite: whether an existing destination may be replaced.
        by: the run whose finished staged file is left as it is, where an earlier try of it left one.
        keep: asked with the error that ends this try, whether a finished staged file stays for the next.

    Raises:
        DestinationBusy: another job holds it.
        DestinationError: the folder cannot be made.
        DiskRefused: the disk is full.
    """
    folder = destination.parent / f".{destination.name}.swath"
    try:
        descriptor, swept = _own(folder, by)
    except OSError as error:
        said = f"cannot stage in {folder}: {error.strerror}"
        if error.errno in _DISK_FULL:
            raise DiskRefused(said) from error
        is_long = error.errno == errno.ENAMETOOLONG
        hint = "choose a shorter name" if is_long else "choose a folder in which one can be made"
        raise DestinationError(said, hint=hint) from error
    staged, stays = Staging(folder, folder / destination.name, destination, overwrite, swept), False
    try:
        yield staged
    except BaseException as error:
        stays = keep is not None and finished(folder, by) is not None and keep(error)
        raise
    finally:
        if not stays:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _own(folder: Path, by: str) -> tuple[int, Unfinished | None]:
    """Lock the folder's owner file, sweep what a dead owner left, and write who we are; the lock's descriptor, what was swept."""
    while True:
        folder.mkdir(exist_ok=True)
        if not _is_ours(folder):
            raise DestinationError(
                f"{folder} is in the way: it has files, but no owner file of swath's", hint="move it away"
            )
        owner = folder / _OWNER
        try:
            descriptor = os.open(owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # its last owner removed the folder between our two calls
        try:
            if not _lock(descriptor, folder):
                os.close(descriptor)
                continue  # it was removed before we had the lock
            swept = _take_over(descriptor, folder, by)
        except BaseException as error:
            if isinstance(error, OSError):
                shutil.rmtree(folder, ignore_errors=True)  # it is ours: the disk is full, or nearly
            os.close(descriptor)
            raise
        return descriptor, swept


def _lock(descriptor: int, folder: Path) -> bool:
    """Lock an owner file; False where the path leads to another one by now."""
    owner = folder / _OWNER
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _read_owner(owner)
        raise DestinationBusy(
            f"another job (pid {holder.get('pid', '?')} on {holder.get('host', '?')}) is writing to {folder.parent}/"
            f"{folder.name.removeprefix('.').removesuffix('.swath')}"
        ) from error
    return _same_file(descriptor, owner)


def _take_over(descriptor: int, folder: Path, by: str) -> Unfinished | None:
    """Sweep what a dead owner on this host left, and write who we are; what its note tells of its job."""
    previous = _read_owner(folder / _OWNER)
    if previous and previous.get("host") != socket.gethostname():
        raise DestinationBusy(
            f"{folder} was left by a job on host {previous.get('host')}, which may still run",
            hint=f"if it does not, run `swath clean {folder.parent} --older-than 0`",
        )
    swept = unfinished(folder, previous)
    _bring_back(folder)
    is_ours = finished(folder, by) is not None
    for entry in folder.iterdir():
        if entry.name != _OWNER and not is_ours:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(_identity()).encode(), 0)
    return swept


def _is_ours(folder: Path) -> bool:
    """A staging folder has an owner file, or nothing at all: others may call their folders alike."""
    return (folder / _OWNER).is_file() or not any(folder.iterdir())


def _identity() -> dict[str, Any]:
    boot = None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return {"host": socket.gethostname(), "boot": boot, "pid": os.getpid()}


def _read_owner(owner: Path) -> dict[str, Any]:
    try:
        content = json.loads(owner.read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _mode(destination: Path) -> int:
    """The mode of the file being replaced, else what the umask leaves of 0666."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(destination.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _link_or_copy(staged: Path, place: Path) -> Path:
    """A second name for a staged file, or a copy of it where the file system has none."""
    try:
        os.link(staged, place)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(staged, place)
    return place


def _rename_new(staged: Path, destination: Path) -> None:
    """Rename without replacing; a hard link does that atomically where the file system has them."""
    try:
        os.link(staged, destination)
    except FileExistsError:
        raise
    except OSError:
        if destination.exists():
            raise FileExistsError(destination) from None
        staged.rename(destination)
    else:
        staged.unlink()


@dataclass(frozen=True, slots=True)
class Leftover:
    """A staging folder found on disk: whose it is, whether it is dead, size in bytes, age in seconds, what its job was."""

    folder: Path
    owner: dict[str, Any]
    dead: bool
    bytes: int
    age_seconds: float
    job: Unfinished | None = None


def find_leftovers(folder: Path) -> list[Leftover]:
    """Staging folders of ours below `folder`. Dead means: made on this host, and its lock can be had."""
    found = (each for each in sorted(folder.rglob(".*.swath")) if each.is_dir() and not each.is_symlink())
    return [_leftover(each) for each in found if _is_ours(each)]


def remove_leftover(leftover: Leftover) -> None:
    """Remove a leftover, holding its lock meanwhile where there is one."""
    with contextlib.suppress(OSError), (leftover.folder / _OWNER).open("r+b") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _bring_back(leftover.folder)
        shutil.rmtree(leftover.folder)
        return
    with contextlib.suppress(OSError):
        leftover.folder.rmdir()  # an empty one has no owner file


def _leftover(folder: Path) -> Leftover:
    owner_path = folder / _OWNER
    owner = _read_owner(owner_path)
    files = [entry.stat() for entry in folder.rglob("*") if entry.is_file()]
    newest = max([folder.stat().st_mtime, *(entry.st_mtime for entry in files)])
    same_host = owner.get("host", socket.gethostname()) == socket.gethostname()
    return Leftover(
        folder,
        owner,
        dead=same_host and not _is_locked(owner_path),
        bytes=sum(entry.st_size for entry in files),
        age_seconds=max(0.0, time.time() - newest),
        job=unfinished(folder, owner),
    )


def _is_locked(owner: Path) -> bool:
    try:
        with owner.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
