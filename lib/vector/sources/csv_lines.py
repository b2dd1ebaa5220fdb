"""Lines of a CSV that OGR does not read as they are: more values than there are fields, quotes that are not closed.

By one pass over the bytes, in NumPy (RFC 4180; the delimiter as OGR finds it, in the first line).
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 256 * 1024
_DELIMITERS = b",;\t|"
_QUOTE, _LINE_END, _RETURN = b'"\n\r'
UNCLOSED = "its quotes are not closed"
_TORN = "the file ends in it: it has fewer values than there are fields"


@dataclass(slots=True)
class Lines:
    """The records of a CSV, by their number from 0 behind the header.

    Attributes:
        path: the file.
        has_header: whether the first record has names.
        count: records, one whose quotes are not closed among them.
        is_unclosed: whether the last one is such.
    """

    path: Path
    has_header: bool
    count: int = -1
    is_unclosed: bool = False
    _torn: int = -1
    _long: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def too_long(self, first: int, rows: int) -> dict[int, str]:
        """Places of rows, of so many from number `first` on, that have more values than there are fields."""
        self.read()
        low, high = np.searchsorted(self._long, [first, first + rows])
        bad = {int(row) - first: "it has more values than there are fields" for row in self._long[low:high]}
        return bad | ({self._torn - first: _TORN} if first <= self._torn < first + rows else {})

    def read(self) -> None:
        """Go through the file, once."""
        if self.count >= 0:
            return
        delimiter, width, long, row = _delimiter(self.path), -1, list[int](), -int(self.has_header)
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            for starts, ends, delimiters, is_closed in _records(self.path, delimiter):
                filled = np.flatnonzero(~_is_blank(file, starts, ends))
                if len(filled) and width < 0:
                    width = int(delimiters[filled[0]])
                for at in filled[delimiters[filled] > width].tolist():
                    if _has_more(file, int(starts[at]), int(ends[at]), delimiter, width):
                        long.append(row + int(np.searchsorted(filled, at)))
                row += len(filled)
                self.is_unclosed = not is_closed and bool(len(filled))
                is_last = is_closed and len(filled) and int(ends[filled[-1]]) == size  # no line end behind it
                if is_last and int(delimiters[filled[-1]]) < width:
                    self._torn = row - 1
        self.count, self._long = max(row, 0), np.array(long, np.int64)


def _delimiter(path: Path) -> int:
    """The one that stands outside quotes in the first line; a comma where there are several or none."""
    with path.open("rb") as file:
        line, inside, found = file.readline(_BLOCK_BYTES), False, set[int]()
    for each in line:
        inside ^= each == _QUOTE
        if not inside and each in _DELIMITERS:
            found.add(each)
    return found.pop() if len(found) == 1 else _DELIMITERS[0]


def _records(
    path: Path, delimiter: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], bool]]:
    """Where records begin and end (without their line's end), delimiters in each, and whether their quotes are closed."""
    inside, begun, counted, at = False, 0, 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            text = np.frombuffer(block, np.uint8)
            quoted = np.logical_xor.accumulate(text == _QUOTE) ^ inside
            inside = bool(quoted[-1])
            ends = np.flatnonzero((text == _LINE_END) & ~quoted)
            sums = np.cumsum((text == delimiter) & ~quoted) + counted
            if len(ends):
                yield np.append(begun, ends[:-1] + at + 1), ends + at, np.diff(sums[ends], prepend=0), True
                begun, counted = int(ends[-1]) + at + 1, int(sums[-1] - sums[ends[-1]])
            else:
                counted = int(sums[-1])
            at += len(block)
    if at > begun:
        yield np.array([begun]), np.array([at]), np.array([counted]), not inside


def _is_blank(file: BinaryIO, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    blank: NDArray[np.bool_] = ends <= starts
    for at in np.flatnonzero(ends - starts == 1).tolist():
        file.seek(int(starts[at]))
        blank[at] = file.read(1)[0] == _RETURN
    return blank


def _has_more(file: BinaryIO, start: int, end: int, delimiter: int, width: int) -> bool:
    """Whether a record's values beyond the fields say anything."""
    file.seek(start)
    text = file.read(end - start).decode(errors="replace").rstrip("\r")
    values = next(csv.reader(io.StringIO(text, newline=""), delimiter=chr(delimiter)), [])
    return any(value.strip() for value in values[width + 1 :])
