"""What the kernel says of a process's memory, and of its descendants. psutil where there is no `/proc`."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["ProcessMemory", "cpu_seconds", "process_memory", "tree", "tree_held_bytes"]

_HAS_PROC = Path("/proc/self/status").exists()


class ProcessMemory(NamedTuple):
    """One process's memory in bytes: resident, its high-water mark (VmHWM), swapped out, mapped (virtual)."""

    resident_bytes: int
    peak_bytes: int
    swapped_bytes: int
    virtual_bytes: int


_GONE = ProcessMemory(0, 0, 0, 0)


def process_memory(pid: int | None = None) -> ProcessMemory:
    """Memory of a process (default: this one); zeros where it is gone."""
    if not _HAS_PROC:
        with contextlib.suppress(psutil.Error):
            info = psutil.Process(pid).memory_info()
            return ProcessMemory(info.rss, info.rss, 0, info.vms)
        return _GONE
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_bytes()
    except OSError:
        return _GONE
    return ProcessMemory(
        *(_kib(status, field) * 1024 for field in (b"\nVmRSS:", b"\nVmHWM:", b"\nVmSwap:", b"\nVmSize:"))
    )


def _kib(status: bytes, field: bytes) -> int:
    at = status.find(field)
    return int(status[at + len(field) :].split(None, 1)[0]) if at >= 0 else 0


def tree(pid: int) -> list[int]:
    """The process and all its descendants, by id; parents before children."""
    found = [pid]
    for each in found:
        found += _children(each)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    if not _HAS_PROC:
        with contextlib.suppress(psutil.Error):
            children = [child.pid for child in psutil.Process(pid).children()]
        return children
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names only, every 20 ms
            children += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split())
    return children


def tree_held_bytes(pid: int) -> tuple[int, int]:
    """Resident + swapped bytes of the process tree, and the virtual size of its root."""
    root = process_memory(pid)
    held = root.resident_bytes + root.swapped_bytes
    for child in tree(pid)[1:]:
        memory = process_memory(child)
        held += memory.resident_bytes + memory.swapped_bytes
    return held, root.virtual_bytes


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, seconds; 0 where it is gone."""
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0
