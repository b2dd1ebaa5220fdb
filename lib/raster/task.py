"""A raster job with what it works with: its open source and its operation; from them workers, chunks, and a look by reading."""

import functools
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from lib.jobs import RasterJob
from lib.memory.proc import process_memory
from lib.raster import windows
from lib.raster.carried import carried_bytes
from lib.raster.formats import TINY_CACHE_BYTES, set_cache
from lib.raster.layout import Facts, Layout, levels_of, worker_bytes
from lib.raster.operations import Operation, make
from lib.raster.pipeline import Chunk, Worker, in_order
from lib.raster.plan import Held
from lib.raster.probe import Growth, Quiet, undecoded_bytes
from lib.raster.sinks import gtiff, picture, tiles
from lib.raster.sinks.encode import TileEncoder
from lib.raster.sinks.pyramid import Strips, WindowLevels
from lib.raster.sources.dataset import RasterSource, Reader
from lib.units import MIB

# What making a skeleton takes: 0.6 to 1.4 MiB, measured.
_WRITER_BYTES = 2 * MIB
# Edges of what a predictor is chosen by, pixels, and how many values at most it is read from.
_SAMPLE_EDGES, _MOST_SAMPLED = (256, 128, 64), 4 * 256**2
_TEXT_COPIES = 6  # MEASURED.md, "Texts among the tags"


