"""The planner: header facts, a job and room for it in; window, block, threads, cache and projected bytes out. Pure.

It lists every layout that the job allows, projects the peak of each, and takes the cheapest in time of those that fit. So more
memory is used only where that is faster, and the smallest limit that would do is simply the smallest projection in the list.
What each term is made of, and the measurements behind it, is in `terms.py`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lib.errors import DiskRefused, MemoryRefused
from lib.jobs import Custom, RasterJob
from lib.memory.work import BASELINE_SPREAD_BYTES, Room
from lib.raster import windows
from lib.raster.facts import RasterFacts
from lib.raster.operations import output_dtype, output_nodata
from lib.raster.terms import TINY_CACHE_BYTES, Layout, chunk_bytes, table_bytes, terms
from lib.reports import Plan
from lib.units import MIB, format_bytes

__all__ = ["check_disk", "choose", "layouts", "make_plan"]

BLOCK_SIZES = (512, 256, 128)
_MOST_WINDOW_PIXELS = 1024 * 1024  # 4 MiB of float32: larger windows gained nothing
_MOST_ALIGNED_PIXELS = 4 * _MOST_WINDOW_PIXELS
# Where no cache for a row of windows fits, a source block is decoded again for each window that it touches; at most so often.
_MOST_DECODES = 16.0
_ROW_CACHE = 1.3
_MANY_BANDS_BYTES = 16 * MIB
# Nanoseconds, for choosing only: decoding and encoding a pixel, opening and closing a window.
_DECODE, _ENCODE, _WINDOW = 4.0, 15.0, 300_000.0
_THREADS_GAIN = 0.6
_HUGE_WINDOW = 1.5  # leaves the CPU's caches
# What smaller tiles cost in size and time, ns a pixel.
_BLOCK_COST = {512: 0.0, 256: 0.3, 128: 1.2}


@dataclass(frozen=True, slots=True)
class _Choice:
    layout: Layout
    projected_bytes: int
    cost: float


def make_plan(
    facts: RasterFacts, job: RasterJob, room: Room, *, instead: Mapping[str, int] = MappingProxyType({})
) -> Plan:
    """The fastest plan that fits into `room.budget_bytes`.

    Args:
        facts: of the source.
        job: the work.
        room: what may be used.
        instead: terms by name, bytes, that are known to be others than this work's.

    Raises:
        MemoryRefused: none fits, or a fixed setting leaves none; says which, and the smallest limit that would do.
    """
    choices = _choices(facts, job, room, instead)
    chosen = choose(choices, job, facts, room)
    layout = chosen.layout
    made = {**terms(facts, job, room, layout), **instead}
    return Plan(
        limit_bytes=room.limit_bytes,
        projected_bytes=chosen.projected_bytes,
        baseline_bytes=room.baseline_bytes,
        disk_bytes=disk_bytes(facts, job, layout.block_size),
        smallest_limit_bytes=_smallest(choices),
        threads=layout.threads,
        gdal_cache_bytes=layout.cache_bytes,
        window=layout.window,
        block_size=layout.block_size,
        chunks=windows.count(facts.shape, layout.window) * windows.steps(len(facts.bands), layout.bands_at_once),
        terms=made,
        lower_by=_lower_by(chosen, choices, facts, job, room, instead),
        expected=_expected(facts, job, layout),
        facts=facts.describe() | {"bands_at_once": layout.bands_at_once, "decodes": round(layout.decodes, 2)},
    )


def choose(choices: list[_Choice], job: RasterJob, facts: RasterFacts, room: Room) -> _Choice:
    """The cheapest choice that fits.

    Raises:
        MemoryRefused: there is none.
    """
    if not choices:
        raise _chunk_refused(facts, job)
    fitting = [choice for choice in choices if choice.projected_bytes <= room.budget_bytes]
    if fitting:
        return min(fitting, key=_preference)
    smallest = _smallest(choices)
    setting = _setting_in_the_way(facts, job, room, smallest)
    raise MemoryRefused(
        f"{job.label}: needs a limit of at least {_mib(smallest)} MiB, "
        f"{_mib(room.budget_bytes, down=True)} MiB are granted{setting}",
        hint=f"raise the memory limit to {_mib(smallest)} MiB",
        smallest_limit_bytes=smallest,
    )


def _smallest(choices: list[_Choice]) -> int:
    """The smallest limit that would do, also for a child whose size after imports is a little larger than this one's."""
    return min(choice.projected_bytes for choice in choices) + BASELINE_SPREAD_BYTES


