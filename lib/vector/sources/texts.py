"""Features in texts (GeoJSON, GeoJSONSeq, CSV): how long they are and how many, by a pass over the bytes that parses nothing.

A pass takes a tenth of what OGR takes to open such a file, which it reads whole.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lib.diagnosis import DAMAGED_HINT
from lib.errors import DataError
from lib.vector.sources.facts import Sizes, sizes_of

_BLOCK_BYTES = 256 * 1024
_RECORD_SEPARATOR = b"\x1e"
_COLLECTION = re.compile(r'"features"\s*:\s*\[')
_FEATURE = re.compile(rb'"Feature"')
_OVERLAP = len('"Feature"') - 1  # a word may lie across two blocks

# A feature's number, beside its properties; a text of that name OGR makes a field.
_NUMBER = re.compile(
    rb'"type"\s*:\s*"Feature"\s*,\s*"id"\s*:\s*-?\d|\{\s*"id"\s*:\s*-?\d+\s*,\s*"type"\s*:\s*"Feature"'
)

_Ends = Callable[[bytes, bytes], NDArray[np.intp]]


def sizes(path: Path, info: dict[str, Any], label: str, rows: int) -> Sizes:
    """Sizes of the records as text; a GeoJSON's reach from one `"Feature"` to the next. How many there are OGR knows better."""
    del label
    ends: dict[str, _Ends] = {"GeoJSON": _words, "CSV": _LinesOutsideQuotes()}
    found = sizes_of(_lengths(path, ends.get(info["driver"])), rows, 8 * (len(info["fields"]) + 1))
    return replace(found, count=-1, total_bytes=0)


def has_numbers(path: Path) -> bool:
    """Whether the first features of a GeoJSON have numbers as ids."""
    with path.open("rb") as file:
        return _NUMBER.search(file.read(_BLOCK_BYTES)) is not None


