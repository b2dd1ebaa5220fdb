"""The task that filters a vector layer into its staged file."""

from pathlib import Path

from prefect import task

from lib.jobs import VectorJob
from lib.reports import Report
from tasks.capped import capped
from tasks.names import task_name
from tasks.retries import reused
from tasks.states import OPTIONS, Ended


@task(name="Filter features", task_run_name=task_name("Filter"), **OPTIONS)
def filter_features(job: VectorJob, staged: Path, done: Report | None = None) -> Ended:
    """Filter batch by batch into `staged`; nothing is published yet. `done` is what an earlier try of the run has left."""
    return reused(done) if done else capped(job, staged=staged)
