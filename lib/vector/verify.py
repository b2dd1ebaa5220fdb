"""Checks of a vector output against its source: structure and counts always, recomputation by the plain path (`recompute.py`).

`basic` ends every run; `prepare` is a job of its own with flat memory: every row decodes, a seeded sample satisfies the
predicate, and sampled batches of the source are judged again, so that rows lost, doubled or mixed up are seen. What is found is
recorded on the bench; nothing here raises for it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import provenance
from lib.diagnosis import one_line
from lib.errors import SourceError
from lib.jobs import Resources, VectorJob, VerifyJob
from lib.memory.work import Bench, Room
from lib.reports import Outcome, Plan
from lib.units import MIB
from lib.vector import ogr, reading
from lib.vector.crs import as_esri, crs_name, same_crs
from lib.vector.layer import LayerWork
from lib.vector.names import geometry_column
from lib.vector.plan import Task
from lib.vector.probe import first_batches
from lib.vector.sinks import SINKS
from lib.vector.sources import VectorSource, given_by, open_source, sqlite, texts
from lib.vector.steps import Row, Step, UndecidedError, outcome, steps_of

# A text sequence of one feature is a GeoJSON, too, and OGR takes it for that.
_ONE_LINE = "GeoJSON", "GeoJSONSeq"
_BASIC_ROWS = 16
_BASIC_BYTES = 2 * MIB
_FULL_ROWS = 2048
_SOURCE_BATCHES = 4
_SOURCE_ROWS = 1024  # of each: `recompute.SAMPLED` in all
_SEED = 20240229
_WHICH_LAYER = "name the report of the job that wrote one of them with --report: it says which"
_MOST_ROWS = 4096
# Digests, decoded geometries and Python objects of a batch, for each of its bytes.
_PER_BATCH_BYTE = 9
# What a run takes beside what a look sees: traces, the meter, digests, and what GEOS freed and cannot use again (5 MiB above a
# projection without it, land-cover patches of the demo).
_RUN_BYTES = 8 * MIB


def read_provenance(path: str | Path) -> dict[str, Any] | None:
    """The record of the job that wrote an output, without resources and folders; None where it says nothing."""
    try:
        info = reading.read_info(str(path))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - no dataset: no provenance
        return None
    # Of the layer; a GeoPackage's was once the dataset's.
    found = (info["dataset_metadata"] or {}) | (info["layer_metadata"] or {})
    if info["driver"] == "GeoJSON":
        found |= texts.first_members(Path(path), provenance.KEYS)
    return provenance.job_in(found, "vector")


def basic(
    output: str, expected: Mapping[str, Any], result: Mapping[str, Any] | None, bench: Bench, steps: Sequence[Step]
) -> None:
    """Structure, counts and a few recomputed rows; each as a check on the bench.

    Args:
        output: the file written.
        expected: the plan's `expected`; empty checks that it opens, alone.
        result: the engine's result, for its counts.
        bench: where checks go.
        steps: what was done, where that is to be recomputed.
    """
    info = _structure(output, expected, result, bench)
    if info is None or not _is_judged_again(steps):
        return
    needs_values = any(step.needs_values for step in steps)
    batch, name = _first_rows(output, info, int(expected.get("largest_feature_bytes", 0)), None if needs_values else [])
    _Sample(steps).judge_all(batch, name).check(bench)


def recomputes(job: VectorJob, steps: Sequence[Step]) -> bool:
    """Whether rows of a job's output are judged by the steps' plain paths when it ends."""
    return job.verify != "none" and SINKS[job.driver].decimals is None and _is_judged_again(steps)


def _is_judged_again(steps: Sequence[Step]) -> bool:
    """Whether a row of the output can be put through the steps again: all are filters, one of which decides."""
    return all(step.is_filter for step in steps) and any(step.is_decided for step in steps)


@dataclass(slots=True)
class _Sample:
    """Rows of the output that are judged by the plain path of the steps that were done."""

    steps: Sequence[Step]
    rows: int = 0
    wrong: int = 0

    def judge(self, row: Row) -> None:
        """Take a row of the output in."""
        self.rows += 1
        with suppress(UndecidedError):
            self.wrong += outcome(self.steps, row) is None

    def judge_all(self, batch: Any, name: str | None) -> "_Sample":
        """Take all rows of a batch in, one by one: a large geometry is not held twice."""
        from lib.vector.recompute import rows_of

        for at in range(batch.num_rows if batch else 0):
            self.judge(rows_of(batch.slice(at, 1), name)[0])
        return self

    def check(self, bench: Bench) -> None:
        """Record what was found."""
        names = " and ".join(step.name for step in self.steps if step.is_decided)
        bench.check(
            "areas" if names == "area" else "rows",
            self.wrong == 0,
            f"{self.wrong} of {self.rows} rows judged again do not satisfy {names}",
        )


def _geometries(batch: Any, name: str | None) -> Any:
    """A batch's geometries, decoded; none where there is no such column."""
    from lib.vector.recompute import decoded

    return () if name is None else decoded(batch.column(batch.schema.get_field_index(name)).to_pylist())


