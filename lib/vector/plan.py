"""The plan of a vector job: rows of a batch, the index's memory, and what it all comes to. Pure.

Own terms are closed form: what of a batch is held at once, indexes that grow with features. What libraries hold is measured
(`probe.py`); before that it is guessed, generously, only to choose how many rows a batch has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from lib.errors import DiskRefused, MemoryRefused
from lib.jobs import Resources
from lib.memory.work import BASELINE_SPREAD_BYTES, Room
from lib.units import KIB, MIB, format_bytes, mib
from lib.vector.sinks.base import Index, VectorSink
from lib.vector.sinks.gpkg import most_index_bytes
from lib.vector.sources.facts import LayerFacts, steps_of
from lib.vector.steps import Step

# Rows enough to have this much in a batch, by their mean, make it as fast as more do (30,000 rows of 14 kB took 7.0 s in
# batches of 8 MiB and 8.1 s in batches of 133 MiB). Not by the largest batch: a few huge geometries would make all small.
_ENOUGH_BATCH_BYTES = 16 * MIB
# A feature that is worth a look beforehand.
LARGE_BYTES = MIB
# Guesses for the choice of rows: pages and caches of OGR, SQLite, PROJ and Arrow; bytes held for each of a batch.
_LIBRARIES_BYTES = 14 * MIB
_PER_BATCH_BYTE = 5
# Fewer rows surely save so many for each byte of a batch: it and what is kept of it.
_SAVED_PER_BYTE = 1.5
# lib/MEASURED.md, "The probe of layers".
_MARGIN_SHARE, _MARGIN_BYTES = 0.15, 8 * MIB
_LEAST_MARGIN_BYTES = 3 * MIB
_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
_NEARLY = 1.05, 256 * KIB


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be planned: a layer, where it goes (None: it is only read), what is done, within which resources.

    `per_byte` is the guess of what is held for each byte of a batch.
    """

    facts: LayerFacts
    sink: VectorSink | None
    steps: Sequence[Step]
    resources: Resources
    per_byte: int = _PER_BATCH_BYTE


@dataclass(frozen=True, slots=True)
class Layout:
    """What was chosen.

    Attributes:
        rows: rows of a batch, at most.
        batch_bytes: bytes of a batch, at most, as far as is known.
        index: the output's.
        is_ahead: a thread reads the next batch meanwhile.
    """

    rows: int
    batch_bytes: int
    index: Index
    is_ahead: bool = False


def choose(task: Task, left_bytes: int, takes: Callable[[Layout], int] | None = None) -> Layout:
    """The most rows that make it faster, then the largest index, of those that likely fit; else the least of all.

    Args:
        task: what is done.
        left_bytes: what there is.
        takes: bytes of it that a layout takes; None: a guess of what it does above the size after imports.

    Raises:
        MemoryRefused: max_chunk_mb is below the smallest batch.
    """
    takes = takes or partial(needs, task)
    facts, resources = task.facts, task.resources
    every = _allowed(task, [resources.chunk_rows] if resources.chunk_rows_fixed else steps_of(resources.chunk_rows))
    mean = facts.sizes.mean_bytes or KIB
    worth = [rows for rows in every if rows * mean <= _ENOUGH_BATCH_BYTES] or every[-1:]
    # Of large features not two batches at once.
    reads_ahead = task.sink is not None and not large(facts) and resources.threads_max > 1 and resources.threads != 1
    for rows, is_ahead, share in product(worth, (True, False)[not reads_ahead :], _SHARES):
        layout = _layout(task, rows, share, is_ahead=is_ahead)
        if takes(layout) <= left_bytes:
            return layout
    least = {rows: takes(_layout(task, rows, 0.0)) for rows in worth}
    factor, more = _NEARLY
    rows = next(rows for rows in worth if least[rows] <= min(least.values()) * factor + more)
    return _layout(task, rows, 0.0)


def _allowed(task: Task, every: list[int]) -> list[int]:
    most_bytes = task.resources.max_chunk_bytes
    within = [rows for rows in every if most_bytes is None or task.facts.batch_bytes(rows) <= most_bytes]
    if within or most_bytes is None:
        return within
    fixed = f" of chunk_rows {every[0]} rows" if task.resources.chunk_rows_fixed else ""
    smallest = task.facts.batch_bytes(every[-1])
    raise MemoryRefused(
        f"{task.facts.label}: max_chunk_mb allows {format_bytes(most_bytes)} for a batch{fixed}, the smallest takes "
        f"{format_bytes(smallest)}",
        hint=f"set max_chunk_mb to {mib(smallest)} or more",
        smallest_chunk_bytes=smallest,
    )


