"""`swath batch raster|vector INPUT… --into DIR`: many files under one budget, in the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cyclopts import App, Parameter

from flows import terminal
from flows.flags import FLOW, PLAN, Display, flags
from flows.server import choose_server, state_of
from lib import request
from lib.batch import BATCH_KNOBS, DASK_ADDRESS, ENGINE, WITHOUT
from lib.errors import BatchFailed, DiskRefused, UsageError
from lib.jobs import RasterJob, VectorJob
from lib.log import Line
from lib.redact import redacted
from lib.units import format_bytes, format_seconds, mib

batch_app = App(
    name="batch",
    help="Do many files under one memory budget; a rerun does only what is missing.",
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
)
_MORE = (ENGINE, DASK_ADDRESS, PLAN, FLOW)
_PLANS_SHOWN = 30
_PACE_SECONDS = 10.0


@batch_app.command(name="raster")
@flags(RasterJob, *BATCH_KNOBS, *_MORE, without=WITHOUT)
def batch_raster(*, display: Display, plan: bool, **given: Any) -> int:
    """Transform many rasters."""
    return _planned("raster", given, display) if plan else _done("raster", given, display)


@batch_app.command(name="vector")
@flags(VectorJob, *BATCH_KNOBS, *_MORE, without=WITHOUT)
def batch_vector(*, display: Display, plan: bool, **given: Any) -> int:
    """Filter many vector layers."""
    return _planned("vector", given, display) if plan else _done("vector", given, display)


def _done(wing: Any, given: dict[str, Any], display: Display) -> int:
    from lib.batch.request import batch_of
    from lib.batch.run import run_batch

    engine, address, flow = (given.pop(name) for name in ("engine", "dask_address", "flow"))
    if address and engine != "dask":
        raise UsageError("--dask-address is of --engine dask", hint="write --engine dask, or leave --dask-address out")
    if flow or engine == "dask":
        return _flow(wing, given | {"engine": engine or "threads", "dask_address": address}, display)
    fail_fast = given.pop("fail_fast")
    batch = batch_of(wing, **given)
    with _progress(len(batch.items), quiet=display.json) as hear:
        summary = run_batch(batch, fail_fast=fail_fast, on_event=hear)
    record = summary.to_record()
    if display.json:
        terminal.write_json(record)
    else:
        _show(record)
    return summary.exit_code


def _flow(wing: str, given: Mapping[str, Any], display: Display) -> int:
    """As a flow run; the choices of files' jobs are its `options`."""
    choose_server()
    from flows.run_batch import KNOBS, run_batch
    from tasks.states import settled

    own = {each.name for each in KNOBS}
    made = {
        name: value for name, value in request.flow_arguments(given).items() if value is not None and value is not False
    }
    options = {name: value for name, value in made.items() if name not in own}
    parameters = {name: value for name, value in made.items() if name in own}
    try:
        record: dict[str, Any] = settled(state_of(run_batch, parameters | {"kind": wing, "options": options}))
    except BatchFailed as error:
        record = error.facts["record"]
    if display.json:
        terminal.write_json(record)
    else:
        _show(record)
    return int(record["exit_code"])


def _planned(wing: Any, given: dict[str, Any], display: Display) -> int:
    from lib.batch.planning import check_disk, foresee_all
    from lib.batch.request import batch_of
    from lib.batch.run import phases

    for name in ("fail_fast", "engine", "dask_address", "flow"):
        given.pop(name)
    batch = batch_of(wing, **given, makes_folders=False)
    rows: list[dict[str, Any]] = []
    counts = {"planned": 0, "reused": 0, "refused": 0, "failed": 0}
    todo = []
    for each in foresee_all(batch):
        if each.limit_bytes:
            todo.append(each)
        status = "reused" if each.is_done else each.report.status if each.report else "planned"
        counts[status] += 1
        rows.append(
            {
                "source": redacted(batch.items[each.at].source),
                "output": str(batch.outputs[each.at]),
                "status": status,
                "projected_bytes": each.limit_bytes or None,
                "disk_bytes": each.disk_bytes or None,
                "message": each.report.error.message if each.report and each.report.error else None,
            }
        )
    limits = [row["projected_bytes"] for row in rows if row["projected_bytes"]]
    exit_code = 0 if not counts["refused"] + counts["failed"] else 1
    record: dict[str, Any] = {
        "status": "planned" if exit_code == 0 else "failed",
        "exit_code": exit_code,
        "error": None,
        "at_once": max((count for count, _ in phases(batch, todo)), default=1),
        "memory": {"limit_bytes": batch.base.resources.limit_bytes, "largest_bytes": max(limits, default=0)},
        "disk_bytes": sum(row["disk_bytes"] or 0 for row in rows),
        "reports": counts | {"files": len(rows)},
        "plans": rows,
    }
    if exit_code:
        first = next(row for row in rows if row["message"])
        record["error"] = {
            "type": "BatchFailed",
            "message": f"{counts['refused'] + counts['failed']} of {len(rows)} files cannot be done: {first['message']}",
            "hint": "leave them out, or raise --memory-limit-mb where memory is what is short",
        }
    try:
        check_disk(batch, todo)
    except DiskRefused as error:
        exit_code = error.exit_code
        record |= {"status": error.status, "exit_code": exit_code, "error": error.to_record()}
    if display.json:
        terminal.write_json(record)
    else:
        _show_plans(record)
    return int(exit_code)


