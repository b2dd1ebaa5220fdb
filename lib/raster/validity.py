"""Which pixels are valid, as GDAL says: where its mask does and, in floating point, where a pixel is not NaN.

GDAL looks at the first that there is of a mask band, NODATA_VALUES, a nodata value, an alpha band. Where that is a nodata value,
the pixels that were read tell themselves; else the mask is read.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

__all__ = ["Validity", "comparable", "is_nodata"]

# GDAL takes a floating-point pixel for nodata within this share of the nodata value (gdal_priv.h, ARE_REAL_EQUAL).
_SAME = 4 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Validity:
    """How nodata is told in one raster.

    Attributes:
        nodata: the value of each band by which GDAL masks it, None where it masks by something else or by nothing.
        masked: numbers of bands whose mask must be read.
        shared: that mask is one for all bands of the dataset.
        alpha: the alpha band's number, None where there is none.
        masks_by_alpha: GDAL's mask is that band.
    """

    nodata: tuple[float | None, ...]
    masked: frozenset[int] = frozenset()
    shared: bool = False
    alpha: int | None = None
    masks_by_alpha: bool = False

    @classmethod
    def of(cls, dataset: Any) -> "Validity":
        """The rules of an open rasterio dataset."""
        flags = dataset.mask_flag_enums
        by_value = [MaskFlags.nodata in each and MaskFlags.per_dataset not in each for each in flags]
        masked = [MaskFlags.all_valid not in each and not value for each, value in zip(flags, by_value, strict=True)]
        return cls(
            nodata=tuple(value if by else None for value, by in zip(dataset.nodatavals, by_value, strict=True)),
            masked=frozenset(band for band, each in enumerate(masked, 1) if each),
            shared=any(MaskFlags.per_dataset in each for each in flags),
            alpha=next((band for band, each in enumerate(dataset.colorinterp, 1) if each == ColorInterp.alpha), None),
            masks_by_alpha=any(MaskFlags.alpha in each for each in flags),
        )

    @property
    def has_mask_band(self) -> bool:
        """A mask for all bands that is no band itself."""
        return self.shared and not self.masks_by_alpha

    def describe(self, floating: bool) -> list[str]:
        """The rules in words, for a plan's facts."""
        said = [f"nodata {value:g}" for value in dict.fromkeys(self.nodata) if value is not None]
        if self.masked:
            said.append(f"alpha band {self.alpha}" if self.masks_by_alpha else "mask" if self.shared else "band masks")
        return said + ["NaN"] * floating

    def always(self, band: int, dtype: np.dtype[Any]) -> bool:
        """Whether no pixel of a band can be invalid."""
        return band not in self.masked and dtype.kind != "f" and comparable(self.nodata[band - 1], dtype) is None

    def by_value(self, band: int, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Set `valid` by a band's own pixels: not NaN, and not the nodata value."""
        nodata = comparable(self.nodata[band - 1], pixels.dtype)
        if nodata is None:
            np.logical_not(np.isnan(pixels, out=valid), out=valid) if pixels.dtype.kind == "f" else valid.fill(True)
            return
        is_nodata(pixels, nodata, valid)
        if pixels.dtype.kind == "f" and not math.isnan(nodata):
            np.logical_or(valid, np.isnan(pixels), out=valid)
        np.logical_not(valid, out=valid)


def is_nodata(pixels: NDArray[Any], nodata: Any, out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where GDAL takes pixels for a nodata value that their dtype can hold."""
    if pixels.dtype.kind != "f":
        return np.equal(pixels, nodata, out=out)
    if math.isnan(nodata):
        return np.isnan(pixels, out=out)
    near = abs(float(nodata)) * _SAME
    low, high = pixels.dtype.type(float(nodata) - near), pixels.dtype.type(float(nodata) + near)
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        return np.equal(pixels, nodata, out=out)
    np.greater(pixels, low, out=out)
    return np.logical_and(out, pixels < high, out=out)


def comparable(value: float | None, dtype: np.dtype[Any]) -> Any:
    """A declared nodata value as a scalar that pixels of `dtype` can equal; None where no pixel can."""
    if value is None:
        return None
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        # Text in a header rounds the largest float32 upwards: 3.40282347e+38 is meant to be it.
        if math.isfinite(value) and largest < abs(value) <= largest * (1 + 1e-5):
            value = math.copysign(largest, value)
        with np.errstate(over="ignore"):
            return dtype.type(value)
    limits = np.iinfo(dtype)
    if not math.isfinite(value) or value != int(value) or not limits.min <= int(value) <= limits.max:
        return None
    return dtype.type(int(value))
