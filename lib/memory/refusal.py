"""Planning, held to what it took itself; and refusals of memory with the hint that helps.

Reading headers may take more than all that follows: metadata or a histogram of tens of MB is parsed and freed. How much is
known when the plan is there, by the process's own peak: no projection is below it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lib.errors import MemoryRefused, SwathError
from lib.jobs import Resources
from lib.memory.work import BASELINE_SPREAD_BYTES, Engine, Room
from lib.reports import Plan
from lib.units import MIB, mib

__all__ = ["plan"]

# Headers are read again when the work begins, in a heap with holes: with headers of 20 to 30 MB a job took up to 7.8 MiB above
# what planning had taken (a histogram, verified).
_READ_AGAIN_BYTES = 9 * MIB

Peak = Callable[[], int]


def plan(engine: Engine, job: Any, room: Room, peak: Peak) -> Plan:
    """The engine's plan for a job, raised to what making it took.

    Args:
        engine: of the job's kind.
        job: the work.
        room: what may be used.
        peak: the process's resident peak since the job came, bytes.

    Raises:
        MemoryRefused: as the engine says; its fact `culprit` is "margin_mb", "threads" or "chunk_rows" where the job would do
            with far less without it, "host" or "shared host_budget_mb" where that has lowered the limit.
    """
    try:
        return _held(engine, job, room, peak)
    except MemoryRefused as refused:
        if "smallest_limit_bytes" not in refused.facts:  # a chunk that was fixed too large says so itself
            raise
        culprit, hint = _of_a_setting(engine, job, room, peak, refused.smallest_limit_bytes) or _of_the_host(
            job.resources
        )
        if not culprit:
            raise
        granted_by = _of_the_host(job.resources)[0]
        message = refused.message + (f"; the {granted_by} leaves no more" if granted_by else "")
        raise MemoryRefused(message, hint=hint, **refused.facts, culprit=culprit) from refused


def _held(engine: Engine, job: Any, room: Room, peak: Peak) -> Plan:
    """A plan that has room for the headers, too; or a refusal that names a limit which has."""
    try:
        made, refused = engine.plan(job, room), None
    except MemoryRefused as error:
        made, refused = None, error
    needed = peak() + _READ_AGAIN_BYTES
    smallest = needed + BASELINE_SPREAD_BYTES
    if made is None or needed > room.budget_bytes:
        if refused and ("smallest_limit_bytes" not in refused.facts or refused.smallest_limit_bytes >= smallest):
            raise refused
        if made:
            smallest = max(smallest, made.smallest_limit_bytes)
        raise MemoryRefused(
            f"{job.label}: needs a limit of at least {mib(smallest)} MiB to read its headers, "
            f"{room.budget_bytes // MIB} MiB are granted",
            hint=f"raise the memory limit to {mib(smallest)} MiB",
            smallest_limit_bytes=smallest,
        ) from refused
    missing = max(0, needed - made.projected_bytes)
    return replace(
        made,
        projected_bytes=made.projected_bytes + missing,
        # Of an ample plan, which may be far above its smallest, too.
        smallest_limit_bytes=max(smallest, made.smallest_limit_bytes),
        terms=made.terms | ({"reading headers": missing} if missing else {}),
    )


def _of_a_setting(engine: Engine, job: Any, room: Room, peak: Peak, smallest: int) -> tuple[str, str] | None:
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
        needed = _smallest(engine, freed, room, peak, smallest) if is_set else smallest
        if needed <= room.budget_bytes < smallest or 2 * needed < smallest:
            return name, f"{words}: without it a limit of {mib(needed)} MiB would do"
    return None


def _smallest(engine: Engine, job: Any, room: Room, peak: Peak, otherwise: int) -> int:
    try:
        return _held(engine, job, room, peak).smallest_limit_bytes
    except SwathError as error:
        return int(error.facts.get("smallest_limit_bytes", otherwise))


def _of_the_host(resources: Resources) -> tuple[str, str]:
    if resources.limit_origin != "host":
        return "", ""
    if resources.limit_bytes == resources.host_budget_bytes:
        return "shared host_budget_mb", f"raise host_budget_mb (it is {resources.limit_bytes // MIB} MiB)"
    return "host", "free memory on this host, use a larger one, or lower host_reserve_fraction"
