"""True length of lines: short edges by the middle-latitude formula with a bound of its error, the others by `pyproj.Geod`.

Lengths are of lines alone, as `ST_Length` has it in PostGIS: points and polygons have 0, a collection has its lines'. Edges are
geodesics between vertices, Z and M aside; across the antimeridian a geodesic takes the short way around.

With φ the middle latitude, N and M the radii of curvature there (Rapp, Geometric Geodesy I, 3.3): s² = (N cos φ Δλ)² + (M Δφ)².
On a sphere the term of fourth order is at most Δλ² (A sin²φ + 3 Δφ²)/12, A = cos²φ Δλ², so that s is off by at most Δλ²/8 of
itself; what the ellipsoid adds is below e² (Δφ² + A).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.vector import runs
from lib.vector.area import within
from lib.vector.exact import NotReadError, is_unread
from lib.vector.method import AreaMethod, Bounds, degrees_of
from lib.vector.runs import LINEAR, Runs
from lib.vector.wkb import Column, is_any_of

# Edges, radians: beyond, Geod measures them at once.
_LONGEST = 0.02
_SAFETY = 1.5
# Of each edge, m: what Geod's 15 nm and the rounding of coordinates come to.
_NOISE_M = 5e-8
_WITHOUT = ("Point", "MultiPoint", "Polygon", "MultiPolygon")


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a batch.

    Attributes:
        keep: rows to keep, (rows,) bool.
        without_length: rows that are null, empty or not finite.
        arbitrated: rows that were summed up edge by edge.
        damaged: rows whose bytes end before their vertices do.
        outside: rows among those without a length that have lines.
    """

    keep: NDArray[np.bool_]
    without_length: int
    arbitrated: int
    damaged: int
    outside: int


def decide(column: Column, method: AreaMethod, bounds: Bounds) -> Decision:
    """Which rows have a length within the bounds; near a bound Geod decides edge by edge."""
    found = runs.find_runs(column)
    has_vertices = np.zeros(len(column.sizes), bool)
    has_vertices[found.rows[found.counts > 0]] = True
    is_line = is_any_of(column.types, LINEAR)
    lines = runs.pieces(column, _only(found, is_line))
    keep, drop = within(*measure(column, lines, method), bounds)
    keep[~is_line] = bounds.holds(0.0)
    present = column.sizes > 0
    other = present & ~is_any_of(column.types, runs.SIMPLE)
    keep &= has_vertices | other
    unsure = (is_line & has_vertices & ~(keep | drop)) | other
    exact = {
        row: _exact(column, lines, row, method, is_other=bool(other[row])) for row in np.flatnonzero(unsure).tolist()
    }
    for row, length in exact.items():
        keep[row] = length is not None and bounds.holds(length)
    empty = sum(length is None for length in exact.values())
    outside = sum(length is not None and math.isnan(length) for length in exact.values())
    nowhere = int((~has_vertices & ~other).sum())
    return Decision(keep, nowhere + empty + outside, len(exact), int(found.damaged.sum()), outside)


def _only(found: Runs, rows: NDArray[np.bool_]) -> Runs:
    mine = rows[found.rows]
    return Runs(found.rows[mine], found.starts[mine], found.counts[mine], found.damaged)


