"""How a raster job may be cut up: every layout that facts and choices allow, what a worker holds, what it costs. Pure.

Which of them fits is `plan.py`'s business.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lib.jobs import COG_BLOCK_SIZES, Resources
from lib.raster import overviews, statistics, windows
from lib.raster.block import Buffer
from lib.raster.formats import TINY_CACHE_BYTES
from lib.raster.sinks import pyramid
from lib.raster.sinks.encode import Encoding
from lib.units import MIB

_BLOCK_SIZES = (512, 256, 128)
_MOST_WINDOW_PIXELS = 1024 * 1024  # 4 MiB of float32: larger windows gained nothing
_MOST_ALIGNED_PIXELS = 4 * _MOST_WINDOW_PIXELS
# Where no cache for a row of windows fits, a source block is decoded again for each window that it touches; at most so often.
_MOST_DECODES = 16.0
_ROW_CACHE = 1.3
_MANY_BANDS_BYTES = 16 * MIB
# Nanoseconds, for choosing only: decoding and encoding a pixel, opening and closing a window.
_DECODE, _ENCODE, _WINDOW = 4.0, 15.0, 300_000.0
_THREAD_GAIN = 0.9
_WAITS = 0.3  # of the workers' time, where it encodes all overviews
_HUGE_WINDOW = 1.5  # leaves the CPU's caches
_REQUEST = 30_000_000.0  # to a server, and its first byte
# What smaller tiles cost in size and time, ns a pixel.
_BLOCK_COST = {512: 0.0, 256: 0.3, 128: 1.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a layout depends on.

    Attributes:
        label: the source's name, for messages.
        shape: of the output, `(height, width)` pixels.
        bands: how many are read.
        bands_out: how many are written.
        in_dtype: of what is read.
        encoding: of the output's tiles, for a block size.
        block: `(height, width)` of the source's blocks, pixels.
        block_bytes: decoded size of one, all bands that it holds.
        file_bands: bands in the source's file.
        pixel_interleaved: a block holds all bands.
        parallel: several readers may work at once.
        all_bands: the operation wants all bands at once.
        overlap: pixels that it wants around a window.
        operation_memory: what it holds for `(pixels, bands)`, those around a window included, bytes.
        one_at_a_time: it works on one chunk at a time, however many workers there are.
        needs_room: results do not take the place of what was read.
        has_mask: the output has a mask band.
        overviews: the output has them.
        block_size: edge of the output's tiles, where it is fixed.
        aligned: windows that are multiples of blocks are whole blocks.
        footprint: height and width in the file's pixels of what a window is made from; None where it is read as it lies.
        file_block: `(height, width)` of the file's blocks, where there is a footprint.
        file_shape: of the file, likewise.
        piece_bytes: what a window is made in pieces of, before and after, likewise.
        network_cache_bytes: of what is fetched; 0 where the source is not remote.
        copying: what is held when the output is copied, for a block size, bytes; None where it is not.
        beside_reader: what a reader holds for `(pixels, bands)` beside what it reads into, bytes.
    """

    label: str
    shape: tuple[int, int]
    bands: int
    bands_out: int
    in_dtype: np.dtype[Any]
    encoding: Callable[[int], Encoding]
    block: tuple[int, int]
    block_bytes: int
    file_bands: int = 1
    pixel_interleaved: bool = False
    parallel: bool = False
    all_bands: bool = False
    overlap: int = 0
    operation_memory: Callable[[int, int], int] = lambda _pixels, _bands: 0
    one_at_a_time: bool = False
    needs_room: bool = True
    has_mask: bool = False
    overviews: bool = False
    block_size: int | None = None
    aligned: bool = True
    footprint: Callable[[tuple[int, int]], tuple[int, int]] | None = None
    file_block: tuple[int, int] = (1, 1)
    file_shape: tuple[int, int] = (1, 1)
    piece_bytes: int = 0
    network_cache_bytes: int = 0
    copying: Callable[[int], int] | None = None
    beside_reader: Callable[[int, int], int] = lambda _pixels, _bands: 0

    def footprint_bytes(self, window: tuple[int, int]) -> int:
        """Decoded size of the file's blocks that a window is made from, all bands."""
        if self.footprint is None:
            return 0
        down, across = (
            min(windows.steps(length, edge) + 1, windows.steps(whole, edge)) * edge
            for length, edge, whole in zip(self.footprint(window), self.file_block, self.file_shape, strict=True)
        )
        return down * across * self.in_dtype.itemsize * self.file_bands

    def written_at_once(self, bands_at_once: int) -> int:
        """Bands of a chunk's result: all new ones, or as many as are read."""
        return bands_at_once if self.bands_out == self.bands else self.bands_out


class Layout(NamedTuple):
    """How a job is cut up.

    Attributes:
        block_size: edge of an output tile, pixels.
        window: `(height, width)` of a chunk, pixels; multiples of `block_size`.
        bands_at_once: bands of a chunk.
        threads: workers that read, compute and encode.
        readers: handles on the source; fewer than workers where they share one.
        cache_bytes: GDAL's block cache.
        decodes: how often a source block is decoded, on average.
    """

    block_size: int
    window: tuple[int, int]
    bands_at_once: int
    threads: int
    readers: int
    cache_bytes: int
    decodes: float


