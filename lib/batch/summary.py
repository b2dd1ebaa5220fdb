"""What came of a batch: counts, the slowest and heaviest, what failed, use of the budget; and all reports, in two files."""

import csv
import fcntl
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path
from typing import IO, Any

from lib.batch.naming import REPORTS, TABLE
from lib.batch.request import Batch
from lib.errors import BatchFailed, DestinationBusy, DestinationError
from lib.redact import redacted
from lib.reports import Report

_LISTED = 5
_FAILED_LISTED = 20
_COLUMNS = (
    "number", "source", "output", "status", "exit_code", "message", "seconds", "limit_bytes", "projected_bytes", "peak_bytes",
    "output_bytes",
)  # fmt: skip


@dataclass(slots=True)
class Summary:
    """What came of a batch.

    Attributes:
        folder: where the reports are.
        files: how many there were.
        counts: how many ended how; "reused" were done before.
        rows: of those that were done or tried, what is told of each.
        samples: `[seconds, bytes admitted, bytes resident]` over time.
        budget_bytes: what all could hold together.
        unreported: how many have no line in the files of all reports, as the disk is full.
        seconds: in all.
    """

    folder: Path
    files: int
    counts: Counter[str] = field(default_factory=Counter)
    slowest: list[dict[str, Any]] = field(default_factory=list)
    heaviest: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    samples: list[tuple[float, int, int]] = field(default_factory=list)
    budget_bytes: int | None = None
    unreported: int = 0
    planning_seconds: float = 0.0
    seconds: float = 0.0

    def conclude(self, seconds: float) -> None:
        """All are at their end, or will not be begun."""
        self.counts["not started"] = self.files - self.counts.total()
        self.counts = +self.counts
        self.seconds = seconds

    @property
    def exit_code(self) -> int:
        """0 where all are done or were, and reported; else 1."""
        return 1 if self.error else 0

    def add(self, row: dict[str, Any], *, is_reported: bool = True) -> None:
        """Take a file's row in."""
        self.unreported += not is_reported
        status = row["status"]
        self.counts[status] += 1
        if status == "completed":
            self.slowest = nlargest(_LISTED, [*self.slowest, row], key=lambda each: each["seconds"])
            self.heaviest = nlargest(_LISTED, [*self.heaviest, row], key=lambda each: each["peak_bytes"] or 0)
        elif status != "reused" and len(self.failed) < _FAILED_LISTED:
            self.failed.append(row)

    @property
    def error(self) -> BatchFailed | None:
        """What is wrong, where not all are done."""
        not_done = self.files - self.counts["completed"] - self.counts["reused"]
        if not not_done:
            return self._unreported
        lost = f" but {self.unreported}" if self.unreported else ""
        first = f": {self.failed[0]['source']}: {self.failed[0]['message']}" if self.failed else ""
        return BatchFailed(
            f"{not_done} of {self.files} files are not done{first}",
            hint=f"{self.folder / REPORTS} has all reports{lost}; a rerun does only what is missing",
        )

    @property
    def _unreported(self) -> BatchFailed | None:
        if not self.unreported:
            return None
        return BatchFailed(
            f"all files are done, and reports of {self.unreported} could not be written to {self.folder}",
            hint="free space there; outputs are whole, and a rerun takes them as they are",
        )

    def to_record(self) -> dict[str, Any]:
        """The batch as one JSON object."""
        error = self.error
        return {
            "status": "failed" if error else "completed",
            "exit_code": self.exit_code,
            "error": {"type": "BatchFailed", "message": error.message, "hint": error.hint} if error else None,
            "reports": {
                "files": self.files,
                **self.counts,
                "jsonl": str(self.folder / REPORTS),
                "csv": str(self.folder / TABLE),
            },
            "slowest": self.slowest,
            "heaviest": self.heaviest,
            "failed": self.failed,
            "memory": {"budget_bytes": self.budget_bytes, "samples": self.samples},
            "seconds": {"total": round(self.seconds, 3), "planning": round(self.planning_seconds, 3)},
        }


def row_of(batch: Batch, at: int, report: Report | None) -> dict[str, Any]:
    """What the table says of a file; without a report it was done before."""
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {
        "number": at + 1,
        "source": redacted(batch.items[at].source),
        "output": str(batch.outputs[at]),
        "status": "reused",
    }
    if report is None:
        return row | {"exit_code": 0}
    plan, memory = report.plan or {}, report.memory
    return row | {
        "status": report.status,
        "exit_code": report.exit_code,
        "message": report.error.message if report.error else None,
        "seconds": report.seconds.total,
        "limit_bytes": memory.cap.bytes if memory.cap else None,
        "projected_bytes": plan.get("projected_bytes"),
        "peak_bytes": memory.peak_bytes,
        "output_bytes": report.output.bytes if report.output else None,
    }


class Reports:
    """The two files, written as ends come, line by line: a kill, or a full disk, leaves whole lines."""

    def __init__(self, lines: IO[bytes], table: IO[bytes]) -> None:
        self._lines, self._table = lines, table
        _append(table, _csv_line(_COLUMNS))

    def add(self, row: dict[str, Any], report: Report | None) -> bool:
        """One file's row and report; whether both could be written: a full disk stops no other file."""
        record = {"number": row["number"], "source": row["source"], "output_path": row["output"]}
        if report is None:
            record |= {"status": "reused", "exit_code": 0, "error": None}
        else:
            record |= report.to_record()
        line = json.dumps(record, default=str) + "\n"
        return all([_append(self._table, _csv_line([row[name] for name in _COLUMNS])), _append(self._lines, line)])


def _csv_line(values: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()


def _append(file: IO[bytes], line: str) -> bool:
    """All of a line, or nothing."""
    rest = line.encode("utf-8", "surrogateescape")
    size = os.fstat(file.fileno()).st_size
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with suppress(OSError):
            file.truncate(size)
        return False
    return True


@contextmanager
def reports_in(folder: Path) -> Iterator[Reports]:
    """The files of all reports of this run, anew.

    Raises:
        DestinationBusy: another batch writes them.
        DestinationError: they cannot be made.
    """
    try:
        lines = (folder / REPORTS).open("ab", buffering=0)
        table = (folder / TABLE).open("ab", buffering=0)
    except OSError as error:
        raise DestinationError(f"folder {folder} cannot be written: {error.strerror}", hint="choose another") from error
    with lines, table:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DestinationBusy(
                f"another batch writes to {folder}", hint="wait for it, or choose another folder"
            ) from error
        lines.truncate(0)
        table.truncate(0)
        yield Reports(lines, table)
