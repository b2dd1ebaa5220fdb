"""The history tells of projections that were too low, and never costs a job."""

import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.memory.history import read, record
from lib.units import MIB


def _report(projected: int, measured: int, status: str = "completed", **job: Any) -> dict[str, Any]:
    return {
        "status": status,
        "job": {"kind": "raster", "operation": {"name": "normalise"}, "driver": "GTiff"} | job,
        "plan": {
            "window": [512, 512],
            "batch_rows": None,
            "limit_bytes": 256 * MIB,
            "projected_bytes": projected,
            "facts": {"driver": "GTiff", "dtype": "uint16"},
        },
        "memory": {"peak_bytes": measured},
    }


def test_the_worst_projection_names_the_margin_that_would_have_covered_it(tmp_path: Path) -> None:
    """Of three runs, one 3.5 MiB above its projection: margin 4 MiB."""
    path = tmp_path / "state" / "history.sqlite"
    for measured in (90 * MIB, 103 * MIB + MIB // 2, 95 * MIB):
        assert record(path, _report(100 * MIB, measured)) is None
    (past,), warning = read(path)
    assert warning is None
    assert (past.runs, past.margin_mb, past.chunk) == (3, 4, "512x512")
    assert past.measured_bytes == 103 * MIB + MIB // 2


def test_a_stopped_run_advises_no_margin(tmp_path: Path) -> None:
    """A function that ran away is counted apart, with what it had reached at least; the margin is the completed runs'."""
    path = tmp_path / "history.sqlite"
    record(path, _report(100 * MIB, 101 * MIB))
    record(path, _report(100 * MIB, 340 * MIB, "exceeded"))
    record(path, _report(100 * MIB, 90 * MIB, "exceeded"))
    (past,), _ = read(path)
    assert (past.runs, past.margin_mb, past.measured_bytes) == (1, 1, 101 * MIB)
    assert (past.stopped, past.stopped_beyond_bytes) == (2, 240 * MIB)


def test_runs_that_were_only_stopped_have_no_projection_to_judge(tmp_path: Path) -> None:
    """Nothing completed: no margin, no measured peak."""
    path = tmp_path / "history.sqlite"
    record(path, _report(100 * MIB, 340 * MIB, "exceeded"))
    (past,), _ = read(path)
    assert (past.runs, past.margin_mb, past.measured_bytes, past.stopped) == (0, 0, None, 1)


def test_each_function_has_its_own_past(tmp_path: Path) -> None:
    """Custom functions differ by name, rasters' and vectors'."""
    path = tmp_path / "history.sqlite"
    for name in ("mine:a", "mine:b"):
        record(path, _report(1, 1, operation={"name": "custom", "function": name}))
    record(path, _report(1, 1, kind="vector", operation=None, function="mine:a"))
    past, _ = read(path)
    assert [(each.kind, each.operation) for each in past] == [
        ("raster", "custom mine:a"),
        ("raster", "custom mine:b"),
        ("vector", "custom mine:a"),
    ]


def test_a_locked_file_costs_seconds_not_a_job(tmp_path: Path) -> None:
    """Somebody holds the file: a warning within a few seconds."""
    path = tmp_path / "history.sqlite"
    record(path, _report(1, 1))
    with contextlib.closing(sqlite3.connect(path)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert "locked" in (record(path, _report(1, 1)) or "")
        assert time.monotonic() - began < 5


def test_a_corrupt_file_is_a_warning(tmp_path: Path) -> None:
    """A file that is no database warns on writing and on reading, and is left as it was."""
    path = tmp_path / "history.sqlite"
    path.write_text("no database at all, but long enough to be looked at" * 40)
    before = path.read_bytes()
    assert "history_path" in (record(path, _report(1, 1)) or "")
    past, warning = read(path)
    assert past == []
    assert warning is not None
    assert path.read_bytes() == before


def test_an_unusable_folder_is_a_warning(tmp_path: Path) -> None:
    """A path below a file cannot be made; the run goes on."""
    (tmp_path / "file").write_text("")
    assert "history_path" in (record(tmp_path / "file" / "history.sqlite", _report(1, 1)) or "")


def test_no_history_is_no_past(tmp_path: Path) -> None:
    """A file that does not exist yet is empty, not an error."""
    assert read(tmp_path / "none.sqlite") == ([], None)


def test_many_write_at_once(tmp_path: Path) -> None:
    """Eight processes start a file together: every run is there."""
    path = tmp_path / "history.sqlite"
    with ProcessPoolExecutor(8) as pool:
        warnings = list(pool.map(record, [path] * 40, [_report(100, 90)] * 40))
    assert warnings == [None] * 40
    (past,), _ = read(path)
    assert past.runs == 40


def test_a_file_of_another_version_is_a_warning(tmp_path: Path) -> None:
    """A table that is not ours is neither read nor written."""
    path = tmp_path / "history.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (at REAL)")
    connection.close()
    assert "another version" in (record(path, _report(1, 1)) or "")
    assert "another version" in (read(path)[1] or "")


@contextmanager
def _without_privilege() -> Iterator[None]:
    """As nobody, where we are root: root may write what is read-only."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_file_is_a_warning() -> None:
    """It is not written, and still read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "history.sqlite"
        assert record(path, _report(100, 90)) is None
        path.chmod(0o444)
        folder.chmod(0o555)
        with _without_privilege():
            assert "history_path" in (record(path, _report(100, 95)) or "")
            (past,), warning = read(path)
        folder.chmod(0o755)
    assert (past.runs, warning) == (1, None)
