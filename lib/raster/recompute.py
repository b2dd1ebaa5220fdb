"""The plain path: what a window of the output must be, computed anew from the source, without the engine's code.

Whole windows through rasterio's own masked read and each operation's `reference`. A user's function is not called again (it may
depend on the window's place or size): of its result only nodata is compared.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.raster import windows
from lib.raster.block import Buffer
from lib.raster.faults import read
from lib.raster.operations import Operation, Outputs, nudge_off_nodata
from lib.raster.sources.dataset import RasterSource
from lib.raster.windows import Window

# Edge of a recomputed window in pixels; `basic` shares the job's own memory.
BASIC_EDGE, SAMPLE_EDGE = 128, 256
_MOST_BANDS = 8
_SEED = 20250101
# float32 arithmetic rounds twice, the plain path once: two units in the last place.
_TOLERANCE = {"float32": 5e-7, "float64": 1e-15}


def differences(
    output: RasterSource,
    source: RasterSource,
    operation: Operation | None,
    job_window: tuple[int, int] | None,
    edge: int,
    most: int,
) -> tuple[list[Window], str]:
    """Recompute sampled windows from the source and compare.

    Args:
        output: the open output.
        source: the open source, with the bands in the output's order.
        operation: the work's; None: only what was not valid is compared.
        job_window: `(height, width)` of the windows that the job read, where known.
        edge: of a window, pixels.
        most: how many windows.

    Returns:
        The windows, and the first difference in words; "" where there is none.
    """
    shape = output.grid.shape
    places = sorted(windows.sample(shape, edge, most, _SEED))
    buffer, [reader] = Buffer(min(edge, shape[0]) * min(edge, shape[1]), output.dtype), output.readers(1)
    # A warped VRT read in other windows gives other pixels (FACTS): it is read as the job did.
    step = job_window if source.dataset.driver == "VRT" else None
    for window in places:
        for i in windows.evenly(len(source.bands), _MOST_BANDS):
            found = reader.read(window, (i + 1,), 0, buffer.block(window, (i + 1,)))
            lost = np.zeros(found.pixels.shape[1:], np.bool_) if found.all_valid else ~found.valid[0]
            raw, mask = _masked(source, source.bands[i], window, step)
            if wrong := _differs(found.pixels[0], lost, raw, mask, operation, source.bands[i] == source.validity.alpha):
                return places, f"band {i + 1}, {window}: {wrong}"
    return places, ""


def _masked(
    source: RasterSource, band: int, window: Window, step: tuple[int, int] | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A band's pixels and where they are nodata, by rasterio's masked read; NaN is nodata too."""
    whole = window if step is None else _around(window, step, source.grid.shape)
    fetch = partial(source.dataset.read, band, window=whole.ranges, masked=True, out_dtype=source.dtype)
    masked = read(fetch, source.path, window)
    rows, columns = (slice(a - b, a - b + n) for a, b, n in zip(window[:2], whole[:2], window[2:], strict=True))
    raw, mask = masked.data[rows, columns], np.ma.getmaskarray(masked)[rows, columns]
    return raw, (mask | np.isnan(raw) if raw.dtype.kind == "f" else mask)


def _around(window: Window, step: tuple[int, int], shape: tuple[int, int]) -> Window:
    """The job's windows that a window lies in, as one."""
    low = [at // each * each for at, each in zip(window[:2], step, strict=True)]
    high = [
        min(-(-(at + length) // each) * each, most)
        for at, length, each, most in zip(window[:2], window[2:], step, shape, strict=True)
    ]
    return Window(low[0], low[1], high[0] - low[0], high[1] - low[1])


def _differs(
    found: NDArray[Any],
    lost: NDArray[np.bool_],
    raw: NDArray[Any],
    mask: NDArray[np.bool_],
    operation: Operation | None,
    is_alpha: bool,
) -> str:
    """How a window of the output differs from what it must be; "" where it does not."""
    if is_alpha and (operation is None or not operation.takes_alpha):
        return "" if np.array_equal(found, raw.astype(found.dtype)) else "alpha is not carried as it is"
    known = operation.reference(raw, ~mask) if operation else None
    if known is None or operation is None:
        return "" if lost[mask].all() else f"{np.count_nonzero(mask & ~lost)} nodata pixels became valid"
    wanted, valid = known
    if not np.array_equal(lost, ~valid):
        return f"{np.count_nonzero(lost)} nodata pixels, not {np.count_nonzero(~valid)}"
    if not operation.outputs.fills:  # as they were read, those that are not valid among them
        valid = np.ones(valid.shape, np.bool_)
    tolerance = _TOLERANCE.get(found.dtype.name, 0) if operation.outputs.line is None or operation.outputs.fills else 0
    close = _same(found[valid], wanted[valid], tolerance) | _moved(found[valid], wanted[valid], operation.outputs)
    return "" if close.all() else f"{np.count_nonzero(~close)} of {close.size} pixels differ from the source recomputed"


def _same(found: NDArray[Any], wanted: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = found == wanted
    if found.dtype.kind == "f":
        same = np.isclose(found, wanted, rtol=tolerance, atol=float(np.finfo(found.dtype).tiny), equal_nan=True)
    return same


def _moved(found: NDArray[Any], wanted: NDArray[Any], outputs: Outputs) -> NDArray[np.bool_]:
    """Where a valid result would have been read as nodata, and stands on its nearest neighbour that is not."""
    same = np.zeros(found.shape, np.bool_)
    if outputs.nodata is not None and outputs.fills and not np.isnan(outputs.nodata):
        moved = wanted.copy()
        nudge_off_nodata(moved, outputs.nodata, outputs.highest, same)
        np.logical_and(moved == found, moved != wanted, out=same)
    return same