def _choices(
    facts: RasterFacts, job: RasterJob, room: Room, instead: Mapping[str, int] = MappingProxyType({})
) -> list[_Choice]:
    return [
        _Choice(layout, sum({**terms(facts, job, room, layout), **instead}.values()), _cost(layout))
        for layout in layouts(facts, job)
    ]


def _cost(layout: Layout) -> float:
    """Nanoseconds a pixel, for comparing layouts with each other."""
    encode = _ENCODE * (_THREADS_GAIN if layout.threads > 1 else 1.0)
    window = _WINDOW / (layout.window[0] * layout.window[1] * layout.bands_at_once)
    huge = _HUGE_WINDOW if layout.window[0] * layout.window[1] > _MOST_WINDOW_PIXELS else 0.0
    return _DECODE * layout.decodes + encode + window + huge + _BLOCK_COST.get(layout.block_size, 0.0)


def layouts(facts: RasterFacts, job: RasterJob) -> Iterator[Layout]:
    """Every layout that the job's fixed choices allow."""
    bound = job.resources.max_chunk_bytes
    for block in _block_sizes(facts, job):
        for window in _windows(facts, block):
            for at_once in _bands_at_once(facts, job, window):
                if bound is not None and chunk_bytes(facts, job, window, at_once) > bound:
                    continue
                for cache, decodes in _caches(facts, job, window, at_once):
                    for threads in _threads(job):
                        yield Layout(block, window, at_once, threads, cache, decodes)


