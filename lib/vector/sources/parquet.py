"""GeoParquet and plain Parquet files, read by pyarrow: facts from the footer, batches by row groups.

Not here: folders of files, and row groups left out by their boxes and statistics. Geometries in WKB; the native encodings of
GeoArrow are refused. Layout: geoparquet.org/releases/v1.1.0.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from lib.diagnosis import one_line
from lib.errors import SourceError
from lib.units import MIB
from lib.vector.bad_rows import BadRow
from lib.vector.crs import normal_crs
from lib.vector.encoding import Texts
from lib.vector.names import field_names
from lib.vector.row_checks import Found, RowChecks
from lib.vector.sources.facts import Given, InTable, LayerFacts, Place, Sizes, Wish
from lib.vector.sources.ogr import with_crs

DRIVER = "Parquet"
_MAGIC = b"PAR1"
_NOT_OURS = ("geo", "ARROW:schema", "pandas")
# What is read of a column at once; without it a column of a row group is read whole.
_BUFFER_BYTES = MIB
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
    (pa.types.is_null, "OFTString"),
    (pa.types.is_binary, "OFTBinary"),
    (pa.types.is_large_binary, "OFTBinary"),
    (pa.types.is_fixed_size_binary, "OFTBinary"),
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
    (pa.types.is_date64, pa.date32()),
    (pa.types.is_fixed_size_binary, pa.binary()),
)


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does."""
    try:
        with path.open("rb") as file:
            return file.read(4) == _MAGIC
    except OSError:
        return False


def read_info(path: Path, label: str) -> dict[str, Any]:
    """The file's description, with the keys that pyogrio's has of a layer.

    Raises:
        SourceError: it is damaged, or has what is not read.
    """
    with _opened(path, label) as file:
        return _info(file, path, label)


