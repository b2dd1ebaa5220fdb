"""Which pixels are valid, as GDAL says: where its mask does and, in floating point, where a pixel is not NaN.

GDAL looks at the first that there is of a mask band, NODATA_VALUES, a nodata value, an alpha band. Where that is a nodata value,
the pixels that were read tell themselves; else the mask is read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

from lib.raster import gdal


@dataclass(frozen=True, slots=True)
class Validity:
    """How nodata is told in one raster.

    Attributes:
        nodata: the value of each band by which GDAL masks it, None where it masks by something else or by nothing.
        declared: each band's nodata value, whether GDAL masks by it or not.
        dtypes: of each band, in which it is compared; pixels may be read as a wider one.
        masked: numbers of bands whose mask must be read.
        shared: that mask is one for all bands of the dataset.
        alpha: the alpha band's number, None where there is none.
        masks_by_alpha: GDAL's mask is that band.
        alpha_hidden: it is hidden where it is 0 itself, as a mask band will have it.
    """

    nodata: tuple[int | float | None, ...]
    declared: tuple[int | float | None, ...]
    dtypes: tuple[np.dtype[Any], ...]
    masked: frozenset[int] = frozenset()
    shared: bool = False
    alpha: int | None = None
    masks_by_alpha: bool = False
    alpha_hidden: bool = False

    @classmethod
    def of(cls, dataset: Any) -> "Validity":
        """The rules of an open rasterio dataset."""
        flags, values = dataset.mask_flag_enums, gdal.nodatavals(dataset)
        by_value = [
            MaskFlags.nodata in each and MaskFlags.per_dataset not in each and value is not None
            for each, value in zip(flags, values, strict=True)
        ]
        masked = [MaskFlags.all_valid not in each and not value for each, value in zip(flags, by_value, strict=True)]
        return cls(
            nodata=tuple(value if by else None for value, by in zip(values, by_value, strict=True)),
            declared=values,
            dtypes=tuple(np.dtype(each.removeprefix("complex_")) for each in dataset.dtypes),
            masked=frozenset(band for band, each in enumerate(masked, 1) if each),
            shared=any(MaskFlags.per_dataset in each for each in flags),
            alpha=next((band for band, each in enumerate(dataset.colorinterp, 1) if each == ColorInterp.alpha), None),
            masks_by_alpha=any(MaskFlags.alpha in each for each in flags),
        )

    def among(self, bands: Sequence[int], dtype: np.dtype[Any]) -> "Validity":
        """These rules for a selection in which alpha may stand where it masks nothing: a mask band must take its place.

        GDAL lets alpha mask as the last of 2 or 4 bands of 8 or 16 bits.
        """
        masks_there = self.alpha == bands[-1] and len(bands) in {2, 4} and dtype.name in {"uint8", "uint16"}
        if self.alpha is None or not self.masks_by_alpha or self.alpha not in bands or masks_there or len(bands) == 1:
            return self
        return replace(self, masked=self.masked.union([self.alpha]), alpha_hidden=True)

    @property
    def has_mask_band(self) -> bool:
        """A mask for all bands that is no band itself."""
        return self.shared and not self.masks_by_alpha

    def describe(self, floating: bool) -> list[str]:
        """The rules in words, for a plan's facts."""
        said = [f"nodata {in_words(value)}" for value in dict.fromkeys(self.nodata) if value is not None]
        if self.masked:
            said.append(f"alpha band {self.alpha}" if self.masks_by_alpha else "mask" if self.shared else "band masks")
        return said + ["NaN"] * floating

    def always(self, band: int, dtype: np.dtype[Any]) -> bool:
        """Whether no pixel of a band can be invalid."""
        own = self.dtypes[band - 1]
        return (
            band not in self.masked
            and "f" not in {own.kind, dtype.kind}
            and comparable(self.nodata[band - 1], own) is None
        )

    def by_value(self, band: int, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Set `valid` by a band's own pixels: not NaN, and not the nodata value."""
        own = self.dtypes[band - 1]
        nodata = comparable(self.nodata[band - 1], own)
        if own != pixels.dtype:
            pixels = pixels.astype(own)
        if nodata is None:
            np.logical_not(np.isnan(pixels, out=valid), out=valid) if pixels.dtype.kind == "f" else valid.fill(True)
            return
        is_nodata(pixels, nodata, valid)
        if pixels.dtype.kind == "f" and not math.isnan(nodata):
            np.logical_or(valid, np.isnan(pixels), out=valid)
        np.logical_not(valid, out=valid)


def is_nodata(pixels: NDArray[Any], nodata: Any, out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where GDAL takes pixels for a nodata value that their dtype can hold."""
    is_near(pixels, nodata, out)
    if pixels.dtype.kind == "f" and (ends := _overflowing(float(nodata), pixels.dtype)):
        np.logical_or(out, (pixels >= ends[0]) & (pixels <= ends[1]), out=out)
    return out


def is_near(pixels: NDArray[Any], nodata: Any, out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where pixels are a nodata value but for the last places."""
    if pixels.dtype.kind != "f":
        np.equal(pixels, nodata, out=out)
        return out
    if math.isnan(nodata):
        np.isnan(pixels, out=out)
        return out
    low, high = taken_for(float(nodata), pixels.dtype)
    if low == high:
        np.equal(pixels, nodata, out=out)
    else:
        np.greater_equal(pixels, low, out=out)
        np.logical_and(out, pixels <= high, out=out)
    return out


@lru_cache(maxsize=16)
def _overflowing(nodata: float, dtype: np.dtype[Any]) -> tuple[Any, Any] | None:
    """The lowest and the highest of the largest pixels, whose sum with the nodata value overflows: GDAL takes them for it."""
    value, wide = dtype.type(nodata), np.result_type(dtype, np.float32).type
    largest = np.copysign(np.finfo(dtype).max, value)
    with np.errstate(all="ignore"):
        if not math.isfinite(value) or math.isfinite(wide(largest) + wide(value)):
            return None
        bits = np.dtype(f"u{dtype.itemsize}")
        near, far = int(largest.view(bits)), int(value.view(bits))
        while near - far > 1:
            middle = (near + far) // 2
            if math.isfinite(wide(bits.type(middle).view(dtype.type)) + wide(value)):
                far = middle
            else:
                near = middle
    first, last = sorted((bits.type(near).view(dtype.type), largest))
    low, high = taken_for(nodata, dtype)
    return None if low <= first and last <= high else (first, last)


@lru_cache(maxsize=16)
def taken_for(nodata: float, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The lowest and the highest floating-point pixel that GDAL takes for a nodata value (gdal_priv.h, ARE_REAL_EQUAL).

    That is some units in float32's last place; beside the largest numbers, where its sum overflows, nearly all that are large.
    """
    value = dtype.type(nodata)
    if not math.isfinite(value):
        return value, value
    low, high = sorted(_farthest(value, np.copysign(dtype.type(end), value)) for end in (0, np.inf))
    return low, high


def _farthest(value: Any, end: Any) -> Any:
    """The pixel between two of the same sign that is farthest from the first and taken for it, by halving their bits."""
    bits = np.dtype(f"u{value.dtype.itemsize}")
    wide = np.result_type(value.dtype, np.float32).type  # in which GDAL computes
    near, far = int(value.view(bits)), int(end.view(bits))
    with np.errstate(all="ignore"):
        while abs(near - far) > 1:
            middle = (near + far) // 2
            pixel, same = wide(bits.type(middle).view(value.dtype)), wide(value)
            if abs(pixel - same) < wide(np.finfo(np.float32).eps) * abs(pixel + same) * wide(2):
                near = middle
            else:
                far = middle
    return bits.type(near).view(value.dtype)


def comparable(value: float | None, dtype: np.dtype[Any]) -> Any:
    """A declared nodata value as a scalar that pixels of `dtype` can equal; None where no pixel can."""
    if value is None:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            found, wider = dtype.type(value), np.float32(value)
        # GDAL compares 16 bits as 32: what they do not hold, no pixel is.
        return None if dtype.itemsize == 2 and found != wider and not math.isnan(value) else found  # noqa: PLR2004
    limits = np.iinfo(dtype)
    if not math.isfinite(value) or not limits.min <= value <= limits.max:
        return None
    return dtype.type(int(value))  # GDAL cuts off what stands behind the point


def in_words(value: float) -> str:
    """A nodata value for people: an integer with all its digits."""
    return str(value) if isinstance(value, int) else f"{value:g}"
