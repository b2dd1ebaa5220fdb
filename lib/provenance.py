"""Provenance: what an output's metadata says of how it was made and of what, the same for rasters and vectors.

Three texts; the formats keep them each in its own place (`lib/raster/carried.py`, `lib/vector/sinks/`). No folders, URLs,
limits or times: where it ran is nobody's business, and the same work gives the same file.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lib import __version__
from lib.jobs import RasterJob, VectorJob
from lib.operations import Clip, Expression
from lib.units import file_label

JOB, SOURCE, VERSION = "SWATH_JOB", "SWATH_SOURCE", "SWATH_VERSION"
KEYS = (JOB, SOURCE, VERSION)


def texts(
    job: RasterJob | VectorJob, state: Mapping[str, Any] | None = None, files: Sequence[str] = ()
) -> dict[str, str]:
    """What an output of a job carries: the version, the job without resources and folders, the source's identity.

    Args:
        job: the work.
        state: what a server says of a remote source, its `bytes` and what else tells one version from another.
        files: those that the source is of, where it is of several; each one's identity is told.
    """
    work = job.model_dump(mode="json", exclude={"resources", "overwrite", "append", "destination"}) | {
        "source": job.label
    }
    if isinstance(job, RasterJob) and isinstance(job.operation, Expression):
        named = [each.split("=", 1) for each in job.operation.sources]
        work["operation"]["sources"] = [f"{name}={file_label(path)}" for name, path in named]
    if isinstance(job, RasterJob) and isinstance(job.operation, Clip) and job.operation.mask:
        work["operation"]["mask"] = file_label(job.operation.mask)
    if isinstance(job, VectorJob) and job.intersects:
        work["intersects"] = file_label(job.intersects)
    if isinstance(job, RasterJob):
        work["sources"] = [file_label(path) for path in job.sources]
    known = _identity(job.source) | dict(state or {})
    if files:
        known["files"] = [_identity(each) for each in files]
    return {VERSION: __version__, JOB: _as_json(work), SOURCE: _as_json(known)}


def _as_json(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"), sort_keys=True)


def _identity(source: str) -> dict[str, Any]:
    """A source's base name, bytes and mtime; bytes and mtime None where it is not a local file."""
    name = file_label(source)
    try:
        stat = os.stat(source)  # noqa: PTH116 - a source may be GDAL's, not the file system's
    except (OSError, ValueError):
        return {"name": name, "bytes": None, "mtime_ns": None}
    return {"name": name, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def job_in(metadata: Mapping[str, str], kind: str) -> dict[str, Any] | None:
    """The record of the job that wrote an output, by its metadata; None where it says none of this kind.

    `source` is its base name only.
    """
    try:
        record = json.loads(metadata.get(JOB) or "null")
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("kind") == kind else None
