"""The planner: facts, resources and room in; window, block, threads, cache and projected bytes out. Pure.

It lists every layout that the job allows and takes the cheapest in time of those that fit. Own terms are closed form; what
libraries hold is guessed before the probe and measured by it (`probe.py`). The smallest limit is the smallest projection listed.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lib.errors import MemoryRefused
from lib.jobs import Resources
from lib.memory.work import BASELINE_SPREAD_BYTES, Room, with_probed
from lib.raster import windows
from lib.raster.block import Buffer
from lib.raster.formats import TINY_CACHE_BYTES
from lib.raster.sinks.encode import Encoding
from lib.raster.sinks.tiles import memory_bytes
from lib.units import MIB, format_bytes, mib

BLOCK_SIZES = (512, 256, 128)
_MOST_WINDOW_PIXELS = 1024 * 1024  # 4 MiB of float32: larger windows gained nothing
_MOST_ALIGNED_PIXELS = 4 * _MOST_WINDOW_PIXELS
# Where no cache for a row of windows fits, a source block is decoded again for each window that it touches; at most so often.
_MOST_DECODES = 16.0
_ROW_CACHE = 1.3
_MANY_BANDS_BYTES = 16 * MIB
_NEXT_TO_LEAST_BYTES = 3 * MIB
# Nanoseconds, for choosing only: decoding and encoding a pixel, opening and closing a window.
_DECODE, _ENCODE, _WINDOW = 4.0, 15.0, 300_000.0
_THREAD_GAIN = 0.9
_HUGE_WINDOW = 1.5  # leaves the CPU's caches
# What smaller tiles cost in size and time, ns a pixel.
_BLOCK_COST = {512: 0.0, 256: 0.3, 128: 1.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a layout depends on.

    Attributes:
        label: the source's name, for messages.
        shape: of the output, `(height, width)` pixels.
        bands: how many are read and written.
        in_dtype: of what is read.
        encoding: of the output's tiles, for a block size.
        block: `(height, width)` of the source's blocks, pixels.
        block_bytes: decoded size of one, all bands that it holds.
        file_bands: bands in the source's file.
        pixel_interleaved: a block holds all bands.
        parallel: several readers may work at once.
        all_bands: the operation wants all bands at once.
        overlap: pixels that it wants around a window.
        operation_memory: what it holds for `(pixels, bands)`, bytes.
        one_at_a_time: it works on one chunk at a time, however many workers there are.
        needs_room: results do not take the place of what was read.
        has_mask: the output has a mask band.
        block_size: edge of the output's tiles, where it is fixed.
        compressed: the output is.
    """

    label: str
    shape: tuple[int, int]
    bands: int
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
    block_size: int | None = None


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


class Held(NamedTuple):
    """What is held beside own terms.

    Attributes:
        opened_bytes: the process with its source open.
        writer_bytes: making the output's skeleton, once.
        reader_bytes: the decoder and whatever else a reader brings, each.
        function_bytes: a user's function beyond its operation's own memory, once: it is called for one chunk at a time.
    """

    opened_bytes: int
    writer_bytes: int
    reader_bytes: int
    function_bytes: int = 0


class Choice(NamedTuple):
    """A layout with what it takes.

    Attributes:
        layout: how the job is cut up.
        own: terms that nothing else than the layout decides, bytes by name.
        projected_bytes: the projected peak.
        chunk_bytes: one worker's buffers for a chunk, which `max_chunk_mb` bounds.
        cost: in time, for comparison.
    """

    layout: Layout
    own: dict[str, int]
    projected_bytes: int
    chunk_bytes: int
    cost: float

    @property
    def preference(self) -> tuple[float, int]:
        """Cheapest in time first, then smallest."""
        return self.cost, self.projected_bytes


def worker_bytes(facts: Facts, layout: Layout) -> dict[str, int]:
    """What one worker holds, bytes by name: window buffers, the operation's scratch, the encoder's."""
    height, width = (min(step, length) for step, length in zip(layout.window, facts.shape, strict=True))
    pixels, bands = height * width, layout.bands_at_once
    around = (height + 2 * facts.overlap) * (width + 2 * facts.overlap)
    encoding = facts.encoding(layout.block_size)
    return {
        "input buffer": Buffer.bytes(around * bands, facts.in_dtype),
        # And what nodata is found in.
        "output buffer": pixels + (Buffer.bytes(pixels * bands, encoding.dtype) if facts.needs_room else 0),
        "operation": facts.operation_memory(pixels, bands),
        "encoder": encoding.scratch_bytes,
    }


