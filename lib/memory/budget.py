"""What the host really leaves for jobs: physical memory, cgroup v1 or v2, less a reserve.

Pure reading of `/proc` and `/sys`; both roots are parameters, so that tests read a fake tree.
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import psutil

from lib.errors import HostLimitError
from lib.settings import SettingsLayers
from lib.units import MIB, format_bytes

__all__ = ["Grant", "HostMemory", "grant_limit", "host_memory"]

_RESERVE_FLOOR_BYTES = 256 * MIB
# cgroup v1 writes "no limit" as the largest page multiple below 2**63.
_UNLIMITED_FROM = 2**60


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

    def budget_bytes(self, reserve_fraction: float) -> int:
        """What jobs may use now: what is available, but never the reserve (at least 256 MiB)."""
        return max(0, min(self.available_bytes, self.most_bytes(reserve_fraction)))

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
    budget = host.budget_bytes(settings.host_reserve_fraction)
    if settings.host_budget_mb is not None:
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
    shared = "" if settings.host_budget_mb is None else f", host_budget_mb {settings.host_budget_mb} MiB"
    raise HostLimitError(
        f"memory_limit_mb {settings.memory_limit_mb} MiB (from {origin}) is above the {format_bytes(budget)} that this host "
        f"leaves for jobs ({host.bound} memory {format_bytes(host.total_bytes)}, {format_bytes(host.available_bytes)} "
        f"available, {settings.host_reserve_fraction:.0%} reserved{shared})",
        budget_bytes=budget,
        limit_bytes=limit,
    )


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
    memory = psutil.virtual_memory()
    return HostMemory(memory.total, memory.available, "physical")


def _cgroup_v2(root: Path) -> list[HostMemory]:
    mount = root / "sys/fs/cgroup"
    if not (mount / "cgroup.controllers").exists():
        return []
    return [
        bound
        for folder in _lineage(mount, _cgroup_path(root, ""))
        if (bound := _bound(folder, "memory.max", "memory.current", "inactive_file", "cgroup v2"))
    ]


def _cgroup_v1(root: Path) -> list[HostMemory]:
    mount = root / "sys/fs/cgroup/memory"
    return [
        bound
        for folder in _lineage(mount, _cgroup_path(root, "memory"))
        if (
            bound := _bound(
                folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "cgroup v1"
            )
        )
    ]


def _bound(folder: Path, limit_file: str, usage_file: str, inactive_key: str, name: str) -> HostMemory | None:
    limit, usage = _number(folder / limit_file), _number(folder / usage_file)
    if limit is None or usage is None or limit >= _UNLIMITED_FROM:
        return None
    inactive = _fields(folder / "memory.stat").get(inactive_key, 0)
    return HostMemory(limit, max(0, limit - max(0, usage - inactive)), name)


def _cgroup_path(root: Path, controller: str) -> str:
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
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
        for line in path.read_text(encoding="ascii").splitlines():
            key, *rest = line.split()
            if rest and rest[0].isdigit():
                found[key] = int(rest[0])
    return found
