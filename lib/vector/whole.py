"""Which geometries of an Arrow WKB column are whole: their bytes end no earlier than their vertices do, and are a geometry.

Polygons, lines and points by NumPy; multi types of one part likewise; the others part by part, or by OGR.
"""

import numpy as np
from numpy.typing import NDArray

from lib.vector import gdal
from lib.vector.coordinates import CurveError, DamagedError, walk
from lib.vector.wkb import NOT_LINEAR, POLYGONAL, SURFACES, Column, find_rings, is_any_of, uint32

_POINT, _LINE, _MULTI_POINT, _MULTI_LINE, _COLLECTION = 1, 2, 4, 5, 7
_WALKED = (_MULTI_POINT, _MULTI_LINE, _COLLECTION, *SURFACES)
_HEADER_BYTES = 5


def damaged(column: Column) -> NDArray[np.bool_]:
    """Which values are neither null nor a whole geometry, (rows,) bool."""
    types, sizes = column.types, column.sizes
    found: NDArray[np.bool_] = np.zeros(len(sizes), bool)
    if is_any_of(types, POLYGONAL).any():
        found |= find_rings(column).damaged
    if is_any_of(types, POLYGONAL).all():
        return found
    strides = 8 * column.dimensions
    found |= (types == _POINT) & (sizes < _HEADER_BYTES + strides)
    lines = np.flatnonzero(types == _LINE)
    found[lines] = _counted(column, lines, 4, strides)
    unsure = is_any_of(types, _WALKED)
    for kind, each in ((_MULTI_POINT, _HEADER_BYTES + strides), (_MULTI_LINE, None)):
        rows = np.flatnonzero((types == kind) & (sizes >= 2 * (_HEADER_BYTES + 4)))
        unsure[rows[_is_plain(column, rows, each, strides)]] = False
    for row in np.flatnonzero(unsure).tolist():
        found[row] = _is_cut(column, row)
    known = is_any_of(types, (_POINT, _LINE, *POLYGONAL, *_WALKED))
    for row in np.flatnonzero(~known & (sizes > 0)).tolist():
        found[row] = not gdal.is_geometry(_bytes(column, row))
    return found


def curved(column: Column) -> list[int]:
    """The rows that are curves, or collections that have one inside."""
    rows = np.flatnonzero(is_any_of(column.types, tuple(NOT_LINEAR))).tolist()
    for row in np.flatnonzero(column.types == _COLLECTION).tolist():
        try:
            walk(column, row)
        except CurveError:
            rows.append(row)
        except DamagedError:
            continue
    return sorted(rows)


def _counted(column: Column, rows: NDArray[np.int64], before: int, strides: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the rows end before their vertices, which are counted behind the header."""
    short = column.sizes[rows] < _HEADER_BYTES + before
    some = rows[~short]
    counts = uint32(column.data, column.starts[some] + _HEADER_BYTES).astype(np.int64)
    short[~short] = _HEADER_BYTES + before + counts * strides[some] > column.sizes[some]
    return short


def _is_plain(
    column: Column, rows: NDArray[np.int64], each: NDArray[np.int64] | None, strides: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which multi-points have as many bytes as points (`each` of so many); which multi-lines are of one whole line."""
    at = column.starts[rows] + _HEADER_BYTES
    counts = uint32(column.data, at).astype(np.int64)
    if each is not None:
        plain: NDArray[np.bool_] = counts * each[rows] + _HEADER_BYTES + 4 == column.sizes[rows]
        return plain
    vertices = uint32(column.data, at + 4 + _HEADER_BYTES).astype(np.int64)
    single: NDArray[np.bool_] = (counts == 1) & (
        vertices * strides[rows] + 2 * (_HEADER_BYTES + 4) == column.sizes[rows]
    )
    return single


def _is_cut(column: Column, row: int) -> bool:
    try:
        walk(column, row)
    except DamagedError:
        return True
    except CurveError:
        return not gdal.is_geometry(_bytes(column, row))
    return False


def _bytes(column: Column, row: int) -> bytes:
    start = int(column.starts[row])
    return column.data[start : start + int(column.sizes[row])].tobytes()
