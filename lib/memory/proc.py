"""What the kernel says of a process's memory, and of its descendants; psutil where it is asked seldom, or there is no `/proc`."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

# In the environment of a child, and so of all that it starts: its value names the child, for those who left its group.
MARK = "SWATH_CHILD"
_MOST_BYTES = 65536
_MOST_ROUNDS = 100
_DYING_SECONDS = 0.005
_HAS_PROC = Path("/proc/self/status").exists()


class ProcessMemory(NamedTuple):
    """One process's memory in bytes: resident, its high-water mark (VmHWM), swapped out, mapped (virtual)."""

    resident_bytes: int
    peak_bytes: int
    swapped_bytes: int
    virtual_bytes: int


class TreeMemory(NamedTuple):
    """A process tree's memory: resident + swapped bytes of all, virtual bytes of its root, and how many processes it has."""

    held_bytes: int
    virtual_bytes: int
    processes: int


_GONE = ProcessMemory(0, 0, 0, 0)
_highest = [0]


def process_memory(pid: int | None = None) -> ProcessMemory:
    """Memory of a process (default: this one); zeros where it is gone."""
    if not _HAS_PROC:
        import psutil

        with contextlib.suppress(psutil.Error):
            info = psutil.Process(pid).memory_info()
            return ProcessMemory(info.rss, info.rss, 0, info.vms)
        return _GONE
    try:
        status = _read(f"/proc/{pid or 'self'}/status")
    except OSError:
        return _GONE
    return ProcessMemory(
        *(_kib(status, field) * 1024 for field in (b"\nVmRSS:", b"\nVmHWM:", b"\nVmSwap:", b"\nVmSize:"))
    )


def peak_bytes(*, since_restart: bool = False) -> int:
    """This process's own high-water mark: of the job, or since `restart_peak`."""
    now = process_memory().peak_bytes
    return now if since_restart else max(now, _highest[0])


def restart_peak(*, forget: bool = False) -> None:
    """Set VmHWM back to the size now (proc(5), clear_refs); what it was is kept for `peak_bytes`, or forgotten: a new job."""
    _highest[0] = 0 if forget else peak_bytes()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _kib(status: bytes, field: bytes) -> int:
    at = status.find(field)
    return int(status[at + len(field) :].split(None, 1)[0]) if at >= 0 else 0


def tree(pid: int) -> list[int]:
    """The process and all its descendants, by id; parents before children."""
    found = [pid]
    for each in found:
        found += _children(each)
    return found


def jobs_below(pid: int) -> list[int]:
    """The children that do a process's jobs, with all that they started; not a server, nor a child that is being born."""
    return [each for child in _children(pid) if _is_marked(child) for each in tree(child)]


def _is_marked(pid: int) -> bool:
    """Whether a process was started as a job's child; between vfork and exec it still has its parent's environment, and size."""
    import psutil

    try:
        return MARK in psutil.Process(pid).environ()
    except psutil.AccessDenied:  # somebody else's
        return True
    except (psutil.Error, OSError):
        return False


def _children(pid: int) -> list[int]:
    children: list[int] = []
    if not _HAS_PROC:
        import psutil

        with contextlib.suppress(psutil.Error):
            children = [child.pid for child in psutil.Process(pid).children()]
        return children
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names only, every 20 ms
            children += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return children


def started_with(name: str, value: str) -> list[int]:
    """The processes that were started with this variable in their environment, as far as we may look at them."""
    import psutil

    found: list[int] = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if psutil.Process(pid).environ().get(name) == value:
                found.append(pid)
    return found


def kill_all(listed: Callable[[], Iterable[int]], *, until_gone: bool) -> int:
    """Kill what is listed, and look again: a process may fork while it is being listed; how many were killed.

    Until nothing new is listed, as those that nobody reaps stay in a process tree; or until nothing is.
    """
    killed: set[int] = set()
    for _ in range(_MOST_ROUNDS):
        found = set(listed())
        if not (found if until_gone else found - killed):
            break
        for pid in found - killed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
        if until_gone:
            time.sleep(_DYING_SECONDS)
    return len(killed)


def _read(path: str) -> bytes:
    """A small file of `/proc`, whole; a quarter of what pathlib takes, fifty times a second and once a chunk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def tree_memory(pid: int) -> TreeMemory:
    """What a process tree holds now."""
    root = process_memory(pid)
    family = [root, *map(process_memory, tree(pid)[1:])]
    held = sum(each.resident_bytes + each.swapped_bytes for each in family)
    return TreeMemory(held, root.virtual_bytes, len(family))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, seconds; 0 where it is gone."""
    import psutil

    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0
