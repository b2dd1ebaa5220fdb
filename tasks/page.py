"""Report → the markdown page of a run: verdict first, then what to do, the picture, and the numbers behind it.

Pure: where it goes is in `artifacts.py`. The terminal's rendering of the same report is in flows/terminal.py.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.knobs import as_a_flow_says
from lib.redact import redacted
from lib.reports import MemoryRecord, Report, chunk_words
from lib.units import KIB, file_label, format_bytes, format_seconds
from tasks.past import Past
from tasks.picture import memory_svg

_SHOWN_CHECKS = 40
_SHOWN_WARNINGS = 20
_SHOWN_BANDS = 12
_LEAST_SHARE = 0.005
_STEPS = {
    "drivers": "validate drivers", "profile": "profile", "raster": "transform", "vector": "filter", "verify": "verify",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chapters:
    """What a page is made of.

    Attributes:
        report: the run's report: of its work, with what verification and publication added.
        job: the run's job as a record, where the report is of another step (drivers, a profile).
        steps: the reports of all steps, in order; with fewer than two there is no table of them.
        past: runs of the same key, latest first.
        compared: this run against the last one, one sentence; empty where there was none.
    """

    report: Report
    job: dict[str, Any] = field(default_factory=dict)
    steps: Sequence[Report] = ()
    past: Sequence[Past] = ()
    compared: str = ""


def page_markdown(chapters: Chapters) -> str:
    """The whole page."""
    report = chapters.report
    parts = [
        f"# {verdict(report, chapters.job)}",
        _subject(chapters.job or report.job),
        _error(report),
        *_facts(report, chapters.compared),
        *_warnings(report.warnings),
        _picture(report),
        *titled("Memory", ("Quantity", "Size", "Meaning"), _memory_rows(report)),
        *_holders(report.memory),
        *titled("Last runs", ("When", "Ended", "Time", "Peak", "Limit", "Output", "Run"), _past_rows(chapters.past)),
        *titled("Bands", ("Band", "Lowest", "Highest", "Mean", "Deviation", "Valid"), _band_rows(report)),
        *titled("Steps", ("Step", "Ended", "Time", "Peak"), _step_rows(chapters.steps)),
        *titled("Checks", ("Check", "Passed", "Compared"), _check_rows(report)),
        *titled("Attempts", ("#", "Outcome", "Limit", "Chunk", "Threads", "Peak"), _attempt_rows(report)),
        *titled("Plan", ("Term", "Projected"), _plan_rows(report.plan)),
        *titled("Time", ("Part", "Duration"), _time_rows(report)),
    ]
    return redacted("\n\n".join(part for part in parts if part)) + "\n"


def verdict(report: Report, job: dict[str, Any] | None = None) -> str:
    """How it ended, in a few words; `job` is the run's, where the report is of another step."""
    job = job or report.job
    if report.error is not None:
        name = file_label(str(job.get("destination") or job.get("output") or job.get("source") or ""))
        fate = (
            "is not published"
            if job.get("destination")
            else "is not what it should be"
            if job.get("output")
            else "is not done"
        )
        if report.error.type != "VerificationFailed" and job.get("output"):
            fate = "is not verified"
        return f"{report.status.capitalize()}: {cell(name)} {fate} ({report.error.type}, exit {report.exit_code})"
    kind = str(job.get("kind", "job"))
    done = (
        f"{cell(Path(report.output.path).name)} is published" if report.output else f"{_STEPS.get(kind, kind)} is done"
    )
    return f"{report.status.capitalize()}: {done}"


def headline(report: Report) -> str:
    """One line of it: what came of it, how large, how long, in what memory."""
    if report.status == "refused":  # what it held so far is the size of an interpreter
        return ""
    size = f"{format_bytes(report.output.bytes)}" if report.output else ""
    spent = f"in {format_seconds(report.seconds.total)}" if report.seconds.total else ""
    return ", ".join(filter(None, [f"{size} {spent}".strip(), _peak(report)]))


def _peak(report: Report) -> str:
    limit = f" of a limit of {format_bytes(_limit(report))}" if _limit(report) else ""
    return f"peak {format_bytes(report.memory.peak_bytes)}{limit}" if report.memory.peak_bytes else ""


