"""The plain path: areas by shapely and `pyproj.Geod` feature by feature, and which rows an output must and must not have.

Slow and obvious on purpose: it shares with the engine the choice of method and ellipsoid, none of its approximation.
"""

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely

from lib.units import MIB
from lib.vector.casts import plain_values
from lib.vector.exact import is_unread
from lib.vector.method import AreaMethod, Bounds
from lib.vector.sources.facts import LayerFacts
from lib.vector.steps import Row, Step, UndecidedError, outcome
from lib.vector.wkb import NOT_READ, promote_to_multi, values_of

# Sums in another order differ in the last digits; nearer to a bound than this nothing is claimed.
_RELATIVE_TOLERANCE = 1e-9
_INTEGERS = {"OFTInteger", "OFTInteger64"}
# Of sampled geometries, which are kept until all of the output was read: a vertex, and shapely's and GEOS's objects.
_KEPT_BYTES, SAMPLED = 8 * MIB, 4096
_VERTEX_BYTES, _GEOMETRY_BYTES, _XY_BYTES = 24, 400, 16


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


def plain_length(geometry: Any, method: AreaMethod) -> float:
    """The length of a geometry's lines, m; not-a-number where it has none (null, empty)."""
    if geometry is None or geometry.is_empty:
        return math.nan
    if geometry.geom_type in ("GeometryCollection", "MultiLineString"):
        return sum(plain_length(part, method) for part in geometry.geoms if not part.is_empty)
    if geometry.geom_type not in ("LineString", "LinearRing"):
        return 0.0
    if method.geod is None:
        return float(shapely.length(geometry)) * method.unit
    x, y = shapely.get_coordinates(geometry).T
    if method.to_degrees is not None:
        x, y = method.to_degrees.transform(x, y)
    degrees = math.degrees(method.unit)
    return float(method.geod.line_length(x * degrees, y * degrees))


def near(area: float, bounds: Bounds) -> bool:
    """Whether an area or a length is so near a bound that the order of a sum decides."""
    return any(
        bound is not None and math.isclose(area, bound, rel_tol=_RELATIVE_TOLERANCE)
        for bound in (bounds.low, bounds.high)
    )


def row_digests(
    batch: Any, geometry_column: str | None, fields: list[str], *, promotes: bool = False, steps: Sequence[Step] = ()
) -> list[bytes]:
    """A digest of each row's geometry (of none where no column is named) and of the named attributes.

    Of the attributes as they are behind `steps` by their plain paths, where one of them changes values.
    """
    geometries: list[bytes | None] = [None] * batch.num_rows
    if geometry_column is not None:
        column = batch.column(batch.schema.get_field_index(geometry_column))
        geometries = (promote_to_multi(column) if promotes else column).to_pylist()
    columns = [plain_values(batch.column(batch.schema.get_field_index(name))) for name in fields]
    if not all(step.keeps_values for step in steps):
        columns = [list(each) for each in zip(*_values_behind(batch, fields, steps), strict=True)]
    return [
        hashlib.blake2b((geometry or b"") + repr(values).encode(), digest_size=8).digest()
        for geometry, *values in zip(geometries, *columns, strict=True)
    ]


def _values_behind(batch: Any, fields: list[str], steps: Sequence[Step]) -> list[list[Any]]:
    """The named attributes of each row behind the steps that change values; as they are where a row is dropped."""
    found = []
    for row in rows_of(batch, None):
        for step in steps:
            changed = None if step.keeps_values else step.reference(row)
            row = changed or row  # noqa: PLW2901 - the row itself, a step further
        found.append([row.values[name] for name in fields])
    return found


def comparable_fields(expected_fields: list[list[str]], found: dict[str, str], exact: Sequence[str]) -> list[str]:
    """Fields whose values are kept as they are, being of one of these types in source and output."""
    return [
        name
        for name, typed in expected_fields
        if typed in exact and (found.get(name) == typed or {found.get(name), typed} <= _INTEGERS)
    ]


def rows_of(batch: Any, geometry_column: str | None) -> list[Row]:
    """Rows of a batch as the plain path has them.

    Raises:
        shapely.GEOSException: bytes that are no geometry.
    """
    names = [name for name in batch.schema.names if name != geometry_column]
    columns = {name: plain_values(batch.column(name)) for name in names}
    none: list[bytes | None] = [None] * batch.num_rows
    raw = values_of(batch.column(geometry_column)) if geometry_column else none
    return [
        Row(dict(zip(names, values, strict=True)), geometry)
        for geometry, *values in zip(decoded(raw), *columns.values(), strict=True)
    ]


def kept_bytes(facts: LayerFacts) -> int:
    """What a `Membership` keeps at most of a layer's sampled geometries: all, or so much; at least the largest."""
    largest = _GEOMETRY_BYTES + facts.sizes.largest_bytes * _VERTEX_BYTES // _XY_BYTES
    return max(largest, min(_KEPT_BYTES, facts.at_most(SAMPLED) * largest))


