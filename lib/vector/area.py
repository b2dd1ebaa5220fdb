"""True area of polygons: a cheap approximation with a rigorous bound for the clear cases, an exact arbiter for the rest.

Geodesic areas are decided as `pyproj.Geod` would on properly oriented rings: |exterior| minus |holes|, whatever their
winding. The approximation takes each edge as straight in the equal-area cylindrical plane (longitude, authalic latitude's
sine). For an edge of (Δλ, Δφ) that differs from the geodesic by at most R²/12 · |Δλ| · |sin φ| · (cos²φ Δλ² + 3 Δφ²), to leading
order: the curve's bend in latitude, the bend of q(φ), and the convergence of meridians. Rings with an edge for which leading
order is not enough (longer than 0.1 rad, near a pole, across the antimeridian) go to the arbiter.

Before that a coarse look (`coarse.py`) settles most of small features at a fraction of the cost.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.vector.authalic import half_authalic
from lib.vector.coarse import GEOD_NOISE_SQM, SAFETY, is_leading, ring_areas
from lib.vector.exact import arbitrate, exact_areas
from lib.vector.method import AreaMethod, Bounds
from lib.vector.runs import LINE, MULTI_LINE, MULTI_POINT, POINT, VERTICES_AT_ONCE, find_runs, parts
from lib.vector.wkb import POLYGONAL, Column, Rings, find_rings, is_any_of, ring_coordinates, vertices

_FLAT = (POINT, LINE, MULTI_POINT, MULTI_LINE)
_RELATIVE_ERROR = 1e-9  # of an area that is written down


@dataclass(frozen=True, slots=True)
class _Decision:
    """What became of a batch.

    Attributes:
        keep: rows to keep, (rows,) bool.
        without_area: rows that are null, empty or not finite, so that they have no area.
        arbitrated: rows that the exact arbiter had to decide.
        damaged: rows whose bytes end before their rings do.
        outside: rows among those without an area that have rings: not finite, or where the CRS cannot be unprojected.
        wide: rows with an edge of 180° of longitude or more, which a geodesic takes the short way around.
    """

    keep: NDArray[np.bool_]
    without_area: int
    arbitrated: int
    damaged: int
    wide: int = 0
    outside: int = 0


def decide(column: Column, method: AreaMethod, bounds: Bounds) -> _Decision:
    """Which rows have an area within the bounds; near a bound the arbiter decides."""
    rings = find_rings(column)
    has_rings = np.zeros(len(column.sizes), bool)
    has_rings[rings.rows[rings.counts > 0]] = True
    keep, drop = within(*_by_rows(column, rings, *ring_areas(column, rings, method)), bounds)
    near = has_rings & ~(keep | drop)
    if near.any():
        fine = within(*measure(column, _of_rows(rings, near), method), bounds)
        keep[near], drop[near] = fine[0][near], fine[1][near]
    simple, other = _without_rings(column)
    keep[simple] = bounds.holds(0.0)
    unsure = (has_rings & ~(keep | drop)) | other
    nowhere = ~has_rings & ~simple & ~other
    keep[nowhere] = False
    keep[unsure] = False
    arbitrated = arbitrate(column, rings, method, np.flatnonzero(unsure), other) if unsure.any() else {}
    for row, (area, _) in arbitrated.items():
        keep[row] = bounds.holds(area)
    outside = sum(math.isnan(area) for area, _ in arbitrated.values())
    empty = int(unsure.sum()) - len(arbitrated)
    return _Decision(
        keep,
        without_area=int(nowhere.sum()) + empty + outside,
        arbitrated=len(arbitrated),
        damaged=int(rings.damaged.sum()),
        wide=sum(wide for _, wide in arbitrated.values()),
        outside=outside,
    )


def areas_of(column: Column, method: AreaMethod) -> tuple[NDArray[np.float64], int]:
    """Areas, m², (rows,) float64: the arbiter's, or within a billionth of them; not-a-number where there is none.

    And how many rows are damaged.
    """
    rings = find_rings(column)
    has_rings = np.zeros(len(column.sizes), bool)
    has_rings[rings.rows[rings.counts > 0]] = True
    simple, other = _without_rings(column)
    unsure = other
    if method.mode == "geodesic":  # the bend of edges alone is more than a billionth, of parcels too
        areas = exact_areas(column, rings, has_rings, method)
    else:
        areas, errors = measure(column, rings, method)
        unsure = (has_rings & ~(errors <= _RELATIVE_ERROR * areas)) | other
    areas[~(has_rings | simple)] = np.nan
    for row, (area, _) in arbitrate(column, rings, method, np.flatnonzero(unsure), other).items():
        areas[row] = area
    return areas, int(rings.damaged.sum())


def _without_rings(column: Column) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Points and lines that are not empty, whose area is 0; collections, surfaces and other byte orders: shapely's."""
    flat = is_any_of(column.types, _FLAT)
    other = (column.sizes > 0) & ~(flat | is_any_of(column.types, POLYGONAL))
    if not flat.any():
        return flat, other
    found, filled = find_runs(column, _FLAT), np.zeros(len(flat), bool)
    filled[found.rows[found.counts > 0]] = True
    return filled, other


