"""What the footer of a Parquet file says of its table: fields and their types, geometries, where their boxes are.

Geometries in WKB; the native encodings of GeoArrow are refused. Layout: geoparquet.org/releases/v1.1.0, and Parquet's own
types of geometries (github.com/apache/parquet-format, Geospatial.md).
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from lib.diagnosis import one_line
from lib.errors import SourceError
from lib.units import MIB
from lib.vector.crs import normal_crs
from lib.vector.sources.facts import Box
from lib.vector.sources.row_groups import box_of

DRIVER = "Parquet"
_NOT_OURS = ("geo", "ARROW:schema", "pandas")
# What is read of a column at once; without it a column of a row group is read whole.
_BUFFER_BYTES = MIB
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_OWN_TYPES = ("GEOMETRY", "GEOGRAPHY")
_TYPES: tuple[tuple[Any, str], ...] = (
    (pa.types.is_boolean, "OFTInteger:OFSTBoolean"),
    (pa.types.is_int16, "OFTInteger:OFSTInt16"),
    (pa.types.is_uint32, "OFTInteger64"),
    (pa.types.is_int64, "OFTInteger64"),
    (pa.types.is_uint64, "OFTReal"),
    (pa.types.is_integer, "OFTInteger"),
    (pa.types.is_float16, "OFTReal:OFSTFloat32"),
    (pa.types.is_float32, "OFTReal:OFSTFloat32"),
    (pa.types.is_floating, "OFTReal"),
    (pa.types.is_decimal, "OFTReal"),
    (pa.types.is_string, "OFTString"),
    (pa.types.is_large_string, "OFTString"),
    (pa.types.is_string_view, "OFTString"),
    (pa.types.is_null, "OFTString"),
    (pa.types.is_binary, "OFTBinary"),
    (pa.types.is_large_binary, "OFTBinary"),
    (pa.types.is_fixed_size_binary, "OFTBinary"),
    (pa.types.is_binary_view, "OFTBinary"),
    (pa.types.is_date, "OFTDate"),
    (pa.types.is_time, "OFTTime"),
    (pa.types.is_timestamp, "OFTDateTime"),
)
_LISTS = {
    "OFTInteger": "OFTIntegerList",
    "OFTInteger64": "OFTInteger64List",
    "OFTReal": "OFTRealList",
    "OFTString": "OFTStringList",
}
_READ_AS: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_decimal, pa.float64()),
    (pa.types.is_null, pa.string()),
    (pa.types.is_string_view, pa.string()),
    (pa.types.is_binary_view, pa.binary()),
    (pa.types.is_date64, pa.date32()),
    (pa.types.is_fixed_size_binary, pa.binary()),
)


@dataclass(frozen=True, slots=True)
class Geometry:
    """The column of geometries.

    Attributes:
        name: of the column.
        kind: binary, or large binary.
        crs: `EPSG:…` or WKT; None where it is said to be unknown.
        types: of all geometries, as GeoParquet names them; empty where they are not known.
        sides: paths of the leaf columns of each feature's box, xmin, ymin, xmax, ymax; empty where there are none.
        box: around all geometries; None where that is not said.
    """

    name: str
    kind: Any
    crs: str | None
    types: frozenset[str]
    sides: tuple[str, ...]
    box: Box | None


@dataclass(frozen=True, slots=True)
class Table:
    """A file's table.

    Attributes:
        columns: Arrow types of its fields, by name.
        unread: likewise of those whose types OGR does not have.
        geometry: its geometries; None of a plain Parquet file.
        metadata: what the file says of itself.
        rows: as the footer counts them.
        notes: what is not kept of what the metadata say of geometries.
    """

    columns: Mapping[str, Any]
    unread: Mapping[str, Any]
    geometry: Geometry | None
    metadata: Mapping[str, str]
    rows: int
    notes: tuple[str, ...] = ()


@contextmanager
def opened(path: Path, label: str) -> Iterator[Any]:
    """A file by pyarrow, to be read in pages.

    Raises:
        SourceError: it is damaged.
    """
    from pyarrow.parquet import ParquetFile

    try:
        whence = path if isinstance(path, Path) else path.open("rb")  # one of GDAL's virtual files
        file = ParquetFile(whence, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{label} is damaged: {one_line(error)}", hint="fetch or export it again") from error
    with file:
        yield file


def table_of(file: Any, label: str) -> Table:
    """What a file's footer says.

    Raises:
        SourceError: its metadata are damaged, or it has what is not read.
    """
    said = {key.decode(): text.decode() for key, text in (file.schema_arrow.metadata or {}).items()}
    said |= {key.decode(): text.decode() for key, text in (file.metadata.metadata or {}).items()}
    schema = file.schema_arrow
    name, column = _geo(said, schema, label) or _own(file, said) or (None, {})
    covering = _covering(column)
    fields = [each for each in schema if each.name != name and each.name not in {path[0] for path in covering}]
    if len({each.name for each in schema}) < len(schema.names):
        twice = next(each for each in schema.names if schema.names.count(each) > 1)
        raise SourceError(f"{label} has several columns of the name {twice!r}", hint="write it again with one of each")
    known = {each.name: each.type for each in fields if ogr_type(each.type) is not None}
    return Table(
        columns=known,
        unread={each.name: each.type for each in fields if each.name not in known},
        geometry=None
        if name is None
        else Geometry(
            name,
            read_as(schema.field(name).type),
            _crs(column, label),
            frozenset(column.get("geometry_types") or ()),
            tuple(".".join(path) for path in covering),
            box_of(column.get("bbox")),
        ),
        metadata={key: text for key, text in said.items() if key not in _NOT_OURS},
        rows=file.metadata.num_rows,
        notes=tuple(_notes(said, name, column)) if name else (),
    )


def _notes(said: Mapping[str, str], name: str, column: Mapping[str, Any]) -> Iterator[str]:
    others = [each for each in json.loads(said.get("geo", "{}")).get("columns", ()) if each != name]
    if others:
        yield f"further columns of geometries are read as bytes: {', '.join(others)}"
    if column.get("edges") == "spherical":
        yield "its edges are said to be spherical: they are taken as geodesics, and where boxes are asked for as straight lines"
    if column.get("epoch") is not None:
        yield f"the epoch of its coordinates, {column['epoch']}, is not kept"


def _geo(said: Mapping[str, str], schema: Any, label: str) -> tuple[str, dict[str, Any]] | None:
    """The primary geometry column and what GeoParquet's metadata say of it; None where there are no such."""
    if "geo" not in said:
        return None
    try:
        geo = json.loads(said["geo"])
        name = geo["primary_column"]
        column = geo["columns"][name]
        encoding = column.get("encoding")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{label}: its GeoParquet metadata is damaged: {one_line(error)}") from error
    if name not in schema.names:
        raise SourceError(f"{label}: its GeoParquet metadata names a column {name!r} that it does not have")
    if encoding != "WKB":
        raise SourceError(
            f"{label}: its geometries are encoded as {encoding}, and not as WKB",
            hint="write it again with WKB, such as by geopandas",
        )
    if not _is_binary(schema.field(name).type):
        raise SourceError(f"{label}: its column {name!r} is no WKB, but {schema.field(name).type}")
    return name, column