class Task:
    """A job, its open source and its operation.

    Args:
        job: what is to be done.
        source: open.
        operation: the job's; further workers make their own.
    """

    def __init__(self, job: RasterJob, source: RasterSource, operation: Operation) -> None:
        self.job, self.source, self.operation = job, source, operation
        self._operations = [operation]  # of all workers

    @functools.cached_property
    def facts(self) -> Facts:
        """What a layout depends on."""
        job, source, operation = self.job, self.source, self.operation
        return Facts(
            label=job.label,
            shape=source.grid.shape,
            bands=len(source.bands),
            bands_out=operation.outputs.count(len(source.bands)),
            in_dtype=source.dtype,
            encoding=functools.cache(lambda block_size: gtiff.encoding(job, operation.outputs.dtype, block_size)),
            block=source.block,
            block_bytes=source.block_bytes,
            file_bands=source.dataset.count,
            pixel_interleaved=source.pixel_interleaved,
            parallel=source.reads_in_parallel,
            all_bands=operation.wants_all_bands,
            overlap=operation.overlap,
            operation_memory=operation.memory,
            one_at_a_time=operation.one_at_a_time,
            needs_room=operation.needs_room,
            has_mask=operation.outputs.has_mask,
            overviews=job.cog,
            block_size=picture.BLOCK if picture.is_picture(job) else job.block_size,
            aligned=source.is_aligned,
            footprint=source.footprint if source.is_regridded else None,
            file_block=source.file_block,
            file_shape=source.whole.shape if source.is_regridded else source.dataset.shape,
            piece_bytes=source.piece_bytes,
            network_cache_bytes=source.network_cache_bytes,
            copying=self.copying_bytes if picture.is_picture(job) else None,
            beside_reader=source.beside_bytes,
        )

    def copying_bytes(self, block_size: int) -> int:
        """What is held while the tiles are copied to a picture."""
        outputs, source = self.operation.outputs, self.source
        bands, mask = outputs.count(len(source.bands)), outputs.has_mask or outputs.nodata is not None
        return picture.copying_bytes(
            self.job.driver, source.grid.shape, bands, outputs.dtype.itemsize, block_size, mask=mask
        )

    def workers(self, layout: Layout) -> list[Worker]:
        """Workers with buffers, and readers as far as they have their own."""
        readers = self.source.readers(layout.readers)
        while len(self._operations) < layout.threads:
            self._operations.append(make(self.job, self.source))
        return [self._worker(self._operations[i], readers[i % layout.readers], layout) for i in range(layout.threads)]

    def _worker(self, operation: Operation, reader: Reader, layout: Layout) -> Worker:
        source, encoder = self.source, self.encoder(layout)
        reader.make_room(self.chunk_pixels(layout, around=operation.overlap), layout.bands_at_once)
        levels = self._window_levels(layout, encoder)
        return Worker(
            reader,
            operation,
            encoder,
            layout,
            source.bands,
            source.dtype,
            source.validity.alpha,
            source.grid.shape,
            levels,
        )

    def encoder(self, layout: Layout) -> TileEncoder:
        """An encoder of the output's tiles."""
        outputs = self.operation.outputs
        return TileEncoder(gtiff.encoding(self.job, outputs.dtype, layout.block_size), gtiff.hole(self.source, outputs))

    def _window_levels(self, layout: Layout, encoder: TileEncoder) -> WindowLevels | None:
        outputs, levels = self.operation.outputs, levels_of(self.facts, layout)
        if not (levels and levels.shapes):
            return None
        halving = gtiff.halving(self.job, self.source, outputs)
        return WindowLevels(levels, halving, encoder, outputs.dtype, mask=outputs.has_mask)

    def strips(self, layout: Layout) -> Strips | None:
        """What the writer makes overviews with; None where workers make all."""
        outputs, levels = self.operation.outputs, levels_of(self.facts, layout)
        if not (levels and levels.strip_rows):
            return None
        halving, bands = gtiff.halving(self.job, self.source, outputs), self.facts.bands_out
        return Strips(levels, bands, halving, self.encoder(layout), outputs.dtype, mask=outputs.has_mask)

    def rounding(self) -> list[str]:
        """What the workers have rounded, in words."""
        return [
            f"{self.job.label}: {each}" for each in dict.fromkeys(each.rounded for each in self._operations) if each
        ]

    def choose_predictor(self) -> None:
        """Have it chosen by sampled tiles where the user has not: the first of the source, and the one with most to say.

        Both are of one size and place whatever memory there is, so the same source gives the same output; small ones, as no plan
        counts them. A user's function is called for its own chunks alone: what it makes is encoded as most is.
        """
        job, dtype = self.job, self.operation.outputs.dtype
        if job.predictor != "auto":
            return
        samples: list[NDArray[Any]] = []
        edge = _SAMPLE_EDGES[0]
        if len(gtiff.predictors(job, dtype)) > 1 and not self.operation.one_at_a_time:
            shape = self.source.grid.shape
            bands = self.source.bands if self.operation.wants_all_bands else self.source.bands[:1]
            edge = next((each for each in _SAMPLE_EDGES if each**2 * len(bands) <= _MOST_SAMPLED), _SAMPLE_EDGES[-1])
            layout = Layout(edge, (edge, edge), len(bands), 1, 1, TINY_CACHE_BYTES, 1.0)
            set_cache(TINY_CACHE_BYTES)
            worker = self._worker(self.operation, self.source.readers(1)[0], layout)
            for place in [windows.Window(0, 0, 1, 1), *self.source.heaviest()[:1]]:
                top, left = (min(at, length - 1) for at, length in zip(place[:2], shape, strict=True))
                window = windows.containing(shape, (edge, edge), windows.Window(top, left, 1, 1))
                samples.append(worker.compute(Chunk(window, bands)).pixels[0].copy())
        fitting = gtiff.predictors(job, dtype)
        predictor = gtiff.best_predictor(job, dtype, samples, edge) if samples else fitting[0]
        self.job = job.model_copy(update={"predictor": str(predictor)})

    def chunks(self, layout: Layout) -> Iterator[Chunk]:
        """All chunks in the order of work."""
        return in_order(self.source.grid.shape, layout.window, self.source.bands, layout.bands_at_once)

    def count(self, layout: Layout) -> int:
        """How many chunks there are."""
        bands = windows.steps(len(self.source.bands), layout.bands_at_once)
        return windows.count(self.source.grid.shape, layout.window) * bands

    def chunk_pixels(self, layout: Layout, around: int = 0) -> int:
        """Pixels of the largest chunk, with those around it."""
        height, width = (min(each, most) for each, most in zip(layout.window, self.source.grid.shape, strict=True))
        return (height + 2 * around) * (width + 2 * around)

    def for_one(self, layout: Layout) -> dict[str, int]:
        """What is planned for each worker, bytes by name; scratch of it is touched only at work, where a probe sees it again."""
        return worker_bytes(self.facts, layout)

    def disk_bytes(self, layout: Layout) -> int:
        """Upper bound of the output."""
        outputs = self.operation.outputs
        encoding = gtiff.encoding(self.job, outputs.dtype, layout.block_size)
        bands = outputs.count(len(self.source.bands))
        shape = self.source.grid.shape
        levels = gtiff.levels(self.job, shape)
        copied = picture.disk_bytes(shape, bands, outputs.dtype.itemsize) if picture.is_picture(self.job) else 0
        return copied + tiles.disk_bytes(shape, bands, encoding, mask=outputs.has_mask, levels=levels)

    def writer_guess(self) -> int:
        """What making the output's skeleton takes at least; texts come in many copies until they are in the file."""
        return _WRITER_BYTES + _TEXT_COPIES * carried_bytes(self.source, self.operation.outputs)

    def look_at_places(self, worker: Worker, layout: Layout) -> int:
        """Read the windows where the source is heaviest; how many bytes were decoded."""
        decoded = 0
        shape = self.source.grid.shape
        for place in self.source.heaviest():
            row, column = (
                min(at, length - 1) // step for at, length, step in zip(place[:2], shape, layout.window, strict=True)
            )
            top, left = row * layout.window[0], column * layout.window[1]
            window = windows.Window(
                top, left, min(layout.window[0], shape[0] - top), min(layout.window[1], shape[1] - left)
            )
            worker.look(window, self.source.bands[: layout.bands_at_once])
            decoded += window.pixels * layout.bands_at_once * self.source.itemsize
        return decoded

    def measure_by_reading(self, layout: Layout, *, calls: bool) -> Held:
        """What a reader holds, by reading alone; and where it `calls`, a user's function, by doing so once."""
        set_cache(layout.cache_bytes)
        opened = process_memory().resident_bytes
        [worker] = self.workers(layout._replace(threads=1, readers=1))
        growth = Growth(self.source.block_bytes)
        self.source.readers(layout.readers)  # their headers are read again
        chunks = self.chunks(layout)
        decoded = self.look_at_places(worker, layout)
        quiet = Quiet(growth, windows.steps(len(self.source.bands), layout.bands_at_once))
        for chunk in chunks:
            worker.look(*chunk)
            decoded += chunk.window.pixels * len(chunk.bands) * self.source.itemsize
            if quiet.reached():
                break
        held = growth.bytes()
        function = 0
        if calls and self.operation.one_at_a_time:
            worker.compute(next(self.chunks(layout)))
            function = max(0, growth.bytes() - held - self.for_one(layout)["operation"])
        del worker
        self.source.readers(1)[0].make_room(0, 0)
        held += undecoded_bytes(self.source.dataset.driver, self.source.decoded_bytes, decoded)
        return Held(opened, self.writer_guess(), held, function)
