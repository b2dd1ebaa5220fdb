"""A refusal of memory with the hint that helps: no higher limit where a setting takes the memory or the host has no more."""

from typing import Any

from lib.errors import MemoryRefused, SwathError
from lib.jobs import Resources
from lib.memory.work import Engine, Room
from lib.reports import Plan
from lib.units import MIB, mib

__all__ = ["plan"]


def plan(engine: Engine, job: Any, room: Room) -> Plan:
    """The engine's plan for a job.

    Raises:
        MemoryRefused: as the engine says; its fact `culprit` is "margin_mb", "threads" or "chunk_rows" where the job would do
            with far less without it, "host" or "shared host_budget_mb" where that has lowered the limit.
    """
    try:
        return engine.plan(job, room)
    except MemoryRefused as refused:
        if "smallest_limit_bytes" not in refused.facts:  # a chunk that was fixed too large says so itself
            raise
        culprit, hint = _of_a_setting(engine, job, room, refused.smallest_limit_bytes) or _of_the_host(job.resources)
        if not culprit:
            raise
        granted_by = _of_the_host(job.resources)[0]
        message = refused.message + (f"; the {granted_by} leaves no more" if granted_by else "")
        raise MemoryRefused(message, hint=hint, **refused.facts, culprit=culprit) from refused


def _of_a_setting(engine: Engine, job: Any, room: Room, smallest: int) -> tuple[str, str] | None:
    """The setting without which the job fits, or needs less than half; and what to do about it."""
    resources = job.resources
    margin, threads = resources.margin_bytes // MIB, resources.threads or 1
    rows = resources.chunk_rows if resources.chunk_rows_fixed else 0
    knobs = [
        ("margin_mb", margin, f"lower margin_mb (it is {margin} MiB)", {"margin_bytes": 0}),
        ("threads", threads - 1, f"lower threads (it is {threads})", {"threads": None}),
        ("chunk_rows", rows, f"lower chunk_rows (it is {rows})", {"chunk_rows_fixed": False}),
    ]
    for name, is_set, words, without in knobs:
        freed = job.model_copy(update={"resources": resources.model_copy(update=without)})
        needed = _smallest(engine, freed, room, smallest) if is_set else smallest
        if needed <= room.budget_bytes < smallest or 2 * needed < smallest:
            return name, f"{words}: without it a limit of {mib(needed)} MiB would do"
    return None


def _smallest(engine: Engine, job: Any, room: Room, otherwise: int) -> int:
    try:
        return engine.plan(job, room).smallest_limit_bytes
    except SwathError as error:
        return int(error.facts.get("smallest_limit_bytes", otherwise))


def _of_the_host(resources: Resources) -> tuple[str, str]:
    if resources.limit_origin != "host":
        return "", ""
    if resources.limit_bytes == resources.host_budget_bytes:
        return "shared host_budget_mb", f"raise host_budget_mb (it is {resources.limit_bytes // MIB} MiB)"
    return "host", "free memory on this host, use a larger one, or lower host_reserve_fraction"
