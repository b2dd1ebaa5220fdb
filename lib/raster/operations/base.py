"""What an operation is: pixels and validity in, pixels and validity out, and what that makes of bands."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lib.errors import UsageError
from lib.raster.block import Block
from lib.raster.sources.dataset import RasterSource
from lib.raster.validity import in_words, is_near, taken_for


@dataclass(frozen=True, slots=True)
class Linear:
    """How results follow from pixels, as `factor * pixel + shift`, before any clip."""

    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What an operation writes.

    Attributes:
        dtype: of all bands.
        nodata: the value that marks invalid pixels; None where none is declared.
        fills: invalid pixels get that value; else they stay as they were read.
        has_mask: a mask band of the dataset says what is valid.
        keeps_colours: colour tables and palette interpretation stay true.
        line: how values follow from the source's, for scales, offsets and units; None where they do not.
        highest: no result is above it; None where there is no such bound.
        scale: what the header says of what is written, value = factor * pixel + shift; None: it follows by `line`.
        unscaled: results are what pixels stand for, each band by its own scale and offset.
        new_bands: names of bands that stem from no single band of the source; empty: each selected band becomes one.
    """

    dtype: np.dtype[Any]
    nodata: int | float | None = None
    fills: bool = True
    has_mask: bool = False
    keeps_colours: bool = False
    line: Linear | None = None
    highest: float | None = None
    scale: Linear | None = None
    unscaled: bool = False
    new_bands: tuple[str, ...] = ()

    def count(self, selected: int) -> int:
        """How many bands are written where so many are selected; likewise of a chunk's."""
        return len(self.new_bands) or selected


class Operation(ABC):
    """One operation on one source; each worker has an instance of its own, so that scratch needs no lock.

    Attributes:
        outputs: what it writes.
        overlap: pixels that it wants around a window.
        wants_all_bands: it must get all bands at once.
        takes_alpha: it gets the alpha band like any other; else that is carried as it is.
        one_at_a_time: it works on one chunk at a time, and what it holds shows only when it does.
        needs_room: it writes its results into `out`; else they are the block that it gets.
        rounded: what it has rounded so far of valid pixels, in words; "" where nothing.
    """

    outputs: Outputs
    overlap: int = 0
    wants_all_bands: bool = False
    takes_alpha: bool = False
    one_at_a_time: bool = False
    needs_room: bool = True
    rounded: str = ""

    def memory(self, pixels: int, bands: int) -> int:
        """What it holds for a window of so many pixels, those around it included, beside the two blocks, bytes."""
        del pixels, bands
        return 0

    def tolerance(self, block: Block) -> float:
        """What results of the plain path may differ by for this block, in the output's units, beside rounding."""
        del block
        return 0.0

    @abstractmethod
    def apply(self, block: Block, out: Block) -> Block:
        """Compute a window: `out`, or `block` itself where that is the result. Validity is set, nodata is not filled in."""

    @abstractmethod
    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        """The plain path, for verification: a window's result and where it is valid, `(bands, height, width)`; None: not known.

        The block has all selected bands or one, as the operation wants them, with `overlap` pixels around the window.
        """


class Maker(Protocol):
    """Makes an operation for a source; the registry's values."""

    def __call__(self, model: Any, source: RasterSource, nodata: float | None) -> Operation:
        """`model` is the job's; `nodata` the value that the user asks for, None where there is none."""


def fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Whether pixels of a dtype can hold a nodata value."""
    if dtype.kind == "f":
        return not math.isfinite(nodata) or abs(nodata) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return math.isfinite(nodata) and nodata == int(nodata) and limits.min <= int(nodata) <= limits.max


def check_nodata(nodata: float, dtype: np.dtype[Any]) -> int | float:
    """A nodata value as pixels of a dtype hold it.

    Raises:
        UsageError: they cannot.
    """
    if not fits(nodata, dtype):
        hint = "choose a smaller value, or nan" if dtype.kind == "f" else f"choose a whole number that {dtype} holds"
        raise UsageError(f"nodata {in_words(nodata)} does not fit into {dtype}", hint=hint)
    return float(dtype.type(nodata)) if dtype.kind == "f" else int(nodata)


def is_beyond(block: Block, most: int) -> bool:
    """Whether a valid pixel of a wide integer dtype is above `most` or below `-most`."""
    pixels = block.pixels
    if pixels.dtype.kind not in "iu" or np.iinfo(pixels.dtype).max <= most:
        return False
    which: Any = True if block.all_valid else block.valid
    highest, lowest = pixels.max(where=which, initial=0), pixels.min(where=which, initial=0)
    return int(highest) > most or int(lowest) < -most


def nudge_off_nodata(pixels: NDArray[Any], nodata: float, highest: float | None, hits: NDArray[np.bool_]) -> bool:
    """Move valid results that would be read as nodata beside it, as GDAL's warper does, so that they stay valid.

    Args:
        pixels: results of one band; those of invalid pixels are overwritten later.
        nodata: the output's nodata.
        highest: upper bound of results: one there moves down, all others up.
        hits: scratch of the same shape: where that was.

    Returns:
        Whether there were any.
    """
    dtype = pixels.dtype
    if dtype.kind == "f" and math.isnan(nodata):
        return False
    value = dtype.type(nodata)
    if not is_near(pixels, value, hits).any():
        return False
    largest = np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max
    down = value == largest or (highest is not None and value >= dtype.type(highest))
    np.copyto(pixels, _beside(value, dtype, down=bool(down)), where=hits)
    return True


def _beside(value: Any, dtype: np.dtype[Any], *, down: bool) -> Any:
    """The nearest value that GDAL does not take for nodata."""
    if dtype.kind != "f":
        return value - dtype.type(1) if down else value + dtype.type(1)
    low, high = taken_for(float(value), dtype)
    return np.nextafter(low, dtype.type(-np.inf)) if down else np.nextafter(high, dtype.type(np.inf))
