"""Runs of vertices in an Arrow column of WKB: points, lines and rings, of single and multi types, without a geometry library.

What `wkb.py` does for rings, for all linear types; collections and other byte orders are left out, for `shapely`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.vector.wkb import POLYGONAL, Column, find_rings, is_any_of, ring_coordinates, uint32, vertices

POINT, LINE, MULTI_POINT, MULTI_LINE = 1, 2, 4, 5
LINEAR = (LINE, MULTI_LINE)
SIMPLE = (POINT, LINE, MULTI_POINT, MULTI_LINE, *POLYGONAL)
_HEADER_BYTES = 5
VERTICES_AT_ONCE = 32_768


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of vertices, in no particular order.

    Attributes:
        rows: the row that a run belongs to, (runs,) int64.
        starts: byte position of its first vertex, (runs,) int64.
        counts: its vertices, (runs,) int64.
        damaged: rows whose bytes end before their vertices do, (rows,) bool.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    damaged: NDArray[np.bool_]


def find_runs(column: Column, types: tuple[int, ...] = SIMPLE) -> Runs:
    """The runs of the rows that have one of these types."""
    damaged = np.zeros(len(column.sizes), bool)
    found = []
    chosen = column.types * is_any_of(column.types, types)
    for kind in np.unique(chosen).tolist():
        rows = np.flatnonzero(chosen == kind)
        if kind == POINT:
            found.append(_filled(column, _points(column, rows, damaged)))
        elif kind == LINE:
            found.append(_counted(column, rows, column.starts[rows] + _HEADER_BYTES, damaged))
        elif kind in (MULTI_POINT, MULTI_LINE):
            parts_of = _of_multi(column, rows, damaged, of_points=kind == MULTI_POINT)
            found += [_filled(column, each) for each in parts_of] if kind == MULTI_POINT else parts_of
    if any(each in types for each in POLYGONAL):
        rings = find_rings(column)
        damaged |= rings.damaged
        found.append((rings.rows, rings.starts, rings.counts))
    nothing = (np.zeros(0, np.int64),) * 3
    rows, starts, counts = (np.concatenate(part) for part in zip(nothing, *found, strict=True))
    return Runs(rows, starts, counts, damaged)


_Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _points(column: Column, rows: NDArray[np.int64], damaged: NDArray[np.bool_]) -> _Found:
    fits = column.sizes[rows] >= _HEADER_BYTES + 8 * column.dimensions[rows]
    damaged[rows[~fits]] = True
    rows = rows[fits]
    return rows, column.starts[rows] + _HEADER_BYTES, np.ones(len(rows), np.int64)


def _filled(column: Column, points: _Found) -> _Found:
    """Those that are not empty: such have not-a-number for X and Y."""
    rows, starts, counts = points
    known = ~np.isnan(vertices(column.data, starts)).all(axis=1)
    return rows[known], starts[known], counts[known]


def _counted(column: Column, rows: NDArray[np.int64], at: NDArray[np.int64], damaged: NDArray[np.bool_]) -> _Found:
    """Runs whose vertices stand behind their number."""
    ends = column.starts[rows] + column.sizes[rows]
    fits = at + 4 <= ends
    damaged[rows[~fits]] = True
    rows, at, ends = rows[fits], at[fits], ends[fits]
    counts = uint32(column.data, at).astype(np.int64)
    fits = at + 4 + counts * 8 * column.dimensions[rows] <= ends
    damaged[rows[~fits]] = True
    return rows[fits], at[fits] + 4, counts[fits]


def _of_multi(column: Column, rows: NDArray[np.int64], damaged: NDArray[np.bool_], *, of_points: bool) -> list[_Found]:
    """The parts of multi types, one of each a step."""
    found: list[_Found] = []
    at, ends = column.starts[rows] + _HEADER_BYTES, column.starts[rows] + column.sizes[rows]
    fits = at + 4 <= ends
    damaged[rows[~fits]] = True
    rows, at = rows[fits], at[fits]
    left = uint32(column.data, at).astype(np.int64)
    at += 4
    while (more := left > 0).any():
        rows, at, left = rows[more], at[more], left[more] - 1
        strides = 8 * column.dimensions[rows]
        if of_points:
            fits = at + _HEADER_BYTES + strides <= column.starts[rows] + column.sizes[rows]
            found.append((rows[fits], at[fits] + _HEADER_BYTES, np.ones(int(fits.sum()), np.int64)))
            damaged[rows[~fits]] = True
            at = at + _HEADER_BYTES + strides
        else:
            found.append(_counted(column, rows, at + _HEADER_BYTES, damaged))
            fits = ~damaged[rows]
            part, starts, counts = found[-1]
            at = starts + counts * 8 * column.dimensions[part]
        rows, left = rows[fits], left[fits]
        at = at[fits] if of_points else at
    return found


def pieces(column: Column, some: Runs) -> Runs:
    """The same edges in runs of at most so many vertices: a longer one in pieces, each from the last vertex of the one before."""
    step = VERTICES_AT_ONCE - 1
    long = some.counts > VERTICES_AT_ONCE
    if not long.any():
        return some
    number = np.where(long, -(-(some.counts - 1) // step), 1)
    which = np.repeat(np.arange(len(number)), number)
    first = (np.arange(len(which)) - np.repeat(np.cumsum(number) - number, number)) * step
    counts = np.where(long[which], np.minimum(some.counts[which] - first, step + 1), some.counts[which])
    rows = some.rows[which]
    return Runs(rows, some.starts[which] + first * 8 * column.dimensions[rows], counts, some.damaged)


def parts(counts: NDArray[np.int64]) -> list[slice]:
    """Consecutive runs that together have at most so many vertices; a longer run is alone."""
    ends = np.cumsum(counts)
    found, at = [], 0
    while at < len(counts):
        done = int(ends[at - 1]) if at else 0
        stop = max(at + 1, int(np.searchsorted(ends, done + VERTICES_AT_ONCE, "right")))
        found.append(slice(at, stop))
        at = stop
    return found


def envelopes(column: Column, runs: Runs) -> NDArray[np.float64]:
    """Of each row xmin, ymin, xmax, ymax, (4, rows) float64: infinite the wrong way around where it has no vertex."""
    rows, runs = len(column.sizes), pieces(column, runs)
    low, high = np.full((2, rows), np.inf), np.full((2, rows), -np.inf)
    some = np.flatnonzero(runs.counts)
    strides = 8 * column.dimensions[runs.rows]
    for part in parts(runs.counts[some]):
        mine = some[part]
        counts = runs.counts[mine]
        xy = ring_coordinates(column.data, runs.starts[mine], counts, strides[mine]).T
        at = np.cumsum(counts) - counts
        for axis in (0, 1):
            np.minimum.at(low[axis], runs.rows[mine], np.minimum.reduceat(xy[axis], at))
            np.maximum.at(high[axis], runs.rows[mine], np.maximum.reduceat(xy[axis], at))
    return np.concatenate([low, high])


def coordinates(column: Column, runs: Runs, mine: NDArray[Any] | slice) -> NDArray[np.float64]:
    """X and Y of some runs, one after the other, (vertices, 2) float64."""
    return ring_coordinates(column.data, runs.starts[mine], runs.counts[mine], 8 * column.dimensions[runs.rows[mine]])
