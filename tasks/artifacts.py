"""What Prefect's UI keeps of a run: one page and one table, under keys by deployment and source, so that nights are one history.

The page is `page.py`, its picture `picture.py`, the history in it `past.py`. A server that is away must not undo the work: who
calls `emit` lets no error of it pass.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext, TaskRunContext
from prefect.runtime import deployment, flow_run

from lib.knobs import as_a_flow_says
from lib.redact import redacted, redacted_record
from lib.reports import MemoryRecord, Report
from lib.units import file_label, format_bytes
from tasks.page import Chapters, headline, page_markdown, verdict
from tasks.past import Past, compared, from_metadata, past_of, to_metadata

_MOST_OF_NAME = 60
_HOLDERS = {
    "file_backed": "libraries and files mapped into memory",
    "imports": "what imports left: modules, native heaps",
    "gdal_cache": "GDAL's block cache",
    "arrow_pool": "Arrow's pool",
    "malloc_free": "freed, and kept by malloc for later",
    "python_heap": "Python's heap: objects of traced lines",
    "numpy": "NumPy arrays",
    "tracing": "the tracing itself",
    "unexplained": "native memory that no allocator accounts for: codecs, stacks, buffers",
}


def artifact_key(job: dict[str, Any], deployment_name: str | None) -> str:
    """The key of a job's page: kind, deployment and source in words, and a hash, as two sources may have the same words."""
    source = str(job.get("source") or ",".join(job.get("names") or ()))
    source = source.partition("?")[0] if "://" in source else source  # a signature is another one each night
    operation = job.get("operation") or {}
    identity = json.dumps([redacted(source), operation.get("name"), operation.get("function") or job.get("function")])
    name = PurePath(file_label(source)).stem if source else ""
    words = [str(job.get("kind", "job")), _slug(deployment_name or ""), _slug(name)]
    return "-".join([*filter(None, words), hashlib.sha256(identity.encode()).hexdigest()[:6]])


def _slug(text: str) -> str:
    """Words of an artifact's key, whose letters are `a-z0-9-`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:_MOST_OF_NAME].strip("-")


def emit(report: Report, *, job: dict[str, Any] | None = None, steps: Sequence[Report] = ()) -> str:
    """Create a run's page, and its table where memory was looked at; how the run compares with the last of its key, if it does.

    Args:
        report: the run's report.
        job: the run's job, where the report is of another of its steps.
        steps: the reports of all its steps.
    """
    subject = job or report.job
    key = artifact_key(subject, deployment.name)
    with get_client(sync_client=True) as client:
        by_key = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        latest = client.read_artifacts(artifact_filter=by_key, sort=ArtifactSort.CREATED_DESC, limit=1)
        run_id = str(flow_run.id) if flow_run.id else None
        now = past_of(report, run=flow_run.name, run_id=run_id)
        before = [
            each
            for each in from_metadata(latest[0].metadata_ if latest else None)
            if not run_id or each.run_id != run_id
        ]
        comparison = compared(now, before)
        page = page_markdown(Chapters(report, subject, steps, [now, *before] if before else [], comparison))
        client.create_artifact(_artifact(key, "markdown", page, describe(report, comparison, subject), [now, *before]))
        if report.memory.attribution or report.memory.top_allocators:
            table = json.dumps(holder_rows(report.memory))
            client.create_artifact(_artifact(f"{key}-allocators", "table", table, describe_table(report.memory)))
    return comparison


def _artifact(key: str, kind: str, data: str, description: str, runs: Sequence[Past] = ()) -> ArtifactCreate:
    """An artifact of the run that we are in; Prefect's own helpers take no metadata."""
    of_task, of_flow = TaskRunContext.get(), FlowRunContext.get()
    task_run = of_task.task_run if of_task else None
    run = of_flow.flow_run if of_flow else None
    return ArtifactCreate(
        key=key,
        type=kind,
        data=data,
        description=redacted(description),
        metadata_=to_metadata(runs) or None,
        flow_run_id=run.id if run else (task_run.flow_run_id if task_run else None),
        task_run_id=task_run.id if task_run else None,
    )


def describe(report: Report, comparison: str, job: dict[str, Any] | None = None) -> str:
    """What a card of the page says: the verdict, the numbers, the comparison."""
    said = as_a_flow_says(report.error.message) if report.error else headline(report)
    parts = [verdict(report, job), said.rstrip("."), f"Compared with the last run {comparison}" if comparison else ""]
    return ". ".join(filter(None, parts))


def describe_table(memory: MemoryRecord) -> str:
    """What the table is of, and how much of memory its lines of Python are."""
    seen = memory.attribution.get("resident_bytes")
    what = f"What the {format_bytes(seen)} were that were resident near the peak" if seen else "What memory was"
    return (
        f"{what}: first by holder (native memory, libraries, NumPy, caches; together all of it), then the "
        "lines of code behind Python's heap and NumPy's arrays, as tracemalloc has them. Native memory has no lines."
    )


def holder_rows(memory: MemoryRecord) -> list[dict[str, Any]]:
    """The table: holders of resident memory, largest first, then lines of Python and NumPy; shares are of what was resident."""
    seen = memory.attribution
    resident = seen.get("resident_bytes") or 0
    held = {name.removesuffix("_bytes"): size for name, size in seen.items() if name != "resident_bytes" and size > 0}
    rows = [
        _row("holder", _HOLDERS.get(name, name.replace("_", " ")), size, resident)
        for name, size in sorted(held.items(), key=lambda each: -each[1])
    ]
    rows += [
        _row("line of Python or NumPy", each.location, each.size_bytes, resident) | {"blocks": each.blocks}
        for each in memory.top_allocators
    ]
    if not memory.top_allocators:
        rows.append(
            {"kind": "line of Python or NumPy", "what": "none was traced", "size": "-", "share": "-", "blocks": "-"}
        )
    told: list[dict[str, Any]] = redacted_record(rows)
    return told


def _row(kind: str, what: str, size_bytes: int, resident_bytes: int) -> dict[str, Any]:
    share = f"{size_bytes / resident_bytes:.1%}" if resident_bytes else "-"
    return {"kind": kind, "what": what, "size": format_bytes(size_bytes), "share": share, "blocks": "-"}
