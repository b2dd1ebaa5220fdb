"""Projected against measured peaks of past runs on this host, in a small SQLite file. It never changes a plan by itself.

A file that is corrupt, locked or read-only costs a warning, never a job.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lib.units import mib

__all__ = ["Past", "read", "record"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    at REAL NOT NULL, kind TEXT NOT NULL, operation TEXT NOT NULL, driver TEXT NOT NULL, dtype TEXT NOT NULL,
    chunk TEXT NOT NULL, limit_bytes INTEGER NOT NULL, projected_bytes INTEGER NOT NULL, measured_bytes INTEGER NOT NULL,
    status TEXT NOT NULL
)
"""
_VERSION = 1  # of the schema; in the file as its user_version
_LOCKED_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Runs of one kind of work: how many, and the worst projection of them.

    Attributes:
        projected_bytes, measured_bytes: of the run whose measured peak was highest against its projection.
        margin_mb: the margin that would have covered it, MiB; 0 where every projection held.
    """

    kind: str
    operation: str
    driver: str
    dtype: str
    chunk: str
    runs: int
    projected_bytes: int
    measured_bytes: int
    margin_mb: int


def record(path: Path, report: dict[str, Any]) -> str | None:
    """Add a run that was completed, or stopped at its limit (a Report as JSON); what the latter measured is a lower bound.

    Returns:
        A warning where the file cannot be written, else None.
    """
    plan, job = report["plan"], report["job"]
    chunk = "x".join(map(str, plan["window"])) if plan.get("window") else str(plan.get("batch_rows") or "")
    row = (
        time.time(),
        job["kind"],
        (job.get("operation") or {}).get("name", ""),
        str(plan.get("facts", {}).get("driver") or job.get("driver") or ""),
        str(plan.get("facts", {}).get("dtype") or ""),
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
        return f"history_path {path} was not written: {error}"
    return None


def read(path: Path) -> tuple[list[Past], str | None]:
    """Past runs by kind of work, and a warning where the file cannot be read."""
    query = """
        SELECT kind, operation, driver, dtype, chunk, COUNT(*), projected_bytes, measured_bytes,
               MAX(measured_bytes - projected_bytes)
        FROM runs GROUP BY kind, operation, driver, dtype, chunk ORDER BY kind, operation, driver, dtype, chunk
    """
    if not path.exists():
        return [], None
    try:
        with _opened(path) as connection:
            rows = connection.execute(query).fetchall()
    except (sqlite3.Error, OSError) as error:
        return [], f"history_path {path} cannot be read: {error}"
    return [
        Past(
            kind=row[0],
            operation=row[1],
            driver=row[2],
            dtype=row[3],
            chunk=row[4],
            runs=row[5],
            projected_bytes=row[6],
            measured_bytes=row[7],
            margin_mb=mib(max(0, row[8])),
        )
        for row in rows
    ], None


@contextlib.contextmanager
def _opened(path: Path, transaction: Literal["DEFERRED", "IMMEDIATE"] = "DEFERRED") -> Iterator[sqlite3.Connection]:
    """A connection with one transaction; committed, unless an error ends it, and closed."""
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCKED_SECONDS)) as connection, connection:
        connection.execute(f"BEGIN {transaction}")  # the version and what follows are one look at the file
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise sqlite3.DatabaseError("another version of swath wrote it; move it away")
        yield connection
