"""What a raster job's peak is made of: bytes by name, for one layout. Pure; the numbers in it were measured.

Measured (VmHWM, each job in a fresh child) with GDAL 3.12 (rasterio 1.5.2, Python 3.13) and GDAL 3.9 (rasterio 1.4.4, Python
3.11) over 17 sources of every dtype, layout and codec: projected less measured was 2.6 to 7.3 MiB at the smallest limit,
3.9 to 9.5 MiB at an ample one.
"""

import math
from typing import NamedTuple

from lib.jobs import Custom, RasterJob
from lib.memory.work import Room
from lib.raster.facts import RasterFacts
from lib.raster.formats import MOST_OPEN_SOURCES
from lib.raster.masks import MaskBuffers
from lib.raster.operations import output_dtype, scratch_bytes
from lib.units import KIB, MIB

__all__ = [
    "TINY_CACHE_BYTES",
    "Layout",
    "chunk_bytes",
    "out_block_bytes",
    "read_tags_bytes",
    "source_terms",
    "table_bytes",
    "terms",
]

# We never read a block twice where windows are whole blocks: a cache would only hold what is done with.
TINY_CACHE_BYTES = 100 * KIB
_LIBRARY_GROWTH_BYTES = 8 * MIB
_TABLE_BYTES_PER_BLOCK = 16
# Blocks of pixels that do not compress, tiles of 128 to 2048: encoded in place, the compressed one and what it is collected in,
# 2.1 to 2.4; a job in the queue of several threads has a copy of its pixels, too: 3.0 to 4.1. Noisy imagery takes half of it,
# which no header tells.
_ENCODED_IN_PLACE, _ENCODED_IN_A_JOB = 2.4, 4.1
# A codec's state for each thread: lzw below 256 KiB, deflate 330 KiB, zstd 0.3 to 1 MiB.
_ENCODER_CONTEXT_BYTES = {"none": 0, "lzw": 256 * KIB, "deflate": 384 * KIB, "zstd": 1024 * KIB}
_OPEN_SOURCE_BYTES = 256 * KIB
_WARPER_BYTES = 90 * MIB
# A text of 1 to 30 MB among the tags, from the open source to the first pixel written, in its own size: 5.0 to 5.8 less what a
# job without it takes; several smaller ones 3.2 to 4.2.
_CARRIED_COPIES = 5.1
# Where they are only read, memory that opening the source has freed is used first: of texts of 1 to 30 MB 4 to 8 MiB less than
# their size was taken; at 4 the libraries' growth has the other 2.
_FREED_BY_OPENING_BYTES = 6 * MIB
# GDAL resamples by parts: at 1.2 to 40 source pixels to one, 3 to 12.2 MiB of 4 bytes or fewer, 7 to 14.6 MiB of 8 bytes.
_RESAMPLED_BYTES = {0: 0, 4: 12 * MIB, 8: 15 * MIB}
_FLOAT32 = 4


class Layout(NamedTuple):
    """How a job is cut up.

    Attributes:
        block_size: edge of an output tile, pixels.
        window: `(height, width)` of a chunk, pixels; multiples of `block_size`.
        bands_at_once: bands of a chunk.
        threads: encoder threads.
        cache_bytes: GDAL's block cache.
        decodes: how often a source block is decoded, on average.
    """

    block_size: int
    window: tuple[int, int]
    bands_at_once: int
    threads: int
    cache_bytes: int
    decodes: float


