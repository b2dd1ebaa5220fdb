"""`copy`: pixels as they are, in their own dtype, with their nodata, mask and colour tables."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lib.errors import SourceError, UsageError
from lib.jobs import Copy
from lib.raster.block import Block
from lib.raster.operations.base import Linear, Operation, Outputs, fits
from lib.raster.sources.dataset import RasterSource
from lib.raster.validity import comparable


class Verbatim(Operation):
    """Gives back what was read; only a nodata value that the user asks for is filled in."""

    takes_alpha, needs_room = True, False

    def __init__(self, model: Copy, source: RasterSource, nodata: float | None) -> None:
        del model
        rules, dtype = source.validity, source.dtype
        if nodata is not None and not fits(nodata, dtype):
            raise UsageError(
                f"nodata {nodata:g} does not fit into {dtype}", hint="choose a value of the raster's own type"
            )
        declared = {rules.nodata[band - 1] for band in source.bands}
        masked = bool(rules.masked & set(source.bands))
        by_band_masks = masked and not rules.shared and len(source.bands) > 1
        if nodata is None and (len(declared) > 1 or by_band_masks):
            what = "a mask for each band" if by_band_masks else "different nodata values in its bands"
            raise SourceError(
                f"{source.path} has {what}, and a GeoTIFF holds one for all",
                hint="give one with --nodata, or write one band at a time with --bands",
                path=source.path,
            )
        kept = comparable(next(iter(declared)), dtype) if len(declared) == 1 else None
        self.outputs = Outputs(
            dtype=dtype,
            nodata=nodata if nodata is not None else None if kept is None else kept.item(),
            fills=nodata is not None,
            has_mask=nodata is None and _needs_mask(source, kept),
            keeps_colours=True,
            line=Linear(),
        )

    @classmethod
    def for_reading(cls, source: RasterSource) -> Self:
        """A copy of what nobody writes: nothing that a GeoTIFF cannot hold is asked."""
        made = cls.__new__(cls)
        made.outputs = Outputs(dtype=source.dtype, fills=False, keeps_colours=True, line=Linear())
        return made

    def apply(self, block: Block, out: Block) -> Block:
        """The block itself."""
        del out
        return block

    def reference(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The same again."""
        return pixels, valid


def _needs_mask(source: RasterSource, nodata: Any) -> bool:
    """Whether the output must say with a mask band what is valid: nothing else in it does, or an alpha band would say otherwise.

    GDAL lets alpha mask among 2 or 4 bands of 8 or 16 bits, where no nodata value is declared; a TIFF has it behind them.
    """
    rules, bands = source.validity, source.bands
    alpha_masks = rules.alpha == bands[-1] and len(bands) in {2, 4} and source.dtype.name in {"uint8", "uint16"}
    if rules.masks_by_alpha and rules.alpha in bands and not alpha_masks and len(bands) > 1:
        raise UsageError(
            f"{source.path}: an alpha band masks only as the last of 2 or 4 bands, not in {','.join(map(str, bands))}",
            hint="select such bands, or leave the alpha band out: a mask takes its place",
        )
    if rules.masks_by_alpha and alpha_masks:
        return False
    return bool(rules.masked & set(bands)) or (alpha_masks and nodata is None)
