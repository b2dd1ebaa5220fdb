"""The page and the table of a report, from hand-made reports: no Prefect server, no child."""

import base64
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from markdown_it import MarkdownIt

from lib.errors import DestinationError, MemoryExceeded, MemoryRefused, VerificationFailed
from lib.reports import Allocator, Attempt, Cap, Check, MemoryRecord, Output, Report, Seconds, Verification
from lib.units import MIB
from tasks.artifacts import artifact_key, describe, describe_table, holder_rows
from tasks.page import Chapters, page_markdown
from tasks.past import Past, compared, from_metadata, past_of, to_metadata
from tasks.picture import memory_svg

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


def memory_markdown(report: Report, **chapters: Any) -> str:
    """The page of a report."""
    return page_markdown(Chapters(report, **chapters))


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
    _, checks, attempts, plan, time = tables(markdown)
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
    assert markdown.startswith("# Exceeded: out.tif is not published (MemoryExceeded, exit 137)\n")
    assert "> **What is wrong:** in.tif: stopped by the watchdog" in markdown
    assert "> **What to do:** raise the limit" in markdown
    assert ["Last sample", "250.0 MiB", "1.5 s after the job began"] in tables(markdown)[0]
    assert [row["what"] for row in holder_rows(killed.memory)] == ["none was traced"]


def test_a_refused_job_names_the_limit_that_would_do() -> None:
    """A job that was refused has no samples; its page says so, and names the smallest limit."""
    error = MemoryRefused("in.tif: 100 MiB are too few", smallest_limit_bytes=120 * MIB + 1)
    markdown = memory_markdown(Report.of_error(error, make().job | {"resources": {"limit_bytes": 100 * MIB}}))
    assert "> **Smallest limit for this job:** `memory_limit_mb` 121 (MiB)" in markdown
    assert "There is no picture" in markdown
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
    _, holders, _, _, planned, _ = tables(markdown)
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


def test_the_table_has_native_memory_beside_python_s_lines() -> None:
    """Holders, largest first, sum up to the resident size; then the lines, with shares; the description says what is what."""
    memory = _with(attribution=_SEEN).memory
    rows = holder_rows(memory)
    assert rows[0] == {
        "kind": "holder", "what": "what imports left: modules, native heaps", "size": "64.0 MiB", "share": "50.0%", "blocks": "-",
    }  # fmt: skip
    holders = [row for row in rows if row["kind"] == "holder"]
    assert sum(float(row["share"].rstrip("%")) for row in holders) == pytest.approx(100, abs=0.5)
    assert any("native memory that no allocator" in row["what"] for row in holders)
    assert any(row["what"] == "NumPy arrays" for row in holders)
    assert rows[-1] == {
        "kind": "line of Python or NumPy", "what": "engine.py:120", "size": "12.0 MiB", "share": "9.4%", "blocks": 4,
    }  # fmt: skip
    assert "Python's heap" in describe_table(memory)
    assert "What the 128.0 MiB were that were resident" in describe_table(memory)


def test_the_verdict_comes_first() -> None:
    """What is published, how large, how long, in what memory and how it compares, before any picture; nothing of 0 B."""
    report = make(output=Output(path="/data/out.tif", bytes=12 * MIB, driver="GTiff"))
    report.memory.residual_bytes = 0
    markdown = memory_markdown(report, compared="(2026-11-27 02:10 UTC): 3.1 s slower (11.2 s after 8.1 s)")
    head = markdown[: markdown.index("![")]
    assert head.startswith("# Completed: out.tif is published\n")
    for words in (
        "`/data/out.tif`, 12.0 MiB, GTiff",
        "**Took** 11.2 s",
        "**Memory** peak 131.0 MiB of a limit of 256.0 MiB",
        "3.1 s slower",
    ):
        assert words in head
    assert " 0 B" not in markdown


def test_a_failure_says_what_to_do_with_parameters() -> None:
    """Flags are called as the form calls them; a failed verification shows its failed check first."""
    busy = make().with_error(DestinationError("destination out.tif exists", hint="replace it with --overwrite"))
    assert "**What to do:** replace it by setting overwrite" in memory_markdown(busy)
    exceeded = make().with_error(MemoryExceeded("in.tif: stopped"))
    assert "raise memory_limit_mb" in memory_markdown(exceeded)
    checks = [Check("structure", True, "x"), Check("extent", False, "1 of 2")]
    failed = make(verification=Verification(level="full", passed=False, checks=checks))
    markdown = memory_markdown(failed.with_error(VerificationFailed("out.tif failed the check 'extent'")))
    assert markdown.startswith("# Failed: out.tif is not published (VerificationFailed, exit 1)")
    assert "what was at the destination is as it was" in markdown
    assert next(table for table in tables(markdown) if table[0][0] == "Check")[1][:2] == ["extent", "**no**"]


