"""What happens to pixels: each operation on buffers that the caller owns, in pieces that stay in the CPU's cache.

Arithmetic is in float32 where every pixel of the source is one exactly and the operation is a division (normalise of 8 and 16 bit
integers and float32), else in float64, rounded once at the end. So rescale does not lose digits where a large offset cancels.
Nodata is not known here: `masks.py` finds it and the engine writes it over the result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import FunctionError
from lib.jobs import Custom, Normalise, Operation, RasterJob, Rescale
from lib.memory.function import call
from lib.memory.work import load_function

__all__ = [
    "Linear",
    "Transform",
    "avoid",
    "call_function",
    "linear",
    "output_dtype",
    "output_nodata",
    "scratch_bytes",
]

# 128 Ki pixels: 512 KiB of float32, which a core's second-level cache holds. Half of it took 4 to 16 % longer when traced
# (a piece makes ten small objects); twice as much was not always faster.
_PIECE = 128 * 1024
_EXACT_IN_FLOAT32 = frozenset({"uint8", "int8", "uint16", "int16", "float16", "float32"})


def output_dtype(operation: Operation, source: np.dtype[Any]) -> np.dtype[Any]:
    """float32; float64 only for rescale of a float64 source, whose digits it would else lose."""
    if isinstance(operation, Rescale) and source == np.float64:
        return np.dtype(np.float64)
    return np.dtype(np.float32)


def output_nodata(job: RasterJob, dtype: np.dtype[Any]) -> float:
    """The output's nodata as its pixels can hold it; NaN by default, which collides with no valid value."""
    if job.nodata is None or job.nodata == "nan":
        return float("nan")
    return float(dtype.type(job.nodata))


@dataclass(frozen=True, slots=True)
class Linear:
    """An operation as `out = factor * raw + shift`, before any clip."""

    factor: float
    shift: float


def linear(operation: Operation) -> Linear | None:
    """The straight line that an operation is; None for a user's function and for a factor of 0."""
    if isinstance(operation, Normalise):
        return Linear(1 / operation.scale, 0.0)
    if isinstance(operation, Rescale) and operation.multiply != 0:
        return Linear(operation.multiply, operation.add)
    return None


def scratch_bytes(operation: Operation, source: np.dtype[Any], pixels: int) -> int:
    """What a `Transform` of one of our own operations holds, bytes; `pixels` of the largest window."""
    arithmetic = _arithmetic(operation, source)
    return 0 if arithmetic == output_dtype(operation, source) else min(_PIECE, pixels) * arithmetic.itemsize


def _arithmetic(operation: Operation, source: np.dtype[Any]) -> np.dtype[Any]:
    narrow = isinstance(operation, Normalise) and source.name in _EXACT_IN_FLOAT32
    return np.dtype(np.float32 if narrow else np.float64)


class Transform:
    """One of our own operations, ready for pixels of one dtype.

    Args:
        operation: normalise or rescale.
        source: dtype of the pixels as they are read.
        out: dtype of the result.
        pixels: of the largest window.
    """

    def __init__(self, operation: Operation, source: np.dtype[Any], out: np.dtype[Any], pixels: int) -> None:
        arithmetic = _arithmetic(operation, source)
        self._scratch = None if arithmetic == out else np.zeros(min(_PIECE, pixels), arithmetic)
        self._step = _step(operation, arithmetic)

    def __call__(self, raw: NDArray[Any], out: NDArray[Any]) -> None:
        """Transform `raw` `(pixels,)` into `out` `(pixels,)`; nothing of their size is allocated."""
        with np.errstate(all="ignore"):
            for start in range(0, len(raw), _PIECE):
                piece = slice(start, min(start + _PIECE, len(raw)))
                work = out[piece] if self._scratch is None else self._scratch[: piece.stop - start]
                np.copyto(work, raw[piece], casting="unsafe")
                self._step(work)
                if self._scratch is not None:
                    np.copyto(out[piece], work, casting="same_kind")


def _step(operation: Operation, dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], None]:
    if isinstance(operation, Normalise):
        scale, low, high = (dtype.type(value) for value in (operation.scale, *operation.clip))

        def normalise(work: NDArray[Any]) -> None:
            np.divide(work, scale, out=work)
            np.maximum(work, low, out=work)  # np.clip takes longer to begin than to work on so few pixels
            np.minimum(work, high, out=work)

        return normalise
    if isinstance(operation, Rescale):
        multiply, add = dtype.type(operation.multiply), dtype.type(operation.add)

        def rescale(work: NDArray[Any]) -> None:
            np.multiply(work, multiply, out=work)
            np.add(work, add, out=work)

        return rescale
    raise TypeError(f"{operation.name} is not one of our own operations")


def avoid(out: NDArray[Any], nodata: float, highest: float | None, hits: NDArray[np.bool_]) -> None:
    """Move valid results that equal the nodata value to the next float, as GDAL's warper does, so that they stay valid.

    Args:
        out: `(pixels,)`, valid results; those of nodata pixels are overwritten later.
        nodata: the output's nodata.
        highest: the clip's upper bound: a result there moves down, all others up.
        hits: `(pixels,)` bool, scratch.
    """
    if np.isnan(nodata):
        return
    value = out.dtype.type(nodata)
    down = value == np.finfo(out.dtype).max or (highest is not None and value >= out.dtype.type(highest))
    beside = np.nextafter(value, out.dtype.type(-np.inf if down else np.inf))
    np.copyto(out, beside, where=np.equal(out, value, out=hits))


def call_function(
    function: Callable[..., Any], operation: Custom, pixels: NDArray[np.float32], valid: NDArray[np.bool_]
) -> NDArray[Any]:
    """Call a user's function with a window and check what it returns.

    Args:
        function: what `load_user_function` found.
        operation: names the function in errors.
        pixels: `(bands, height, width)` float32, NaN where nodata; the function may change it.
        valid: the same shape, True where a pixel is valid.

    Returns:
        An array of the same shape; masked values as NaN.

    Raises:
        FunctionError: it raised, or returned something else.
        MemoryExceeded, MemoryError: an allocator refused it memory.
    """
    with np.errstate(all="ignore"):
        returned = call(function, operation.function, pixels, valid)
    if isinstance(returned, np.ma.MaskedArray):
        returned = np.ma.filled(returned.astype(np.float32, copy=False), np.nan)
    wrong = _wrong(returned, pixels.shape)
    if wrong:
        raise FunctionError(
            f"function {operation.function} returned {wrong}, not an array of numbers of shape {pixels.shape}",
            hint="return an array of the shape of the pixels it gets",
            function=operation.function,
        )
    return returned  # type: ignore[no-any-return]


def _wrong(returned: Any, shape: tuple[int, ...]) -> str:
    if not isinstance(returned, np.ndarray):
        return f"a {type(returned).__name__}"
    if returned.shape != shape:
        return f"an array of shape {returned.shape}"
    return "" if returned.dtype.kind in "biuf" else f"an array of {returned.dtype}"


def load_user_function(operation: Operation) -> Callable[..., Any] | None:
    """The user's function of a custom operation, else None."""
    return load_function(operation.function) if isinstance(operation, Custom) else None
