"""What looks after itself: settings and their origins, leftovers of dead jobs, the history of projections."""

import re
import socket
from pathlib import Path
from typing import Any

from flows import terminal
from flows.flags import Display
from lib.errors import UsageError
from lib.memory import history
from lib.publish import Leftover, find_leftovers, remove_leftover
from lib.settings import SettingsLayers, settings_knobs
from lib.underway import Unfinished
from lib.units import format_bytes, format_seconds

_DONE = {"status": "completed", "exit_code": 0, "error": None}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

SWEEP_COLUMNS = ("folder", "size", "age", "owner", "was", "removed")


def show_config(layers: SettingsLayers, display: Display) -> int:
    """Every setting with its value and where it came from."""
    values = layers.settings.model_dump(mode="json")
    settings = {
        each.key: {
            "value": values[each.key],
            "origin": str(layers.origins[each.key]),
            "description": each.words if each.default is not None else f"{each.words}; unset: {each.unset}",
        }
        for each in settings_knobs(values)
    }
    rows = [
        [key, "unset" if each["value"] is None else str(each["value"]), each["origin"], each["description"]]
        for key, each in settings.items()
    ]
    return _ended(display, {"settings": settings}, "settings", ["key", "value", "from", "what it is"], rows)


def sweep(folder: str, older_than: str | None, display: Display, *, dry_run: bool) -> int:
    """List leftovers below a folder, and remove those whose owners are dead, or old enough where an age is given.

    Raises:
        UsageError: it is no folder, or the age is no duration.
    """
    leftovers = swept(folder, older_than, word="--older-than", dry_run=dry_run)
    return _ended(display, {"leftovers": leftovers}, sweep_title(leftovers), list(SWEEP_COLUMNS), sweep_rows(leftovers))


def swept(folder: str, older_than: str | None, *, word: str, dry_run: bool) -> list[dict[str, Any]]:
    """Leftovers below a folder, and whether each was removed; `word` is what the age is called where it was given.

    Raises:
        UsageError: it is no folder, or the age is no duration.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="name the folder of the destinations")
    age = None if older_than is None else _seconds(older_than, word)
    found = find_leftovers(root)
    removable = [each for each in found if _is_removable(each, age)]
    if not dry_run:
        for each in removable:
            remove_leftover(each)
    gone = {each.folder for each in removable if not each.folder.exists()}
    return [
        {
            "path": str(each.folder),
            "bytes": each.bytes,
            "age_seconds": round(each.age_seconds),
            "host": each.owner.get("host"),
            "pid": each.owner.get("pid"),
            "state": "dead" if each.dead else "alive or of another host",
            "job": None if each.job is None else each.job.to_record(),
            "was": _was(each.job),
            "removed": each.folder in gone,
        }
        for each in found
    ]


def sweep_title(leftovers: list[dict[str, Any]]) -> str:
    """How many there were, and how many went."""
    gone = [each for each in leftovers if each["removed"]]
    freed = f", {format_bytes(sum(each['bytes'] for each in gone))}" if gone else ""
    return f"{len(leftovers)} leftover(s), {len(gone)} removed{freed}"


def sweep_rows(leftovers: list[dict[str, Any]]) -> list[list[str]]:
    """Leftovers as rows of a table, under `SWEEP_COLUMNS`."""
    return [
        [
            each["path"],
            format_bytes(each["bytes"]),
            format_seconds(each["age_seconds"]),
            f"pid {each['pid']} on {each['host']}: {each['state']}",
            each["was"],
            "yes" if each["removed"] else "no",
        ]
        for each in leftovers
    ]


def show_history(layers: SettingsLayers, display: Display) -> int:
    """Past runs by kind of work; names the margin where a projection was too low."""
    path = layers.settings.history_path
    past, warning = ([], "history_path is off") if path == "off" else history.read(Path(path))
    if warning and not display.json:
        terminal.tell(f"swath: warning: {warning}")
    rows = [
        [
            " ".join(filter(None, [each.kind, each.operation, each.driver, each.dtype])),
            each.chunk,
            str(each.runs),
            format_bytes(each.projected_bytes),
            format_bytes(each.measured_bytes),
            _held(each),
            _stopped(each),
        ]
        for each in past
    ]
    columns = ["work", "chunk", "runs", "projected", "measured", "projection", "stopped at their limit"]
    record = {"warnings": [warning] if warning else [], "history": [each._asdict() for each in past]}
    return _ended(display, record, f"history in {path}", columns, rows)


def _ended(display: Display, record: dict[str, Any], title: str, columns: list[str], rows: list[list[str]]) -> int:
    """Show a record as one JSON object, or its rows as a table; the exit code."""
    if display.json:
        terminal.write_json(_DONE | record)
    else:
        terminal.show_table(title, columns, rows)
    return 0


def _held(past: history.Past) -> str:
    if not past.runs:
        return ""
    return f"margin_mb: {past.margin_mb}" if past.margin_mb else "held"


def _stopped(past: history.Past) -> str:
    if not past.stopped:
        return ""
    return f"{past.stopped}, at least {format_bytes(past.stopped_beyond_bytes)} beyond projection"


def _was(job: Unfinished | None) -> str:
    """What is told of the job that a leftover is of."""
    return "" if job is None else job.words.partition(": ")[2]


def _seconds(text: str, word: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match:
        raise UsageError(f"{word} {text!r} is not a duration", hint="write 90s, 30m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _is_removable(leftover: Leftover, age: float | None) -> bool:
    is_elsewhere = leftover.owner.get("host") not in {None, socket.gethostname()}
    if age is None:
        return leftover.dead
    return (leftover.dead or is_elsewhere) and leftover.age_seconds >= age