@contextmanager
def open_batches(
    path: Path,
    label: str,
    rows: int,
    columns: Sequence[str] | None = None,
    *,
    encoding: str | None = None,
    skips: bool = False,
) -> Iterator[Any]:
    """The file as a reader of Arrow record batches of at most so many rows, of these fields; geometries beside them.

    Args:
        path: the file.
        label: its base name, for messages.
        rows: of a batch, at most.
        columns: fields by name; None for all.
        encoding: of text that is no UTF-8.
        skips: whether bad rows are left out.
    """
    with _opened(path, label) as file:
        info = _info(file, path, label)
        texts = Texts(label, DRIVER, encoding, skips=skips)
        yield _Reader(file, info, rows, columns, RowChecks(texts, info["geometry_name"], skips))


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file as a layer.

    Attributes:
        facts: of the layer.
        path: the file.
        encoding: of text that is no UTF-8.
        skips: whether bad rows are left out.
    """

    facts: LayerFacts
    path: Path
    encoding: str | None = None
    skips: bool = False

    @classmethod
    def opened(cls, source: str, layer: str | None, label: str, given: Given) -> Self:
        """The layer, by the footer.

        Raises:
            SourceError: it is damaged, has another layer than the named one, or what is not read.
        """
        path = Path(source)
        with _opened(path, label) as file:
            info, footer = _info(file, path, label), file.metadata
            sizes = _sizes(footer)
        if layer is not None and layer != info["layer_name"]:
            raise SourceError(
                f"{label} has no layer {layer!r}; it has {info['layer_name']}",
                hint="leave --layer out: a Parquet file has one",
            )
        subtypes = ("" if each == "OFSTNone" else f":{each}" for each in info["ogr_subtypes"])
        facts = LayerFacts(
            source=source,
            label=label,
            driver=DRIVER,
            layer=info["layer_name"],
            fields=tuple(field_names(info)),
            field_types=tuple(kind + sub for kind, sub in zip(info["ogr_types"], subtypes, strict=True)),
            geometry_type=info["geometry_type"],
            geometry_name=info["geometry_name"],
            fid_column="",
            crs=info["crs"],
            features=info["features"],
            source_bytes=path.stat().st_size,
            sizes=sizes,
            notes=tuple(info["notes"]),
            metadata=info["layer_metadata"],
        )
        return cls(with_crs(facts, given.crs), path, given.encoding, given.skips_bad)

    def count(self) -> int | None:
        """Rows by the footer."""
        return self.facts.features

    def in_table(self) -> InTable | None:
        """Nothing that is not shown."""
        return None

    def narrowed(self, wish: Wish) -> tuple[Self, str]:
        """All of it."""
        del wish
        return self, f"evaluated: {DRIVER} is read whole"

    @property
    def is_whole(self) -> bool:
        """It gives all rows."""
        return True

    def given(self) -> tuple[int, int] | None:
        """All."""
        return None

    def left_out(self) -> Iterator[BadRow]:
        """None."""
        yield from ()

    @contextmanager
    def batches(
        self, rows: int, batch_bytes: int, *, fids: bool = False, columns: Sequence[str] | None = None
    ) -> Iterator[Any]:
        """The layer as a reader of batches of at most so many rows."""
        del fids, batch_bytes
        with open_batches(
            self.path, self.facts.label, self.facts.at_most(rows), columns, encoding=self.encoding, skips=self.skips
        ) as reader:
            yield reader

    @contextmanager
    def at(self, place: Place, rows: int, batch_bytes: int) -> Iterator[Iterator[Any]]:
        """The batch at a place, by number of row."""
        with self.batches(rows, batch_bytes) as reader:
            yield islice(reader, place.row // rows, place.row // rows + 1)


@contextmanager
def _opened(path: Path, label: str) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{label} is damaged: {one_line(error)}", hint="fetch or export it again") from error
    with file:
        yield file


def _info(file: Any, path: Path, label: str) -> dict[str, Any]:
    said = {key.decode(): text.decode() for key, text in (file.schema_arrow.metadata or {}).items()}
    said |= {key.decode(): text.decode() for key, text in (file.metadata.metadata or {}).items()}
    geo = _geo(said, file.schema_arrow, label)
    name, column = geo or (None, {})
    covering = {place[0] for place in column.get("covering", {}).get("bbox", {}).values()}
    fields = [each for each in file.schema_arrow if each.name != name and each.name not in covering]
    types = [_ogr_type(each.type) for each in fields]
    unread = [f"{each.name} ({each.type})" for each, typed in zip(fields, types, strict=True) if typed is None]
    nested = [f"{label}: columns of types that are not read: {', '.join(unread)}"] if unread else []
    known = [(each.name, typed) for each, typed in zip(fields, types, strict=True) if typed is not None]
    return {
        "driver": DRIVER,
        "layer_name": path.stem,
        "fields": [each for each, _ in known],
        "ogr_types": [typed.partition(":")[0] for _, typed in known],
        "ogr_subtypes": [typed.partition(":")[2] or "OFSTNone" for _, typed in known],
        "encoding": "UTF-8",
        "geometry_type": _geometry_type(column.get("geometry_types") or []) if name else None,
        "geometry_name": name,
        "fid_column": "",
        "crs": _crs(column) if name else None,
        "features": file.metadata.num_rows,
        "layer_metadata": {key: text for key, text in said.items() if key not in _NOT_OURS},
        "dataset_metadata": None,
        "notes": nested,
    }


def _geo(said: dict[str, str], schema: Any, label: str) -> tuple[str, dict[str, Any]] | None:
    """The primary geometry column and what is said of it; None of a plain Parquet file."""
    if "geo" not in said:
        return None
    try:
        geo = json.loads(said["geo"])
        name = geo["primary_column"]
        column = geo["columns"][name]
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{label}: its GeoParquet metadata is damaged: {one_line(error)}") from error
    if name not in schema.names:
        raise SourceError(f"{label}: its GeoParquet metadata names a column {name!r} that it does not have")
    if column.get("encoding") != "WKB":
        raise SourceError(
            f"{label}: its geometries are encoded as {column.get('encoding')}, and not as WKB",
            hint="write it again with WKB, such as by geopandas",
        )
    return name, column


def _geometry_type(types: list[str]) -> str:
    """The one type of all geometries, or Unknown."""
    return types[0] if len(types) == 1 else "Unknown"


def _crs(column: dict[str, Any]) -> str | None:
    """`EPSG:…` or WKT; longitude and latitude where none is named."""
    if "crs" not in column:
        return "EPSG:4326"
    return normal_crs(json.dumps(column["crs"])) if column["crs"] is not None else None


def _ogr_type(kind: Any) -> str | None:
    """OGR's name of an Arrow type, with its subtype; None where it has none."""
    if isinstance(kind, pa.BaseExtensionType):
        return "OFTString:OFSTJSON" if kind.extension_name == "arrow.json" else _ogr_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _ogr_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _LISTS.get((_ogr_type(kind.value_type) or "").partition(":")[0])
    return next((name for is_of, name in _TYPES if is_of(kind)), None)


