"""What a FlatGeobuf's own bytes say of its features: how many there are, and how large each is.

Layout: flatgeobuf.org; 8 bytes of magic, the header with its size in front, the packed R-tree, then features with theirs.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.errors import SourceError
from lib.vector.sources.facts import Sizes, sizes_of
from lib.vector.sources.shapefile import CUT_SHORT

# Index records read at once: 1.25 MiB.
_BLOCK_ROWS = 32768
_LEAF = np.dtype([("box", "<f8", 4), ("offset", "<u8")])


def sizes(path: Path, info: dict[str, Any], label: str, rows: int) -> Sizes:
    """Sizes of the features, and how many there are.

    Raises:
        SourceError: it is shorter than its header or its index says.
    """
    return sizes_of(_lengths(path, label), rows, 8 * (len(info["fields"]) + 1))


def count(path: Path, layer: str, label: str) -> int:
    """Features by the index, or by their size prefixes where there is none."""
    del layer
    return sum(len(block) for block in _lengths(path, label))


def in_box(path: Path, label: str, box: tuple[float, float, float, float]) -> tuple[int, int] | None:
    """How many features' envelopes lie within a box, and how many meet it, by the index; None where there is none."""
    left, low, right, high = box
    within = meeting = 0
    with path.open("rb") as file:
        header = _read_header(file, path.stat().st_size, label)
        if not (header.features and header.node_size):
            return None
        file.seek(header.end + _LEAF.itemsize * _tree_nodes(header.features, header.node_size)[1])
        for first in range(0, header.features, _BLOCK_ROWS):
            leaves = _leaves(file, min(_BLOCK_ROWS, header.features - first))["box"]
            x0, y0, x1, y1 = leaves.T
            meeting += int(((x1 >= left) & (x0 <= right) & (y1 >= low) & (y0 <= high)).sum())
            within += int(((x0 >= left) & (x1 <= right) & (y0 >= low) & (y1 <= high)).sum())
    return within, meeting


def _lengths(path: Path, label: str) -> Iterator[NDArray[np.int64]]:
    """Bytes of every feature, block by block: by the index's leaves, or by walking the size prefixes where there is no index."""
    with path.open("rb") as file:
        header = _read_header(file, path.stat().st_size, label)
        if header.features and header.node_size:
            yield from _by_index(file, header, label)
        else:
            yield from _walk_prefixes(file, header)


class _Header(NamedTuple):
    """Features and node size as declared; where the header ends, and the file's size, bytes."""

    features: int
    node_size: int
    end: int
    size: int


def _read_header(file: BinaryIO, size: int, label: str) -> _Header:
    start = file.read(12)
    (header_bytes,) = struct.unpack_from("<I", start, 8) if len(start) == 12 else (size,)  # noqa: PLR2004 - magic and size
    if 12 + header_bytes > size:
        raise SourceError(f"{label} is shorter than a FlatGeobuf's header", hint=CUT_SHORT)
    buffer = file.read(header_bytes)
    # Fields 8 and 9 are features_count and index_node_size; their defaults are 0 and 16.
    count_at, node_at = _field(buffer, 8), _field(buffer, 9)
    count = struct.unpack_from("<Q", buffer, count_at)[0] if count_at else 0
    node_size = struct.unpack_from("<H", buffer, node_at)[0] if node_at else 16
    return _Header(count, node_size, 12 + header_bytes, size)


def _field(buffer: bytes, index: int) -> int:
    """Where a field of a FlatBuffers root table stands; 0 where it has its default."""
    (table,) = struct.unpack_from("<I", buffer, 0)
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    (vtable_bytes,) = struct.unpack_from("<H", buffer, vtable)
    slot = 4 + 2 * index
    offset = struct.unpack_from("<H", buffer, vtable + slot)[0] if slot < vtable_bytes else 0
    return table + offset if offset else 0


def _index_bytes(header: _Header) -> int:
    return _LEAF.itemsize * _tree_nodes(header.features, header.node_size)[0]


def _by_index(file: BinaryIO, header: _Header, label: str) -> Iterator[NDArray[np.int64]]:
    """Lengths by the leaves, which are in the order of the features."""
    size = header.size - header.end - _index_bytes(header)
    file.seek(header.end + _LEAF.itemsize * _tree_nodes(header.features, header.node_size)[1])
    previous: NDArray[np.int64] = np.zeros(0, np.int64)
    for first in range(0, header.features, _BLOCK_ROWS):
        rows = min(_BLOCK_ROWS, header.features - first)
        offsets = _leaves(file, rows)["offset"].astype(np.int64)
        if size <= 0 or len(offsets) < rows or int(offsets.max()) >= size:
            raise SourceError(
                f"{label} is cut short: its index points beyond its end, byte {header.size}", hint=CUT_SHORT
            )
        joined = np.concatenate([previous, offsets])
        yield np.abs(np.diff(joined))
        previous = joined[-1:]
    yield np.abs(size - previous)


def _leaves(file: BinaryIO, rows: int) -> NDArray[Any]:
    """So many records of the index, as many as there are."""
    block = file.read(rows * _LEAF.itemsize)
    return np.frombuffer(block, _LEAF, len(block) // _LEAF.itemsize)


def _tree_nodes(count: int, node_size: int) -> tuple[int, int]:
    """Nodes of a packed R-tree, and how many stand before its leaves (the root comes first)."""
    total, level = count, 0
    while level != 1:  # a single leaf has a root all the same
        level = -(-(level or count) // node_size)
        total += level
    return total, total - count


def _walk_prefixes(file: BinaryIO, header: _Header) -> Iterator[NDArray[np.int64]]:
    at, found = header.end, []
    while at + 4 <= header.size:
        file.seek(at)
        (length,) = struct.unpack("<I", file.read(4))
        found.append(4 + length)
        at += found[-1]
        if len(found) == _BLOCK_ROWS:
            yield np.array(found, np.int64)
            found.clear()
    yield np.array(found, np.int64)
