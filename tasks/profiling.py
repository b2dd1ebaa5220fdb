"""The task that reads a sample of a source's chunks and measures what that takes."""

from prefect import task

from lib.jobs import ProfileJob
from tasks.capped import capped
from tasks.states import OPTIONS, Ended


@task(name="Profile source", **OPTIONS)
def profile_source(job: ProfileJob) -> Ended:
    """Measure baseline, peak and allocators of reading a sample; the result suggests a limit, a chunk and a cache."""
    return capped(job)
