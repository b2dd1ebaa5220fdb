"""The engine of `verify`: an output against its source, by the job that wrote it.

That job comes with the VerifyJob (a run's own verification, or `--report`), else from the output's metadata; where
neither has it, structure alone is checked, and a warning says so. The checks themselves are in
`lib/raster/verify.py` and `lib/vector/verify.py`.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lib.errors import SourceError
from lib.jobs import RasterJob, VectorJob, VerifyJob
from lib.memory.proc import process_memory
from lib.memory.work import ENGINES, Bench, Room, Work, load_engine
from lib.probe import load, probe
from lib.publish import is_local
from lib.reports import Outcome, Plan

__all__ = ["prepare"]

# For a plan that is made for what it expects of the output only, not to be run.
_AMPLE_BYTES = 2**50


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is verified: its kind, the work that wrote it as far as known, and what must be said of that."""

    kind: str
    work: RasterJob | VectorJob | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Verification:
    """A verification by the kind's own Work, with what must be said of its subject."""

    inner: Work
    expected: dict[str, Any]
    warnings: tuple[str, ...]

    def first(self) -> Plan:
        """The plan of reading the whole output and a sample of the source."""
        return replace(self.inner.first(), expected=self.expected)

    def look(self) -> Plan:
        """The final plan."""
        return replace(self.inner.look(), expected=self.expected)

    def run(self, bench: Bench) -> Outcome:
        """Check, and say what was counted."""
        outcome = self.inner.run(bench)
        return replace(
            outcome,
            result=outcome.result | {"checks": len(bench.checks)},
            warnings=(*self.warnings, *outcome.warnings),
        )

    def smallest(self, **without: Any) -> int:
        """The smallest limit with other resources, bytes."""
        return self.inner.smallest(**without)

    def close(self) -> None:
        """Let go of what is open."""
        self.inner.close()


def prepare(job: VerifyJob, room: Room) -> Work:
    """Open output and source for a verification.

    Raises:
        SourceError: output or source is missing, or no dataset.
        VerificationFailed: the output does not open.
    """
    subject = _subject(job)
    expected = job.expected or _expected(subject.work)
    # What the kind's libraries weigh became known only now.
    room = replace(room, baseline_bytes=process_memory().resident_bytes)
    known = job.model_copy(update={"work": subject.work, "expected": expected})
    return _Verification(load(f"lib.{subject.kind}.verify").prepare(known, room), expected, subject.warnings)


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
    load(f"lib.{kind}.verify")
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
    found: dict[str, Any] | None = load(f"lib.{kind}.verify").read_provenance(output)
    return found


def _expected(work: RasterJob | VectorJob | None) -> dict[str, Any]:
    """What a plan of the work would expect of its output; without what depends on the limit of the run."""
    if work is None:
        return {}
    room = Room(limit_bytes=_AMPLE_BYTES, budget_bytes=_AMPLE_BYTES, baseline_bytes=process_memory().resident_bytes)
    with closing(load_engine(work.kind).prepare(work, room)) as prepared:
        expected = dict(prepared.first().expected)
    if getattr(work, "block_size", None) is None:
        expected.pop("block_size", None)
    expected.pop("window", None)
    return expected
