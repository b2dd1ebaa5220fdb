"""The task that reads a sample of a source's chunks and measures what that takes."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from lib.jobs import ProfileJob
from lib.reports import Report
from tasks.capped import capped
from tasks.states import worth_retrying

__all__ = ["profile_source"]


@task(name="Profile source", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def profile_source(job: ProfileJob) -> Report | State[Any]:
    """Measure baseline, peak and allocators of reading a sample; the result suggests a limit, a chunk and a cache."""
    return capped(job)
