"""What steps that change rows share: places in messages, columns replaced and added, geometries decoded and encoded."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lib.errors import DataError, SourceError, UsageError
from lib.vector.bad_rows import which
from lib.vector.names import folded
from lib.vector.sources import LayerFacts
from lib.vector.steps import Tally
from lib.vector.wkb import LINEAR_HINT, values_of

# Arrow's types of fields that are added, and what OGR makes of them.
OGR_TYPES = {
    "bool": "OFTInteger:OFSTBoolean",
    "int32": "OFTInteger",
    "int64": "OFTInteger64",
    "float": "OFTReal:OFSTFloat32",
    "double": "OFTReal",
    "string": "OFTString",
}


def row_words(tally: Tally, at: int) -> str:
    """A batch's row by its place in the source, where that is known."""
    number = tally.number(at)
    return which(number, tally.fid(at) if number is None else None)


def with_column(batch: Any, name: str, array: Any, field: Callable[[Any], Any] = lambda field: field) -> Any:
    """A batch with another array in a column; `field` makes its new field of the old one."""
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, field(batch.schema.field(at)), array)


def with_field(layer: LayerFacts, name: str, typed: str, asked_by: str) -> LayerFacts:
    """A layer with one field more, the last.

    Raises:
        UsageError: a column has that name, or OGR would take it for feature ids.
    """
    taken = {*layer.fields, layer.geometry_name or "", layer.fid_column, "fid", "ogc_fid"}
    if folded(name) in set(map(folded, taken)):
        raise UsageError(
            f"{asked_by}: layer {layer.layer} of {layer.label} has a column {name!r} already, or its format",
            hint="name another one",
        )
    return replace(layer, fields=(*layer.fields, name), field_types=(*layer.field_types, typed))


def geometries_of(facts: LayerFacts, flag: str) -> str:
    """The geometry column.

    Raises:
        SourceError: there is none.
    """
    if facts.geometry_name is None:
        raise SourceError(f"{facts.label}: layer {facts.layer} has no geometries", hint=f"leave {flag} out")
    return facts.geometry_name


def shapes_of(batch: Any, column: str, label: str, tally: Tally) -> Any:
    """A batch's geometries as shapely's, (rows,) objects, None for null.

    Raises:
        DataError: a curve or a surface, or bytes that are no geometry.
    """
    import numpy as np
    import shapely

    from lib.vector.exact import is_unread

    values = values_of(batch.column(batch.schema.get_field_index(column)))
    try:
        return shapely.from_wkb(np.array(values, object))
    except (NotImplementedError, shapely.GEOSException):
        for at, value in enumerate(values):
            try:
                shapely.from_wkb(value)
            except (NotImplementedError, shapely.GEOSException) as error:
                if is_unread(error):
                    words, hint = "is a curve or a surface, which GEOS does not read", LINEAR_HINT
                else:
                    words, hint = f"does not decode: {error}", "mend or remove it"
                raise DataError(f"{label}: {row_words(tally, at)} {words}", hint=hint) from error
        raise


def without_m(label: str, tally: Tally, at: int, words: str) -> DataError:
    """What is said of a geometry with M where GEOS would lose that."""
    return DataError(
        f"{label}: {row_words(tally, at)} {words}: its M values would be lost",
        hint="drop them before: ogr2ogr -dim XY (or XYZ) flat.gpkg SOURCE",
    )


def wkb_of(shapes: Any, kind: Any) -> Any:
    """Geometries of shapely's as an Arrow array of such a binary type: little-endian ISO WKB."""
    import pyarrow as pa
    import shapely

    return pa.array(shapely.to_wkb(shapes, byte_order=1, flavor="iso"), kind)
