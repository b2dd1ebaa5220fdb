"""Plans held to what was reached already, and refusals of memory with the hint that helps.

Reading headers may take more than all that follows, and the probe is part of the work: what the process's own peak has reached
when a plan is there, the plan has, too.
"""

from dataclasses import replace
from typing import Any

from lib.errors import MemoryRefused, SwathError
from lib.jobs import Resources
from lib.memory.work import BASELINE_SPREAD_BYTES, Room, Work
from lib.reports import Plan
from lib.units import MIB, mib

# The kernel adds up a thread's pages in batches, so that a high-water mark rises after the peak (MEASURED, "High-water mark").
_COUNTED_LATE_BYTES = MIB


def held(plan: Plan, label: str, peak_bytes: int) -> Plan:
    """A plan that is not below the peak that was reached so far.

    Args:
        plan: what the engine projects.
        label: the job's, for the message.
        peak_bytes: what was reached.

    Raises:
        MemoryRefused: that is more than the limit; names one that would do.
    """
    reached = peak_bytes + _COUNTED_LATE_BYTES
    missing = max(0, reached - plan.projected_bytes)
    smallest = max(plan.smallest_limit_bytes, reached + BASELINE_SPREAD_BYTES)
    projected = plan.projected_bytes + missing
    if projected > plan.limit_bytes:
        raise MemoryRefused(
            f"{label}: needs a limit of at least {mib(smallest)} MiB, {plan.limit_bytes // MIB} MiB are granted",
            hint=f"raise the memory limit to {mib(smallest)} MiB",
            smallest_limit_bytes=smallest,
        )
    terms = plan.terms | ({"reached before": missing} if missing else {})
    return replace(plan, projected_bytes=projected, smallest_limit_bytes=smallest, terms=terms)


def hinted(refused: MemoryRefused, work: Work, job: Any, room: Room) -> MemoryRefused:
    """The refusal with what to do about it.

    Its fact `culprit` is "margin_mb", "threads" or "chunk_rows" where the job would do with far less without it, "host" or
    "shared host_budget_mb" where that has lowered the limit.
    """
    if "smallest_limit_bytes" not in refused.facts:  # a chunk that was fixed too large says so itself
        return refused
    culprit, hint = _of_a_setting(work, job, room, refused.smallest_limit_bytes) or _of_the_host(job.resources)
    if not culprit:
        return refused
    granted_by = _of_the_host(job.resources)[0]
    message = refused.message + (f"; the {granted_by} leaves no more" if granted_by else "")
    return MemoryRefused(message, hint=hint, **refused.facts, culprit=culprit)


def _of_a_setting(work: Work, job: Any, room: Room, smallest: int) -> tuple[str, str] | None:
    """The setting without which the job fits, or needs less than half; and what to do about it."""
    resources = job.resources
    margin, threads = resources.margin_bytes // MIB, resources.threads or 1
    rows = resources.chunk_rows if resources.chunk_rows_fixed else 0
    knobs: list[tuple[str, int, str, dict[str, Any]]] = [
        ("margin_mb", margin, f"lower margin_mb (it is {margin} MiB)", {"margin_bytes": 0}),
        ("threads", threads - 1, f"lower threads (it is {threads})", {"threads": None}),
        ("chunk_rows", rows, f"lower chunk_rows (it is {rows})", {"chunk_rows_fixed": False}),
    ]
    for name, is_set, words, without in knobs:
        needed = _smallest(work, without, smallest) if is_set else smallest
        if needed <= room.budget_bytes < smallest or 2 * needed < smallest:
            return name, f"{words}: without it a limit of {mib(needed)} MiB would do"
    return None


def _smallest(work: Work, without: dict[str, Any], otherwise: int) -> int:
    try:
        return work.smallest(**without)
    except SwathError as error:
        return int(error.facts.get("smallest_limit_bytes", otherwise))


def _of_the_host(resources: Resources) -> tuple[str, str]:
    if resources.limit_origin != "host":
        return "", ""
    if resources.limit_bytes == resources.host_budget_bytes:
        return "shared host_budget_mb", f"raise host_budget_mb (it is {resources.limit_bytes // MIB} MiB)"
    return "host", "free memory on this host, use a larger one, or lower host_reserve_fraction"
