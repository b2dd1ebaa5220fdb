"""Every vertex of an Arrow WKB column, whatever the geometry's type: where it is, and another x and y in its place.

Polygons, points and lines by NumPy; multi-lines, collections and surfaces part by part. WKB that is not little-endian ISO or
EWKB without an SRID is made so by shapely first (`as_plain`).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.vector.wkb import (
    NOT_LINEAR,
    POLYGON,
    POLYGONAL,
    Column,
    column_of,
    find_rings,
    is_any_of,
    ring_coordinates,
    type_of,
    uint32,
)

_POINT, _LINE, _MULTI_POINT, _TRIANGLE = 1, 2, 4, 17
_OF_VERTICES = (_POINT, _LINE, POLYGON, _TRIANGLE)
_HEADER_BYTES = 5
_AT_ONCE = 65_536
_Ints = NDArray[np.int64]
_Each = tuple[_Ints, _Ints, _Ints, _Ints]


class CurveError(Exception):
    """A row has a curve, whose vertices are not all there is of it.

    Attributes:
        row: its number in the batch.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} has curves")
        self.row = row


class DamagedError(Exception):
    """A row's bytes end before its vertices do.

    Attributes:
        row: its number in the batch.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} is cut short")
        self.row = row


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of vertices one behind the other in memory, in no particular order; all arrays are (runs,) int64.

    Attributes:
        rows: the row that a run belongs to.
        starts: byte position of its first vertex.
        counts: its vertices.
        strides: bytes from one vertex to the next.
    """

    rows: _Ints
    starts: _Ints
    counts: _Ints
    strides: _Ints


def as_plain(array: Any) -> Any:
    """The column with every geometry little-endian and without SRID; the column itself where all are."""
    column = column_of(array)
    if not ((column.types == 0) & (column.sizes > 0)).any():
        return array
    import shapely

    shapes = shapely.from_wkb(np.asarray(array.to_pylist(), object))
    return pa.array(shapely.to_wkb(shapes, byte_order=1, flavor="iso"), array.type)


