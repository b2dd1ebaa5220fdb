"""Sums and the like over each pixel's neighbourhood, on flat pieces. Pure, and of NumPy alone.

A piece is `rows` rows of `width` pixels one after the other, so that a step down is `width` values and one to the right is one:
what is computed of values that lie across the end of a row is not looked at. No result depends on where a piece begins: there are
no running sums, whose rounding would, but sums of halves, `log2(size)` of them (for least and greatest see van Herk 1992).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Values = NDArray[Any]
# Rows and columns of results at a time (MEASURED.md, "Pieces of neighbourhoods").
_ROWS, _COLUMNS = 64, 1024


def pieces(shape: tuple[int, int], kernel: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Where the results of pieces lie in a window of `shape`, row by row; larger ones for larger kernels."""
    down, across = piece_shape(kernel)
    for top in range(0, shape[0], down):
        for left in range(0, shape[1], across):
            yield slice(top, min(top + down, shape[0])), slice(left, min(left + across, shape[1]))


def piece_shape(kernel: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a piece's results: no more lies around them than twice what they are."""
    return max(_ROWS, kernel[0]), max(_COLUMNS, kernel[1])


def piece_values(kernel: tuple[int, int]) -> int:
    """How many values a piece has with what lies around its results."""
    down, across = piece_shape(kernel)
    return (down + kernel[0] - 1) * (across + kernel[1] - 1)


def box(piece: Values, kernel: tuple[int, int], slide: Callable[[Values, int, int], Values]) -> Values:
    """Slide over a `(rows, columns)` piece in both directions: `(rows - height + 1, columns - width + 1)`."""
    down = slide(piece.reshape(-1), kernel[0], piece.shape[1])
    return shaped(slide(down, kernel[1], 1), piece.shape, kernel)


def shaped(flat: Values, around: tuple[int, ...], kernel: tuple[int, int]) -> Values:
    """Flat results as `(rows, columns)`, without those that lie across the end of a row."""
    shape = around[0] - kernel[0] + 1, around[1] - kernel[1] + 1
    return as_strided(flat, shape, (around[1] * flat.itemsize, flat.itemsize))


def summed(values: Values, size: int, step: int) -> Values:
    """Each value and the `size - 1` after it at a distance of `step`, summed: `(n,)` to `(n - (size - 1) * step,)`."""
    if size == 1:
        return values
    if size % 2:
        rest = summed(values, size - 1, step)[:-step] if size > 1 else values
        return np.add(rest, values[(size - 1) * step :], out=rest)
    half = summed(values, size // 2, step)
    away = size // 2 * step
    return half[:-away] + half[away:]


def extreme(function: Callable[..., Any]) -> Callable[[Values, int, int], Values]:
    """Like `summed` with `np.minimum` or `np.maximum`, whose parts may overlap."""

    def slide(values: Values, size: int, step: int) -> Values:
        if size == 1:
            return values
        half = -(-size // 2)
        part, away = slide(values, half, step), (size - half) * step
        found: Values = function(part[:-away], part[away:])
        return found

    return slide


def weighted(weights: Sequence[float]) -> Callable[[Values, int, int], Values]:
    """A slide with symmetric weights, of which there is an odd number: those alike share a multiplication."""

    def slide(values: Values, size: int, step: int) -> Values:
        radius, length = size // 2, len(values) - (size - 1) * step
        total = values[radius * step :][:length] * weights[radius]
        for i in range(radius):
            pair = values[i * step :][:length] + values[(size - 1 - i) * step :][:length]
            pair *= weights[i]
            total += pair
        return total

    return slide


def correlated(piece: Values, weights: NDArray[np.float64]) -> Values:
    """The sum of each result's neighbours by their weights, entry by entry in the order of the kernel's rows."""
    flat, width, kernel = piece.reshape(-1), piece.shape[1], (weights.shape[0], weights.shape[1])
    total = np.zeros(len(flat) - (kernel[0] - 1) * width - (kernel[1] - 1))
    for row, column in zip(*np.nonzero(weights), strict=True):
        start = row * width + column
        total += flat[start : start + len(total)] * weights[row, column]
    return shaped(total, piece.shape, kernel)


Moments = tuple[Values, Values, Values]


def moments(values: Moments, size: int, step: int) -> Moments:
    """Like `summed`, of count, mean and sum of squared deviations, merged pairwise.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979: digits do not
    cancel where values are large and differ by little.
    """
    if size == 1:
        return values
    first = size - 1 if size % 2 else size // 2
    part = moments(values, first, step)
    other, away = (values, first * step) if size % 2 else (part, first * step)
    length = len(values[0]) - (size - 1) * step
    return _merged(_of(part, 0, length), _of(other, away, length))


def _of(parts: Moments, start: int, length: int) -> Moments:
    count, mean, squares = (each[start : start + length] for each in parts)
    return count, mean, squares


def _merged(one: Moments, other: Moments) -> Moments:
    count = one[0] + other[0]
    share = other[0] / np.maximum(count, 1)
    away = other[1] - one[1]
    return count, one[1] + away * share, one[2] + other[2] + away * away * one[0] * share
