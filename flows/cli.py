"""The terminal's door: `swath COMMAND …`. Direct by default; `--flow` runs the same thing as a Prefect flow run.

Commands turn flags into a job (lib/request.py), run it (lib/run.py or a flow) and show the report (terminal.py). Prefect, and
what else `--help` does not need, is imported where it is used.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from cyclopts import App, CycloptsError, Parameter

from flows import housekeeping, terminal
from flows.flags import Common, RasterFlags, VectorFlags, Writing
from lib import __version__, request
from lib.errors import Interrupted, SwathError, Terminated, UsageError
from lib.jobs import RasterJob, VectorJob
from lib.memory.process import AnyJob, run_job
from lib.reports import Report
from lib.run import run_published
from lib.units import format_bytes

__all__ = ["main"]

app = App(
    name="swath",
    help="GIS batch jobs inside a memory limit: planned, capped, measured, verified, published whole or not at all.",
    version=__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
plan_app = App(name="plan", help="Show what a job would do and cost; nothing is written.")
app.command(plan_app)

# The job under way, for the report of an interrupted one.
_running: dict[str, Any] = {}


_COMMON, _WRITING, _RASTER, _VECTOR = Common(), Writing(), RasterFlags(), VectorFlags()


@app.command
def raster(
    source: str,
    destination: str,
    /,
    *,
    flags: RasterFlags = _RASTER,
    writing: Writing = _WRITING,
    common: Common = _COMMON,
) -> int:
    """Transform a raster window by window into a tiled, compressed GeoTIFF.

    Args:
        source: the raster to read, anything that GDAL opens.
        destination: the GeoTIFF to write.
    """
    if writing.flow:
        from flows.transform_raster import transform_raster

        given = flags.parameters() | flags.output() | writing.parameters() | {"operation": flags.operation}
        choices = common.choices(max_chunk_mb=flags.max_chunk_mb)
        return _ended(_flow(transform_raster, choices, source=source, destination=destination, **given), common)
    job = _raster_job(source, destination, flags, common, overwrite=writing.overwrite, verify=writing.verify)
    return _published(job, common)


@app.command
def vector(
    source: str,
    destination: str,
    /,
    *,
    flags: VectorFlags = _VECTOR,
    writing: Writing = _WRITING,
    common: Common = _COMMON,
) -> int:
    """Filter a vector layer batch by batch, in one pass.

    Args:
        source: the dataset to read, anything that OGR opens.
        destination: the GeoPackage (.gpkg) or FlatGeobuf (.fgb) to write.
    """
    if writing.flow:
        from flows.filter_vector import filter_vector

        given = flags.output() | writing.parameters()
        choices = common.choices(chunk_rows=flags.chunk_rows)
        return _ended(_flow(filter_vector, choices, source=source, destination=destination, **given), common)
    job = _vector_job(source, destination, flags, common, overwrite=writing.overwrite, verify=writing.verify)
    return _published(job, common)


@app.command
def verify(
    source: str,
    output: str,
    /,
    *,
    level: Literal["basic", "full"] = "full",
    report: str | None = None,
    flow: bool = False,
    common: Common = _COMMON,
) -> int:
    """Check an output against its source.

    Args:
        source: what the output was made from.
        output: the output.
        level: how thoroughly.
        report: a report (--json) of the job that wrote it; without one the output's own metadata is read.
        flow: run as a Prefect flow run: on the server in PREFECT_API_URL, or on an embedded one.
    """
    if flow:
        from flows.verify_output import verify_output

        result = _flow(verify_output, common.choices(), source=source, output=output, level=level, report=report)
    else:
        said = request.read_report(report) if report else None
        result = _run(request.verify_job(source, output, choices=common.choices(), level=level, report=said), common)
    if not common.json and result.verification:
        rows = [
            [check.name, "passed" if check.passed else "FAILED", check.detail] for check in result.verification.checks
        ]
        terminal.show_table(f"{Path(output).name} against {Path(source).name}", ["check", "", "detail"], rows)
    return _ended(result, common)


@app.command
def profile(
    source: str | None = None,
    /,
    *,
    layer: str | None = None,
    chunks: int = 32,
    history: bool = False,
    flow: bool = False,
    common: Common = _COMMON,
) -> int:
    """Measure what reading a source chunk by chunk takes, and suggest a limit.

    Args:
        source: a raster or a vector dataset.
        layer: the layer, where a vector source has several.
        chunks: how many chunks are read, spread over the source.
        history: show past runs' projected and measured peaks instead of reading anything.
        flow: run as a Prefect flow run: on the server in PREFECT_API_URL, or on an embedded one.
    """
    if history:
        return housekeeping.show_history(common)
    if source is None:
        raise UsageError("profile needs a source", hint="name one, or pass --history")
    if flow:
        from flows.profile_memory import profile_memory

        result = _flow(profile_memory, common.choices(), source=source, layer=layer, sample_chunks=chunks)
    else:
        job = request.profile_job(source, choices=common.choices(), layer=layer, sample_chunks=chunks)
        result = _run(job, common)
    if not common.json and result.memory.top_allocators:
        rows = [
            [each.location, format_bytes(each.size_bytes), str(each.blocks)] for each in result.memory.top_allocators
        ]
        terminal.show_table("top allocators", ["line", "size", "blocks"], rows)
    return _ended(result, common)


@app.command
def drivers(*names: str, common: Common = _COMMON) -> int:
    """What this build can read and write; exit 1 if a named driver cannot.

    Args:
        names: drivers by GDAL's short names (default: the common ones).
    """
    result = _run(request.drivers_job(names, choices=common.choices()), common)
    if not common.json and result.result.get("drivers"):
        rows = [
            [each["name"], each["kind"], _yes(each["reads"]), _yes(each["creates"]), str(each["detail"])]
            for each in result.result["drivers"]
        ]
        terminal.show_table("drivers", ["driver", "kind", "reads", "creates", "detail"], rows)
        result.result = {}
    return _ended(result, common)


@plan_app.command(name="raster")
def plan_raster(
    source: str,
    destination: str = "planned.tif",
    /,
    *,
    flags: RasterFlags = _RASTER,
    common: Common = _COMMON,
) -> int:
    """Plan a raster job.

    Args:
        source: the raster.
        destination: where it would be written.
    """
    return _planned(_raster_job(source, destination, flags, common, overwrite=True), common)


@plan_app.command(name="vector")
def plan_vector(
    source: str,
    destination: str = "planned.gpkg",
    /,
    *,
    flags: VectorFlags = _VECTOR,
    common: Common = _COMMON,
) -> int:
    """Plan a vector job.

    Args:
        source: the dataset.
        destination: where it would be written.
    """
    return _planned(_vector_job(source, destination, flags, common, overwrite=True), common)


@app.command
def config(*, common: Common = _COMMON) -> int:
    """Every setting with its value and where it came from."""
    return housekeeping.show_config(common)


@app.command
def clean(folder: str, /, *, older_than: str | None = None, dry_run: bool = False, common: Common = _COMMON) -> int:
    """List and remove staged leftovers of jobs that died.

    Args:
        folder: where to look, subfolders included.
        older_than: remove other hosts' leftovers too, if untouched for so long: 90s, 30m, 24h, 7d.
        dry_run: list only.
    """
    return housekeeping.sweep(folder, older_than, common, dry_run=dry_run)


@app.command
def demo(*, folder: str = ".demo", common: Common = _COMMON) -> int:
    """Real data, end to end, as a flow under 256 MiB.

    Args:
        folder: where the sample data and the outputs go.
    """
    from flows.demo import run_demo

    limit = 256 if common.memory_limit_mb is None else common.choices().settings().settings.memory_limit_mb
    record = run_demo(folder=folder, memory_limit_mb=limit, quiet=common.json)
    if common.json:
        terminal.write_json(record)
    return int(record["exit_code"])


def main(signals: Sequence[int] = (), came: Sequence[int] = ()) -> None:
    """Parse, run, show, exit with the report's code; `signals` are those to hear, `came` those that came during the imports."""
    tokens = sys.argv[1:]
    try:
        for number in signals:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _terminate)
        for number in came:
            signal.raise_signal(number)
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except _Termination:
        code = _failed(Terminated("stopped by a signal; nothing was published"), tokens)
    except KeyboardInterrupt:
        code = _failed(Interrupted("interrupted; nothing was published"), tokens)
    except SwathError as error:
        code = _failed(error, tokens)
    except CycloptsError as error:
        code = _failed(UsageError(_plain(str(error)), hint=f"see `swath {_command(tokens)} --help`"), tokens)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # nobody reads any more; say nothing at exit either
        code = 1
    except Exception as error:  # noqa: BLE001 - the terminal's boundary
        words = f"unexpected {type(error).__name__}: {error}"
        code = _failed(SwathError(words, traceback="".join(traceback.format_exception(error))), tokens)
    sys.exit(code if isinstance(code, int) else 0)


