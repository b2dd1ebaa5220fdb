"""The vector engine: one pass over Arrow batches, from source through steps to sink, within what was planned and measured.

`prepare` opens the layer; the probe is the pass's own first batches. It is made of `sources`, `steps` and `sinks`; `plan.py` is
pure, `probe.py` measures, `stream.py` is the pass, `verify.py` the checks that end it.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib import provenance
from lib.diagnosis import space_is_short
from lib.jobs import VectorJob
from lib.memory.work import Bench, Room
from lib.reports import Outcome, Plan
from lib.space import Space
from lib.units import MIB
from lib.vector import ogr, verify
from lib.vector import plan as planning
from lib.vector.bad_rows import BadRows
from lib.vector.counting import DRIVER, Counting, reconcile
from lib.vector.crs import crs_name
from lib.vector.layer import LayerWork
from lib.vector.plan import Layout, Task
from lib.vector.probe import first_batches
from lib.vector.row_checks import CHORD_SHARE, STEP_DEGREES
from lib.vector.sinks import SINKS, VectorSink, sink_for, target_of
from lib.vector.sources import VectorSource, given_by, open_source
from lib.vector.sources.facts import LayerFacts
from lib.vector.sources.typed import as_it_is
from lib.vector.steps import Step, Tally, columns_of, load, pushed, result_of, steps_of
from lib.vector.stream import Pass, ahead_of, apply, plain, stream

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
        UsageError: the user's function cannot be imported, or a filter says nothing of this layer.
    """
    with ThreadPoolExecutor(1, "swath-imports") as pool:
        pool.submit(load, job)  # beside SQLite's look, which lets go of the interpreter; what fails fails again below
        source = open_source(job.source, job.layer, job.label, job.resources.chunk_rows, given_by(job))
    steps, layer = steps_of(job, source.facts)
    source, ways = pushed(source, steps)
    if (kind := SINKS.get(job.driver)) and kind.needs_declared:
        layer = as_it_is(layer, source.facts)
    sink = sink_for(job.driver, layer, target_of(job))
    crs_name(layer.crs)  # now: the checks ask PROJ of a CRS without a number, and what it weighs is measured then
    if verify.recomputes(job, steps):
        importlib.import_module("lib.vector.recompute")  # now: what it weighs is measured then
    return VectorWork(job, room, source, sink, steps, layer, ways)


