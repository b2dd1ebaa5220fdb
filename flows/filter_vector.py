"""The flow `filter-vector`: one layer, batch by batch, under a memory limit, into a GeoPackage or a FlatGeobuf."""

from typing import Any

from prefect import flow

from flows.signatures import PROFILE, flow_parameters
from flows.steps import make
from lib.jobs import VectorJob
from lib.reports import Report
from lib.request import vector_job
from tasks.states import named_end
from tasks.vector import filter_features


@flow(name="filter-vector")
@named_end
@flow_parameters(VectorJob, PROFILE)
def filter_vector(*, profile: bool, **given: Any) -> Report:
    """Filter a vector layer inside a memory limit: validate drivers, profile, filter, verify, publish.

    Paths are those of the worker's host.
    """
    return make(vector_job(**given, word="parameter"), filter_features, profile=profile)
