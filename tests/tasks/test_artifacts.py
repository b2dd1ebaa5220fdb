"""The artifacts of a report, from hand-made reports: no Prefect server, no child."""

import base64
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from markdown_it import MarkdownIt

from lib.errors import MemoryExceeded, MemoryRefused
from lib.reports import Allocator, Attempt, Cap, Check, MemoryRecord, Report, Seconds, Verification
from lib.units import MIB
from tasks.artifacts import allocator_rows, memory_markdown, memory_svg

_PLAN = {
    "limit_bytes": 256 * MIB,
    "projected_bytes": 142 * MIB,
    "disk_bytes": 3 * 1024 * MIB,
    "terms": {"interpreter": 88 * MIB, "window_buffers": 54 * MIB},
    "window": [512, 43200],
    "threads": 2,
    "gdal_cache_bytes": 20 * MIB,
}


def make(**changes: Any) -> Report:
    """A report of a raster job that went well, with changes."""
    memory = MemoryRecord(
        cap=Cap(mechanism="watchdog + RLIMIT_AS", bytes=256 * MIB),
        baseline_bytes=92 * MIB,
        peak_bytes=131 * MIB,
        final_bytes=95 * MIB,
        residual_bytes=3 * MIB,
        max_drift_bytes=33 * MIB,
        samples=[(i * 0.05, (92 + min(i, 30)) * MIB) for i in range(240)],
        top_allocators=[Allocator(location="engine.py:120", size_bytes=12 * MIB, blocks=4)],
    )
    fields: dict[str, Any] = {
        "status": "completed",
        "exit_code": 0,
        "job": {"kind": "raster", "source": "/data/in.tif", "destination": "/data/out.tif"},
        "plan": _PLAN,
        "memory": memory,
        "verification": Verification(level="full", passed=True, checks=[Check("structure", True, "1 | 2 <b>")]),
        "attempts": [
            Attempt(outcome="exceeded", limit_bytes=256 * MIB, chunk="512 x 43200 px", threads=2, peak_bytes=260 * MIB),
            Attempt(
                outcome="completed", limit_bytes=256 * MIB, chunk="256 x 43200 px", threads=2, peak_bytes=131 * MIB
            ),
        ],
        "warnings": ["23.0 MiB stayed after release"],
        "seconds": Seconds(total=11.2, startup=0.5, work=9.9, verify=0.8),
    }
    return Report(**fields | changes)


