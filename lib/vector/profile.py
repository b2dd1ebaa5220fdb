"""Profiling a vector source: read a sample of its batches as the engine would, and suggest a limit and a batch size.

What is measured is reading and measuring areas; a sink adds to it, so the suggestion is never below what the planner
projects for a GeoPackage of all features.
"""

import pyarrow as pa

from lib.errors import SourceError
from lib.jobs import ProfileJob
from lib.memory.proc import process_memory
from lib.memory.work import Bench, Room
from lib.reports import Outcome, Plan
from lib.units import MIB, mib
from lib.vector import ogr
from lib.vector.area import AreaMethod, Bounds, area_method, decide
from lib.vector.facts import LayerFacts, facts_from_record, facts_record, read_facts
from lib.vector.plan import fit
from lib.vector.wkb import column_of

__all__ = ["plan", "run"]

_HEADROOM = 1.2
# OGR reads vectors past GDAL's block cache; this much is for drivers that use it (raster-backed GeoPackages).
_CACHE_MB = 16


def plan(job: ProfileJob, room: Room) -> Plan:
    """Read the header and plan the sample.

    Raises:
        SourceError: it is no usable vector layer.
        MemoryRefused: the budget is too small.
    """
    resources = job.resources
    facts = read_facts(job.source, job.layer, job.label, resources.chunk_rows)
    chosen = fit(
        facts,
        sink="",
        measures_area=facts.geometry_name is not None,
        baseline_bytes=room.baseline_bytes,
        budget_bytes=room.budget_bytes,
        most_rows=resources.chunk_rows,
        most_batch_bytes=resources.max_chunk_bytes,
        rows_fixed=resources.chunk_rows_fixed,
        margin_bytes=resources.margin_bytes,
        most_batches=job.sample_chunks,
    )
    whole = -(-facts.count // chosen.rows) if facts.count > 0 else job.sample_chunks
    return Plan(
        limit_bytes=room.limit_bytes,
        projected_bytes=chosen.projected_bytes,
        baseline_bytes=room.baseline_bytes,
        disk_bytes=0,
        smallest_limit_bytes=chosen.smallest_bytes,
        batch_rows=chosen.rows,
        chunks=min(whole, job.sample_chunks),
        terms=chosen.terms,
        facts=facts.shown | {"layer_facts": facts_record(facts), "batch_bytes": chosen.batch_bytes},
    )


def run(job: ProfileJob, plan: Plan, bench: Bench) -> Outcome:
    """Read up to `sample_chunks` batches and measure their areas.

    Raises:
        DataError: a batch does not decode.
    """
    facts = facts_from_record(plan.facts["layer_facts"])
    method = _method(facts)
    rows = plan.batch_rows or 1
    read = batches = batch_bytes = 0
    notes = list(facts.notes)
    with (
        ogr.configured(**ogr.reading(facts.driver, plan.facts["batch_bytes"], facts.sizes.feature_bytes)),
        ogr.collected(notes),
    ):
        try:
            with ogr.open_batches(facts.source, facts.layer, facts.at_most(rows)) as (_, reader):
                bench.meter.start(plan.chunks)
                for batch in reader:
                    batches, read, batch_bytes = batches + 1, read + batch.num_rows, batch_bytes + batch.nbytes
                    if method is not None:
                        decide(
                            column_of(batch.column(batch.schema.get_field_index(facts.geometry_name))),
                            method,
                            Bounds(0.0, None),
                        )
                    del batch  # before the next one is read
                    bench.meter.chunk()
                    if batches >= job.sample_chunks:
                        break
        except MemoryError:
            raise
        except Exception as error:
            raise ogr.translated(error, facts.label, writing=False) from error
    pa.default_memory_pool().release_unused()
    bench.meter.finish()
    peak = process_memory().peak_bytes
    return Outcome(
        result={
            "layer": facts.layer,
            "features": facts.count,
            "batches_read": batches,
            "features_read": read,
            "bytes_per_row": round(batch_bytes / read, 1) if read else 0,
            "peak_bytes": peak,
            "suggested_limit_mb": mib(max(int(peak * _HEADROOM), _projected(facts, plan, rows))) + 1,
            "suggested_chunk_rows": rows,
            "suggested_gdal_cachemax_mb": _CACHE_MB,
        },
        warnings=tuple(notes),
    )


def _method(facts: LayerFacts) -> AreaMethod | None:
    """How areas would be measured; None where they cannot be."""
    if facts.geometry_name is None:
        return None
    try:
        return area_method(facts.crs, "auto", facts.label)
    except SourceError:
        return None


def _projected(facts: LayerFacts, plan: Plan, rows: int) -> int:
    """What the planner projects for filtering this layer into a GeoPackage with these batches."""
    chosen = fit(
        facts,
        sink="GPKG",
        measures_area=facts.geometry_name is not None,
        baseline_bytes=plan.baseline_bytes,
        budget_bytes=2**62,
        most_rows=rows,
        rows_fixed=True,
        margin_bytes=plan.terms.get("margin", 0),
    )
    return max(chosen.projected_bytes, MIB)