@pytest.mark.parametrize(
    ("source", "deployment", "key"),
    [
        ("/data/scene_T32UQD.tif", "nightly", "raster-nightly-scene-t32uqd-"),
        ("/vsicurl/https://a:b@h/München (1).TIF?sig=x", "ad-hoc", "raster-ad-hoc-munchen-1-"),
        ("/data/_.tif", None, "raster-"),
        ("/data/" + "x" * 300 + ".tif", "n" * 300, "raster-nnn"),
    ],
)
def test_keys_are_what_prefect_takes(source: str, deployment: str | None, key: str) -> None:
    """By kind, deployment and source, of the letters that a key may have, of bounded length."""
    made = artifact_key({"kind": "raster", "source": source}, deployment)
    assert made.startswith(key)
    assert re.fullmatch(r"[a-z0-9-]{8,150}", made)


def test_sources_of_the_same_words_have_keys_of_their_own() -> None:
    """By folder, case, and operation; a signature that is another one each night changes nothing."""
    jobs = [
        {"kind": "raster", "source": "/a/t.tif"},
        {"kind": "raster", "source": "/b/t.tif"},
        {"kind": "raster", "source": "/a/T.tif"},
        {"kind": "raster", "source": "/a/t.tif", "operation": {"name": "custom", "function": "a:b"}},
    ]
    assert len({artifact_key(job, "n") for job in jobs}) == 4
    url = {"kind": "raster", "source": "/vsicurl/https://h/t.tif?X-Amz-Signature="}
    assert artifact_key(url | {"source": url["source"] + "1"}, "n") == artifact_key(
        url | {"source": url["source"] + "2"}, "n"
    )


def _past(**changes: Any) -> Past:
    return Past(**{"at": 1_790_000_000, "status": "completed", "seconds": 10.0, "peak_bytes": 100 * MIB} | changes)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            {"seconds": 13.1, "peak_bytes": 112 * MIB},
            "3.1 s slower (13.1 s after 10.0 s), 12.0 MiB heavier (112.0 MiB after 100.0 MiB)",
        ),
        (
            {"seconds": 8.0, "peak_bytes": 50 * MIB},
            "2.0 s faster (8.0 s after 10.0 s), 50.0 MiB lighter (50.0 MiB after 100.0 MiB)",
        ),
        ({"seconds": 10.2}, "as fast (10.2 s after 10.0 s), as heavy (100.0 MiB after 100.0 MiB)"),
        ({"status": "exceeded"}, "that completed (2026-09-21 14:13 UTC in 10.0 s, peak 100.0 MiB)"),
    ],
)
def test_a_run_is_compared_with_the_last_that_completed(now: dict[str, Any], said: str) -> None:
    """In words, with numbers and units; failed runs between are passed over."""
    assert compared(_past(**now), [_past(status="failed", seconds=1.0), _past()]).endswith(said)


def test_the_first_run_compares_with_nothing() -> None:
    """Nothing is said; nor of a last run that told no number."""
    assert compared(_past(), []) == ""
    assert compared(_past(), [_past(seconds=None, peak_bytes=None)]) == ""


def test_the_past_travels_in_metadata() -> None:
    """Fourteen runs, latest first, each text within what Prefect keeps; foreign metadata is left out."""
    runs = [
        _past(at=1_790_000_000 - n, run="n" * 80, run_id="i" * 36, limit_bytes=2**60, output_bytes=2**60)
        for n in range(20)
    ]
    kept = to_metadata(runs)
    assert all(len(text) < 500 for text in kept.values())
    assert from_metadata(kept) == runs[:14]
    assert from_metadata({"swath.run.00": "{", "swath.run.01": "[]", "swath.run.02": "{}", "other": "1"}) == []
    assert from_metadata(None) == []
    rows = tables(memory_markdown(make(), past=runs[:2]))
    assert next(table for table in rows if table[0][0] == "When")[1][1] == "completed"


def test_no_page_has_a_credential() -> None:
    """Neither page, card nor table shows what a source's URL or a warning holds."""
    source = "/vsicurl/https://ann:s3cr3t@h/a.tif?sig=s3cr3t"
    report = make(
        job={"kind": "raster", "source": source, "destination": "/out/b.tif"}, warnings=[f"GDAL says: {source}"]
    )
    report = report.with_error(MemoryExceeded(f"{source}: stopped"))
    shown = memory_markdown(report, job={"kind": "raster", "source": source}, compared="") + describe(report, "")
    assert "s3cr3t" not in shown
    assert "h/a.tif" in shown


def test_a_credential_in_a_source_leaves_the_page_its_markdown() -> None:
    """What is hidden at the end of a URL does not take the backtick behind it along."""
    job = {"kind": "raster", "source": "https://ann:pw@h/x.tif?sig=abc", "destination": "/o/b.tif"}
    page = page_markdown(Chapters(make(job=job), job))
    assert "`https://***@h/x.tif?sig=***` → `/o/b.tif`" in page


def test_a_refused_run_keeps_the_limit_that_refused_it() -> None:
    """Among the last runs stands the limit that was asked for, where nothing was capped or planned."""
    refused = Report.of_error(MemoryRefused("too small"), {"kind": "raster", "resources": {"limit_bytes": 40 * MIB}})
    assert past_of(refused, run=None, run_id=None).limit_bytes == 40 * MIB