class Planner:
    """Chooses for one job.

    Args:
        facts: what a layout depends on.
        resources: what the user has fixed.
        room: what may be used.
    """

    def __init__(self, facts: Facts, resources: Resources, room: Room) -> None:
        self.facts, self.resources, self.room = facts, resources, room

    def choices(self, held: Held, *, without: dict[str, Any] | None = None) -> list[Choice]:
        """Every layout that is allowed, with its projection.

        Args:
            held: beside own terms.
            without: fields of the resources to replace.
        """
        if without:
            return Planner(self.facts, self.resources.model_copy(update=without), self.room).choices(held)
        held_by = {readers: sum(self._beside(readers, held).values()) for readers in {0, *self._threads(), 1}}
        return [
            each._replace(projected_bytes=each.projected_bytes + held_by[each.layout.readers])
            for each in self._own_choices
        ]

    def terms(self, choice: Choice, held: Held) -> dict[str, int]:
        """The projected peak by name, bytes; it is the sum of these."""
        return self._beside(choice.layout.readers, held) | choice.own

    def _beside(self, readers: int, held: Held) -> dict[str, int]:
        libraries = held.writer_bytes + readers * held.reader_bytes
        return {
            "baseline": self.room.baseline_bytes,
            "opening the source": max(0, held.opened_bytes - self.room.baseline_bytes),
            "libraries": with_probed(0, libraries),
            "function": held.function_bytes * 115 // 100,
            "margin": self.resources.margin_bytes,
        }

    @functools.cached_property
    def _own_choices(self) -> list[Choice]:
        """All layouts with their own terms; what is held beside them comes later."""
        found = []
        for layout in self.layouts():
            own = self._own_terms(layout)
            found.append(Choice(layout, own, sum(own.values()), self.chunk_bytes(layout), _cost(layout)))
        return found

    def _own_terms(self, layout: Layout) -> dict[str, int]:
        facts = self.facts
        tiles = math.prod(self._tiles(layout)) * (layout.bands_at_once + facts.has_mask)
        # One more chunk waits than there are workers; a single one waits for nothing.
        waiting = layout.threads + (layout.threads > 1)
        workers = {name: size * layout.threads for name, size in worker_bytes(facts, layout).items()}
        if facts.one_at_a_time:
            workers["operation"] //= layout.threads
        return workers | {
            "encoded tiles": waiting * tiles * facts.encoding(layout.block_size).bound_bytes,
            "gdal cache": min(layout.cache_bytes, self._decoded_bytes()),
            "tile tables": memory_bytes(facts.shape, facts.bands, layout.block_size, mask=facts.has_mask),
        }

    def _tiles(self, layout: Layout) -> tuple[int, int]:
        down, across = (
            windows.steps(min(step, length), layout.block_size)
            for step, length in zip(layout.window, self.facts.shape, strict=True)
        )
        return down, across

    def _decoded_bytes(self) -> int:
        down, across = (
            windows.steps(length, edge) * edge for length, edge in zip(self.facts.shape, self.facts.block, strict=True)
        )
        return down * across * self.facts.in_dtype.itemsize * self.facts.file_bands

    def choose(self, choices: list[Choice], *, most_bytes: int | None = None) -> Choice | None:
        """The cheapest choice that fits into the budget (or into `most_bytes`); None where none does."""
        most = self.room.budget_bytes if most_bytes is None else most_bytes
        return min((each for each in choices if each.projected_bytes <= most), key=_by_preference, default=None)

    def smallest(self, choices: list[Choice]) -> Choice:
        """The fastest choice of those that take next to least: the very least may be many times slower.

        Raises:
            MemoryRefused: `max_chunk_mb` allows none at all.
        """
        if not choices:
            raise self._chunk_refused()
        least = min(each.projected_bytes for each in choices)
        return min(
            (each for each in choices if each.projected_bytes <= least + _NEXT_TO_LEAST_BYTES), key=_by_preference
        )

    def refused(self, choices: list[Choice], held: Held) -> MemoryRefused:
        """None fits: says so, with the smallest limit that would do and what is in the way."""
        smallest = self.smallest(choices).projected_bytes + BASELINE_SPREAD_BYTES
        return MemoryRefused(
            f"{self.facts.label}: needs a limit of at least {mib(smallest)} MiB, "
            f"{self.room.budget_bytes // MIB} MiB are granted{self._in_the_way(smallest, held)}",
            hint=f"raise the memory limit to {mib(smallest)} MiB",
            smallest_limit_bytes=smallest,
        )

    def _in_the_way(self, smallest: int, held: Held) -> str:
        """Names the fixed setting without which a plan would fit."""
        if self.facts.block_size:
            free = Planner(replace(self.facts, block_size=None), self.resources, self.room).choices(held)
            needed = min((each.projected_bytes for each in free), default=smallest) + BASELINE_SPREAD_BYTES
            if needed <= self.room.budget_bytes < smallest:
                return f"; without block_size={self.facts.block_size} it would need {mib(needed)} MiB"
        if self.room.budget_bytes < self.room.limit_bytes:
            return f" of the limit of {self.room.limit_bytes // MIB} MiB after a death of memory"
        if self.facts.block_bytes > smallest // 4:
            height, width = self.facts.block
            return f"; one source block of {height} x {width} pixels alone is {format_bytes(self.facts.block_bytes)}"
        return ""

    def lower_by(self, chosen: Choice, choices: list[Choice]) -> str:
        """The one setting that would lower the peak most, and by how much: what would be chosen with it set."""
        layout = chosen.layout
        knobs = {"threads 1": [each for each in choices if each.layout.threads == 1]}
        for size in {each.layout.block_size for each in choices} - {layout.block_size}:
            knobs[f"block_size {size}"] = [each for each in choices if each.layout.block_size == size]
        for bound in (1, 2, 4, 8):
            if bound * MIB < chosen.chunk_bytes:
                within = [each for each in choices if each.chunk_bytes <= bound * MIB]
                knobs[f"max_chunk_mb {bound}"] = within
        found = []
        for knob, within in knobs.items():
            if (best := self.choose(within)) is not None:
                found.append((chosen.projected_bytes - best.projected_bytes, knob))
        saved, knob = max(found, default=(0, ""))
        return f"{knob} saves {format_bytes(saved)}" if saved >= MIB else ""

    def chunk_bytes(self, layout: Layout) -> int:
        """Size of one worker's buffers for a chunk."""
        found = worker_bytes(self.facts, layout)
        return found["input buffer"] + found["output buffer"] + found["operation"]

    def layouts(self) -> Iterator[Layout]:
        """Every layout that the fixed choices allow."""
        bound = self.resources.max_chunk_bytes
        for block in self._block_sizes():
            for window in self._windows(block):
                for at_once in self._bands_at_once(window):
                    probe = Layout(block, window, at_once, 1, 1, 0, 1.0)
                    if bound is not None and self.chunk_bytes(probe) > bound:
                        continue
                    for cache, decodes in self._caches(window, at_once):
                        for threads in self._threads():
                            # Where a cache serves a row of windows, one reader goes through them in order.
                            alone = not self.facts.parallel or cache > TINY_CACHE_BYTES
                            yield Layout(block, window, at_once, threads, 1 if alone else threads, cache, decodes)

    def _block_sizes(self) -> list[int]:
        if self.facts.block_size:
            return [self.facts.block_size]
        # A raster smaller than a tile would still be stored as a whole one.
        whole = -(-max(self.facts.shape) // 16) * 16
        return sorted({min(size, whole) for size in BLOCK_SIZES}, reverse=True)

    def _threads(self) -> list[int]:
        if self.resources.threads:
            return [self.resources.threads]
        most = self.resources.threads_max
        return sorted({most, *_powers(most)}, reverse=True)

    def _bands_at_once(self, window: tuple[int, int]) -> list[int]:
        """How many bands a chunk may hold: all where one block holds all or a function wants all, else all or one."""
        every, facts = self.facts.bands, self.facts
        if facts.pixel_interleaved or facts.all_bands or every == 1:
            return [every]
        many = window[0] * window[1] * facts.in_dtype.itemsize * every > _MANY_BANDS_BYTES
        return [1] if many else [every, 1]

    def _windows(self, block: int) -> list[tuple[int, int]]:
        """Window shapes: multiples of the output block, up to the raster's own size rounded up to blocks."""
        down, across = (windows.steps(length, block) for length in self.facts.shape)
        most = max(1, _MOST_WINDOW_PIXELS // block**2)
        found = {(1, 1)}
        for tall in _powers(min(down, most)):
            for wide in [*_powers(min(across, most // tall)), min(across, most // tall)]:
                if wide:
                    found.add((tall, wide))
        aligned = tuple(math.lcm(block, edge) // block for edge in self.facts.block)
        if aligned[0] * aligned[1] * block**2 <= _MOST_ALIGNED_PIXELS:
            found.add((min(down, aligned[0]), min(across, aligned[1])))
        # Whole rows need no cache for strips.
        found.update((1, windows.steps(across, parts)) for parts in (1, 2, 4, 8, 16))
        return [(tall * block, wide * block) for tall, wide in sorted(found)]

    def _caches(self, window: tuple[int, int], at_once: int) -> Iterator[tuple[int, float]]:
        """GDAL cache sizes to consider, each with how often a source block is decoded then."""
        facts, bound = self.facts, self.resources.gdal_cache_max_bytes
        decodes = math.prod(
            _touches(step, edge, length) for step, edge, length in zip(window, facts.block, facts.shape, strict=True)
        )
        row = self.row_cache_bytes(window, at_once)
        if decodes <= _MOST_DECODES or row > bound:
            yield min(TINY_CACHE_BYTES, bound), decodes
        if decodes > 1 and row <= bound:
            yield row, 1.0

    def row_cache_bytes(self, window: tuple[int, int], at_once: int) -> int:
        """A cache that keeps the source blocks of one row of windows, with what GDAL needs to spare (FACTS), bytes."""
        facts = self.facts
        edge, height = facts.block[0], facts.shape[0]
        rows = min(windows.steps(window[0], edge) * edge + (edge if window[0] % edge else 0), max(height, edge))
        across = windows.steps(facts.shape[1], facts.block[1]) * facts.block[1]
        bands = facts.file_bands if facts.pixel_interleaved else at_once
        return int(_ROW_CACHE * rows * across * facts.in_dtype.itemsize * bands)

    def _chunk_refused(self) -> MemoryRefused:
        free = Planner(self.facts, self.resources.model_copy(update={"max_chunk_bytes": None}), self.room)
        least = min((self.chunk_bytes(each) for each in free.layouts()), default=0)
        bound, fixed = self.resources.max_chunk_bytes or 0, self.facts.block_size
        return MemoryRefused(
            f"{self.facts.label}: max_chunk_mb allows {bound:,} bytes for a chunk, the smallest takes {least:,}"
            + (f" with block_size={fixed}" if fixed else ""),
            hint=f"set max_chunk_mb to {mib(least)} or more",
            smallest_chunk_bytes=least,
        )


def _by_preference(choice: Choice) -> tuple[float, int]:
    return choice.preference


def _cost(layout: Layout) -> float:
    """Nanoseconds a pixel, for comparing layouts with each other."""
    at_once = 1 + _THREAD_GAIN * (layout.threads - 1)
    reading = _DECODE * layout.decodes / (at_once if layout.readers > 1 else 1.0)
    values = layout.window[0] * layout.window[1] * layout.bands_at_once
    window = _WINDOW / values
    huge = _HUGE_WINDOW if values > _MOST_WINDOW_PIXELS else 0.0
    return reading + (_ENCODE + window + huge + _BLOCK_COST.get(layout.block_size, 0.0)) / at_once


def _powers(most: int) -> Iterator[int]:
    power = 1
    while power <= most:
        yield power
        power *= 2


def _touches(step: int, edge: int, length: int) -> float:
    """In how many windows a block lies, on average, along one axis."""
    if step >= length or step % edge == 0:
        return 1.0
    if edge >= length:
        return float(windows.steps(length, step))
    return 1.0 + (edge - math.gcd(step, edge)) / step
