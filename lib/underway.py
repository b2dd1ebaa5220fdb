"""What an owner notes in its staging folder while a job runs: after a kill it is all that is left to tell of it.

Whoever sweeps the folder (`publish.py`) reads it. It may be torn, of another version or somebody else's: then as much is told
as can be read, and nothing is raised.
"""

import contextlib
import datetime as dt
import json
import os
import stat
import time
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.errors import shown
from lib.jobs import Job
from lib.log import job_in_log
from lib.reports import Report
from lib.units import format_bytes

NAME = "underway.json"
INTERRUPTED = "an earlier run to this destination was interrupted"
# Who runs jobs here, `{"id", "name"}` of a flow run; set by whoever knows.
RUN: ContextVar[dict[str, str] | None] = ContextVar("RUN", default=None)

_EVERY_SECONDS = 5.0
_MOST_BYTES = 65536
_ENDED = "ended: "
_STATES = {"close": "closing its output", "verify": "checking its output"}


class Notes:
    """Keeps the note of one job in its staging folder, written anew every few seconds.

    Args:
        folder: the staging folder.
        job: what runs.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        self._path = folder / NAME
        told = job_in_log(job.model_dump(mode="json")) or {}
        self._facts: dict[str, Any] = {
            **{name: told.get(name) for name in ("kind", "label", "source", "destination")},
            "run": RUN.get(),
            "began": time.time(),
            "limit_bytes": job.resources.limit_bytes,
            "state": "starting",
        }
        self._written_at = 0.0
        self._write()

    def hear(self, event: dict[str, Any]) -> None:
        """One event of the child."""
        facts, name = self._facts, event["event"]
        if "resident_bytes" in event:
            facts["peak_bytes"] = max(facts.get("peak_bytes", 0), event["resident_bytes"])
        match name:
            case "planned":
                facts |= {"state": "working", "projected_bytes": event["plan"]["projected_bytes"]}
            case "chunk":
                facts |= {"done": event["done"], "of": event["of"] or None}
            case "phase":
                facts["state"] = _STATES.get(event["name"], event["name"])
            case "attempt":
                facts |= {"state": "starting", "done": 0, "limit_bytes": event["limit_bytes"]}
        if name in {"planned", "phase", "attempt"} or time.monotonic() - self._written_at > _EVERY_SECONDS:
            self._write()

    def end(self, report: Report) -> None:
        """The work is done, and what follows (verification, publication) has no chunks; or it failed, and nothing follows."""
        state = "done and not yet published" if report.ok else _ENDED + report.status
        self._facts |= {"state": state, "peak_bytes": report.memory.peak_bytes}
        self._write()

    def _write(self) -> None:
        """Whole or not at all; a disk that is full costs the note, never the job. A kill loses no page, so nothing is synced."""
        self._written_at = time.monotonic()
        aside = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            aside.write_text(json.dumps(self._facts | {"heard": time.time()}), encoding="utf-8")
            aside.replace(self._path)


def notes_of(job: Job, staged: Path | None) -> Notes | None:
    """The notes of a job that writes into a staging folder; None where it writes nothing, or elsewhere."""
    return Notes(staged.parent, job) if staged is not None and (staged.parent / "owner").is_file() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A job that was interrupted, as far as its note says; times are seconds since the epoch."""

    kind: str | None = None
    label: str | None = None
    source: str | None = None
    run_id: str | None = None
    run_name: str | None = None
    began: float | None = None
    heard: float | None = None
    state: str | None = None
    done: int | None = None
    of: int | None = None
    peak_bytes: int | None = None
    projected_bytes: int | None = None
    limit_bytes: int | None = None
    pid: int | None = None
    host: str | None = None

    def to_record(self) -> dict[str, Any]:
        """What is known, as a JSON object."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def words(self) -> str:
        """One sentence: what it was, who ran it, from when to when, how far it came, in what memory."""
        what = f"{self.kind or ''} job of {self.label}".strip() if self.label else "a job that had not begun to work"
        run = f" in flow run {self.run_name} ({self.run_id})" if self.run_id else ""
        parts = [
            f"begun {_at(self.began)}" if self.began else "",
            f"last heard of {_at(self.heard)}" if self.heard else "",
            f"after {self.done:,}{f' of {self.of:,}' if self.of else ''} chunks" if self.done else "",
            self.state or "",
            f"peak {format_bytes(self.peak_bytes)}"
            + (f" of a limit of {format_bytes(self.limit_bytes)}" if self.limit_bytes else "")
            if self.peak_bytes
            else "",
            f"pid {self.pid} on {self.host}" if self.pid else "",
        ]
        return shown(f"{INTERRUPTED}: {', '.join(filter(None, [what + run, *parts]))}")


def unfinished(folder: Path, owner: dict[str, Any]) -> Unfinished | None:
    """What a dead owner's folder tells of its job; None where nobody owned it, or it came to an end of its own."""
    note = _read(folder / NAME)
    if (not note and not owner) or str(note.get("state")).startswith(_ENDED):
        return None
    run = note.get("run")
    run = run if isinstance(run, dict) else {}
    texts: dict[str, Any] = {name: _text(note.get(name)) for name in ("kind", "label", "source", "state")}
    numbers = ("began", "heard", "done", "of", "peak_bytes", "projected_bytes", "limit_bytes")
    return Unfinished(
        **texts,
        **{name: _number(note.get(name), whole=name not in {"began", "heard"}) for name in numbers},
        run_id=_text(run.get("id")),
        run_name=_text(run.get("name")),
        pid=_number(owner.get("pid"), whole=True),
        host=_text(owner.get("host")),
    )


def _read(path: Path) -> dict[str, Any]:
    """A note's object; empty where it is none, no plain file or too large."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                found = json.loads(os.read(descriptor, _MOST_BYTES))
                return found if isinstance(found, dict) else {}
        finally:
            os.close(descriptor)
    return {}


def _text(value: Any) -> str | None:
    return shown(value) if isinstance(value, str) and value else None


def _number(value: Any, *, whole: bool) -> Any:
    """A number that can be told; a time that no calendar has is none."""
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return None
    return value if 0 <= value < (2**63 if whole else 2**37) else None


def _at(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
