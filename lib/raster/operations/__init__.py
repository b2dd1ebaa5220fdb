"""What happens to pixels. An operation is a module here, its line in `REGISTRY` and its parameters in `lib/operations.py`."""

import numpy as np

from lib.jobs import RasterJob
from lib.raster.operations import linear
from lib.raster.operations.base import Linear, Maker, Operation, Outputs, nudge_off_nodata
from lib.raster.operations.cast import Cast
from lib.raster.operations.clip import Clipped
from lib.raster.operations.custom import UserFunction
from lib.raster.operations.expression import Computed
from lib.raster.operations.focal import FocalStatistic
from lib.raster.operations.reclassify import Reclassified
from lib.raster.operations.terrain import TerrainAttribute
from lib.raster.operations.verbatim import Verbatim
from lib.raster.operations.warp import Moved
from lib.raster.sources.dataset import RasterSource

__all__ = ["REGISTRY", "Linear", "Operation", "Outputs", "make", "nudge_off_nodata"]

REGISTRY: dict[str, Maker] = {
    "copy": Verbatim,
    "normalise": linear.normalise,
    "rescale": linear.rescale_or_unscale,
    "expression": Computed,
    "reclassify": Reclassified,
    "focal": FocalStatistic,
    "terrain": TerrainAttribute,
    "clip": Clipped,
    "warp": Moved,
    "custom": UserFunction,
}

_WIDER_THAN_FLOAT32 = frozenset({"int32", "uint32", "int64", "uint64", "float64"})


def make(job: RasterJob, source: RasterSource) -> Operation:
    """The operation of a job, ready for a source's blocks.

    Raises:
        UsageError: its parameters or the job's nodata do not fit the source; a function that cannot be imported.
        SourceError: the source has what the output cannot hold.
    """
    source.has_wide_results = job.dtype in _WIDER_THAN_FLOAT32
    nodata = float("nan") if job.nodata == "nan" else job.nodata
    if job.dtype == "auto" and job.scale_offset is None:
        return REGISTRY[job.operation.name](job.operation, source, nodata)
    inner = REGISTRY[job.operation.name](job.operation, source, None)
    scale = None if job.scale_offset is None else Linear(*job.scale_offset)
    return Cast(inner, inner.outputs.dtype if job.dtype == "auto" else np.dtype(job.dtype), source, nodata, scale)
