"""`custom`: the user's own function, called with each window's pixels and their validity."""

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lib.errors import FunctionError, UsageError
from lib.jobs import DType
from lib.memory.function import call
from lib.memory.work import load_function
from lib.operations import Custom
from lib.raster.block import Block
from lib.raster.operations.base import Operation, Outputs, check_nodata, is_beyond
from lib.raster.operations.cast import convert
from lib.raster.sources.dataset import RasterSource
from lib.raster.windows import Window

_DTYPE = np.dtype(np.float32)
_DTYPES = tuple(name for name in get_args(DType) if name != "auto")
_MOST_EXACT = 2**24  # as float32
_MOST_BANDS = 65_535  # of a TIFF
# A user's function may keep state, and its temporaries are counted once.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Context:
    """Where the pixels lie that a function gets.

    Attributes:
        window: of its result, on the raster's grid: `top`, `left`, `height`, `width`.
        transform: affine, from column and row of the pixels that it gets, those around the window included, to the CRS; None
            where the raster has none.
        crs: rasterio's CRS, None where there is none.
        bands: numbers of the bands, in their order.
    """

    window: Window
    transform: Any
    crs: Any
    bands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """What a function says of itself by its attributes.

    Attributes:
        overlap: pixels that it wants around a window.
        dtype: of what is written.
        bands: how many it returns; 0: as many as it gets, each from its own.
    """

    overlap: int = 0
    dtype: np.dtype[Any] = _DTYPE
    bands: int = 0


class UserFunction(Operation):
    """Gives the function `(bands, height, width)` float32, NaN where not valid, and bools; takes an array of that shape.

    With `overlap` declared both have so many pixels more on each side, NaN beyond the raster's edge; what it returns may have
    them, too. It is called by one thread at a time.
    """

    wants_all_bands = one_at_a_time = True

    def __init__(self, model: Custom, source: RasterSource, nodata: float | None) -> None:
        self._name, self._grid = model.function, source.grid
        self._function = load_function(model.function)  # a name that cannot be imported is told before any work
        declared = declared_by(self._function, self._name)
        self._takes_context = takes_context(self._function)
        self.overlap, self._own_bands = declared.overlap, declared.bands
        self.takes_alpha = declared.bands > 0  # none of the function's own bands is the alpha band
        name = model.function.rpartition(":")[2]
        names = tuple(f"{name} {number + 1}" for number in range(declared.bands)) if declared.bands > 1 else (name,)
        value = check_nodata(_nodata_of(declared.dtype) if nodata is None else nodata, declared.dtype)
        self.outputs = Outputs(dtype=declared.dtype, nodata=value, new_bands=names if declared.bands else ())

    def memory(self, pixels: int, bands: int) -> int:
        """What it is given, and what it returns, perhaps of float64; its own temporaries are measured by the probe."""
        returned = 8 if self.outputs.dtype.kind == "f" else 8 + 8
        return pixels * (bands * (4 + 1) + (self._own_bands or bands) * returned)

    def apply(self, block: Block, out: Block) -> Block:
        """Call the function; what was not valid stays so, and so does what it returns as NaN or masked.

        Raises:
            FunctionError: it raised, or returned something else.
            MemoryExceeded, MemoryError: an allocator refused it memory.
        """
        with _ONE_AT_A_TIME:
            return self._apply(block, out)

    def _apply(self, block: Block, out: Block) -> Block:
        pixels = block.pixels.astype(_DTYPE)
        if not self.rounded and is_beyond(block, _MOST_EXACT):
            self.rounded = f"pixels of {block.pixels.dtype} beyond 2**24 reach the function rounded to float32"
        valid = np.ones(pixels.shape, np.bool_) if block.all_valid else block.valid.copy()  # it may write into them
        if not block.all_valid:
            np.copyto(pixels, np.nan, where=~valid)
        more = [self._context(block)] if self._takes_context else []
        with np.errstate(all="ignore"):
            returned = call(self._function, self._name, pixels, valid, *more)
        returned = self._checked(returned, pixels.shape, out.pixels.shape)
        hidden = np.ma.getmask(returned)
        results = np.ma.getdata(returned)
        with np.errstate(all="ignore"):
            if out.pixels.dtype.kind == "f":
                np.copyto(out.pixels, results, casting="unsafe")
                np.isnan(out.pixels, out=out.valid)
            else:
                for plane, written, lost in zip(results, out.pixels, out.valid, strict=True):
                    convert(plane, written)
                    np.isnan(plane, out=lost) if plane.dtype.kind == "f" else lost.fill(False)
        if hidden is not np.ma.nomask:
            np.logical_or(out.valid, hidden, out=out.valid)
        np.logical_not(out.valid, out=out.valid)
        if not block.all_valid:
            kept = self._inner(block.valid)
            np.logical_and(out.valid, kept.all(axis=0) if self._own_bands else kept, out=out.valid)
        out.all_valid = False
        return out

    def _context(self, block: Block) -> Context:
        window, transform = block.window, self._grid.transform
        if transform is not None:
            left, top = window.left - self.overlap, window.top - self.overlap
            transform = transform @ type(transform).translation(left, top)
        return Context(window, transform, self._grid.crs, block.bands)

    def _inner(self, values: NDArray[Any]) -> NDArray[Any]:
        """The window without what is around it."""
        around = self.overlap
        return values[:, around : values.shape[1] - around, around : values.shape[2] - around]

    def _checked(self, returned: Any, given: tuple[int, ...], wanted: tuple[int, ...]) -> Any:
        """What the function returned for the window alone.

        Raises:
            FunctionError: it is no such array.
        """
        around = wanted[0], *given[1:]
        wrong = _wrong(returned, {wanted, around})
        if wrong:
            shapes = f"{around}" if around == wanted else f"{around} or {wanted}"
            hint = "return an array of the shape of the pixels it gets"
            if self._own_bands:
                hint = f"return as many bands as it declares: {self._own_bands}"
            raise FunctionError(
                f"function {self._name} returned {wrong}, not an array of numbers of shape {shapes}",
                hint=hint,
                function=self._name,
            )
        return returned if returned.shape == wanted else self._inner(returned)

    def reference(self, block: Block) -> None:
        """Not known: it may depend on the window's place or size, so it is not called again."""
        del block