def within(
    areas: NDArray[np.float64], errors: NDArray[np.float64], bounds: Bounds
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that are surely within the bounds, and those that surely are not, both (rows,) bool."""
    low = -np.inf if bounds.low is None else bounds.low
    high = np.inf if bounds.high is None else bounds.high
    least, most = areas - errors, areas + errors
    return (least >= low) & (most <= high), (most < low) | (least > high)


def _of_rows(rings: Rings, rows: NDArray[np.bool_]) -> Rings:
    mine = rows[rings.rows]
    return Rings(rings.rows[mine], rings.starts[mine], rings.counts[mine], rings.holes[mine], rings.damaged)


def measure(column: Column, rings: Rings, method: AreaMethod) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Approximate areas of all rows and the bounds of their errors, m², both (rows,) float64.

    An error is infinite or not a number where the approximation says nothing.
    """
    strides = 8 * column.dimensions[rings.rows]
    areas, errors = np.zeros(len(rings.rows)), np.zeros(len(rings.rows))
    for part in parts(rings.counts):
        _measure_part(column, rings, part, strides[part], method, areas[part], errors[part])
    errors[~_closed(column, rings, strides)] = np.inf
    return _by_rows(column, rings, areas, errors)


def _by_rows(
    column: Column, rings: Rings, areas: NDArray[np.float64], errors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exteriors less holes, whatever their windings, and the errors of all; both (rows,)."""
    rows, signed = len(column.sizes), np.abs(areas)
    np.negative(signed, out=signed, where=rings.holes)
    if not len(rings.rows):  # of nothing NumPy counts in integers
        return np.zeros(rows), np.zeros(rows)
    with np.errstate(invalid="ignore"):  # what is not finite: the arbiter's
        return np.bincount(rings.rows, signed, rows), np.bincount(rings.rows, errors, rows)


def _measure_part(
    column: Column,
    rings: Rings,
    part: slice,
    strides: NDArray[np.int64],
    method: AreaMethod,
    so_far: NDArray[np.float64],
    so_far_errors: NDArray[np.float64],
) -> None:
    """Add up what a part's rings have; a ring longer than a part is alone, taken in slices that share a vertex."""
    starts, counts = rings.starts[part], rings.counts[part]
    for first, last in _slices(counts):
        some = np.minimum(counts - first, last - first)
        areas, errors = _edges(ring_coordinates(column.data, starts + first * strides, some, strides), some, method)
        so_far += areas
        so_far_errors += errors


def _slices(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    longest = int(counts.max(initial=0))
    if len(counts) > 1 or longest <= VERTICES_AT_ONCE:
        return [(0, longest)]
    step = VERTICES_AT_ONCE - 1
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
    with np.errstate(invalid="ignore"):  # what is not finite: the arbiter's
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
    with np.errstate(invalid="ignore"):  # what is not finite: the arbiter's
        sine = np.sin(latitude)
        wide = longitude[1:] - longitude[:-1]
        half_q = half_authalic(sine, method.geod.es)
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
    error *= SAFETY * radius_sqm / 12
    error += wide * (1e-15 * radius_sqm)
    error += GEOD_NOISE_SQM
    error[~is_leading(wide, tall, np.maximum(latitude[1:], latitude[:-1]))] = np.inf
    return error
