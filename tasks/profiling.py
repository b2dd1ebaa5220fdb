"""The task that reads a sample of a source's chunks and measures what that takes."""

from prefect import task

from lib.jobs import ProfileJob
from tasks.capped import capped
from tasks.names import task_name
from tasks.retries import READING
from tasks.states import OPTIONS, Ended


@task(name="Profile source", task_run_name=task_name("Profile"), **OPTIONS | READING)
def profile_source(job: ProfileJob) -> Ended:
    """Measure baseline, peak and allocators of reading a sample; the result suggests a limit, a chunk and a cache."""
    return capped(job)
