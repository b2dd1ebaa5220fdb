"""The task that filters a vector layer into its staged file."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from lib.jobs import VectorJob
from lib.reports import Report
from tasks.capped import capped
from tasks.states import worth_retrying

__all__ = ["filter_features"]


@task(name="Filter features", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def filter_features(job: VectorJob, staged: Path) -> Report | State[Any]:
    """Filter batch by batch into `staged`; nothing is published yet."""
    return capped(job, staged=staged)
