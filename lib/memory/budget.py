"""What the host really leaves for jobs: physical memory, cgroup v1 or v2, less a reserve.

Pure reading of `/proc` and `/sys`; their root is a parameter, so that tests read a fake tree. What jobs share of it, and who
waits for whom, is the ledger's.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lib.errors import HostLimitError
from lib.memory import proc
from lib.memory.ledger import Entry, entries
from lib.settings import SettingsLayers
from lib.units import MIB, format_bytes

_RESERVE_FLOOR_BYTES = 256 * MIB
# cgroup v1 writes "no limit" as the largest page multiple below 2**63.
_UNLIMITED_FROM = 2**60
# What the kernel frees before it refuses anyone: the page cache, used lately or not, and its own caches (cgroup-v2, memory.stat).
_FREEABLE_V2 = ("inactive_file", "active_file", "slab_reclaimable")
_FREEABLE_V1 = ("total_inactive_file", "total_active_file")


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Memory of this host as its tightest bound has it.

    Attributes:
        total_bytes: physical memory, or the cgroup's limit where that is lower.
        available_bytes: what is free or could be freed of it now.
        bound: "physical", "cgroup v1" or "cgroup v2".
    """

    total_bytes: int
    available_bytes: int
    bound: str

    def budget_bytes(self, reserve_fraction: float, sharing: Sequence[Entry] = ()) -> int:
        """What all jobs together may use now: what is available or held by them, but never the reserve (at least 256 MiB).

        Of `sharing`, the ledger's tickets, the owners' own processes (a flow's takes some 200 MiB) go off, waiting or not.
        """
        owners = {entry.pid for entry in sharing}
        asked = {pid: sum(each.bytes for each in sharing if each.admitted and each.pid == pid) for pid in owners}
        held = sum(min(size, _held_below(pid)) for pid, size in asked.items() if size)
        owned = sum(proc.process_memory(pid).resident_bytes for pid in owners)
        return max(0, min(self.available_bytes + held, self.most_bytes(reserve_fraction) - owned))

    def most_bytes(self, reserve_fraction: float) -> int:
        """What jobs could use if nothing else ran: all but the reserve."""
        return self.total_bytes - max(int(self.total_bytes * reserve_fraction), _RESERVE_FLOOR_BYTES)


class Grant(NamedTuple):
    """A job's limit in bytes, the layer it comes from ("host" where a default was lowered), and what the host leaves at most."""

    limit_bytes: int
    origin: str
    budget_bytes: int


def grant_limit(layers: SettingsLayers, host: HostMemory | None = None) -> Grant:
    """The limit that a job gets.

    Raises:
        HostLimitError: an explicit limit above what the host leaves, or a shared budget above what it ever could.
    """
    host = host or host_memory()
    settings, origin = layers.settings, layers.origins["memory_limit_mb"]
    limit = settings.memory_limit_mb * MIB
    others = [] if settings.host_budget_mb == "off" else entries(settings.ledger_path)
    budget = host.budget_bytes(settings.host_reserve_fraction, others)
    if isinstance(settings.host_budget_mb, int):
        most = host.most_bytes(settings.host_reserve_fraction)
        if settings.host_budget_mb * MIB > most:
            raise HostLimitError(
                f"host_budget_mb {settings.host_budget_mb} MiB (from {layers.origins['host_budget_mb']}) is above the "
                f"{format_bytes(most)} that this host could ever leave for jobs",
                hint="lower host_budget_mb",
            )
        budget = min(budget, settings.host_budget_mb * MIB)
    if limit <= budget:
        return Grant(limit, origin.layer, budget)
    if layers.is_default("memory_limit_mb"):
        return Grant(max(MIB, budget // MIB * MIB), "host", budget)
    shared = f", host_budget_mb {settings.host_budget_mb} MiB" if isinstance(settings.host_budget_mb, int) else ""
    raise HostLimitError(
        f"memory_limit_mb {settings.memory_limit_mb} MiB (from {origin}) is above the {format_bytes(budget)} that this host "
        f"leaves for jobs ({host.bound} memory {format_bytes(host.total_bytes)}, {format_bytes(host.available_bytes)} "
        f"available, {settings.host_reserve_fraction:.0%} reserved{shared})",
        budget_bytes=budget,
        limit_bytes=limit,
    )


def _held_below(pid: int) -> int:
    """Resident bytes of a process's descendants: the children of its jobs."""
    return sum(proc.process_memory(each).resident_bytes for each in proc.jobs_below(pid))


def host_memory(root: Path = Path("/")) -> HostMemory:
    """The tightest of physical memory and the cgroups that this process is in: the least total, and the least that is left.

    The two may come from different bounds: a large parent cgroup may be nearly full while a smaller one is empty.
    """
    bounds = [_physical(root), *_cgroup_v2(root), *_cgroup_v1(root)]
    tightest = min(bounds, key=lambda bound: (bound.total_bytes, bound.available_bytes))
    return replace(tightest, available_bytes=min(bound.available_bytes for bound in bounds))


def _physical(root: Path) -> HostMemory:
    meminfo = _fields(root / "proc/meminfo")
    if "MemTotal:" in meminfo and "MemAvailable:" in meminfo:
        return HostMemory(meminfo["MemTotal:"] * 1024, meminfo["MemAvailable:"] * 1024, "physical")
    import psutil

    memory = psutil.virtual_memory()
    return HostMemory(memory.total, memory.available, "physical")


def _cgroup_v2(root: Path) -> list[HostMemory]:
    mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]  # alone, or beside v1
    return [
        bound
        for mount in mounts
        if (mount / "cgroup.controllers").exists()
        for folder in _lineage(mount, _cgroup_path(root, ""))
        if (bound := _bound(folder, ("memory.max", "memory.high"), "memory.current", _FREEABLE_V2, "cgroup v2"))
    ]


def _cgroup_v1(root: Path) -> list[HostMemory]:
    mount = root / "sys/fs/cgroup/memory"
    return [
        bound
        for folder in _lineage(mount, _cgroup_path(root, "memory"))
        if (bound := _bound(folder, ("memory.limit_in_bytes",), "memory.usage_in_bytes", _FREEABLE_V1, "cgroup v1"))
    ]


def _bound(
    folder: Path, limit_files: tuple[str, ...], usage_file: str, freeable: tuple[str, ...], name: str
) -> HostMemory | None:
    limits = [limit for file in limit_files if (limit := _number(folder / file)) is not None]
    limit = min(limits, default=_UNLIMITED_FROM)
    if limit >= _UNLIMITED_FROM:
        return None
    usage, stat = _number(folder / usage_file) or 0, _fields(folder / "memory.stat")
    held = max(0, usage - sum(stat.get(key, 0) for key in freeable))
    return HostMemory(limit, max(0, limit - held), name)


def _cgroup_path(root: Path, controller: str) -> str:
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
            _, _, rest = line.partition(":")
            controllers, colon, path = rest.partition(":")
            if colon and controller in controllers.split(","):
                return path
    return "/"


def _lineage(mount: Path, path: str) -> list[Path]:
    """The cgroup's folder and those above it; in a container the path may be the host's, then only the mount is there."""
    folder = mount / path.lstrip("/")
    folders = [folder, *folder.parents]
    return [each for each in folders if each == mount or mount in each.parents]


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None


def _fields(path: Path) -> dict[str, int]:
    """`key value` lines, as in memory.stat and meminfo."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            key, *rest = line.split() or [""]
            if rest and rest[0].isdigit():
                found[key] = int(rest[0])
    return found
