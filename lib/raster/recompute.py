"""The plain path: what a window of the output must be, computed anew from the source, without the engine's code.

Written apart from `operations.py` and `masks.py` on purpose: whole windows in float64, rasterio's own masks. A user's
function is not called again (it may depend on the window's place or size): of its result only nodata is compared.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from lib.jobs import Custom, Normalise, RasterJob, Rescale
from lib.raster import windows
from lib.raster.faults import read
from lib.raster.windows import Window

__all__ = ["BASIC_EDGE", "SAMPLE_EDGE", "alpha_band", "differences", "is_nodata"]

# Edge of a recomputed window in pixels; `basic` shares the job's own memory.
BASIC_EDGE, SAMPLE_EDGE = 128, 256
_MOST_BANDS = 8
_SEED = 20250101
# float32 arithmetic rounds twice, the plain path once: two units in the last place.
_TOLERANCE = {"float32": 5e-7, "float64": 1e-15}


def differences(
    output: Any, source: Any, job: RasterJob, bands: list[int], edge: int, most: int
) -> tuple[list[Window], str]:
    """Recompute sampled windows from the source and compare.

    Args:
        output: the open output.
        source: the open source.
        job: the work.
        bands: the source's bands, in the output's order.
        edge: of a window, pixels.
        most: how many windows.

    Returns:
        The windows, and the first difference in words; "" where there is none.
    """
    places = sorted(windows.sample((output.height, output.width), edge, most, _SEED))
    alpha = alpha_band(source)
    for window in places:
        for i in windows.evenly(len(bands), _MOST_BANDS):
            found = output.read(i + 1, window=window.ranges)
            raw, mask = read(partial(_masked, source, bands[i], alpha, window), job.source, window)
            if bands[i] == alpha:
                wrong = "" if np.array_equal(found, raw.astype(found.dtype)) else "alpha is not carried as it is"
            else:
                wrong = _differs(found, raw, mask, job, output.nodata)
            if wrong:
                return places, f"band {i + 1}, {window}: {wrong}"
    return places, ""


def alpha_band(source: Any) -> int | None:
    """The alpha band's number, None where there is none."""
    return next((n for n, each in enumerate(source.colorinterp, 1) if each == ColorInterp.alpha), None)


def _masked(source: Any, band: int, alpha: int | None, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A band's pixels and where they are nodata, by rasterio's masked read and what GDAL's one mask leaves out."""
    masked = source.read(band, window=window.ranges, masked=True)
    raw, mask = masked.data, np.ma.getmaskarray(masked)
    if raw.dtype.kind == "f":
        mask = mask | np.isnan(raw)
    nodata = source.nodatavals[band - 1]
    if nodata is not None:
        declared = float(raw.dtype.type(nodata)) if raw.dtype.kind == "f" else nodata
        mask = mask | (raw.astype(np.float64) == declared)
    if alpha is not None:
        mask = mask | (source.read(alpha, window=window.ranges) == 0)
    return raw, mask


def _differs(
    found: NDArray[Any], raw: NDArray[Any], mask: NDArray[np.bool_], job: RasterJob, nodata: float | None
) -> str:
    """How a window of the output differs from what it must be; "" where it does not."""
    lost = is_nodata(found, nodata)
    if isinstance(job.operation, Custom):
        return "" if lost[mask].all() else f"{np.count_nonzero(mask & ~lost)} nodata pixels became valid"
    with np.errstate(all="ignore"):
        wanted = _formula(job)(raw.astype(np.float64)).astype(found.dtype)
    gone = mask | np.isnan(wanted)
    if not np.array_equal(lost, gone):
        return f"{np.count_nonzero(lost)} nodata pixels, not {np.count_nonzero(gone)}"
    tolerance = _TOLERANCE[found.dtype.name]
    tiny = float(np.finfo(found.dtype).tiny)  # a valid result beside the nodata value 0
    close = np.isclose(found[~gone], wanted[~gone], rtol=tolerance, atol=tiny)
    return "" if close.all() else f"{np.count_nonzero(~close)} of {close.size} pixels differ from the source recomputed"


def _formula(job: RasterJob) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    operation = job.operation
    if isinstance(operation, Normalise):
        return lambda raw: np.clip(raw / operation.scale, *operation.clip)
    if isinstance(operation, Rescale):
        return lambda raw: raw * operation.multiply + operation.add
    raise TypeError(f"no formula for {operation.name}")


def is_nodata(values: NDArray[Any], nodata: float | None, *, out: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Where values are the output's nodata: NaN, or the declared value."""
    if nodata is None or math.isnan(nodata):
        found: NDArray[np.bool_] = np.isnan(values, out=out)
    else:
        found = np.equal(values, values.dtype.type(nodata), out=out)
    return found
