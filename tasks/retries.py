"""Which failures pass, so that another try may end otherwise, and what that try need not do again.

Prefect retries a flow run while its policy has retries left (its own, or PREFECT_FLOWS_DEFAULT_RETRIES in its deployment's job
variables), whatever it failed of: `note_failure` takes them away where they cannot help. A retry, by Prefect or by hand, uses
results of tasks with `READING` again, and a staged file as lib/resume.py says.
"""

import itertools
import logging
import os
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from prefect.results import get_result_store
from prefect.states import Completed
from prefect.utilities.hashing import hash_objects

from lib import __version__
from lib.errors import (
    DataError,
    DestinationBusy,
    DiskRefused,
    FunctionError,
    JobFailed,
    Refused,
    SwathError,
    UsageError,
    VerificationFailed,
    shown_lines,
)
from lib.folders import rasters_in
from lib.reports import Report

_STAYS = (DataError, FunctionError, VerificationFailed)
_FOLDER = "swath"


def passes(error: object) -> bool:
    """True for what may pass: a busy destination, a full disk, a crash. Memory has its own ladder in lib; bad input stays bad."""
    return isinstance(error, (DestinationBusy, DiskRefused, JobFailed)) and not isinstance(error, _STAYS)


def note_failure(error: SwathError) -> None:
    """Before a run ends Failed: the traceback to its log, and no retries of what cannot pass."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    logger = get_run_logger()
    if error.traceback and not isinstance(error, (UsageError, Refused)):  # those say all that there is to know
        logger.error("%s", shown_lines(error.traceback))
    if not _has_retries() or passes(error) or not isinstance(context.client, SyncPrefectClient):
        return
    logger.info("not tried again: %s does not pass by itself", type(error).__name__)
    policy = context.flow_run.empirical_policy.model_copy(update={"retries": 0})
    try:
        context.client.update_flow_run(context.flow_run.id, empirical_policy=policy)
    except Exception as problem:  # noqa: BLE001 - whatever the API's client raises: it fails once more
        logger.warning("this run cannot be told to end: %s", problem)


def is_retried(error: BaseException) -> bool:
    """True where this run's failure by an error will be tried again by itself."""
    return _has_retries() and passes(error)


def run_id() -> str:
    """The flow run under way; empty outside of one."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else ""


def tries() -> int:
    """How many tries of this flow run there were, this one included."""
    context = FlowRunContext.get()
    return context.flow_run.run_count if context and context.flow_run else 1


def reused(report: Report) -> State[Any]:
    """A task's end where an earlier try has done its work, and what it staged is as it was."""
    return Completed(name="Reused", message="staged by an earlier try of this run, and as it was then", data=report)


def _has_retries() -> bool:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    return (context.flow_run.empirical_policy.retries or 0) >= context.flow_run.run_count


class _ThisRun(CachePolicy):
    """Results that a retry of the same run may use: of the same job, version and source."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **_: Any
    ) -> str | None:
        del flow_parameters
        run = task_ctx.task_run.flow_run_id
        if run is None:
            return None
        job = inputs["job"]
        what = hash_objects(
            task_ctx.task.name, __version__, job.model_dump(mode="json"), *map(_identity, _sources(job))
        )
        return f"{_FOLDER}/{run}/{what}"


def _sources(job: Any) -> list[str | None]:
    """All that a job reads, the files of a folder by themselves."""
    named = [each.split("=", 1)[1] for each in getattr(getattr(job, "operation", None), "sources", ())]
    every = [job.source, *getattr(job, "sources", ()), *named]
    within = [rasters_in(each) for each in every if each and Path(each).is_dir()]
    return [*every, *itertools.chain.from_iterable(within)]


def _identity(source: str | None) -> tuple[int, ...]:
    try:
        seen = os.stat(source or "")  # noqa: PTH116 - a source may be GDAL's, not the file system's
    except (OSError, ValueError):
        return ()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


# Of tasks that only look at a source.
READING: dict[str, Any] = {"cache_policy": _ThisRun(), "persist_result": True}


def forget_results() -> None:
    """Remove the results of a run that went well: nobody tries it again."""
    folder = getattr(get_result_store().result_storage, "basepath", None)
    if not folder or not run_id():
        return
    kept = Path(folder).expanduser() / _FOLDER / run_id()
    try:
        for each in kept.glob("*"):
            each.unlink()
        kept.rmdir()
    except OSError as problem:
        logging.getLogger(__name__).debug("results stay in %s: %s", kept, problem)
