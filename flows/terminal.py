"""What the terminal shows: progress on stderr, one summary or one JSON object on stdout, one line for an error.

Where stderr is no terminal, or as `log_format` says, its lines are JSON objects (lib/log.py). rich is imported where something is
shown: a job need not wait for it.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.errors import shown, shown_lines
from lib.jobs import Job
from lib.log import Level, Line, append, as_json, wants_json
from lib.memory.watch import OnEvent
from lib.reports import Report, chunk_words
from lib.telling import Telling, error_words, outcome, waiting_words
from lib.underway import INTERRUPTED
from lib.units import format_bytes, format_seconds, mib

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

_LOG_COLUMNS = 130
_NAMES_WIDE = 10
_SHOWN_BANDS = 4
# What is shown above a bar.
_BESIDE_BAR = {"child.said", "job.attempt", "run.interrupted"}


@dataclass(slots=True)
class _Log:
    """How lines are said in this process, and of which job they are."""

    is_json: bool = False
    path: Path | None = None
    job: Mapping[str, Any] | None = None
    telling: Telling | None = None
    is_of_flow: bool = False


_log = _Log()


def listen(log_format: str, path: Path | None = None) -> None:
    """Choose how lines are said from now on: `log_format` and `log_path` of the settings."""
    _log.is_json, _log.path = wants_json(log_format, sys.stderr), path
    _log.job, _log.telling, _log.is_of_flow = None, None, False


def leave_to_flow() -> None:
    """Leave it to a flow's own log, in this process, to say that it went well."""
    _log.is_of_flow = True


def listen_early(tokens: list[str]) -> None:
    """The same as the command line or the environment asks, before either is checked: an error may come first."""
    pairs = zip(tokens, [*tokens[1:], ""], strict=True)
    typed = [
        value if name == "--log-format" else name.partition("=")[2]
        for name, value in pairs
        if name.startswith("--log-format")
    ]
    asked = (typed or [os.environ.get("BATCH_LOG_FORMAT", "")])[-1]
    path = os.environ.get("BATCH_LOG_PATH")
    listen(asked if asked in {"json", "text"} else "auto", Path(path).expanduser() if path else None)


def say(line: Line) -> None:
    """A line on stderr, as JSON or in its words, and in the log file if there is one."""
    _note(line)
    if not _log.is_json:
        _write(shown(line.message))


def say_of_file(line: Line, *, is_well: bool) -> None:
    """A line of one file of many: for people only where it is not done."""
    _note(line)
    if not _log.is_json and not is_well:
        _write(shown(line.message))


def _note(line: Line) -> None:
    """A line where machines read it: as JSON on stderr, if that is wanted, and in the log file."""
    if not _log.is_json and _log.path is None:
        return
    record = as_json(line, job=_log.job)
    if _log.is_json:
        _write(record)
    if _log.path is not None:
        append(_log.path, record)


