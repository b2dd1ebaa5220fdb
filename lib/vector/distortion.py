"""How a projection's plane lies on its ellipsoid: true area by plane area and the bend of edges, sampled on a lattice.

With F = (λ, q/2) of a place in the plane (`authalic.py` has q), true area is a² |det F'| times plane area. An edge is the
geodesic between its unprojected ends; of plane length L it differs from the straight line in the plane by at most L³ times a
bend: a²/12 times the cross product of F's first and second derivative along u, for the line against the chord of F, in the
direction u where that is most; and the formula of `area.py` for that chord against the geodesic. Both are taken by differences at
the lattice's nodes. Between nodes area is interpolated; what second differences show that this leaves out is added to the error,
and so is what unprojecting and projecting again is off by. lib/MEASURED.md, "Areas in a projection", has what it costs.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pyproj import Geod, Transformer

from lib.vector.authalic import half_authalic

_Floats = NDArray[np.float64]

_CELLS = 18  # along each edge; the outermost are there for rings that reach into them
_LEAST_CELL_M, _DIFFERENCE_M = 20_000.0, 2_000.0
_SAFETY = 2.0
# Of differences over 2 km, unprojected to 1e-10 radians as by the worst of PROJ's inverses.
_NOISE = 2e-6
_MOST_OFF_M = 0.1
# Of a batch's vertices the outermost few do not decide how wide the lattice is.
_OUTLIERS, _SEEN = 0.005, 2000
# A lattice so many times as coarse as a batch needs is made anew.
_COARSE = 4
# The centre and its neighbours, in differences.
_STENCIL = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1)], np.float64)
_NOTHING = [[0.0], [0.0], [0.0], [0.0], [0.0], [math.inf]]
_DIRECTIONS = np.arange(8) * (math.pi / 8)


@dataclass(frozen=True, slots=True)
class Local:
    """What holds about places; the arrays are all (places,).

    Attributes:
        scale: m² of true area by square unit of the plane.
        slope: by how much that changes by unit of x or y, at most, as far as a cell away.
        off: how far `scale` may be off.
        bend: m² by cubed unit of an edge; infinite where nothing is known.
        offset: how far off unprojected places may be, units of the plane.
        reach: the size of a cell, units of the plane.
    """

    scale: _Floats
    slope: _Floats
    off: _Floats
    bend: _Floats
    offset: float
    reach: float


@dataclass(frozen=True, slots=True)
class _Lattice:
    """Square cells, `cell` units wide from `corner`, (2,), on.

    `table` has of each cell, row after row, and of what is outside, the scale as a plane (at the cell's corner, its change along
    x and y) and `Local`'s slope, off and bend, (6, cells * cells + 1).
    """

    corner: _Floats
    cell: float
    table: _Floats
    offset: float

    def serves(self, low: _Floats, high: _Floats, cell: float) -> bool:
        """Whether a box lies within, and would not be worth much smaller cells."""
        inner, outer = self.corner + self.cell, self.corner + (_CELLS - 1) * self.cell
        return bool((inner <= low).all() and (high <= outer).all() and self.cell <= _COARSE * cell)

    def at(self, x: _Floats, y: _Floats) -> Local:
        """What holds at places; nothing is known outside."""
        fx, fy = (x - self.corner[0]) / self.cell, (y - self.corner[1]) / self.cell
        inside = (np.minimum(fx, fy) >= 1) & (np.maximum(fx, fy) < _CELLS - 1)
        if not inside.all():
            fx, fy = np.where(inside, fx, 1.0), np.where(inside, fy, 1.0)
        i, j = fx.astype(np.intp), fy.astype(np.intp)
        fx -= i
        fy -= j
        i *= _CELLS
        i += j
        i[~inside] = _CELLS * _CELLS
        scale, along_x, along_y, slope, off, bend = (row.take(i, mode="clip") for row in self.table)
        scale += along_x * fx
        scale += along_y * fy
        return Local(scale, slope, off, bend, self.offset, self.cell)


class Distortion:
    """A projection's, sampled where it is asked for: one lattice, which serves the next batch where that lies within."""

    def __init__(self, to_degrees: Transformer, geod: Geod, radians: float, metres: float) -> None:
        """Of a projection.

        Args:
            to_degrees: from the plane to longitude and latitude.
            geod: the ellipsoid.
            radians: what a unit of longitude is.
            metres: what a unit of the plane is.
        """
        self._to_degrees, self._geod, self._radians, self._metres = to_degrees, geod, radians, metres
        self._lattice: _Lattice | None = None

    def at(self, x: _Floats, y: _Floats) -> Local | None:
        """What holds at places; None where none is finite."""
        low, high = (np.array(pair) for pair in zip(_range(x), _range(y), strict=True))
        if not (np.isfinite(low) & np.isfinite(high)).all():
            return None
        # Half as wide again: the next batch is likely near.
        cell = max(1.5 * float((high - low).max()) / (_CELLS - 2), _LEAST_CELL_M / self._metres)
        if self._lattice is None or not self._lattice.serves(low, high, cell):
            with np.errstate(all="ignore"):
                self._lattice = self._sampled((low + high) / 2 - cell * (_CELLS / 2), cell)
        return self._lattice.at(x, y)

    def _sampled(self, corner: _Floats, cell: float) -> _Lattice:
        steps, step = np.arange(_CELLS + 1) * cell, _DIFFERENCE_M / self._metres
        x = (corner[0] + steps)[:, None, None] + _STENCIL[:, 0] * step
        y = (corner[1] + steps)[None, :, None] + _STENCIL[:, 1] * step
        x, y = (each.copy() for each in np.broadcast_arrays(x, y))
        longitude, latitude = self._to_degrees.transform(x, y)
        found = _Derivatives.of(longitude * self._radians, latitude * self._radians, step, self._geod)
        back = self._to_degrees.transform(longitude[..., 0], latitude[..., 0], direction="INVERSE")
        offset = np.hypot(back[0] - x[..., 0], back[1] - y[..., 0])
        bend = found.bend()
        is_unknown = ~np.isfinite(bend + found.scale) | ~(offset < _MOST_OFF_M / self._metres)
        # The bend near a pole is that of a plane of longitude and latitude: it grows without bound.
        is_unknown |= found.to_pole < 2 * math.sqrt(2) * cell * found.stretch
        bend[is_unknown] = np.inf
        return _Lattice(corner, cell, _table(found.scale, bend, cell), float(offset[~is_unknown].max(initial=0)))


