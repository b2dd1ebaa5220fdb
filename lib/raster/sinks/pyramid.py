"""Overviews while the tiles stream by: workers make and encode the levels whose tiles lie in one window, `Strips` the rest.

A strip is a row of a level's tiles, one for each band: when its last piece has come, its tiles are encoded and it is halved into
the strip of the level below. So of each level one row of tiles is held, and nothing is read again.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.raster.block import Buffer
from lib.raster.overviews import SCRATCH_BYTES, Halving, shapes
from lib.raster.sinks.encode import Encoding, TileEncoder
from lib.raster.windows import Window, steps


class Tile(NamedTuple):
    """An encoded tile of a level, from 1; of the mask where `plane` is None. `data` None: a hole."""

    level: int
    plane: int | None
    row: int
    column: int
    data: bytes | None


class Piece(NamedTuple):
    """A part of a level, `(height, width)` pixels of the output's band `plane` from a row and a column on; valid None: all."""

    level: int
    plane: int
    top: int
    left: int
    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None


class Levels(NamedTuple):
    """How the levels of an output come to be.

    Attributes:
        shapes: `(height, width)` of each, from the first below the raster itself.
        block: edge of a tile.
        window: `(height, width)` of the largest chunk.
        in_worker: how many of them workers finish.
        strip_rows: of each of the others, rows of pixels that are held.
    """

    shapes: list[tuple[int, int]]
    block: int
    window: tuple[int, int]
    in_worker: int
    strip_rows: list[int]

    def worker_bytes(self, encoding: Encoding) -> int:
        """What a worker holds for the levels of a window, one band at a time."""
        if not self.shapes:
            return 0
        return SCRATCH_BYTES + sum(Buffer.bytes(values, encoding.dtype) for values in self.in_window())

    def in_window(self) -> list[int]:
        """Pixels of a window in the levels that a worker makes: those that it finishes, and a piece of the next."""
        most = min(self.in_worker + 1, len(self.shapes))
        return [steps(self.window[0], 1 << level) * steps(self.window[1], 1 << level) for level in range(1, most + 1)]

    def waiting_bytes(self, bands: int, encoding: Encoding, *, mask: bool) -> int:
        """What waits of one chunk beside its own tiles: tiles of levels, and a piece of the first that workers do not finish."""
        tiles = sum(
            steps(self.window[0], self.block << level) * steps(self.window[1], self.block << level)
            for level in range(1, self.in_worker + 1)
        )
        rest = self.in_window()[self.in_worker :]
        return tiles * (bands + mask) * encoding.bound_bytes + bands * sum(
            Buffer.bytes(values, encoding.dtype) for values in rest
        )

    def strips_bytes(self, bands: int, encoding: Encoding) -> int:
        """What `Strips` hold."""
        if not self.strip_rows:
            return 0
        widths = [width for _, width in self.shapes[self.in_worker :]]
        values = sum(rows * width for rows, width in zip(self.strip_rows, widths, strict=True))
        return (
            bands * Buffer.bytes(values, encoding.dtype) + encoding.scratch_bytes + encoding.bound_bytes + SCRATCH_BYTES
        )


def levels(raster: tuple[int, int], window: tuple[int, int], block: int) -> Levels:
    """How levels are made where chunks are windows of `(height, width)` pixels."""
    found = shapes(raster)
    within = 0
    while within < len(found) and all(
        step >= length or step % (block << (within + 1)) == 0 for step, length in zip(window, raster, strict=True)
    ):
        within += 1
    rows = [
        min(max(block, steps(window[0], 1 << level)), found[level - 1][0])
        for level in range(within + 1, len(found) + 1)
    ]
    height, width = (min(step, length) for step, length in zip(window, raster, strict=True))
    return Levels(found, block, (height, width), within, rows)


def allows(raster: tuple[int, int], window: tuple[int, int], block: int) -> bool:
    """Whether each window's part of a level lies in one strip: its height is a power of 2 in tiles, or the raster's."""
    tiles = window[0] // block
    return window[0] >= raster[0] or tiles & (tiles - 1) == 0


class _Press:
    """Encodes a part of a level that begins at a tile's corner."""

    def __init__(self, encoder: TileEncoder, block: int, *, mask: bool) -> None:
        self._encoder, self._block, self._mask = encoder, block, mask

    def tiles(self, part: Piece) -> Iterator[Tile]:
        """Its tiles, and of the first band those of the mask."""
        for row, column, pixels in self._cut(part, part.pixels):
            yield Tile(part.level, part.plane, row, column, self._encoder.encode(pixels))
        if self._mask and part.plane == 0:
            valid = np.ones(part.pixels.shape, np.bool_) if part.valid is None else part.valid
            for row, column, here in self._cut(part, valid):
                yield Tile(part.level, None, row, column, self._encoder.encode_mask(here))

    def _cut(self, part: Piece, values: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[Any]]]:
        edge = self._block
        for top in range(0, values.shape[0], edge):
            for left in range(0, values.shape[1], edge):
                place = (part.top + top) // edge, (part.left + left) // edge
                yield *place, values[top : top + edge, left : left + edge]


