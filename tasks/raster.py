"""The task that transforms a raster into its staged file."""

from pathlib import Path

from prefect import task

from lib.jobs import RasterJob
from lib.reports import Report
from tasks.capped import capped
from tasks.names import task_name
from tasks.retries import reused
from tasks.states import OPTIONS, Ended


@task(name="Transform raster", task_run_name=task_name("Transform"), **OPTIONS)
def transform(job: RasterJob, staged: Path, done: Report | None = None) -> Ended:
    """Transform window by window into `staged`; nothing is published yet. `done` is what an earlier try of the run has left."""
    return reused(done) if done else capped(job, staged=staged)
