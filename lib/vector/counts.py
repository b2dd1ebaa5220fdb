"""What a source's own files say beside OGR: how many features there really are, and how large they are.

OGR's Arrow streams end early without an error on a corrupt GeoPackage page, and counts in headers lie; so each format is asked in
a second way where it has one: SQLite's `COUNT(*)`, the Shapefile's index and deletion marks, FlatGeobuf's header and sizes,
the records of a GeoJSON text sequence, of which OGR skips the bad ones.
"""

import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import DataError, SourceError
from lib.units import KIB, MIB
from lib.vector import flatgeobuf, ogr, texts

__all__ = ["Sizes", "dataset_bytes", "gpkg_has_curves", "independent_count", "layer_path", "read_sizes"]

# Of a dataset that is several files: those with the same stem, by the suffix of the one that is named.
_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf")
_MAPINFO_PARTS = (".tab", ".dat", ".map", ".id", ".ind", ".mif", ".mid")
_PARTS = {suffix: parts for parts in (_SHAPEFILE_PARTS, _MAPINFO_PARTS) for suffix in parts}
_SHX_HEADER = 100
_DBF_DELETED = 0x2A
# A million parcels take 0.23 s for geometries and 0.1 s for each column of text; what takes longer is planned from its mean.
_SCAN_SECONDS = 2.0
_SCAN_STEP = 100_000
# A row of SQLite beside its values, with its places in indexes; a number in it; and what of a file may be neither.
_ROW_BYTES, _NUMBER_BYTES, _UNEXPLAINED_BYTES = 72, 9, 8 * MIB
_LONG_TYPES = ("OFTString", "OFTBinary", "OFTStringList", "OFTIntegerList", "OFTInteger64List", "OFTRealList")
_BLOCK_ROWS = 8192  # index records read at once
_BLOCK_BYTES = 512 * KIB


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of features' sizes in bytes of WKB and attributes.

    Attributes:
        mean_bytes: mean of a feature, attributes included.
        largest_bytes: the largest geometry, 0 where not known.
        attributes_bytes: the largest attributes of a feature, where they are known apart from its geometry; else 0.
        total_bytes: of all geometries together, at least, where known; else 0.
        counted: features counted on the way, by other means than OGR; -1 where they were not.
        runs: `(rows, bytes)`: the largest batch of so many rows, exactly, for the rows asked for, half of them, and so on;
            empty where not known.
    """

    mean_bytes: int
    largest_bytes: int = 0
    attributes_bytes: int = 0
    total_bytes: int = 0
    counted: int = -1
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def feature_bytes(self) -> int:
        """Upper bound of a whole feature, bytes; 0 where not known."""
        return self.largest_bytes + self.attributes_bytes


def dataset_bytes(path: Path) -> int:
    """Size of the files that make up a dataset; 0 where they are not local."""
    if (parts := _PARTS.get(path.suffix.lower())) is not None:
        return sum(part.stat().st_size for end in parts if (part := _sibling(path, end)))
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if path.is_file() else 0


def layer_path(path: Path, driver: str, layer: str) -> Path:
    """The file that a layer is in: of a folder of Shapefiles, the one that bears its name; of a Shapefile's parts, its .shp."""
    if driver != "ESRI Shapefile":
        return path
    return _sibling(path / f"{layer}.shp" if path.is_dir() else path, ".shp") or path


