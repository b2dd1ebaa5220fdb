"""The engine of `profile`: finds out whether the source is a raster or a vector, and hands over.

What is read and measured is in `lib/raster/profile.py` and `lib/vector/profile.py`.
"""

from dataclasses import replace

from lib.jobs import ProfileJob
from lib.memory.proc import process_memory
from lib.memory.work import Bench, Engine, Room
from lib.probe import load, probe
from lib.reports import Outcome, Plan

__all__ = ["plan", "run"]


def plan(job: ProfileJob, room: Room) -> Plan:
    """Plan the reading of a sample of the source's chunks.

    Raises:
        SourceError: it is missing, or neither a raster nor a vector; what its engine's header checks say.
        MemoryRefused: not even one chunk fits.
    """
    kind, engine = _engine(job)
    # What the engine's libraries weigh became known only now.
    made = engine.plan(job, replace(room, baseline_bytes=process_memory().resident_bytes))
    return replace(made, facts=made.facts | {"kind": kind})


def run(job: ProfileJob, plan: Plan, bench: Bench) -> Outcome:
    """Read the sample; the result suggests a limit, a chunk and a cache."""
    kind, engine = _engine(job, plan.facts["kind"])
    outcome = engine.run(job, plan, bench)
    return replace(outcome, result={"kind": kind} | outcome.result)


def _engine(job: ProfileJob, kind: str | None = None) -> tuple[str, Engine]:
    """The kind's name and its module; a source with a named layer is a vector."""
    kind = kind or ("vector" if job.layer else probe(job.source).kind)
    return kind, load(f"lib.{kind}.profile")
