"""The pipeline: workers read, compute and encode chunks, each with handles and buffers of its own; one writer appends in order.

At most one chunk more than there are workers is on its way, so that what waits is bounded.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.raster.block import Block, Buffer
from lib.raster.layout import Layout
from lib.raster.operations import Operation, nudge_off_nodata
from lib.raster.sinks.encode import TileEncoder
from lib.raster.sinks.pyramid import Piece, Tile, WindowLevels
from lib.raster.sources.dataset import Reader
from lib.raster.statistics import Gatherer, Statistics
from lib.raster.validity import is_nodata
from lib.raster.windows import Window, windows


class Chunk(NamedTuple):
    """A window and the bands that are worked on at once."""

    window: Window
    bands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A finished chunk.

    Attributes:
        tiles: `(plane, row, column, bytes)`.
        mask_tiles: `(row, column, bytes)`, of a dataset's mask.
        nodata_pixels: pixels of all its bands but alpha that are not valid.
        pixels: pixels of all its bands.
        moved_pixels: valid ones of them that equalled the nodata value, and are beside it now.
        overviews: tiles of the levels that lie in the chunk.
        pieces: its parts of the level below those, a band each.
        statistics: `(plane, of its valid pixels)`.
    """

    tiles: list[tuple[int, int, int, bytes | None]]
    mask_tiles: list[tuple[int, int, bytes | None]]
    nodata_pixels: int
    pixels: int
    moved_pixels: int = 0
    overviews: Sequence[Tile] = ()
    pieces: Sequence[Piece] = ()
    statistics: Sequence[tuple[int, Statistics]] = ()

    @property
    def bytes(self) -> int:
        """Size of its tiles and pieces."""
        data = [each[-1] for tiles in (self.tiles, self.mask_tiles, self.overviews) for each in tiles]
        return sum(len(each or b"") for each in data) + sum(
            each.pixels.nbytes + (0 if each.valid is None else each.valid.nbytes) for each in self.pieces
        )


def in_order(shape: tuple[int, int], window: tuple[int, int], bands: Sequence[int], at_once: int) -> Iterator[Chunk]:
    """Chunks in the order of work: rows of windows, in each the groups of bands, in each the windows.

    So strips that a row of windows shares need be cached for one group of bands only.
    """
    groups = [tuple(bands[start : start + at_once]) for start in range(0, len(bands), at_once)]
    for _, row in itertools.groupby(windows(shape, window), key=lambda each: each.top):
        across = list(row)
        for group in groups:
            for each in across:
                yield Chunk(each, group)


