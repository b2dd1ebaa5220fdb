"""Projected against measured peaks of past runs on this host, in a small SQLite file. It never changes a plan by itself.

A file that is corrupt, locked or read-only costs a warning, never a job.
"""

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lib.units import mib

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    at REAL NOT NULL, kind TEXT NOT NULL, operation TEXT NOT NULL, driver TEXT NOT NULL, dtype TEXT NOT NULL,
    chunk TEXT NOT NULL, limit_bytes INTEGER NOT NULL, projected_bytes INTEGER NOT NULL, measured_bytes INTEGER NOT NULL,
    status TEXT NOT NULL
)
"""
_VERSION = 1  # of the schema; in the file as its user_version
_REMEDY = "move that file away, or name another one (off: none)"
_LOCKED_SECONDS = 2.0  # every finishing job waits so long for a file that somebody holds


class Past(NamedTuple):
    """Runs of one kind of work: how many, and the worst projection of them.

    Attributes:
        operation: of a raster its operation's name, of a user's function "custom" and the function's name.
        runs: how many were completed.
        projected_bytes, measured_bytes: of the completed run whose measured peak was highest against its projection; None
            where none was completed.
        margin_mb: the margin that would have covered that run, MiB; 0 where every projection held.
        stopped: how many were stopped at their limit. Why they grew is not known: a function that runs away is no projection
            that was too low.
        stopped_beyond_bytes: how far beyond its projection one of those was, at least.
    """

    kind: str
    operation: str
    driver: str
    dtype: str
    chunk: str
    runs: int
    projected_bytes: int | None
    measured_bytes: int | None
    margin_mb: int
    stopped: int
    stopped_beyond_bytes: int


def record(path: Path, report: dict[str, Any]) -> str | None:
    """Add a run that was completed, or stopped at its limit (a Report as JSON); what the latter measured is a lower bound.

    Returns:
        A warning where the file cannot be written, else None.
    """
    plan, job = report["plan"], report["job"]
    facts = plan.get("facts", {})
    chunk = "x".join(map(str, plan["window"])) if plan.get("window") else str(plan.get("batch_rows") or "")
    row = (
        time.time(),
        job["kind"],
        _operation(job),
        str(facts.get("driver") or job.get("driver") or ""),
        str(facts.get("dtype") or ""),
        chunk,
        plan["limit_bytes"],
        plan["projected_bytes"],
        report["memory"]["peak_bytes"],
        report["status"],
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path, "IMMEDIATE") as connection:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    except (sqlite3.Error, OSError) as error:
        return f"history_path {path} was not written: {error}; {_REMEDY}"
    return None


def _operation(job: dict[str, Any]) -> str:
    operation = job.get("operation") or {}
    function = operation.get("function") or job.get("function")
    return f"custom {function}" if function else str(operation.get("name", ""))


def read(path: Path) -> tuple[list[Past], str | None]:
    """Past runs by kind of work, and a warning where the file cannot be read."""
    # SQLite takes bare columns from the row that has the maximum (sqlite.org/lang_select.html, "Bare columns").
    query = """
        SELECT kind, operation, driver, dtype, chunk, status, COUNT(*), projected_bytes, measured_bytes,
               MAX(measured_bytes - projected_bytes)
        FROM runs GROUP BY kind, operation, driver, dtype, chunk, status
        ORDER BY kind, operation, driver, dtype, chunk
    """
    if not path.exists():
        return [], None
    try:
        with _opened(path) as connection:
            rows = connection.execute(query).fetchall()
    except (sqlite3.Error, OSError) as error:
        return [], f"history_path {path} cannot be read: {error}; {_REMEDY}"
    return [_past(work, list(found)) for work, found in itertools.groupby(rows, key=lambda row: row[:5])], None


def _past(work: tuple[str, str, str, str, str], rows: list[tuple[Any, ...]]) -> Past:
    """Runs of one kind of work, from a row for each status."""
    by_status = {row[5]: row[6:] for row in rows}
    runs, projected, measured, beyond = by_status.get("completed", (0, None, None, 0))
    stopped, _, _, stopped_beyond = by_status.get("exceeded", (0, None, None, 0))
    return Past(*work, runs, projected, measured, mib(max(0, beyond)), stopped, max(0, stopped_beyond))


@contextlib.contextmanager
def _opened(path: Path, transaction: Literal["DEFERRED", "IMMEDIATE"] = "DEFERRED") -> Iterator[sqlite3.Connection]:
    """A connection with one transaction; committed, unless an error ends it, and closed."""
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCKED_SECONDS)) as connection, connection:
        connection.execute(f"BEGIN {transaction}")  # the version and what follows are one look at the file
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise sqlite3.DatabaseError("another version of swath wrote it")
        yield connection
