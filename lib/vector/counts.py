"""What a source's own files say beside OGR: how many features there really are, and how large they are.

OGR's Arrow streams end early without an error on a corrupt GeoPackage page, and counts in headers lie; so each format is asked in
a second way where it has one: SQLite's `COUNT(*)`, the Shapefile's index and deletion marks, FlatGeobuf's header and sizes,
the records of a GeoJSON text sequence, of which OGR skips the bad ones.
"""

import re
import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lib.errors import DataError, SourceError
from lib.vector import ogr

__all__ = ["Sizes", "dataset_bytes", "gpkg_has_curves", "independent_count", "read_sizes"]

_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf")
_SHX_HEADER = 100
_DBF_DELETED = 0x2A
# COUNT(*) with MAX(LENGTH()) takes 0.26 s on a million parcels; a table that takes longer is planned from its mean.
_SCAN_SECONDS = 2.0
_SCAN_STEP = 100_000
# Index records read at once: 2.5 MiB of FlatGeobuf's.
_BLOCK_ROWS = 65_536
_TEXT_BLOCK_BYTES = 256 * 1024
_RECORD_SEPARATOR = b"\x1e"
_FEATURE_WORD = b'"Feature"'
_VERTEX_BYTES = 24  # of WKB, with Z


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of features' sizes in bytes of WKB and attributes.

    Attributes:
        mean_bytes: mean of a feature, attributes included.
        largest_bytes: the largest geometry, 0 where not known.
        counted: features counted on the way, by other means than OGR; -1 where they were not.
        runs: `(rows, bytes)`: the largest batch of so many rows, exactly, for the rows asked for, half of them, and so on;
            empty where not known.
    """

    mean_bytes: int
    largest_bytes: int = 0
    counted: int = -1
    runs: tuple[tuple[int, int], ...] = ()


def dataset_bytes(path: Path) -> int:
    """Size of the files that make up a dataset; 0 where they are not local."""
    if path.suffix.lower() == ".shp":
        return sum(part.stat().st_size for end in _SHAPEFILE_PARTS if (part := _sibling(path, end)))
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if path.is_file() else 0


def read_sizes(path: Path, info: dict[str, Any], label: str, rows: int) -> Sizes:
    """Sizes of a layer's features, as exactly as its format tells without decoding them; batches have at most `rows`.

    Raises:
        SourceError: the files are shorter than their headers say.
    """
    features = int(info["features"])
    overhead = 8 * (len(info["fields"]) + 1)
    mean = dataset_bytes(path) // max(features, 1) + overhead if features > 0 else 0
    if info["driver"] == "ESRI Shapefile" and path.suffix.lower() == ".shp":
        record_bytes = _check_shapefile(path, label)
        sizes = _from_lengths(_shapefile_lengths(path, label), rows, record_bytes + overhead)
        kept = _shapefile_count(path)
        return sizes if kept is None else replace(sizes, counted=kept)
    if info["driver"] == "FlatGeobuf" and path.is_file():
        return _from_lengths(_flatgeobuf_lengths(path, label), rows, overhead)
    if info["driver"] in ("GPKG", "SQLite") and path.is_file():
        counted, largest = _scan_sqlite(path, info["layer_name"], info["geometry_name"], label)
        return Sizes(mean, largest, counted)
    if info["driver"] in ("GeoJSON", "GeoJSONSeq") and path.is_file():
        return Sizes(mean, _largest_text_feature(path, info["driver"]))
    return Sizes(mean)


def independent_count(path: Path, driver: str, layer: str, label: str) -> int | None:
    """How many features a layer has, by another way than OGR's Arrow stream; None where there is none.

    Raises:
        DataError: the count itself meets damage.
    """
    if driver == "GPKG" and path.is_file():
        try:
            with _database(path) as database:
                return int(database.execute(f"SELECT COUNT(*) FROM {_quoted(layer)}").fetchone()[0])  # noqa: S608 - quoted
        except sqlite3.DatabaseError as error:
            raise DataError(f"{label}: layer {layer} is damaged: {ogr.one_line(error)}") from error
    if driver == "ESRI Shapefile" and path.suffix.lower() == ".shp":
        return _shapefile_count(path)
    if driver == "FlatGeobuf" and path.is_file():
        return sum(len(block) for block in _flatgeobuf_lengths(path, label))
    if driver == "GeoJSONSeq" and path.is_file():
        return _text_records(path)
    try:
        return int(ogr.read_info(str(path), layer, count=True)[0]["features"])
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{label}: layer {layer} cannot be counted: {ogr.one_line(error)}") from error


def _text_records(path: Path) -> int:
    """Lines that are not blank, or records behind RS bytes where the file begins with one (RFC 8142), block by block."""
    records, is_open = 0, False
    with path.open("rb") as file:
        separator = _separator(file)
        while block := file.read(_TEXT_BLOCK_BYTES):
            first, *others = block.split(separator)
            is_open |= bool(first.strip())
            for part in others:
                records += is_open
                is_open = bool(part.strip())
    return records + is_open


def _largest_text_feature(path: Path, driver: str) -> int:
    """Upper estimate of the largest feature by a pass over the text, a tenth of what OGR takes to open it; nothing is parsed.

    A feature reaches from one `"Feature"` to the next (a record, in a sequence), and has at most as many vertices as brackets.
    """
    with path.open("rb") as file:
        separator = _FEATURE_WORD if driver == "GeoJSON" else _separator(file)
        largest = length = vertices = 0
        carried = b""  # a separator may lie across two blocks
        while block := file.read(_TEXT_BLOCK_BYTES):
            block = carried + block
            starts = np.array([0, *(found.start() for found in re.finditer(re.escape(separator), block))])
            lengths = np.diff(starts, append=len(block))
            brackets = np.add.reduceat(np.frombuffer(block, np.uint8) == ord("["), starts, dtype=np.int64)
            lengths[0] += length
            brackets[0] += vertices
            wkb = brackets * _VERTEX_BYTES
            largest = max(largest, int(wkb.max()), int((lengths - wkb).max()))
            carried = block[len(block) - min(len(separator) - 1, len(block)) :]
            length, vertices = int(lengths[-1]) - len(carried), int(brackets[-1]) - carried.count(b"[")
    return largest


def _separator(file: BinaryIO) -> bytes:
    """What stands between the records of a GeoJSON text sequence: RS where it begins with one (RFC 8142), else line ends."""
    start = file.read(1)
    file.seek(0)
    return _RECORD_SEPARATOR if start == _RECORD_SEPARATOR else b"\n"


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


def _scan_sqlite(path: Path, layer: str, geometry: str, label: str) -> tuple[int, int]:
    """Rows and the largest geometry by SQLite itself, which reads no overflow page for a length; -1 where it takes too long.

    Raises:
        DataError: a page is damaged.
    """
    largest = f"MAX(LENGTH({_quoted(geometry)}))" if geometry else "0"
    deadline = time.monotonic() + _SCAN_SECONDS
    try:
        with _database(path) as database:
            database.set_progress_handler(lambda: int(time.monotonic() > deadline), _SCAN_STEP)
            count, size = database.execute(f"SELECT COUNT(*), {largest} FROM {_quoted(layer)}").fetchone()  # noqa: S608 - quoted
    except sqlite3.OperationalError:
        # Interrupted at the deadline, or a table that only GDAL's SQLite can read: the pass itself is counted against it.
        return -1, 0
    except sqlite3.DatabaseError as error:
        raise DataError(f"{label}: layer {layer} is damaged: {ogr.one_line(error)}") from error
    return int(count), int(size or 0)


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
    return Sizes(total // max(seen, 1) + 1, largest, seen, tuple(most.items()))


def _sibling(path: Path, extension: str) -> Path | None:
    for each in (path.with_suffix(extension), path.with_suffix(extension.upper())):
        if each.is_file():
            return each
    return None


_CUT_SHORT = "the files are cut short: fetch or export them again"


def _check_shapefile(path: Path, label: str) -> int:
    """Check the .shp and .dbf against the sizes that they declare; bytes of a .dbf record.

    Layout: ESRI Shapefile Technical Description (1998); lengths are in 16-bit words, big-endian.
    """
    with path.open("rb") as file:
        header = file.read(_SHX_HEADER)
    if len(header) < _SHX_HEADER:
        raise SourceError(f"{label} is shorter than a Shapefile's header", hint=_CUT_SHORT)
    declared, size = 2 * struct.unpack_from(">i", header, 24)[0], path.stat().st_size
    if size < declared:
        raise SourceError(f"{label} is cut short: its header declares {declared} bytes, it has {size}", hint=_CUT_SHORT)
    table = _sibling(path, ".dbf")
    if not table:
        return 0
    count, header_bytes, record_bytes = _dbf_header(table)
    if table.stat().st_size < header_bytes + count * record_bytes:
        raise SourceError(f"{label}: its table {table.name} is cut short: it declares {count} records", hint=_CUT_SHORT)
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
                    f"{label} is cut short: its index {index.name} points beyond its end", hint=_CUT_SHORT
                )
            yield records[:, 1]


def _dbf_header(table: Path) -> tuple[int, int, int]:
    with table.open("rb") as file:
        header = file.read(32)
    count, header_bytes, record_bytes = struct.unpack_from("<IHH", header, 4)
    return count, header_bytes, record_bytes


def _shapefile_count(path: Path) -> int | None:
    """Records that are not marked as deleted, by the .dbf; by the .shx where there is no table."""
    table = _sibling(path, ".dbf")
    if table:
        count, header_bytes, record_bytes = _dbf_header(table)
        if count == 0 or record_bytes == 0:
            return 0
        marks = np.memmap(table, np.uint8, "r", header_bytes, (count * record_bytes,))[::record_bytes]
        return int(np.count_nonzero(marks != _DBF_DELETED))
    index = _sibling(path, ".shx")
    return (index.stat().st_size - _SHX_HEADER) // 8 if index else None


def _flatgeobuf_lengths(path: Path, label: str) -> Iterator[NDArray[np.int64]]:
    """Bytes of every feature, block by block: by the index's leaves, or by walking the size prefixes where there is no index.

    Layout: flatgeobuf.org; 8 bytes of magic, the header with its size in front, the packed R-tree, then features with theirs.
    Leaves are in the order of the features.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if len(start) < 12:  # noqa: PLR2004 - magic and size
            raise SourceError(f"{label} is shorter than a FlatGeobuf's header", hint=_CUT_SHORT)
        (header_bytes,) = struct.unpack_from("<I", start, 8)
        count, node_size = _flatgeobuf_header(file.read(header_bytes))
        begin = 12 + header_bytes
        if not (count and node_size):
            yield from _walk_prefixes(file, begin, size)
            return
        nodes, leaves = _tree_nodes(count, node_size)
        features = size - begin - _LEAF.itemsize * nodes
        file.seek(begin + _LEAF.itemsize * leaves)
        previous: NDArray[np.int64] = np.zeros(0, np.int64)
        for first in range(0, count, _BLOCK_ROWS):
            offsets = np.fromfile(file, _LEAF, min(_BLOCK_ROWS, count - first))["offset"].astype(np.int64)
            if features <= 0 or len(offsets) < min(_BLOCK_ROWS, count - first) or int(offsets.max()) >= features:
                raise SourceError(f"{label} is cut short: its index points beyond its end", hint=_CUT_SHORT)
            joined = np.concatenate([previous, offsets])
            yield np.abs(np.diff(joined))
            previous = joined[-1:]
        yield np.abs(features - previous)


