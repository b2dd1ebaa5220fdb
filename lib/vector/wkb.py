"""Well-known binary without a geometry library: where the polygon rings of an Arrow column lie, and their coordinates.

Pure NumPy on the column's own buffers. Little-endian ISO WKB and EWKB, with Z and M; what else there is (curves, big-endian,
surfaces) is left to `shapely` by whoever asks. Areas are in `area.py`.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = [
    "CURVES",
    "POLYGONAL",
    "Column",
    "Rings",
    "column_of",
    "find_rings",
    "promote_to_multi",
    "ring_coordinates",
    "values_of",
]

POLYGON, MULTI_POLYGON = 3, 6
POLYGONAL = (POLYGON, MULTI_POLYGON)
# CircularString, CompoundCurve, CurvePolygon, MultiCurve, MultiSurface (ISO 13249-3).
CURVES = (8, 9, 10, 11, 12)
_EWKB_Z, _EWKB_M, _EWKB_SRID = 0x80000000, 0x40000000, 0x20000000
# Below this many unfinished geometries a scalar walk is faster than one step of NumPy on tiny arrays.
_FEW = 24
_HEADER_BYTES = 5


@dataclass(frozen=True, slots=True)
class Column:
    """A binary Arrow column as NumPy sees it, without copies.

    Attributes:
        data: all bytes, (n,) uint8.
        starts: where each value begins in `data`, (rows,) int64.
        sizes: its length in bytes, (rows,) int64; 0 for null.
        types: the base geometry type (1 to 17), (rows,) uint32; 0 for null, truncated or big-endian.
        dimensions: ordinates per vertex: 2, 3 or 4, (rows,) int64.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    types: NDArray[np.uint32]
    dimensions: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rings:
    """The rings of polygons and multipolygons, in no particular order.

    Attributes:
        rows: the row that a ring belongs to, (rings,) int64.
        starts: byte position of its first vertex, (rings,) int64.
        counts: its vertices, the closing one included, (rings,) int64.
        holes: True for interior rings, (rings,) bool.
        damaged: rows whose bytes end before their rings do, (rows,) bool.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    holes: NDArray[np.bool_]
    damaged: NDArray[np.bool_]


def column_of(array: Any) -> Column:
    """The Arrow `binary` or `large_binary` array as a `Column`."""
    wide = pa.types.is_large_binary(array.type)
    _, offset_buffer, data_buffer = array.buffers()
    rows = len(array)
    width = np.dtype(np.int64 if wide else np.int32)
    if rows == 0 or offset_buffer is None:
        empty = np.zeros(rows, np.int64)
        return Column(np.zeros(0, np.uint8), empty, empty, empty.astype(np.uint32), empty + 2)
    offsets = np.frombuffer(offset_buffer, width, rows + 1, array.offset * width.itemsize).astype(np.int64)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    sizes = np.diff(offsets)
    if array.null_count:
        validity = np.frombuffer(array.buffers()[0], np.uint8)
        bits = np.unpackbits(validity, bitorder="little")[array.offset : array.offset + rows]
        sizes = sizes * bits
    starts = offsets[:-1]
    readable = np.flatnonzero(sizes >= _HEADER_BYTES)
    readable = readable[data[starts[readable]] == 1]
    types = np.zeros(rows, np.uint32)
    dimensions = np.full(rows, 2, np.int64)
    codes = _uint32(data, starts[readable] + 1)
    plain = codes & np.uint32(0x0FFFFFFF)
    extra = plain // 1000
    types[readable] = np.where(codes & np.uint32(_EWKB_SRID), 0, plain % 1000)
    has_z = ((codes & np.uint32(_EWKB_Z)) != 0) | (extra == 1) | (extra == 3)  # noqa: PLR2004 - ISO: 1000 Z, 2000 M, 3000 ZM
    has_m = ((codes & np.uint32(_EWKB_M)) != 0) | (extra == 2) | (extra == 3)  # noqa: PLR2004
    dimensions[readable] = 2 + has_z.astype(np.int64) + has_m
    return Column(data, starts, sizes, types, dimensions)


def find_rings(column: Column) -> Rings:
    """Walk all polygons at once, one ring a step; the few with many rings one by one.

    Each geometry is a small machine of `(position, polygons left, rings left, is the next ring a hole)`; a step reads either
    a polygon's header or a ring's.
    """
    rows = np.flatnonzero(np.isin(column.types, POLYGONAL) & (column.sizes >= _HEADER_BYTES + 4))
    damaged = np.isin(column.types, POLYGONAL) & (column.sizes < _HEADER_BYTES + 4)
    multi = column.types[rows] == MULTI_POLYGON
    at = column.starts[rows] + _HEADER_BYTES
    first = _uint32(column.data, at).astype(np.int64)
    at = at + 4
    polygons = np.where(multi, first, 0)
    rings = np.where(multi, 0, first)
    hole = np.zeros(len(rows), bool)
    ends = column.starts[rows] + column.sizes[rows]
    vertex_bytes = 8 * column.dimensions[rows]
    found: list[tuple[Any, ...]] = []
    active = np.flatnonzero((polygons > 0) | (rings > 0))
    while len(active) > _FEW:
        in_ring = rings[active] > 0
        fits = at[active] + np.where(in_ring, 4, _HEADER_BYTES + 4) <= ends[active]
        damaged[rows[active[~fits]]] = True
        active, in_ring = active[fits], in_ring[fits]
        reading, opening = active[in_ring], active[~in_ring]
        counts = _uint32(column.data, at[reading]).astype(np.int64)
        after = at[reading] + 4 + counts * vertex_bytes[reading]
        whole = after <= ends[reading]
        damaged[rows[reading[~whole]]] = True
        found.append((rows[reading[whole]], at[reading[whole]] + 4, counts[whole], hole[reading[whole]]))
        at[reading], hole[reading] = after, True
        rings[reading] -= 1
        rings[opening] = _uint32(column.data, at[opening] + _HEADER_BYTES)
        at[opening] += _HEADER_BYTES + 4
        polygons[opening] -= 1
        hole[opening] = False
        left = (polygons[active] > 0) | (rings[active] > 0)
        active = active[left & ~damaged[rows[active]]]
    for one in active:
        state = (int(at[one]), int(polygons[one]), int(rings[one]), bool(hole[one]))
        parts, broken = _walk(column.data, state, int(ends[one]), int(vertex_bytes[one]))
        damaged[rows[one]] |= broken
        starts, lengths, inner = (np.array(part) for part in zip(*parts, strict=True)) if parts else ([], [], [])
        found.append((np.full(len(parts), rows[one]), starts, lengths, inner))
    columns = list(zip(*found, strict=True)) or [(), (), (), ()]
    kinds = (np.int64, np.int64, np.int64, np.bool_)
    joined = [
        np.concatenate([np.asarray(p, k) for p in c] or [np.zeros(0, k)]) for c, k in zip(columns, kinds, strict=True)
    ]
    return Rings(joined[0], joined[1], joined[2], joined[3], damaged)


def _walk(
    data: NDArray[np.uint8], state: tuple[int, int, int, bool], end: int, vertex_bytes: int
) -> tuple[list[tuple[int, int, bool]], bool]:
    """The rest of one geometry's rings as `(start, count, is hole)`, and whether its bytes ended too early."""
    at, polygons, rings, hole = state
    view = data.data
    parts: list[tuple[int, int, bool]] = []
    while polygons or rings:
        if at + (4 if rings else _HEADER_BYTES + 4) > end:
            return parts, True
        if rings:
            (count,) = struct.unpack_from("<I", view, at)
            if at + 4 + count * vertex_bytes > end:
                return parts, True
            parts.append((at + 4, count, hole))
            at, rings, hole = at + 4 + count * vertex_bytes, rings - 1, True
        else:
            (rings,) = struct.unpack_from("<I", view, at + _HEADER_BYTES)
            at, polygons, hole = at + _HEADER_BYTES + 4, polygons - 1, False
    return parts, False


