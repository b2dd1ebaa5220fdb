"""The flow `transform-raster`: one raster, window by window, under a memory limit, into a tiled, compressed GeoTIFF."""

from typing import Any

from flows.forms import job_flow
from flows.signatures import PROFILE
from flows.steps import make
from lib.jobs import RasterJob
from lib.reports import Report
from lib.request import job_knobs, raster_job
from tasks.raster import transform


@job_flow("transform-raster", [*job_knobs(RasterJob), PROFILE], kind="raster", verb="operation")
def transform_raster(*, profile: bool, **given: Any) -> Report:
    """Transform a raster inside a memory limit: validate drivers, profile, transform, verify, publish.

    Paths are those of the worker's host.
    """
    return make(raster_job(**given, word="parameter"), transform, profile=profile)
