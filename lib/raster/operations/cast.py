"""Another type for what an operation computes: scaled if asked, rounded half away from zero as GDAL does, saturated at its ends.

Nodata stays nodata: as the user or the source has it where the type can hold it, else NaN or an end of the type. Valid results
that would be read as nodata are moved beside it by the pipeline, like any others.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.raster.block import Block
from lib.raster.operations.base import Linear, Operation, Outputs, check_nodata, fits
from lib.raster.sources.dataset import RasterSource

# As in linear.py: float64 of so many pixels is what a core's cache holds.
_PIECE = 64 * 1024


class Cast(Operation):
    """Another operation's results in another dtype.

    Args:
        inner: the operation.
        dtype: of what is written.
        source: for the nodata value that it declares.
        nodata: the value that the user asks for, None where there is none.
        scale: what is written is `(result - shift) / factor`; None: the result.
    """

    def __init__(
        self,
        inner: Operation,
        dtype: np.dtype[Any],
        source: RasterSource,
        nodata: float | None,
        scale: Linear | None,
    ) -> None:
        self._inner, self._scale = inner, scale
        self.overlap, self.wants_all_bands = inner.overlap, inner.wants_all_bands
        self.takes_alpha, self.one_at_a_time = inner.takes_alpha, inner.one_at_a_time
        outputs = inner.outputs
        by_mask = outputs.has_mask and nodata is None
        declared = _declared(source) if outputs.line == Linear() and scale is None else None
        value = None if by_mask else nodata_for(dtype, nodata, outputs.nodata, declared)
        self.outputs = Outputs(
            dtype=dtype,
            nodata=value,
            fills=value is not None,
            has_mask=by_mask,
            keeps_colours=outputs.keeps_colours and scale is None,
            line=outputs.line,
            scale=scale or outputs.scale,
            unscaled=outputs.unscaled,
            new_bands=outputs.new_bands,
        )
        self._between: Block | None = None

    @property
    def rounded(self) -> str:  # type: ignore[override]
        """What the inner operation has rounded."""
        return self._inner.rounded

    def memory(self, pixels: int, bands: int) -> int:
        """The inner operation's, its result, and pieces of float64."""
        between = pixels * self.outputs.count(bands) * (self._inner.outputs.dtype.itemsize + 1)
        return self._inner.memory(pixels, bands) + between * self._inner.needs_room + 2 * 8 * min(_PIECE, pixels)

    def tolerance(self, block: Block) -> float:
        """The inner operation's, scaled; where results are rounded, one more."""
        inner = self._inner.tolerance(block) / abs(self._scale.factor if self._scale else 1)
        return inner + 1 if inner and self.outputs.dtype.kind in "iu" else inner

    def apply(self, block: Block, out: Block) -> Block:
        """Compute, then convert piece by piece."""
        done = self._inner.apply(block, self._room(out) if self._inner.needs_room else block)
        results, written = done.pixels.reshape(-1), out.pixels.reshape(-1)
        with np.errstate(all="ignore"):
            for start in range(0, len(results), _PIECE):
                piece = slice(start, start + _PIECE)
                convert(results[piece], written[piece], self._scale)
        out.all_valid = done.all_valid
        if not done.all_valid:
            np.copyto(out.valid, done.valid)
        return out

    def _room(self, out: Block) -> Block:
        """A block of the inner operation's dtype for so many results."""
        if self._between is None or self._between.pixels.size < out.pixels.size:
            dtype = self._inner.outputs.dtype
            self._between = Block(
                out.window, out.bands, np.zeros(out.pixels.size, dtype), np.zeros(out.pixels.size, np.bool_)
            )
        size, shape = out.pixels.size, out.pixels.shape
        pixels, valid = self._between.pixels.reshape(-1)[:size], self._between.valid.reshape(-1)[:size]
        self._between = Block(out.window, out.bands, self._between.pixels, self._between.valid)
        return Block(out.window, out.bands, pixels.reshape(shape), valid.reshape(shape))

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        """The inner operation's plain path, and the conversion as it is written, for whole windows."""
        known = self._inner.reference(block)
        if known is None:
            return None
        results, good = known
        dtype = self.outputs.dtype
        if self._scale is None and results.dtype.kind in "iu" and dtype.kind in "iu":
            low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
            return np.vectorize(lambda each: min(max(int(each), low), high), otypes=[dtype])(results), good
        values = results.astype(np.float64)
        if self._scale is not None:
            values = (values - self._scale.shift) / self._scale.factor
        with np.errstate(all="ignore"):
            if dtype.kind == "f":
                return values.astype(dtype), good
            rounded = np.where(values < 0, np.ceil(values - 0.5), np.floor(values + 0.5))
            limits = np.iinfo(dtype)
            wanted = np.nan_to_num(rounded).clip(float(limits.min), float(limits.max))
            whole = np.where(wanted >= float(limits.max), limits.max, wanted.astype(dtype))
        return whole.astype(dtype), good


def convert(results: NDArray[Any], written: NDArray[Any], scale: Linear | None = None) -> None:
    """Write results in another dtype: scaled, rounded half away from zero, saturated; NaN is 0 among integers."""
    dtype = written.dtype
    if scale is None and results.dtype.kind in "iu":
        np.copyto(written, np.clip(results, *_ends(results.dtype, dtype)), casting="unsafe")
        return
    work = results.astype(np.float64)
    if scale is not None:
        np.subtract(work, scale.shift, out=work)
        np.divide(work, scale.factor, out=work)
    if dtype.kind in "iu":
        np.add(work, np.copysign(0.5, work), out=work)
        np.trunc(work, out=work)
        limits = np.iinfo(dtype)
        saturated = np.clip(work, limits.min, limits.max)
        np.copyto(written, np.nan_to_num(saturated, copy=False), casting="unsafe")
        if dtype.itemsize == 8:  # noqa: PLR2004 - float64 rounds the ends of 64 bits up, beyond them
            np.copyto(written, limits.max, where=work >= float(limits.max))
        return
    np.copyto(written, work, casting="unsafe")


def _ends(one: np.dtype[Any], other: np.dtype[Any]) -> tuple[Any, Any]:
    """The lowest and highest value of a dtype of integers that another dtype holds."""
    mine = np.iinfo(one)
    if other.kind == "f":
        return mine.min, mine.max
    its = np.iinfo(other)
    return max(int(mine.min), int(its.min)), min(int(mine.max), int(its.max))


def _declared(source: RasterSource) -> float | None:
    """The nodata value of all bands; None where they have different ones."""
    places = [source.part(band) for band in source.bands]
    values = {part.validity.declared[band - 1] for part, band in places}
    return next(iter(values)) if len(values) == 1 else None


def nodata_for(dtype: np.dtype[Any], asked: float | None, inner: float | None, declared: float | None) -> int | float:
    """What marks invalid pixels: as asked, as the operation has it, as the source declares it, or an end of the dtype."""
    if asked is not None:
        return check_nodata(asked, dtype)
    for value in (inner, declared):
        if value is not None and fits(value, dtype) and (dtype.kind == "f" or not math.isnan(value)):
            return check_nodata(value, dtype)
    if dtype.kind == "f":
        return math.nan
    limits = np.iinfo(dtype)
    return int(limits.min) or int(limits.max)
