"""The flow `transform-raster`: one raster, window by window, under a memory limit, into a tiled, compressed GeoTIFF."""

from typing import Any

from prefect import flow

from flows.signatures import PROFILE, flow_parameters
from flows.steps import make
from lib.jobs import RasterJob
from lib.reports import Report
from lib.request import raster_job
from tasks.raster import transform
from tasks.states import named_end


@flow(name="transform-raster")
@named_end
@flow_parameters(RasterJob, PROFILE)
def transform_raster(*, profile: bool, **given: Any) -> Report:
    """Transform a raster inside a memory limit: validate drivers, profile, transform, verify, publish.

    Paths are those of the worker's host.
    """
    return make(raster_job(**given, word="parameter"), transform, profile=profile)
