"""What a Shapefile's own parts say: how many records, how large, which are marked as deleted, and whether they are whole.

Layout: ESRI Shapefile Technical Description (1998); lengths are in 16-bit words, big-endian.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import SourceError
from lib.units import KIB
from lib.vector.sources.facts import Sizes, sizes_of

CUT_SHORT = "the files are cut short: fetch or export them again"
_HEADER_BYTES = 100
_DELETED = 0x2A
_INDEX_ROWS = 65536  # records of the index read at once
_BLOCK_BYTES = 512 * KIB


def sibling(path: Path, extension: str) -> Path | None:
    """Another part of the dataset, whatever the case of its extension; None where there is none."""
    for each in (path.with_suffix(extension), path.with_suffix(extension.upper())):
        if each.is_file():
            return each
    return None


def sizes(path: Path, info: dict[str, Any], label: str, rows: int) -> Sizes:
    """Sizes by the index, of records that are marked as deleted, too.

    Raises:
        SourceError: the files are shorter than their headers say.
    """
    record_bytes = _check(path, label)
    return sizes_of(_lengths(path, label), rows, record_bytes + 8 * (len(info["fields"]) + 1))


def count(path: Path, layer: str, label: str) -> int | None:
    """Records that are not marked as deleted, by the .dbf; by the .shx where there is no table."""
    del layer
    table, index = sibling(path, ".dbf"), sibling(path, ".shx")
    if table:
        return _not_deleted(table, label)
    return (index.stat().st_size - _HEADER_BYTES) // 8 if index else None


def _check(path: Path, label: str) -> int:
    """Check the .shp and .dbf against the sizes that they declare; bytes of a .dbf record."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        raise SourceError(f"{label} is shorter than a Shapefile's header", hint=CUT_SHORT)
    declared, size = 2 * struct.unpack_from(">i", header, 24)[0], path.stat().st_size
    if size < declared:
        raise SourceError(f"{label} is cut short: its header declares {declared} bytes, it has {size}", hint=CUT_SHORT)
    table = sibling(path, ".dbf")
    if not table:
        return 0
    records, header_bytes, record_bytes = _table_header(table, label)
    if table.stat().st_size < header_bytes + records * record_bytes:
        raise SourceError(
            f"{label}: its table {table.name} is cut short: it declares {records} records", hint=CUT_SHORT
        )
    return record_bytes


def _lengths(path: Path, label: str) -> Iterator[NDArray[np.int64]]:
    """Bytes of each shape by the .shx, block by block."""
    index = sibling(path, ".shx")
    if not index:
        return
    size = path.stat().st_size
    with index.open("rb") as file:
        file.seek(_HEADER_BYTES)
        while block := file.read(8 * _INDEX_ROWS):
            records = np.frombuffer(block, ">i4", len(block) // 8 * 2).reshape(-1, 2).astype(np.int64) * 2
            if len(records) and int(records.sum(axis=1).max()) + 8 > size:
                raise SourceError(f"{label} is cut short: its index {index.name} points beyond its end", hint=CUT_SHORT)
            yield records[:, 1]


def _not_deleted(table: Path, label: str) -> int:
    """Records of a .dbf that are not marked as deleted; not mapped, as pages of a mapped file count as the job's."""
    records, header_bytes, record_bytes = _table_header(table, label)
    at_once, found = max(1, _BLOCK_BYTES // max(record_bytes, 1)), 0
    with table.open("rb") as file:
        file.seek(header_bytes)
        for first in range(0, records if record_bytes else 0, at_once):
            rows = min(at_once, records - first)
            block = file.read(rows * record_bytes)
            if len(block) < rows * record_bytes:
                raise SourceError(f"{label}: its table {table.name} is cut short", hint=CUT_SHORT)
            found += int(np.count_nonzero(np.frombuffer(block, np.uint8)[::record_bytes] != _DELETED))
    return found


def _table_header(table: Path, label: str) -> tuple[int, int, int]:
    """Records of a .dbf, and bytes of its header and of a record."""
    with table.open("rb") as file:
        header = file.read(32)
    if len(header) < 32:  # noqa: PLR2004
        raise SourceError(f"{label}: its table {table.name} is shorter than a header", hint=CUT_SHORT)
    records, header_bytes, record_bytes = struct.unpack_from("<IHH", header, 4)
    return records, header_bytes, record_bytes