class VectorWork(LayerWork):
    """A filter of one layer, prepared."""

    def __init__(
        self,
        job: VectorJob,
        room: Room,
        source: VectorSource,
        sink: VectorSink,
        steps: Sequence[Step],
        layer: LayerFacts,
        ways: Mapping[str, str],
    ) -> None:
        self._job, self._source, self._sink, self._steps, self._layer = job, source, sink, steps, layer
        self._ways = dict(ways)
        self._task = Task(source.facts, sink, steps, job.resources)
        self.calls_function = job.function is not None
        self._looked: Plan | None = None
        super().__init__(room, [self._task])

    def first(self) -> Plan:
        """The plan by header and own terms.

        Raises:
            DiskRefused: the output cannot fit.
        """
        planning.check_disk(self._source.facts, self._sink, self.room.disk_free_bytes, keeps_all=not self._steps)
        return super().first()

    def look(self) -> Plan:
        """The plan by the first batch and the heaviest, in the smallest layout; nothing is written. A second look is the first.

        Raises:
            DataError: they do not decode.
        """
        if self._looked is None:
            self._looked = self._look()
        return self._looked

    @property
    def _sinks_bytes(self) -> int:
        """What the sink holds by its facts, for who has not written yet."""
        return int(self._sink.own_bytes + self._sink.feature_copies * planning.large(self._source.facts))

    def _look(self) -> Plan:
        least = planning.choose(self._task, 0)
        self.probe.heaviest(self._source, least, self._see)
        first_batches(self._source, least, self._see)
        held = self._sinks_bytes
        reached = self.probe.reached_bytes + held + _RUN_BYTES
        self.measured = reached, least.batch_bytes, [least]

        def grown(layout: Layout) -> int:
            return planning.grown(self._task, reached, least, layout)

        def takes(layout: Layout) -> int:
            return sum(planning.terms_of(self._task, layout, self.room, grown(layout), least.batch_bytes).values())

        layout = planning.choose(self._task, self.room.budget_bytes, takes)
        self.layouts = [layout]
        most = grown(layout)
        if layout.rows > least.rows:  # what was guessed for more rows, measured: a run measures no less
            first_batches(self._source, layout, self._see)
            ahead = layout.is_ahead * layout.batch_bytes
            most = min(most, self.probe.reached_bytes + held + _RUN_BYTES + ahead)
        return self.plan_of(most, least.batch_bytes)

    def _see(self, batch: Any) -> None:
        self._sink.conform(apply(batch, self._steps, self._tally()))

    def _tally(self) -> Tally:
        return Tally(bad=BadRows(self._source.facts.label, self._job.skip_bad))

    def plan_of(self, reached: int, freed: int, **more: Any) -> Plan:
        """The plan, with what the output takes and must be."""
        lower_by = planning.lower_by(self._task, self.layouts[0], planning.choose(self._task, 0))
        shown = self._source.facts.shown | {key: fact for step in self._steps for key, fact in step.facts.items()}
        shown |= {"predicates": self._ways} if self._ways else {}
        shown |= {"notes": list(self._source.facts.notes)} if self._source.facts.notes else {}
        shown |= {"field_changes": list(self._sink.changes)} if self._sink.changes else {}
        more |= {
            "disk_bytes": self._sink.disk(self._source.facts) + self._sink.copied_bytes,
            "lower_by": lower_by,
            "facts": shown,
        }
        return super().plan_of(reached, freed, **more, expected=self._expected())

    def run(self, bench: Bench) -> Outcome:
        """Stream the layer through the steps into the staged file, reconcile the counts, check the output.

        Raises:
            DataError: the source does not decode, or gave another number of features than it has.
            OutputError: the disk or the format refused.
            FunctionError: the user's function.
        """
        assert bench.staged is not None  # noqa: S101 - for mypy: a vector job writes
        facts, tally, notes = self._source.facts, self._tally(), self._said_before()
        counting = Counting(self._source)
        with ogr.collected(notes):
            if self.calls_function:  # only now: before the first plan nothing held it
                self.look()
            self.probe.heaviest(self._source, self.layouts[0], self._see)
            self._index_beside()
            self._write(bench, tally, notes)
        notes += self._sink.met.notes
        ogr.release()
        counted = counting.count()
        reconcile(self._source, tally, counted)
        table = counted.table
        notes += [
            f"{facts.label}: field {name!r} has text among its numbers, in row {row} first: OGR reads it as 0"
            for name, row in (table.texts if table else {}).items()
        ]
        for step in self._steps:
            notes += step.notes(tally)
        notes += [*tally.bad.notes, *_arcs(facts.label, tally.linearised)]
        result = self._result(tally)
        bench.meter.finish()
        bench.meter.phase("verify", patient=True)
        is_judged = verify.recomputes(self._job, self._steps) and not self._sink.features_before
        steps = self._steps if is_judged else ()
        verify.basic(str(bench.staged), self._expected(), result, bench, steps)
        return Outcome(
            result=result,
            checks=tuple(bench.checks),
            warnings=tuple(dict.fromkeys(notes)),
            driver=self._sink.driver,
        )

    def _said_before(self) -> list[str]:
        """What is to be said of the layer whatever its features are."""
        facts, notes = self._source.facts, list(self._source.facts.notes)
        if facts.geometry_name and not facts.crs:
            notes.append(f"{facts.label} has no CRS; the output has none either")
        if facts.is_crs_assumed:
            notes.append(f"{facts.label} has no CRS: it is assumed to be in {crs_name(facts.crs)}")
        if self._sink.names_layers and self._sink.layer != facts.layer:
            notes.append(f"{facts.label}: layer {facts.layer!r} is called {self._sink.layer!r} in the output")
        return notes

    def _result(self, tally: Tally) -> dict[str, Any]:
        """The result, when all is counted."""
        return {
            "layer": self._sink.layer,
            "features_read": tally.read + tally.dropped[DRIVER],
            "features_kept": tally.kept,
            "features_before": self._sink.features_before,
            "batches": tally.batches,
            "features_linearised": tally.linearised,
            **result_of(self._steps, tally),
            **tally.bad.result,
            "predicates": self._ways,
            **self._source.skipped,
        }

    def _index_beside(self) -> None:
        """Have the index built beside the pass, where the first rows say that it is a large one, and there is the memory."""
        facts, layout = self._source.facts, self.layouts[0]
        # Of a part that a driver looks for, the first rows may take as long as all.
        if not (layout.is_ahead and self._source.is_whole) or self._sink.index_beside(facts) is None:
            return
        rows, tally = 0, self._tally()

        def see(batch: Any) -> None:
            nonlocal rows
            rows, tally.kept = batch.num_rows, apply(batch, self._steps, tally).num_rows

        if self._steps:
            first_batches(self._source, layout, see)
        kept = facts.features * tally.kept // rows if rows else facts.features
        index = self._sink.index_beside(replace(facts, features=kept))
        # What a plan needs is for all features: the first rows are only the first.
        if index is not None and (index := self._sink.index_beside(facts)) is not None:
            beside = replace(layout, index=index)
            self.layouts = [beside if planning.needs(self._task, beside) <= self._left_bytes else layout]

    def _write(self, bench: Bench, tally: Tally, notes: list[str]) -> None:
        assert bench.staged is not None  # noqa: S101 - for mypy
        facts, sink, layout = self._source.facts, self._sink, self.layouts[0]
        try:
            with (
                ogr.configured(**sink.config(layout.index)),
                self._source.batches(
                    layout.rows, layout.batch_bytes, fids=sink.keeps_fids, columns=columns_of(self._steps)
                ) as reader,
                ahead_of(reader, facts.label) if layout.is_ahead else nullcontext(plain(reader, facts.label)) as take,
            ):
                doing = Pass(self._steps, sink, tally, facts.geometry_name, layout.batch_bytes, self._source.is_whole)
                after = self._settler(bench, tally)
                batches = stream(take, doing, bench.meter, label=facts.label, chunks=self.chunks(), after=after)
                schema = reader.schema
                for step in self._steps:
                    schema = step.schema(schema)
                notes += self._sink.lost(schema)
                sink.write(bench.staged, schema, batches, self._provenance(), layout.index)
        except Exception as error:
            if tally.error is not None:
                raise tally.error from error
            if isinstance(error, MemoryError):
                raise
            short = space_is_short(bench.staged, sink.disk(facts))
            raise ogr.translated(error, facts.label, writing=True, space_is_short=short) from error

    def _provenance(self) -> dict[str, str]:
        """What the output says of its origin: of a folder the size of what is in it, of a remote file what its server says."""
        if (state := self._source.origin.state) is not None:
            return provenance.texts(self._job, state._asdict())
        is_folder = Path(self._job.source).is_dir()
        return provenance.texts(self._job, {"bytes": self._source.facts.source_bytes} if is_folder else None)

    def _settler(self, bench: Bench, tally: Tally) -> Callable[[int | None], None]:
        """What takes the final plan to the bench, once: when the first batches are in the staged file."""
        settled = False
        features = self._source.facts.features
        space = Space(bench.staged or Path(), self._source.facts.label)

        def after(batch_bytes: int | None) -> None:
            nonlocal settled
            space.look(tally.read, features)
            if settled:
                return
            if batch_bytes is not None:
                self.probe.written(batch_bytes)
            is_over = batch_bytes is None or tally.read == features
            is_seen = tally.kept and self.probe.read_bytes >= _PROBED_BYTES and self.probe.is_steady
            if is_over or is_seen or tally.batches >= _MOST_PROBED:
                settled = True
                bench.settle(self._settled(is_over=is_over, is_kept=tally.kept > 0))

        return after

    def _settled(self, *, is_over: bool, is_kept: bool) -> Plan:
        """The final plan by what was reached; with what the sink takes of the largest feature, where that has not come yet."""
        sink, large = self._sink, planning.large(self._source.facts)
        reached = beside = max(0, self.probe.reached_bytes - sink.met.gathered_bytes)
        if not is_over:
            reached += 0 if is_kept else sink.own_bytes
            # Of several large ones, one after the other, one more is held (lib/MEASURED.md, "The probe of layers").
            is_new = self.probe.written_bytes < _NEARLY * large
            reached += int(sink.feature_copies * large) if is_new else large
        freed = self.probe.freed_bytes()
        self.measured = reached, freed, self.layouts
        plan = self.plan_of(reached, freed)
        # The next job under a scarce limit looks before it writes: the limit that is named must do for that, too.
        self.measured = max(reached, beside + self._sinks_bytes + _RUN_BYTES), freed, self.layouts
        return replace(plan, smallest_limit_bytes=max(plan.smallest_limit_bytes, self.smallest()))

    def _expected(self) -> dict[str, Any]:
        """What the output must be."""
        layer, sink = self._layer, self._sink
        return {
            "driver": sink.driver,
            "layer": sink.layer,
            "fields": sink.fields(layer),
            "features_before": sink.features_before,
            "layers_beside": sink.layers_beside,
            "geometry_type": sink.geometry_type,
            "crs": sink.crs,
            "largest_feature_bytes": layer.sizes.largest_bytes,
        }


def _arcs(label: str, rows: int) -> list[str]:
    """What is to be said of curves."""
    words = f"{label}: curves of {rows} features became chords of at most {STEP_DEGREES:g} degrees, at most"
    return [f"{words} {CHORD_SHARE:.2%} of an arc's radius away from it"] if rows else []