def worker_bytes(facts: Facts, layout: Layout) -> dict[str, int]:
    """What one worker holds, bytes by name: window buffers, the operation's scratch, the encoder's."""
    height, width = (min(step, length) for step, length in zip(layout.window, facts.shape, strict=True))
    pixels, bands = height * width, layout.bands_at_once
    around = (height + 2 * facts.overlap) * (width + 2 * facts.overlap)
    encoding = facts.encoding(layout.block_size)
    levels = levels_of(facts, layout)
    return {
        "input buffer": Buffer.bytes(around * bands, facts.in_dtype),
        # And what nodata is found in.
        "output buffer": pixels
        + (Buffer.bytes(pixels * facts.written_at_once(bands), encoding.dtype) if facts.needs_room else 0),
        "operation": facts.operation_memory(around, bands),
        **({"laid over": beside} if (beside := facts.beside_reader(around, bands)) else {}),
        **({} if facts.footprint is None else {"warped piece": facts.piece_bytes}),
        "encoder": encoding.scratch_bytes,
        "statistics": statistics.SCRATCH_BYTES,
    } | ({"overviews": levels.worker_bytes(encoding)} if levels else {})


def levels_of(facts: Facts, layout: Layout) -> pyramid.Levels | None:
    """How the output's overviews are made; None where it has none."""
    return pyramid.levels(facts.shape, layout.window, layout.block_size) if facts.overviews else None


def chunk_bytes(facts: Facts, layout: Layout) -> int:
    """Size of one worker's buffers for a chunk, which `max_chunk_mb` bounds."""
    return chunk_of(worker_bytes(facts, layout))


def chunk_of(worker: dict[str, int]) -> int:
    """The same, of what `worker_bytes` gave."""
    return worker["input buffer"] + worker["output buffer"] + worker["operation"]


