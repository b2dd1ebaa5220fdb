"""What GDAL and pyogrio warn of, in our words; what is ours alone or said elsewhere is left out."""

import re
from collections.abc import Sequence

# Of a missing CRS the engine says itself, with the source's name.
_NO_CRS = "'crs' was not provided"
# Of a GeoPackage's column whose declared type is none of SQLite's or its own: OGR takes it for a geometry.
_NOT_READ = re.compile(r"geometry column '(.*)' of type '(.*)' ignored")
OUR_OPTION = re.compile(r"does not support open option (WRITE_GFS|IMMUTABLE)")
# A sink says beforehand what fields become.
_FIELD_BECOMES = re.compile(r"Field .* created as \w+ field, though \w+ requested")
_OTHER_TYPE = re.compile(r"A geometry of type (\w+) is inserted into layer (.*) of geometry type (\w+), which is not")


def in_our_words(texts: Sequence[str]) -> list[str]:
    """Warnings without those of options that are ours; columns that are dropped named in one."""
    columns = {each[1]: each[2] for text in texts if (each := _NOT_READ.fullmatch(text))}
    dropped = {f"Field format '{kind}' not supported" for kind in columns.values()}
    rest = [
        f"layer {each[2]} is declared as {each[3]}, and has {each[1]}, too, which is kept"
        if (each := _OTHER_TYPE.match(text))
        else text
        for text in texts
        if text not in dropped
        and not _NOT_READ.fullmatch(text)
        and not OUR_OPTION.search(text)
        and not _FIELD_BECOMES.match(text)
        and not text.startswith(_NO_CRS)
    ]
    if not columns:
        return rest
    named = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
    return [f"columns of types that OGR does not know are not read: {named}", *rest]
