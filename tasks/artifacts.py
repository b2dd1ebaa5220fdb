"""Report → what the Prefect UI shows of it: a markdown page with the picture of memory, and a table of allocators.

`memory_markdown`, `allocator_rows` and `memory_svg` are pure; only `emit` speaks to the API. Where the numbers come from is
lib/memory; the terminal's rendering of the same report is in flows/terminal.py.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from lib.knobs import as_parameters
from lib.reports import MemoryRecord, Report, chunk_words
from lib.units import MIB, format_bytes, format_seconds

# Transparent ground and middle tones: each has a contrast of at least 3.2:1 on white and on the UI's near-black.
_INK, _LIMIT, _PROJECTED, _BASELINE, _RESIDENT = "#747c8c", "#e5484d", "#d17a00", "#2b9a66", "#3b82f6"
_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "svg.fonttype": "path",
    "svg.hashsalt": "swath",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.alpha": 0.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), _INK),
}


def emit(report: Report) -> None:
    """Create both artifacts of a report, keyed by job kind: `raster-memory` and `raster-allocators`."""
    kind = report.job.get("kind", "job")
    create_markdown_artifact(
        memory_markdown(report), key=f"{kind}-memory", description=f"Memory of the {kind} job: {_headline(report)}"
    )
    create_table_artifact(
        allocator_rows(report),
        key=f"{kind}-allocators",
        description=f"Lines of code that held most memory at the peak of the {kind} job",
    )


def allocator_rows(report: Report) -> list[dict[str, Any]]:
    """The top allocators as rows of a table; one row that says so where none were traced."""
    rows: list[dict[str, Any]] = [
        {"location": each.location, "size": format_bytes(each.size_bytes), "blocks": each.blocks}
        for each in report.memory.top_allocators
    ]
    return rows or [{"location": "(no Python allocation was traced)", "size": "-", "blocks": "-"}]


def memory_markdown(report: Report) -> str:
    """The whole page: outcome, picture, memory, plan, checks, attempts, warnings."""
    parts = [
        f"# {str(report.job.get('kind', 'job')).capitalize()} job {report.status}",
        _subject(report.job),
        _error(report),
        _picture(report),
        "## Memory",
        _table(("Quantity", "Size", "Meaning"), _memory_rows(report)),
        *_holders(report.memory),
        *_titled("Plan", ("Term", "Projected"), _plan_rows(report.plan)),
        *_titled("Checks", ("Check", "Passed", "Compared"), _check_rows(report)),
        *_titled("Attempts", ("#", "Outcome", "Limit", "Chunk", "Threads", "Peak"), _attempt_rows(report)),
        *_warnings(report.warnings),
        *_titled("Time", ("Part", "Duration"), _time_rows(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(report: Report) -> str:
    peak = report.memory.peak_bytes
    return report.status + (f", peak {format_bytes(peak)}" if peak else "")


def _subject(job: dict[str, Any]) -> str:
    names = [name for name in (job.get("source"), job.get("output") or job.get("destination")) if name]
    if job.get("kind") == "drivers" and job.get("names"):
        names = [", ".join(job["names"])]
    return " → ".join(f"`{name}`" for name in names)


def _error(report: Report) -> str:
    if report.error is None:
        return ""
    lines = [
        f"> **{report.error.type}** (exit {report.exit_code}): {_cell(as_parameters(report.error.message))}",
    ]
    if report.error.hint:
        lines += [">", f"> **What to do:** {_cell(as_parameters(report.error.hint))}"]
    if report.error.smallest_limit_mb:
        lines += [">", f"> **Smallest limit for this job:** {report.error.smallest_limit_mb} MiB"]
    return "\n".join(lines)


def _picture(report: Report) -> str:
    if not report.memory.samples:
        return "*No sample of memory was taken: the job ended before its first chunk.*"
    svg = memory_svg(
        report.memory, limit_bytes=_limit(report), projected_bytes=(report.plan or {}).get("projected_bytes")
    )
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f"![Resident memory over time: {_headline(report)}](data:image/svg+xml;base64,{data})"


def _limit(report: Report) -> int | None:
    """The limit that held at the end, bytes: the last attempt's, the plan's, or the one that was asked for."""
    limit = (report.plan or {}).get("limit_bytes") or report.job.get("resources", {}).get("limit_bytes")
    return report.memory.cap.bytes if report.memory.cap else limit


def _memory_rows(report: Report) -> list[tuple[str, str, str]]:
    memory = report.memory
    plan = report.plan or {}
    held_by = f"held by {memory.cap.mechanism}" if memory.cap else "of the job's process and its descendants"
    last = memory.samples[-1] if memory.samples else None
    # A killed child has released nothing: what its last sample held is in "Last sample".
    final = memory.final_bytes if memory.residual_bytes is not None else None
    rows = [
        ("Limit", _limit(report), held_by),
        ("Projected peak", plan.get("projected_bytes"), "planned from the header and the first chunks"),
        ("Peak", memory.peak_bytes, "high-water mark of resident memory"),
        ("Baseline", memory.baseline_bytes, "datasets open and buffers touched, before the loop"),
        ("Most drift", memory.max_drift_bytes, "largest growth over the baseline while it ran"),
        ("Final", final, "after closing, gc and malloc_trim"),
        ("Residual", memory.residual_bytes, "final minus baseline"),
        ("Last sample", last[1] if last else None, f"{format_seconds(last[0])} after the job began" if last else ""),
    ]
    told = [(name, format_bytes(size), meaning) for name, size, meaning in rows if size is not None]
    return [*told, *_slope_rows(memory)]


def _slope_rows(memory: MemoryRecord) -> list[tuple[str, str, str]]:
    """The slope with its interval; the leak it is, if it is one, with its lines."""
    rows = []
    if memory.slope_bytes_per_chunk is not None:
        between = " and ".join(format_bytes(round(end)) for end in memory.slope_interval or ())
        meaning = "growth of what stays after release, fitted after warm-up" + (
            f"; 95 % between {between}" if between else ""
        )
        rows.append(("Slope", f"{format_bytes(round(memory.slope_bytes_per_chunk))} per chunk", meaning))
    if leak := memory.leak:
        lines = ", ".join(f"{each['location']} (+{format_bytes(each['size_bytes'])})" for each in leak["lines"])
        meaning = f"passes the drift threshold at chunk {leak['crosses_at_chunk']}; " + (
            f"grows at {lines}" if lines else "no line of Python or NumPy is known to grow"
        )
        rows.append(("**Leak**", f"{format_bytes(round(leak['bytes_per_chunk']))} per chunk", _cell(meaning)))
    return rows


def _holders(memory: MemoryRecord) -> list[str]:
    """Attribution near the peak and at the end, side by side, each with the size that it is of."""
    peak, end = memory.attribution, memory.attribution_end
    rows = [
        (_cell(name.removesuffix("_bytes").replace("_", " ")), _share(name, peak), _share(name, end))
        for name in peak or end
        if peak.get(name) or end.get(name) or _is_untraced(name, peak)
    ]
    if not rows:
        return []
    of_peak = f" of the {format_bytes(memory.peak_bytes)} peak" if memory.peak_bytes else " of the peak"
    seen = f", seen at {format_bytes(peak['resident_bytes'])}" if "resident_bytes" in peak else ""
    return _titled("Memory by holder", ("Holder", f"Size{of_peak}{seen}", "Size at the end"), rows)


def _share(name: str, attribution: dict[str, int]) -> str:
    """One part of an attribution with its share; of Python and NumPy only while they were traced."""
    if _is_untraced(name, attribution):
        return "not traced, in unexplained"
    if not attribution.get(name):
        return "-"
    resident = attribution.get("resident_bytes") or 1
    return f"{format_bytes(attribution[name])} ({attribution[name] / resident:.0%})"


def _is_untraced(name: str, attribution: dict[str, int]) -> bool:
    return name in ("python_heap_bytes", "numpy_bytes") and attribution.get("tracing_bytes") == 0


def _plan_rows(plan: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Terms that are not 0, and what else a plan says."""
    if not plan:
        return []
    terms = {f"memory: {_cell(name.replace('_', ' '))}": size for name, size in plan.get("terms", {}).items()}
    disk = {
        "disk, at most, with temporary files": plan.get("disk_bytes"),
        "free on that disk": plan.get("disk_free_bytes"),
    }
    others = {
        "window" if plan.get("window") else "batch": chunk_words(plan),
        "chunks": plan.get("chunks"),
        "threads": plan.get("threads", 1),
        "GDAL block cache": plan.get("gdal_cache_bytes") and format_bytes(plan["gdal_cache_bytes"]),
        "what would lower the peak most": plan.get("lower_by"),
    }
    return [
        *((name, format_bytes(size)) for name, size in terms.items() if size),
        ("**memory: projected peak**", f"**{format_bytes(plan['projected_bytes'])}**"),
        *((name, format_bytes(size)) for name, size in disk.items() if size),
        *((name, _cell(str(said))) for name, said in others.items() if said),
    ]


