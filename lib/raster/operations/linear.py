"""`normalise` and `rescale`: straight lines, on buffers that the caller owns, in pieces that stay in the CPU's cache.

Results are float32 where every pixel of the source's type is one exactly (integers of 8 and 16 bits, float16, float32), else
float64. Arithmetic is in float32 where the result is and the operation is a division, else in float64, rounded once at the end:
so rescale does not lose digits where a large offset cancels. Of 64-bit integers beyond 2**53, which float64 rounds, it tells.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.operations import Normalise, Rescale
from lib.raster.block import Block
from lib.raster.operations.base import Linear, Operation, Outputs, check_nodata, is_beyond
from lib.raster.sources.dataset import RasterSource

# 512 KiB of float32, which a core's second-level cache holds (MEASURED.md, "Pieces of a window").
_PIECE = 128 * 1024
_MOST_EXACT = 2**53  # as float64
EXACT_IN_FLOAT32 = frozenset({"uint8", "int8", "uint16", "int16", "float16", "float32"})

Step = Callable[[NDArray[Any]], None]


class Line(Operation):
    """One straight line on one source.

    Args:
        step: works on a piece in place.
        plain: the same in float64 for a whole window, for verification.
        arithmetic: the dtype in which `step` works.
        outputs: what is written.
    """

    def __init__(self, step: Step, plain: Callable[[Any], Any], arithmetic: np.dtype[Any], outputs: Outputs) -> None:
        self._step, self._plain, self._arithmetic, self.outputs = step, plain, arithmetic, outputs
        self.rounded = ""
        self._scratch = np.empty(0, arithmetic)

    def memory(self, pixels: int, bands: int) -> int:
        """A piece, where the arithmetic is wider than the output."""
        return 0 if self._arithmetic == self.outputs.dtype else min(_PIECE, pixels * bands) * self._arithmetic.itemsize

    def apply(self, block: Block, out: Block) -> Block:
        """Compute; a result that is not a number is not valid."""
        if not self.rounded and is_beyond(block, _MOST_EXACT):
            self.rounded = f"pixels of {block.pixels.dtype} beyond 2**53 are rounded to float64"
        raw, result = block.pixels.reshape(-1), out.pixels.reshape(-1)
        if self._arithmetic != self.outputs.dtype and len(self._scratch) < min(_PIECE, len(raw)):
            self._scratch = np.empty(min(_PIECE, len(raw)), self._arithmetic)
        with np.errstate(all="ignore"):
            for start in range(0, len(raw), _PIECE):
                self._piece(raw[start : start + _PIECE], result[start : start + _PIECE])
        out.all_valid = block.all_valid
        if not block.all_valid:
            np.isnan(out.pixels, out=out.valid)
            np.logical_not(out.valid, out=out.valid)
            np.logical_and(out.valid, block.valid, out=out.valid)
        return out

    def _piece(self, raw: NDArray[Any], result: NDArray[Any]) -> None:
        work = self._scratch[: len(raw)] if len(self._scratch) else result
        np.copyto(work, raw, casting="unsafe")
        self._step(work)
        if work is not result:
            np.copyto(result, work, casting="same_kind")

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The formula as it is written, for a whole window in float64."""
        with np.errstate(all="ignore"):
            wanted = self._plain(block.pixels.astype(np.float64)).astype(self.outputs.dtype)
        return wanted, block.valid & ~np.isnan(wanted)


def normalise(model: Normalise, source: RasterSource, nodata: float | None) -> Line:
    """`clip(pixel / scale, low, high)`."""
    arithmetic = dtype = exact_float(source)
    scale, low, high = (arithmetic.type(value) for value in (model.scale, *model.clip))

    def step(work: NDArray[Any]) -> None:
        np.divide(work, scale, out=work)
        np.maximum(work, low, out=work)  # np.clip takes longer to begin than to work on so few pixels
        np.minimum(work, high, out=work)

    def plain(pixels: NDArray[Any]) -> NDArray[Any]:
        return np.clip(pixels / model.scale, *model.clip)

    outputs = _outputs(dtype, nodata, Linear(1 / model.scale), model.clip[1])
    return Line(step, plain, arithmetic, outputs)