def _block_sizes(facts: RasterFacts, job: RasterJob) -> list[int]:
    if job.block_size:
        return [job.block_size]
    # A raster smaller than a tile would still be stored as a whole one.
    whole = -(-max(facts.shape) // 16) * 16
    return sorted({min(size, whole) for size in BLOCK_SIZES}, reverse=True)


def _threads(job: RasterJob) -> list[int]:
    if job.resources.threads:
        return [job.resources.threads]
    if job.compress == "none":
        return [1]
    return [2, 1] if job.resources.threads_max > 1 else [1]


def _bands_at_once(facts: RasterFacts, job: RasterJob, window: tuple[int, int]) -> list[int]:
    """How many bands a chunk may hold: all where one block holds all or a function wants all, else all or one."""
    every = len(facts.bands)
    if facts.read.pixel_interleaved or isinstance(job.operation, Custom) or every == 1:
        return [every]
    many = window[0] * window[1] * facts.itemsize * every > _MANY_BANDS_BYTES
    return [1] if many else [every, 1]


def _windows(facts: RasterFacts, block: int) -> list[tuple[int, int]]:
    """Window shapes: multiples of the output block, up to the raster's own size rounded up to blocks."""
    down, across = (windows.steps(length, block) for length in facts.shape)
    most = max(1, _MOST_WINDOW_PIXELS // block**2)
    found = {(1, 1)}
    for tall in _powers(min(down, most)):
        for wide in [*_powers(min(across, most // tall)), min(across, most // tall)]:
            if wide:
                found.add((tall, wide))
    aligned = tuple(math.lcm(block, edge) // block for edge in facts.read.block)
    if aligned[0] * aligned[1] * block**2 <= _MOST_ALIGNED_PIXELS:
        found.add((min(down, aligned[0]), min(across, aligned[1])))
    # Whole rows need no cache for strips.
    found.update((1, windows.steps(across, parts)) for parts in (1, 2, 4, 8, 16))
    return [(tall * block, wide * block) for tall, wide in sorted(found)]


def _powers(most: int) -> Iterator[int]:
    power = 1
    while power <= most:
        yield power
        power *= 2


def _caches(facts: RasterFacts, job: RasterJob, window: tuple[int, int], at_once: int) -> Iterator[tuple[int, float]]:
    """GDAL cache sizes to consider, each with how often a source block is decoded then."""
    bound = job.resources.gdal_cache_max_bytes
    tiny = min(max(TINY_CACHE_BYTES, facts.read.least_cache_bytes), bound)
    decodes = math.prod(
        _touches(step, edge, length) for step, edge, length in zip(window, facts.read.block, facts.shape, strict=True)
    )
    row = row_cache_bytes(facts, window, at_once)
    if decodes <= _MOST_DECODES or row > bound:
        yield tiny, decodes
    if decodes > 1 and row <= bound:
        yield row, 1.0


def _touches(step: int, edge: int, length: int) -> float:
    """In how many windows a block lies, on average, along one axis."""
    if step >= length or step % edge == 0:
        return 1.0
    if edge >= length:
        return float(windows.steps(length, step))
    return 1.0 + (edge - math.gcd(step, edge)) / step


def row_cache_bytes(facts: RasterFacts, window: tuple[int, int], at_once: int) -> int:
    """A cache that keeps the source blocks of one row of windows, with what GDAL needs to spare (FACTS), bytes."""
    edge, height = facts.read.block[0], facts.shape[0]
    rows = min(windows.steps(window[0], edge) * edge + (edge if window[0] % edge else 0), max(height, edge))
    across = windows.steps(facts.shape[1], facts.read.block[1]) * facts.read.block[1]
    bands = facts.count if facts.read.pixel_interleaved else at_once
    return int(_ROW_CACHE * rows * across * facts.itemsize * bands)


def disk_bytes(facts: RasterFacts, job: RasterJob, block_size: int) -> int:
    """Upper bound of the output: its tiles uncompressed, 1 % for incompressible ones, and its table."""
    tiles = windows.count(facts.shape, (block_size, block_size)) * len(facts.bands)
    itemsize = output_dtype(job.operation, facts.dtype).itemsize
    return int(tiles * block_size**2 * itemsize * 1.01) + table_bytes(tiles) + MIB


def likely_disk_bytes(facts: RasterFacts, job: RasterJob, block_size: int) -> int:
    """The least that must be free: all of an uncompressed output, half of what a compressed one likely takes.

    A compressed source says how well its pixels compress: half its own size is asked for, which is meant to refuse no job
    that fits. An uncompressed one says nothing: a tenth of it is asked for. Both shares are a judgement, not measured.
    """
    upper = disk_bytes(facts, job, block_size)
    if job.compress == "none":
        return upper
    share = len(facts.bands) / facts.count
    likely = facts.source_bytes * share / (2 if facts.read.compression else 10)
    return min(upper, int(likely) + MIB)


def check_disk(facts: RasterFacts, job: RasterJob, plan: Plan, free_bytes: int | None) -> None:
    """Refuse a job whose output cannot fit into what is free on its disk, where that is known.

    Raises:
        DiskRefused: less is free than `likely_disk_bytes`.
    """
    if free_bytes is None or plan.block_size is None:
        return
    need = likely_disk_bytes(facts, job, plan.block_size)
    if free_bytes < need:
        raise DiskRefused(
            f"{job.label}: the output takes at least {format_bytes(need)}, and its disk has {format_bytes(free_bytes)} free",
            free_bytes=free_bytes,
            need_bytes=need,
        )


def _expected(facts: RasterFacts, job: RasterJob, layout: Layout) -> dict[str, Any]:
    dtype = output_dtype(job.operation, facts.dtype)
    nodata = output_nodata(job, dtype)
    return {
        "driver": "GTiff",
        "height": facts.shape[0],
        "width": facts.shape[1],
        "count": len(facts.bands),
        "bands": list(facts.bands),
        "dtype": dtype.name,
        "nodata": "nan" if math.isnan(nodata) else nodata,
        "block_size": layout.block_size,
        "compress": job.compress,
    }


def _lower_by(
    chosen: _Choice,
    choices: list[_Choice],
    facts: RasterFacts,
    job: RasterJob,
    room: Room,
    instead: Mapping[str, int],
) -> str:
    """The one setting that would lower the peak most, and by how much: what the planner would choose with it set."""
    layout = chosen.layout
    knobs = {"threads 1": [each for each in choices if each.layout.threads == 1]}
    for size in {each.layout.block_size for each in choices} - {layout.block_size}:
        knobs[f"block_size {size}"] = [each for each in choices if each.layout.block_size == size]
    sizes = {each: chunk_bytes(facts, job, each.layout.window, each.layout.bands_at_once) for each in choices}
    for bound in (1, 2, 4, 8):
        if bound * MIB < sizes[chosen]:
            knobs[f"max_chunk_mb {bound}"] = [each for each in choices if sizes[each] <= bound * MIB]
    knobs |= {knob: _choices(facts, other, room, instead) for knob, other in _other_jobs(job, layout).items()}
    found = []
    for knob, within in knobs.items():
        fitting = [each for each in within if each.projected_bytes <= room.budget_bytes]
        if fitting:
            found.append((chosen.projected_bytes - min(fitting, key=_preference).projected_bytes, knob))
    saved, knob = max(found, default=(0, ""))
    return f"{knob} saves {format_bytes(saved)}" if saved >= MIB else ""


def _other_jobs(job: RasterJob, layout: Layout) -> dict[str, RasterJob]:
    """The job with other codecs and smaller caches, by the setting that makes it so."""
    jobs = {"compress none": job.model_copy(update={"compress": "none"})} if job.compress != "none" else {}
    for bound in (1, 8, 64):
        if bound * MIB < layout.cache_bytes:
            smaller = job.resources.model_copy(update={"gdal_cache_max_bytes": bound * MIB})
            jobs[f"gdal_cachemax {bound}"] = job.model_copy(update={"resources": smaller})
    return jobs


def _preference(choice: _Choice) -> tuple[float, int]:
    """Cheapest in time first, then smallest."""
    return choice.cost, choice.projected_bytes


def _setting_in_the_way(facts: RasterFacts, job: RasterJob, room: Room, smallest: int) -> str:
    """Names the fixed setting without which a plan would fit."""
    freed: dict[str, RasterJob] = {}
    resources = job.resources
    if job.block_size:
        freed[f"block_size={job.block_size}"] = job.model_copy(update={"block_size": None})
    if resources.threads and resources.threads > 1:
        fewer = resources.model_copy(update={"threads": None})
        freed[f"threads={resources.threads}"] = job.model_copy(update={"resources": fewer})
    for name, other in freed.items():
        without = _choices(facts, other, room)  # none, where max_chunk_mb leaves no other block size
        if without and _smallest(without) <= room.budget_bytes < smallest:
            return f"; without {name} it would need {_mib(_smallest(without))} MiB"
    if room.budget_bytes < room.limit_bytes:
        return f" of the limit of {_mib(room.limit_bytes, down=True)} MiB after a death of memory"
    if facts.read.block_bytes > smallest // 4:
        height, width = facts.read.block
        return f"; one source block of {height} x {width} pixels alone is {format_bytes(facts.read.block_bytes)}"
    return ""


def _chunk_refused(facts: RasterFacts, job: RasterJob) -> MemoryRefused:
    free = job.model_copy(update={"resources": job.resources.model_copy(update={"max_chunk_bytes": None})})
    least = min((chunk_bytes(facts, free, each.window, each.bands_at_once) for each in layouts(facts, free)), default=0)
    bound = job.resources.max_chunk_bytes or 0
    return MemoryRefused(
        f"{job.label}: max_chunk_mb allows {bound:,} bytes for a chunk, the smallest takes {least:,}"
        + (f" with block_size={job.block_size}" if job.block_size else ""),
        hint=f"set max_chunk_mb to {_mib(least)} or more",
        smallest_chunk_bytes=least,
    )


def _mib(size_bytes: int, *, down: bool = False) -> int:
    return size_bytes // MIB if down else -(-size_bytes // MIB)