def find_vertices(column: Column) -> Runs:
    """All vertices of all geometries.

    Raises:
        CurveError: a geometry is a curve, or has one inside.
        DamagedError: bytes that end too early.
    """
    rings = find_rings(column)
    if rings.damaged.any():
        raise DamagedError(int(rings.damaged.argmax()))
    found = [(rings.rows, rings.starts, rings.counts, 8 * column.dimensions[rings.rows])]
    found += [_points(column), _lines(column)]
    present = column.sizes > 0
    for row in np.flatnonzero(present & ~is_any_of(column.types, (_POINT, _LINE, *POLYGONAL))).tolist():
        runs = np.array(walk(column, row), np.int64).reshape(-1, 3)
        found.append((np.full(len(runs), row), runs[:, 0], runs[:, 1], runs[:, 2]))
    return Runs(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _points(column: Column) -> _Each:
    rows = np.flatnonzero(column.types == _POINT)
    return _whole(column, rows, column.starts[rows] + _HEADER_BYTES, np.ones(len(rows), np.int64))


def _lines(column: Column) -> _Each:
    rows = np.flatnonzero(column.types == _LINE)
    if (short := column.sizes[rows] < _HEADER_BYTES + 4).any():
        raise DamagedError(int(rows[short.argmax()]))
    at = column.starts[rows] + _HEADER_BYTES
    return _whole(column, rows, at + 4, uint32(column.data, at).astype(np.int64))


def _whole(column: Column, rows: _Ints, starts: _Ints, counts: _Ints) -> _Each:
    strides = 8 * column.dimensions[rows]
    short = starts + counts * strides > column.starts[rows] + column.sizes[rows]
    if short.any():
        raise DamagedError(int(rows[short.argmax()]))
    return rows, starts, counts, strides


def walk(column: Column, row: int) -> list[tuple[int, int, int]]:
    """The runs of one geometry of any type as `(start, count, stride)`."""
    view, at, end = column.data.data, int(column.starts[row]), int(column.starts[row] + column.sizes[row])
    runs: list[tuple[int, int, int]] = []
    geometries = 1
    while geometries:
        if at + _HEADER_BYTES + 4 > end or view[at] != 1:
            raise DamagedError(row)
        code, number = struct.unpack_from("<II", view, at + 1)
        kind, dimensions = type_of(code)
        if kind in NOT_LINEAR:
            raise CurveError(row)
        at, geometries = at + _HEADER_BYTES, geometries - 1
        if kind in _OF_VERTICES:
            new, at = _runs(view, at, end, kind, 8 * dimensions)
            if at > end:
                raise DamagedError(row)
            runs += new
        else:
            at, geometries = at + 4, geometries + number
    return runs


def _runs(view: memoryview, at: int, end: int, kind: int, stride: int) -> tuple[list[tuple[int, int, int]], int]:
    """The runs of a point, a line, a polygon or a triangle behind its header, and where it ends; beyond `end` if too early."""
    if kind == _POINT:
        return [(at, 1, stride)], at + stride
    lines, runs = 1, list[tuple[int, int, int]]()
    if kind != _LINE:
        (lines,) = struct.unpack_from("<I", view, at)
        at += 4
    for _ in range(lines):
        if at + 4 > end:
            return runs, end + 1
        (count,) = struct.unpack_from("<I", view, at)
        runs.append((at + 4, count, stride))
        at += 4 + count * stride
    return runs, at


def moved(array: Any, move: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> tuple[Any, int | None]:
    """The column with other x and y at every vertex; Z, M and all else are as they were.

    Args:
        array: an Arrow WKB column.
        move: gives new x and y, (vertices, 2) float64, of some; not finite where there are none.

    Returns:
        The column, and the first row that has no new x and y though it had x and y; None where all have.

    Raises:
        CurveError, DamagedError: by `find_vertices`.
    """
    array = as_plain(array)
    column = column_of(array)
    runs = find_vertices(column)
    low = int(column.starts.min(initial=len(column.data)))
    high = int((column.starts + column.sizes).max(initial=low))
    data = column.data[low:high].copy()
    pairs: NDArray[Any] = np.ndarray((max(len(data) - 15, 0),), "V16", data, strides=(1,))
    failed = []
    for some, skipped, counts in _parts(runs.counts):
        starts, strides = runs.starts[some] + skipped * runs.strides[some], runs.strides[some]
        before = ring_coordinates(column.data, starts, counts, strides)
        after = np.ascontiguousarray(move(before))
        lost = ~np.isfinite(after).all(axis=1)
        lost &= ~np.isnan(before).any(axis=1)  # an empty point's
        if lost.any():
            failed.append(int(np.repeat(runs.rows[some], counts)[lost].min()))
        positions = np.repeat(starts - low, counts) + _within(counts) * np.repeat(strides, counts)
        pairs[positions] = after.view("V16")[:, 0]
    return _rebuilt(array, data, low), min(failed, default=None)


def _within(counts: _Ints) -> _Ints:
    """0, 1, 2, … of each run."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def _parts(counts: _Ints) -> list[tuple[slice, _Ints, _Ints]]:
    """Runs that together have `_AT_ONCE` vertices: which, how many vertices of each are skipped, how many are taken."""
    ends = np.cumsum(counts)
    parts = []
    for low in range(0, int(ends[-1]) if len(ends) else 0, _AT_ONCE):
        high = min(low + _AT_ONCE, int(ends[-1]))
        some = slice(int(np.searchsorted(ends, low, "right")), int(np.searchsorted(ends, high, "left")) + 1)
        firsts = ends[some] - counts[some]
        skipped = np.maximum(low - firsts, 0)
        parts.append((some, skipped, np.minimum(ends[some], high) - firsts - skipped))
    return parts


def _rebuilt(array: Any, data: NDArray[np.uint8], low: int) -> Any:
    """The column over other bytes, which begin at position `low` of its own."""
    width = np.dtype(np.int64 if pa.types.is_large_binary(array.type) else np.int32)
    validity, offsets, _ = array.buffers()
    if offsets is None or len(array) == 0:
        return array
    own = np.frombuffer(offsets, width, len(array) + 1, array.offset * width.itemsize)
    if array.null_count:
        bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
        validity = pa.py_buffer(np.packbits(bits[array.offset : array.offset + len(array)], bitorder="little"))
    else:
        validity = None
    kept = np.clip(own.astype(np.int64) - low, 0, len(data)).astype(width)
    return pa.Array.from_buffers(
        array.type, len(array), [validity, pa.py_buffer(kept), pa.py_buffer(data)], array.null_count
    )
