"""Coordinate reference systems by name: whether two are one, and what they are called. pyproj is imported where it is needed."""


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
