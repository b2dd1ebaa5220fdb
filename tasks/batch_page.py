"""The page of a batch: counts, what is not done and why, the slowest and the heaviest, and the budget in use over time."""

import base64
import io
from collections.abc import Iterator
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.runtime import deployment

from lib.batch.request import Batch
from lib.batch.summary import Summary
from lib.log import Line
from lib.redact import redacted
from lib.units import MIB, format_bytes, format_seconds
from tasks.artifacts import artifact_key
from tasks.logs import run_logger, tell
from tasks.page import cell, titled
from tasks.picture import LIMIT, PROJECTED, RESIDENT, STYLE


def show_batch(summary: Summary, batch: Batch) -> None:
    """Create the page and log the end; nothing of it undoes the work."""
    record = summary.to_record()
    if FlowRunContext.get() is not None:
        try:
            job = {"kind": "batch", "source": str(batch.into)}
            create_markdown_artifact(
                redacted(batch_markdown(summary)), key=artifact_key(job, deployment.name), description=headline(summary)
            )
        except Exception as error:  # noqa: BLE001 - whatever the API's client raises
            tell(run_logger(), Line("WARNING", "log", f"no page of this run: {error}", {}))
    fields = {name: value for name, value in record["reports"].items() if isinstance(value, int)}
    level: Any = "ERROR" if summary.error else "INFO"
    tell(run_logger(), Line(level, f"batch.{record['status']}", headline(summary), fields))


def headline(summary: Summary) -> str:
    """How it ended, in one line."""
    ended = ", ".join(f"{count} {name}" for name, count in summary.counts.items())
    return f"{summary.files} files: {ended}; {format_seconds(summary.seconds)}"


def batch_markdown(summary: Summary) -> str:
    """The whole page."""
    done = summary.counts["completed"] + summary.counts["reused"]
    verdict = "Completed" if summary.error is None else "Not all are done"
    parts = [
        f"# {verdict}: {done} of {summary.files} files",
        f"{headline(summary)}, of which planning {format_seconds(summary.planning_seconds)}.",
        f"Outputs and all reports are in `{summary.folder}`.",
        *_table("Not done", summary.failed, ("source", "status", "message")),
        *_picture(summary),
        *_table("Slowest", summary.slowest, ("source", "seconds", "output_bytes")),
        *_table("Heaviest", summary.heaviest, ("source", "peak_bytes", "projected_bytes", "limit_bytes")),
    ]
    return "\n\n".join(parts) + "\n"


def _table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> list[str]:
    heads = [name.removesuffix("_bytes").replace("seconds", "time") for name in columns]
    return titled(title, heads, [[_shown(name, row[name]) for name in columns] for row in rows])


def _shown(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return format_bytes(value)
    return format_seconds(value) if name == "seconds" else cell(str(value or "-"))


def _picture(summary: Summary) -> Iterator[str]:
    if len(summary.samples) < 2:  # noqa: PLR2004 - a line needs two points
        return
    drawn = base64.b64encode(budget_svg(summary).encode()).decode()
    yield "## The budget in use"
    yield f"![what was admitted and what was resident over time](data:image/svg+xml;base64,{drawn})"


def budget_svg(summary: Summary) -> str:
    """Admitted and resident memory over time, MiB, with the budget where it is near."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    seconds = [each[0] for each in summary.samples]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for at, name, colour in ((1, "admitted", PROJECTED), (2, "resident", RESIDENT)):
            sizes = [each[at] / MIB for each in summary.samples]
            axes.step(seconds, sizes, where="post", color=colour, linewidth=2, label=name)
            axes.fill_between(seconds, sizes, step="post", color=colour, alpha=0.15, linewidth=0)
        most = max(max(each[1:]) for each in summary.samples) or MIB
        if summary.budget_bytes and summary.budget_bytes < 3 * most:
            most = max(most, summary.budget_bytes)
            axes.axhline(summary.budget_bytes / MIB, color=LIMIT, linewidth=1.6, label="budget")
        axes.set(xlabel="time since the batch began, seconds", ylabel="memory, MiB")
        axes.set_ylim(0, 1.25 * most / MIB)
        axes.legend(loc="upper right", frameon=False, labelcolor="linecolor", ncols=3)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()
