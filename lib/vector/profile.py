"""Profiling a vector source: read a sample of its batches as the engine would, and suggest a limit and a batch size.

What is measured is reading and measuring areas; a sink adds to it, so the suggestion is never below what a plan for a GeoPackage
of all features would come to.
"""

from collections.abc import Sequence
from typing import Any

from lib.errors import SourceError
from lib.jobs import ProfileJob, VectorJob
from lib.memory.proc import peak_bytes
from lib.memory.work import Bench, Room
from lib.reports import Outcome, Plan
from lib.units import MIB, mib
from lib.vector import ogr
from lib.vector import plan as planning
from lib.vector.layer import LayerWork
from lib.vector.plan import Layout, Task
from lib.vector.probe import first_batches
from lib.vector.sinks import sink_for
from lib.vector.sources import Given, VectorSource, open_source
from lib.vector.steps import Step, Tally, steps_of
from lib.vector.stream import apply, plain

_HEADROOM = 1.2
# OGR reads vectors past GDAL's block cache; this much is for drivers that use it (raster-backed GeoPackages).
_CACHE_MB = 16
# What a run takes beside what a look sees: traces and the meter.
_RUN_BYTES = 2 * MIB
_PROBED = 3  # batches


def prepare(job: ProfileJob, room: Room) -> "ProfileWork":
    """Open the layer.

    Raises:
        SourceError: it is no usable vector layer.
    """
    source = open_source(job.source, job.layer, job.label, job.resources.chunk_rows, Given(checks_text=False))
    return ProfileWork(job, room, source, _steps(job, source))


def _steps(job: ProfileJob, source: VectorSource) -> list[Step]:
    """Areas, where they can be measured."""
    work = VectorJob(
        source=job.source, destination=job.source, layer=job.layer, min_area_sqm=0.0, resources=job.resources
    )
    try:
        return steps_of(work, source.facts)[0]
    except SourceError:
        return []


class ProfileWork(LayerWork):
    """A profile of one layer, prepared."""

    def __init__(self, job: ProfileJob, room: Room, source: VectorSource, steps: Sequence[Step]) -> None:
        self._job, self._source, self._steps = job, source, steps
        super().__init__(room, [Task(source.facts, None, steps, job.resources)])

    def look(self) -> Plan:
        """The plan by the first and the heaviest batch."""
        self.probe.heaviest(self._source, self.layouts[0], self._see)
        first_batches(self._source, self.layouts[0], self._see)
        return self._measured_plan(_RUN_BYTES)

    def _see(self, batch: Any) -> None:
        apply(batch, self._steps, Tally())

    def _measured_plan(self, more_bytes: int = 0) -> Plan:
        self.measured = self.probe.reached_bytes + more_bytes, 0, self.layouts
        return self.plan_of(*self.measured[:2])

    def run(self, bench: Bench) -> Outcome:
        """Read up to `sample_chunks` batches and measure their areas.

        Raises:
            DataError: a batch does not decode.
        """
        facts, layout, tally, size, settled = self._source.facts, self.layouts[0], Tally(), 0, False
        notes = list(facts.notes)
        with ogr.collected(notes):
            self.probe.heaviest(self._source, layout, self._see)
            with self._source.batches(layout.rows, layout.batch_bytes) as reader:
                take = plain(reader, facts.label)
                bench.meter.start(self.chunks())
                while tally.batches < self._job.sample_chunks and (taken := take()) is not None:
                    tally.take(taken.found)
                    size += taken.batch.nbytes
                    apply(taken.batch, self._steps, tally)
                    del taken  # before the next one is read
                    if not settled and tally.batches >= _PROBED:
                        settled = True
                        bench.settle(self._measured_plan())
                    bench.meter.chunk()
        if not settled:
            bench.settle(self._measured_plan())
        ogr.release()
        bench.meter.finish()
        peak = peak_bytes()
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

    def _of_filter(self) -> int:
        """What a plan for filtering this layer into a GeoPackage with these batches would come to, bytes."""
        facts, layout = self._source.facts, self.layouts[0]
        sink = sink_for("GPKG", facts)
        task = Task(facts, sink, self._steps, self._job.resources)
        reached = self.probe.reached_bytes + int(sink.own_bytes + sink.feature_copies * planning.large(facts))
        ample = Room(2**62, 2**62, self.room.baseline_bytes)
        whole = Layout(layout.rows, layout.batch_bytes, sink.index(facts, 1.0))
        terms = planning.terms_of(task, whole, ample, reached + layout.batch_bytes, layout.batch_bytes)
        return sum(terms.values())

    def chunks(self) -> int:
        """Batches that will be read."""
        known = self._source.facts.features >= 0
        return min(super().chunks(), self._job.sample_chunks) if known else self._job.sample_chunks
