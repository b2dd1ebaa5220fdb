"""The flow `profile-memory`: what reading a source chunk by chunk takes, and a limit that would do."""

from typing import Any

from flows.forms import job_flow
from lib.jobs import ProfileJob
from lib.reports import Report
from lib.request import job_knobs, profile_job
from tasks.profiling import profile_source
from tasks.states import settled


@job_flow("profile-memory", job_knobs(ProfileJob), kind="profile", verb="profile")
def profile_memory(**given: Any) -> Report:
    """Measure what reading a source takes: baseline, peak, top allocators; suggest a limit, a chunk and a cache.

    Paths are those of the worker's host.
    """
    return settled(profile_source(profile_job(**given, word="parameter")))
