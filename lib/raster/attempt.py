"""One pass over a source into a staged file: first its probe by one worker, then the rest by all."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lib.memory.cap import trim
from lib.memory.proc import process_memory
from lib.memory.work import Bench
from lib.raster import windows
from lib.raster.formats import set_cache
from lib.raster.layout import Layout
from lib.raster.pipeline import Encoded, finished
from lib.raster.plan import Held
from lib.raster.probe import Growth, Quiet, undecoded_bytes
from lib.raster.sinks import gtiff
from lib.raster.sinks.pyramid import Tile
from lib.raster.statistics import Statistics
from lib.raster.task import Task
from lib.space import Space


class Attempt:
    """One pass over the source into a staged file: first its probe by one worker, then the rest by all.

    Args:
        task: the job.
        layout: how it is cut up; the probe has one worker of it.
        staged: the file.
        bench: for its meter.
    """

    def __init__(self, task: Task, layout: Layout, staged: Path, bench: Bench) -> None:
        self._task, self._layout, self._bench = task, layout, bench
        set_cache(layout.cache_bytes)
        trim()
        self._opened = process_memory().resident_bytes
        growth = Growth()
        self._writer = gtiff.create(staged, task.job, task.source, task.operation.outputs, layout)
        # No less than what a refusal beforehand counts with.
        self._writer_bytes = max(growth.bytes(), task.writer_guess())
        self._strips = task.strips(layout)
        self._workers = task.workers(layout._replace(threads=1, readers=1))
        self._chunks, self._count = task.chunks(layout), task.count(layout)
        self._space = Space(staged, task.job.label)
        self._statistics = [Statistics() for _ in range(task.facts.bands_out)]
        self._holes = self._done = self._pixels = self._nodata_pixels = self._moved_pixels = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._workers.clear()
        if kind is not None or not self._is_whole:
            self._writer.__exit__(RuntimeError, error, traceback)

    @property
    def _is_whole(self) -> bool:
        return self._done == self._count

    def probe(self) -> Held:
        """The places where it is heaviest are looked at, and the first chunks done, until they add next to nothing."""
        task, layout, [worker] = self._task, self._layout, self._workers
        self._bench.meter.start(self._count)
        growth = Growth(task.source.block_bytes)
        task.source.readers(layout.readers)  # their headers are read again
        decoded = task.look_at_places(worker, layout)
        read = None
        if task.operation.one_at_a_time:
            worker.look(*next(task.chunks(layout)))
            read = growth.bytes()
        quiet = Quiet(growth, windows.steps(len(task.source.bands), layout.bands_at_once))
        encoded_bytes = 0
        for chunk in self._chunks:
            done = worker.do(chunk)
            self._take(done)
            encoded_bytes = max(encoded_bytes, done.bytes)
            decoded += done.pixels * task.source.itemsize
            del done
            if quiet.reached():
                break
        own = task.for_one(layout)
        grown = max(0, growth.bytes() - encoded_bytes - own["encoder"] - own["operation"])
        held = grown if read is None else min(read, grown)
        function = grown - held
        held += undecoded_bytes(task.source.dataset.driver, task.source.decoded_bytes, decoded)
        return Held(self._opened, self._writer_bytes, held, function)

    def finish(self, layout: Layout) -> dict[str, Any]:
        """The rest, by as many workers as the final plan has; what was counted is the outcome's result."""
        if layout.threads > 1 and not self._is_whole:
            self._workers.clear()
            self._workers += self._task.workers(layout)
        for done in finished(self._chunks, self._workers):
            self._take(done)
            del done  # or it would stay until the next is made
        self._workers.clear()
        self._bench.meter.phase("close", patient=True)
        self._writer.close()
        source = self._task.source
        return {
            "width": source.grid.shape[1],
            "height": source.grid.shape[0],
            "bands": self._task.operation.outputs.count(len(source.bands)),
            "windows": self._done,
            "valid_pixels": self._pixels - self._nodata_pixels,
            "nodata_pixels": self._nodata_pixels,
            "decoded_bytes": source.decoded_bytes,
            "holes": self._holes,
            "statistics": [
                {"band": band} | each.record(source.grid.shape[0] * source.grid.shape[1])
                for band, each in enumerate(self._statistics, 1)
            ],
        } | ({"moved_pixels": self._moved_pixels} if self._moved_pixels else {})

    def _take_levels(self, tiles: Iterable[Tile]) -> None:
        """Append tiles of overviews."""
        for level, plane, row, column, data in tiles:
            if plane is None:
                self._writer.append_mask(row, column, data, level)
            else:
                self._writer.append(plane, row, column, data, level)
                self._holes += data is None

    def _take(self, done: Encoded) -> None:
        """Append a chunk's tiles, in order."""
        for tile in done.tiles:
            self._writer.append(*tile)
            self._holes += tile[-1] is None
        for mask_tile in done.mask_tiles:
            self._writer.append_mask(*mask_tile)
        self._take_levels(done.overviews)
        if self._strips is not None:
            for piece in done.pieces:
                self._take_levels(self._strips.add(piece))
        for plane, found in done.statistics:
            self._statistics[plane].add(found)
        self._pixels += done.pixels
        self._nodata_pixels += done.nodata_pixels
        self._moved_pixels += done.moved_pixels
        self._done += 1
        self._bench.meter.chunk()
        self._space.look(self._done, self._count)
