"""A region of a layer's plane, polygons in its CRS, and which geometries meet it: by envelopes, then by GEOS for the rest.

To meet is what `ST_Intersects` and GDAL's `-spat` mean: a point in common, edges included, Z and M aside; null and empty
geometries meet nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyarrow._compute import TakeOptions, call_function

from lib.errors import DataError, UsageError
from lib.vector import runs
from lib.vector.crs import way_between
from lib.vector.exact import is_unread
from lib.vector.sources.facts import Box
from lib.vector.wkb import LINEAR_HINT, NOT_LINEAR, SURFACES, column_of, is_any_of, values_of

# An edge that is straight in one CRS is none in another: each is cut into parts of at most so much of the whole's extent.
_PARTS = 256
_HALF_TURN = 180.0
# Geometries that GEOS has at once.
_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Region:
    """Polygons that a geometry may meet.

    Attributes:
        polygons: shapely's, prepared, (polygons,) objects.
        tree: of them.
        bounds: of all.
        is_box: it is its own envelope.
    """

    polygons: NDArray[Any]
    tree: Any
    bounds: Box
    is_box: bool

    @classmethod
    def of(cls, polygons: NDArray[Any]) -> "Region":
        """The region of some polygons."""
        left, low, right, high = map(float, shapely.total_bounds(polygons))
        is_box = len(polygons) == 1 and bool(
            shapely.equals_exact(polygons[0], shapely.box(left, low, right, high), normalize=True)
        )
        shapely.prepare(polygons)
        return cls(polygons, shapely.STRtree(polygons), (left, low, right, high), is_box)

    def meets(self, array: Any, label: str) -> NDArray[np.bool_]:
        """Which geometries of an Arrow array of WKB meet the region, (rows,) bool.

        Raises:
            DataError: bytes that are no geometry, or one that GEOS does not read.
        """
        column = column_of(array)
        found = runs.find_runs(column)
        if found.damaged.any():
            raise DataError(f"{label}: {int(found.damaged.sum())} geometries end before their vertices do")
        is_simple = is_any_of(column.types, runs.SIMPLE)
        with np.errstate(invalid="ignore"):
            near, sure = self._by_envelopes(runs.envelopes(column, found), is_simple)
        unsure = np.flatnonzero(near & ~sure & (column.sizes > 0))
        for first in range(0, len(unsure), _AT_ONCE):
            some = unsure[first : first + _AT_ONCE]
            sure[some] = self._by_geos(
                call_function("take", [array, pa.array(some)], TakeOptions()) if len(some) < len(array) else array,
                label,
            )
        return sure

    def _by_envelopes(
        self, envelopes: NDArray[np.float64], is_simple: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Rows that may meet the region, and of a box those that surely do."""
        x0, y0, x1, y1 = envelopes
        left, low, right, high = self.bounds
        near = (x1 >= left) & (x0 <= right) & (y1 >= low) & (y0 <= high)
        near |= ~is_simple | np.isnan(x0) | np.isnan(y0)  # what is no number is for GEOS
        within = (x0 >= left) & (x1 <= right) & (y0 >= low) & (y1 <= high) & is_simple & (x0 <= x1)
        return near, within & self.is_box

    def _by_geos(self, array: Any, label: str) -> NDArray[np.bool_]:
        geometries = _decoded(array, label)
        mask = np.zeros(len(geometries), bool)
        rows, polygons = self.tree.query(geometries)
        hit = shapely.intersects(self.polygons[polygons], geometries[rows])
        mask[rows[hit]] = True
        return mask


def _decoded(array: Any, label: str) -> NDArray[Any]:
    try:
        return np.asarray(shapely.from_wkb(values_of(array)))
    except (NotImplementedError, shapely.GEOSException) as error:
        if not is_unread(error):
            raise DataError(f"{label}: bytes that are no geometry: {error}") from error
        kinds = (
            ", ".join(sorted({*NOT_LINEAR.values(), *SURFACES.values()} & set(_names(array)))) or "a curve or a surface"
        )
        raise DataError(f"{label} has {kinds}: whether it meets the region is not known", hint=LINEAR_HINT) from error


def _names(array: Any) -> list[str]:
    return [(NOT_LINEAR | SURFACES).get(int(kind), "") for kind in np.unique(column_of(array).types)]


def moved(polygons: NDArray[Any], crs: str, to: str, what: str) -> NDArray[Any]:
    """Polygons in another CRS, with their edges cut into short ones.

    Raises:
        UsageError: they have no place there, or none in one piece.
    """
    import pyproj

    there, here = pyproj.CRS.from_user_input(crs), pyproj.CRS.from_user_input(to)
    if there.equals(here, ignore_axis_order=True):
        return polygons
    left, low, right, high = shapely.total_bounds(polygons)
    cut = shapely.segmentize(polygons, max(right - left, high - low, 1e-300) / _PARTS)
    move = way_between(there, here, what)
    found: NDArray[Any] = shapely.transform(cut, lambda points: np.column_stack(move.transform(*points.T)))
    if not np.isfinite(shapely.get_coordinates(found)).all():
        raise UsageError(
            f"{what} has no place in the layer's CRS ({here.name})",
            hint="name the CRS that it is in, x (longitude) before y (latitude)",
        )
    if here.is_geographic and _has_jumps(found, here):
        raise UsageError(
            f"{what} lies across the antimeridian or around a pole: in the layer's CRS it is not one piece",
            hint="cut it there: a box or a polygon on either side",
        )
    return found


def _has_jumps(polygons: NDArray[Any], crs: Any) -> bool:
    """Whether an edge spans half a turn of longitude, which no edge of 1/256 of an extent does by itself."""
    turn = _HALF_TURN / np.degrees(crs.axis_info[0].unit_conversion_factor)
    rings = shapely.get_rings(polygons)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    return bool((np.abs(np.diff(xy[:, 0]))[np.diff(ring) == 0] >= turn).any())