@dataclass(slots=True)
class Membership:
    """Rows of sampled source batches, and whether the output has what becomes of them.

    A row is known by its digest; where steps change geometries that is one of its attributes, and of rows that have the same one
    is found whose geometry is as expected.

    Attributes:
        by_geometry: whether steps or the format change geometries.
        has_bounds: whether rows are known by their geometries' boxes, too: where steps change these they are not as sure.
        decimals: that the format rounds coordinates to; None where it keeps them.
        claims_dropped: whether a row that is dropped must not be there: no other may look like it.
        must: what the output lacks still, by key: the geometries expected, None where they are in the digest.
        must_not: digests of rows that are dropped, where that is claimed.
        rows: rows looked at, of those whose geometries have room.
        strangers: rows of the output that should have been dropped.
    """

    by_geometry: bool = False
    has_bounds: bool = False
    decimals: int | None = None
    claims_dropped: bool = True
    must: defaultdict[bytes, list[Any]] = field(default_factory=lambda: defaultdict(list))
    must_not: set[bytes] = field(default_factory=set)
    _lefts: dict[bytes, list[float]] = field(default_factory=dict)
    rows: int = 0
    strangers: int = 0
    _kept_bytes: int = 0

    def add(self, digests: list[bytes], rows: list[Row], steps: Sequence[Step]) -> None:
        """Take rows of the source in, with their digests; what the plain path does not decide is not claimed.

        Nor what comes when there is no more room for geometries: of one that is larger than that, the first is taken.
        """
        for digest, row in zip(digests, rows, strict=True):
            self.rows += 1
            try:
                found = outcome(steps, row)
            except UndecidedError:
                continue
            if found is not None:
                geometry = _unless_empty(found.geometry) if self.by_geometry else None
                size = (
                    0 if geometry is None else _GEOMETRY_BYTES + _VERTEX_BYTES * shapely.get_num_coordinates(geometry)
                )
                if self._kept_bytes and self._kept_bytes + size > _KEPT_BYTES:
                    self.rows -= 1
                    continue
                self._kept_bytes += size
                self.must[self._key(digest, geometry)].append(geometry)
            elif self.claims_dropped:
                self.must_not.add(digest)

    def see(self, digests: list[bytes], geometries: Any) -> None:
        """Take a batch of the output in; `geometries` are shapely's."""
        for digest, geometry in zip(digests, geometries, strict=True):
            self.strangers += digest in self.must_not
            known = _unless_empty(geometry) if self.by_geometry else None
            key = self._key(digest, known)
            if key in self.must:
                self._find(key, known)

    def _find(self, key: bytes, geometry: Any) -> None:
        """Strike one row out that is like this one; geometries by where they begin, as many may have the same attributes."""
        wanted = self.must[key]
        if not self.by_geometry:
            del wanted[:1]
            return
        if key not in self._lefts:
            wanted.sort(key=_left)
            self._lefts[key] = [_left(each) for each in wanted]
        lefts, left, far = self._lefts[key], _left(geometry), self._tolerance(geometry)
        for at in range(bisect_left(lefts, left - 2 * far), bisect_right(lefts, left + 2 * far)):
            if _alike(wanted[at], geometry, far):
                del wanted[at], lefts[at]
                return

    def _tolerance(self, geometry: Any) -> float:
        """How far a vertex of one that is alike may be: as far as sums in another order and the format's rounding go."""
        rounded = 0.0 if self.decimals is None else 10.0**-self.decimals
        return max(
            rounded, _RELATIVE_TOLERANCE * max(map(abs, () if geometry is None else geometry.bounds), default=0.0)
        )

    def _key(self, digest: bytes, geometry: Any) -> bytes:
        if not (self.by_geometry and self.has_bounds) or geometry is None:
            return digest
        bounds = geometry.bounds if self.decimals is None else (round(each, self.decimals) for each in geometry.bounds)
        return digest + repr([each + 0.0 for each in bounds]).encode()

    @property
    def missing(self) -> int:
        """Rows that the output lacks."""
        return sum(map(len, self.must.values()))


def _unless_empty(geometry: Any) -> Any:
    """A geometry, None for an empty one: a Shapefile's are null."""
    return None if geometry is None or geometry is NOT_READ or geometry.is_empty else geometry


def _left(geometry: Any) -> float:
    """The least x of a geometry; before all others where there is none."""
    return -math.inf if geometry is None else float(geometry.bounds[0])


def _alike(one: Any, other: Any, far: float) -> bool:
    """Whether two geometries have the same parts, no vertex farther off, whichever way rings turn."""
    if one is None or other is None:
        return one is other
    if any(abs(here - there) > far for here, there in zip(one.bounds, other.bounds, strict=True)):
        return False
    parts, others = shapely.get_parts(one), shapely.get_parts(other)
    if len(parts) != len(others):
        return False
    turned = shapely.orient_polygons(parts), shapely.orient_polygons(others)
    if shapely.equals_exact(*turned, far).all() or _are_turned(parts, others, far):
        return True
    # A Shapefile's parts come back in another order.
    return bool(
        shapely.equals_exact(
            shapely.GeometryCollection(list(parts)), shapely.GeometryCollection(list(others)), far, normalize=True
        )
    )


def _are_turned(parts: Any, others: Any, far: float) -> bool:
    """Whether polygons have the same rings, this way round or that, which of one that crosses itself GEOS does not know."""
    rings, of = shapely.get_rings(parts, return_index=True)
    theirs, of_theirs = shapely.get_rings(others, return_index=True)
    if set(of) != set(range(len(parts))) or not np.array_equal(of, of_theirs):
        return False  # there are others than polygons
    is_same = shapely.equals_exact(rings, theirs, far) | shapely.equals_exact(shapely.reverse(rings), theirs, far)
    return bool(is_same.all())