_LEAF = np.dtype([("box", "<f8", 4), ("offset", "<u8")])


def _tree_nodes(count: int, node_size: int) -> tuple[int, int]:
    """Nodes of a packed R-tree, and how many stand before its leaves (the root comes first)."""
    total = level = count
    while level > 1:
        level = -(-level // node_size)
        total += level
    return total, total - count


def _walk_prefixes(file: BinaryIO, at: int, size: int) -> Iterator[NDArray[np.int64]]:
    lengths: list[int] = []
    while at + 4 <= size:
        file.seek(at)
        (length,) = struct.unpack("<I", file.read(4))
        lengths.append(length)
        at += 4 + length
        if len(lengths) == _BLOCK_ROWS:
            yield np.array(lengths, np.int64)
            lengths.clear()
    yield np.array(lengths, np.int64)


def _flatgeobuf_header(buffer: bytes) -> tuple[int, int]:
    """`features_count` and `index_node_size` of the header's FlatBuffers table (fields 8 and 9; their defaults are 0 and 16)."""
    (table,) = struct.unpack_from("<I", buffer, 0)
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    (vtable_bytes,) = struct.unpack_from("<H", buffer, vtable)

    def field(index: int, form: str, default: int) -> int:
        slot = 4 + 2 * index
        offset = struct.unpack_from("<H", buffer, vtable + slot)[0] if slot < vtable_bytes else 0
        return int(struct.unpack_from(form, buffer, table + offset)[0]) if offset else default

    return field(8, "<Q", 0), field(9, "<H", 16)
