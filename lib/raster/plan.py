"""The planner: facts, resources and room in; window, block, threads, cache and projected bytes out. Pure.

It lists every layout that the job allows and takes the cheapest in time of those that fit. Own terms are closed form; what
libraries hold is guessed before the probe and measured by it (`probe.py`). The smallest limit is the smallest projection listed.
"""

import functools
import math
from dataclasses import replace
from typing import Any, NamedTuple

from lib.errors import MemoryRefused
from lib.jobs import Resources
from lib.memory.work import BASELINE_SPREAD_BYTES, Room, with_probed
from lib.raster import windows
from lib.raster.layout import Facts, Layout, Layouts, chunk_bytes, chunk_of, cost, levels_of, requests, worker_bytes
from lib.raster.sinks.tiles import memory_bytes
from lib.units import MIB, format_bytes, mib

_NEXT_TO_LEAST_BYTES = 3 * MIB


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


class Planner:
    """Chooses for one job.

    Args:
        facts: what a layout depends on.
        resources: what the user has fixed.
        room: what may be used.
    """

    def __init__(self, facts: Facts, resources: Resources, room: Room) -> None:
        self.facts, self.resources, self.room = facts, resources, room
        self._by_held: dict[Held, list[Choice]] = {}

    def choices(self, held: Held, *, without: dict[str, Any] | None = None) -> list[Choice]:
        """Every layout that is allowed, with its projection.

        Args:
            held: beside own terms.
            without: fields of the resources to replace.
        """
        if without:
            return Planner(self.facts, self.resources.model_copy(update=without), self.room).choices(held)
        if (known := self._by_held.get(held)) is None:
            readers = {each.layout.readers for each in self._own_choices}
            beside = {each: sum(self._beside(each, held).values()) for each in readers}
            known = self._by_held[held] = [
                each._replace(projected_bytes=each.projected_bytes + beside[each.layout.readers])
                for each in self._own_choices
            ]
        return known

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
        for layout in Layouts(self.facts, self.resources):
            worker = worker_bytes(self.facts, layout)
            own = self._own_terms(layout, worker)
            found.append(
                Choice(
                    layout,
                    own,
                    sum(own.values()),
                    chunk_of(worker),
                    cost(layout, levels_of(self.facts, layout), requests(self.facts, layout)),
                )
            )
        return found

    def _own_terms(self, layout: Layout, worker: dict[str, int]) -> dict[str, int]:
        facts = self.facts
        tiles = math.prod(self._tiles(layout)) * (facts.written_at_once(layout.bands_at_once) + facts.has_mask)
        # One more chunk waits than there are workers; a single one waits for nothing.
        waiting = layout.threads + (layout.threads > 1)
        workers = {name: size * layout.threads for name, size in worker.items()}
        if facts.one_at_a_time:
            workers["operation"] //= layout.threads
        levels, encoding = levels_of(facts, layout), facts.encoding(layout.block_size)
        if levels:
            written = facts.written_at_once(layout.bands_at_once)
            workers["overviews"] += levels.strips_bytes(facts.bands_out, encoding)
            workers["overviews"] += waiting * levels.waiting_bytes(written, encoding, mask=facts.has_mask)
        passing = workers | {
            "encoded tiles": waiting * tiles * encoding.bound_bytes,
            "gdal cache": min(max(layout.cache_bytes, facts.block_bytes), self._decoded_bytes()),
        }
        if facts.copying is not None:  # when all these are gone
            passing["picture"] = max(0, facts.copying(layout.block_size) - sum(passing.values()))
        network = {"network cache": facts.network_cache_bytes} if facts.network_cache_bytes else {}
        return (
            passing
            | network
            | {
                "tile tables": memory_bytes(
                    facts.shape,
                    facts.bands_out,
                    layout.block_size,
                    mask=facts.has_mask,
                    levels=levels.shapes if levels else (),
                ),
            }
        )

    def _tiles(self, layout: Layout) -> tuple[int, int]:
        down, across = (
            windows.steps(min(step, length), layout.block_size)
            for step, length in zip(layout.window, self.facts.shape, strict=True)
        )
        return down, across

    def _decoded_bytes(self) -> int:
        facts = self.facts
        of_file = facts.footprint is not None
        down, across = (
            windows.steps(length, edge) * edge
            for length, edge in zip(
                facts.file_shape if of_file else facts.shape, facts.file_block if of_file else facts.block, strict=True
            )
        )
        return down * across * self.facts.in_dtype.itemsize * self.facts.file_bands

    def choose(self, choices: list[Choice], *, most_bytes: int | None = None) -> Choice | None:
        """The cheapest choice that fits into the budget (or into `most_bytes`); None where none does."""
        most = self.room.budget_bytes if most_bytes is None else most_bytes
        return min((each for each in choices if each.projected_bytes <= most), key=_preference, default=None)

    def smallest(self, choices: list[Choice]) -> Choice:
        """The fastest choice of those that take next to least: the very least may be many times slower.

        Raises:
            MemoryRefused: `max_chunk_mb` allows none at all.
        """
        if not choices:
            raise self._chunk_refused()
        least = min(each.projected_bytes for each in choices)
        return min((each for each in choices if each.projected_bytes <= least + _NEXT_TO_LEAST_BYTES), key=_preference)

    def refused(self, choices: list[Choice], held: Held) -> MemoryRefused:
        """None fits: says so, with the smallest limit that would do and what is in the way."""
        smallest = self.smallest(choices).projected_bytes + BASELINE_SPREAD_BYTES
        return MemoryRefused(
            f"{self.facts.label}: needs a limit of at least {mib(smallest)} MiB, "
            f"{self.room.budget_bytes // MIB} MiB are granted{self._in_the_way(smallest, held)}",
            hint=f"raise the memory limit to {mib(smallest)} MiB"
            + (", or write .tif, fewer bands (--bands) or a part (clip)" if self.facts.copying else ""),
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

    def _chunk_refused(self) -> MemoryRefused:
        free = Planner(self.facts, self.resources.model_copy(update={"max_chunk_bytes": None}), self.room)
        least = min((chunk_bytes(self.facts, each) for each in Layouts(free.facts, free.resources)), default=0)
        bound, fixed = self.resources.max_chunk_bytes or 0, self.facts.block_size
        return MemoryRefused(
            f"{self.facts.label}: max_chunk_mb allows {bound:,} bytes for a chunk, the smallest takes {least:,}"
            + (f" with block_size={fixed}" if fixed else ""),
            hint=f"set max_chunk_mb to {mib(least)} or more",
            smallest_chunk_bytes=least,
        )


def _preference(choice: Choice) -> tuple[float, int]:
    return choice.preference