def _sizes(footer: Any) -> Sizes:
    """Sizes by the heaviest row group's mean, as its pages have them before they are compressed."""
    groups = [footer.row_group(at) for at in range(footer.num_row_groups)]
    sizes = [(group.total_byte_size, group.num_rows) for group in groups if group.num_rows]
    mean = max((size // rows + 1 for size, rows in sizes), default=0)
    return Sizes(mean, total_bytes=sum(size for size, _ in sizes), count=footer.num_rows)


class _Reader:
    """Record batches under the names that fields have here, of types that OGR has, too."""

    def __init__(
        self, file: Any, info: dict[str, Any], rows: int, columns: Sequence[str] | None, checks: RowChecks
    ) -> None:
        names = dict(zip(info["fields"], field_names(info), strict=True))
        wanted = [own for own, name in names.items() if columns is None or name in columns]
        geometry = info["geometry_name"]
        if geometry:
            names[geometry] = geometry
            wanted.append(geometry)
        self._wanted, self._checks = wanted, checks
        fields = [_read_field(file.schema_arrow.field(each), names[each], geometry) for each in wanted]
        self.schema = pa.schema(fields)
        self._batches = file.iter_batches(rows, columns=wanted, use_threads=False)

    def read_next_batch(self) -> Any:
        """The next batch; StopIteration after the last."""
        batch = next(self._batches)
        columns = [_read(batch.column(own), each.type) for own, each in zip(self._wanted, self.schema, strict=True)]
        return pa.RecordBatch.from_arrays(self._checks.checked(columns, self.schema.names), schema=self.schema)

    @property
    def found(self) -> Found:
        """What was found in the latest batch."""
        return self._checks.found

    def __iter__(self) -> Iterator[Any]:
        """All batches that are left."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        return self.read_next_batch()


def _read_field(each: Any, name: str, geometry: str | None) -> Any:
    if each.name == geometry:
        wide = pa.types.is_large_binary(each.type)
        kind = pa.large_binary() if wide else pa.binary()
        return pa.field(name, kind, metadata={"ARROW:extension:name": "geoarrow.wkb"})
    kind, is_json = each.type, False
    if isinstance(kind, pa.BaseExtensionType):
        is_json = kind.extension_name == "arrow.json"
        kind = kind.storage_type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    kind = next((read for is_of, read in _READ_AS if is_of(kind)), kind)
    if is_json:
        return pa.field(name, pa.json_(kind), each.nullable)
    return pa.field(name, kind, each.nullable)


def _read(column: Any, kind: Any) -> Any:
    if column.type == kind:
        return column
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(column)
    return column.dictionary_decode().cast(kind) if pa.types.is_dictionary(column.type) else column.cast(kind)
