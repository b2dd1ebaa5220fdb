"""What the terminal shows: progress on stderr, one summary or one JSON object on stdout, one line for an error.

rich is imported where something is shown: a job need not wait for it.
"""

import contextlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.errors import shown_lines
from lib.memory.process import OnEvent
from lib.reports import Report
from lib.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

__all__ = ["progress", "show_error", "show_plan", "show_report", "show_table", "tell", "write_json"]


def tell(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _show(what: "RenderableType") -> None:
    from rich.console import Console

    Console(soft_wrap=True, highlight=False).print(what, markup=False)


def write_json(record: Mapping[str, Any]) -> None:
    """Exactly one JSON object on stdout."""
    sys.stdout.write(json.dumps(record, indent=2, default=str) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def progress(label: str, *, quiet: bool) -> Iterator[OnEvent]:
    """A progress bar on stderr, fed by a child's events; only words where stderr is no terminal."""
    last_words: deque[str] = deque(maxlen=1)
    if quiet or not sys.stderr.isatty():
        yield lambda event: _hear_words(event, last_words, tell)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(label, total=None, detail="starting")

        def hear(event: dict[str, Any]) -> None:
            _hear(event, bar)
            _hear_words(event, last_words, lambda text: console.print(text, markup=False))

        yield hear


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
            bar.update(task, detail=f"waiting for the host's budget behind {event['behind']} job(s)")


def _hear_words(event: dict[str, Any], last_words: deque[str], say: Callable[[str], None]) -> None:
    match event["event"]:
        case "attempt":
            limit = format_bytes(event["limit_bytes"])
            say(f"memory ran out: attempt {event['number']}, {event['fraction']:.0%} of {limit}")
        case "stderr":
            for line in event["text"].splitlines():
                if line not in last_words:  # libtiff says the same for each block that it cannot write
                    say(line)
                last_words.append(line)


def show_error(report: Report, *, debug: bool) -> None:
    """One line of what is wrong and what to do; the traceback only with `--debug`."""
    error = report.error
    if error is None:
        return
    smallest = f" (smallest limit that would do: {error.smallest_limit_mb} MiB)" if error.smallest_limit_mb else ""
    tell(f"swath: {report.status}: {error.message}{smallest}; {error.hint}")
    if debug and error.traceback:
        tell(shown_lines(error.traceback))


def show_report(report: Report) -> None:
    """The summary of a report that ended well."""
    from rich.table import Table

    lines = Table.grid(padding=(0, 2))
    if report.output:
        lines.add_row("wrote", f"{report.output.path} ({format_bytes(report.output.bytes)}, {report.output.driver})")
    facts = {key: value for key, value in report.result.items() if isinstance(value, (int, float, str, bool))}
    if facts:
        lines.add_row("result", ", ".join(f"{name.replace('_', ' ')} {_shown(name, v)}" for name, v in facts.items()))
    if report.plan and report.memory.cap:
        lines.add_row(
            "memory",
            f"peak {_size(report.memory.peak_bytes)}, projected {format_bytes(report.plan['projected_bytes'])}, "
            f"limit {format_bytes(report.memory.cap.bytes)} held by {report.memory.cap.mechanism}",
        )
    if report.memory.attribution:
        lines.add_row("made of", _made_of(report.memory.attribution))
    if leak := report.memory.leak:
        lines.add_row(
            "leak",
            f"{format_bytes(round(leak['bytes_per_chunk']))} per chunk, past the drift threshold at chunk "
            f"{leak['crosses_at_chunk']}",
        )
    if report.verification:
        checks = report.verification.checks
        passed = sum(check.passed for check in checks)
        lines.add_row("verified", f"{report.verification.level}: {passed} of {len(checks)} checks passed")
    if len(report.attempts) > 1:
        lines.add_row(
            "attempts",
            ", ".join(f"{each.outcome} at {format_bytes(each.limit_bytes)}" for each in report.attempts),
        )
    seconds = report.seconds
    lines.add_row(
        "time",
        f"{format_seconds(seconds.total)} (start-up {format_seconds(seconds.startup)}, work {format_seconds(seconds.work)}, "
        f"full verification {format_seconds(seconds.verify)})",
    )
    _show(lines)
    for warning in report.warnings:
        tell(f"swath: warning: {warning}")


def show_plan(report: Report) -> None:
    """A plan as a table of its terms, and what the limit leaves over."""
    from rich.table import Table

    plan = report.plan or {}
    table = Table("term", "size", title=f"plan for {Path(report.job['source']).name}", title_justify="left")
    table.columns[1].justify = "right"
    for name, size in sorted(plan["terms"].items(), key=lambda term: -term[1]):
        if size:
            table.add_row(name.replace("_", " "), format_bytes(size))
    table.add_section()
    table.add_row("projected peak", format_bytes(plan["projected_bytes"]))
    table.add_row("limit", format_bytes(plan["limit_bytes"]))
    table.add_row("left over", format_bytes(plan["limit_bytes"] - plan["projected_bytes"]))
    table.add_row("smallest limit that would do", format_bytes(plan["smallest_limit_bytes"]))
    table.add_row("disk, at most, with temporary files", format_bytes(plan["disk_bytes"]))
    if plan["disk_free_bytes"] is not None:
        table.add_row("free on that disk", format_bytes(plan["disk_free_bytes"]))
    _show(table)
    chunk = (
        f"windows of {plan['window'][0]} x {plan['window'][1]} px"
        if plan["window"]
        else f"batches of {plan['batch_rows']} rows"
    )
    cache = format_bytes(plan["gdal_cache_bytes"])
    _show(f"{chunk}, {plan['threads']} thread(s), GDAL cache {cache}, {plan['chunks'] or 'unknown'} chunks")
    _show(f"to lower the peak: {plan['lower_by'] or 'nothing that a setting could change'}")


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A plain table on stdout."""
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    _show(table)


def _made_of(attribution: Mapping[str, int], most: int = 3) -> str:
    """The largest holders of memory and what is unexplained, of the size at which that was seen."""
    resident = attribution.get("resident_bytes", 0)
    apart = ("resident_bytes", "unexplained_bytes")
    largest = sorted(
        ((size, name) for name, size in attribution.items() if name not in apart and size > 0), reverse=True
    )
    named = [f"{name.removesuffix('_bytes').replace('_', ' ')} {format_bytes(size)}" for size, name in largest[:most]]
    unexplained = attribution.get("unexplained_bytes", 0)
    share = f"unexplained {format_bytes(unexplained)} ({unexplained / (resident or 1):.0%})"
    return f"{', '.join([*named, share])}, of {format_bytes(resident)} seen"


def _size(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else format_bytes(size_bytes)


def _shown(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return format_bytes(int(value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
