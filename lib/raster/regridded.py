"""A warp held against GDAL's own `reproject`, with exact places for each pixel, by another way than the engine's.

The engine's places are off by up to a hundredth of a pixel, so that results are compared with those around them.
"""

from typing import Any

import numpy as np
import rasterio
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject

from lib.raster.sources.warped import Warped
from lib.raster.validity import is_nodata
from lib.raster.windows import Window

_WARP_MB = 64
# Of a window's pixels: those whose place lies so near an edge of the source's pixels that another one is picked.
_MOST_STRAYS = 0.05
_SLACK = 0.1  # of what pixels around differ by


def strays(source: Warped, band: int, window: Window, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> str:
    """How a window of a band is not what GDAL's reproject gives; "" where it is.

    Args:
        source: the warp.
        band: its number.
        window: on the output's grid.
        pixels: of it, `(height, width)`.
        valid: where they are.
    """
    anew, known = _anew(source, band, window)
    spread = sliding_window_view(anew.astype(np.float64), (3, 3))
    around = sliding_window_view(known, (3, 3))
    low = np.where(around, spread, np.inf).min(axis=(2, 3))
    high = np.where(around, spread, -np.inf).max(axis=(2, 3))
    sure, maybe = around.all(axis=(2, 3)), around.any(axis=(2, 3))
    if source.validity.masked:  # what a mask hides is not told apart here
        sure, maybe = sure & valid, maybe | valid
    amiss = (sure & ~valid) | (~maybe & valid)
    unit = 1.0 if pixels.dtype.kind in "iu" else float(np.finfo(pixels.dtype).eps) * 1e3
    with np.errstate(invalid="ignore"):
        slack = unit * np.maximum(1.0 if unit == 1 else np.maximum(abs(low), abs(high)), unit) + _SLACK * (high - low)
        off = sure & valid & ((pixels < low - slack) | (pixels > high + slack))
    if source.validity.masked:
        off = off & sliding_window_view(np.pad(valid, 4), (9, 9)).all(axis=(2, 3))
    wrong = np.count_nonzero(amiss | off)
    return f"{wrong} of {off.size} pixels are not what GDAL warps them to" if wrong > _MOST_STRAYS * off.size else ""


def _anew(source: Warped, band: int, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A window with one pixel around it, warped in one piece, and where it is known to be valid."""
    rules, dtype = source.validity, np.dtype(source.dataset.dtypes[band - 1])
    own = source.whole.nodatavals[band - 1]
    floating = dtype.kind == "f"
    value: float = np.nan if floating else (rules.nodata[band - 1] or 0)
    fill = {"src_nodata": own if own is not None else np.nan, "dst_nodata": np.nan} if floating else {}
    if not floating and own is not None and not rules.masked and source.chosen_nodata is None:
        fill = {"src_nodata": own, "dst_nodata": value}
    found = np.full((window.height + 2, window.width + 2), value, dtype)
    reproject(
        rasterio.band(source.whole, band),
        found,
        dst_transform=source.grid.transform @ rasterio.Affine.translation(window.left - 1, window.top - 1),
        dst_crs=source.grid.crs,
        resampling=Resampling[_NAMES.get(source.model.resampling, source.model.resampling)],
        tolerance=0,
        init_dest_nodata=bool(fill),
        warp_mem_limit=_WARP_MB,
        **dict(zip(("XSCALE", "YSCALE"), source.place.scale, strict=True)),
        **fill,
    )
    if rules.masked:
        return found, np.ones(found.shape, np.bool_)
    hidden = is_nodata(found, dtype.type(value), np.zeros(found.shape, np.bool_))
    return found, ~hidden


_NAMES = {"cubicspline": "cubic_spline"}
