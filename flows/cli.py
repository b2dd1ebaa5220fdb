"""The terminal's door: `swath COMMAND …`. Direct by default; `--flow` runs the same thing as a Prefect flow run.

Commands turn flags into a job (lib/request.py), run it (lib/run.py or a flow) and show the report (terminal.py). Prefect, and
what else `--help` does not need, is imported where it is used.
"""

import difflib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from flows import terminal
from flows.batches import batch_app
from flows.flags import DEMO_FOLDER, DRY_RUN, FLOW, FOLDER, HISTORY, OLDER_THAN, Display, flags
from flows.server import choose_server, state_of
from lib import __version__, request
from lib.errors import Interrupted, SwathError, Terminated, UsageError
from lib.jobs import DriversJob, Job, ProfileJob, RasterJob, VectorJob, VerifyJob
from lib.memory.process import run_job
from lib.reports import Report
from lib.run import run_published
from lib.units import format_bytes

app = App(
    name="swath",
    help="GIS batch jobs inside a memory limit: planned, capped, measured, verified, published whole or not at all.",
    version=__version__,
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
plan_app = App(name="plan", help="Show what a job would do and cost; nothing is written.")
app.command(plan_app)
app.command(batch_app)

# What is told of a driver: of this build, and of swath.
_DOES = ("reads", "creates", "swath_writes")
# How alike what was typed and what is suggested must be.
_NEAR = 0.75

# The job under way, for the report of an interrupted one.
_running: dict[str, Any] = {}


@app.command
@flags(RasterJob, FLOW)
def raster(*, flow: bool, display: Display, **given: Any) -> int:
    """Transform a raster window by window into a tiled, compressed GeoTIFF."""
    if flow:
        choose_server()
        from flows.transform_raster import transform_raster

        return _ended(_flow(transform_raster, given), display)
    return _ended(_run(request.raster_job(**given), display, run_published), display)


@app.command
@flags(VectorJob, FLOW)
def vector(*, flow: bool, display: Display, **given: Any) -> int:
    """Filter a vector layer batch by batch, in one pass."""
    if flow:
        choose_server()
        from flows.filter_vector import filter_vector

        return _ended(_flow(filter_vector, given), display)
    return _ended(_run(request.vector_job(**given), display, run_published), display)


@app.command
@flags(VerifyJob, FLOW)
def verify(*, flow: bool, display: Display, **given: Any) -> int:
    """Check an output against its source."""
    if flow:
        choose_server()
        from flows.verify_output import verify_output

        report = _flow(verify_output, given)
    else:
        report = _run(request.verify_job(**given), display)
    if not display.json and report.verification:
        checks = report.verification.checks
        rows = [[check.name, "passed" if check.passed else "FAILED", check.detail] for check in checks]
        title = f"{Path(given['output']).name} against {Path(given['source']).name}"
        terminal.show_table(title, ["check", "", "detail"], rows)
    return _ended(report, display)


@app.command
@flags(ProfileJob, HISTORY, FLOW, source=None)
def profile(*, source: str | None, history: bool, flow: bool, display: Display, **given: Any) -> int:
    """Measure what reading a source chunk by chunk takes, and suggest a limit."""
    if history:
        from flows import housekeeping

        return housekeeping.show_history(request.settings_of(given), display)
    if source is None:
        raise UsageError("profile needs a source", hint="name one, or pass --history")
    if flow:
        choose_server()
        from flows.profile_memory import profile_memory

        report = _flow(profile_memory, given | {"source": source})
    else:
        report = _run(request.profile_job(source, **given), display)
    if not display.json and report.memory.top_allocators:
        rows = [
            [each.location, format_bytes(each.size_bytes), str(each.blocks)] for each in report.memory.top_allocators
        ]
        terminal.show_table("top allocators", ["line", "size", "blocks"], rows)
    return _ended(report, display)


@app.command
@flags(DriversJob)
def drivers(*, display: Display, **given: Any) -> int:
    """What this build can read and write; exit 1 if a named driver cannot."""
    report = _run(request.drivers_job(**given), display)
    if not display.json and report.result.get("drivers"):
        rows = [
            [each["name"], each["kind"], *(_yes(each[does]) for does in _DOES), str(each["detail"])]
            for each in report.result["drivers"]
        ]
        terminal.show_table("drivers", ["driver", "kind", *(does.replace("_", " ") for does in _DOES), "detail"], rows)
        report.result = {}
    return _ended(report, display)


@plan_app.command(name="raster")
@flags(RasterJob, destination="planned.tif")
def plan_raster(*, display: Display, **given: Any) -> int:
    """Plan a raster job."""
    return _planned(request.raster_job(**given | {"overwrite": True}), display)


@plan_app.command(name="vector")
@flags(VectorJob, destination="planned.gpkg")
def plan_vector(*, display: Display, **given: Any) -> int:
    """Plan a vector job."""
    return _planned(request.vector_job(**given | {"overwrite": not given.get("append")}), display)


@app.command
@flags()
def config(*, display: Display, **given: Any) -> int:
    """Every setting with its value and where it came from."""
    from flows import housekeeping

    return housekeeping.show_config(request.settings_of(given), display)


@app.command
@flags(None, FOLDER, OLDER_THAN, DRY_RUN)
def clean(*, folder: str, older_than: str | None, dry_run: bool, display: Display, **_: Any) -> int:
    """List and remove staged leftovers of jobs that died."""
    from flows import housekeeping

    return housekeeping.sweep(folder, older_than, display, dry_run=dry_run)


@app.command
@flags(None, DEMO_FOLDER)
def demo(*, folder: str | None, display: Display, **given: Any) -> int:
    """Real data, end to end, as a flow under 256 MiB."""
    choose_server()
    from flows.demo import run_demo

    limit = request.settings_of(given).settings.memory_limit_mb if given["memory_limit_mb"] else 256
    record = run_demo(folder=folder or DEMO_FOLDER.default, memory_limit_mb=limit, quiet=display.json)
    if display.json:
        terminal.write_json(record)
    return int(record["exit_code"])


def main(signals: Sequence[int] = (), came: Sequence[int] = ()) -> None:
    """Parse, run, show, exit with the report's code; `signals` are those to hear, `came` those that came during the imports."""
    tokens = sys.argv[1:]
    terminal.listen_early(tokens)
    try:
        for number in signals:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _terminate)
        for number in came:
            signal.raise_signal(number)
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except _Termination:
        code = _failed(Terminated(f"stopped by a signal; {_published(tokens)}"), tokens)
    except KeyboardInterrupt:
        code = _failed(Interrupted(f"interrupted; {_published(tokens)}"), tokens)
    except SwathError as error:
        code = _failed(error, tokens)
    except CycloptsError as error:
        code = _failed(_misused(str(error)), tokens)
    except BrokenPipeError:
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, sys.stdout.fileno())  # nobody reads any more; say nothing at exit either
        code = 1
    except Exception as error:  # noqa: BLE001 - the terminal's boundary
        words = f"unexpected {type(error).__name__}: {error}"
        code = _failed(SwathError(words, traceback="".join(traceback.format_exception(error))), tokens)
    sys.exit(code if isinstance(code, int) else 0)