def what_next(report: Report) -> str:
    """What to do about an error, by the names of a flow's parameters; empty where nobody knows."""
    if report.error is None:
        return ""
    hint = as_a_flow_says(report.error.hint or "").rstrip(".")
    if report.error.type == "VerificationFailed":
        if report.job.get("kind") == "verify":
            return "the checks that failed stand first under Checks; make the output anew, or restore it"
        return f"{hint}; nothing was published, and what was at the destination is as it was"
    if report.status == "exceeded":
        return f"{hint}; `memory_limit_max_mb` lets it climb by itself, so far as that"
    return hint


def _facts(report: Report, compared: str) -> list[str]:
    """What a reader wants to know first, one line each."""
    output, verification = report.output, report.verification
    plan = report.plan or {}
    projected = f" (projected {format_bytes(plan['projected_bytes'])})" if plan.get("projected_bytes") else ""
    lines = [
        f"**Published** `{output.path}`, {format_bytes(output.bytes)}, {output.driver}" if output else "",
        f"**Took** {format_seconds(report.seconds.total)}" if headline(report) and report.seconds.total else "",
        f"**Memory** {_peak(report)}{projected}" if headline(report) and report.memory.peak_bytes else "",
        f"**Verified** {verification.words}" if verification and verification.passed else "",
        f"**Compared with the last run** {compared}" if compared else "",
    ]
    return ["\n".join(f"- {line}" for line in lines if line)] if any(lines) else []


def _past_rows(past: Sequence[Past]) -> list[tuple[str, ...]]:
    return [
        (
            each.when,
            cell(each.status),
            format_seconds(each.seconds) if each.seconds else "-",
            format_bytes(each.peak_bytes),
            format_bytes(each.limit_bytes),
            format_bytes(each.output_bytes),
            cell(each.run or "-"),
        )
        for each in past
    ]


def _step_rows(steps: Sequence[Report]) -> list[tuple[str, ...]]:
    if len(steps) < 2:  # noqa: PLR2004 - one step is the page
        return []
    return [
        (
            _STEPS.get(str(each.job.get("kind")), "step"),
            each.status if each.ok else f"**{each.error.type if each.error else each.status}**",
            format_seconds(each.seconds.total),
            format_bytes(each.memory.peak_bytes),
        )
        for each in steps
    ]


def _subject(job: dict[str, Any]) -> str:
    names = [name for name in (job.get("source"), job.get("output") or job.get("destination")) if name]
    if job.get("kind") == "drivers" and job.get("names"):
        names = [", ".join(job["names"])]
    return " → ".join(f"`{cell(redacted(str(name))).replace('`', '')}`" for name in names)


def _error(report: Report) -> str:
    """What is wrong and what to do, before all else."""
    if report.error is None:
        return ""
    lines = [f"> **What is wrong:** {cell(as_a_flow_says(report.error.message))}"]
    if told := what_next(report):
        lines += [">", f"> **What to do:** {cell(told)}"]
    if smallest := report.error.smallest_limit_mb:
        lines += [">", f"> **Smallest limit for this job:** `memory_limit_mb` {smallest} (MiB)"]
    return "\n".join(lines)


def _picture(report: Report) -> str:
    if not report.memory.samples or _is_refused_at_once(report):
        return "*There is no picture: the job ended before it began to work.*"
    svg = memory_svg(
        report.memory, limit_bytes=_limit(report), projected_bytes=(report.plan or {}).get("projected_bytes")
    )
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f"![Resident memory over time: {report.status}](data:image/svg+xml;base64,{data})"


def _is_refused_at_once(report: Report) -> bool:
    """Refused by its start-up alone: what it held is the size of an interpreter with its imports, not of the job."""
    return report.status == "refused" and report.plan is None


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
    rows = rows[:1] if _is_refused_at_once(report) else rows
    told = [(name, format_bytes(size), meaning) for name, size, meaning in rows if size]
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
        rows.append(("**Leak**", f"{format_bytes(round(leak['bytes_per_chunk']))} per chunk", cell(meaning)))
    return rows