@dataclass(frozen=True, slots=True)
class _Derivatives:
    """Of (λ, φ, q/2) by x and y at nodes, all (nodes, nodes), radians; each `_x` is first, `_xx` second."""

    first: dict[str, tuple[_Floats, _Floats]]
    second: dict[str, tuple[_Floats, _Floats, _Floats]]
    latitude: _Floats
    radius_sqm: float

    @classmethod
    def of(cls, longitude: _Floats, latitude: _Floats, step: float, geod: Geod) -> "_Derivatives":
        """By differences of the stencils, (nodes, nodes, 7)."""
        east = longitude - longitude[..., :1]
        east -= 2 * math.pi * np.round(east / (2 * math.pi))
        values = {"east": east, "north": latitude, "q": half_authalic(np.sin(latitude), geod.es)}
        first, second = {}, {}
        for name, value in values.items():
            centre, e, w, n, s, ne, sw = np.moveaxis(value, -1, 0)
            first[name] = (e - w) / (2 * step), (n - s) / (2 * step)
            mixed = (ne + sw - e - w - n - s + 2 * centre) / 2
            second[name] = (e + w - 2 * centre) / step**2, mixed / step**2, (n + s - 2 * centre) / step**2
        return cls(first, second, latitude[..., 0], geod.a**2)

    @property
    def scale(self) -> _Floats:
        """m² of true area by square unit."""
        (east_x, east_y), (q_x, q_y) = self.first["east"], self.first["q"]
        scale: _Floats = self.radius_sqm * np.abs(east_x * q_y - east_y * q_x)
        return scale

    @property
    def stretch(self) -> _Floats:
        """Radians on the ground by unit, at most."""
        (east_x, east_y), (north_x, north_y) = self.first["east"], self.first["north"]
        stretch: _Floats = np.hypot(np.hypot(east_x, east_y) * np.cos(self.latitude), np.hypot(north_x, north_y))
        return stretch

    @property
    def to_pole(self) -> _Floats:
        """Radians to the nearer pole."""
        return math.pi / 2 - np.abs(self.latitude)

    def bend(self) -> _Floats:
        """m² by cubed unit of an edge (the module's docstring)."""
        cross = np.zeros_like(self.latitude)
        for angle in _DIRECTIONS:
            c, s = math.cos(angle), math.sin(angle)
            along = {name: c * x + s * y for name, (x, y) in self.first.items()}
            curved = {name: c * c * xx + 2 * c * s * xy + s * s * yy for name, (xx, xy, yy) in self.second.items()}
            np.maximum(cross, np.abs(along["east"] * curved["q"] - along["q"] * curved["east"]), out=cross)
        wide, tall = np.hypot(*self.first["east"]), np.hypot(*self.first["north"])
        geodesic = (np.abs(np.sin(self.latitude)) + 0.02) * wide * ((np.cos(self.latitude) * wide) ** 2 + 3 * tall**2)
        bend: _Floats = (cross + geodesic) * (_SAFETY * self.radius_sqm / 12)
        return bend


def _table(scale: _Floats, bend: _Floats, cell: float) -> _Floats:
    """`_Lattice.table` by what is at nodes, (cells + 1, cells + 1)."""
    across, up = np.diff(scale, axis=0), np.diff(scale, axis=1)
    bends = [_about(np.abs(np.diff(scale, 2, axis))) for axis in (0, 1)]
    twist = _about(np.abs(np.diff(across, axis=1)))
    slope = np.maximum(*(_about(np.abs(each)) + _SAFETY * bends[axis] for axis, each in enumerate((across, up)))) / cell
    off = (bends[0] + bends[1]) * (_SAFETY / 8) + twist + _NOISE * _about(scale)
    found = np.stack([scale[:-1, :-1], across[:, :-1], up[:-1], slope, off, _about(bend)])
    found[:, ~np.isfinite(found).all(axis=0)] = _NOTHING
    return np.concatenate([found.reshape(6, -1), np.array(_NOTHING)], axis=1)


def _about(values: _Floats) -> _Floats:
    """The most of what lies at or between a cell's nodes and its neighbours', (cells, cells)."""
    wanted = _CELLS + 3
    before = [(wanted - size) // 2 for size in values.shape]
    after = [wanted - size - first for size, first in zip(values.shape, before, strict=True)]
    padded = np.pad(values, list(zip(before, after, strict=True)), mode="edge")
    most: Any = sliding_window_view(padded, (4, 4)).max(axis=(2, 3))
    return np.asarray(most)


def _range(values: _Floats) -> tuple[float, float]:
    """Where all but the outermost few of the finite values lie, by some of them."""
    some = values[:: 1 + len(values) // _SEEN]
    some = np.sort(some[np.isfinite(some)])
    if len(some) == 0:
        return math.nan, math.nan
    skipped = int(_OUTLIERS * len(some))
    return float(some[skipped]), float(some[-1 - skipped])
