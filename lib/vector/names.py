"""Names of a layer's columns as they are here, by pyogrio's description of it: distinct for OGR's writers and SQLite."""

from typing import Any

# What OGR's Arrow writers take for a feature's id, whatever it is in the source (ogr_core.h, DEFAULT_ARROW_FID_NAME).
_FID_NAME = "ogc_fid"


def geometry_column(info: dict[str, Any]) -> str:
    """What `open_batches` calls the geometry column, by pyogrio's description of the layer.

    Where the source has no name for it OGR says "wkb_geometry", even beside a field of that name; here it has one of its own.
    """
    name, fields = str(info["geometry_name"] or "wkb_geometry"), {folded(each) for each in field_names(info)}
    while folded(name) in fields:
        name += "_"
    return name


def raw_names(info: dict[str, Any]) -> list[str]:
    """The fields' names as the source has them; pyogrio decodes UTF-8 that is not declared as something else.

    Raises:
        UnicodeError: they are not in UTF-8, and nothing says in what else.
    """
    names = list(map(str, info["fields"]))
    if str(info.get("encoding") or "UTF-8").upper() in ("UTF-8", "UTF8"):
        return names
    return [name.encode(info["encoding"]).decode() for name in names]


def folded(name: str) -> str:
    """A name as OGR and SQLite compare it: whatever the case of A to Z."""
    return name.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def field_names(info: dict[str, Any]) -> list[str]:
    """The fields' names, no two of which differ in case only, by pyogrio's description of the layer.

    Of those that do the later ones get a number, as by `ogr2ogr`: OGR's writers take one for the other. So do those without a
    name, and those that OGR takes for feature ids.
    """
    found: list[str] = []
    taken = {_FID_NAME}
    names = raw_names(info)
    every = set(map(folded, names))
    for name in names:
        new, number = name or "field", 2
        while folded(new) in taken or (new != name and folded(new) in every):
            new, number = f"{name or 'field'}{number}", number + 1
        taken.add(folded(new))
        found.append(new)
    return found
