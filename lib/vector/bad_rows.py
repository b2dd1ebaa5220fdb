"""Rows that cannot be read or do not fit: an error that says where, or, where a job says so, skipped, counted and listed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lib.errors import DataError

# Of more only the number is told.
LISTED = 20


class BadRow(NamedTuple):
    """A row that is bad.

    Attributes:
        row: its number in the source, from 1; None where that is not known.
        fid: its feature id, where the format has such.
        reason: what is wrong with it, in words that follow its number.
        hint: what to do about it.
    """

    row: int | None
    fid: int | None
    reason: str
    hint: str = ""

    @property
    def words(self) -> str:
        """Which row, and what is wrong with it."""
        return f"{which(self.row, self.fid)}: {self.reason}"


def which(row: int | None, fid: int | None) -> str:
    """A row in words, by what is known of it."""
    if row is None:
        return "one of its features" if fid is None else f"the feature of id {fid}"
    return f"row {row}" if fid is None else f"row {row} (feature id {fid})"


@dataclass(slots=True)
class BadRows:
    """The bad rows of a pass.

    Attributes:
        label: the source's base name, for messages.
        skips: whether they are skipped; else the first is an error.
        count: how many there were.
        listed: the first of them.
    """

    label: str = ""
    skips: bool = False
    count: int = 0
    listed: list[BadRow] = field(default_factory=list)

    def add(self, rows: Iterable[BadRow]) -> None:
        """Take bad rows in.

        Raises:
            DataError: they are not to be skipped.
        """
        for each in rows:
            if not self.skips:
                raise error_of(each, self.label)
            self.count += 1
            if len(self.listed) < LISTED:
                self.listed.append(each)

    @property
    def result(self) -> dict[str, Any]:
        """What a result says of them."""
        listed = [{"row": each.row, "fid": each.fid, "reason": each.reason} for each in self.listed]
        return {"features_bad": self.count, "bad_rows": listed}

    @property
    def notes(self) -> list[str]:
        """What is to be warned of."""
        if not self.count:
            return []
        more = f", and {self.count - 1} more" if self.count > 1 else ""
        return [f"{self.label}: {self.count} bad rows were skipped: {self.listed[0].words}{more}"]


def error_of(row: BadRow, label: str) -> DataError:
    """The error that a bad row is where it is not skipped."""
    return DataError(
        f"{label}: {row.words}", hint=row.hint or "mend it, or leave such rows out with --skip-bad", row=row.row
    )
