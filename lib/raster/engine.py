"""The raster engine: window by window from a source into a tiled GeoTIFF, within what was planned.

`prepare` opens the source; the first chunks are the probe, behind which the plan is final; the pipeline does the rest. How large
a chunk is was decided in `plan.py`; what a pixel becomes, in `operations/`; how tiles reach the file, in `sinks/`.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.errors import DiskRefused, UsageError
from lib.jobs import RASTER_DRIVERS, RasterJob
from lib.memory.cap import trim
from lib.memory.proc import process_memory
from lib.memory.work import BASELINE_SPREAD_BYTES, Bench, Room
from lib.raster import picture_checks, verify
from lib.raster.attempt import Attempt
from lib.raster.carried import check_points, in_sidecar, not_carried
from lib.raster.faults import header
from lib.raster.formats import TINY_CACHE_BYTES, environment, set_cache
from lib.raster.layout import Layout
from lib.raster.operations import make
from lib.raster.operations.verbatim import Verbatim
from lib.raster.plan import Choice, Held, Planner
from lib.raster.sinks import gtiff, picture
from lib.raster.sources.opening import open_for
from lib.raster.task import Task
from lib.raster.validity import in_words
from lib.reports import Outcome, Plan
from lib.units import MIB, format_bytes

# Before the probe: what a reader holds beside a block, and what it may hold where a layout is chosen.
_GUESS_BYTES, _CAUTIOUS_BYTES = 4 * MIB, 16 * MIB
_TRIES = 3
# Codecs of TIFF that decode into the place where a block is wanted.
_IN_PLACE = frozenset({"", "LZW", "DEFLATE", "ZSTD", "LZMA", "PACKBITS"})


def prepare(job: RasterJob, room: Room, *, for_reading: bool = False) -> "RasterWork":
    """Open the source and gather what its header says; only what reading needs is asked of it where nothing is written.

    Raises:
        SourceError: what the header shows cannot be used.
        DataError: a truncated file.
        UsageError: the operation does not fit the source; a driver that is not written.
    """
    if job.driver not in RASTER_DRIVERS.values():
        known = ", ".join(dict.fromkeys(RASTER_DRIVERS.values()))
        raise UsageError(
            f"driver {job.driver} is not written: rasters are written as {known}", hint="name the output .tif"
        )
    with ExitStack() as stack:
        stack.enter_context(environment())
        stack.enter_context(header(job.source))
        set_cache(TINY_CACHE_BYTES)
        source = open_for(job)
        stack.callback(source.close)
        if not for_reading:
            gtiff.check_codec(job.compress)
            check_points(len(source.grid.points), job.label)
        operation = Verbatim.for_reading(source) if for_reading else make(job, source)
        if not for_reading and picture.is_picture(job):
            picture.check(job, source, operation.outputs)
        trim()  # what reading the header took and freed
        return RasterWork(Task(job, source, operation), room, stack.pop_all())


@dataclass(slots=True)
class RasterWork:
    """A prepared raster job; `_held` is what is held beside own terms, as far as is known."""

    task: Task
    room: Room
    _open: ExitStack
    _planner: Planner = field(init=False)
    _held: Held = field(init=False)
    _looked: set[tuple[Layout, bool]] = field(default_factory=set)
    _is_measured: bool = False

    def __post_init__(self) -> None:
        """Facts for the planner, and a guess of what libraries hold."""
        self._planner = Planner(self.task.facts, self.task.job.resources, self.room)
        opened = process_memory().resident_bytes
        self._held = Held(opened, self.task.writer_guess(), _GUESS_BYTES + 5 * self.task.source.block_bytes // 2)

    def close(self) -> None:
        """Close the source."""
        self._open.close()

    def first(self) -> Plan:
        """The plan by header and own terms.

        Raises:
            MemoryRefused: it does not fit; the limit that it names was measured, where reading is no danger.
            DiskRefused: less is free than the output likely takes.
        """
        choices = self._planner.choices(self._held)
        smallest = self._planner.smallest(choices)
        if smallest.projected_bytes > self.room.limit_bytes:  # after a death, the budget is for choosing
            if max(4 * self.task.source.block_bytes, sum(smallest.own.values())) <= self.room.limit_bytes:
                self.look_in(smallest.layout, calls=False)  # nothing holds a user's function before there is a plan
                choices = self._planner.choices(self._held)  # the guess may have been too high
                smallest = self._planner.smallest(choices)
            if smallest.projected_bytes > self.room.limit_bytes:
                return self._untried(choices)
        self._check_disk(smallest.layout)
        return self._plan_of(self._cautious(choices))

    def _untried(self, choices: list[Choice]) -> Plan:
        """The plan to probe with under the cap, where a cautious guess is above the limit and blocks are too large to look at.

        Raises:
            MemoryRefused: what is surely held does not fit either, or what was measured does not.
        """
        if not self._is_measured:
            source = self.task.source
            # A block is decoded into the cache; some codecs copy it, and of several bands two may be there at once.
            copied = source.compression not in _IN_PLACE or source.pixel_interleaved or len(source.bands) > 1
            height, width = source.grid.shape
            whole = height * width * source.itemsize * source.dataset.count
            packed = source.source_bytes * source.block_bytes // whole if source.compression else 0
            self._held = self._held._replace(reader_bytes=_GUESS_BYTES + copied * source.block_bytes + packed)
            choices = self._planner.choices(self._held)
        chosen = self._planner.choose(choices, most_bytes=self.room.limit_bytes)
        if chosen is None or self._is_measured:
            raise self._planner.refused(choices, self._held)
        self._check_disk(chosen.layout)
        return self._plan_of(chosen)

    def look(self) -> Plan:
        """The final plan, by reading where it is heaviest and the first windows; nothing is written.

        As the plan would and as the smallest: a decoder may hold more where a chunk has fewer bands or is smaller.
        """
        choices = self._planner.choices(self._held)
        chosen, smallest = self._cautious(choices), self._planner.smallest(choices)
        self.look_in(smallest.layout)
        least = self._held
        if chosen.layout != smallest.layout:
            self.look_in(chosen.layout)
        self.measured(Held(*map(max, least, self._held)))
        if final := self._final(chosen.layout):
            return self._plan_of(final)
        self.measured(least)
        return self._plan_of(self._tightest())

    def smallest(self, **without: Any) -> int:
        """The smallest limit with other resources, bytes."""
        choices = self._planner.choices(self._held, without=without)
        return self._planner.smallest(choices).projected_bytes + BASELINE_SPREAD_BYTES

    def run(self, bench: Bench) -> Outcome:
        """Transform every window, close, check.

        Raises:
            DataError, FunctionError, MemoryExceeded, OutputError: under way.
            MemoryRefused: the first chunks show that it does not fit.
        """
        if bench.staged is None:
            raise TypeError("a raster job needs a staged file")
        job, is_picture = self.task.job, picture.is_picture(self.task.job)
        written = picture.tiles_of(bench.staged) if is_picture else bench.staged
        try:
            result, layout = self._transform(bench, written)
        finally:
            self.task.source.close_others()
        self.task.source.check_unchanged()
        bench.meter.finish(self._held.reader_bytes)
        bench.meter.phase("verify")
        expected = self._expected(layout)
        verify.basic(str(written), self.task.source, job, self.task.operation, expected, bench, result=result)
        lost = self._copy_to_picture(bench, layout, result) if is_picture else []
        source, outputs = self.task.source, self.task.operation.outputs
        warnings = [
            *not_carried(source, outputs),
            *in_sidecar(bench.staged, source, outputs),
            *self.task.rounding(),
            *self.task.source.remarks(),
            *lost,
        ]
        if moved := result.get("moved_pixels"):
            warnings.append(
                f"{moved:,} valid pixels equal the nodata value {in_words(outputs.nodata or 0)}: "
                "they are written as the value next to it, so that they stay valid"
            )
        return Outcome(result=result, checks=tuple(bench.checks), warnings=tuple(warnings), driver=job.driver)

    def _copy_to_picture(self, bench: Bench, layout: Layout, result: dict[str, Any]) -> list[str]:
        """Copy the tiles to the picture that is asked for; what it does not keep, in words."""
        task, staged = self.task, bench.staged
        assert staged is not None  # noqa: S101 - `run` has looked
        outputs, width = task.operation.outputs, task.source.grid.shape[1]
        is_marked = outputs.has_mask or outputs.nodata is not None
        invalid = is_marked and result["nodata_pixels"] > 0
        copied = picture.Picture(task.job.driver, picture.tiles_of(staged), staged, invalid)
        bands = task.facts.bands_out + is_marked  # a mask is decoded as bytes, like a band
        cache_bytes = picture.row_bytes(width, bands, outputs.dtype.itemsize, layout.block_size)
        set_cache(cache_bytes)
        trim()
        bench.meter.phase("copy to the picture", patient=True)
        picture.write(copied, task.job)
        set_cache(cache_bytes)
        trim()
        bench.meter.phase("verify")
        lost = picture_checks.check(copied, task.job, bench)
        set_cache(TINY_CACHE_BYTES)
        for each in (copied.tiles, copied.tiles.with_name(f"{copied.tiles.name}.aux.xml")):
            each.unlink(missing_ok=True)
        return [f"{task.job.label}: {each}" for each in lost]

    def _expected(self, layout: Layout) -> dict[str, Any]:
        return gtiff.expected(self.task.job, self.task.source, self.task.operation.outputs, layout)

    def _transform(self, bench: Bench, staged: Path) -> tuple[dict[str, Any], Layout]:
        self.task.choose_predictor()
        choices = self._planner.choices(self._held)
        chosen = self._cautious(choices)
        if chosen.cost > min(each.cost for each in choices):  # memory is scarce: what reading holds shows what fits
            self.look_in(chosen.layout)
            chosen = self._cautious(self._planner.choices(self._held))
        for _ in range(_TRIES):
            with Attempt(self.task, chosen.layout, staged, bench) as attempt:
                self.measured(attempt.probe())
                final = self._final(chosen.layout)
                if final is not None:
                    plan = self._plan_of(final)
                    bench.settle(plan)
                    return attempt.finish(final.layout), final.layout
            smaller = self._planner.choose(self._planner.choices(self._held)) or self._tightest()
            if smaller.layout == chosen.layout:
                break
            chosen = smaller
        raise self._planner.refused(self._planner.choices(self._held), self._held)

    @property
    def held(self) -> Held:
        """What is held beside own terms, as far as is known."""
        return self._held

    def default_choice(self) -> Choice:
        """The layout that the work would have within its limit; the smallest where none fits."""
        choices = self._planner.choices(self._held)
        return self._planner.choose(choices) or self._planner.smallest(choices)

    def reading_layout(self) -> Layout:
        """The layout in which one reader reads a sample: small where the limit is."""
        return self._cautious(self._planner.choices(self._held)).layout._replace(threads=1, readers=1)

    def look_in(self, layout: Layout, *, calls: bool = True) -> None:
        """Measure what libraries hold by reading alone, and a user's function by calling it once.

        Not twice in one layout: what stayed from the first time would count as opening the source, and again.
        """
        if (layout, calls) in self._looked:
            return
        self._looked |= (
            {(layout, True), (layout, calls)} if not self.task.operation.one_at_a_time else {(layout, calls)}
        )
        self.measured(self.task.measure_by_reading(layout, calls=calls))

    def measured(self, held: Held) -> None:
        """Take what a probe has measured; a second one, of a smaller layout, counts as much."""
        self._held, self._is_measured = held, True

    def _cautious(self, choices: list[Choice]) -> Choice:
        """The layout to probe: while what libraries hold is not known, one that leaves them room, or the smallest."""
        if self._is_measured:
            return self._planner.choose(choices) or self._planner.smallest(choices)
        held = self._held._replace(reader_bytes=3 * self._held.reader_bytes + _CAUTIOUS_BYTES)
        chosen = self._planner.choose(self._planner.choices(held))
        layout = (chosen or self._planner.smallest(choices)).layout
        return next(each for each in choices if each.layout == layout)

    def _final(self, layout: Layout) -> Choice | None:
        """The fastest choice that differs from the probed layout by its workers only, and fits; None where none does."""
        alike = [each for each in self._planner.choices(self._held) if _probed_alike(each.layout, layout)]
        # After a death the budget is for choosing; what was probed under the limit may use it.
        return self._planner.choose(alike) or self._planner.choose(alike, most_bytes=self.room.limit_bytes)

    def _tightest(self) -> Choice:
        return self._planner.smallest(self._planner.choices(self._held))

    def _plan_of(self, chosen: Choice) -> Plan:
        layout, choices = chosen.layout, self._planner.choices(self._held)
        expected, driver = self._expected(layout), self.task.job.driver
        return Plan(
            limit_bytes=self.room.limit_bytes,
            projected_bytes=chosen.projected_bytes,
            baseline_bytes=self.room.baseline_bytes,
            disk_bytes=self.task.disk_bytes(layout),
            smallest_limit_bytes=self.smallest(),
            threads=layout.threads,
            gdal_cache_bytes=layout.cache_bytes,
            window=layout.window,
            block_size=layout.block_size,
            chunks=self.task.count(layout),
            terms=self._planner.terms(chosen, self._held),
            lower_by=self._planner.lower_by(chosen, choices),
            expected=picture.expected(expected, driver) if picture.is_picture(self.task.job) else expected,
            facts=self.task.source.describe(),
        )

    def _check_disk(self, layout: Layout) -> None:
        """Refuse a job whose output cannot fit into what is free: all of an uncompressed one, else half of its source's own size.

        An uncompressed source says nothing: a tenth of it is asked for. Both shares are a judgement, not measured.
        """
        free = self.room.disk_free_bytes
        if free is None:
            return
        need = self.task.disk_bytes(layout)
        if self.task.job.compress != "none":
            share = len(self.task.source.bands) / self.task.source.dataset.count
            need = min(
                need, int(self.task.source.source_bytes * share / (2 if self.task.source.compression else 10)) + MIB
            )
        if free < need:
            raise DiskRefused(
                f"{self.task.job.label}: the output takes at least {format_bytes(need)}, "
                f"and its disk has {format_bytes(free)} free",
                free_bytes=free,
                need_bytes=need,
            )


def _probed_alike(one: Layout, other: Layout) -> bool:
    return one._replace(threads=0, readers=0) == other._replace(threads=0, readers=0) and one.threads <= other.threads
