"""Which pixels are valid, as GDAL says: where its mask does and, in floating point, where a pixel is not NaN.

GDAL looks at the first that there is of a mask band, NODATA_VALUES, a nodata value, an alpha band. Where that is a nodata value,
the pixels that were read tell themselves; else the mask is read.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

# Of 64 bits rasterio reads nodata as a float, and writes it with 15 digits: -2**63 comes back as -9.
MOST_EXACT = 10**15


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
        by_value = [
            MaskFlags.nodata in each and MaskFlags.per_dataset not in each and _is_exact(value, dtype)
            for each, value, dtype in zip(flags, dataset.nodatavals, dataset.dtypes, strict=True)
        ]
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


def _is_exact(value: float | None, dtype: str) -> bool:
    """Whether a nodata value is the header's, as rasterio reads it."""
    return value is not None and (dtype not in {"int64", "uint64"} or abs(value) < MOST_EXACT)