def _is_binary(kind: Any) -> bool:
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return any(is_one(kind) for is_one in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _own(file: Any, said: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """The first column of Parquet's own type of geometries, in the words of GeoParquet; None where there is none."""
    every = (file.schema.column(at) for at in range(len(file.schema)))
    found = next((each for each in every if each.name == each.path and each.logical_type.type in _OWN_TYPES), None)
    if found is None:
        return None
    crs = json.loads(found.logical_type.to_json()).get("crs") or ""
    if crs.startswith("projjson:"):  # the name of a text of the file's metadata
        crs = said.get(crs.removeprefix("projjson:"), crs)
    if number := re.fullmatch(r"srid:(\d+)", crs):
        return found.name, {"crs": None if number[1] == "0" else f"EPSG:{number[1]}"}
    return found.name, {"crs": crs} if crs else {}


def _covering(column: Mapping[str, Any]) -> list[list[str]]:
    """Paths of the leaf columns of each feature's box, xmin, ymin, xmax, ymax; empty where they are not all there."""
    sides = (column.get("covering") or {}).get("bbox") or {}
    return [list(sides[side]) for side in _SIDES] if all(side in sides for side in _SIDES) else []


def _crs(column: Mapping[str, Any], label: str) -> str | None:
    """`EPSG:…` or WKT; longitude and latitude where none is named.

    Raises:
        SourceError: PROJ does not know it.
    """
    said = column.get("crs", "EPSG:4326")
    if said is None:
        return None
    try:
        return _normal_crs(said if isinstance(said, str) else json.dumps(said))
    except ValueError as error:
        raise SourceError(f"{label}: the CRS of its geometries is none that PROJ knows: {one_line(error)}") from error


@lru_cache(maxsize=16)
def _normal_crs(text: str) -> str:
    """Once for all files of a folder: PROJ takes 40 ms for each."""
    return normal_crs(text)


def ogr_type(kind: Any) -> str | None:
    """OGR's name of an Arrow type, with its subtype; None where it has none."""
    if isinstance(kind, pa.BaseExtensionType):
        return "OFTString:OFSTJSON" if kind.extension_name == "arrow.json" else ogr_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return ogr_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _LISTS.get((ogr_type(kind.value_type) or "").partition(":")[0])
    return next((name for is_of, name in _TYPES if is_of(kind)), None)


def read_as(kind: Any) -> Any:
    """The Arrow type that a column is read as: one that OGR has, too."""
    if isinstance(kind, pa.BaseExtensionType):
        storage = read_as(kind.storage_type)
        return pa.json_(storage) if kind.extension_name == "arrow.json" else storage
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return next((read for is_of, read in _READ_AS if is_of(kind)), kind)


def decoded(column: Any, kind: Any) -> Any:
    """A column as the type that it is read as."""
    if column.type == kind:
        return column
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(column)
    return column.dictionary_decode().cast(kind) if pa.types.is_dictionary(column.type) else column.cast(kind)