def first_members(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Texts that a GeoJSON's collection has beside its features, of these names, as far as they stand before those."""
    with path.open("rb") as file:
        start = file.read(_BLOCK_BYTES).partition(b'"features"')[0].decode(errors="replace")
    found = {}
    for name in names:
        if match := re.search(rf'"{name}"\s*:\s*(?=")', start):
            with suppress(ValueError):
                found[name] = str(json.JSONDecoder().raw_decode(start, match.end())[0])
    return found


def count(path: Path, layer: str, label: str) -> int:
    """Records of a GeoJSON text sequence: lines that are not blank, or what stands behind RS bytes where it begins with one.

    OGR skips those that are no JSON.
    """
    del layer, label
    found, is_open = 0, False
    with path.open("rb") as file:
        separator = _separator(file)
        while block := file.read(_BLOCK_BYTES):
            first, *others = block.split(separator)
            is_open |= bool(first.strip())
            for part in others:
                found += is_open
                is_open = bool(part.strip())
    return found + is_open


def lines(path: Path) -> Iterator[bytes]:
    """The records of a GeoJSON text sequence that are not blank, one by one."""
    with path.open("rb") as file:
        separator = _separator(file)
        if separator == b"\n":
            yield from (line for line in file if line.strip())
            return
        rest = b""
        while block := file.read(_BLOCK_BYTES):
            *records, rest = (rest + block).split(separator)
            yield from (record for record in records if record.strip())
        if rest.strip():
            yield rest


def torn_at(path: Path) -> int | None:
    """Where the last record of a text sequence begins, if nothing ends it and it is no whole feature; else None.

    OGR may take such a record for a feature with what was in its buffer before, and pass over another.
    """
    with path.open("rb") as file:
        separator = _separator(file)
        size, back = file.seek(0, 2), _BLOCK_BYTES
        while True:
            start = file.seek(max(0, size - back))
            block = file.read()
            found = block.rfind(separator)
            if found >= 0 or not start:
                break
            back *= 4
    record = block[found + 1 :]
    return start + found + 1 if record.strip() and feature_of(record) is None else None


def check_xml(path: Path, label: str) -> None:
    """Say where a file is no XML any more.

    Raises:
        DataError: it is not to its end.
    """
    from xml.parsers import expat

    parser = expat.ParserCreate()
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise DataError(f"{label} is damaged: {error}", hint=DAMAGED_HINT) from error


def feature_of(record: bytes) -> dict[str, Any] | None:
    """The feature that a record of a text sequence is; None where it is none: OGR leaves it out without a word."""
    try:
        found = json.loads(record.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return found if is_feature(found) else None


def features(path: Path, driver: str) -> Iterator[dict[str, Any]]:
    """The features of a GeoJSON or of a text sequence, one by one, as far as Python reads them."""
    if driver == "GeoJSONSeq":
        yield from (found for each in lines(path) if (found := feature_of(each)) is not None)
        return
    yield from (found for found in elements(path) if is_feature(found))


def is_feature(found: Any) -> bool:
    """Whether it says that it is one."""
    return isinstance(found, dict) and found.get("type") == "Feature"


def elements(path: Path) -> Iterator[Any]:
    """What a GeoJSON's collection has among its features, one by one, as far as Python reads it."""
    with path.open(encoding="utf-8", errors="replace") as file:
        buffer, decoder = file.read(_BLOCK_BYTES), json.JSONDecoder()
        begin = _COLLECTION.search(buffer)
        while begin is None and (block := file.read(_BLOCK_BYTES)):
            buffer += block
            begin = _COLLECTION.search(buffer)
        buffer = buffer[begin.end() :] if begin else ""
        while True:
            buffer = buffer.lstrip(" \t\r\n,")
            try:
                found, end = decoder.raw_decode(buffer)
            except ValueError:
                if not (block := file.read(max(_BLOCK_BYTES, len(buffer)))):
                    return
                buffer += block
                continue
            yield found
            buffer = buffer[end:]


def _lengths(path: Path, ends: _Ends | None) -> Iterator[NDArray[np.int64]]:
    """Bytes from each record's beginning to the next one's, block by block; what stands before the first is none."""
    done = at = 0  # bytes that are in records that have ended; read
    before = b""
    with path.open("rb") as file:
        separator = _separator(file)
        find = ends or _separators(separator)
        is_first = ends is not None or separator == _RECORD_SEPARATOR
        while block := file.read(_BLOCK_BYTES):
            found = find(before, block) + at
            if len(found):
                yield np.diff(found, prepend=done).astype(np.int64)[is_first:]
                done, is_first = int(found[-1]), False
            at += len(block)
            before = block[-_OVERLAP:]
    yield np.array([at - done] if at > done + 1 else [], np.int64)


def _words(before: bytes, block: bytes) -> NDArray[np.intp]:
    begins = [found.start() for found in _FEATURE.finditer(before + block)]
    return np.array(begins, np.intp) - len(before)


def _separators(separator: bytes) -> _Ends:
    return lambda _, block: np.flatnonzero(np.frombuffer(block, np.uint8) == separator[0])


class _LinesOutsideQuotes:
    """Line ends of a CSV, block by block; those between quotes belong to a value (RFC 4180)."""

    def __init__(self) -> None:
        self._inside = False

    def __call__(self, before: bytes, block: bytes) -> NDArray[np.intp]:
        del before
        text = np.frombuffer(block, np.uint8)
        inside = np.logical_xor.accumulate(text == ord('"')) ^ self._inside
        self._inside = bool(inside[-1])
        return np.flatnonzero((text == ord("\n")) & ~inside)


def _separator(file: BinaryIO) -> bytes:
    """What stands between the records of a GeoJSON text sequence: RS where it begins with one (RFC 8142), else line ends."""
    start = file.read(1)
    file.seek(0)
    return _RECORD_SEPARATOR if start == _RECORD_SEPARATOR else b"\n"