def _write(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def tell(text: str, level: Level = "INFO") -> None:
    """A line on stderr that is of no event."""
    say(Line(level, "log", text, {}))


def show(what: "RenderableType") -> None:
    """A text or a table on stdout."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _LOG_COLUMNS)
    console.print(what, markup=False)


def write_json(record: Mapping[str, Any]) -> None:
    """Exactly one JSON object on stdout."""
    sys.stdout.write(json.dumps(record, indent=2, default=str) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def progress(job: Job, *, quiet: bool) -> Iterator[OnEvent]:
    """What hears a child's events: a progress bar on a terminal, else lines at a human pace; where `quiet`, no words of ours."""
    telling = _log.telling = Telling(job)
    _log.job = job.model_dump(mode="json")
    if _log.is_json or quiet or not sys.stderr.isatty():
        yield lambda event: _hear_lines(telling.lines(event), _write if quiet else None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(job.label, total=None, detail="starting")

        def hear(event: dict[str, Any]) -> None:
            _hear(event, bar)
            _hear_lines(telling.lines(event), lambda text: console.print(text, markup=False))

        yield hear


def _hear_lines(lines: Iterator[Line], show_words: Callable[[str], None] | None) -> None:
    """Say the lines; where a bar or one JSON object tells the rest (`show_words`), only what neither has."""
    for line in lines:
        if _log.is_json or show_words is None:
            say(line)
            continue
        _note(line)
        if line.event in _BESIDE_BAR:
            show_words(shown(line.message))


def _hear(event: dict[str, Any], bar: "Progress") -> None:
    (task,) = bar.task_ids
    match event["event"]:
        case "planned":
            bar.update(task, detail=f"planned {format_bytes(event['plan']['projected_bytes'])}")
        case "baseline":
            bar.update(task, total=event["chunks"] or None, completed=0)
        case "chunk":
            bar.update(task, completed=event["done"], detail=f"{format_bytes(event['resident_bytes'])} resident")
        case "phase":
            bar.update(task, detail=event["name"])
        case "waiting":
            bar.update(task, detail=waiting_words(event))


def log_end(report: Report) -> None:
    """A report's warnings and its end where machines read them; people are shown the same by `show_report` and `show_error`."""
    _log.job = report.job or _log.job
    if report.status == "planned" or (_log.is_of_flow and report.error is None):  # a flow's own log has said it
        return
    for line in _log.telling.ending(report) if _log.telling else (outcome(report),):
        _note(
            line._replace(message=f"swath: {line.message}")
            if line.event == f"job.{report.status}" and report.error
            else line
        )


def show_error(report: Report, *, debug: bool) -> None:
    """One line of what is wrong and what to do; the traceback only with `--debug`. As JSON, `log_end` has said it."""
    error = report.error
    if error is None:
        return
    if not _log.is_json:
        _write(shown(f"swath: {error_words(report)}"))
    if debug and error.traceback:
        if _log.is_json:
            _note(Line("DEBUG", "log", "traceback", {"exception": shown_lines(error.traceback)}))
        else:
            _write(shown_lines(error.traceback))


def show_report(report: Report) -> None:
    """The summary of a report that ended well."""
    for name, words in _summary(report):
        sys.stdout.write(f"{name:<{_NAMES_WIDE}}{shown(words)}\n")  # rich would be imported for this alone
    sys.stdout.flush()
    if not _log.is_json:
        for warning in report.warnings:
            if not warning.startswith(INTERRUPTED):  # was said when it was found
                _write(shown(f"swath: warning: {warning}"))


def _summary(report: Report) -> Iterator[tuple[str, str]]:
    memory, seconds = report.memory, report.seconds
    if output := report.output:
        yield "wrote", f"{output.path} ({format_bytes(output.bytes)}, {output.driver})"
    facts = {key: value for key, value in report.result.items() if isinstance(value, (int, float, str, bool))}
    if facts:
        yield "result", ", ".join(_fact(name, value) for name, value in facts.items())
    yield from _bad_rows(report.result)
    for band in report.result.get("statistics", ())[:_SHOWN_BANDS]:
        said = (f"{name} {band[name]:.6g}" for name in ("min", "max", "mean", "std") if band[name] is not None)
        yield f"band {band['band']}", ", ".join([*said, f"{band['valid_percent']:g} % valid"])
    if report.plan and memory.cap:
        peak, limit = format_bytes(memory.peak_bytes), format_bytes(memory.cap.bytes)
        projected = format_bytes(report.plan["projected_bytes"])
        yield "memory", f"peak {peak}, projected {projected}, limit {limit} held by {memory.cap.mechanism}"
    if memory.attribution:
        yield "made of", _made_of(memory.attribution)
    if leak := memory.leak:
        growth = format_bytes(round(leak["bytes_per_chunk"]))
        yield "leak", f"{growth} per chunk, past the drift threshold at chunk {leak['crosses_at_chunk']}"
    if report.verification:
        yield "verified", report.verification.words
    if len(report.attempts) > 1:
        yield "attempts", ", ".join(f"{each.outcome} at {format_bytes(each.limit_bytes)}" for each in report.attempts)
    parts = {"start-up": seconds.startup, "work": seconds.work, "full verification": seconds.verify}
    spent = ", ".join(f"{name} {format_seconds(part)}" for name, part in parts.items() if part)
    yield "time", f"{format_seconds(seconds.total)} ({spent})"


def _bad_rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The rows that were skipped, as far as they are listed, and how many more there are."""
    listed = result.get("bad_rows", ())
    for each in listed:
        row, fid = each["row"], each["fid"]
        known = {"row": row, "feature id": fid}
        which = ", ".join(f"{name} {number}" for name, number in known.items() if number is not None) or "a feature"
        yield "skipped", f"{which}: {each['reason']}"
    if (more := result.get("features_bad", 0) - len(listed)) > 0:
        yield "skipped", f"{more} more"


def show_plan(report: Report) -> None:
    """A plan as a table of its terms, and what the limit leaves over."""
    from rich.table import Table

    plan = report.plan or {}
    totals = {
        "projected peak": plan["projected_bytes"],
        "left over": plan["limit_bytes"] - plan["projected_bytes"],
        "disk, at most, with temporary files": plan["disk_bytes"],
        "free on that disk": plan["disk_free_bytes"],
    }
    # As the flag takes them.
    limits = {"limit": plan["limit_bytes"], "smallest limit that would do": plan["smallest_limit_bytes"]}
    table = Table("term", "size", title=f"plan for {Path(report.job['source']).name}", title_justify="left")
    table.columns[1].justify = "right"
    for name, size in sorted(plan["terms"].items(), key=lambda term: -term[1]):
        table.add_row(name.replace("_", " "), format_bytes(size))
    table.add_section()
    for name, size in totals.items():
        if size:
            table.add_row(name, format_bytes(size))
    for name, size in limits.items():
        table.add_row(name, f"{mib(size)} MiB")
    show(table)
    cache = f", GDAL cache {format_bytes(plan['gdal_cache_bytes'])}" if plan["gdal_cache_bytes"] else ""
    show(f"{plan['chunks'] or 'unknown'} chunks of {chunk_words(plan)}, {plan['threads']} thread(s){cache}")
    if changes := plan.get("facts", {}).get("field_changes"):
        show(f"fields that change their type: {', '.join(changes)}")
    for note in plan.get("facts", {}).get("notes", ()):
        show(note)
    show(f"to lower the peak: {plan['lower_by'] or 'nothing that a setting could change'}")


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A plain table on stdout."""
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    show(table)


def _made_of(attribution: Mapping[str, int], most: int = 3) -> str:
    """The largest holders of memory and what is unexplained, of the size at which that was seen."""
    resident = attribution.get("resident_bytes", 0)
    apart = ("resident_bytes", "unexplained_bytes")
    largest = sorted(
        ((size, name) for name, size in attribution.items() if name not in apart and size > 0), reverse=True
    )
    named = [f"{name.removesuffix('_bytes').replace('_', ' ')} {format_bytes(size)}" for size, name in largest[:most]]
    if unexplained := attribution.get("unexplained_bytes", 0):
        named.append(f"unexplained {format_bytes(unexplained)} ({unexplained / (resident or 1):.0%})")
    return f"{', '.join(named)}, of {format_bytes(resident)} seen"


def _fact(name: str, value: Any) -> str:
    """A fact of a result in words; the unit that its name ends in stands behind its value."""
    words = name.removesuffix("_bytes").removesuffix("_mb").replace("_", " ")
    if name.endswith("_bytes"):
        return f"{words} {format_bytes(int(value))}"
    number = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    unit = " MiB" if name.endswith("_mb") else " px" if name in {"width", "height"} else ""
    return f"{words} {number}{unit}"
