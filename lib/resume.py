"""What a retry may trust: a staged file that an earlier try of the same run finished, with the report of its job.

The note lies in the staging folder (publish.py) and says by which run, and how the file was then; any other run sweeps both.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

# Where a publication puts the sidecars of the file that it replaces, and those that were staged.
ASIDE, BESIDE = "replaced", "beside"
_NOTE = "finished"


def note_finished(folder: Path, by: str, report: dict[str, Any]) -> None:
    """Note in a staging folder that its file is whole, by which run, and what came of the job."""
    with contextlib.suppress(OSError):  # a full disk: the publication will say so
        record = {"by": by, "file": _marks(folder), "report": report}
        (folder / _NOTE).write_text(json.dumps(record), encoding="utf-8")


def finished(folder: Path, by: str) -> dict[str, Any] | None:
    """The report of the file that an earlier try of that run finished here, if it is as it was then."""
    try:
        record = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        is_as_it_was = record["file"] == _marks(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A publication that failed under way may have moved what was staged beside the file.
    is_whole = not any((folder / name).exists() for name in (ASIDE, BESIDE))
    report: dict[str, Any] | None = record.get("report")
    return report if by and record.get("by") == by and is_as_it_was and is_whole else None


def _marks(folder: Path) -> list[int]:
    """By which a staged file that was changed is known."""
    seen = (folder / folder.name.removeprefix(".").removesuffix(".swath")).stat()
    return [seen.st_ino, seen.st_size, seen.st_mtime_ns]