def _published(tokens: Sequence[str]) -> str:
    is_batch = tokens[:1] == ["batch"]
    return "files that were done are published, nothing of the others" if is_batch else "nothing was published"


class _Termination(KeyboardInterrupt):
    """SIGTERM or SIGHUP; passes everything that Ctrl-C passes."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Termination


def _failed(error: SwathError, tokens: list[str]) -> int:
    """Show an error that no report carries yet."""
    words = {word.split("=")[0] for word in tokens}
    error.hint = error.hint.replace("`swath --help`", f"`swath{_command(tokens)} --help`")
    return _ended(Report.of_error(error, _running), Display(json="--json" in words, debug="--debug" in words))


def _run(job: Job, display: Display, run: Callable[..., Report] = run_job) -> Report:
    _running.update(job.model_dump(mode="json"))
    with terminal.progress(job, quiet=display.json) as hear:
        return run(job, on_event=hear)


def _planned(job: Job, display: Display) -> int:
    report = run_job(job, plan_only=True)
    if report.ok and not display.json:
        terminal.show_plan(report)
        return 0
    return _ended(report, display)


def _ended(report: Report, display: Display) -> int:
    terminal.log_end(report)
    if display.json:
        terminal.write_json(report.to_record(debug=display.debug))
    elif report.ok:
        terminal.show_report(report)
    else:
        terminal.show_error(report, debug=display.debug)
    return report.exit_code


def _flow(flow: Any, given: Mapping[str, Any]) -> Report:
    """Run a flow with the same words, those left out as the flow has them; its report comes back through the run's state."""
    from tasks.states import report_of

    return report_of(state_of(flow, request.flow_arguments(given)))


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _command(tokens: list[str]) -> str:
    """The command as typed, with a space before it; empty where it is none."""
    words = [token for token in tokens[:2] if not token.startswith("-")]
    known = [words[:length] for length in (2, 1) if len(words) >= length and _is_command(words[:length])]
    return "".join(f" {word}" for word in known[0]) if known else ""


def _is_command(words: list[str]) -> bool:
    return words[0] in app and (len(words) == 1 or (words[0] == "plan" and words[1] in plan_app))


def _misused(text: str) -> UsageError:
    """What cyclopts says, without a suggestion that is not near."""
    words = _plain(text)
    if near := re.search(r"(\S+?)\.? Did you mean (\S+?)\?", words):
        asked, meant = (each.strip("\"'.-") for each in near.groups())
        if difflib.SequenceMatcher(None, asked, meant).ratio() < _NEAR:
            words = words.replace(near[0], near[1])
    return UsageError(words.partition(" Available commands:")[0])


def _plain(text: str) -> str:
    return " ".join(text.replace("│", " ").split())
