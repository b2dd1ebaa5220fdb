"""The task that tries drivers: open and create, before any work."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from lib.jobs import DriversJob
from lib.reports import Report
from tasks.capped import capped
from tasks.states import worth_retrying

__all__ = ["validate_drivers"]


@task(name="Validate drivers", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def validate_drivers(job: DriversJob) -> Report | State[Any]:
    """Check that this build opens the source and creates with the destination's driver."""
    return capped(job)