def ring_coordinates(
    data: NDArray[np.uint8], starts: NDArray[np.int64], counts: NDArray[np.int64], strides: NDArray[np.int64]
) -> NDArray[np.float64]:
    """X and Y of ring after ring, (vertices, 2) float64.

    Args:
        data: the column's bytes.
        starts: byte position of each ring's first vertex.
        counts: vertices of each ring.
        strides: bytes from one vertex to the next, of each ring.
    """
    total = int(counts.sum())
    if total == 0:
        return np.zeros((0, 2), np.float64)
    before = np.cumsum(counts) - counts
    positions = np.arange(total, dtype=np.int64)
    uniform = int(strides[0]) if (strides == strides[0]).all() else 0
    if uniform:
        positions *= uniform
        positions += np.repeat(starts - before * uniform, counts)
    else:
        positions = np.repeat(starts, counts) + (positions - np.repeat(before, counts)) * np.repeat(strides, counts)
    # 16 opaque bytes at every byte position: NumPy copies such a "void" with no regard to alignment.
    pairs: NDArray[Any] = np.ndarray((len(data) - 15,), "V16", data, strides=(1,))
    return pairs[positions].view("<f8").reshape(-1, 2)


def promote_to_multi(array: Any) -> Any:
    """Single lines and polygons of an Arrow WKB array as their multi types; the rest as it is."""
    column = column_of(array)
    codes = np.zeros(len(column.types), np.uint32)
    single = np.isin(column.types, (2, 3))
    codes[single] = _uint32(column.data, column.starts[single] + 1)
    for code in np.unique(codes[single]):
        prefix = struct.pack("<BII", 1, int(code) + 3, 1)
        empty = pa.scalar(b"", array.type)
        wrapped = pc.binary_join_element_wise(pa.scalar(prefix, array.type), array, empty)
        array = wrapped if (codes == code).all() else pc.if_else(pa.array(codes == code), wrapped, array)
    return array


def _uint32(data: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Little-endian 32-bit numbers at any byte positions."""
    if len(positions) == 0:
        return np.zeros(0, np.uint32)
    numbers: NDArray[Any] = np.ndarray((len(data) - 3,), "V4", data, strides=(1,))
    return numbers[positions].view("<u4")


def values_of(array: Any) -> list[bytes | None]:
    """An Arrow binary array's values; `to_pylist` makes a second copy of each on its way."""
    column = column_of(array)
    whole = [
        column.data[start : start + size].tobytes() for start, size in zip(column.starts, column.sizes, strict=True)
    ]
    return [value if valid else None for value, valid in zip(whole, array.is_valid().to_pylist(), strict=True)]