class WindowLevels:
    """A worker's part: the levels of one window.

    Args:
        plan: how levels are made.
        halving: makes one of another.
        encoder: the worker's own.
        dtype: of the pixels.
        mask: with tiles of a mask.
    """

    def __init__(
        self, plan: Levels, halving: Halving, encoder: TileEncoder, dtype: np.dtype[Any], *, mask: bool
    ) -> None:
        self._plan, self._halving = plan, halving
        self._press = _Press(encoder, plan.block, mask=mask)
        self._buffers = [Buffer(values, dtype) for values in plan.in_window()]

    def make(
        self, window: Window, plane: int, pixels: NDArray[Any], valid: NDArray[np.bool_] | None
    ) -> tuple[list[Tile], Piece | None]:
        """The tiles of a band's levels, and a piece of the next, which is the caller's."""
        tiles: list[Tile] = []
        for level, buffer in enumerate(self._buffers, 1):
            top, left = window.top >> level, window.left >> level
            block = buffer.block(Window(top, left, steps(pixels.shape[0], 2), steps(pixels.shape[1], 2)), (plane,))
            self._halving.halve(pixels, valid, block.pixels[0], block.valid[0])
            pixels, valid = block.pixels[0], None if valid is None else block.valid[0]
            part = Piece(level, plane, top, left, pixels, valid)
            if level > self._plan.in_worker:
                return tiles, part._replace(pixels=pixels.copy(), valid=None if valid is None else valid.copy())
            tiles += self._press.tiles(part)
        return tiles, None


class _Strip:
    """One band's row of tiles of a level, being filled."""

    __slots__ = ("all_valid", "filled", "pixels", "valid")

    def __init__(self, rows: int, width: int, dtype: np.dtype[Any]) -> None:
        block = Buffer(rows * width, dtype).block(Window(0, 0, rows, width), (0,))
        self.pixels, self.valid = block.pixels[0], block.valid[0]
        self.filled, self.all_valid = 0, True


class Strips:
    """The writer's part: the levels that no window holds.

    Args:
        plan: how levels are made.
        bands: of the output.
        halving: makes one level of another.
        encoder: the writer's own; None where workers finish all levels.
        dtype: of the pixels.
        mask: with tiles of a mask.
    """

    def __init__(
        self, plan: Levels, bands: int, halving: Halving, encoder: TileEncoder, dtype: np.dtype[Any], *, mask: bool
    ) -> None:
        self._plan, self._halving = plan, halving
        self._press = _Press(encoder, plan.block, mask=mask)
        self._strips = {
            (level, plane): _Strip(rows, plan.shapes[level - 1][1], dtype)
            for level, rows in enumerate(plan.strip_rows, plan.in_worker + 1)
            for plane in range(bands)
        }

    def add(self, piece: Piece) -> Iterator[Tile]:
        """Take a piece; the tiles that it completes."""
        strip, top = self._strips[piece.level, piece.plane], piece.top % self._rows(piece.level)
        (height, width), left = piece.pixels.shape, piece.left
        strip.pixels[top : top + height, left : left + width] = piece.pixels
        strip.valid[top : top + height, left : left + width] = True if piece.valid is None else piece.valid
        yield from self._took(piece.level, piece.plane, piece.top, height * width, all_valid=piece.valid is None)

    def _rows(self, level: int) -> int:
        return self._plan.strip_rows[level - 1 - self._plan.in_worker]

    def _took(self, level: int, plane: int, top: int, pixels: int, *, all_valid: bool) -> Iterator[Tile]:
        """Of a strip that is full: its tiles, and those that are completed below it."""
        strip, (height, width), most = self._strips[level, plane], self._plan.shapes[level - 1], self._rows(level)
        strip.filled += pixels
        strip.all_valid &= all_valid
        first = top // most * most
        rows = min(most, height - first)
        if strip.filled < rows * width:
            return
        whole = Piece(level, plane, first, 0, strip.pixels[:rows], None if strip.all_valid else strip.valid[:rows])
        yield from self._press.tiles(whole)
        strip.filled, strip.all_valid = 0, True
        below = self._strips.get((level + 1, plane))
        if below is not None:
            start = first // 2 % self._rows(level + 1)
            into = slice(start, start + steps(rows, 2))
            self._halving.halve(whole.pixels, whole.valid, below.pixels[into], below.valid[into])
            taken = below.pixels[into].size
            yield from self._took(level + 1, plane, first // 2, taken, all_valid=whole.valid is None)
