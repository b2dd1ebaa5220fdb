"""The vector engine: one pass over Arrow batches, from source through steps to sink, within what was planned and measured.

`prepare` opens the layer; the probe is the pass's own first batches. It is made of `sources`, `steps` and `sinks`; `plan.py` is
pure, `probe.py` measures, `stream.py` is the pass, `verify.py` the checks that end it.
"""

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from lib import provenance
from lib.errors import DataError
from lib.jobs import VectorJob
from lib.memory.work import Bench, Room
from lib.reports import Outcome, Plan
from lib.units import MIB
from lib.vector import ogr, verify
from lib.vector import plan as planning
from lib.vector.plan import Layout, Task
from lib.vector.probe import Probe, first_batches
from lib.vector.sinks import VectorSink, sink_for
from lib.vector.sources import VectorSource, open_source
from lib.vector.steps import Tally, result_of, steps_of
from lib.vector.stream import ahead_of, apply, plain, stream

__all__ = ["VectorWork", "prepare"]

# What a run takes beside what a look that writes nothing sees: traces, the meter, a thread.
_RUN_BYTES = 4 * MIB
_NEARLY = 0.9  # a GeoPackage's geometry has a header
# So many batches without a kept feature, and the sink's own memory is taken from its facts.
_MOST_PROBED = 64
# What has to have gone through before: caches of SQLite and GDAL fill with it.
_PROBED_BYTES = 8 * MIB


def prepare(job: VectorJob, room: Room) -> "VectorWork":
    """Open the layer.

    Raises:
        SourceError: it is no usable vector layer.
        DestinationError: no such sink, or it cannot hold the layer.
        UsageError: the user's function cannot be imported.
    """
    resources = job.resources
    source = open_source(job.source, job.layer, job.label, resources.chunk_rows)
    sink = sink_for(job.driver, source.facts)
    task = Task(source.facts, sink, steps_of(job, source.facts), resources)
    if verify.recomputes(job, task.steps):
        importlib.import_module("lib.vector.recompute")  # now: what it weighs is measured then
    return VectorWork(job, room, source, task, planning.choose(task, room.budget_bytes - room.baseline_bytes))


