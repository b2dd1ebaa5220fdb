"""The flow `filter-vector`: one layer, batch by batch, under a memory limit, into another one."""

from typing import Any

from flows.forms import job_flow
from flows.signatures import PROFILE
from flows.steps import make
from lib.jobs import VectorJob
from lib.reports import Report
from lib.request import job_knobs, vector_job
from tasks.vector import filter_features


@job_flow("filter-vector", [*job_knobs(VectorJob), PROFILE], kind="vector", verb="filter")
def filter_vector(*, profile: bool, **given: Any) -> Report:
    """Filter a vector layer inside a memory limit: validate drivers, profile, filter, verify, publish.

    Paths are those of the worker's host.
    """
    return make(vector_job(**given, word="parameter"), filter_features, profile=profile)
