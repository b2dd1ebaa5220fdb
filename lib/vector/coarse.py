"""A coarse look at rings of few vertices: their areas and rigorous bounds of the errors, vertex by vertex over all rings at once.

In degrees a ring's area is that in the plane of longitude and latitude, times the area element at its first vertex. With t a
latitude less that vertex's, W the sum of |Δλ| and T the largest |t|, the area below an edge is linear in t but for a² f'(φ) t²/2:
at most a² C T² W/2 in all. The bend of the edges is bounded as in `area.py`, by the ring's largest. In a projection a
ring's area is that in the plane times what `distortion.py` knows of its first vertex. lib/MEASURED.md, "The area pass", has what
it saves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.vector.method import AreaMethod
from lib.vector.wkb import Column, Rings, vertices

# Edges: the bound's leading order holds to a few per cent below these.
_LONGEST_EDGE = 0.1
_POLE_DISTANCE_PER_EDGE = 20.0
SAFETY = 1.5
# What Geod itself is off by for short edges, m² an edge (an angle's rounding times the ellipsoid's a²: seen up to 5e-6).
GEOD_NOISE_SQM = 2e-5
# Of a projection: third order counts beyond.
_LONGEST_M = 100_000.0
# A step a vertex: of rings with more there are too few at once.
_MOST_VERTICES = 32

_Floats = NDArray[np.float64]


@dataclass(slots=True)
class _Extents:
    """Of each ring, all (rings,) in the CRS's units: twice its signed area, W, the widest edge, T; its first vertex."""

    doubled: _Floats
    width: _Floats
    widest: _Floats
    tallest: _Floats
    x: _Floats
    y: _Floats


def ring_areas(column: Column, rings: Rings, method: AreaMethod) -> tuple[_Floats, _Floats]:
    """Signed areas and error bounds of rings, m², both (rings,); the error is infinite where nothing is said."""
    areas, errors = np.zeros(len(rings.rows)), np.full(len(rings.rows), np.inf)
    short = np.flatnonzero((rings.counts <= _MOST_VERTICES) & (rings.counts > 0))
    of_each = _formula(method)
    if of_each is None or len(short) == 0:
        return areas, errors
    order = short[np.argsort(-rings.counts[short].astype(np.int16), kind="stable")]
    counts = rings.counts[order]
    found, is_closed = _walk(column, rings.starts[order], counts, 8 * column.dimensions[rings.rows[order]])
    with np.errstate(invalid="ignore", over="ignore"):  # infinite coordinates: the arbiter's
        areas[order], found_errors = of_each(found, counts, method)
    errors[order] = np.where(is_closed, found_errors, np.inf)
    return areas, errors


def _formula(method: AreaMethod) -> Callable[[_Extents, NDArray[np.int64], AreaMethod], tuple[_Floats, _Floats]] | None:
    if method.mode == "planar":
        return _planar
    if method.to_degrees is None:
        return _geodesic
    return _projected if method.distortion is not None else None


def _walk(
    column: Column, starts: NDArray[np.int64], counts: NDArray[np.int64], strides: NDArray[np.int64]
) -> tuple[_Extents, NDArray[np.bool_]]:
    """One vertex of every ring after the other; rings with most vertices come first. Also whether a ring ends where it began."""
    first = vertices(column.data, starts)
    x0, y0 = first[:, 0].copy(), first[:, 1].copy()
    x, tall = x0, np.zeros(len(counts))
    zeros = np.zeros((4, len(counts)))
    found = _Extents(zeros[0], zeros[1], zeros[2], zeros[3], x0, y0)
    left = len(counts) - np.searchsorted(counts[::-1], np.arange(int(counts[0]) + 1), "right")  # rings with more than j
    is_closed = np.ones(len(counts), bool)
    with np.errstate(invalid="ignore", over="ignore"):
        for j in range(1, int(counts[0])):
            some = int(left[j])
            starts = starts[:some] + strides[:some]
            xy = vertices(column.data, starts)
            now_x, now_tall = xy[:, 0].copy(), xy[:, 1] - y0[:some]
            _add(found, now_x - x[:some], now_tall + tall[:some], np.abs(now_tall), some)
            ending = slice(int(left[j + 1]), some)
            is_closed[ending] = (now_x[ending] == x0[ending]) & (now_tall[ending] == 0)
            x, tall = now_x, now_tall
    return found, is_closed