def terms(facts: RasterFacts, job: RasterJob, room: Room, layout: Layout) -> dict[str, int]:
    """The projected peak by name, bytes; it is the sum of these."""
    itemsize = output_dtype(job.operation, facts.dtype).itemsize
    block = out_block_bytes(layout.block_size, itemsize)
    tiles = -(-facts.shape[0] // layout.block_size) * -(-facts.shape[1] // layout.block_size) * len(facts.bands)
    pixels = min(layout.window[0], facts.shape[0]) * min(layout.window[1], facts.shape[1])
    made = (
        source_terms(facts, room, layout.cache_bytes, block, pixels)
        | chunk_terms(facts, job, layout.window, layout.bands_at_once)
        | {
            "encoder": _encoder_bytes(job.compress, layout.threads, block, tiles),
            # An MRF's pages of all bands, while windows are written: 0.6 of one more than where they are only read.
            "pages again": facts.read.least_cache_bytes * 2 // 3,
            "output index": table_bytes(tiles),
            "carried tags": int(facts.carried_bytes * _CARRIED_COPIES),
            "interpreter and libraries": _LIBRARY_GROWTH_BYTES,
            "margin": job.resources.margin_bytes,
        }
    )
    # Headers may take more while they are read than all that follows, and more when they are read again to verify, in what the
    # work has left: 30 MB of a histogram up to 1.57 times what planning took, 20 MB of XMP 1.3.
    headers = (facts.opening_growth_bytes - facts.mapped_bytes) * 8 // 5
    again = room.baseline_bytes + facts.mapped_bytes + headers + _LIBRARY_GROWTH_BYTES + job.resources.margin_bytes
    made["opening the source"] += max(0, again - sum(made.values()))
    return made


def source_terms(facts: RasterFacts, room: Room, cache_bytes: int, out_block: int, pixels: int) -> dict[str, int]:
    """What an open source and reading windows of so many pixels of it take: header, tables, decoder, cache."""
    sources = min(facts.read.sources, MOST_OPEN_SOURCES) - 1
    # GDAL makes room after a block has come, not before. A block that is the whole raster comes into an empty cache.
    whole = facts.read.block[0] >= facts.shape[0] and facts.read.block[1] >= facts.shape[1]
    arriving = facts.read.block_bytes if whole else facts.read.cached_bytes
    in_flight = out_block if whole and cache_bytes >= facts.read.block_bytes else max(arriving, out_block)
    return {
        "baseline": room.baseline_bytes,
        "opening the source": max(0, facts.opened_bytes - room.baseline_bytes),
        "source blocks": facts.read.last_bytes,
        "decoder": facts.read.decoder_bytes + _decoded_again_bytes(facts, cache_bytes),
        "mosaic": sources * _OPEN_SOURCE_BYTES + facts.read.others_bytes,
        "resampling": _resampling_bytes(facts, pixels),
        "source index": facts.blocks * _TABLE_BYTES_PER_BLOCK,
        "warper": _WARPER_BYTES if facts.read.recipe.warped else 0,
        "gdal cache": int(min(cache_bytes, _most_cached_bytes(facts))) + in_flight,
    }


def read_tags_bytes(facts: RasterFacts) -> int:
    """What reading a source's tags takes, bytes, where nothing is written."""
    return max(0, facts.carried_bytes - _FREED_BY_OPENING_BYTES)


def _resampling_bytes(facts: RasterFacts, pixels: int) -> int:
    """What a VRT takes to resample and compute a window, beside its sources' blocks."""
    recipe = facts.read.recipe
    window = int(pixels * (recipe.averaged * _FLOAT32 + recipe.computed_bytes))
    return window + _RESAMPLED_BYTES[recipe.resampled_itemsize]


def _decoded_again_bytes(facts: RasterFacts, cache_bytes: int) -> int:
    """What a cache too small for a decoder costs: of 8 pages of an MRF, 3 are in other terms (`decoders.py`)."""
    return 5 * facts.read.least_cache_bytes if cache_bytes < facts.read.least_cache_bytes else 0


def _most_cached_bytes(facts: RasterFacts) -> float:
    """All blocks of a source: no cache holds more of it.

    Not so where blocks hold all bands: 7 MiB more than these were measured at four bands of 8 MiB in one block.
    """
    if facts.read.pixel_interleaved or not facts.read.whole_bytes:
        return math.inf
    return facts.read.whole_bytes


def chunk_terms(facts: RasterFacts, job: RasterJob, window: tuple[int, int], at_once: int) -> dict[str, int]:
    """A chunk's buffers: what `max_chunk_bytes` bounds."""
    pixels = min(window[0], facts.shape[0]) * min(window[1], facts.shape[1])
    out = output_dtype(job.operation, facts.dtype).itemsize
    custom = isinstance(job.operation, Custom)
    return {
        "input buffer": pixels * at_once * facts.itemsize,
        "output buffer": pixels * out,
        "mask": MaskBuffers.bytes(facts.rules, pixels, facts.itemsize),
        # A function gets float32 pixels and their validity and returns an array, perhaps of float64; its own temporaries
        # are its own.
        "operation": pixels * at_once * (4 + 1 + 8) if custom else scratch_bytes(job.operation, facts.dtype, pixels),
    }


def chunk_bytes(facts: RasterFacts, job: RasterJob, window: tuple[int, int], at_once: int) -> int:
    """Size of a chunk's buffers, bytes."""
    return sum(chunk_terms(facts, job, window, at_once).values())


def out_block_bytes(block_size: int, itemsize: int) -> int:
    """Size of an output tile of one band, bytes."""
    return block_size * block_size * itemsize


def table_bytes(tiles: int) -> int:
    """Size of a TIFF's offsets and byte counts in memory and on disk, bytes."""
    return tiles * _TABLE_BYTES_PER_BLOCK


def _encoder_bytes(compress: str, threads: int, block: int, tiles: int) -> int:
    """One thread encodes in place; more have a queue of `threads + 1` jobs, but never more than there are tiles."""
    if compress == "none":
        return block
    context = _ENCODER_CONTEXT_BYTES[compress]
    if threads == 1 or tiles == 1:
        return int(block * _ENCODED_IN_PLACE) + context
    return int(min(threads + 1, tiles) * block * _ENCODED_IN_A_JOB) + min(threads, tiles) * context
