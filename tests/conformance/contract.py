"""What the memory contract says of one report, and the limits at which it is asked."""

from typing import Any, NamedTuple

import psutil

from lib import operations
from lib.jobs import Job, Resources
from lib.memory.process import run_job
from lib.memory.work import BASELINE_SPREAD_BYTES
from lib.reports import Report
from lib.run import run_published
from lib.units import MIB, mib

__all__ = ["AMPLE_MB", "OPERATIONS", "Limits", "at", "close", "holds", "limits", "resources"]

AMPLE_MB = 2048
# By name, as the registries have them: an operation that is added there and not here fails `test_kinds.py`.
OPERATIONS = {
    "copy": operations.Copy(),
    "normalise": operations.Normalise(scale=200),
    "rescale": operations.Rescale(multiply=2.5, add=-3),
    "expression": operations.Expression(expr="(b1 - b2) / (b1 + b2); b3 > 110"),
    "reclassify": operations.Reclassify(table=":90=1,90:130=2,130:150=3"),
    "focal": operations.Focal(size=5),
    "terrain": operations.Terrain(attribute="slope", percent=True),
    "clip": operations.Clip(bbox=(502_000, 4_985_000, 521_000, 4_996_990)),
    "warp": operations.Warp(resolution=(5.0,)),
    "custom": operations.Custom(function="tests.faults.functions:unchanged"),
}


def resources(limit_mb: int, **more: Any) -> Resources:
    """A job's resources with two threads at most."""
    return Resources(limit_bytes=limit_mb * MIB, threads_max=2, **more)


def at(job: Any, limit_mb: int) -> Any:
    """The job under another limit, all else as it is."""
    update = {"limit_bytes": limit_mb * MIB}
    return job.model_copy(update={"resources": job.resources.model_copy(update=update)})


class Limits(NamedTuple):
    """MiB: the smallest as a refusal names it, and ample."""

    smallest: int
    ample: int = AMPLE_MB


def limits(job: Job) -> Limits:
    """Have a job refused, and hear the smallest limit; how near that is to what the job takes, `close` asks."""
    run: Any = run_published if hasattr(job, "destination") else run_job
    refused = run(at(job, 48))
    assert (refused.status, refused.exit_code) == ("refused", 137), refused.error
    assert refused.error is not None
    assert refused.error.smallest_limit_mb is not None
    return Limits(refused.error.smallest_limit_mb)


def smallest_by_plan(job: Job) -> int:
    """The smallest limit as a plan under an ample one says it, MiB."""
    planned = run_job(at(job, AMPLE_MB), plan_only=True)
    assert planned.plan is not None, planned.error
    return mib(planned.plan["smallest_limit_bytes"])


def holds(report: Report, limit_mb: int) -> str:
    """Completed, never over the limit, and no process is left; the numbers, for messages."""
    assert report.status == "completed", report.error
    assert report.plan is not None
    peak, projected = report.memory.peak_bytes, report.plan["projected_bytes"]
    assert peak is not None
    shown = f"peak {peak / MIB:.1f}, projected {projected / MIB:.1f}, limit {limit_mb} MiB; {report.plan['terms']}"
    assert max(peak, projected) <= limit_mb * MIB, shown
    assert sum(report.plan["terms"].values()) == projected
    assert [each for each in psutil.Process().children() if "lib.memory.child" in " ".join(each.cmdline())] == []
    return shown


def close(report: Report, limit_mb: int, *, smallest: bool = False) -> None:
    """Measured <= projected <= limit at the first attempt, and near: within 25 % or 32 MiB; so is a smallest limit."""
    shown = holds(report, limit_mb)
    assert report.plan is not None
    assert report.memory.peak_bytes is not None
    peak, projected = report.memory.peak_bytes, report.plan["projected_bytes"]
    assert len(report.attempts) == 1, report.attempts
    assert peak <= projected <= max(peak * 1.25, peak + 32 * MIB), shown
    if smallest:
        assert limit_mb * MIB <= max(peak * 1.25, peak + 32 * MIB) + BASELINE_SPREAD_BYTES + MIB, shown
