"""A GeoTIFF of a job: which encoding, what it is expected to be, and its skeleton with all that it takes over from the source."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from lib.errors import UsageError
from lib.jobs import PICTURE_DRIVERS, RasterJob
from lib.raster import gdal, overviews
from lib.raster.carried import carry
from lib.raster.layout import Layout
from lib.raster.operations import Outputs
from lib.raster.sinks import tiles
from lib.raster.sinks.encode import CODECS, LERC_DTYPES, UNPREDICTED, Encoding, TileEncoder
from lib.raster.sources.dataset import RasterSource

# Zstandard's fastest level is LZW's size at half its CPU (FACTS); 6 is zlib's own default.
_LEVELS = {"deflate": 6, "zstd": 1}
# How much smaller than by differences of neighbours, which are quick and widely read, tiles must be by another predictor.
_WORTH = 0.95


def encoding(job: RasterJob, dtype: np.dtype[Any], block_size: int) -> Encoding:
    """How an output's tiles are encoded."""
    predictor = predictors(job, dtype)[-1] if job.predictor == "auto" else int(job.predictor)
    is_own = job.level is not None and job.driver not in PICTURE_DRIVERS
    level = job.level if is_own else _LEVELS.get(job.compress)
    try:
        return Encoding(job.compress, dtype, block_size, predictor, level)
    except ValueError as error:
        problem, hint = _refusal(job, dtype)
        raise UsageError(problem, hint=hint) from error


def _refusal(job: RasterJob, dtype: np.dtype[Any]) -> tuple[str, str]:
    """Why pixels of a dtype cannot be encoded as the job says, and what is possible."""
    if job.compress == "lerc" and dtype.name not in LERC_DTYPES:
        others = ", ".join(sorted({*CODECS[1:]} - {"lerc"}))
        return f"compress lerc has no {dtype} pixels", f"choose another of {others}, or a dtype"
    fitting = ", ".join(map(str, sorted(predictors(job, dtype))))
    return f"predictor {job.predictor} does not fit {job.compress} of {dtype} pixels", f"choose from {fitting}, or auto"


def predictors(job: RasterJob, dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Those that fit, the one that takes most memory last; differences of neighbours first, but for bytes."""
    if job.compress in UNPREDICTED or dtype.kind not in "iuf":
        return (1,)
    if dtype.kind == "f" and dtype.name != "float16":
        return 2, 1, 3
    return (1, 2) if dtype.itemsize == 1 else (2, 1)


def best_predictor(job: RasterJob, dtype: np.dtype[Any], samples: Sequence[NDArray[Any]], edge: int) -> int:
    """The predictor by which sampled tiles are smallest; the first of `predictors` where that is hardly so.

    Args:
        job: the work.
        dtype: of the output.
        samples: `(height, width)`, at most `edge` a side.
        edge: of the tiles that they are encoded as, pixels.
    """
    first, *others = predictors(job, dtype)
    sizes = {}
    for predictor in (first, *others):
        trial = job.model_copy(update={"predictor": str(predictor)})
        encoder = TileEncoder(encoding(trial, dtype, edge))
        sizes[predictor] = sum(len(encoder.encode(each) or b"") for each in samples)
    best = min(sizes, key=lambda predictor: sizes[predictor])
    return best if sizes[best] < _WORTH * sizes[first] else first


def check_codec(compress: str) -> None:
    """Can this build write a codec?

    Raises:
        UsageError: it cannot; says which it can.
    """
    there = gdal.codecs()
    if compress != "none" and compress.upper() not in there:
        known = ", ".join(each for each in CODECS if each == "none" or each.upper() in there)
        raise UsageError(f"this GDAL does not write {compress}", hint=f"choose from {known}")


def levels(job: RasterJob, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """`(height, width)` of the overviews of an output; none unless it is a COG."""
    return overviews.shapes(shape) if job.cog else []


def halving(job: RasterJob, source: RasterSource, outputs: Outputs) -> overviews.Halving:
    """How its overviews are made."""
    return overviews.Halving(resampling(job, source, outputs), outputs)


def resampling(job: RasterJob, source: RasterSource, outputs: Outputs) -> str:
    """By which of `overviews.METHODS`: no average of classes, with colours or names of their own that an output keeps."""
    if job.overview_resampling != "auto":
        return job.overview_resampling
    dataset = source.dataset
    named = outputs.keeps_colours and any(
        dataset.colorinterp[band - 1] == ColorInterp.palette
        or gdal.category_names(dataset, band)
        or gdal.attribute_rows(dataset, band)
        for band in source.bands
    )
    return "nearest" if named or job.operation.name == "reclassify" else "average"


def hole(source: RasterSource, outputs: Outputs) -> Any:
    """What a tile that is not there is read as, where the source has such: those stay holes. None where it has none."""
    if not source.has_holes:
        return None
    return 0 if outputs.nodata is None else outputs.nodata


def expected(job: RasterJob, source: RasterSource, outputs: Outputs, layout: Layout) -> dict[str, Any]:
    """What the output must be, for verification; JSON-able."""
    nodata = outputs.nodata
    found = source.grid.describe() | {
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
    if hole(source, outputs) is not None:
        found["holes"] = True
    if job.cog:
        found["overviews"] = [list(each) for each in levels(job, source.grid.shape)]
        found["overview_resampling"] = resampling(job, source, outputs)
    return found


def create(path: Path, job: RasterJob, source: RasterSource, outputs: Outputs, layout: Layout) -> tiles.Writer:
    """Create the output without its pixels, with its metadata.

    Raises:
        OutputError: the disk or GDAL said no.
    """
    profile = source.grid.profile() | {"count": outputs.count(len(source.bands))}
    if outputs.nodata is not None and outputs.dtype.name not in tiles.EXACT_DTYPES:
        profile["nodata"] = outputs.nodata
    # What a VRT gives may depend on the windows that are read (FACTS): a verification reads the same ones.
    chunk = (*layout.window, layout.bands_at_once) if source.dataset.driver == "VRT" else ()
    return tiles.create(
        path,
        profile=profile,
        encoding=encoding(job, outputs.dtype, layout.block_size),
        describe=lambda output: carry(source, output, job, outputs, chunk),
        mask=outputs.has_mask,
        levels=levels(job, source.grid.shape),
        options=dict(each.split("=", 1) for each in job.creation_options),
    )
