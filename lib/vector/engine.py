"""The vector engine: one pass over Arrow batches, from source to sink, within what was planned.

`plan` opens headers; `run` streams. Pure parts are in `plan.py`, `area.py` and `wkb.py`; I/O in `ogr.py`, `facts.py`, `counts.py`
(with `flatgeobuf.py` and `texts.py`) and `sinks.py`; the checks that end a run in `verification.py`.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from lib import provenance
from lib.errors import DataError, SourceError, VerificationFailed
from lib.jobs import VectorJob
from lib.memory.work import Bench, Room, load_function
from lib.reports import Outcome, Plan
from lib.vector import counts, ogr, verification
from lib.vector.area import AreaMethod, Bounds, area_method
from lib.vector.batches import Selection, Tally, selected
from lib.vector.facts import LayerFacts, facts_from_record, facts_record, read_facts
from lib.vector.plan import check_disk, disk_bytes, fit, lower_by
from lib.vector.sinks import Sink, sink_for
from lib.vector.terms import RTREE_LEAST_BYTES

__all__ = ["plan", "run", "selection_of"]


def plan(job: VectorJob, room: Room) -> Plan:
    """Read the header and plan.

    Raises:
        SourceError: it is no usable vector layer.
        DestinationError: no such sink.
        MemoryRefused: the budget is too small.
        DiskRefused: the output may not fit.
    """
    resources = job.resources
    facts = read_facts(job.source, job.layer, job.label, resources.chunk_rows)
    sink = sink_for(job.driver, facts)
    method = _method(job, facts)
    if job.function:
        load_function(job.function)
    asked: dict[str, Any] = {
        "sink": job.driver,
        "measures_area": method is not None,
        "baseline_bytes": room.baseline_bytes,
        "most_rows": resources.chunk_rows,
        "most_batch_bytes": resources.max_chunk_bytes,
        "rows_fixed": resources.chunk_rows_fixed,
        "margin_bytes": resources.margin_bytes,
    }
    chosen = fit(facts, budget_bytes=room.budget_bytes, **asked)
    disk = disk_bytes(facts, sink.driver)
    keeps_all = method is None and not job.function
    check_disk(facts, sink.driver, room.disk_free_bytes, keeps_all=keeps_all)
    return Plan(
        limit_bytes=room.limit_bytes,
        projected_bytes=chosen.projected_bytes,
        baseline_bytes=room.baseline_bytes,
        disk_bytes=disk,
        smallest_limit_bytes=chosen.smallest_bytes,
        batch_rows=chosen.rows,
        chunks=-(-facts.count // chosen.rows) if facts.count > 0 else 0,
        terms=chosen.terms,
        lower_by=lower_by(facts, chosen, **asked),
        expected={
            "driver": sink.driver,
            "layer": sink.layer,
            "fields": [list(pair) for pair in zip(facts.fields, facts.field_types, strict=True)],
            "geometry_type": sink.geometry_type,
            "crs": sink.crs,
            "largest_feature_bytes": facts.sizes.feature_bytes,
        },
        facts=facts.shown
        | {"layer_facts": facts_record(facts), "batch_bytes": chosen.batch_bytes, "rtree_bytes": chosen.rtree_bytes},
    )


def _method(job: VectorJob, facts: LayerFacts) -> AreaMethod | None:
    if job.min_area_sqm is None and job.max_area_sqm is None:
        return None
    if facts.geometry_name is None:
        raise SourceError(
            f"{facts.label}: layer {facts.layer} has no geometries, so no areas", hint="leave the area out"
        )
    return area_method(facts.crs, job.area, facts.label)


def selection_of(job: VectorJob, facts: LayerFacts) -> Selection:
    """What a job keeps, as a selection over batches."""
    return Selection(
        label=facts.label,
        geometry_column=facts.geometry_name,
        method=_method(job, facts),
        bounds=Bounds(job.min_area_sqm, job.max_area_sqm),
        function=load_function(job.function) if job.function else None,
        function_name=job.function or "",
    )


def run(job: VectorJob, plan: Plan, bench: Bench) -> Outcome:
    """Stream the layer through the filter into the staged file, reconcile the counts, check the output.

    Raises:
        DataError: the source does not decode, or gave another number of features than it has.
        OutputError: the disk or the format refused.
        FunctionError: the user's function.
        VerificationFailed: the output is not what was planned.
    """
    assert bench.staged is not None  # noqa: S101 - for mypy: a vector job writes
    facts = facts_from_record(plan.facts["layer_facts"])
    sink = sink_for(job.driver, facts)
    selection = selection_of(job, facts)
    tally, notes = Tally(), list(facts.notes)
    if facts.geometry_name and not facts.crs:
        notes.append(f"{facts.label} has no CRS; the output has none either")
    with ogr.configured(**_config(plan, facts)), ogr.collected(notes):
        _stream(facts, sink, selection, plan, bench, tally, provenance.texts(job))
    pa.default_memory_pool().release_unused()
    _reconcile(facts, tally)
    if tally.wide:
        notes.append(
            f"{facts.label}: edges of {tally.wide} features span 180° or more of longitude: "
            "their geodesic area is that of the other side, the short way around"
        )
    result = {
        "layer": sink.layer,
        "features_read": tally.read,
        "features_kept": tally.kept,
        "features_null_area": tally.without_area,
        "batches": tally.batches,
        "area_mode": selection.method.mode if selection.method else None,
        "arbitrated": tally.arbitrated,
    }
    bench.meter.finish()
    bench.meter.phase("verify", patient=True)
    verification.basic(bench.staged, facts.source, job, plan.expected, result, bench)
    if failed := bench.failed_checks:
        raise VerificationFailed(
            f"{facts.label}: check {failed[0].name} failed: {failed[0].detail}", check=failed[0].name
        )
    return Outcome(result=result, checks=tuple(bench.checks), warnings=tuple(notes), driver=sink.driver)


def _config(plan: Plan, facts: LayerFacts) -> dict[str, str | None]:
    """GDAL's configuration for the pass.

    The R-tree is built after it: built beside it in a thread it takes 34 MiB more, whatever its limit (a million parcels).
    """
    return ogr.reading(facts.driver, plan.facts["batch_bytes"], facts.sizes.feature_bytes) | {
        "OGR_GPKG_ALLOW_THREADED_RTREE": "NO",
        "OGR_GPKG_MAX_RAM_USAGE_RTREE": str(max(plan.facts["rtree_bytes"], RTREE_LEAST_BYTES)),
    }


def _stream(
    facts: LayerFacts,
    sink: Sink,
    selection: Selection,
    plan: Plan,
    bench: Bench,
    tally: Tally,
    metadata: dict[str, str],
) -> None:
    assert bench.staged is not None  # noqa: S101 - for mypy
    try:
        rows = facts.at_most(plan.batch_rows or 1)
        with ogr.open_batches(facts.source, facts.layer, rows, fids=sink.keeps_fids) as (_, reader):
            batches = selected(reader, selection, sink.conform, bench.meter, tally, plan.chunks)
            sink.write(bench.staged, reader.schema, batches, metadata)
    except Exception as error:
        if tally.error is not None:
            raise tally.error from error
        if isinstance(error, MemoryError):
            raise
        short = ogr.space_is_short(bench.staged, plan.disk_bytes)
        raise ogr.translated(error, facts.label, writing=True, space_is_short=short) from error


def _reconcile(facts: LayerFacts, tally: Tally) -> None:
    """Features read against what the source has by another count; a partial read must not pass as a whole one."""
    has: Any = facts.sizes.counted if facts.sizes.counted >= 0 else None
    if has is None:
        has = counts.independent_count(Path(facts.source), facts.driver, facts.layer, facts.label)
    if has is not None and has != tally.read:
        raise DataError(
            f"{facts.label}: layer {facts.layer} has {has} features, but {tally.read} could be read",
            hint="the source is damaged, or OGR cannot stream this format: try ogr2ogr copy.gpkg SOURCE",
            features=has,
            features_read=tally.read,
        )
