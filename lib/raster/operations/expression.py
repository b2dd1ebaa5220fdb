"""`expression`: arithmetic over the bands of one or several aligned rasters; each expression is a band of the output."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.operations import Expression
from lib.raster import expression
from lib.raster.block import Block
from lib.raster.expression import Node
from lib.raster.operations.base import Operation, Outputs, check_nodata
from lib.raster.operations.linear import EXACT_IN_FLOAT32
from lib.raster.sources.dataset import RasterSource

# As in linear.py: a piece of each band that is named, and of what stands between.
_PIECE = 64 * 1024


class Computed(Operation):
    """Evaluates trees on pieces; a pixel is valid where all bands that its tree names are, and where the result is finite.

    Arithmetic is in float32 where that holds every pixel of all sources exactly and nothing wider is written, else in float64.
    """

    wants_all_bands = takes_alpha = True

    def __init__(self, model: Expression, source: RasterSource, nodata: float | None) -> None:
        self._trees = expression.parse(model.expr)
        self._bands = expression.named(self._trees)
        narrow = all(name in EXACT_IN_FLOAT32 for name in source.dtypes) and not source.has_wide_results
        self._dtype = np.dtype(np.float32 if narrow else np.float64)
        texts = tuple(each.strip() for each in model.expr.split(";"))
        value = check_nodata(float("nan") if nodata is None else nodata, self._dtype)
        self.outputs = Outputs(dtype=self._dtype, nodata=value, new_bands=texts)

    def memory(self, pixels: int, bands: int) -> int:
        """A piece of every band, and of what each part of the largest tree makes."""
        parts = max(map(_parts, self._trees))
        return min(_PIECE, pixels) * (bands + parts) * self._dtype.itemsize

    def apply(self, block: Block, out: Block) -> Block:
        """Compute each tree."""
        raw = block.pixels.reshape(len(block.pixels), -1)
        results = out.pixels.reshape(len(out.pixels), -1)
        valid = out.valid.reshape(len(out.valid), -1)
        with np.errstate(all="ignore"):
            for start in range(0, raw.shape[1], _PIECE):
                piece = slice(start, start + _PIECE)
                of = {band: values.astype(self._dtype) for band, values in zip(self._bands, raw[:, piece], strict=True)}
                for tree, result, good in zip(self._trees, results[:, piece], valid[:, piece], strict=True):
                    np.copyto(result, tree(of, self._dtype.type))
                    np.isfinite(result, out=good)
        if not block.all_valid:
            for tree, good in zip(self._trees, out.valid, strict=True):
                for band in tree.bands():
                    np.logical_and(good, block.valid[self._bands.index(band)], out=good)
        out.all_valid = False
        return out

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Each tree for a whole window at once."""
        of = {band: plane.astype(self._dtype) for band, plane in zip(self._bands, block.pixels, strict=True)}
        with np.errstate(all="ignore"):
            shape = block.pixels.shape[1:]
            results = np.stack([np.broadcast_to(tree(of, self._dtype.type), shape) for tree in self._trees])
        good = np.stack(
            [np.all([block.valid[self._bands.index(band)] for band in tree.bands()], axis=0) for tree in self._trees]
        )
        return results, good & np.isfinite(results)


def _parts(tree: Node) -> int:
    return 1 + sum(map(_parts, tree.parts))
