"""Pixels of a window with their validity beside them, so that integers need no sentinel. Buffers are made once a worker."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.raster.windows import Window


@dataclass(slots=True)
class Block:
    """A window's pixels.

    Attributes:
        window: where it lies on the output's grid, without what an operation wants around it.
        bands: the bands' numbers, in the order of `pixels`.
        pixels: `(bands, height, width)`.
        valid: `(bands, height, width)` bool; not looked at where `all_valid`.
        all_valid: no pixel can be nodata.
    """

    window: Window
    bands: tuple[int, ...]
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    all_valid: bool = False


class Buffer:
    """Room for one block at a time.

    Args:
        values: of the largest block: bands x pixels.
        dtype: of the pixels.
    """

    def __init__(self, values: int, dtype: np.dtype[Any]) -> None:
        self._pixels = np.empty(values, dtype)
        self._valid = np.empty(values, np.bool_)
        self._pixels.fill(0)  # every page is touched, so that the baseline has them
        self._valid.fill(False)

    @staticmethod
    def bytes(values: int, dtype: np.dtype[Any]) -> int:
        """Size of a buffer, bytes."""
        return values * (dtype.itemsize + 1)

    def block(self, window: Window, bands: tuple[int, ...], overlap: int = 0) -> Block:
        """A view of the right shape; what it holds is left over from the last."""
        shape = (len(bands), window.height + 2 * overlap, window.width + 2 * overlap)
        values = shape[0] * shape[1] * shape[2]
        return Block(window, bands, self._pixels[:values].reshape(shape), self._valid[:values].reshape(shape))
