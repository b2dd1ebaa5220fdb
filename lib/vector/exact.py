"""The arbiter: a row's area as `pyproj.Geod` has it, or by the shoelace about each ring's own first vertex."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.vector.method import AreaMethod, degrees_of
from lib.vector.runs import parts
from lib.vector.wkb import SURFACES, Column, Rings, column_of, find_rings, ring_coordinates

_WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "LinearRing", "MultiLineString")
_HALF_TURN = math.pi * (1 - 1e-12)


class NotReadError(Exception):
    """A row has a geometry inside that GEOS does not read: a curve or a surface.

    Attributes:
        row: its number in the batch.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} has curves or surfaces inside")
        self.row = row


def is_unread(error: Exception) -> bool:
    """Whether GEOS refused WKB for its type, a curve's or a surface's, and not for damage."""
    words = str(error)
    return "Nonlinear geometry" in words or any(words.endswith(f"Unknown WKB type {code}") for code in SURFACES)


def arbitrate(
    column: Column, rings: Rings, method: AreaMethod, unsure: NDArray[np.int64], other: NDArray[np.bool_]
) -> dict[int, tuple[float, bool]]:
    """The exact area, m², of each row that is unsure, and whether it is wide; of `other` rows shapely knows the polygons.

    Of those that are empty nothing.
    """
    order = np.argsort(rings.rows, kind="stable")
    edges = np.searchsorted(rings.rows[order], np.arange(len(column.sizes) + 1))
    found = {}
    for row in unsure.tolist():
        mine = order[edges[row] : edges[row + 1]]
        whose = _polygons_of(column, row) if other[row] else (column, rings, mine)
        if whose is None:
            continue
        found[row] = exact_area(*whose, method), _is_wide(*whose, method)
    return found


def exact_area(column: Column, rings: Rings, mine: NDArray[np.int64], method: AreaMethod) -> float:
    """The area of one row from its rings by the arbiter: Geod, or the shoelace about the ring's own first vertex; m²."""
    total = 0.0
    for ring in mine:
        area = _exact_ring(_one_ring(column, rings, ring), method)
        total += -area if rings.holes[ring] else area
    return total


def exact_areas(column: Column, rings: Rings, rows: NDArray[np.bool_], method: AreaMethod) -> NDArray[np.float64]:
    """Likewise on the ellipsoid of all rows of a mask, (rows,) float64; 0 of the others.

    Vertices of many rings are read and unprojected at once: 7 us a parcel, one by one 58 (lib/MEASURED.md, "Areas written down").
    """
    assert method.geod is not None  # noqa: S101 - for mypy: geodesic methods have one
    mine = np.flatnonzero(rows[rings.rows] & (rings.counts > 0))
    found = np.zeros(len(mine))
    for part in parts(rings.counts[mine]):
        some = mine[part]
        counts = rings.counts[some]
        xy = ring_coordinates(column.data, rings.starts[some], counts, 8 * column.dimensions[rings.rows[some]])
        x, y = degrees_of(xy, method)
        edges = pairwise([0, *np.cumsum(counts).tolist()])
        found[part] = [abs(method.geod.polygon_area_perimeter(x[at:end], y[at:end])[0]) for at, end in edges]
    found[rings.holes[mine]] *= -1
    return np.bincount(rings.rows[mine], found, len(rows)).astype(np.float64)  # of none it gives integers


def _one_ring(column: Column, rings: Rings, ring: Any) -> NDArray[np.float64]:
    one = slice(ring, ring + 1)
    return ring_coordinates(column.data, rings.starts[one], rings.counts[one], 8 * column.dimensions[rings.rows[one]])


def _is_wide(column: Column, rings: Rings, mine: NDArray[np.int64], method: AreaMethod) -> bool:
    """Whether an edge of one row spans 180° of longitude or more."""
    if method.mode == "planar":
        return False
    for ring in mine:
        xy = _one_ring(column, rings, ring)
        x = xy[:, 0] if method.to_degrees is None else method.to_degrees.transform(xy[:, 0], xy[:, 1])[0]
        with np.errstate(invalid="ignore"):  # infinite coordinates, which have no area either
            if (np.abs(np.diff(x)) * method.unit >= _HALF_TURN).any():
                return True
    return False


def _exact_ring(xy: NDArray[np.float64], method: AreaMethod) -> float:
    if len(xy) == 0:
        return 0.0
    if method.mode == "planar":
        near = xy - xy[0]
        cross = near[:-1, 0] * near[1:, 1] - near[1:, 0] * near[:-1, 1]
        return abs(float(cross.sum())) * 0.5 * method.unit**2
    assert method.geod is not None  # noqa: S101 - for mypy
    return abs(float(method.geod.polygon_area_perimeter(*degrees_of(xy, method))[0]))


def _polygons_of(column: Column, row: int) -> tuple[Column, Rings, NDArray[np.int64]] | None:
    """The polygons of a collection or of a geometry in another byte order, by way of shapely; None where that is empty."""
    import pyarrow as pa
    import shapely

    start, size = int(column.starts[row]), int(column.sizes[row])
    polygons: list[bytes] = []
    try:
        whole = shapely.from_wkb(column.data[start : start + size].tobytes())
        if whole.is_empty:
            return None
        parts: list[Any] = [whole]
        while parts:
            part = parts.pop()
            if part.geom_type == "GeometryCollection":
                parts.extend(part.geoms)
            elif part.geom_type in ("Polygon", "MultiPolygon"):
                polygons.append(shapely.to_wkb(part, byte_order=1, output_dimension=2))
            elif part.geom_type not in _WITHOUT_AREA:
                raise NotReadError(row)
    except (NotImplementedError, shapely.GEOSException) as error:
        if not is_unread(error):
            raise
        raise NotReadError(row) from error
    plain = column_of(pa.array(polygons, pa.binary()))
    rings = find_rings(plain)
    return plain, rings, np.arange(len(rings.rows))
