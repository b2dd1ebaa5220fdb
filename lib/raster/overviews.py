"""Overviews: each pixel of a level is made of those of 2 x 2 of the level above that are valid. Pure.

Which rows are there when is `sinks/pyramid.py`'s business.
A level has half the rows and columns, rounded up: at an odd edge a pixel is made of the two, or the one, that there are.
Averages are summed in float64, upper and lower pixel first, and rounded once; of integers half away from zero. `nearest` takes
the upper left pixel, valid or not, as GDAL does; `mode` the most frequent, of several the first, row by row.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lib.raster.operations.base import Outputs, nudge_off_nodata
from lib.raster.windows import steps
from lib.units import MIB

METHODS: Final = ("average", "nearest", "mode")
# Pieces whose sums a core's second-level cache holds, rows x columns; what a piece takes beside its result.
_ROWS, _COLUMNS = 32, 1024
SCRATCH_BYTES = MIB
_SMALLEST = 512  # validators ask for overviews above it
_WIDE = 8  # bytes of integers whose sums int64 does not hold


def shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """The levels below a raster of `(height, width)` pixels, down to one of at most 512: whatever memory there is, the same."""
    found = []
    while max(shape) > _SMALLEST:
        shape = steps(shape[0], 2), steps(shape[1], 2)
        found.append(shape)
    return found


class Halving:
    """Makes windows of one level of the level above.

    Args:
        method: one of `METHODS`.
        outputs: what is written: its nodata value is put where nothing is valid, and no average equals it.
    """

    def __init__(self, method: str, outputs: Outputs) -> None:
        self._of = {"average": _average, "mode": _mode}.get(method)
        self._nodata, self._highest = outputs.nodata, outputs.highest
        floating = outputs.dtype.kind in "fc"
        self._filler = outputs.nodata if outputs.nodata is not None else math.nan if floating else 0

    def halve(
        self,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        out: NDArray[Any],
        out_valid: NDArray[np.bool_],
    ) -> None:
        """Halve a window that begins at an even row and column.

        Args:
            pixels: `(height, width)`, any dtype.
            valid: of the same shape; None where all are.
            out: `(ceil(height / 2), ceil(width / 2))` of the same dtype.
            out_valid: of that shape: where one of the 2 x 2 is valid; of nearest, where the one that is taken is.
        """
        if self._of is None:
            out[...] = pixels[0::2, 0::2]
            out_valid[...] = True if valid is None else valid[0::2, 0::2]
            return
        height, width = pixels.shape
        for top in range(0, height, _ROWS):
            for left in range(0, width, _COLUMNS):
                part = slice(top, top + _ROWS), slice(left, left + _COLUMNS)
                into = slice(top // 2, (top + _ROWS) // 2), slice(left // 2, (left + _COLUMNS) // 2)
                self._piece(self._of, pixels[part], None if valid is None else valid[part], out[into], out_valid[into])

    def _piece(self, of: Callable[[Any, Any], Any], pixels: Any, valid: Any, out: Any, out_valid: Any) -> None:
        if valid is not None and valid.all():
            valid = None
        if valid is not None and not valid.any():
            out_valid.fill(False)
            out.fill(self._filler)
            return
        if pixels.shape[0] % 2 or pixels.shape[1] % 2:
            if valid is None:
                valid = np.ones(pixels.shape, np.bool_)
            edge = [(0, length % 2) for length in pixels.shape]
            pixels, valid = np.pad(pixels, edge), np.pad(valid, edge)
        if valid is None:
            out_valid.fill(True)
        else:
            rows = valid[0::2] | valid[1::2]
            np.logical_or(rows[:, 0::2], rows[:, 1::2], out=out_valid)
        with np.errstate(all="ignore"):  # infinity among the pixels, and what hides under nodata
            out[...] = of(pixels, valid)
        if self._nodata is not None:
            nudge_off_nodata(out, self._nodata, self._highest, np.empty(out.shape, np.bool_))
        if valid is not None:
            np.copyto(out, out.dtype.type(self._filler), where=~out_valid)


def _sums(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    rows = np.add(values[0::2], values[1::2], dtype=dtype)
    found: NDArray[Any] = rows[:, 0::2] + rows[:, 1::2]
    return found


def _average(pixels: NDArray[Any], valid: NDArray[np.bool_] | None) -> Any:
    """Of the valid ones of each 2 x 2; anything where none is."""
    if valid is not None:
        pixels = np.where(valid, pixels, pixels.dtype.type(0))
    count: Any = 4 if valid is None else np.maximum(_sums(valid.view(np.uint8), np.uint8), 1)
    if pixels.dtype.kind not in "iu":
        return _sums(pixels, np.result_type(pixels.dtype, np.float64)) / count
    if pixels.itemsize == _WIDE:
        return _wide_average(pixels, np.asarray(count, pixels.dtype))
    if valid is None and pixels.dtype.kind == "u":
        sums = _sums(pixels, np.uint64 if pixels.itemsize == 4 else np.uint32)  # noqa: PLR2004
        sums += 2
        sums >>= 2
        return sums
    mean = _sums(pixels, np.float64) / count
    return np.trunc(mean + np.copysign(0.5, mean))


def _wide_average(pixels: NDArray[Any], count: NDArray[Any]) -> NDArray[Any]:
    """Of integers of 64 bits, whose sum none holds: of quotients and of remainders."""
    corners = [pixels[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    whole = sum((each // count for each in corners[1:]), corners[0] // count)
    rest = sum((each % count for each in corners[1:]), corners[0] % count)
    is_below = (whole + rest // count) < 0
    found: NDArray[Any] = whole + (2 * rest + count - is_below.astype(pixels.dtype)) // (2 * count)
    return found


def _first_valid(pixels: NDArray[Any], valid: NDArray[np.bool_] | None) -> Any:
    """The first that is valid, row by row."""
    found = pixels[0::2, 0::2]
    if valid is None:
        return found
    is_valid = valid[0::2, 0::2]
    for row, column in ((0, 1), (1, 0), (1, 1)):
        found = np.where(is_valid, found, pixels[row::2, column::2])
        is_valid = is_valid | valid[row::2, column::2]
    return found


def _mode(pixels: NDArray[Any], valid: NDArray[np.bool_] | None) -> Any:
    """The most frequent valid one; of several the first, row by row."""
    corners = [pixels[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    found = _first_valid(pixels, valid)
    alike = [(0, (1, 2, 3)), (1, (2, 3)), (2, (3,))]
    if valid is None:
        for i, others in reversed(alike):
            found = np.where(np.logical_or.reduce([corners[i] == corners[j] for j in others]), corners[i], found)
        return found
    here = [valid[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    for i, others in reversed(alike):
        same = np.logical_or.reduce([(corners[i] == corners[j]) & here[j] for j in others])
        found = np.where(same & here[i], corners[i], found)
    return found