def declared_by(function: Callable[..., Any], name: str) -> Declared:
    """What the function's attributes `overlap`, `dtype` and `bands` say.

    Raises:
        UsageError: one that cannot be.
    """
    overlap, bands = getattr(function, "overlap", 0), getattr(function, "bands", None)
    dtype = getattr(function, "dtype", _DTYPE.name)
    if not _is_whole(overlap) or overlap < 0:
        raise UsageError(
            f"function {name} declares overlap {overlap!r}", hint="overlap is a number of pixels, 0 or more"
        )
    if bands is not None and (not _is_whole(bands) or not 1 <= bands <= _MOST_BANDS):
        raise UsageError(f"function {name} declares bands {bands!r}", hint=f"bands is a number from 1 to {_MOST_BANDS}")
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in _DTYPES:
        raise UsageError(f"function {name} declares dtype {dtype!r}", hint=f"use one of: {', '.join(_DTYPES)}")
    return Declared(int(overlap), found, int(bands or 0))


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def takes_context(function: Callable[..., Any]) -> bool:
    """Whether the function has a third parameter that it needs, or one named `context` in that place."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of some that are written in C
        return False
    placed = [each for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
    return len(placed) > 2 and (placed[2].name == "context" or placed[2].default is inspect.Parameter.empty)  # noqa: PLR2004


def _nodata_of(dtype: np.dtype[Any]) -> float:
    """NaN; among integers an end of the dtype: the lowest of signed ones, the highest of others."""
    if dtype.kind == "f":
        return float("nan")
    limits = np.iinfo(dtype)
    return int(limits.min) or int(limits.max)


def _wrong(returned: Any, shapes: set[tuple[int, ...]]) -> str:
    if not isinstance(returned, np.ndarray):
        return f"a {type(returned).__name__}"
    if returned.shape not in shapes:
        return f"an array of shape {returned.shape}"
    return "" if returned.dtype.kind in "biuf" else f"an array of {returned.dtype}"