@dataclass(slots=True)
class VectorWork:
    """A filter of one layer, prepared.

    Attributes:
        job: what is to be done.
        room: within what.
        source: the layer.
        task: layer, sink, steps and resources, for plans.
        layout: how it will be read.
        measured: bytes above the baseline and bytes of them that are free again, with the layout they were measured with.
    """

    job: VectorJob
    room: Room
    source: VectorSource
    task: Task
    layout: Layout
    measured: tuple[int, int, Layout] | None = None
    probe: Probe = field(init=False)

    def __post_init__(self) -> None:
        self.probe = Probe(self.room.baseline_bytes)

    def first(self) -> Plan:
        """The plan by header and own terms.

        Raises:
            DiskRefused: the output cannot fit.
        """
        planning.check_disk(self.source.facts, self._sink, self.room.disk_free_bytes, keeps_all=not self.task.steps)
        return self._plan(self.layout.batch_bytes, self.layout.batch_bytes)

    def look(self) -> Plan:
        """The plan by the first batch and the heaviest, in the smallest layout; nothing is written.

        Raises:
            DataError: they do not decode.
        """
        least, tally = planning.choose(self.task, 0), Tally()

        def see(batch: Any) -> None:
            self._sink.conform(apply(batch, self.task.steps, tally))

        self.probe.heaviest(self.source, least, see)
        first_batches(self.source, least, see)
        held = int(self._sink.own_bytes + self._sink.feature_copies * planning.large(self.source.facts))
        reached = self.probe.reached_bytes + held + _RUN_BYTES
        self.measured = reached, least.batch_bytes, least
        return self._plan(planning.grown(self.task, reached, least, self.layout), least.batch_bytes)

    def smallest(self, **without: Any) -> int:
        """The smallest limit that would do with other resources, bytes: by what was measured, else by a guess."""
        resources = self.job.resources.model_copy(update=without)
        task = Task(self.task.facts, self.task.sink, self.task.steps, resources)
        reached, freed, layout = self.measured or self._guessed()
        return planning.smallest_of(task, layout, self.room, reached, freed)

    def close(self) -> None:
        """Nothing is held open between readings."""

    def run(self, bench: Bench) -> Outcome:
        """Stream the layer through the steps into the staged file, reconcile the counts, check the output.

        Raises:
            DataError: the source does not decode, or gave another number of features than it has.
            OutputError: the disk or the format refused.
            FunctionError: the user's function.
        """
        assert bench.staged is not None  # noqa: S101 - for mypy: a vector job writes
        facts, tally, notes = self.source.facts, Tally(), list(self.source.facts.notes)
        if facts.geometry_name and not facts.crs:
            notes.append(f"{facts.label} has no CRS; the output has none either")
        counting = _Counting(self.source)
        with ogr.collected(notes):
            self._look_beforehand()
            self._write(bench, tally)
        ogr.release()
        self._reconcile(tally, counting.count())
        for step in self.task.steps:
            notes += step.notes(tally)
        result = {
            "layer": self._sink.layer,
            "features_read": tally.read,
            "features_kept": tally.kept,
            "batches": tally.batches,
            **result_of(self.task.steps, tally),
        }
        bench.meter.finish()
        bench.meter.phase("verify", patient=True)
        verify.basic(bench.staged, self.job, self._expected(), result, bench, self.task.steps)
        return Outcome(
            result=result, checks=tuple(bench.checks), warnings=tuple(dict.fromkeys(notes)), driver=self._sink.driver
        )

    @property
    def _sink(self) -> VectorSink:
        assert self.task.sink is not None  # noqa: S101 - for mypy: a vector job has one
        return self.task.sink

    def _look_beforehand(self) -> None:
        """Look at the heaviest batch, where it is worth it: its steps are done, nothing of it is kept."""
        tally = Tally()
        self.probe.heaviest(
            self.source, self.layout, lambda batch: self._sink.conform(apply(batch, self.task.steps, tally))
        )

    def _write(self, bench: Bench, tally: Tally) -> None:
        assert bench.staged is not None  # noqa: S101 - for mypy
        facts, sink, layout = self.source.facts, self._sink, self.layout
        try:
            with (
                ogr.configured(**sink.config(layout.index)),
                self.source.batches(layout.rows, layout.batch_bytes, fids=sink.keeps_fids) as reader,
                ahead_of(reader, facts.label) if layout.is_ahead else nullcontext(plain(reader, facts.label)) as take,
            ):
                batches = stream(
                    take,
                    self.task.steps,
                    sink,
                    tally,
                    bench.meter,
                    label=facts.label,
                    batch_bytes=layout.batch_bytes,
                    chunks=self._chunks(),
                    after=self._settler(bench, tally),
                )
                schema = reader.schema
                for step in self.task.steps:
                    schema = step.schema(schema)
                sink.write(bench.staged, schema, batches, provenance.texts(self.job))
        except Exception as error:
            if tally.error is not None:
                raise tally.error from error
            if isinstance(error, MemoryError):
                raise
            short = ogr.space_is_short(bench.staged, sink.disk(facts))
            raise ogr.translated(error, facts.label, writing=True, space_is_short=short) from error

    def _settler(self, bench: Bench, tally: Tally) -> Callable[[int | None], None]:
        """What takes the final plan to the bench, once: when the first batches are in the staged file."""
        settled = False

        def after(batch_bytes: int | None) -> None:
            nonlocal settled
            if settled:
                return
            if not (is_over := batch_bytes is None):
                self.probe.written(batch_bytes)
            is_seen = tally.kept and self.probe.read_bytes >= _PROBED_BYTES and self.probe.is_steady
            if is_over or is_seen or tally.batches >= _MOST_PROBED:
                settled = True
                bench.settle(self._settled(is_over=is_over, is_kept=tally.kept > 0))

        return after

    def _settled(self, *, is_over: bool, is_kept: bool) -> Plan:
        """The final plan by what was reached; with what the sink takes of the largest feature, where that has not come yet."""
        sink, large = self._sink, planning.large(self.source.facts)
        reached = self.probe.reached_bytes
        if not is_over:
            reached += 0 if is_kept else sink.own_bytes
            reached += int(sink.feature_copies * large) if self.probe.written_bytes < _NEARLY * large else 0
        self.measured = reached, self.probe.freed_bytes(), self.layout
        return self._plan(*self.measured[:2])

    def _guessed(self) -> tuple[int, int, Layout]:
        least = planning.choose(self.task, 0)
        return planning.guess(self.task, least), least.batch_bytes, least

    def _plan(self, reached: int, freed: int) -> Plan:
        facts, sink, layout = self.source.facts, self._sink, self.layout
        terms = planning.terms_of(self.task, layout, self.room, reached, freed)
        return Plan(
            limit_bytes=self.room.limit_bytes,
            projected_bytes=sum(terms.values()),
            baseline_bytes=self.room.baseline_bytes,
            disk_bytes=sink.disk(facts),
            smallest_limit_bytes=self.smallest(),
            threads=1 + layout.is_ahead,
            batch_rows=layout.rows,
            chunks=self._chunks(),
            terms=terms,
            lower_by=planning.lower_by(self.task, layout, planning.choose(self.task, 0)),
            expected=self._expected(),
            facts=facts.shown,
        )

    def _chunks(self) -> int:
        return -(-max(self.source.facts.features, 0) // self.layout.rows)

    def _expected(self) -> dict[str, Any]:
        """What the output must be."""
        facts, sink = self.source.facts, self._sink
        return {
            "driver": sink.driver,
            "layer": sink.layer,
            "fields": [list(pair) for pair in zip(facts.fields, facts.field_types, strict=True)],
            "geometry_type": sink.geometry_type,
            "crs": sink.crs,
            "largest_feature_bytes": facts.sizes.largest_bytes,
        }

    def _reconcile(self, tally: Tally, has: int | None) -> None:
        """Features read against what the source has by another count; a partial read must not pass as a whole one."""
        facts = self.source.facts
        if has is not None and has != tally.read:
            raise DataError(
                f"{facts.label}: layer {facts.layer} has {has} features, but {tally.read} could be read",
                hint="the source is damaged, or OGR cannot stream this format: try ogr2ogr copy.gpkg SOURCE",
                features=has,
                features_read=tally.read,
            )


class _Counting:
    """The source's own count, in a thread beside the pass."""

    def __init__(self, source: VectorSource) -> None:
        self._pool = ThreadPoolExecutor(1, "swath-count")
        self._count = self._pool.submit(source.count)

    def count(self) -> int | None:
        """The count; raises what counting raised."""
        self._pool.shutdown(wait=False)
        return self._count.result()
