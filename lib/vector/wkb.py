"""Well-known binary without a geometry library: where the polygon rings of an Arrow column lie, and their coordinates.

Pure NumPy on the column's own buffers. Little-endian ISO WKB and EWKB, with Z and M; what else there is (curves, big-endian,
surfaces) is left to `shapely` by whoever asks. Areas are in `area.py`.
"""

import functools
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

POLYGON, MULTI_POLYGON = 3, 6
POLYGONAL = (POLYGON, MULTI_POLYGON)
# What GEOS reads no area of, by name (ISO 13249-3).
NOT_LINEAR = {8: "CircularString", 9: "CompoundCurve", 10: "CurvePolygon", 11: "MultiCurve", 12: "MultiSurface"}
LINEAR_HINT = "make it linear: ogr2ogr -nlt CONVERT_TO_LINEAR linear.gpkg SOURCE"
SURFACES = {15: "PolyhedralSurface", 16: "TIN", 17: "Triangle"}
# In place of a decoded geometry: its type is one that GEOS does not read.
NOT_READ = object()
_ISO_Z = 1000
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
    types[readable], dimensions[readable] = _types_and_dimensions(uint32(data, starts[readable] + 1))
    return Column(data, starts, sizes, types, dimensions)


def _types_and_dimensions(codes: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Base types and ordinates per vertex of WKB type codes: ISO's thousands (1000 Z, 2000 M, 3000 ZM) or EWKB's bits.

    Type 0 where an SRID stands between the code and the geometry, and for codes that there are not.
    """
    if len(codes) and codes.max() < _ISO_Z:  # as most columns are: X and Y alone
        return codes, np.full(len(codes), 2, np.int64)
    plain = codes & np.uint32(0x0FFFFFFF)
    thousands = plain // 1000
    has_z = ((codes & np.uint32(_EWKB_Z)) != 0) | (thousands & 1 != 0)
    has_m = ((codes & np.uint32(_EWKB_M)) != 0) | (thousands & 2 != 0)
    types = plain - thousands * np.uint32(1000)
    types[(codes & np.uint32(_EWKB_SRID) != 0) | (thousands > 3)] = 0  # noqa: PLR2004 - there are no others
    return types, 2 + has_z.astype(np.int64) + has_m


@functools.cache
def type_of(code: int) -> tuple[int, int]:
    """The base type of one WKB type code, and ordinates per vertex."""
    types, dimensions = _types_and_dimensions(np.array([code], np.uint32))
    return int(types[0]), int(dimensions[0])


def has_m(column: Column) -> NDArray[np.bool_]:
    """Which values have an M, (rows,) bool."""
    found = np.zeros(len(column.types), bool)
    known = np.flatnonzero(column.types)
    codes = uint32(column.data, column.starts[known] + 1)
    found[known] = ((codes & np.uint32(_EWKB_M)) != 0) | ((codes & np.uint32(0x0FFFFFFF)) // 1000 & 2 != 0)
    return found


def is_any_of(types: NDArray[np.uint32], some: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which types are among some, (rows,) bool: what `np.isin` says, at a tenth of its cost for a handful."""
    found: NDArray[np.bool_] = types == some[0]
    for each in some[1:]:
        found |= types == each
    return found


def find_rings(column: Column) -> Rings:
    """Walk all polygons at once, one ring a step; the few with many rings one by one."""
    if (plain := _single_rings(column)) is not None:
        return plain
    walk = _Walk(column)
    active = walk.unfinished(np.arange(len(walk.rows)))
    while len(active) > _FEW:
        active = walk.step(active)
    for one in active:
        walk.finish(int(one))
    return walk.rings()


def _single_rings(column: Column) -> Rings | None:
    """The rings of polygons of one ring each, as most batches of parcels are, in a quarter of the steps; None of others."""
    rows = len(column.sizes)
    if rows == 0 or not (column.types == POLYGON).all() or column.sizes.min() < _HEADER_BYTES + 8:
        return None
    at = column.starts + _HEADER_BYTES
    if not (uint32(column.data, at) == 1).all():
        return None
    counts = uint32(column.data, at + 4).astype(np.int64)
    if not (counts * (8 * column.dimensions) + (_HEADER_BYTES + 8) == column.sizes).all():
        return None
    nothing = np.zeros(rows, bool)
    return Rings(np.arange(rows), at + 8, counts, nothing, nothing)


class _Walk:
    """Each polygonal geometry as a small machine; a step reads either a polygon's header or a ring's.

    Its state is where it reads, polygons left, rings left in this one, and whether the next ring is a hole. Short functions:
    tracemalloc finds an allocation's line by going through its function from the top, 10 us for NumPy in line 60.
    """

    def __init__(self, column: Column) -> None:
        polygonal = is_any_of(column.types, POLYGONAL)
        self.damaged = column.sizes < _HEADER_BYTES + 4
        self.rows = np.flatnonzero(polygonal & ~self.damaged)
        self.damaged &= polygonal
        self._data = column.data
        self._found: list[tuple[NDArray[Any], ...]] = []
        self._at = column.starts[self.rows] + _HEADER_BYTES
        self._ends = column.starts[self.rows] + column.sizes[self.rows]
        self._vertex_bytes = 8 * column.dimensions[self.rows]
        self._begin(column.types[self.rows] == MULTI_POLYGON)

    def _begin(self, multi: NDArray[np.bool_]) -> None:
        first = uint32(self._data, self._at).astype(np.int64)
        self._at += 4
        self._polygons = np.where(multi, first, 0)
        self._rings = np.where(multi, 0, first)
        self._hole = np.zeros(len(first), bool)

    def unfinished(self, some: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those that have more to read, and are whole as far as is known."""
        left = (self._polygons[some] > 0) | (self._rings[some] > 0)
        return some[left & ~self.damaged[self.rows[some]]]

    def step(self, active: NDArray[np.int64]) -> NDArray[np.int64]:
        """One header of each; those that are then unfinished."""
        in_ring = self._rings[active] > 0
        fits = self._at[active] + np.where(in_ring, 4, _HEADER_BYTES + 4) <= self._ends[active]
        self.damaged[self.rows[active[~fits]]] = True
        active, in_ring = active[fits], in_ring[fits]
        self._read_rings(active[in_ring])
        self._open_polygons(active[~in_ring])
        return self.unfinished(active)

    def _read_rings(self, some: NDArray[np.int64]) -> None:
        starts = self._at[some] + 4
        counts = uint32(self._data, self._at[some]).astype(np.int64)
        after = starts + counts * self._vertex_bytes[some]
        whole = after <= self._ends[some]
        self.damaged[self.rows[some[~whole]]] = True
        self._found.append((self.rows[some[whole]], starts[whole], counts[whole], self._hole[some[whole]]))
        self._at[some], self._hole[some] = after, True
        self._rings[some] -= 1

    def _open_polygons(self, some: NDArray[np.int64]) -> None:
        self._rings[some] = uint32(self._data, self._at[some] + _HEADER_BYTES)
        self._at[some] += _HEADER_BYTES + 4
        self._polygons[some] -= 1
        self._hole[some] = False

    def finish(self, one: int) -> None:
        """All that is left of one."""
        state = (int(self._at[one]), int(self._polygons[one]), int(self._rings[one]), bool(self._hole[one]))
        parts, broken = _walk(self._data, state, int(self._ends[one]), int(self._vertex_bytes[one]))
        self.damaged[self.rows[one]] |= broken
        if parts:
            starts, counts, holes = (np.array(part) for part in zip(*parts, strict=True))
            self._found.append((np.full(len(parts), self.rows[one]), starts, counts, holes))

    def rings(self) -> Rings:
        """What was found."""
        nothing = (np.zeros(0, np.int64),) * 3 + (np.zeros(0, bool),)
        rows, starts, counts, holes = (np.concatenate(part) for part in zip(nothing, *self._found, strict=True))
        return Rings(rows, starts, counts, holes, self.damaged)


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
    return vertices(data, positions)


def vertices(data: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """X and Y at any byte positions, (positions, 2) float64."""
    if len(positions) == 0:
        return np.zeros((0, 2), np.float64)
    # 16 opaque bytes at every byte position: NumPy copies such a "void" with no regard to alignment.
    pairs: NDArray[Any] = np.ndarray((len(data) - 15,), "V16", data, strides=(1,))
    return pairs[positions].view("<f8").reshape(-1, 2)


def promote_to_multi(array: Any) -> Any:
    """Single lines and polygons of an Arrow WKB array as their multi types; the rest as it is."""
    import pyarrow.compute as pc  # 0.05 s that only Shapefiles need

    column = column_of(array)
    codes = np.zeros(len(column.types), np.uint32)
    single = is_any_of(column.types, (2, 3))
    codes[single] = uint32(column.data, column.starts[single] + 1)
    for code in np.unique(codes[single]):
        prefix = struct.pack("<BII", 1, int(code) + 3, 1)
        empty = pa.scalar(b"", array.type)
        wrapped = pc.binary_join_element_wise(pa.scalar(prefix, array.type), array, empty)
        array = wrapped if (codes == code).all() else pc.if_else(pa.array(codes == code), wrapped, array)
    return array


def uint32(data: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Little-endian 32-bit numbers at any byte positions."""
    if len(positions) == 0:
        return np.zeros(0, np.uint32)
    numbers: NDArray[Any] = np.ndarray((len(data) - 3,), "V4", data, strides=(1,))
    return numbers[positions].view("<u4")


def values_of(array: Any) -> list[bytes | None]:
    """An Arrow binary array's values; `to_pylist` makes a second copy of each on its way."""
    column = column_of(array)
    places = zip(column.starts, column.sizes, array, strict=True)  # `array.is_valid()` would import `pyarrow.compute`
    return [column.data[at : at + size].tobytes() if each.is_valid else None for at, size, each in places]
