"""True area of polygons: a cheap approximation with a rigorous bound for the clear cases, an exact arbiter for the rest.

Geodesic areas are decided as `pyproj.Geod` would on properly oriented rings: |exterior| minus |holes|, whatever their
winding. The approximation takes each edge as straight in the equal-area cylindrical plane (longitude, authalic latitude's
sine). For an edge of (Δλ, Δφ) that differs from the geodesic by at most R²/12 · |Δλ| · |sin φ| · (cos²φ Δλ² + 3 Δφ²), to leading
order: the curve's bend in latitude, the bend of q(φ), and the convergence of meridians. Rings with an edge for which leading
order is not enough (longer than 0.1 rad, near a pole, across the antimeridian) go to the arbiter.

Authalic latitude: Snyder, Map Projections: A Working Manual (USGS PP 1395), equation 3-12; its series in e² sin²φ.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from lib.errors import SourceError
from lib.vector.wkb import POLYGONAL, Column, Rings, find_rings, is_any_of, ring_coordinates, vertices

__all__ = ["AreaMethod", "Bounds", "Decision", "area_method", "decide", "exact_area", "measure"]

# Projections whose areas are wrong by more than a surveyor would accept, anywhere far from their standard parallel.
_NOT_FOR_AREAS = ("mercator", "pseudo mercator", "equidistant cylindrical", "miller cylindrical", "gall stereographic")
_BUT = ("transverse mercator", "oblique mercator", "cylindrical equal area")
# Edges: the bound's leading order holds to a few per cent below these.
_LONGEST_EDGE = 0.1
_POLE_DISTANCE_PER_EDGE = 20.0
_SAFETY = 1.5
# What Geod itself is off by for short edges, m² an edge (an angle's rounding times the ellipsoid's a²: seen up to 5e-6).
_GEOD_NOISE_SQM = 2e-5
_VERTICES_AT_ONCE = 32_768
_HALF_TURN = math.pi * (1 - 1e-12)
_SERIES_TERMS = 8


@dataclass(frozen=True, slots=True)
class AreaMethod:
    """How areas in one CRS are measured.

    Attributes:
        mode: "geodesic" or "planar".
        unit: what a coordinate unit is in radians (geodesic) or metres (planar).
        geod: the ellipsoid, for geodesic areas.
        to_degrees: projected coordinates to longitude and latitude in degrees, where needed.
    """

    mode: Literal["geodesic", "planar"]
    unit: float
    geod: Geod | None = None
    to_degrees: Transformer | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Areas that are kept: `low <= area <= high`, m²; None where open."""

    low: float | None
    high: float | None

    def holds(self, area: float) -> bool:
        """Whether one area lies within; not-a-number does not."""
        return (
            (self.low is None or area >= self.low) and (self.high is None or area <= self.high) and not math.isnan(area)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a batch.

    Attributes:
        keep: rows to keep, (rows,) bool.
        without_area: rows that are null, empty or not finite, so that they have no area.
        arbitrated: rows that the exact arbiter had to decide.
        damaged: rows whose bytes end before their rings do.
        wide: rows with an edge of 180° of longitude or more, which a geodesic takes the short way around.
    """

    keep: NDArray[np.bool_]
    without_area: int
    arbitrated: int
    damaged: int
    wide: int = 0


def area_method(crs_text: str | None, wanted: Literal["auto", "geodesic", "planar"], label: str) -> AreaMethod:
    """How areas are measured in a CRS.

    `auto` is planar for projected CRSs, with their linear unit, but geodesic for the Mercator family, whose areas are
    wrong by a factor of 1/cos² of the latitude.

    Raises:
        SourceError: there is no CRS, or none in which an area means anything.
    """
    if not crs_text:
        raise SourceError(
            f"{label} has no CRS, so its areas are unknown",
            hint="assign one: ogr2ogr -a_srs EPSG:… fixed.gpkg SOURCE",
        )
    crs = _horizontal(CRS.from_user_input(crs_text))
    if crs.is_geographic:
        if wanted == "planar":
            raise SourceError(f"{label} is in degrees ({crs.name}): it has no planar area", hint="use --area geodesic")
        return AreaMethod("geodesic", crs.axis_info[0].unit_conversion_factor, crs.get_geod())
    if crs.is_geocentric or not crs.axis_info:
        raise SourceError(
            f"{label}: areas have no meaning in its CRS ({crs.name})", hint="reproject it: ogr2ogr -t_srs"
        )
    base = crs.geodetic_crs
    if wanted == "geodesic" or (wanted == "auto" and base is not None and _is_not_for_areas(crs)):
        if base is None:
            raise SourceError(f"{label}: its CRS ({crs.name}) has no ellipsoid", hint="use --area planar")
        degrees = Transformer.from_crs(crs, base, always_xy=True)
        return AreaMethod("geodesic", base.axis_info[0].unit_conversion_factor, crs.get_geod(), degrees)
    return AreaMethod("planar", crs.axis_info[0].unit_conversion_factor)


def _horizontal(crs: CRS) -> CRS:
    if crs.is_bound and crs.source_crs is not None:
        crs = crs.source_crs
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    return crs


def _is_not_for_areas(crs: CRS) -> bool:
    operation = crs.coordinate_operation
    name = (operation.method_name if operation else "").lower()
    return any(word in name for word in _NOT_FOR_AREAS) and not any(word in name for word in _BUT)


def decide(column: Column, method: AreaMethod, bounds: Bounds) -> Decision:
    """Which rows have an area within the bounds; near a bound the arbiter decides."""
    rings = find_rings(column)
    areas, errors = measure(column, rings, method)
    has_rings = np.zeros(len(areas), bool)
    has_rings[rings.rows[rings.counts > 0]] = True
    low = -np.inf if bounds.low is None else bounds.low
    high = np.inf if bounds.high is None else bounds.high
    keep = (areas - errors >= low) & (areas + errors <= high)
    drop = (areas + errors < low) | (areas - errors > high)
    # Points and lines have area 0; collections, surfaces and other byte orders are for shapely.
    present = column.sizes > 0
    simple = is_any_of(column.types, (1, 2, 4, 5)) & present
    keep[simple] = bounds.holds(0.0)
    other = present & ~(simple | is_any_of(column.types, POLYGONAL))
    unsure = (has_rings & ~(keep | drop)) | other
    nowhere = ~has_rings & ~simple & ~other
    keep[nowhere] = False
    keep[unsure] = False
    arbitrated = _arbitrate(column, rings, method, np.flatnonzero(unsure), other) if unsure.any() else {}
    for row, (area, _) in arbitrated.items():
        keep[row] = bounds.holds(area)
    return Decision(
        keep,
        without_area=int(nowhere.sum()) + sum(math.isnan(area) for area, _ in arbitrated.values()),
        arbitrated=len(arbitrated),
        damaged=int(rings.damaged.sum()),
        wide=sum(wide for _, wide in arbitrated.values()),
    )


def _arbitrate(
    column: Column, rings: Rings, method: AreaMethod, unsure: NDArray[np.int64], other: NDArray[np.bool_]
) -> dict[int, tuple[float, bool]]:
    """The exact area, m², of each row that is unsure, and whether it is wide; of `other` rows shapely knows the polygons."""
    order = np.argsort(rings.rows, kind="stable")
    edges = np.searchsorted(rings.rows[order], np.arange(len(column.sizes) + 1))
    found = {}
    for row in unsure.tolist():
        mine = order[edges[row] : edges[row + 1]]
        whose = _polygons_of(column, row) if other[row] else (column, rings, mine)
        found[row] = exact_area(*whose, method), _is_wide(*whose, method)
    return found


def measure(column: Column, rings: Rings, method: AreaMethod) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Approximate areas of all rows and the bounds of their errors, m², both (rows,) float64.

    An error is infinite or not a number where the approximation says nothing.
    """
    strides = 8 * column.dimensions[rings.rows]
    ring_areas, ring_errors = np.zeros(len(rings.rows)), np.zeros(len(rings.rows))
    for part in _parts(rings.counts):
        _measure_part(column, rings, part, strides[part], method, ring_areas[part], ring_errors[part])
    closed = _closed(column, rings, strides)
    ring_errors[~closed] = np.inf
    signs = np.where(rings.holes, -1.0, 1.0)
    rows = len(column.sizes)
    areas = np.bincount(rings.rows, signs * np.abs(ring_areas), rows).astype(np.float64, copy=False)
    return areas, np.bincount(rings.rows, ring_errors, rows).astype(np.float64, copy=False)


def _measure_part(
    column: Column,
    rings: Rings,
    part: slice,
    strides: NDArray[np.int64],
    method: AreaMethod,
    ring_areas: NDArray[np.float64],
    ring_errors: NDArray[np.float64],
) -> None:
    """Add up what a part's rings have; a ring longer than a part is alone, taken in slices that share a vertex."""
    starts, counts = rings.starts[part], rings.counts[part]
    for first, last in _slices(counts):
        some = np.minimum(counts - first, last - first)
        areas, errors = _edges(ring_coordinates(column.data, starts + first * strides, some, strides), some, method)
        ring_areas += areas
        ring_errors += errors


def _parts(counts: NDArray[np.int64]) -> list[slice]:
    """Consecutive rings that together have at most `_VERTICES_AT_ONCE` vertices; a longer ring is alone."""
    ends = np.cumsum(counts)
    parts, at = [], 0
    while at < len(counts):
        done = int(ends[at - 1]) if at else 0
        stop = max(at + 1, int(np.searchsorted(ends, done + _VERTICES_AT_ONCE, "right")))
        parts.append(slice(at, stop))
        at = stop
    return parts


def _slices(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    longest = int(counts.max(initial=0))
    if len(counts) > 1 or longest <= _VERTICES_AT_ONCE:
        return [(0, longest)]
    step = _VERTICES_AT_ONCE - 1
    return [(first, min(first + step + 1, longest)) for first in range(0, longest - 1, step)]


def _closed(column: Column, rings: Rings, strides: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each ring's last vertex is its first; empty rings are."""
    some = np.flatnonzero(rings.counts)
    starts = rings.starts[some]
    first = vertices(column.data, starts)
    last = vertices(column.data, starts + (rings.counts[some] - 1) * strides[some])
    closed = np.ones(len(rings.rows), bool)
    closed[some] = (first[:, 0] == last[:, 0]) & (first[:, 1] == last[:, 1])
    return closed


def _edges(xy: NDArray[np.float64], counts: NDArray[np.int64], method: AreaMethod) -> tuple[NDArray[Any], NDArray[Any]]:
    """Signed areas and error bounds of runs of vertices, one run a ring, m²."""
    if len(xy) == 0:
        return np.zeros(len(counts)), np.zeros(len(counts))
    if method.mode == "planar":
        area, error = _planar(xy, method.unit)
    else:
        area, error = _geodesic(xy, method)
    return _ring_sums(area, error, counts)


def _ring_sums(
    area: NDArray[np.float64], error: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Edges summed ring by ring; no edge leads from one ring to the next."""
    if len(area) == 0:
        return np.zeros(len(counts)), np.zeros(len(counts))
    ends = np.cumsum(counts)
    between = ends[:-1][ends[:-1] <= len(area)] - 1
    between = between[between >= 0]
    area[between] = error[between] = 0
    starts = np.minimum(ends - counts, len(area) - 1)
    areas, errors = np.add.reduceat(area, starts), np.add.reduceat(error, starts)
    empty = counts < 2  # noqa: PLR2004 - an edge needs two vertices
    areas[empty] = errors[empty] = 0
    return areas, errors


def _planar(xy: NDArray[np.float64], metres: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    step = np.diff(xy[:, 0])
    height = xy[1:, 1] + xy[:-1, 1]
    area = step * height * (0.5 * metres * metres)
    # The rounding of a product and of a long sum, many times over.
    return area, np.abs(area) * 1e-12 + (np.abs(height) + np.abs(xy[1:, 0])) * (1e-12 * metres * metres)


def _geodesic(xy: NDArray[np.float64], method: AreaMethod) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert method.geod is not None  # noqa: S101 - for mypy: geodesic methods have one
    x, y = xy[:, 0], xy[:, 1]
    if method.to_degrees is not None:
        x, y = method.to_degrees.transform(x, y)
    longitude, latitude = x * method.unit, y * method.unit
    sine = np.sin(latitude)
    wide = longitude[1:] - longitude[:-1]
    half_q = _half_authalic(sine, method.geod.es)
    area = half_q[1:] + half_q[:-1]
    area *= wide
    area *= 0.5 * method.geod.a**2
    return area, _bend(wide, latitude, sine, method.geod.a**2)


def _bend(
    wide: NDArray[np.float64], latitude: NDArray[np.float64], sine: NDArray[np.float64], radius_sqm: float
) -> NDArray[np.float64]:
    """The bound of each edge's error, m² (the module's docstring has its formula); its arguments are used up."""
    tall = latitude[1:] - latitude[:-1]
    for each in (wide, tall, sine, latitude):
        np.abs(each, out=each)
    error = np.minimum(sine[1:], sine[:-1])
    error *= error
    np.subtract(1, error, out=error)
    error *= wide * wide
    error += 3 * tall * tall
    error *= np.maximum(sine[1:], sine[:-1]) + tall
    error *= wide
    error *= _SAFETY * radius_sqm / 12
    error += wide * (1e-15 * radius_sqm)
    error += _GEOD_NOISE_SQM
    error[~_is_leading(wide, tall, np.maximum(latitude[1:], latitude[:-1]))] = np.inf
    return error


def _is_leading(wide: NDArray[np.float64], tall: NDArray[np.float64], most: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Edges for which leading order is enough; what is not a number is not among them."""
    to_pole = math.pi / 2 - most
    small = np.maximum(wide, tall) <= _LONGEST_EDGE
    small &= to_pole >= _POLE_DISTANCE_PER_EDGE * tall
    small &= to_pole > 0
    return small


def _half_authalic(sine: NDArray[np.float64], eccentricity_squared: float) -> NDArray[np.float64]:
    """Half of q(φ), (1-e²) sin φ Σ xᵏ (1 + 1/(2k+1)) / 2 with x = e² sin²φ; the area element is a² dλ d(q/2)."""
    x = sine * sine
    x *= eccentricity_squared
    total = np.full_like(x, (1 + 1 / (2 * _SERIES_TERMS + 1)) / 2)
    for k in range(_SERIES_TERMS - 1, -1, -1):
        total *= x
        total += (1 + 1 / (2 * k + 1)) / 2
    total *= sine
    total *= 1 - eccentricity_squared
    return total


def exact_area(column: Column, rings: Rings, mine: NDArray[np.int64], method: AreaMethod) -> float:
    """The area of one row from its rings by the arbiter: Geod, or the shoelace about the ring's own first vertex; m²."""
    total = 0.0
    for ring in mine:
        area = _exact_ring(_one_ring(column, rings, ring), method)
        total += -area if rings.holes[ring] else area
    return total


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
    x, y = xy[:, 0], xy[:, 1]
    if method.to_degrees is not None:
        x, y = method.to_degrees.transform(x, y)
    degrees = math.degrees(method.unit)
    return abs(float(method.geod.polygon_area_perimeter(x * degrees, y * degrees)[0]))


def _polygons_of(column: Column, row: int) -> tuple[Column, Rings, NDArray[np.int64]]:
    """The polygons of a collection or of a geometry in another byte order, by way of shapely."""
    import pyarrow as pa
    import shapely

    from lib.vector.wkb import column_of

    start, size = int(column.starts[row]), int(column.sizes[row])
    parts: list[Any] = [shapely.from_wkb(column.data[start : start + size].tobytes())]
    polygons = []
    while parts:
        part = parts.pop()
        if part.geom_type == "GeometryCollection":
            parts.extend(part.geoms)
        elif part.geom_type in ("Polygon", "MultiPolygon"):
            polygons.append(shapely.to_wkb(part, byte_order=1, output_dimension=2))
    plain = column_of(pa.array(polygons, pa.binary()))
    rings = find_rings(plain)
    return plain, rings, np.arange(len(rings.rows))
