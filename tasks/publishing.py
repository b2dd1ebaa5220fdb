"""The task that publishes a staged file: the one without a child, as it needs no GIS library and next to no memory."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from lib.publish import Staging
from lib.reports import Report
from lib.run import published
from tasks.states import ended, worth_retrying

__all__ = ["publish"]


@task(name="Publish output", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def publish(report: Report, staged: Staging) -> Report | State[Any]:
    """Move the staged file to its destination: fsync, rename, fsync of the folder."""
    return ended(published(report, staged))