def _layout(task: Task, rows: int, share: float, *, is_ahead: bool = False) -> Layout:
    index = task.sink.index(task.facts, share) if task.sink else Index()
    return Layout(rows, task.facts.batch_bytes(rows), index, is_ahead)


def guess(task: Task, layout: Layout) -> int:
    """What the pass may take above the size after imports, without indexes and margins, bytes."""
    batch = layout.batch_bytes
    steps = sum(step.memory(batch, task.facts.at_most(layout.rows)) for step in task.steps)
    sink = int(task.sink.own_bytes + task.sink.feature_copies * large(task.facts)) if task.sink else 0
    return _LIBRARIES_BYTES + sink + steps + (task.per_byte + layout.is_ahead) * batch


def needs(task: Task, layout: Layout) -> int:
    """All that a layout may take above the size after imports, bytes."""
    ample = Room(2**62, 2**62, 0)
    return sum(terms_of(task, layout, ample, guess(task, layout), layout.batch_bytes).values())


def large(facts: LayerFacts) -> int:
    """The largest feature where it is a large one; else 0."""
    return facts.sizes.largest_bytes if facts.sizes.largest_bytes >= LARGE_BYTES else 0


def terms_of(task: Task, layout: Layout, room: Room, probed_bytes: int, freed_bytes: int) -> dict[str, int]:
    """The projected peak by name, bytes.

    The margin gives way, down to a part of it, where the limit leaves no more: what is beyond is the watchdog's business.

    Args:
        task: what is done.
        layout: how.
        room: what there is.
        probed_bytes: what was measured above the size after imports.
        freed_bytes: how much of that is surely free again when the output's index is built.
    """
    margin = max(int(probed_bytes * _MARGIN_SHARE), _MARGIN_BYTES)
    terms = {
        "baseline": room.baseline_bytes,
        "probed": probed_bytes,
        "index while writing": layout.index.held_bytes + task.facts.growth_bytes,
        "index at the end": max(0, layout.index.built_bytes - freed_bytes),
        "margin": task.resources.margin_bytes,
    }
    left = room.budget_bytes - sum(terms.values())
    return terms | {"probe margin": min(margin, left) if left >= _LEAST_MARGIN_BYTES else margin}


def smallest_of(task: Task, layout: Layout, room: Room, probed_bytes: int, freed_bytes: int) -> int:
    """The smallest limit that would do, bytes, by what was measured with this layout."""
    least = choose(task, 0)
    saved = int(_SAVED_PER_BYTE * max(0, layout.batch_bytes - least.batch_bytes))
    ample = Room(2**62, 2**62, room.baseline_bytes)
    freed = max(0, freed_bytes - saved)
    return sum(terms_of(task, least, ample, max(0, probed_bytes - saved), freed).values()) + BASELINE_SPREAD_BYTES


def grown(task: Task, probed_bytes: int, layout: Layout, other: Layout) -> int:
    """What would be measured with a larger layout, at most, by what was measured with this one, bytes."""
    more = max(0, other.batch_bytes - layout.batch_bytes)
    return probed_bytes + (task.per_byte + other.is_ahead) * more + other.is_ahead * layout.batch_bytes


def lower_by(task: Task, layout: Layout, least: Layout) -> str:
    """The one setting that would lower the peak most, and by how much at least; empty below 1 MiB."""
    saves = {"margin_mb 0": task.resources.margin_bytes}
    saves[f"chunk_rows {least.rows}"] = int(_SAVED_PER_BYTE * (layout.batch_bytes - least.batch_bytes))
    if layout.index.held_bytes:
        saves["writing a .gpkg"] = layout.index.held_bytes - most_index_bytes(task.facts)
    knob = max(saves, key=lambda each: saves[each])
    return f"{knob} saves {format_bytes(saves[knob])}" if saves[knob] >= MIB else ""


def check_disk(facts: LayerFacts, sink: VectorSink, free_bytes: int | None, *, keeps_all: bool) -> None:
    """Refuse a job whose output cannot fit into what is free on its disk, where that is known.

    Where all features are kept, they must fit; what a filter keeps is not known, and no output is under 1 MiB.

    Raises:
        DiskRefused: less is free.
    """
    if keeps_all:
        sink.check_size(facts)
    least = sink.copied_bytes + max(MIB, facts.sizes.total_bytes * sink.disk_factor if keeps_all else 0)
    if free_bytes is not None and free_bytes < least:
        raise DiskRefused(
            f"{facts.label}: the output takes at least {format_bytes(least)}, and its disk has {format_bytes(free_bytes)} free",
            free_bytes=free_bytes,
            needed_bytes=least,
        )
