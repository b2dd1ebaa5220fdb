"""Bounding boxes of the geometries of an Arrow WKB column: by NumPy on its bytes, by shapely for multipoints and the like."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.vector.wkb import POLYGONAL, Column, column_of, find_rings, is_any_of, ring_coordinates, vertices

_POINT, _LINE = 1, 2
_HEADER_BYTES = 5


def bounds_of(array: Any) -> NDArray[np.float64]:
    """West, south, east, north of each geometry, (rows, 4) float64; not-a-number where it has none (null, empty)."""
    column = column_of(array)
    found = np.full((len(column.types), 4), np.nan)
    points = np.flatnonzero(column.types == _POINT)
    xy = vertices(column.data, column.starts[points] + _HEADER_BYTES)
    found[points] = np.hstack([xy, xy])
    rows, starts, counts = _lines_and_rings(column)
    _spread(found, rows, column, starts, counts)
    others = np.flatnonzero((column.sizes > 0) & ~is_any_of(column.types, (_POINT, _LINE, *POLYGONAL)))
    for row in others:
        found[row] = _by_shapely(column, int(row))
    return found


def _lines_and_rings(column: Column) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows, byte positions of first vertices and numbers of vertices of all lines and rings."""
    rings = find_rings(column)
    lines = np.flatnonzero((column.types == _LINE) & (column.sizes >= _HEADER_BYTES + 4))
    at = column.starts[lines] + _HEADER_BYTES
    sizes = column.sizes[lines] - _HEADER_BYTES - 4
    return (
        np.concatenate([rings.rows, lines]),
        np.concatenate([rings.starts, at + 4]),
        np.concatenate([rings.counts, sizes // (8 * column.dimensions[lines])]),
    )


def _spread(
    found: NDArray[np.float64],
    rows: NDArray[np.int64],
    column: Column,
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Widen the boxes of rows by what their lines and rings reach to."""
    some = counts > 0
    rows, starts, counts = rows[some], starts[some], counts[some]
    if len(rows) == 0:
        return
    xy = ring_coordinates(column.data, starts, counts, 8 * column.dimensions[rows])
    firsts = np.cumsum(counts) - counts
    for at, reduce, widen in ((0, np.minimum.reduceat, np.fmin), (2, np.maximum.reduceat, np.fmax)):
        for axis in (0, 1):
            widen.at(found[:, at + axis], rows, reduce(xy[:, axis], firsts))


def _by_shapely(column: Column, row: int) -> Any:
    import shapely

    at = int(column.starts[row])
    try:
        return shapely.bounds(shapely.from_wkb(column.data[at : at + int(column.sizes[row])].tobytes()))
    except (NotImplementedError, shapely.GEOSException):  # a curve, or damaged: who needs the geometry itself says so
        return np.nan
