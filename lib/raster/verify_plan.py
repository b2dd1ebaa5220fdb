"""What a full verification of a raster takes: its own projection, from the headers of source and output. Nothing is written."""

from typing import Any

import numpy as np

from lib.errors import MemoryRefused, SourceError, VerificationFailed
from lib.jobs import VerifyJob
from lib.memory.proc import process_memory
from lib.memory.work import BASELINE_SPREAD_BYTES, Room
from lib.raster import windows
from lib.raster.blocks import blocks_of, table_of
from lib.raster.facts import RasterFacts, gather
from lib.raster.formats import environment, open_source, set_cache
from lib.raster.recompute import SAMPLE_EDGE
from lib.raster.terms import TINY_CACHE_BYTES, read_tags_bytes, source_terms
from lib.reports import Plan
from lib.units import KIB, MIB, mib

__all__ = ["decode_window", "plan_full"]

_GROWTH_BYTES = 4 * MIB
_DECODE_PIXELS = 1024 * 1024
# Of a recomputed window: pixels and mask as read, float64 of them, of the result and between, the output's, comparisons.
_BYTES_PER_SAMPLED_PIXEL = 64


def plan_full(job: VerifyJob, room: Room) -> Plan:
    """Plan a full verification.

    Raises:
        SourceError: the source cannot be opened.
        VerificationFailed: the output cannot.
        MemoryRefused: the limit is too small.
    """
    set_cache(TINY_CACHE_BYTES)
    with environment(), open_source(job.source) as source:
        facts = gather(source, job.source)
        try:
            with open_source(job.output) as output:
                made, shape, block = _terms(facts, output, job, room)
        except SourceError as error:
            raise VerificationFailed(f"the output failed the check 'opens': {error.message}", check="opens") from error
    projected = sum(made.values())
    if projected > room.budget_bytes:
        smallest = projected + BASELINE_SPREAD_BYTES
        raise MemoryRefused(
            f"{job.label}: verifying needs a limit of at least {mib(smallest)} MiB, {room.budget_bytes // MIB} MiB are granted",
            hint=f"raise the memory limit to {mib(smallest)} MiB",
            smallest_limit_bytes=smallest,
        )
    step = decode_window(block)
    return Plan(
        limit_bytes=room.limit_bytes,
        projected_bytes=projected,
        baseline_bytes=room.baseline_bytes,
        disk_bytes=0,
        smallest_limit_bytes=projected + BASELINE_SPREAD_BYTES,
        gdal_cache_bytes=TINY_CACHE_BYTES,
        window=step,
        block_size=block[0],
        chunks=windows.count(shape[1:], step) * shape[0],
        terms=made,
        facts=facts.describe(),
    )


def _terms(
    facts: RasterFacts, output: Any, job: VerifyJob, room: Room
) -> tuple[dict[str, int], tuple[int, int, int], tuple[int, int]]:
    """The terms, the output's `(bands, height, width)`, and its block. It may be any raster, not only one that we wrote."""
    read = blocks_of(output, job.output, table_of(output))
    block = output.block_shapes[0]
    step = decode_window(block)
    shape = (output.count, output.height, output.width)
    pixels = min(step[0], shape[1]) * min(step[1], shape[2])
    recomputing = source_terms(facts, room, TINY_CACHE_BYTES, read.cached_bytes, SAMPLE_EDGE**2)
    del recomputing["baseline"], recomputing["opening the source"]  # below, as "opening" that of both
    recomputing["decoder"] = facts.read.decoder_bytes  # malloc gives back what is decoded again (`returning_buffers`)
    recomputing["recomputed window"] = SAMPLE_EDGE**2 * _BYTES_PER_SAMPLED_PIXEL
    decoding = {"decode buffers": pixels * (np.dtype(output.dtypes[0]).itemsize + 1)}
    # First the output is decoded, then windows are recomputed: what one held is given back before the other begins.
    made = {
        "baseline": room.baseline_bytes,
        "opening": max(0, process_memory().resident_bytes - room.baseline_bytes),
        "output blocks": read.cached_bytes + read.kept_bytes + 256 * KIB,
        "output index": windows.count(shape[1:], block) * shape[0] * 16,
        "tags": read_tags_bytes(facts),
        **(decoding if sum(decoding.values()) > sum(recomputing.values()) else recomputing),
        "interpreter and libraries": _GROWTH_BYTES,
        "margin": job.resources.margin_bytes,
    }
    return made, shape, block


def decode_window(block: tuple[int, int]) -> tuple[int, int]:
    """`(height, width)` of what is decoded at a time: whole blocks, about a million pixels."""
    wide = max(1, _DECODE_PIXELS // (block[0] * block[1]))
    return block[0], block[1] * wide
