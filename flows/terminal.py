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

from lib.errors import shown, shown_lines
from lib.memory.watch import OnEvent
from lib.reports import Report, chunk_words
from lib.units import format_bytes, format_seconds, mib

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

_LOG_COLUMNS = 130
_NAMES_WIDE = 10


def tell(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


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
def progress(label: str, *, quiet: bool) -> Iterator[OnEvent]:
    """A progress bar on stderr, fed by a child's events; only words where stderr is no terminal."""
    last_words: deque[str] = deque(maxlen=1)
    if quiet or not sys.stderr.isatty():
        yield lambda event: _hear_words(event, last_words, tell)
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
    hint = f"; {error.hint}" if error.hint else ""
    tell(f"swath: {report.status}: {error.message.rstrip('.')}{smallest}{hint}")
    if debug and error.traceback:
        tell(shown_lines(error.traceback))


def show_report(report: Report) -> None:
    """The summary of a report that ended well."""
    for name, words in _summary(report):
        sys.stdout.write(f"{name:<{_NAMES_WIDE}}{shown(words)}\n")  # rich would be imported for this alone
    sys.stdout.flush()
    for warning in report.warnings:
        tell(f"swath: warning: {warning}")


def _summary(report: Report) -> Iterator[tuple[str, str]]:
    memory, seconds = report.memory, report.seconds
    if output := report.output:
        yield "wrote", f"{output.path} ({format_bytes(output.bytes)}, {output.driver})"
    facts = {key: value for key, value in report.result.items() if isinstance(value, (int, float, str, bool))}
    if facts:
        yield "result", ", ".join(_fact(name, value) for name, value in facts.items())
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