def _holders(memory: MemoryRecord) -> list[str]:
    """Attribution near the peak and at the end, side by side, each with the size that it is of."""
    peak, end = memory.attribution, memory.attribution_end
    rows = [
        (cell(name.removesuffix("_bytes").replace("_", " ")), _share(name, peak), _share(name, end))
        for name in peak or end
        if any(abs(each.get(name, 0)) >= KIB for each in (peak, end)) or _is_untraced(name, peak)
    ]
    if not rows:
        return []
    of_peak = f" of the {format_bytes(memory.peak_bytes)} peak" if memory.peak_bytes else " of the peak"
    seen = f", seen at {format_bytes(peak['resident_bytes'])}" if "resident_bytes" in peak else ""
    return titled("Memory by holder", ("Holder", f"Size{of_peak}{seen}", "Size at the end"), rows)


def _share(name: str, attribution: dict[str, int]) -> str:
    """One part of an attribution with its share; of Python and NumPy only while they were traced."""
    if _is_untraced(name, attribution):
        return "not traced, in unexplained"
    if abs(attribution.get(name, 0)) < KIB:
        return "-"
    resident = attribution.get("resident_bytes") or 1
    share = attribution[name] / resident
    return f"{format_bytes(attribution[name])} ({'less than 1%' if 0 < share < _LEAST_SHARE else f'{share:.0%}'})"


def _is_untraced(name: str, attribution: dict[str, int]) -> bool:
    return name in ("python_heap_bytes", "numpy_bytes") and attribution.get("tracing_bytes") == 0


def _plan_rows(plan: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Terms that are not 0, and what else a plan says."""
    if not plan:
        return []
    terms = {f"memory: {cell(name.replace('_', ' '))}": size for name, size in plan.get("terms", {}).items()}
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
        *((name, cell(str(said))) for name, said in others.items() if said),
    ]


def _check_rows(report: Report) -> list[tuple[str, str, str]]:
    checks = report.verification.checks if report.verification else []
    checks = sorted(checks, key=lambda check: check.passed)[:_SHOWN_CHECKS]
    return [(cell(check.name), "yes" if check.passed else "**no**", cell(check.detail)) for check in checks]


def _attempt_rows(report: Report) -> list[tuple[str, ...]]:
    if len(report.attempts) < 2:  # noqa: PLR2004 - one is the run
        return []
    return [
        (
            str(number),
            cell(attempt.outcome),
            format_bytes(attempt.limit_bytes),
            cell(attempt.chunk or "-"),
            str(attempt.threads or "-"),
            format_bytes(attempt.peak_bytes),
        )
        for number, attempt in enumerate(report.attempts, start=1)
    ]


def _time_rows(report: Report) -> list[tuple[str, str]]:
    parts = report.seconds
    named = {"start-up and plan": parts.startup, "work": parts.work, "verification": parts.verify, "total": parts.total}
    told = [(name, format_seconds(seconds)) for name, seconds in named.items() if seconds]
    return told if len(told) > 1 else []


def _band_rows(report: Report) -> list[tuple[str, ...]]:
    """Statistics of valid pixels, of the first bands."""
    return [
        (
            str(each["band"]),
            *(_number(each[name]) for name in ("min", "max", "mean", "std")),
            f"{each['valid_percent']:g} %",
        )
        for each in report.result.get("statistics", ())[:_SHOWN_BANDS]
    ]


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"


def _warnings(warnings: Sequence[str]) -> list[str]:
    more = [f"and {len(warnings) - _SHOWN_WARNINGS} more"] if len(warnings) > _SHOWN_WARNINGS else []
    lines = [*warnings[:_SHOWN_WARNINGS], *more]
    return ["## Warnings", "\n".join(f"- {cell(as_a_flow_says(line))}" for line in lines)] if lines else []


def titled(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table with a title; nothing where it has no rows."""
    return [f"## {title}", _table(header, rows)] if rows else []


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(text: str) -> str:
    """Text that came from outside, as one table cell: no markup of its own, no line breaks, no bars."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|")