class Worker:
    """One worker: a reader, an operation and an encoder, and the buffers between them.

    Args:
        reader: of the source; workers may share one.
        operation: the worker's own.
        encoder: the worker's own.
        layout: how large a chunk is.
        bands: all bands' numbers, in the output's order.
        dtype: of what is read.
        alpha: the alpha band's number; None where there is none or the operation takes it like any other.
        shape: of the raster, `(height, width)`.
        levels: makes its overviews; None where there are none.
    """

    def __init__(
        self,
        reader: Reader,
        operation: Operation,
        encoder: TileEncoder,
        layout: Layout,
        bands: Sequence[int],
        dtype: np.dtype[Any],
        alpha: int | None,
        shape: tuple[int, int],
        levels: WindowLevels | None = None,
    ) -> None:
        self._reader, self._operation, self._encoder, self._layout = reader, operation, encoder, layout
        new = operation.outputs.new_bands
        self._new = tuple(range(1, len(new) + 1))
        self._planes = {band: plane for plane, band in enumerate(self._new or bands)}
        self._alpha = None if operation.takes_alpha else alpha
        height, width = (min(step, length) for step, length in zip(layout.window, shape, strict=True))
        around = (height + 2 * operation.overlap) * (width + 2 * operation.overlap)
        self._in = Buffer(around * layout.bands_at_once, dtype)
        room = height * width * (len(new) or layout.bands_at_once) if operation.needs_room else 0
        self._out = Buffer(room, operation.outputs.dtype)
        self._scratch = np.zeros(height * width, np.bool_)
        self._moved, self._levels, self._gatherer = 0, levels, Gatherer(operation.outputs.dtype)

    def look(self, window: Window, bands: tuple[int, ...]) -> None:
        """Read as the work would, and do nothing with it."""
        overlap = self._operation.overlap
        self._reader.read(window, bands, overlap, self._in.block(window, bands, overlap))

    def compute(self, chunk: Chunk) -> Block:
        """Read and compute one chunk; the block is the worker's own, good until the next."""
        window, bands = chunk
        overlap = self._operation.overlap
        return self._compute(self._reader.read(window, bands, overlap, self._in.block(window, bands, overlap)))

    def do(self, chunk: Chunk) -> Encoded:
        """Read, compute and encode one chunk."""
        window = chunk.window
        done = self.compute(chunk)
        mask_tiles = []
        if self._operation.outputs.has_mask and self._planes[done.bands[0]] == 0:
            if done.all_valid:
                done.valid[0].fill(True)
            mask_tiles = [
                (row, column, self._encoder.encode_mask(tile))
                for row, column, tile in self._tiles(window, done.valid[0])
            ]
        tiles = [
            (self._planes[band], row, column, self._encoder.encode(tile))
            for band, pixels in zip(done.bands, done.pixels, strict=True)
            for row, column, tile in self._tiles(window, pixels)
        ]
        nodata = 0 if done.all_valid else done.valid.size - int(np.count_nonzero(done.valid))
        moved, self._moved = self._moved, 0
        statistics = [
            (self._planes[band], self._gatherer.of(pixels, None if done.all_valid else valid))
            for band, pixels, valid in zip(done.bands, done.pixels, done.valid, strict=True)
        ]
        pixels_done = window.pixels * len(done.bands)
        return Encoded(tiles, mask_tiles, nodata, pixels_done, moved, *self._overviews(done), statistics)

    def _overviews(self, done: Block) -> tuple[list[Tile], list[Piece]]:
        tiles: list[Tile] = []
        pieces: list[Piece] = []
        if self._levels is not None:
            for band, pixels, valid in zip(done.bands, done.pixels, done.valid, strict=True):
                own, piece = self._levels.make(
                    done.window, self._planes[band], pixels, None if done.all_valid else valid
                )
                tiles += own
                pieces += [] if piece is None else [piece]
        return tiles, pieces

    def _compute(self, block: Block) -> Block:
        out = self._out.block(block.window, self._new or block.bands) if self._operation.needs_room else block
        at = block.bands.index(self._alpha) if self._alpha in block.bands else None
        if at is None:
            done = self._operation.apply(block, out)
            self._fill(done)
            return done
        self._beside_alpha(block, out, at)
        return out

    def _beside_alpha(self, block: Block, out: Block, at: int) -> None:
        """Compute the other bands; alpha is carried as it is, and valid where GDAL will not take it for the nodata value."""
        others = [i for i in range(len(block.bands)) if i != at]
        all_valid = True
        if others:
            done = self._operation.apply(_of_bands(block, others), _of_bands(out, others))
            self._fill(done)
            all_valid = done.all_valid
            if not np.may_share_memory(done.pixels, out.pixels):
                out.pixels[others], out.valid[others] = done.pixels, done.valid
        overlap = self._operation.overlap
        height, width = block.window.height, block.window.width
        alpha = block.pixels[at, overlap : overlap + height, overlap : overlap + width]
        np.copyto(out.pixels[at], alpha, casting="unsafe")
        if all_valid:
            out.valid.fill(True)
        nodata = self._operation.outputs.nodata
        if nodata is None:
            out.valid[at] = True
        else:
            np.logical_not(is_nodata(out.pixels[at], nodata, out.valid[at]), out=out.valid[at])
        out.all_valid = all_valid and bool(out.valid[at].all())

    def _fill(self, done: Block) -> None:
        """Valid results that equal the nodata value are moved beside it; invalid pixels get it."""
        outputs = self._operation.outputs
        if outputs.nodata is None or not outputs.fills:
            return
        for pixels, valid in zip(done.pixels, done.valid, strict=True):
            scratch = self._scratch[: pixels.size].reshape(pixels.shape)
            if nudge_off_nodata(pixels, outputs.nodata, outputs.highest, scratch):
                self._moved += int(np.count_nonzero(scratch if done.all_valid else np.logical_and(scratch, valid)))
            if not done.all_valid:
                np.copyto(pixels, pixels.dtype.type(outputs.nodata), where=np.logical_not(valid, out=scratch))

    def _tiles(self, window: Window, values: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """A window's tiles with their row and column in the output's grid of tiles."""
        edge = self._layout.block_size
        for top in range(0, window.height, edge):
            for left in range(0, window.width, edge):
                place = (window.top + top) // edge, (window.left + left) // edge
                yield *place, values[top : top + edge, left : left + edge]


def _of_bands(block: Block, which: list[int]) -> Block:
    """A block's bands; a view where they are neighbours."""
    some = slice(which[0], which[-1] + 1) if which[-1] - which[0] + 1 == len(which) else which
    bands = tuple(block.bands[i] for i in which)
    return replace(block, bands=bands, pixels=block.pixels[some], valid=block.valid[some])


def finished(chunks: Iterable[Chunk], workers: Sequence[Worker]) -> Iterator[Encoded]:
    """Each chunk's result, in the order of the chunks, as many at a time as there are workers."""
    if len(workers) == 1:
        yield from map(workers[0].do, chunks)
        return
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def do(chunk: Chunk) -> Encoded:
        worker = idle.get()
        try:
            return worker.do(chunk)
        finally:
            idle.put(worker)

    waiting: deque[Future[Encoded]] = deque()
    with ThreadPoolExecutor(len(workers), thread_name_prefix="swath-worker") as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(do, chunk))
                if len(waiting) > len(workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