class _Termination(KeyboardInterrupt):
    """SIGTERM or SIGHUP; passes everything that Ctrl-C passes."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Termination


def _failed(error: SwathError, tokens: list[str]) -> int:
    """Show an error that no report carries yet."""
    report = Report.of_error(error, _running)
    if any(word.split("=")[0] == "--json" for word in tokens):
        terminal.write_json(report.to_record(debug="--debug" in tokens))
    else:
        terminal.show_error(report, debug="--debug" in tokens)
    return report.exit_code


def _raster_job(source: str, destination: str, flags: RasterFlags, common: Common, **writing: Any) -> RasterJob:
    return request.raster_job(
        source,
        destination,
        choices=common.choices(max_chunk_mb=flags.max_chunk_mb),
        operation=flags.operation,
        parameters=flags.parameters(),
        **flags.output(),
        **writing,
    )


def _vector_job(source: str, destination: str, flags: VectorFlags, common: Common, **writing: Any) -> VectorJob:
    choices = common.choices(chunk_rows=flags.chunk_rows)
    return request.vector_job(source, destination, choices=choices, **flags.output(), **writing)


def _published(job: RasterJob | VectorJob, common: Common) -> int:
    _running.update(job.model_dump(mode="json"))
    with terminal.progress(job.label, quiet=common.json) as hear:
        report = run_published(job, hear)
    return _ended(report, common)


def _run(job: AnyJob, common: Common) -> Report:
    _running.update(job.model_dump(mode="json"))
    with terminal.progress(job.label, quiet=common.json) as hear:
        return run_job(job, on_event=hear)


def _planned(job: AnyJob, common: Common) -> int:
    report = run_job(job, plan_only=True)
    if report.ok and not common.json:
        terminal.show_plan(report)
        return 0
    return _ended(report, common)


def _ended(report: Report, common: Common) -> int:
    if common.json:
        terminal.write_json(report.to_record(debug=common.debug))
    elif report.ok:
        terminal.show_report(report)
    else:
        terminal.show_error(report, debug=common.debug)
    return report.exit_code


def _flow(flow: Any, choices: request.Choices, **given: Any) -> Report:
    """Run a flow with the same words, those left out as the flow has them; its report comes back through the run's state."""
    from tasks.capped import report_of
    from tasks.states import cancelled_by_signal

    shared = {"config": choices.config} | choices.checked()
    chosen = {name: value for name, value in (shared | given).items() if value is not None}
    try:
        return report_of(flow.with_options(on_crashed=[cancelled_by_signal])(return_state=True, **chosen))
    except RuntimeError as error:
        if "reach API" not in str(error):
            raise
        hint = "start that server, or unset PREFECT_API_URL to run on an embedded one"
        raise SwathError(
            f"the Prefect API in PREFECT_API_URL does not answer: {_plain(str(error))}", hint=hint
        ) from error


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _command(tokens: list[str]) -> str:
    return next((token for token in tokens if not token.startswith("-")), "")


def _plain(text: str) -> str:
    return " ".join(text.replace("│", " ").split())
