"""Features in texts (GeoJSON, GeoJSONSeq, CSV): how large they are and how many, by passes over the bytes that parse nothing.

A pass takes a tenth of what OGR takes to open such a file, which it reads whole.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRIVERS", "largest_feature", "records"]

DRIVERS = ("GeoJSON", "GeoJSONSeq", "CSV")
_BLOCK_BYTES = 256 * 1024
_RECORD_SEPARATOR = b"\x1e"
_FEATURE_WORD = b'"Feature"'
_VERTEX_BYTES = 24  # of WKB, with Z
# Three numbers of 17 digits with sign, point and exponent, and what stands between them: more digits are no vertex.
_VERTEX_CHARACTERS = 80
_IN_COORDINATES = np.isin(np.arange(256), list(b"0123456789+-.eE,[]() \t\r\n"))

_Starts = Callable[[bytes], NDArray[np.intp]]


def largest_feature(path: Path, driver: str) -> tuple[int, int]:
    """Upper estimates of the largest geometry, as WKB, and of the largest attributes of a feature, bytes.

    A feature reaches from one `"Feature"` to the next, in a sequence from one separator to the next, in a CSV from one line
    end outside quotes to the next. It has at most as many vertices as opening brackets (commas, in a CSV's WKT). What is no
    character of a coordinate belongs to its attributes, and so do more of those than so many vertices take.
    """
    vertex = ord("," if driver == "CSV" else "[")
    with path.open("rb") as file:
        starts, overlap = _boundaries(file, driver)
        geometry = attributes = 0
        unfinished = np.zeros((3, 1), np.int64)
        carried = b""  # a separator may lie across two blocks
        while block := file.read(_BLOCK_BYTES):
            block = carried + block
            at = np.array([0, *starts(block)])
            counts = np.stack([np.add.reduceat(row, at, dtype=np.int64) for row in _tallied(block, vertex)])
            counts[:, :1] += unfinished
            vertices, in_coordinates, characters = counts
            geometry = max(geometry, int(vertices.max()) * _VERTEX_BYTES)
            others = characters - np.minimum(in_coordinates, vertices * _VERTEX_CHARACTERS)
            attributes = max(attributes, int(others.max()))
            carried = block[len(block) - min(overlap, len(block)) :]
            unfinished = counts[:, -1:] - np.stack([row.sum() for row in _tallied(carried, vertex)])[:, None]
    return geometry, attributes


def _tallied(block: bytes, vertex: int) -> tuple[NDArray[np.bool_], ...]:
    """`(bytes,)` bool each: begins a vertex, may be of a coordinate, is a character."""
    text = np.frombuffer(block, np.uint8)
    return text == vertex, _IN_COORDINATES[text], np.ones(len(text), np.bool_)


def _boundaries(file: BinaryIO, driver: str) -> tuple[_Starts, int]:
    """What finds where features begin in a block, and how many bytes of a block the next one must see again."""
    if driver == "GeoJSON":
        word = re.compile(re.escape(_FEATURE_WORD))
        return lambda block: np.array([found.start() for found in word.finditer(block)], np.intp), len(
            _FEATURE_WORD
        ) - 1
    if driver == "CSV":
        return _LinesOutsideQuotes(), 0
    separator = _separator(file)[0]
    return lambda block: np.flatnonzero(np.frombuffer(block, np.uint8) == separator), 0


class _LinesOutsideQuotes:
    """Line ends of a CSV, block by block; those between quotes belong to a value (RFC 4180)."""

    def __init__(self) -> None:
        self._inside = False

    def __call__(self, block: bytes) -> NDArray[np.intp]:
        text = np.frombuffer(block, np.uint8)
        inside = np.logical_xor.accumulate(text == ord('"')) ^ self._inside
        self._inside = bool(inside[-1])
        return np.flatnonzero((text == ord("\n")) & ~inside)


def records(path: Path) -> int:
    """Records of a GeoJSON text sequence: lines that are not blank, or what stands behind RS bytes where it begins with one."""
    count, is_open = 0, False
    with path.open("rb") as file:
        separator = _separator(file)
        while block := file.read(_BLOCK_BYTES):
            first, *others = block.split(separator)
            is_open |= bool(first.strip())
            for part in others:
                count += is_open
                is_open = bool(part.strip())
    return count + is_open


def _separator(file: BinaryIO) -> bytes:
    """What stands between the records of a GeoJSON text sequence: RS where it begins with one (RFC 8142), else line ends."""
    start = file.read(1)
    file.seek(0)
    return _RECORD_SEPARATOR if start == _RECORD_SEPARATOR else b"\n"
