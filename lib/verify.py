"""The engine of `verify`: an output against its source, by the job that wrote it.

That job comes with the VerifyJob (a run's own verification, or `--report`), else from the output's metadata; where
neither has it, structure alone is checked, and a warning says so. The checks themselves are in
`lib/raster/verification.py` and `lib/vector/verification.py`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lib.errors import SourceError, VerificationFailed
from lib.jobs import RasterJob, VectorJob, VerifyJob
from lib.memory.proc import process_memory
from lib.memory.work import ENGINES, Bench, Room, load_engine
from lib.probe import load, probe
from lib.publish import is_local
from lib.reports import Outcome, Plan

__all__ = ["plan", "run"]

_PLANNERS = {"raster": "lib.raster.verify_plan", "vector": "lib.vector.verification"}
# For a plan that is made for what it expects of the output only, not to be run.
_AMPLE_BYTES = 2**50


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is verified: its kind, the work that wrote it as far as known, and what must be said of that."""

    kind: str
    work: RasterJob | VectorJob | None
    warnings: tuple[str, ...] = ()


def plan(job: VerifyJob, room: Room) -> Plan:
    """Plan the reading of the whole output and of a sample of the source.

    Raises:
        SourceError: output or source is missing, or no dataset.
        MemoryRefused: the limit is too small for the verification itself.
    """
    subject = _subject(job)
    expected = job.expected or _expected(subject.work)
    # What the kind's libraries weigh became known only now.
    room = replace(room, baseline_bytes=process_memory().resident_bytes)
    known = job.model_copy(update={"work": subject.work, "expected": expected})
    made: Plan = load(_PLANNERS[subject.kind]).plan_full(known, room)
    return replace(made, expected=expected, facts=made.facts | {"kind": subject.kind})


def run(job: VerifyJob, plan: Plan, bench: Bench) -> Outcome:
    """Check, and say what was counted.

    Raises:
        VerificationFailed: a check did not pass; fact `check` names the first.
    """
    subject = _subject(job)
    checked = (_check_raster if subject.kind == "raster" else _check_vector)(job, subject.work, plan, bench)
    for failed in bench.failed_checks:
        raise VerificationFailed(
            f"{Path(job.output).name} failed the check {failed.name!r}: {failed.detail}", check=failed.name
        )
    return Outcome(
        result=checked | {"checks": len(bench.checks)}, checks=tuple(bench.checks), warnings=subject.warnings
    )


def _check_raster(job: VerifyJob, work: Any, plan: Plan, bench: Bench) -> dict[str, Any]:
    from lib.raster import verification

    expected = plan.expected or None
    if job.level == "basic" and work and expected:
        bench.meter.start()
        verification.basic(job.output, job.source, work, expected, bench, result=job.result)
        bench.meter.finish()
        return {}
    return verification.full(job.output, job.source, work, expected, bench, result=job.result)


def _check_vector(job: VerifyJob, work: Any, plan: Plan, bench: Bench) -> dict[str, Any]:
    from lib.vector import verification

    bench.meter.start(plan.chunks)
    given = (job.output, job.source, work, plan.expected or None, job.result, bench)
    if job.level == "basic":
        verification.basic(*given)
    else:
        verification.full(*given, batch_rows=plan.batch_rows or job.resources.chunk_rows)
    bench.meter.finish()
    return {}


def _subject(job: VerifyJob) -> _Subject:
    """The work from the job, else from the output's metadata, else None.

    Raises:
        SourceError: output or source is missing, or the output is no dataset.
    """
    for name, path in (("output", job.output), ("source", job.source)):
        if is_local(path) and not Path(path).exists():
            raise SourceError(f"{name} {path} does not exist", hint="check the path")
    kind = job.work.kind if job.work else probe(job.output, "output").kind
    load(ENGINES[kind])
    load(_PLANNERS[kind])
    if job.work is not None:
        return _Subject(kind, job.work)
    name = Path(job.output).name
    record = _provenance(kind, job.output)
    if record is None:
        return _Subject(
            kind,
            None,
            (f"{name} does not say how it was made: structure alone was checked (--report FILE names a run's report)",),
        )
    try:
        work = (RasterJob if kind == "raster" else VectorJob).model_validate(
            record | {"source": job.source, "destination": job.output, "resources": job.resources}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        return _Subject(
            kind,
            None,
            (f"{name} was made by a job unknown to this version ({problem['msg']}): structure alone was checked",),
        )
    made_of = record.get("source")
    other = made_of and Path(made_of).name != work.label
    return _Subject(kind, work, (f"{name} says that it was made of {made_of}, not of {work.label}",) if other else ())


def _provenance(kind: str, output: str) -> dict[str, Any] | None:
    """The job's record in the output's metadata, without resources; None where there is none."""
    if kind == "raster":
        from lib.raster.carried import read_provenance as of_raster

        return of_raster(output)
    from lib.vector.verification import read_provenance as of_vector

    found = of_vector(output)
    return found["job"] if found else None


def _expected(work: RasterJob | VectorJob | None) -> dict[str, Any]:
    """What a plan of the work would expect of its output; without the tile size, which depends on the limit of the run."""
    if work is None:
        return {}
    room = Room(limit_bytes=_AMPLE_BYTES, budget_bytes=_AMPLE_BYTES, baseline_bytes=process_memory().resident_bytes)
    expected = dict(load_engine(work.kind).plan(work, room).expected)
    if getattr(work, "block_size", None) is None:
        expected.pop("block_size", None)
    return expected