def _add(found: _Extents, wide: _Floats, heights: _Floats, tall: _Floats, some: int) -> None:
    """Take an edge of each of the first rings in; the arguments are used up."""
    heights *= wide
    found.doubled[:some] += heights
    np.abs(wide, out=wide)
    found.width[:some] += wide
    np.maximum(found.widest[:some], wide, out=found.widest[:some])
    np.maximum(found.tallest[:some], tall, out=found.tallest[:some])


def _planar(found: _Extents, counts: NDArray[np.int64], method: AreaMethod) -> tuple[_Floats, _Floats]:
    """The shoelace, and the rounding of it and of the arbiter's, many times over."""
    squared = method.unit * method.unit
    size = np.abs(found.x) + found.width + np.abs(found.y) + found.tallest
    return found.doubled * (0.5 * squared), (size * counts + found.width * found.tallest) * (1e-12 * squared)


def _projected(found: _Extents, counts: NDArray[np.int64], method: AreaMethod) -> tuple[_Floats, _Floats]:
    """Plane area by the scale at the first vertex; nothing is said of rings that are long, or leave the cells about that."""
    assert method.distortion is not None  # noqa: S101 - for mypy: it was asked before
    nothing = np.zeros(len(counts)), np.full(len(counts), np.inf)
    local = method.distortion.at(found.x, found.y)
    if local is None:
        return nothing
    half = found.width / 2  # a closed ring comes back
    tall = found.tallest
    long = np.hypot(found.widest, 2 * tall)
    spread = found.width * tall  # of plane, however the ring winds
    errors = (half + tall) * local.slope
    errors += local.off
    errors *= spread
    long_times = counts * long
    rounding = long_times * (4 * local.offset + 2e-12 * (np.abs(found.x) + np.abs(found.y)))
    rounding += 1e-12 * spread
    errors += rounding * local.scale
    long_times *= long
    long_times *= long
    errors += long_times * local.bend
    errors += counts * GEOD_NOISE_SQM
    is_small = np.maximum(half, tall) <= local.reach
    is_small &= local.scale * long * long <= _LONGEST_M**2
    errors[~(is_small & (local.bend < np.inf))] = np.inf
    return found.doubled * (0.5 * local.scale), errors


def _geodesic(found: _Extents, counts: NDArray[np.int64], method: AreaMethod) -> tuple[_Floats, _Floats]:
    assert method.geod is not None  # noqa: S101 - for mypy: geodesic methods have one
    squared, radius_sqm = method.geod.es, method.geod.a**2
    width, widest, tallest = (each * method.unit for each in (found.width, found.widest, found.tallest))
    sine = np.sin(found.y * method.unit)
    element = np.sqrt(1 - sine * sine) / (1 - squared * sine * sine) ** 2
    areas = found.doubled * element * (0.5 * method.unit**2 * radius_sqm * (1 - squared))
    height = 2 * tallest  # no edge is taller
    # C, then the bend, then rounding.
    errors = tallest * tallest * (radius_sqm * (1 + 4 * squared) / (1 - squared) ** 2 / 2)
    errors += (widest * widest + 3 * height * height) * (SAFETY * radius_sqm / 12)
    errors += tallest * (radius_sqm * 1e-12) + radius_sqm * 1e-15
    errors *= width
    errors += counts * GEOD_NOISE_SQM
    errors[~is_leading(widest, height, np.abs(found.y) * method.unit + tallest)] = np.inf
    return areas, errors


def is_leading(wide: _Floats, tall: _Floats, most: _Floats) -> NDArray[np.bool_]:
    """Edges of (|Δλ|, |Δφ|), radians, for which leading order is enough up to a latitude; not what is not a number."""
    to_pole = np.pi / 2 - most
    small: NDArray[np.bool_] = np.maximum(wide, tall) <= _LONGEST_EDGE
    small &= to_pole >= _POLE_DISTANCE_PER_EDGE * tall
    small &= to_pole > 0
    return small
