"""The task that transforms a raster into its staged file."""

from pathlib import Path

from prefect import task

from lib.jobs import RasterJob
from tasks.capped import capped
from tasks.states import OPTIONS, Ended


@task(name="Transform raster", **OPTIONS)
def transform(job: RasterJob, staged: Path) -> Ended:
    """Transform window by window into `staged`; nothing is published yet."""
    return capped(job, staged=staged)