def read_sizes(path: Path, info: dict[str, Any], label: str, rows: int) -> Sizes:
    """Sizes of a layer's features, as exactly as its format tells without decoding them; batches have at most `rows`.

    Raises:
        SourceError: the files are shorter than their headers say.
    """
    path, features = layer_path(path, info["driver"], info["layer_name"]), int(info["features"])
    overhead = 8 * (len(info["fields"]) + 1)
    mean = dataset_bytes(path) // max(features, 1) + overhead if features > 0 else 0
    if info["driver"] == "ESRI Shapefile" and path.suffix.lower() == ".shp":
        record_bytes = _check_shapefile(path, label)
        return _from_lengths(_kept_lengths(path, label), rows, record_bytes + overhead)
    if info["driver"] == "FlatGeobuf" and path.is_file():
        largest = flatgeobuf.Largest()
        sizes = _from_lengths(flatgeobuf.lengths(path, label, largest), rows, overhead)
        return replace(sizes, largest_bytes=largest.geometry_bytes, attributes_bytes=largest.attributes_bytes)
    if info["driver"] in ("GPKG", "SQLite") and path.is_file():
        sizes = _scan_sqlite(path, info, label)
        return replace(sizes, mean_bytes=max(mean, sizes.mean_bytes + overhead))
    if info["driver"] in texts.DRIVERS and path.is_file():
        return Sizes(mean, *texts.largest_feature(path, info["driver"]))
    if features >= 0:
        return Sizes(mean)
    # Indexes are planned by features: where the header does not tell, they are counted.
    counted = independent_count(path, info["driver"], info["layer_name"], label) or 0
    return Sizes(dataset_bytes(path) // max(counted, 1) + overhead, counted=counted)


def independent_count(path: Path, driver: str, layer: str, label: str) -> int | None:
    """How many features a layer has, by another way than OGR's Arrow stream; None where there is none.

    Raises:
        DataError: the count itself meets damage.
    """
    path = layer_path(path, driver, layer)
    if driver == "GPKG" and path.is_file():
        try:
            with _database(path) as database:
                return int(database.execute(f"SELECT COUNT(*) FROM {_quoted(layer)}").fetchone()[0])  # noqa: S608 - quoted
        except sqlite3.DatabaseError as error:
            raise DataError(f"{label}: layer {layer} is damaged: {ogr.one_line(error)}") from error
    if driver == "ESRI Shapefile" and path.suffix.lower() == ".shp":
        return _shapefile_count(path, label)
    if driver == "FlatGeobuf" and path.is_file():
        return sum(len(block) for block in flatgeobuf.lengths(path, label))
    if driver == "GeoJSONSeq" and path.is_file():
        return texts.records(path)
    try:
        return int(ogr.read_info(str(path), layer, count=True)[0]["features"])
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{label}: layer {layer} cannot be counted: {ogr.one_line(error)}") from error


def gpkg_has_curves(path: Path, driver: str, layer: str) -> bool:
    """Whether a GeoPackage layer is declared to hold curves (OGR linearises the name of its type)."""
    if driver != "GPKG" or not path.is_file():
        return False
    curves = ("CURVE", "CURVEPOLYGON", "CIRCULARSTRING", "COMPOUNDCURVE", "MULTICURVE", "MULTISURFACE", "SURFACE")
    try:
        with _database(path) as database:
            row = database.execute(
                "SELECT geometry_type_name FROM gpkg_geometry_columns WHERE lower(table_name) = lower(?)", (layer,)
            ).fetchone()
    except sqlite3.DatabaseError:
        return False
    return bool(row) and str(row[0]).upper() in curves


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    mode = "immutable=1" if "IMMUTABLE" in ogr.open_options(str(path)) else "mode=ro"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as database:
        yield database


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _scan_sqlite(path: Path, info: dict[str, Any], label: str) -> Sizes:
    """Rows, geometries, their mean with their texts, and the largest attributes by SQLite itself; -1 and 0 what takes too long.

    Of a geometry's length SQLite reads no overflow page; of a text's it does, so a table of long texts may be too long for both.
    A column may hold a text whatever its declared type, and a view computes what is in no file.

    Raises:
        DataError: a page is damaged.
    """
    column = _quoted(info["geometry_name"]) if info["geometry_name"] else "NULL"
    geometry = f"MAX(LENGTH({column})), SUM(LENGTH({column}))"
    fields = [(_quoted(str(name)), kind) for name, kind in zip(info["fields"], info["ogr_types"], strict=True)]
    texts_of = _added_up([_length(name) for name, kind in fields if kind in _LONG_TYPES])
    label = f"{label}: layer {info['layer_name']}"
    found = _scan(path, info, label, geometry, texts_of) or _scan(path, info, label, geometry, "0")
    if found is None:
        return Sizes(0)
    explained = found.counted * (found.mean_bytes + _ROW_BYTES + _NUMBER_BYTES * len(fields))
    if dataset_bytes(path) - explained > _UNEXPLAINED_BYTES:
        # Other layers, or texts in columns that are declared to hold numbers or dates.
        found = _scan(path, info, label, geometry, _added_up([_length(name) for name, _ in fields])) or found
    return found


def _scan(path: Path, info: dict[str, Any], label: str, geometry: str, texts_of: str) -> Sizes | None:
    """One query's sizes; None where it takes too long."""
    layer = _quoted(info["layer_name"])
    row = _within_time(path, f"SELECT COUNT(*), {geometry}, MAX({texts_of}), SUM({texts_of}) FROM {layer}", label)  # noqa: S608 - quoted
    if row is None:
        return None
    count, largest, total, widest, texts_total = (int(value or 0) for value in row)
    return Sizes((total + texts_total) // max(count, 1), largest, widest, total, counted=count)


def _length(column: str) -> str:
    """SQL for a value's bytes where it is a text or a blob; else 0."""
    return f"CASE WHEN typeof({column}) IN ('text', 'blob') THEN LENGTH(CAST({column} AS BLOB)) ELSE 0 END"


def _added_up(terms: list[str]) -> str:
    """SQL for a sum; in groups, as SQLite takes no expression of more than 1000 levels."""
    groups = [" + ".join(terms[start : start + 100]) for start in range(0, len(terms), 100)]
    return " + ".join(f"({group})" for group in groups) or "0"


def _within_time(path: Path, query: str, label: str) -> tuple[Any, ...] | None:
    """The row that a query gives; None where it takes longer than a scan may, or only GDAL's SQLite can read the table.

    Raises:
        DataError: a page is damaged.
    """
    deadline = time.monotonic() + _SCAN_SECONDS
    try:
        with _database(path) as database:
            database.set_progress_handler(lambda: int(time.monotonic() > deadline), _SCAN_STEP)
            row: tuple[Any, ...] = database.execute(query).fetchone()
            return row
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        raise DataError(f"{label} is damaged: {ogr.one_line(error)}") from error


def _from_lengths(blocks: Iterable[NDArray[np.int64]], rows: int, overhead: int) -> Sizes:
    """Sizes from every feature's own length, block by block in file order; `overhead` bytes are added to each.

    The runs are those of the batches themselves: of `rows` features, of half as many, and so on.
    """
    steps = [rows >> shift for shift in range(rows.bit_length())]
    open_bytes, most = dict.fromkeys(steps, 0), dict.fromkeys(steps, 0)
    seen = total = largest = 0
    for block in blocks:
        lengths = block + overhead
        for step in steps:
            starts = np.arange(-seen % step, len(lengths), step)
            head = int(lengths[: starts[0]].sum()) if len(starts) else int(lengths.sum())
            most[step] = max(most[step], open_bytes[step] + head)
            if len(starts):
                sums = np.add.reduceat(lengths, starts)
                most[step] = max(most[step], int(sums.max()))
                open_bytes[step] = int(sums[-1])
            else:
                open_bytes[step] += head
        seen += len(lengths)
        total += int(lengths.sum())
        largest = max(largest, int(lengths.max(initial=0)))
    return Sizes(total // max(seen, 1) + 1, largest, 0, total - seen * overhead, seen, tuple(most.items()))


def _sibling(path: Path, extension: str) -> Path | None:
    for each in (path.with_suffix(extension), path.with_suffix(extension.upper())):
        if each.is_file():
            return each
    return None


def _check_shapefile(path: Path, label: str) -> int:
    """Check the .shp and .dbf against the sizes that they declare; bytes of a .dbf record.

    Layout: ESRI Shapefile Technical Description (1998); lengths are in 16-bit words, big-endian.
    """
    with path.open("rb") as file:
        header = file.read(_SHX_HEADER)
    if len(header) < _SHX_HEADER:
        raise SourceError(f"{label} is shorter than a Shapefile's header", hint=flatgeobuf.CUT_SHORT)
    declared, size = 2 * struct.unpack_from(">i", header, 24)[0], path.stat().st_size
    if size < declared:
        raise SourceError(
            f"{label} is cut short: its header declares {declared} bytes, it has {size}", hint=flatgeobuf.CUT_SHORT
        )
    table = _sibling(path, ".dbf")
    if not table:
        return 0
    count, header_bytes, record_bytes = _dbf_header(table, label)
    if table.stat().st_size < header_bytes + count * record_bytes:
        raise SourceError(
            f"{label}: its table {table.name} is cut short: it declares {count} records", hint=flatgeobuf.CUT_SHORT
        )
    return record_bytes


def _shapefile_lengths(path: Path, label: str) -> Iterator[NDArray[np.int64]]:
    """Bytes of each shape by the .shx, block by block."""
    index = _sibling(path, ".shx")
    if not index:
        return
    size = path.stat().st_size
    with index.open("rb") as file:
        file.seek(_SHX_HEADER)
        while block := file.read(8 * _BLOCK_ROWS):
            records = np.frombuffer(block, ">i4", len(block) // 8 * 2).reshape(-1, 2).astype(np.int64) * 2
            if len(records) and int(records.sum(axis=1).max()) + 8 > size:
                raise SourceError(
                    f"{label} is cut short: its index {index.name} points beyond its end", hint=flatgeobuf.CUT_SHORT
                )
            yield records[:, 1]


def _kept_lengths(path: Path, label: str) -> Iterator[NDArray[np.int64]]:
    """Those of the shapes that are not marked as deleted, which OGR skips."""
    table, index = _sibling(path, ".dbf"), _sibling(path, ".shx")
    lengths = _shapefile_lengths(path, label)
    if not (table and index) or _dbf_header(table, label)[0] != _shx_records(index):
        yield from lengths
    else:
        for block, kept in zip(lengths, _not_deleted(table, label), strict=True):
            yield block[kept]


def _not_deleted(table: Path, label: str) -> Iterator[NDArray[np.bool_]]:
    """Whether each record of a .dbf is not marked as deleted, in blocks of `_BLOCK_ROWS`.

    The table is not mapped: pages of a mapped file count as the job's.
    """
    count, header_bytes, record_bytes = _dbf_header(table, label)
    at_once = max(1, _BLOCK_BYTES // max(record_bytes, 1))
    with table.open("rb") as file:
        file.seek(header_bytes)
        for first in range(0, count if record_bytes else 0, _BLOCK_ROWS):
            rows = min(_BLOCK_ROWS, count - first)
            marks = np.empty(rows, np.uint8)
            for start in range(0, rows, at_once):
                wanted = marks[start : start + at_once]
                block = file.read(len(wanted) * record_bytes)
                if len(block) < len(wanted) * record_bytes:
                    raise SourceError(f"{label}: its table {table.name} is cut short", hint=flatgeobuf.CUT_SHORT)
                wanted[:] = np.frombuffer(block, np.uint8)[::record_bytes]
            yield marks != _DBF_DELETED


def _shx_records(index: Path) -> int:
    return (index.stat().st_size - _SHX_HEADER) // 8


def _dbf_header(table: Path, label: str) -> tuple[int, int, int]:
    """Records of a .dbf, and bytes of its header and of a record."""
    with table.open("rb") as file:
        header = file.read(32)
    if len(header) < 32:  # noqa: PLR2004
        raise SourceError(f"{label}: its table {table.name} is shorter than a header", hint=flatgeobuf.CUT_SHORT)
    count, header_bytes, record_bytes = struct.unpack_from("<IHH", header, 4)
    return count, header_bytes, record_bytes


def _shapefile_count(path: Path, label: str) -> int | None:
    """Records that are not marked as deleted, by the .dbf; by the .shx where there is no table."""
    table = _sibling(path, ".dbf")
    if table:
        return sum(int(np.count_nonzero(block)) for block in _not_deleted(table, label))
    index = _sibling(path, ".shx")
    return _shx_records(index) if index else None
