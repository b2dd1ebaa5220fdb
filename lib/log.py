"""Lines of a log: one event each, in words for people and as one JSON object for machines (`log.schema.json`).

Nothing here knows where a line is shown: flows/terminal.py and tasks/logs.py do. What is told of a job is in `telling.py`.
"""

import datetime as dt
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from lib.errors import shown
from lib.redact import redacted_record
from lib.units import file_label

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Format = Literal["auto", "json", "text"]


class Line(NamedTuple):
    """One event.

    Attributes:
        level: how much it matters.
        event: its name, one of the schema's.
        message: one sentence for people, with units.
        fields: the same as plain values; units are in the names.
    """

    level: Level
    event: str
    message: str
    fields: Mapping[str, Any] = {}


def as_json(
    line: Line,
    *,
    job: Mapping[str, Any] | None = None,
    flow_run: Mapping[str, Any] | None = None,
    task_run: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> str:
    """A line as one JSON object without line breaks and credentials.

    Args:
        line: the event.
        job: the job that it is of, as a record; kind and paths are told.
        flow_run: `id` and `name` of Prefect's flow run, where there is one.
        task_run: likewise.
        seconds: when it happened, since the epoch; None: now.
    """
    time = dt.datetime.now(dt.UTC) if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
    record = {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": line.level,
        "event": line.event,
        "message": shown(line.message),
        "flow_run": flow_run,
        "task_run": task_run,
        "job": job_in_log(job),
        "fields": redacted_record(line.fields),
    }
    # Surrogates (names that are not UTF-8) would not be written.
    return json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()


def job_in_log(job: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a line says of its job: kind, label, source and destination; None where there is none."""
    if not job:
        return None
    source, destination = job.get("source"), job.get("output") or job.get("destination")
    label = file_label(source) if source else ",".join(job.get("names") or ()) or "all"
    told = {"kind": job.get("kind"), "label": label, "source": source, "destination": destination}
    record: dict[str, Any] = redacted_record(told)
    return record


def wants_json(chosen: str, stream: IO[str]) -> bool:
    """Whether lines on a stream are JSON: as asked, else where nobody sits before it."""
    return chosen == "json" or (chosen == "auto" and not stream.isatty())


def append(path: Path, line: str) -> None:
    """Add one line to a log file, which may be moved away at any time; a disk that refuses costs the line, never the job."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError:
        return
    try:
        # One write: lines of several processes do not mix.
        os.write(descriptor, line.encode("utf-8", "replace") + b"\n")
    except OSError:
        return
    finally:
        os.close(descriptor)