class Layouts:
    """Every layout that fixed choices allow.

    Args:
        facts: what a layout depends on.
        resources: what the user has fixed.
    """

    def __init__(self, facts: Facts, resources: Resources) -> None:
        self._facts, self._resources = facts, resources

    def __iter__(self) -> Iterator[Layout]:
        """Every layout."""
        bound = self._resources.max_chunk_bytes
        for block in self._block_sizes():
            for window in self._windows(block):
                for at_once in self._bands_at_once(window):
                    probe = Layout(block, window, at_once, 1, 1, 0, 1.0)
                    if bound is not None and chunk_bytes(self._facts, probe) > bound:
                        continue
                    count = windows.count(self._facts.shape, window) * windows.steps(self._facts.bands, at_once)
                    for cache, decodes in self._caches(window, at_once):
                        if self._facts.footprint is not None:
                            yield from self._of_footprints(Layout(block, window, at_once, 1, 1, cache, decodes), count)
                            continue
                        for threads in sorted({min(each, count) for each in self._threads()}, reverse=True):
                            # Where a cache serves a row of windows, one reader goes through them in order.
                            alone = not self._facts.parallel or cache > TINY_CACHE_BYTES
                            yield Layout(block, window, at_once, threads, 1 if alone else threads, cache, decodes)

    def _of_footprints(self, one: Layout, count: int) -> Iterator[Layout]:
        """Where windows are made of others on the file's grid: each reader has a cache for one of its own."""
        bound, each_bytes = (
            self._resources.gdal_cache_max_bytes,
            int(_ROW_CACHE * self._facts.footprint_bytes(one.window)),
        )
        for threads in sorted({min(each, count) for each in self._threads()}, reverse=True):
            readers = threads if self._facts.parallel else 1
            cache = readers * each_bytes
            if cache <= bound:
                yield one._replace(threads=threads, readers=readers, cache_bytes=cache)
        yield one._replace(cache_bytes=min(TINY_CACHE_BYTES, bound), decodes=_MOST_DECODES * one.decodes)

    def _block_sizes(self) -> list[int]:
        if self._facts.block_size:
            return [self._facts.block_size]
        # A raster smaller than a tile would still be stored as a whole one.
        whole = -(-max(self._facts.shape) // 16) * 16
        found = {min(size, whole) for size in _BLOCK_SIZES}
        if self._facts.overviews:  # a raster in one tile has none
            found &= COG_BLOCK_SIZES | ({whole} if not overviews.shapes(self._facts.shape) else set())
        return sorted(found, reverse=True)

    def _threads(self) -> list[int]:
        if self._resources.threads:
            return [self._resources.threads]
        most = self._resources.threads_max
        return sorted({most, *_powers(most)}, reverse=True)

    def _bands_at_once(self, window: tuple[int, int]) -> list[int]:
        """How many bands a chunk may hold: all where one block holds all or a function wants all, else all or one."""
        every, facts = self._facts.bands, self._facts
        if facts.pixel_interleaved or facts.all_bands or every == 1:
            return [every]
        many = window[0] * window[1] * facts.in_dtype.itemsize * every > _MANY_BANDS_BYTES
        return [1] if many else [every, 1]

    def _windows(self, block: int) -> list[tuple[int, int]]:
        """Window shapes: multiples of the output block, up to the raster's own size rounded up to blocks."""
        down, across = (windows.steps(length, block) for length in self._facts.shape)
        most = max(1, _MOST_WINDOW_PIXELS // block**2)
        found = {(1, 1)}
        for tall in _powers(min(down, most)):
            for wide in [*_powers(min(across, most // tall)), min(across, most // tall)]:
                if wide:
                    found.add((tall, wide))
        aligned = tuple(math.lcm(block, edge) // block for edge in self._facts.block)
        if aligned[0] * aligned[1] * block**2 <= _MOST_ALIGNED_PIXELS:
            found.add((min(down, aligned[0]), min(across, aligned[1])))
        # Whole rows need no cache for strips.
        found.update((1, windows.steps(across, parts)) for parts in (1, 2, 4, 8, 16))
        shapes = [(tall * block, wide * block) for tall, wide in sorted(found)]
        allowed = [each for each in shapes if pyramid.allows(self._facts.shape, each, block)]
        return allowed if self._facts.overviews else shapes

    def _caches(self, window: tuple[int, int], at_once: int) -> Iterator[tuple[int, float]]:
        """GDAL cache sizes to consider, each with how often a source block is decoded then."""
        facts, bound = self._facts, self._resources.gdal_cache_max_bytes
        if facts.footprint is not None:
            touched = [
                length / edge + 1 for length, edge in zip(facts.footprint(window), facts.file_block, strict=True)
            ]
            pixels = math.prod(min(step, length) for step, length in zip(window, facts.shape, strict=True))
            yield 0, max(1.0, math.prod(touched) * math.prod(facts.file_block) / pixels)
            return
        decodes = math.prod(
            _touches(step, edge, length, facts.overlap, aligned=facts.aligned)
            for step, edge, length in zip(window, facts.block, facts.shape, strict=True)
        )
        row = self.row_cache_bytes(window, at_once)
        if decodes <= _MOST_DECODES or row > bound:
            yield min(TINY_CACHE_BYTES, bound), decodes
        if decodes > 1 and row <= bound:
            yield row, 1.0

    def row_cache_bytes(self, window: tuple[int, int], at_once: int) -> int:
        """A cache that keeps the source blocks of one row of windows, with what GDAL needs to spare (FACTS), bytes."""
        facts = self._facts
        edge, height = facts.block[0], facts.shape[0]
        if facts.overlap:  # the rows of blocks that the next row of windows touches again are kept, too
            rows = (windows.steps(window[0] + 2 * facts.overlap, edge) + 1) * edge
        else:
            rows = windows.steps(window[0], edge) * edge + (edge if window[0] % edge or not facts.aligned else 0)
        rows = min(rows, max(height, edge))
        across = windows.steps(facts.shape[1], facts.block[1]) * facts.block[1]
        bands = facts.file_bands if facts.pixel_interleaved else at_once
        return int(_ROW_CACHE * rows * across * facts.in_dtype.itemsize * bands)


def requests(facts: Facts, layout: Layout) -> int:
    """How often a server is asked for a window: for each row of its blocks, or once where it has whole ones; 0 if nowhere."""
    if not facts.network_cache_bytes:
        return 0
    (height, width), (edge, _) = facts.footprint(layout.window) if facts.footprint else layout.window, facts.file_block
    rows = 1 if width >= facts.file_shape[1] else windows.steps(min(height, facts.file_shape[0]), edge)
    return rows * (1 if facts.pixel_interleaved else layout.bands_at_once)


def cost(layout: Layout, levels: pyramid.Levels | None = None, asked: int = 0) -> float:
    """Nanoseconds a pixel, for comparing layouts with each other; `asked`: requests for a window."""
    at_once = 1 + _THREAD_GAIN * (layout.threads - 1)
    reading = _DECODE * layout.decodes / (at_once if layout.readers > 1 else 1.0)
    values = layout.window[0] * layout.window[1] * layout.bands_at_once
    window = (_WINDOW + _REQUEST * asked) / values
    huge = _HUGE_WINDOW if values > _MOST_WINDOW_PIXELS else 0.0
    if levels:  # one thread encodes what workers do not
        at_once *= 1 - _WAITS / 4**levels.in_worker
    return reading + (_ENCODE + window + huge + _BLOCK_COST.get(layout.block_size, 0.0)) / at_once


def _powers(most: int) -> Iterator[int]:
    power = 1
    while power <= most:
        yield power
        power *= 2


def _touches(step: int, edge: int, length: int, overlap: int, *, aligned: bool) -> float:
    """In how many windows a block lies, on average, along one axis; a window reaches `overlap` pixels farther on each side."""
    if step >= length:
        return 1.0
    if edge >= length:
        return float(windows.steps(length, step))
    if not aligned:
        return 1.0 + (edge - 1 + 2 * overlap) / step
    if step % edge == 0:
        return 1.0 + 2 * windows.steps(overlap, edge) * edge / step
    return 1.0 + (edge - math.gcd(step, edge) + 2 * overlap) / step
