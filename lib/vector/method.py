"""How areas in a CRS are measured: on its ellipsoid or in its plane, and which of them are kept. Pure but for PROJ."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from lib.errors import SourceError
from lib.vector.crs import is_known, unit_of
from lib.vector.distortion import Distortion


@dataclass(frozen=True, slots=True)
class AreaMethod:
    """How areas in one CRS are measured.

    Attributes:
        mode: "geodesic" or "planar".
        unit: what a coordinate unit is in radians (geodesic) or metres (planar).
        geod: the ellipsoid, for geodesic areas.
        to_degrees: the CRS's coordinates to longitude and latitude, where they are others.
        distortion: of a projection, which decides clear cases by areas in the plane.
        note: what is to be said of it.
    """

    mode: Literal["geodesic", "planar"]
    unit: float
    geod: Geod | None = None
    to_degrees: Transformer | None = None
    distortion: Distortion | None = None
    note: str = ""

    @property
    def words(self) -> str:
        """What is measured."""
        if self.geod is None:
            return f"in the plane of the CRS, whose unit is {self.unit:g} m"
        flattening = f"1/{1 / self.geod.f:.3f}" if self.geod.f else "0"
        return f"on the ellipsoid of {self.geod.a:.0f} m and flattening {flattening}, edges being geodesics"


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


def area_method(
    crs_text: str | None, wanted: Literal["auto", "geodesic", "planar"], label: str, what: str = "areas"
) -> AreaMethod:
    """How areas, or `what` else is told, are measured in a CRS.

    `auto` and `geodesic` are on the CRS's ellipsoid, of polygons whose edges are geodesics between their vertices; `auto` is
    planar where a CRS has no ellipsoid. `planar` is in the plane, by its linear unit.

    Raises:
        SourceError: there is no CRS, or none in which an area means anything.
    """
    if not is_known(crs_text):
        raise SourceError(
            f"{label} has no CRS, so its {what} are unknown", hint="give it one with --assume-crs, such as EPSG:32633"
        )
    crs = _horizontal(CRS.from_user_input(crs_text))
    if crs.is_geocentric or not crs.axis_info:
        raise SourceError(
            f"{label}: {what} have no meaning in its CRS ({crs.name})", hint="reproject it: ogr2ogr -t_srs"
        )
    unit, base = unit_of(crs, label), crs.geodetic_crs
    if base is None or (wanted == "planar" and not crs.is_geographic):
        if wanted == "geodesic":
            raise SourceError(f"{label}: its CRS ({crs.name}) has no ellipsoid", hint="use --area planar")
        return AreaMethod("planar", unit, note=_planar_words(crs, label, what) if wanted == "auto" else "")
    if wanted == "planar":
        raise SourceError(f"{label} is in degrees ({crs.name}): it has no planar area", hint="use --area geodesic")
    geod, radians = base.get_geod(), base.axis_info[0].unit_conversion_factor
    assert geod is not None  # noqa: S101 - for mypy: a geodetic CRS has an ellipsoid
    if crs.is_geographic and not crs.is_derived:
        return AreaMethod("geodesic", radians, geod)
    degrees = Transformer.from_crs(crs, base, always_xy=True)
    # Of a rotated pole's degrees the finer look at every vertex is fast enough.
    plane = None if crs.is_geographic else Distortion(degrees, geod, radians, unit)
    return AreaMethod("geodesic", radians, geod, degrees, plane)


def _planar_words(crs: CRS, label: str, what: str) -> str:
    return f"{label}: its CRS ({crs.name}) has no ellipsoid: {what} are those in its plane"


def _horizontal(crs: CRS) -> CRS:
    while True:
        if crs.is_bound and crs.source_crs is not None:
            crs = crs.source_crs
        elif crs.is_compound:
            crs = crs.sub_crs_list[0]
        else:
            return crs


def degrees_of(xy: NDArray[np.float64], method: AreaMethod) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of vertices, both (vertices,)."""
    x, y = xy[:, 0], xy[:, 1]
    if method.to_degrees is not None:
        x, y = method.to_degrees.transform(x, y)
    degrees = math.degrees(method.unit)
    return x * degrees, y * degrees
