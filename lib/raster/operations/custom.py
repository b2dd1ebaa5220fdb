"""`custom`: the user's own function, called with each window's pixels and their validity."""

import threading
from typing import Any

import numpy as np

from lib.errors import FunctionError
from lib.jobs import Custom
from lib.memory.function import call
from lib.memory.work import load_function
from lib.raster.block import Block
from lib.raster.operations.base import Operation, Outputs, check_nodata, is_beyond
from lib.raster.sources.dataset import RasterSource

_DTYPE = np.dtype(np.float32)
_MOST_EXACT = 2**24  # as float32
# A user's function may keep state, and its temporaries are counted once.
_ONE_AT_A_TIME = threading.Lock()


class UserFunction(Operation):
    """Gives the function `(bands, height, width)` float32, NaN where not valid, and bools; takes an array of that shape.

    It is called by one thread at a time.
    """

    wants_all_bands = one_at_a_time = True

    def __init__(self, model: Custom, source: RasterSource, nodata: float | None) -> None:
        del source
        value = check_nodata(float("nan") if nodata is None else nodata, _DTYPE)
        self._name = model.function
        self._function = load_function(model.function)  # a name that cannot be imported is told before any work
        self.outputs = Outputs(dtype=_DTYPE, nodata=value)

    def memory(self, pixels: int, bands: int) -> int:
        """What it is given, and what it returns, perhaps of float64; its own temporaries are measured by the probe."""
        return pixels * bands * (4 + 1 + 8)

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
        with np.errstate(all="ignore"):
            returned = call(self._function, self._name, pixels, valid)
        if isinstance(returned, np.ma.MaskedArray):
            returned = np.ma.filled(returned.astype(_DTYPE, copy=False), np.nan)
        if wrong := _wrong(returned, pixels.shape):
            raise FunctionError(
                f"function {self._name} returned {wrong}, not an array of numbers of shape {pixels.shape}",
                hint="return an array of the shape of the pixels it gets",
                function=self._name,
            )
        with np.errstate(all="ignore"):
            np.copyto(out.pixels, returned, casting="unsafe")
        np.isnan(out.pixels, out=out.valid)
        np.logical_not(out.valid, out=out.valid)
        if not block.all_valid:
            np.logical_and(out.valid, block.valid, out=out.valid)
        out.all_valid = False
        return out

    def reference(self, block: Block) -> None:
        """Not known: it may depend on the window's place or size, so it is not called again."""
        del block


def _wrong(returned: Any, shape: tuple[int, ...]) -> str:
    if not isinstance(returned, np.ndarray):
        return f"a {type(returned).__name__}"
    if returned.shape != shape:
        return f"an array of shape {returned.shape}"
    return "" if returned.dtype.kind in "biuf" else f"an array of {returned.dtype}"
