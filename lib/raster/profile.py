"""Profiling a raster: read an evenly spread sample of windows exactly as the engine would, and say what that takes.

Nothing is written. The suggestions are for the default work, normalise of all bands, with the same resources.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lib.errors import MemoryRefused
from lib.jobs import ProfileJob, RasterJob
from lib.memory.proc import process_memory
from lib.memory.work import Bench, Room
from lib.raster import windows
from lib.raster.engine import in_order
from lib.raster.facts import RasterFacts, gather
from lib.raster.faults import read
from lib.raster.formats import environment, open_source, return_large_blocks, set_cache
from lib.raster.masks import MaskBuffers
from lib.raster.plan import make_plan
from lib.raster.terms import TINY_CACHE_BYTES, read_tags_bytes
from lib.reports import Outcome, Plan
from lib.units import mib

__all__ = ["plan", "run"]

_HEADROOM = 1.2
# What the default work takes and a profile does not.
_WRITING_TERMS = ("encoder", "output index", "pages again", "operation", "output buffer")


def plan(job: ProfileJob, room: Room) -> Plan:
    """The default work's plan, less what writing takes; its own where the work itself does not fit.

    Raises:
        SourceError, DataError, MemoryRefused: as for the work itself.
    """
    set_cache(TINY_CACHE_BYTES)
    with environment(), open_source(job.source) as source:
        facts = gather(source, job.source)
    instead = dict.fromkeys(_WRITING_TERMS, 0) | {"carried tags": read_tags_bytes(facts)}
    made = make_plan(facts, _default_work(job), room, instead=instead)
    work = _work_plan(facts, _default_work(job), room)
    if work.projected_bytes <= room.budget_bytes:
        terms = {**work.terms, **instead}
        smallest = made.smallest_limit_bytes
        made = replace(work, terms=terms, projected_bytes=sum(terms.values()), smallest_limit_bytes=smallest)
    return replace(
        made,
        threads=1,
        disk_bytes=0,
        chunks=min(made.chunks, job.sample_chunks),
        lower_by="",
        expected={},
        facts=made.facts
        | {
            "chunks_total": made.chunks,
            "work_projected_bytes": work.projected_bytes,
            "work_window": list(work.window or ()),
            "work_gdal_cache_bytes": work.gdal_cache_bytes,
        },
    )


def _work_plan(facts: RasterFacts, work: RasterJob, room: Room) -> Plan:
    """The work's plan within the same limit; within the smallest that does, where that is more."""
    try:
        return make_plan(facts, work, room)
    except MemoryRefused as refused:
        return make_plan(facts, work, replace(room, budget_bytes=int(refused.facts["smallest_limit_bytes"])))


def run(job: ProfileJob, plan: Plan, bench: Bench) -> Outcome:
    """Read the sample, masks included, and suggest a limit, a chunk and a cache.

    Raises:
        DataError, MemoryExceeded: under way.
    """
    set_cache(plan.gdal_cache_bytes)
    with environment(), open_source(job.source) as source:
        counts = _read(job, plan, bench, source)
    bench.meter.finish()
    peak = int(process_memory().peak_bytes * _HEADROOM)
    return Outcome(
        result=counts
        | {
            "suggested_limit_mb": mib(max(peak, int(plan.facts["work_projected_bytes"]))) + 1,
            "suggested_chunk": plan.facts["work_window"],
            "suggested_gdal_cachemax_mb": max(1, mib(int(plan.facts["work_gdal_cache_bytes"]))),
        },
        checks=tuple(bench.checks),
    )


def _default_work(job: ProfileJob) -> RasterJob:
    return RasterJob(source=job.source, destination="profile.tif", resources=job.resources)


def _read(job: ProfileJob, plan: Plan, bench: Bench, source: Any) -> dict[str, Any]:
    facts = gather(source, job.source, tables_checked=True)
    if facts.read.uneven:
        return_large_blocks()
    at_once, window = int(plan.facts["bands_at_once"]), plan.window or (1, 1)
    pixels = min(window[0], facts.shape[0]) * min(window[1], facts.shape[1])
    raw, masks = np.zeros(at_once * pixels, facts.dtype), MaskBuffers(facts.rules, pixels, facts.dtype)
    raw.fill(0)
    masks.touch()
    wanted = set(windows.evenly(int(plan.facts["chunks_total"]), job.sample_chunks))
    nodata_pixels = read_pixels = 0
    bench.meter.start(len(wanted))
    for i, (each, bands) in enumerate(in_order(facts.shape, window, facts.bands, at_once)):
        if i not in wanted:
            continue
        values = raw[: len(bands) * each.pixels].reshape(len(bands), each.pixels)
        out = values.reshape(len(bands), each.height, each.width)
        read(partial(source.read, bands, out=out, window=each.ranges), job.source, each)
        masks.read_shared(source, job.source, each)
        for band, band_pixels in zip(bands, values, strict=True):
            invalid = masks.invalid(source, job.source, each, band, band_pixels)
            nodata_pixels += 0 if invalid is None else int(np.count_nonzero(invalid))
        read_pixels += values.size
        bench.meter.chunk()
    return {
        "width": facts.shape[1],
        "height": facts.shape[0],
        "bands": len(facts.bands),
        "chunks_total": int(plan.facts["chunks_total"]),
        "chunks_read": len(wanted),
        "decoded_bytes": read_pixels * facts.itemsize,
        "nodata": facts.rules.describe(),
        "nodata_share": round(nodata_pixels / read_pixels, 4) if read_pixels else 0.0,
    }
