"""The plain path: what a window of the output must be, computed anew from the source, without the engine's code.

Whole windows through rasterio's own reads of pixels and masks, and each operation's `reference`. A user's function is not called
again (it may depend on the window's place or size): of its result only nodata is compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.raster import windows
from lib.raster.block import Block, Buffer
from lib.raster.faults import read
from lib.raster.operations import Operation, Outputs, nudge_off_nodata
from lib.raster.regridded import strays
from lib.raster.sources.dataset import RasterSource
from lib.raster.sources.mosaic import Mosaic
from lib.raster.sources.warped import Warped
from lib.raster.windows import Window

# Edge of a recomputed window in pixels; `basic` shares the job's own memory.
BASIC_EDGE, SAMPLE_EDGE = 128, 256
_LEAST_EDGE = 16
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
    own_bands = len(output.bands) if len(output.bands) != len(source.bands) else 0
    together = own_bands > 0 or (operation is not None and operation.wants_all_bands)
    if together:  # as much at once as of one band
        edge = max(_LEAST_EDGE, int(edge / math.sqrt(len(source.bands))))
    places = sorted(windows.sample(shape, edge, most, _SEED))
    buffer, [reader] = Buffer(min(edge, shape[0]) * min(edge, shape[1]), output.dtype), output.readers(1)
    reference = _Reference(source, operation, chunk if source.dataset.driver == "VRT" else None)
    every = range(len(source.bands))
    for window in sorted(map(reference.within, places)):
        for i in [0] if together else windows.evenly(len(every), _MOST_BANDS):
            wanted = reference.compute(every if together else (i,), window)
            if own_bands and len(wanted.pixels) != own_bands:
                wanted = wanted.of_all(own_bands)
            for plane in range(len(wanted.pixels)):
                band = i + plane + 1
                found = reader.read(window, (band,), 0, buffer.block(window, (band,)))
                lost = np.zeros(found.pixels.shape[1:], np.bool_) if found.all_valid else ~found.valid[0]
                if wrong := wanted.differs(plane, found.pixels[0], lost):
                    return places, f"band {band}, {window}: {wrong}"
    return places, ""


@dataclass(slots=True)
class _Reference:
    """Reads the source by rasterio alone; a VRT in the very windows and groups of bands that the job read.

    A warped one gives other pixels in others (FACTS).
    """

    source: RasterSource
    operation: Operation | None
    chunk: tuple[int, int, int] | None
    _place: Any = None
    _pixels: Any = field(default=None, repr=False)
    _masks: dict[int, Any] = field(default_factory=dict, repr=False)
    _wrong: str = ""

    def within(self, window: Window) -> Window:
        """The part of a window that lies in one chunk."""
        if self.chunk is None:
            return window
        (top, bottom), (left, right) = (
            (max(low, (high - 1) // step * step), high)
            for (low, high), step in zip(window.ranges, self.chunk[:2], strict=True)
        )
        return Window(top, left, bottom - top, right - left)

    def compute(self, indexes: Sequence[int], window: Window) -> "_Wanted":
        """What the selected bands at these indexes become in a window."""
        source, operation = self.source, self.operation
        self._wrong = ""
        overlap = operation.overlap if operation else 0
        raw, valid = map(np.stack, zip(*(self._around(i, window, overlap) for i in indexes), strict=True))
        is_alpha = len(indexes) == 1 and source.bands[indexes[0]] == source.validity.alpha
        inner = tuple(slice(overlap, overlap + length) for length in window[2:])
        read = raw[:, *inner], valid[:, *inner]
        if is_alpha and (operation is None or not operation.takes_alpha):
            return _Wanted(*read, None, "alpha is not carried as it is")
        if operation is None:
            return _Wanted(*read, None)
        block = Block(window, tuple(source.bands[i] for i in indexes), raw, valid)
        known = operation.reference(block)
        if known is None:
            return _Wanted(*read, None)
        return _Wanted(*known, operation, "", operation.tolerance(block), self._wrong)

    def _around(self, index: int, window: Window, overlap: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A band's pixels in and around a window, and where they are valid; nothing is valid beyond the raster's edge."""
        if not overlap:
            return self._read(index, window, window)
        place = [(low - overlap, high + overlap) for low, high in window.ranges]
        inside = [
            (max(low, 0), min(high, most)) for (low, high), most in zip(place, self.source.grid.shape, strict=True)
        ]
        (top, bottom), (left, right) = inside
        margins = [(low - at, end - high) for (low, high), (at, end) in zip(inside, place, strict=True)]
        read = self._read(index, Window(top, left, bottom - top, right - left), window)
        pixels, valid = (np.pad(each, margins) for each in read)
        return pixels, valid

    def _read(self, index: int, window: Window, core: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of the selected band at an index and where they are valid, as GDAL's mask says; NaN is nodata too.

        `core` is the window without what is wanted around it.
        """
        source, band = self.source.part(self.source.bands[index])
        if isinstance(source, Mosaic):
            return source.read_plainly(band, window)
        if isinstance(source, Warped):
            found, good = source.read_plainly(band, window)
            self._wrong = self._wrong or strays(source, band, window, found, good)
            return found, good
        whole, at_once, first = window, 1, index
        if self.chunk is not None:
            height, width, at_once = self.chunk
            whole = windows.containing(source.grid.shape, (height, width), core)
            if self.operation:
                whole = windows.grown(source.grid.shape, whole, self.operation.overlap)
            first = index // at_once * at_once
        group = source.bands[first : first + at_once] if at_once > 1 else (band,)
        if self._place != (whole, source.path, group):
            self._pixels = None  # before the next takes its room
            self._masks.clear()
            self._pixels = read(partial(_fetch, source, group, whole, self.source.dtype), source.path, window)
            self._place = whole, source.path, group
        rows, columns = (slice(a - b, a - b + n) for a, b, n in zip(window[:2], whole[:2], window[2:], strict=True))
        pixels = self._pixels[index - first][rows, columns]
        hidden = self._mask(source, band, whole)[rows, columns] == 0
        if source.validity.alpha_hidden and band == source.validity.alpha:
            hidden = pixels == 0
        return pixels, ~(hidden | np.isnan(pixels) if pixels.dtype.kind == "f" else hidden)

    def _mask(self, source: RasterSource, band: int, window: Window) -> Any:
        if band not in self._masks:
            fetch = partial(source.dataset.read_masks, band, window=source.on_file(window.ranges))
            self._masks[band] = read(fetch, source.path, window)
        return self._masks[band]


def _fetch(source: RasterSource, group: tuple[int, ...], window: Window, dtype: np.dtype[Any]) -> Any:
    place = source.on_file(window.ranges)
    if len({*source.dtypes, dtype.name}) > 1:
        return [source.dataset.read(band, window=place, out_dtype=dtype) for band in group]
    return source.dataset.read(group, window=place)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a window must be, `(bands, height, width)`.

    Attributes:
        pixels: the result; of an operation that is not computed again, what was read.
        valid: where it is valid.
        operation: whose result it is; None: only what was not valid is compared, or all is as it was read.
        as_read: how to say that a band is not what was read; "" where it need not be.
        tolerance: what pixels may differ by, beside rounding.
        wrong: how what was read is not right itself.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    operation: Operation | None
    as_read: str = ""
    tolerance: float = 0.0
    wrong: str = ""

    def of_all(self, count: int) -> "_Wanted":
        """Of a function's own bands: nothing is valid where not all that it gets is."""
        shape = count, *self.valid.shape[1:]
        return replace(
            self, pixels=np.zeros(shape, self.pixels.dtype), valid=np.broadcast_to(self.valid.all(axis=0), shape)
        )

    def differs(self, plane: int, found: NDArray[Any], lost: NDArray[np.bool_]) -> str:
        """How a band of the output differs; "" where it does not. `lost` is where its pixels are not valid."""
        wanted, valid, operation = self.pixels[plane], self.valid[plane], self.operation
        if self.wrong:
            return self.wrong
        if self.as_read:
            return "" if np.array_equal(found, wanted.astype(found.dtype)) else self.as_read
        if operation is None:
            return "" if lost[~valid].all() else f"{np.count_nonzero(~valid & ~lost)} nodata pixels became valid"
        if not np.array_equal(lost, ~valid):
            return f"{np.count_nonzero(lost)} nodata pixels, not {np.count_nonzero(~valid)}"
        outputs = operation.outputs
        if not outputs.fills:  # as they were read, those that are not valid among them
            valid = np.ones(valid.shape, np.bool_)
        tolerance = _TOLERANCE.get(found.dtype.name, 0) if outputs.line is None or outputs.fills else 0
        close = _same(found[valid], wanted[valid], tolerance, self.tolerance) | _moved(
            found[valid], wanted[valid], outputs
        )
        if close.all():
            return ""
        return f"{np.count_nonzero(~close)} of {close.size} pixels differ from the source recomputed"


def _same(found: NDArray[Any], wanted: NDArray[Any], tolerance: float, absolute: float) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = found == wanted
    if found.dtype.kind == "f":
        least = max(absolute, float(np.finfo(found.dtype).tiny))
        same = np.isclose(found, wanted, rtol=tolerance, atol=least, equal_nan=True)
    elif absolute:
        same |= np.abs(found.astype(np.float64) - wanted) <= absolute
    return same


def _moved(found: NDArray[Any], wanted: NDArray[Any], outputs: Outputs) -> NDArray[np.bool_]:
    """Where a valid result would have been read as nodata, and stands on its nearest neighbour that is not."""
    same = np.zeros(found.shape, np.bool_)
    if outputs.nodata is not None and outputs.fills and not math.isnan(outputs.nodata):
        moved = wanted.copy()
        nudge_off_nodata(moved, outputs.nodata, outputs.highest, same)
        np.logical_and(moved == found, moved != wanted, out=same)
    return same
