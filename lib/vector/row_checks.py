"""Rows as they are read: text in UTF-8, geometries whole and linear. What is neither is an error, or left out and noted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.vector import gdal
from lib.vector.bad_rows import BadRow, error_of
from lib.vector.encoding import Texts
from lib.vector.whole import curved, damaged
from lib.vector.wkb import NOT_LINEAR, column_of, is_any_of

# GDAL's own default; a chord is so far from its arc at most, as a share of the radius: 1 - cos(2 degrees).
STEP_DEGREES = 4.0
CHORD_SHARE = 0.00061
_DAMAGED = "its geometry does not decode"
_COLLECTION = 7


class Nulls(NamedTuple):
    """Rows whose geometry came as null.

    Attributes:
        at: their places in the batch, (nulls,) int64.
        rows: their numbers in the source, from 0, (nulls,) int64; None where those are not known.
        fids: their feature ids, (nulls,) int64; None where none were read.
        batch: all columns by name.
    """

    at: NDArray[np.int64]
    rows: NDArray[np.int64] | None
    fids: NDArray[np.int64] | None
    batch: dict[str, Any]


Hidden = Callable[[Nulls], NDArray[np.bool_]]


class Found(NamedTuple):
    """What was found in a batch.

    Attributes:
        rows: that were read.
        places: of those that are left, (rows,) int64; None where all are.
        bad: the others.
        linearised: rows that had curves.
        fids: feature ids of the rows that are left, where they are a row's name in the file, (rows,) int64.
    """

    rows: int
    places: NDArray[np.int64] | None = None
    bad: tuple[BadRow, ...] = ()
    linearised: int = 0
    fids: NDArray[np.int64] | None = None


@dataclass(slots=True)
class RowChecks:
    """The rows of one reading, batch after batch.

    Attributes:
        texts: looks at text, and knows the rows' numbers.
        geometry: the geometry column's name; None where there is none.
        skips: whether bad rows are left out.
        hidden: of rows whose geometry came as null, for which the file has one; None where that is not known.
        wants_fids: whether feature ids are a row's name in the file, and are to be read for these checks.
        lines: of rows from a number on, so many, places of those whose lines are bad, with what is wrong; None: not looked at.
        fid: the column of feature ids, where it was read.
        found: what was found in the latest batch.
    """

    texts: Texts
    geometry: str | None = None
    skips: bool = False
    hidden: Hidden | None = None
    wants_fids: bool = False
    lines: Callable[[int, int], dict[int, str]] | None = None
    fid: str | None = None
    found: Found = field(default_factory=lambda: Found(0))

    def checked(self, columns: list[Any], names: list[str]) -> list[Any]:
        """A batch's columns, of the rows that are sound.

        Raises:
            DataError: one is not, and bad rows are not to be skipped.
        """
        first = self.texts.row if self.texts.is_numbered else None
        columns = self.texts.checked(columns, names)
        rows = len(columns[0]) if columns else 0
        bad, linearised = dict(self.texts.bad), 0
        if self.lines is not None and first is not None:
            bad = self.lines(first, rows) | bad
        if self.geometry in names:
            at = names.index(self.geometry)
            columns[at], linearised = self._geometries(columns[at], first, dict(zip(names, columns, strict=True)), bad)
        fids = None
        if self.wants_fids and self.fid in names:
            fids = _numbers(columns[names.index(self.fid)])
        if not bad:
            self.found = Found(rows, linearised=linearised, fids=fids)
            return columns
        listed = tuple(
            BadRow(None if first is None else first + row + 1, None if fids is None else int(fids[row]), bad[row])
            for row in sorted(bad)
        )
        if not self.skips:
            raise error_of(listed[0], self.texts.label)
        places = np.setdiff1d(np.arange(rows), np.array(sorted(bad)))
        self.found = Found(rows, places, listed, linearised, None if fids is None else fids[places])
        return [column.take(pa.array(places)) for column in columns]

    def _geometries(self, array: Any, first: int | None, batch: dict[str, Any], bad: dict[int, str]) -> tuple[Any, int]:
        """The column with chords for arcs, and how many rows had such; rows without a sound geometry go into `bad`."""
        if array.null_count and self.hidden is not None:
            at = np.flatnonzero(~_is_valid(array))
            fids = _numbers(batch[self.fid])[at] if self.fid in batch else None
            nulls = Nulls(at, None if first is None else first + at, fids, batch)
            for row in at[self.hidden(nulls)].tolist():
                bad.setdefault(row, _DAMAGED)
        column = column_of(array)
        for row in np.flatnonzero(damaged(column)).tolist():
            bad.setdefault(row, _DAMAGED)
        if not is_any_of(column.types, (*NOT_LINEAR, _COLLECTION)).any():
            return array, 0
        rows = [row for row in curved(column) if row not in bad]
        if not rows:
            return array, 0
        values = array.to_pylist()
        for row in rows:
            values[row] = gdal.linear(values[row], STEP_DEGREES)
        return pa.array(values, array.type), len(rows)


def _numbers(array: Any) -> NDArray[np.int64]:
    """An Arrow array of 64-bit integers without nulls; its own `to_numpy` imports pandas: 65 MiB."""
    found: NDArray[np.int64] = np.frombuffer(array.buffers()[1], np.int64, len(array), array.offset * 8)
    return found


def _is_valid(array: Any) -> NDArray[np.bool_]:
    """Which values are not null, where some are; likewise."""
    bits = np.unpackbits(np.frombuffer(array.buffers()[0], np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(bool)
