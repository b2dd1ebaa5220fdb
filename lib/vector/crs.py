"""Coordinate reference systems by name: whether two are one, what they are called, the way from one to another.

pyproj is imported where it is needed.
"""

import math
from typing import TYPE_CHECKING

from lib.errors import SourceError

if TYPE_CHECKING:
    from pyproj import CRS, Transformer


def same_crs(found: str | None, wanted: str | None) -> bool:
    """Whether two are the same, whatever the order of axes, which OGR always has as x, y."""
    if not found or not wanted or found == wanted:
        return (found or None) == (wanted or None)
    from pyproj import CRS

    one, other = CRS.from_user_input(found), CRS.from_user_input(wanted)
    return bool(one.equals(other, ignore_axis_order=True)) or one.to_wkt() == other.to_wkt()


def as_esri(crs: str) -> str:
    """A CRS as a Shapefile's .prj words it, which is not all that there is to it."""
    from pyproj import CRS

    return str(CRS.from_wkt(CRS.from_user_input(crs).to_wkt("WKT1_ESRI")).to_wkt())


def crs_name(crs: str | None) -> str:
    """`EPSG:…` as it is, the name in other texts, "none"."""
    if crs is None or crs.startswith("EPSG:"):
        return crs or "none"
    from pyproj import CRS

    return str(CRS.from_user_input(crs).name)


def is_undefined(crs: str) -> bool:
    """Whether a CRS is one of GeoPackage's two that say that nothing is known."""
    return any(f'"Undefined {kind} SRS"' in crs for kind in ("Cartesian", "geographic"))


def is_known(crs: str | None) -> bool:
    """Whether a layer has a CRS that says where its coordinates are, or at least how long they are."""
    return bool(crs) and not is_undefined(str(crs))


def unit_of(crs: "CRS", label: str) -> float:
    """What a coordinate is in metres or radians.

    Raises:
        SourceError: nobody knows.
    """
    unit = float(crs.axis_info[0].unit_conversion_factor)
    if not (unit > 0 and math.isfinite(unit)):
        raise SourceError(
            f"{label}: the unit of its CRS ({crs.name}) is unknown, so how long its coordinates are is, too",
            hint="give the layer the CRS that it is in: ogr2ogr -a_srs",
        )
    return unit


def way_between(before: "CRS", after: "CRS", label: str) -> "Transformer":
    """PROJ's transformation, x before y.

    Raises:
        SourceError: there is none, as from a site's own grid.
    """
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        return Transformer.from_crs(before, after, always_xy=True)
    except ProjError as error:
        raise SourceError(
            f"{label}: PROJ knows no way from {before.name} to {after.name}",
            hint="where a layer's own CRS is wrong or only a site's, give it the right one: ogr2ogr -a_srs",
        ) from error


def normal_crs(text: str) -> str:
    """A CRS as a user names it as OGR has it: `EPSG:…` where it is one, else WKT.

    Raises:
        ValueError: it is none.
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise ValueError(f"{text!r} is no CRS that PROJ knows, such as EPSG:32633") from error
    authority = crs.to_authority(min_confidence=100)
    return f"EPSG:{authority[1]}" if authority and authority[0] == "EPSG" else str(crs.to_wkt())
