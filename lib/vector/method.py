"""How areas in a CRS are measured: on its ellipsoid or in its plane, and which of them are kept. Pure but for PROJ."""

import math
from dataclasses import dataclass
from typing import Literal

from pyproj import CRS, Geod, Transformer

from lib.errors import SourceError

# Projections whose areas are wrong by more than a surveyor would accept, anywhere far from their standard parallel.
_NOT_FOR_AREAS = ("mercator", "pseudo mercator", "equidistant cylindrical", "miller cylindrical", "gall stereographic")
_BUT = ("transverse mercator", "oblique mercator", "cylindrical equal area")


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
