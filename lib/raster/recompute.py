"""The plain path: what a window of the output must be, computed anew from the source, without the engine's code.

Whole windows through rasterio's own reads of pixels and masks, and each operation's `reference`. A user's function is not called
again (it may depend on the window's place or size): of its result only nodata is compared.
"""

import math
from dataclasses import dataclass, field
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
    chunk: tuple[int, int, int] | None,
    edge: int,
    most: int,
) -> tuple[list[Window], str]:
    """Recompute sampled windows from the source and compare.

    Args:
        output: the open output.
        source: the open source, with the bands in the output's order.
        operation: the work's; None: only what was not valid is compared.
        chunk: height, width and bands of the chunks that the job read, where known.
        edge: of a window, pixels.
        most: how many windows.

    Returns:
        The windows, and the first difference in words; "" where there is none.
    """
    shape = output.grid.shape
    places = sorted(windows.sample(shape, edge, most, _SEED))
    buffer, [reader] = Buffer(min(edge, shape[0]) * min(edge, shape[1]), output.dtype), output.readers(1)
    reference = _Reference(source, chunk if source.dataset.driver == "VRT" else None)
    for window in sorted(map(reference.within, places)):
        for i in windows.evenly(len(source.bands), _MOST_BANDS):
            found = reader.read(window, (i + 1,), 0, buffer.block(window, (i + 1,)))
            lost = np.zeros(found.pixels.shape[1:], np.bool_) if found.all_valid else ~found.valid[0]
            raw, mask = reference.read(i, window)
            if wrong := _differs(found.pixels[0], lost, raw, mask, operation, source.bands[i] == source.validity.alpha):
                return places, f"band {i + 1}, {window}: {wrong}"
    return places, ""


@dataclass(slots=True)
class _Reference:
    """Reads the source by rasterio alone; a VRT in the very windows and groups of bands that the job read.

    A warped one gives other pixels in others (FACTS).
    """

    source: RasterSource
    chunk: tuple[int, int, int] | None
    _place: Any = None
    _pixels: Any = field(default=None, repr=False)
    _masks: dict[int, Any] = field(default_factory=dict, repr=False)

    def within(self, window: Window) -> Window:
        """The part of a window that lies in one chunk."""
        if self.chunk is None:
            return window
        (top, bottom), (left, right) = (
            (max(low, (high - 1) // step * step), high)
            for (low, high), step in zip(window.ranges, self.chunk[:2], strict=True)
        )
        return Window(top, left, bottom - top, right - left)

    def read(self, index: int, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of the selected band at an index and where they are nodata, as GDAL's mask says; NaN is nodata too."""
        source, whole, at_once = self.source, window, 1
        if self.chunk is not None:
            height, width, at_once = self.chunk
            whole = windows.containing(source.grid.shape, (height, width), window)
        first = index // at_once * at_once
        group = source.bands[first : first + at_once]
        if self._place != (whole, group):
            self._pixels = None  # before the next takes its room
            self._masks.clear()
            self._pixels = read(partial(self._fetch, group, whole), source.path, window)
            self._place = whole, group
        rows, columns = (slice(a - b, a - b + n) for a, b, n in zip(window[:2], whole[:2], window[2:], strict=True))
        pixels = self._pixels[index - first][rows, columns]
        hidden = self._mask(source.bands[index], whole)[rows, columns] == 0
        if source.validity.alpha_hidden and source.bands[index] == source.validity.alpha:
            hidden = pixels == 0
        return pixels, (hidden | np.isnan(pixels) if pixels.dtype.kind == "f" else hidden)

    def _fetch(self, group: tuple[int, ...], window: Window) -> Any:
        dataset, dtype = self.source.dataset, self.source.dtype
        if self.source.is_mixed:
            return [dataset.read(band, window=window.ranges, out_dtype=dtype) for band in group]
        return dataset.read(group, window=window.ranges)

    def _mask(self, band: int, window: Window) -> Any:
        if band not in self._masks:
            fetch = partial(self.source.dataset.read_masks, band, window=window.ranges)
            self._masks[band] = read(fetch, self.source.path, window)
        return self._masks[band]


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
    if outputs.nodata is not None and outputs.fills and not math.isnan(outputs.nodata):
        moved = wanted.copy()
        nudge_off_nodata(moved, outputs.nodata, outputs.highest, same)
        np.logical_and(moved == found, moved != wanted, out=same)
    return same
