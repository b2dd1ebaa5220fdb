"""`focal`: a statistic of each pixel's neighbourhood, of its valid pixels alone; valid where the pixel itself is.

Nothing is valid beyond the raster's edge. Sums of integers are exact, those of floating point have one order whatever the windows
are: so every result is that of the whole raster at once.

Mean, least, greatest, sum, standard deviation (of all, not of a sample) and median are of the valid pixels. Gaussian weights
are divided by the sum of the weights of valid pixels. Other kernels are not: their weights may sum up to 0 or below. There a
neighbour that is not valid counts as the pixel in the middle, so that a constant surface gives the same with holes as without.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lib.errors import UsageError
from lib.operations import Copy, Focal
from lib.raster.block import Block
from lib.raster.neighbourhood import (
    box,
    correlated,
    extreme,
    moments,
    piece_values,
    pieces,
    shaped,
    summed,
    weighted,
)
from lib.raster.operations.base import Linear, Operation, Outputs, check_nodata, is_beyond
from lib.raster.operations.linear import exact_float
from lib.raster.operations.verbatim import Verbatim
from lib.raster.sources.dataset import RasterSource

Values = NDArray[Any]
Good = NDArray[np.bool_] | None  # None: all are
_EXACT_FLOAT32, _EXACT_FLOAT64 = 2**24, 2**53
_SORTED_VALUES = 128 * 1024  # at a time, for a median
_TAPS_COUNTED = np.iinfo(np.uint16).max
_ROUNDING = 1e-12  # what another order of sums may change, of the largest pixel and for each weight
_COPIES = {"std": 18}  # of a piece in float64, at most; else 8
_TRUNCATED = 4.0  # standard deviations at which a gaussian kernel ends, as SciPy's does
_HINT = "write rows such as 0 1 0; 1 -4 1; 0 1 0, or name a YAML file of them"


class FocalStatistic(Operation):
    """One statistic; per band."""

    def __init__(self, model: Focal, source: RasterSource, nodata: float | None) -> None:
        self._statistic = model.statistic
        if model.statistic != "kernel":  # before there is an array of so many weights
            _check_size((edge_of(model), edge_of(model)), source.grid.shape)
        self._weights = weights_of(model)
        self._kernel = (self._weights.shape[0], self._weights.shape[1])
        _check_size(self._kernel, source.grid.shape)
        self.overlap = max(self._kernel) // 2
        self._compute, self._arithmetic = self._ways(source.dtype)
        self.outputs = self._outputs(source, nodata)

    def _outputs(self, source: RasterSource, nodata: float | None) -> Outputs:
        if self._statistic in {"min", "max"}:
            outputs = Verbatim(Copy(), source, nodata).outputs
            value = outputs.nodata
            if value is None and source.dtype.kind == "f" and not outputs.has_mask:
                value = math.nan
            return replace(outputs, nodata=value, fills=value is not None, keeps_colours=False)
        dtype = self._arithmetic if self._statistic == "sum" else exact_float(source)
        value = check_nodata(math.nan if nodata is None else nodata, dtype)
        kept = self._statistic in {"mean", "median", "gaussian"}
        return Outputs(dtype=dtype, nodata=value, line=Linear() if kept else None)

    def _ways(self, dtype: np.dtype[Any]) -> tuple[Callable[[Values, Good], Values], np.dtype[Any]]:
        """How a piece is computed, and in which dtype: float32 where sums of so many integers are exact in it."""
        wide = np.dtype(np.float64)
        largest = max(map(abs, _ends(dtype))) if dtype.kind in "iu" else math.inf
        total = self._weights.size * largest
        ways: dict[str, tuple[Callable[[Values, Good], Values], np.dtype[Any]]] = {
            "min": (self._extreme, dtype),
            "max": (self._extreme, dtype),
            "mean": (self._mean, np.dtype(np.float32) if total <= _EXACT_FLOAT32 else wide),
            "sum": (self._sum, np.dtype(np.float32) if total <= _EXACT_FLOAT32 else wide),
            "std": (self._std if total * total <= _EXACT_FLOAT64 else self._std_of_moments, wide),
            "median": (self._median, wide),
            "gaussian": (self._gaussian, wide),
            "kernel": (self._correlate, wide),
        }
        return ways[self._statistic]

    def memory(self, pixels: int, bands: int) -> int:
        """A piece in several copies; for a median, what is sorted at a time."""
        del bands
        copies = _COPIES.get(self._statistic, 8) * 8 * min(pixels, piece_values(self._kernel))
        size = self._weights.size
        sorted_values = min(max(_SORTED_VALUES, size), pixels * size) if self._statistic == "median" else 0
        return copies + sorted_values * 8 * 4

    def tolerance(self, block: Block) -> float:
        """Another order of floating-point sums."""
        pixels = np.abs(block.pixels.astype(np.float64))
        largest = pixels.max(where=block.valid & np.isfinite(pixels), initial=0)
        return _ROUNDING * float(largest) * float(np.abs(self._weights).sum())

    def apply(self, block: Block, out: Block) -> Block:
        """Piece by piece; a result that is not a number is not valid."""
        if not self.rounded and self._arithmetic.kind == "f" and is_beyond(block, _EXACT_FLOAT64):
            self.rounded = f"pixels of {block.pixels.dtype} beyond 2**53 are rounded to float64"
        with np.errstate(all="ignore"):
            for raw, valid, written in zip(block.pixels, block.valid, out.pixels, strict=True):
                for place in pieces((out.window.height, out.window.width), self._kernel):
                    around = self._around(*place)
                    good = None if block.all_valid or valid[around].all() else np.ascontiguousarray(valid[around])
                    values = raw[around].astype(self._arithmetic, order="C")
                    np.copyto(written[place], self._compute(values, good), casting="unsafe")
        return self._with_validity(block, out)

    def _with_validity(self, block: Block, out: Block) -> Block:
        """As the pixels in the middle are, and where results are numbers."""
        floating = block.pixels.dtype.kind == "f"
        out.all_valid = block.all_valid and not floating
        if out.all_valid:
            return out
        if block.all_valid:
            out.valid.fill(True)
        else:
            np.copyto(out.valid, cut(block.valid, self.overlap))
        if floating:
            np.logical_and(out.valid, ~np.isnan(out.pixels), out=out.valid)
        if not self.outputs.fills:  # by a mask: what lies behind it is the same whatever the windows are
            np.copyto(out.pixels, 0, where=~out.valid)
        return out

    def _around(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """A piece's place in the block with what its kernel wants around it."""
        (top, left) = (self.overlap - edge // 2 for edge in self._kernel)
        return (
            slice(rows.start + top, rows.stop + top + self._kernel[0] - 1),
            slice(columns.start + left, columns.stop + left + self._kernel[1] - 1),
        )

    def _sum(self, values: Values, good: Good) -> Values:
        return box(_filled(values, good, 0), self._kernel, summed)

    def _count(self, good: Good) -> Any:
        """How many pixels are valid around each; a number where all are."""
        size = self._weights.size
        if good is None:
            return size
        return box(good.astype(np.uint16 if size <= _TAPS_COUNTED else np.float64), self._kernel, summed)

    def _mean(self, values: Values, good: Good) -> Values:
        found: Values = self._sum(values, good) / self._count(good)
        return found

    def _std(self, values: Values, good: Good) -> Values:
        """Of integers whose sums, and the squares of those, are exact."""
        values, count = _filled(values, good, 0), self._count(good)
        total = self._sum(values, None)
        squares = self._sum(values * values, None)
        found: Values = np.sqrt(squares * count - total * total) / count
        return found

    def _std_of_moments(self, values: Values, good: Good) -> Values:
        values = _filled(values, good, 0)
        count = np.ones(values.shape) if good is None else good.astype(np.float64)
        start = count.reshape(-1), values.reshape(-1), np.zeros(values.size)
        down = moments(start, self._kernel[0], values.shape[1])
        count, _, squares = (shaped(each, values.shape, self._kernel) for each in moments(down, self._kernel[1], 1))
        return np.sqrt(squares / count)

    def _extreme(self, values: Values, good: Good) -> Values:
        least = self._statistic == "min"
        low, high = (-math.inf, math.inf) if values.dtype.kind == "f" else _ends(values.dtype)
        none = high if least else low
        return box(_filled(values, good, none), self._kernel, extreme(np.minimum if least else np.maximum))

    def _gaussian(self, values: Values, good: Good) -> Values:
        weights = self._weights.sum(axis=1)  # of one direction: those of both are its outer product
        slide = weighted([float(each) for each in weights])
        total = box(_filled(values, good, 0), self._kernel, slide)
        there = np.ones(self._kernel) if good is None else good.astype(np.float64)
        found: Values = total / box(there, self._kernel, slide)
        return found

    def _correlate(self, values: Values, good: Good) -> Values:
        total = correlated(_filled(values, good, 0), self._weights)
        if good is not None:
            missing = correlated(np.ones(self._kernel), self._weights) - correlated(
                good.astype(np.float64), self._weights
            )
            middle = cut(values, *(edge // 2 for edge in self._kernel))
            np.add(total, middle * missing, out=total, where=missing != 0)
        return total

    def _median(self, values: Values, good: Good) -> Values:
        """The mean of the two in the middle, where there is an even number."""
        around = sliding_window_view(_filled(values, good, math.inf), self._kernel)
        count = self._count(good)
        found = np.empty(around.shape[:2])
        (height, width), size = around.shape[:2], self._weights.size
        across = min(width, max(1, _SORTED_VALUES // size))
        down = max(1, _SORTED_VALUES // size // across)
        for top in range(0, height, down):
            for left in range(0, width, across):
                place = slice(top, top + down), slice(left, left + across)
                some = around[place].reshape(*found[place].shape, size)
                if good is None:
                    found[place] = np.partition(some, size // 2)[..., size // 2]
                else:
                    some.sort()
                    found[place] = _middle(some, count[place])
        return found

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Neighbour by neighbour for whole windows, in float64; least and greatest in their own dtype."""
        results = np.zeros(cut(block.pixels, self.overlap).shape, self.outputs.dtype)
        good = cut(block.valid, self.overlap)
        with np.errstate(all="ignore"):
            for raw, valid, found in zip(block.pixels, block.valid, results, strict=True):
                place = self._around(slice(0, found.shape[0]), slice(0, found.shape[1]))
                values, kept = (sliding_window_view(each[place], self._kernel) for each in (raw, valid))
                found[:] = _plain(self._statistic, values, kept, self._weights)
        if results.dtype.kind == "f":
            good = good & ~np.isnan(results)
        if not self.outputs.fills:
            results[~good] = 0
        return results, good


def _plain(statistic: str, values: Values, good: NDArray[np.bool_], weights: NDArray[np.float64]) -> Any:
    """The statistic as it is defined, of `(height, width, rows, columns)` neighbours, one after another of them."""
    places = list(np.ndindex(weights.shape))
    seen = [(values[..., i, j], good[..., i, j], weights[i, j]) for i, j in places]
    middle = values[..., weights.shape[0] // 2, weights.shape[1] // 2]
    if statistic in {"min", "max"}:
        found = middle.copy()
        for value, there, _ in seen:
            nearer = value < found if statistic == "min" else value > found
            np.copyto(found, value, where=there & nearer)
        return found
    if statistic == "median":
        rows = (np.ma.masked_array(row, ~there).reshape(len(row), -1) for row, there in zip(values, good, strict=True))
        return np.stack([np.ma.median(row.astype(np.float64), axis=-1).filled(0) for row in rows])
    if statistic == "kernel":
        return sum(np.where(there, value, middle).astype(np.float64) * weight for value, there, weight in seen)
    shares = sum(np.where(there, weight, 0.0) for _, there, weight in seen)
    total = sum(np.where(there, value.astype(np.float64), 0.0) * weight for value, there, weight in seen)
    if statistic == "sum":
        return total
    mean = total / shares
    if statistic != "std":
        return mean
    away = sum(np.where(there, value.astype(np.float64) - mean, 0.0) ** 2 for value, there, _ in seen)
    return np.sqrt(away / shares)


def cut(values: Values, rows: int, columns: int | None = None) -> Values:
    """Without so many rows and columns at each end of the last two axes."""
    columns = rows if columns is None else columns
    return values[..., rows : values.shape[-2] - rows, columns : values.shape[-1] - columns]


def _ends(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The lowest and the highest integer of a dtype."""
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _filled(values: Values, good: Good, value: Any) -> Values:
    """With pixels that are not valid out of the way; in place."""
    if good is not None:
        np.copyto(values, value, where=~good)
    return values


def _middle(some: Values, count: Values) -> Values:
    """The median of the first `count` of each sorted row."""
    count = count.astype(np.intp)[..., None]
    low, high = (np.take_along_axis(some, each, -1)[..., 0] for each in (np.maximum(count - 1, 0) // 2, count // 2))
    found: Values = (low + high) / 2
    return found


def edge_of(model: Focal) -> int:
    """Pixels from one end of the neighbourhood to the other, where it is no kernel of the user's."""
    if model.size or model.statistic != "gaussian":
        return model.size or 3
    return 2 * int(_TRUNCATED * (model.sigma or 1.0) + 0.5) + 1


def weights_of(model: Focal) -> NDArray[np.float64]:
    """The kernel's weights `(height, width)`, both odd; 1 for each neighbour where the statistic has none.

    Raises:
        UsageError: a kernel that is none.
    """
    if model.statistic == "kernel":
        return parse_kernel(model.kernel or "")
    edge = edge_of(model)
    if model.statistic != "gaussian":
        return np.ones((edge, edge))
    line = np.exp(-0.5 * (np.arange(-(edge // 2), edge // 2 + 1) / (model.sigma or 1.0)) ** 2)
    line /= line.sum()
    weights: NDArray[np.float64] = np.outer(line, line)
    return weights


def parse_kernel(text: str) -> NDArray[np.float64]:
    """Rows with `;` between them, weights with blanks or commas.

    Raises:
        UsageError: no numbers, rows of different length, an even number of rows or columns, all 0.
    """
    rows = [row.replace(",", " ").split() for row in text.strip().strip(";").split(";")]
    try:
        weights = [[float(each) for each in row] for row in rows]
    except ValueError as error:
        raise _wrong(f"has what is no number: {str(error).rpartition(': ')[2]}") from None
    widths = {len(row) for row in weights}
    if len(widths) > 1:
        raise _wrong(f"has rows of {' and '.join(map(str, sorted(widths)))} weights")
    found = np.array(weights)
    if found.size == 0 or any(edge % 2 == 0 for edge in found.shape):
        raise _wrong(f"has {len(weights)} rows of {widths.pop()} weights: both must be odd")
    if not np.isfinite(found).all() or not found.any():
        raise _wrong("must have finite weights, not all 0")
    return found


def _check_size(kernel: tuple[int, int], shape: tuple[int, int]) -> None:
    """Is the raster at least as large as the kernel?"""
    if kernel[0] > shape[0] or kernel[1] > shape[1]:
        raise UsageError(
            f"the neighbourhood of {kernel[1]} x {kernel[0]} pixels is larger than the raster of {shape[1]} x {shape[0]}",
            hint=f"choose a size of at most {(min(shape) - 1) // 2 * 2 + 1}",
        )


def _wrong(problem: str) -> UsageError:
    return UsageError(f"--kernel {problem}", hint=_HINT)
