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

from lib.jobs import RasterJob, VectorJob, VerifyJob
from lib.memory.proc import process_memory
from lib.memory.work import ENGINES, Bench, Room, Work, load_engine
from lib.paths import check_exists
from lib.probe import load, probe
from lib.reports import Outcome, Plan

# For a plan that is made for what it expects of the output only, not to be run.
_AMPLE_BYTES = 2**50

_Writer = RasterJob | VectorJob


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
            outcome, result=outcome.result | {"checks": len(bench.checks)}, warnings=(*self.warnings, *outcome.warnings)
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
    check_exists("output", job.output)
    check_exists("source", job.source)
    kind = job.work.kind if job.work else probe(job.output, "output").kind
    load(ENGINES[kind])
    wing = load(f"lib.{kind}.verify")
    work, warnings = (job.work, ()) if job.work else _writer(job, kind, wing.read_provenance(job.output))
    expected = job.expected or _expected(work)
    # What the kind's libraries weigh became known only now.
    room = replace(room, baseline_bytes=process_memory().resident_bytes)
    known = job.model_copy(update={"work": work, "expected": expected})
    return _Verification(wing.prepare(known, room), expected, warnings)


def _writer(job: VerifyJob, kind: str, record: dict[str, Any] | None) -> tuple[_Writer | None, tuple[str, ...]]:
    """The job that wrote the output, by the record in its metadata; None where it says none; and what must be said of that."""
    name = Path(job.output).name
    if record is None:
        unsaid = (
            f"{name} does not say how it was made: structure alone was checked (--report FILE names a run's report)"
        )
        return None, (unsaid,)
    here = {"source": job.source, "destination": job.output, "resources": job.resources}
    try:
        work = (RasterJob if kind == "raster" else VectorJob).model_validate(record | here)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        return None, (f"{name} was made by a job unknown to this version ({problem}): structure alone was checked",)
    made_of = record.get("source")
    is_other = made_of and Path(made_of).name != work.label
    return work, (f"{name} says that it was made of {made_of}, not of {work.label}",) if is_other else ()


def _expected(work: _Writer | None) -> dict[str, Any]:
    """What a plan of the work would expect of its output; without what depends on the limit of the run."""
    if work is None:
        return {}
    room = Room(limit_bytes=_AMPLE_BYTES, budget_bytes=_AMPLE_BYTES, baseline_bytes=process_memory().resident_bytes)
    with closing(load_engine(work.kind).prepare(work, room)) as prepared:
        expected = dict(prepared.first().expected)
    if getattr(work, "block_size", None) is None:
        expected.pop("block_size", None)
    for name in ("window", "bands_at_once"):
        expected.pop(name, None)
    return expected
