"""`copy`: pixels as they are, in their own dtype, with their nodata, mask and colour tables."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lib.errors import SourceError, UsageError
from lib.operations import Copy
from lib.raster.block import Block
from lib.raster.operations.base import Linear, Operation, Outputs, fits
from lib.raster.sources.dataset import RasterSource
from lib.raster.validity import comparable, in_words


class Verbatim(Operation):
    """Gives back what was read; only a nodata value that the user asks for is filled in."""

    takes_alpha, needs_room = True, False

    def __init__(self, model: Copy, source: RasterSource, nodata: float | None) -> None:
        del model
        rules, dtype = source.validity, source.dtype
        if nodata is not None and not fits(nodata, dtype):
            raise UsageError(
                f"nodata {in_words(nodata)} does not fit into {dtype}", hint="choose a value of the raster's own type"
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
        kept = _kept(next(iter(declared)), source) if len(declared) == 1 else None
        has_mask = nodata is None and _needs_mask(source, kept)
        beside = {rules.declared[band - 1] for band in source.bands}
        value = nodata if nodata is not None else kept
        self.takes_alpha = nodata is None  # what is filled in is not opacity
        if value is None and has_mask and len(beside) == 1:  # GDAL masks by the mask band, and shows the value as well
            value = _kept(next(iter(beside)), source)
        self.outputs = Outputs(
            dtype=dtype,
            nodata=int(value) if value is not None and dtype.kind != "f" else value,
            # Pixels of a narrower type may be taken for nodata in a wider one.
            fills=nodata is not None or (source.is_mixed and kept is not None),
            has_mask=has_mask,
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

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The same again."""
        return block.pixels, block.valid


def _kept(declared: float | None, source: RasterSource) -> int | float | None:
    """The nodata value that all bands declare, as it marks pixels of the output; None where it can mark none."""
    value = next((found for name in source.dtypes if (found := comparable(declared, np.dtype(name))) is not None), None)
    if value is None:
        return None
    kept: int | float = comparable(value.item(), source.dtype).item()
    return kept


def _needs_mask(source: RasterSource, nodata: Any) -> bool:
    """Whether the output must say with a mask band what is valid: nothing else in it does, or an alpha band would say otherwise.

    GDAL lets alpha mask among 2 or 4 bands of 8 or 16 bits, where no nodata value is declared; a TIFF has it behind them.
    """
    rules, bands = source.validity, source.bands
    alpha_masks = rules.alpha == bands[-1] and len(bands) in {2, 4} and source.dtype.name in {"uint8", "uint16"}
    if rules.masks_by_alpha and alpha_masks:
        return False
    return bool(rules.masked & set(bands)) or (alpha_masks and nodata is None)
