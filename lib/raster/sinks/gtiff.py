"""A GeoTIFF of a job: which encoding, what it is expected to be, and its skeleton with all that it takes over from the source."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from lib.jobs import RasterJob
from lib.raster.carried import EXACT_DTYPES, carry
from lib.raster.layout import Layout
from lib.raster.operations import Outputs
from lib.raster.sinks import tiles
from lib.raster.sinks.encode import Encoding
from lib.raster.sources.dataset import RasterSource

# Zstandard's fastest level is LZW's size at half its CPU (FACTS); 6 is zlib's own default.
_LEVELS = {"deflate": 6, "zstd": 1}
# Differences of neighbours: all but bytes compress better by them (MEASURED.md, "Levels and predictors").
_PREDICTOR = 2


def encoding(job: RasterJob, dtype: np.dtype[Any], block_size: int) -> Encoding:
    """How an output's tiles are encoded."""
    predictor = _PREDICTOR if job.compress != "none" and dtype.itemsize > 1 else 1
    return Encoding(job.compress, dtype, block_size, predictor, _LEVELS.get(job.compress))


def expected(job: RasterJob, source: RasterSource, outputs: Outputs, layout: Layout) -> dict[str, Any]:
    """What the output must be, for verification; JSON-able."""
    nodata = outputs.nodata
    return source.grid.describe() | {
        "driver": "GTiff",
        "count": outputs.count(len(source.bands)),
        "bands": list(source.bands),
        "dtype": outputs.dtype.name,
        "nodata": "nan" if nodata is not None and math.isnan(nodata) else nodata,
        "mask": outputs.has_mask,
        "block_size": layout.block_size,
        "window": list(layout.window),
        "bands_at_once": layout.bands_at_once,
        "compress": job.compress,
    }


def create(path: Path, job: RasterJob, source: RasterSource, outputs: Outputs, layout: Layout) -> tiles.Writer:
    """Create the output without its pixels, with its metadata.

    Raises:
        OutputError: the disk or GDAL said no.
    """
    profile = source.grid.profile() | {"count": outputs.count(len(source.bands))}
    if outputs.nodata is not None and outputs.dtype.name not in EXACT_DTYPES:
        profile["nodata"] = outputs.nodata
    # What a VRT gives may depend on the windows that are read (FACTS): a verification reads the same ones.
    chunk = (*layout.window, layout.bands_at_once) if source.dataset.driver == "VRT" else ()
    return tiles.create(
        path,
        profile=profile,
        encoding=encoding(job, outputs.dtype, layout.block_size),
        describe=lambda output: carry(source, output, job, outputs, chunk),
        mask=outputs.has_mask,
    )