class Unscaled(Operation):
    """What pixels stand for: each band by its own scale and offset, then by `multiply` and `add`; float64 arithmetic."""

    def __init__(self, model: Rescale, source: RasterSource, nodata: float | None) -> None:
        places = [source.part(band) for band in source.bands]
        self._lines = {
            band: _by(model, part.dataset.scales[number - 1], part.dataset.offsets[number - 1])
            for band, (part, number) in zip(source.bands, places, strict=True)
        }
        self._bands = source.bands
        same = model.multiply == 1 and model.add == 0
        dtype = exact_float(source)
        outputs = _outputs(dtype, nodata, Linear() if same else None)
        self.outputs = replace(outputs, scale=Linear(), unscaled=True)

    def memory(self, pixels: int, bands: int) -> int:
        """A piece of float64."""
        del bands
        return 8 * min(_PIECE, pixels)

    def apply(self, block: Block, out: Block) -> Block:
        """Band by band, piece by piece."""
        with np.errstate(all="ignore"):
            for band, raw, result in zip(block.bands, block.pixels, out.pixels, strict=True):
                line, values, results = self._lines[band], raw.reshape(-1), result.reshape(-1)
                for start in range(0, len(values), _PIECE):
                    work = values[start : start + _PIECE] * np.float64(line.factor)
                    np.add(work, line.shift, out=work)
                    np.copyto(results[start : start + _PIECE], work, casting="same_kind")
        np.isnan(out.pixels, out=out.valid)
        np.logical_not(out.valid, out=out.valid)
        if not block.all_valid:
            np.logical_and(out.valid, block.valid, out=out.valid)
        out.all_valid = False
        return out

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The formula with each band's own numbers, for a whole window in float64."""
        lines = [self._lines[band] for band in block.bands]
        factors, shifts = (
            np.array(each)[:, None, None] for each in zip(*((x.factor, x.shift) for x in lines), strict=True)
        )
        wanted = (block.pixels.astype(np.float64) * factors + shifts).astype(self.outputs.dtype)
        return wanted, block.valid & ~np.isnan(wanted)


def _by(model: Rescale, scale: float, offset: float) -> Linear:
    return Linear(scale * model.multiply, offset * model.multiply + model.add)


def rescale_or_unscale(model: Rescale, source: RasterSource, nodata: float | None) -> Operation:
    """By the formula, or by each band's own scale and offset first."""
    return Unscaled(model, source, nodata) if model.unscale else rescale(model, source, nodata)


def rescale(model: Rescale, source: RasterSource, nodata: float | None) -> Line:
    """`pixel * multiply + add`."""
    arithmetic, dtype = np.dtype(np.float64), exact_float(source)

    def step(work: NDArray[Any]) -> None:
        np.multiply(work, model.multiply, out=work)
        np.add(work, model.add, out=work)

    def plain(pixels: NDArray[Any]) -> NDArray[Any]:
        return pixels * model.multiply + model.add

    line = Linear(model.multiply, model.add) if model.multiply else None
    return Line(step, plain, arithmetic, _outputs(dtype, nodata, line))


def exact_float(source: RasterSource) -> np.dtype[Any]:
    """The floating-point dtype in which each pixel of the source is exact, of 64-bit integers as far as there is one.

    It is float64 where what is written has more digits than float32.
    """
    narrow = source.dtype.name in EXACT_IN_FLOAT32 and not source.has_wide_results
    return np.dtype(np.float32 if narrow else np.float64)


def _outputs(dtype: np.dtype[Any], nodata: float | None, line: Linear | None, highest: float | None = None) -> Outputs:
    """NaN by default, which collides with no valid value."""
    value = check_nodata(float("nan") if nodata is None else nodata, dtype)
    return Outputs(dtype=dtype, nodata=value, line=line, highest=highest)