def _check_rows(report: Report) -> list[tuple[str, str, str]]:
    checks = report.verification.checks if report.verification else []
    return [(_cell(check.name), "yes" if check.passed else "**no**", _cell(check.detail)) for check in checks]


def _attempt_rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            str(number),
            _cell(attempt.outcome),
            format_bytes(attempt.limit_bytes),
            _cell(attempt.chunk or "-"),
            str(attempt.threads or "-"),
            format_bytes(attempt.peak_bytes),
        )
        for number, attempt in enumerate(report.attempts, start=1)
    ]


def _time_rows(report: Report) -> list[tuple[str, str]]:
    parts = report.seconds
    named = {"start-up and plan": parts.startup, "work": parts.work, "verification": parts.verify, "total": parts.total}
    return [(name, format_seconds(seconds)) for name, seconds in named.items() if seconds]


def _warnings(warnings: Sequence[str]) -> list[str]:
    return ["## Warnings", "\n".join(f"- {_cell(warning)}" for warning in warnings)] if warnings else []


def _titled(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"## {title}", _table(header, rows)] if rows else []


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that came from outside, as one table cell: no markup of its own, no line breaks, no bars."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|")


def memory_svg(memory: MemoryRecord, *, limit_bytes: int | None, projected_bytes: int | None) -> str:
    """The picture: resident samples in MiB over seconds, with limit, projection and baseline as labelled lines.

    About 30 kB; drawn without pyplot, which would keep state between the threads of a flow.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    seconds = [second for second, _ in memory.samples]
    resident = [size / MIB for _, size in memory.samples]
    lines = [
        (size / MIB, name, colour, style)
        for size, name, colour, style in (
            (limit_bytes, "limit", _LIMIT, "-"),
            (projected_bytes, "projected", _PROJECTED, "--"),
            (memory.baseline_bytes, "baseline", _BASELINE, ":"),
        )
        if size
    ]
    top = max([*resident, *(line[0] for line in lines), (memory.peak_bytes or 0) / MIB]) * 1.1
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.fill_between(seconds, resident, color=_RESIDENT, alpha=0.18, linewidth=0)
        axes.plot(seconds, resident, color=_RESIDENT, linewidth=2, marker="o" if len(seconds) < 3 else None)  # noqa: PLR2004 - a line needs two points
        for level, _, colour, style in lines:
            axes.axhline(level, color=colour, linewidth=1.6, linestyle=style)
        labels = [(level, f"{name} {level:.0f} MiB", colour) for level, name, colour, _ in lines]
        if memory.peak_bytes:
            labels.append((memory.peak_bytes / MIB, f"peak {memory.peak_bytes / MIB:.0f} MiB", _RESIDENT))
        for place, level, text, colour in _apart(labels, least=top * 0.085):
            axes.annotate(
                text,
                xy=(1.0, level),
                xytext=(1.035, place),
                xycoords=("axes fraction", "data"),
                textcoords=("axes fraction", "data"),
                color=colour,
                va="center",
                fontweight="bold",
                annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
            )
        axes.set(xlabel="time since the job began, seconds", ylabel="resident memory, MiB", ylim=(0, top))
        axes.set_xlim(0, max([*seconds, 0.001]) or 1)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return drawn.getvalue()


def _apart(labels: list[tuple[float, str, str]], *, least: float) -> list[tuple[float, float, str, str]]:
    """Places for labels on one axis, from below, at least `least` apart: `(place, level, text, colour)`."""
    placed: list[tuple[float, float, str, str]] = []
    for level, text, colour in sorted(labels):
        place = max(level, placed[-1][0] + least) if placed else level
        placed.append((place, level, text, colour))
    return placed