def _first_rows(
    output: str, info: dict[str, Any], largest_bytes: int, columns: Sequence[str] | None
) -> tuple[Any, str | None]:
    """The first rows, a few MiB or one of them, and their geometry column; the reader, which has copies, is closed by then."""
    most_rows = max(1, min(_BASIC_ROWS, _BASIC_BYTES // max(largest_bytes, 1)))
    with reading.open_batches(output, info["layer_name"], most_rows, columns) as (meta, reader):
        return next(iter(reader), None), _geometry_of(meta)


def _geometry_of(info: dict[str, Any]) -> str | None:
    return geometry_column(info) if info["geometry_type"] else None


def _structure(
    output: str, expected: Mapping[str, Any], result: Mapping[str, Any] | None, bench: Bench
) -> dict[str, Any] | None:
    """Open the output and compare its description; None where it does not open."""
    try:
        info = reading.read_info(output, _layer_in(expected), count=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it does not open
        is_empty = _is_empty_text(output, expected) and not (result or {}).get("features_kept")
        bench.check("opens", passed=is_empty, detail="no features, no bytes" if is_empty else one_line(error))
        return None
    bench.check("opens", passed=True, detail=f"{info['driver']}, layer {info['layer_name']}")
    if expected:
        sink, says = SINKS[expected["driver"]], {"driver": "driver"}
        says |= {"layer": "layer_name"} if sink.names_layers else {}
        says |= {"geometry type": "geometry_type"} if sink.declares_geometry else {}
        for name, key in says.items():
            wanted = expected[name.replace(" ", "_")]
            is_right = info[key] == wanted or (info[key], wanted) == _ONE_LINE
            bench.check(name, is_right, f"{info[key]}, planned {wanted}")
        if sink.declares_fields or info["features"]:
            _check_fields(info, expected, bench)
        found, wanted = info["crs"], expected["crs"]
        is_same = (
            found in sink.only_crs
            or same_crs(found, wanted)
            or (sink.is_esri and wanted is not None and same_crs(found, as_esri(wanted)))
        )
        bench.check("CRS", is_same, f"{crs_name(found)}, planned {crs_name(wanted)}")
    if result:
        kept, before = result["features_kept"], int(expected.get("features_before", 0))
        and_before = f" beside {before} that were there" if before else ""
        detail = f"{info['features']} features in the output, {kept} were kept{and_before}"
        bench.check("count", info["features"] == before + kept, detail)
        read, bad = result.get("features_read", kept), result.get("features_bad", 0)
        dropped = sum(result.get("features_dropped", {}).values())
        if "features_dropped" in result:
            bench.check("rows", read == kept + dropped + bad, f"{read} read, {kept} kept, {dropped} dropped, {bad} bad")
    if beside := expected.get("layers_beside"):
        counts = {name: sqlite.count(Path(output), name, Path(output).name) for name in beside}
        bench.check("other layers", counts == beside, f"{counts} features, {beside} before")
    return info


def _is_empty_text(output: str, expected: Mapping[str, Any]) -> bool:
    """Whether an output is a GeoJSON text sequence of no features, which OGR does not know as such."""
    return expected.get("driver") == "GeoJSONSeq" and Path(output).stat().st_size == 0


def _layer_in(expected: Mapping[str, Any]) -> str | None:
    """The layer's name, where a format has others than the file's, which may be another one by now."""
    is_named = bool(expected) and SINKS[expected["driver"]].names_layers
    return expected["layer"] if is_named else None


def _check_fields(info: dict[str, Any], expected: Mapping[str, Any], bench: Bench) -> None:
    names = [name for name, _ in expected["fields"]]
    found = list(map(str, info["fields"]))
    bench.check("fields", found == names, f"{len(found)} fields" if found == names else f"{found}, planned {names}")
    becomes = SINKS[expected["driver"]].becomes
    types = dict(zip(found, info["ogr_types"], strict=True))
    wrong = []
    for name, typed in expected["fields"]:
        wanted = typed.partition(":")[0]
        if name in types and types[name] not in (wanted, *becomes.get(wanted, ())):
            wrong.append(f"{name} is {types[name]}, planned {wanted}")
    bench.check("field types", not wrong, "; ".join(wrong) or "as planned")


def prepare(job: VerifyJob, room: Room) -> "VerifyWork":
    """Open the output, and the source where the work that wrote it is known.

    Raises:
        SourceError: one is no usable vector layer.
    """
    resources = job.resources.model_copy(update={"chunk_rows": min(job.resources.chunk_rows, _MOST_ROWS)})
    expected = job.expected or {}
    is_empty = _is_empty_text(job.output, expected) and job.work is not None
    if is_empty:  # no layer to OGR: there is nothing to read
        job = job.model_copy(update={"level": "basic"})
    rows = resources.chunk_rows
    sources = [] if is_empty else [_opened_output(job.output, _layer_in(expected), rows)]
    steps: list[Step] = []
    if isinstance(job.work, VectorJob):
        sources.append(open_source(job.source, job.work.layer, job.label, rows, given_by(job.work)))
        steps = [] if job.work.verify == "none" else steps_of(job.work, sources[-1].facts)[0]
    return VerifyWork(job, room, sources, steps, resources)


def _opened_output(output: str, layer: str | None, rows: int) -> VectorSource:
    """The layer of an output; where it has several, the job's report says which."""
    try:
        return open_source(output, layer, Path(output).name, rows)
    except SourceError as error:
        if layer is None and error.facts.get("layers"):
            raise SourceError(str(error), hint=_WHICH_LAYER, **error.facts) from error
        raise


class VerifyWork(LayerWork):
    """A full verification: samples of the source's batches, then all of the output's, one at a time."""

    def __init__(
        self, job: VerifyJob, room: Room, sources: Sequence[VectorSource], steps: Sequence[Step], resources: Resources
    ) -> None:
        self._job, self._sources, self._steps = job, sources, steps
        super().__init__(room, [Task(each.facts, None, (), resources, _PER_BATCH_BYTE) for each in sources])

    def look(self) -> Plan:
        """The plan by the first and the heaviest batches of both layers, judged as all will be."""
        return self._measure()

    def run(self, bench: Bench) -> Outcome:
        """Structure, then a sample of the source, then every row of the output."""
        expected = self._job.expected or {}
        with ogr.collected([]):  # what OGR warns of the source, the job that read it has said
            bench.settle(self._measure())
            bench.meter.start(self.chunks())
            if self._job.level == "basic":
                basic(self._job.output, expected, self._job.result, bench, self._steps)
            elif (info := _structure(self._job.output, expected, self._job.result, bench)) is not None:
                self._recompute(info, bench)
        ogr.release()
        bench.meter.finish()
        return Outcome(result={"kind": "vector"}, checks=tuple(bench.checks))

    def _measure(self) -> Plan:
        """Judge the first and the heaviest batch of each layer as all will be; what comes of it is thrown away."""
        import numpy.random  # noqa: F401 - samples are drawn with it: a part of what is measured

        from lib.vector.recompute import Membership, kept_bytes, row_digests

        for source, layout in zip(self._sources, self.layouts, strict=True):

            def see(batch: Any, source: VectorSource = source) -> None:
                fields, name = list(source.facts.fields), source.facts.geometry_name
                self._judge_source(batch, source, fields, self._members() if self._has_work else Membership())
                geometries = _geometries(batch, name)
                Membership().see(row_digests(batch, name, fields), geometries if name else [None] * batch.num_rows)

            self.probe.heaviest(source, layout, see)
            first_batches(source, layout, see)
        kept = kept_bytes(self._sources[-1].facts) if self._has_work and self._members().by_geometry else 0
        self.measured = self.probe.reached_bytes + _RUN_BYTES + kept, 0, self.layouts
        return self.plan_of(*self.measured[:2])

    @property
    def _has_work(self) -> bool:
        """Whether it is known what made the output of which source."""
        return isinstance(self._job.work, VectorJob)

    def _recompute(self, info: dict[str, Any], bench: Bench) -> None:
        from lib.vector.recompute import comparable_fields

        types = {str(name): str(typed) for name, typed in zip(info["fields"], info["ogr_types"], strict=True)}
        expected = self._job.expected or {}
        exact = SINKS[expected["driver"]].exact if expected else ()
        fields = comparable_fields(expected.get("fields", []), types, exact)
        members = None
        if self._is_judged(info):
            of_source = set(self._sources[-1].facts.fields)
            fields = [name for name in fields if name in of_source]
            members = self._members()
            self._sample_source(fields, members, bench)
        self._read_output(info, fields, members, bench)
        if members is not None:
            bench.check(
                "membership",
                members.missing == 0 and (members.strangers == 0 or int(expected.get("features_before", 0)) > 0),
                f"{members.rows} source rows filtered again: {members.missing} are missing, "
                f"{members.strangers} should not be there",
            )

    def _members(self) -> Any:
        """Nothing yet of the source; rows are known by their geometries as far as steps and the format keep them."""
        from lib.vector.recompute import Membership

        work = self._job.work
        assert isinstance(work, VectorJob)  # noqa: S101 - for mypy: else nothing is judged
        sink, is_kept = SINKS[work.driver], all(step.keeps_geometry for step in self._steps)
        by_geometry = not is_kept or sink.decimals is not None or sink.turns_rings
        return Membership(
            by_geometry=by_geometry,
            has_bounds=is_kept,
            decimals=sink.decimals,
            # Of attributes alone other rows may have the same; where steps change rows, another may look like this one.
            claims_dropped=not by_geometry and all(step.is_filter for step in self._steps),
        )

    def _is_judged(self, info: dict[str, Any]) -> bool:
        """Whether rows of the source can be judged: a function's own predicate is not known here."""
        work = self._job.work
        if not isinstance(work, VectorJob) or work.verify == "none" or not info["geometry_type"]:
            return False
        return bool(self._job.expected) and (not self._steps or any(step.is_decided for step in self._steps))

    def _sample_source(self, fields: list[str], members: Any, bench: Bench) -> None:
        """Judge rows of some source batches, chosen by a seed, by the plain path."""
        from numpy.random import default_rng

        source, layout = self._sources[-1], self.layouts[-1]
        generator = default_rng(_SEED)
        share, taken = min(1.0, _SOURCE_BATCHES * layout.rows / max(source.facts.features, 1)), 0
        with ogr.reads(source.facts.label), source.batches(layout.rows, layout.batch_bytes) as reader:
            for batch in reader:
                if taken < _SOURCE_BATCHES and generator.random() < share:
                    taken += 1
                    self._judge_source(batch, source, fields, members)
                bench.meter.chunk()

    def _judge_source(self, batch: Any, source: VectorSource, fields: list[str], members: Any) -> None:
        from lib.vector.recompute import row_digests, rows_of

        name, rows = source.facts.geometry_name, batch.slice(0, _SOURCE_ROWS)
        in_digest = None if members.by_geometry else name
        work = self._job.work
        sink = SINKS.get(work.driver) if isinstance(work, VectorJob) else None
        is_multi = sink.promotes_of(source.facts) if sink else source.facts.is_multi_unsure
        is_multi |= (self._job.expected or {}).get("geometry_type") == f"Multi{source.facts.geometry_type}"
        digests = row_digests(rows, in_digest, fields, promotes=is_multi, steps=self._steps)
        members.add(digests, rows_of(rows, name), self._steps)

    def _read_output(self, info: dict[str, Any], fields: list[str], members: Any, bench: Bench) -> None:
        """Decode every row; judge a seeded sample again; look for the rows of the source's sample."""
        import numpy as np

        from lib.vector.recompute import row_digests, rows_of

        source, layout, name = self._sources[0], self.layouts[0], _geometry_of(info)
        generator = np.random.default_rng(_SEED)
        sample = _Sample(self._steps)
        before = int(
            (self._job.expected or {}).get("features_before", 0)
        )  # rows of another job, which nothing is known of
        is_judged = isinstance(self._job.work, VectorJob) and recomputes(self._job.work, self._steps) and not before
        share = min(1.0, _FULL_ROWS / max(int(info["features"]), 1))
        rows, trouble = 0, ""
        try:
            with source.batches(layout.rows, layout.batch_bytes) as reader:
                for batch in reader:
                    rows += batch.num_rows
                    geometries = _geometries(batch, name)
                    chosen: Any = np.flatnonzero(generator.random(batch.num_rows) < share) if is_judged else ()
                    for at in chosen:
                        sample.judge(rows_of(batch.slice(at, 1), name)[0])
                    if members is not None:
                        in_digest = None if members.by_geometry else name
                        members.see(row_digests(batch, in_digest, fields), geometries)
                    bench.meter.chunk()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a row that does not decode, in OGR, Arrow or GEOS
            trouble = one_line(error)
        complete = not trouble and rows == info["features"]
        bench.check("decodes", complete, trouble or f"{rows} of {info['features']} rows decode")
        if is_judged:
            sample.check(bench)
