"""The task that transforms a raster into its staged file."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from lib.jobs import RasterJob
from lib.reports import Report
from tasks.capped import capped
from tasks.states import worth_retrying

__all__ = ["transform"]


@task(name="Transform raster", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def transform(job: RasterJob, staged: Path) -> Report | State[Any]:
    """Transform window by window into `staged`; nothing is published yet."""
    return capped(job, staged=staged)