def measure(column: Column, lines: Runs, method: AreaMethod) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lengths of all rows and the bounds of their errors, m, both (rows,) float64; not-a-number where nothing is known."""
    lengths, errors = np.zeros((2, len(column.sizes)))
    for part in runs.parts(lines.counts):
        xy = runs.coordinates(column, lines, part)
        if len(xy) < 2:  # noqa: PLR2004 - no edge
            continue
        rows = np.repeat(lines.rows[part], lines.counts[part])
        run = np.repeat(np.arange(part.stop - part.start), lines.counts[part])
        inner = run[1:] == run[:-1]
        length, error = _planar(xy, method.unit) if method.geod is None else _geodesic(xy, inner, method)
        lengths += np.bincount(rows[1:][inner], length[inner], len(lengths))
        errors += np.bincount(rows[1:][inner], error[inner], len(errors))
    return lengths, errors


def _planar(xy: NDArray[np.float64], metres: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    length = np.hypot(*np.diff(xy, axis=0).T) * metres
    return length, length * 1e-12


def _geodesic(
    xy: NDArray[np.float64], inner: NDArray[np.bool_], method: AreaMethod
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert method.geod is not None  # noqa: S101 - for mypy: geodesic methods have one
    squared = method.geod.es
    x, y = degrees_of(xy, method)
    with np.errstate(invalid="ignore"):
        longitude, latitude = np.radians(x), np.radians(y)
        wide, tall = np.diff(longitude), np.diff(latitude)
        middle = (latitude[1:] + latitude[:-1]) / 2
        sine, cosine = np.sin(middle), np.cos(middle)
        curved = 1 - squared * sine * sine
        across = (cosine * wide) ** 2
        length = np.sqrt(across + (tall * ((1 - squared) / curved)) ** 2) * (method.geod.a / np.sqrt(curved))
        error = length * (_SAFETY * (wide * wide / 8 + squared * (across + tall * tall))) + _NOISE_M
        far = inner & ~((np.abs(wide) <= _LONGEST) & (np.abs(tall) <= _LONGEST) & (np.abs(latitude[1:]) <= np.pi / 2))
    if far.any():
        at = np.flatnonzero(far)
        length[at] = _inverse(x[at], y[at], x[at + 1], y[at + 1], method)
        error[at] = length[at] * 1e-12 + _NOISE_M
    return length, error


def _inverse(x0: Any, y0: Any, x1: Any, y1: Any, method: AreaMethod) -> NDArray[np.float64]:
    """Lengths of geodesics, m; not-a-number where an end is no place on the ellipsoid."""
    assert method.geod is not None  # noqa: S101 - for mypy
    finite = np.isfinite(x0 + y0 + x1 + y1) & (np.abs(y0) <= 90) & (np.abs(y1) <= 90)  # noqa: PLR2004 - the poles
    found = np.full(len(finite), np.nan)
    found[finite] = method.geod.inv(x0[finite], y0[finite], x1[finite], y1[finite])[2]
    return found


def _exact(column: Column, lines: Runs, row: int, method: AreaMethod, *, is_other: bool) -> float | None:
    """One row's length edge by edge, m; None of an empty geometry."""
    if is_other:
        parts = _lines_of(column, row)
        if parts is None:
            return None
    else:
        parts = [runs.coordinates(column, lines, slice(each, each + 1)) for each in np.flatnonzero(lines.rows == row)]
    return math.fsum(_exact_run(xy, method) for xy in parts)


def _exact_run(xy: NDArray[np.float64], method: AreaMethod) -> float:
    if method.geod is None:
        return float((np.hypot(*np.diff(xy, axis=0).T) * method.unit).sum())
    x, y = degrees_of(xy, method)
    return float(_inverse(x[:-1], y[:-1], x[1:], y[1:], method).sum())


def _lines_of(column: Column, row: int) -> list[NDArray[np.float64]] | None:
    """The lines of a collection or of a geometry in another byte order, by way of shapely; None of an empty one."""
    import shapely

    start, size = int(column.starts[row]), int(column.sizes[row])
    try:
        geometry = shapely.from_wkb(column.data[start : start + size].tobytes())
        return None if geometry.is_empty else _flat(geometry, row)
    except (NotImplementedError, shapely.GEOSException) as error:
        if not is_unread(error):
            raise
        raise NotReadError(row) from error


def _flat(geometry: Any, row: int) -> list[NDArray[np.float64]]:
    """The vertices of each line; curves inside a collection are only met when they are looked at."""
    import shapely

    waiting, found = [geometry], []
    while waiting:
        part = waiting.pop()
        if part.geom_type in ("GeometryCollection", "MultiLineString"):
            waiting.extend(part.geoms)
        elif part.geom_type in ("LineString", "LinearRing"):
            found.append(shapely.get_coordinates(part))
        elif part.geom_type not in _WITHOUT:
            raise NotReadError(row)
    return found