def tables(markdown: str) -> list[list[list[str]]]:
    """Every table of a markdown text, as an independent parser of markdown sees them: rows of cells."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level > 3:
            found[-1][-1].append(token.content)
    return found


def test_memory_is_told_with_units() -> None:
    """Limit, projection, peak, baseline, residual and drift stand in the first table, each with its unit."""
    rows = {row[0]: row[1] for row in tables(memory_markdown(make()))[0]}
    assert rows == {
        "Quantity": "Size",
        "Limit": "256.0 MiB",
        "Projected peak": "142.0 MiB",
        "Peak": "131.0 MiB",
        "Baseline": "92.0 MiB",
        "Most drift": "33.0 MiB",
        "Final": "95.0 MiB",
        "Residual": "3.0 MiB",
        "Last sample": "122.0 MiB",
    }


def test_every_table_parses_whatever_stands_in_its_cells() -> None:
    """Bars and markup in what a check says neither break a table nor become markup."""
    markdown = memory_markdown(make())
    _, plan, checks, attempts, time = tables(markdown)
    assert ["**memory: projected peak**", "**142.0 MiB**"] in plan
    assert checks[1] == ["structure", "yes", "1 | 2 &lt;b&gt;"]
    assert [row[1] for row in attempts[1:]] == ["exceeded", "completed"]
    assert time[-1] == ["total", "11.2 s"]
    assert "- 23.0 MiB stayed after release" in markdown


def test_the_picture_is_embedded_and_small() -> None:
    """The page holds the picture as a data URI of well-formed SVG, and 240 samples stay far below Prefect's 500 kB."""
    markdown = memory_markdown(make())
    found = re.search(r"!\[[^\]]+\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert found
    root = ET.fromstring(base64.b64decode(found[1]))  # noqa: S314 - our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(markdown) < 200_000


def test_the_picture_labels_its_lines_with_units() -> None:
    """Axes and lines are named, with MiB and seconds (matplotlib leaves each text as a comment beside its outline)."""
    svg = memory_svg(make().memory, limit_bytes=256 * MIB, projected_bytes=142 * MIB)
    texts = set(re.findall(r"<!-- (.+?) -->", svg))
    assert {
        "time since the job began, seconds",
        "resident memory, MiB",
        "limit 256 MiB",
        "projected 142 MiB",
        "baseline 92 MiB",
        "peak 131 MiB",
    } <= texts


@pytest.mark.parametrize("count", [1, 2])
def test_a_short_job_has_a_picture_too(count: int) -> None:
    """One or two samples draw without a warning of matplotlib's."""
    memory = MemoryRecord(samples=[(0.0, 90 * MIB), (0.1, 91 * MIB)][:count])
    assert memory_svg(memory, limit_bytes=None, projected_bytes=None).lstrip().startswith("<?xml")


def test_a_killed_job_tells_error_hint_and_last_sample() -> None:
    """A job that was stopped shows its error, what to do, its last sample and who held the memory."""
    killed = make(memory=MemoryRecord(samples=[(1.5, 250 * MIB)])).with_error(
        MemoryExceeded("in.tif: stopped by the watchdog", hint="raise the limit")
    )
    markdown = memory_markdown(killed)
    assert markdown.startswith("# Raster job exceeded\n")
    assert "> **MemoryExceeded** (exit 137): in.tif: stopped by the watchdog" in markdown
    assert "> **What to do:** raise the limit" in markdown
    assert ["Last sample", "250.0 MiB", "1.5 s after the job began"] in tables(markdown)[0]
    assert allocator_rows(killed) == [{"location": "(no Python allocation was traced)", "size": "-", "blocks": "-"}]


def test_a_refused_job_names_the_limit_that_would_do() -> None:
    """A job that was refused has no samples; its page says so, and names the smallest limit."""
    error = MemoryRefused("in.tif: 100 MiB are too few", smallest_limit_bytes=120 * MIB + 1)
    markdown = memory_markdown(Report.of_error(error, make().job | {"resources": {"limit_bytes": 100 * MIB}}))
    assert "> **Smallest limit for this job:** 121 MiB" in markdown
    assert "No sample of memory was taken" in markdown
    assert tables(markdown)[0][1][:2] == ["Limit", "100.0 MiB"]


_SEEN = {
    "resident_bytes": 128 * MIB,
    "imports_bytes": 64 * MIB,
    "python_heap_bytes": 8 * MIB,
    "numpy_bytes": 24 * MIB,
    "tracing_bytes": MIB,
    "not_resident_bytes": 0,
    "unexplained_bytes": 31 * MIB,
}
_END = _SEEN | {
    "resident_bytes": 96 * MIB,
    "python_heap_bytes": 0,
    "numpy_bytes": 0,
    "tracing_bytes": 0,
    "unexplained_bytes": 32 * MIB,
}


def _with(**changes: Any) -> Report:
    return make(memory=make().memory.model_copy(update=changes))


def test_holders_are_told_near_the_peak_and_at_the_end() -> None:
    """The table says of which size of which peak it is, and has both unexplained shares; what was not traced is not 0 bytes."""
    table = tables(memory_markdown(_with(attribution=_SEEN, attribution_end=_END)))[1]
    assert table[0] == ["Holder", "Size of the 131.0 MiB peak, seen at 128.0 MiB", "Size at the end"]
    rows = {row[0]: row[1:] for row in table}
    assert rows["unexplained"] == ["31.0 MiB (24%)", "32.0 MiB (33%)"]
    assert rows["numpy"] == ["24.0 MiB (19%)", "not traced, in unexplained"]


def test_no_row_says_0_bytes() -> None:
    """What a plan or a process holds nothing of is no row; what only the end holds nothing of is a dash."""
    plan = _PLAN | {"disk_bytes": 0, "gdal_cache_bytes": 0, "terms": {"interpreter": 88 * MIB, "retained": 0}}
    end = _SEEN | {"tracing_bytes": MIB, "numpy_bytes": 0}
    markdown = memory_markdown(_with(attribution=_SEEN, attribution_end=end).model_copy(update={"plan": plan}))
    _, holders, planned, *_ = tables(markdown)
    assert " 0 B" not in markdown
    assert ["numpy", "24.0 MiB (19%)", "-"] in holders
    assert "not resident" not in [row[0] for row in holders]
    assert [row[0] for row in planned[1:]] == [
        "memory: interpreter", "**memory: projected peak**", "window", "threads",
    ]  # fmt: skip


def test_a_slope_is_told_with_its_unit_and_interval() -> None:
    """Bytes per chunk, and between which two it is at 95 %; no row of it where there is no slope."""
    rows = {
        row[0]: row[1:]
        for row in tables(memory_markdown(_with(slope_bytes_per_chunk=1536.4, slope_interval=(-512, 4096))))[0]
    }
    assert rows["Slope"][0] == "1.5 KiB per chunk"
    assert "95 % between -512 B and 4.0 KiB" in rows["Slope"][1]
    assert "Slope" not in [row[0] for row in tables(memory_markdown(make()))[0]]


@pytest.mark.parametrize("lines", [[], [{"location": "mine.py:7", "size_bytes": MIB, "blocks": 4}]])
def test_a_leak_has_a_row(lines: list[dict[str, Any]]) -> None:
    """Its size per chunk, when it passes the threshold, and the lines that grew."""
    leak = {"bytes_per_chunk": 262144.0, "crosses_at_chunk": 173, "interval": [1, 2], "lines": lines}
    rows = {row[0]: row[1:] for row in tables(memory_markdown(_with(leak=leak)))[0]}
    assert rows["**Leak**"][0] == "256.0 KiB per chunk"
    assert "at chunk 173" in rows["**Leak**"][1]
    assert ("mine.py:7 (+1.0 MiB)" if lines else "no line") in rows["**Leak**"][1]


def test_allocators_become_rows() -> None:
    """The table's rows are location, size with unit, blocks."""
    assert allocator_rows(make()) == [{"location": "engine.py:120", "size": "12.0 MiB", "blocks": 4}]
