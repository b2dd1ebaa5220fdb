"""Profiling a vector source: read a sample of its batches as the engine would, and suggest a limit and a batch size.

What is measured is reading and measuring areas; a sink adds to it, so the suggestion is never below what a plan for a GeoPackage
of all features would come to.
"""

from dataclasses import dataclass, field
from typing import Any

from lib.errors import SourceError
from lib.jobs import ProfileJob, VectorJob
from lib.memory.proc import process_memory
from lib.memory.work import Bench, Room
from lib.reports import Outcome, Plan
from lib.units import mib
from lib.vector import ogr
from lib.vector import plan as planning
from lib.vector.plan import Layout, Task
from lib.vector.probe import Probe, first_batches
from lib.vector.sinks import sink_for
from lib.vector.sources import VectorSource, open_source
from lib.vector.steps import Step, Tally, steps_of
from lib.vector.stream import apply, plain

__all__ = ["ProfileWork", "prepare"]

_HEADROOM = 1.2
# OGR reads vectors past GDAL's block cache; this much is for drivers that use it (raster-backed GeoPackages).
_CACHE_MB = 16


def prepare(job: ProfileJob, room: Room) -> "ProfileWork":
    """Open the layer.

    Raises:
        SourceError: it is no usable vector layer.
    """
    source = open_source(job.source, job.layer, job.label, job.resources.chunk_rows)
    task = Task(source.facts, None, _steps(job, source), job.resources)
    return ProfileWork(job, room, source, task, planning.choose(task, room.budget_bytes - room.baseline_bytes))


def _steps(job: ProfileJob, source: VectorSource) -> list[Step]:
    """Areas, where they can be measured."""
    work = VectorJob(
        source=job.source, destination=job.source, layer=job.layer, min_area_sqm=0.0, resources=job.resources
    )
    try:
        return steps_of(work, source.facts)
    except SourceError:
        return []


@dataclass(slots=True)
class ProfileWork:
    """A profile of one layer, prepared."""

    job: ProfileJob
    room: Room
    source: VectorSource
    task: Task
    layout: Layout
    reached_bytes: int | None = None
    probe: Probe = field(init=False)

    def __post_init__(self) -> None:
        self.probe = Probe(self.room.baseline_bytes)

    def first(self) -> Plan:
        """The plan by the header."""
        return self._plan(self.layout.batch_bytes)

    def look(self) -> Plan:
        """The plan by the first and the heaviest batch."""
        tally = Tally()
        self._look_beforehand()
        first_batches(self.source, self.layout, lambda batch: apply(batch, self.task.steps, tally))
        self.reached_bytes = self.probe.reached_bytes
        return self._plan(self.reached_bytes)

    def smallest(self, **without: Any) -> int:
        """The smallest limit that would do with other resources, bytes."""
        task = Task(self.task.facts, None, self.task.steps, self.job.resources.model_copy(update=without))
        reached = planning.guess(task, self.layout) if self.reached_bytes is None else self.reached_bytes
        return planning.smallest_of(task, self.layout, self.room, reached, 0)

    def close(self) -> None:
        """Nothing is held open between readings."""

    def run(self, bench: Bench) -> Outcome:
        """Read up to `sample_chunks` batches and measure their areas.

        Raises:
            DataError: a batch does not decode.
        """
        facts, layout, tally, size = self.source.facts, self.layout, Tally(), 0
        notes = list(facts.notes)
        with ogr.collected(notes):
            self._look_beforehand()
            with self.source.batches(layout.rows, layout.batch_bytes) as reader:
                take = plain(reader, facts.label)
                bench.meter.start(self._chunks())
                while tally.batches < self.job.sample_chunks and (batch := take()) is not None:
                    tally.batches, tally.read, size = (
                        tally.batches + 1,
                        tally.read + batch.num_rows,
                        size + batch.nbytes,
                    )
                    apply(batch, self.task.steps, tally)
                    del batch  # before the next one is read
                    self._settle(bench)
                    bench.meter.chunk()
        self._settle(bench)
        ogr.release()
        bench.meter.finish()
        peak = process_memory().peak_bytes
        return Outcome(
            result={
                "kind": "vector",
                "layer": facts.layer,
                "features": facts.features,
                "batches_read": tally.batches,
                "features_read": tally.read,
                "bytes_per_row": round(size / tally.read, 1) if tally.read else 0,
                "peak_bytes": peak,
                "suggested_limit_mb": mib(max(int(peak * _HEADROOM), self._of_filter())) + 1,
                "suggested_chunk_rows": layout.rows,
                "suggested_gdal_cachemax_mb": _CACHE_MB,
            },
            warnings=tuple(dict.fromkeys(notes)),
        )

    def _look_beforehand(self) -> None:
        tally = Tally()
        self.probe.heaviest(self.source, self.layout, lambda batch: apply(batch, self.task.steps, tally))

    def _settle(self, bench: Bench) -> None:
        if self.reached_bytes is None:
            self.reached_bytes = self.probe.reached_bytes
            bench.settle(self._plan(self.reached_bytes))

    def _of_filter(self) -> int:
        """What a plan for filtering this layer into a GeoPackage with these batches would come to, bytes."""
        sink = sink_for("GPKG", self.source.facts)
        task = Task(self.task.facts, sink, self.task.steps, self.job.resources)
        layout = Layout(self.layout.rows, self.layout.batch_bytes, sink.index(self.source.facts, 1.0))
        held = int(sink.own_bytes + sink.feature_copies * planning.large(self.source.facts)) + self.layout.batch_bytes
        ample = Room(2**62, 2**62, self.room.baseline_bytes)
        reached = (self.reached_bytes or 0) + held
        return sum(planning.terms_of(task, layout, ample, reached, self.layout.batch_bytes).values())

    def _chunks(self) -> int:
        whole = -(-max(self.source.facts.features, 0) // self.layout.rows)
        return min(whole, self.job.sample_chunks) if self.source.facts.features >= 0 else self.job.sample_chunks

    def _plan(self, reached: int) -> Plan:
        terms = planning.terms_of(self.task, self.layout, self.room, reached, 0)
        return Plan(
            limit_bytes=self.room.limit_bytes,
            projected_bytes=sum(terms.values()),
            baseline_bytes=self.room.baseline_bytes,
            disk_bytes=0,
            smallest_limit_bytes=self.smallest(),
            batch_rows=self.layout.rows,
            chunks=self._chunks(),
            terms=terms,
            facts=self.source.facts.shown,
        )
