"""The plain path: areas by shapely and `pyproj.Geod` feature by feature, and which rows an output must and must not have.

Slow and obvious on purpose: it shares with the engine the choice of method and ellipsoid, none of its approximation.
"""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely

from lib.vector.exact import is_unread
from lib.vector.method import AreaMethod, Bounds
from lib.vector.wkb import NOT_READ, promote_to_multi

# Sums in another order differ in the last digits; nearer to a bound than this nothing is claimed.
_RELATIVE_TOLERANCE = 1e-9
_SIMPLE_TYPES = ("OFTInteger", "OFTInteger64", "OFTReal", "OFTString")


def decoded(values: list[bytes | None]) -> Any:
    """Geometries of WKB values, None for null and `NOT_READ` for curves and surfaces, (values,) objects.

    Raises:
        shapely.GEOSException: bytes that are no geometry.
    """
    try:
        return shapely.from_wkb(values)
    except (NotImplementedError, shapely.GEOSException) as error:
        if not is_unread(error):
            raise
        if len(values) == 1:
            return np.array([NOT_READ], object)
        return np.concatenate([decoded([value]) for value in values])


def plain_area(geometry: Any, method: AreaMethod) -> float:
    """A geometry's area, m²; not-a-number where it has none (null, empty)."""
    if geometry is None or geometry.is_empty:
        return math.nan
    if method.mode == "planar":
        return float(shapely.area(geometry)) * method.unit**2
    return sum(_geodesic_area(polygon, method) for polygon in _polygons(geometry))


def _geodesic_area(polygon: Any, method: AreaMethod) -> float:
    """|exterior| minus |holes| by Geod, m², whatever their windings.

    By arrays and in place: Geod.geometry_area_perimeter makes some 400 bytes of Python objects of each vertex.
    """
    xy = shapely.get_coordinates(polygon)  # the exterior's first, then hole by hole
    holes = range(shapely.get_num_interior_rings(polygon))
    inner = [shapely.get_num_coordinates(shapely.get_interior_ring(polygon, hole)) for hole in holes]
    if method.to_degrees is not None:
        xy[:, 0], xy[:, 1] = method.to_degrees.transform(xy[:, 0], xy[:, 1])
    xy *= math.degrees(method.unit)
    starts = len(xy) - np.cumsum(inner[::-1], dtype=np.int64)[::-1]
    exterior, *others = (_ring_area(ring, method) for ring in np.split(xy, starts))
    return abs(exterior - sum(others))


def _ring_area(degrees: Any, method: AreaMethod) -> float:
    assert method.geod is not None  # noqa: S101 - for mypy: geodesic methods have one
    return abs(float(method.geod.polygon_area_perimeter(degrees[:, 0], degrees[:, 1])[0]))


def _polygons(geometry: Any) -> list[Any]:
    if geometry.geom_type in ("MultiPolygon", "GeometryCollection"):
        return [polygon for part in geometry.geoms for polygon in _polygons(part)]
    return [geometry] if geometry.geom_type == "Polygon" else []


def near(area: float, bounds: Bounds) -> bool:
    """Whether an area is so near a bound that the order of a sum decides."""
    return any(
        bound is not None and math.isclose(area, bound, rel_tol=_RELATIVE_TOLERANCE)
        for bound in (bounds.low, bounds.high)
    )


def row_digests(batch: Any, geometry_column: str, fields: list[str], *, promotes: bool) -> list[bytes]:
    """A digest of each row's geometry and of the named attributes."""
    geometries = batch.column(batch.schema.get_field_index(geometry_column))
    if promotes:
        geometries = promote_to_multi(geometries)
    columns = [batch.column(batch.schema.get_field_index(name)).to_pylist() for name in fields]
    return [
        hashlib.blake2b((geometry or b"") + repr(values).encode(), digest_size=8).digest()
        for geometry, *values in zip(geometries.to_pylist(), *columns, strict=True)
    ]


def comparable_fields(expected_fields: list[list[str]], found: dict[str, str]) -> list[str]:
    """Fields whose values every format keeps as they are."""
    return [name for name, typed in expected_fields if typed in _SIMPLE_TYPES and found.get(name) == typed]


@dataclass(slots=True)
class Membership:
    """Rows of sampled source batches, and whether the output has them.

    Attributes:
        must: digests of rows that satisfy the predicate, with how often the output lacks them still.
        must_not: digests of rows that do not.
        rows: rows looked at.
        strangers: rows of the output that do not satisfy it.
    """

    must: Counter[bytes] = field(default_factory=Counter)
    must_not: set[bytes] = field(default_factory=set)
    rows: int = 0
    strangers: int = 0

    def add(self, digests: list[bytes], verdicts: list[bool | None]) -> None:
        """Take a source batch in: its rows' digests, and what the plain path says of each; None where it does not decide."""
        self.rows += len(digests)
        for digest, verdict in zip(digests, verdicts, strict=True):
            if verdict:
                self.must[digest] += 1
            elif verdict is not None:
                self.must_not.add(digest)

    def see(self, digests: list[bytes]) -> None:
        """Take a batch of the output in."""
        for digest in digests:
            if self.must.get(digest, 0) > 0:
                self.must[digest] -= 1
            self.strangers += digest in self.must_not

    @property
    def missing(self) -> int:
        """Rows that the output lacks."""
        return sum(self.must.values())