def _show_plans(record: Mapping[str, Any]) -> None:
    rows = record["plans"]
    shown = sorted(rows, key=lambda row: (row["message"] is None, -(row["projected_bytes"] or 0)))[:_PLANS_SHOWN]
    more = f", the {len(shown)} largest of {len(rows)}" if len(rows) > len(shown) else ""
    terminal.show_table(
        f"plans{more}",
        ["source", "memory", "disk, at most", ""],
        [
            [
                row["source"],
                f"{mib(row['projected_bytes'])} MiB" if row["projected_bytes"] else "-",
                format_bytes(row["disk_bytes"]),
                row["message"] or row["status"],
            ]
            for row in shown
        ],
    )
    counts, memory = record["reports"], record["memory"]
    terminal.show(
        f"{counts['planned']} to do, {counts['reused']} done before, {counts['refused']} refused, {counts['failed']} unusable; "
        f"at most {record['at_once']} at once, as memory allows; at most {format_bytes(record['disk_bytes'])} on disk; "
        f"each may climb to {format_bytes(memory['limit_bytes'])}"
    )
    if record["error"]:
        terminal.tell(f"swath: {record['error']['message']} ({record['error']['hint']})", "ERROR")


def _show(record: Mapping[str, Any]) -> None:
    counts, seconds = record["reports"], record["seconds"]
    ended = ", ".join(f"{counts[name]} {name}" for name in counts if name not in {"files", "jsonl", "csv"})
    for name, words in (
        ("files", f"{counts['files']}: {ended}"),
        ("time", f"{format_seconds(seconds['total'])} (planning {format_seconds(seconds['planning'])})"),
        ("reports", f"{counts['jsonl']}, {counts['csv']}"),
    ):
        terminal.show(f"{name:<10}{words}")
    for title, rows, key, shown in (
        ("slowest", record["slowest"], "seconds", format_seconds),
        ("heaviest", record["heaviest"], "peak_bytes", format_bytes),
    ):
        if rows:
            said: Callable[[Any], str] = shown
            named = ", ".join(f"{row['source']} {said(row[key])}" for row in rows[:3])
            terminal.show(f"{title:<10}{named}")
    if record["error"]:
        terminal.tell(f"swath: {record['error']['message']} ({record['error']['hint']})", "ERROR")


@contextlib.contextmanager
def _progress(files: int, *, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar on a terminal; elsewhere a line for each file that is not done, and where lines are JSON for each that is."""
    counts = {"planned": 0, "ended": 0}
    if quiet or not sys.stderr.isatty():
        yield lambda event: _hear(event, counts, files)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        planning, doing = bar.add_task("planned", total=files), bar.add_task("done", total=files)

        def hear(event: dict[str, Any]) -> None:
            bar.advance(planning if event["event"] == "planned" else doing)
            if event["event"] == "file" and event["exit_code"]:
                console.print(f"{event['source']}: {event['message']}", markup=False)

        yield hear


def _hear(event: dict[str, Any], counts: dict[str, int], files: int) -> None:
    if event["event"] != "file":
        counts["planned"] += 1
        return
    counts["ended"] += 1
    done = f"{counts['ended']} of {files}"
    is_well = event["exit_code"] == 0
    words = f"{done}: {event['source']}: {event['status'] if is_well else event['message']}"
    fields = {key: value for key, value in event.items() if key != "event" and value is not None}
    terminal.say_of_file(
        Line("INFO" if is_well else "ERROR", f"file.{event['status']}", words, fields), is_well=is_well
    )
