"""`clip`: pixels as they are, of the part of the raster that the source is; those outside of polygons become nodata.

What nodata is there is what marks it in the source: its value, NaN, its alpha; else a mask band.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.operations import Clip, Copy
from lib.raster.block import Block
from lib.raster.operations.verbatim import Verbatim
from lib.raster.sources.dataset import RasterSource
from lib.raster.windows import Window


class Clipped(Verbatim):
    """Gives back what was read, without what lies outside."""

    def __init__(self, model: Clip, source: RasterSource, nodata: float | None) -> None:
        del model
        super().__init__(Copy(), source, nodata)
        outputs, self._outline, self._offset = self.outputs, source.outline, source.offset
        rules = source.validity
        in_use = rules.masks_by_alpha and not rules.alpha_hidden and rules.alpha in source.bands
        self._alpha = rules.alpha if in_use and not outputs.has_mask and outputs.nodata is None else None
        if self._outline is not None and not outputs.has_mask and self._alpha is None:
            if outputs.nodata is None and outputs.dtype.kind == "f":
                outputs = replace(outputs, nodata=math.nan)
            outputs = replace(outputs, has_mask=outputs.nodata is None, fills=outputs.nodata is not None)
        self.outputs = outputs

    def memory(self, pixels: int, bands: int) -> int:
        """What is burnt of the polygons, and where that is not."""
        del bands
        return 0 if self._outline is None else 2 * pixels

    def apply(self, block: Block, out: Block) -> Block:
        """The block itself; nothing is valid outside."""
        del out
        inside = self._outline.inside(self._on_file(block.window)) if self._outline is not None else None
        if inside is None:
            return block
        if block.all_valid:
            block.valid.fill(True)
            block.all_valid = False
        for band, valid in zip(block.bands, block.valid, strict=True):
            if band != self._alpha:  # which says so by its own pixels
                np.logical_and(valid, inside, out=valid)
        if not self.outputs.fills:
            outside = ~inside
            for pixels in block.pixels:
                np.copyto(pixels, 0, where=outside)
        return block

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Every polygon burnt anew."""
        if self._outline is None:
            return block.pixels, block.valid
        inside = self._outline.plainly(self._on_file(block.window))
        by_itself = np.array([band == self._alpha for band in block.bands])[:, None, None]
        return np.where(inside, block.pixels, block.pixels.dtype.type(0)), block.valid & (inside | by_itself)

    def _on_file(self, window: Window) -> Window:
        return window._replace(top=window.top + self._offset[0], left=window.left + self._offset[1])
