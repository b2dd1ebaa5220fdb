"""Which pixels are nodata, by every way a raster can say so: declared value, NaN, a mask band, `.msk`, alpha.

A pixel is valid only where all of them say so. (GDAL itself looks at the first that it finds and at no other: a raster with a
nodata value and an alpha band is masked by the value alone.) Windows are read into buffers that the caller owns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

from lib.raster.faults import read
from lib.raster.windows import Window

__all__ = ["MaskBuffers", "MaskRules", "comparable"]

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MaskRules:
    """How nodata is told in one raster.

    Attributes:
        nodata: the declared value of each band, None where there is none.
        floating: whether pixels may be NaN.
        alpha: the alpha band's number, None where there is none.
        shared: a mask for all bands is there: an internal one, a `.msk` file, or NODATA_VALUES.
        own: numbers of bands that have a mask of their own.
    """

    nodata: tuple[float | None, ...]
    floating: bool
    alpha: int | None = None
    shared: bool = False
    own: frozenset[int] = frozenset()

    @classmethod
    def of(cls, dataset: Any) -> "MaskRules":
        """The rules of an open rasterio dataset."""
        flags = dataset.mask_flag_enums
        interpretations = dataset.colorinterp
        alpha = next((i for i, c in enumerate(interpretations, 1) if c == ColorInterp.alpha), None)
        return cls(
            nodata=dataset.nodatavals,
            floating=any(np.dtype(name).kind == "f" for name in dataset.dtypes),
            alpha=alpha,
            shared=any(MaskFlags.per_dataset in each and MaskFlags.alpha not in each for each in flags),
            own=frozenset(i for i, each in enumerate(flags, 1) if not each),
        )

    @property
    def has_mask(self) -> bool:
        """True where some mask, alpha included, must be read beside the pixels."""
        return self.shared or self.alpha is not None or bool(self.own)

    def maskless(self, bands: Sequence[int]) -> bool:
        """True where no pixel of these bands can be nodata, so that no mask need be looked at."""
        return not (self.has_mask or self.floating or any(self.nodata[band - 1] is not None for band in bands))

    def describe(self) -> list[str]:
        """The rules in words, for a plan's facts."""
        said = [f"nodata {value:g}" for value in dict.fromkeys(self.nodata) if value is not None]
        said += ["mask"] * self.shared + ["band masks"] * bool(self.own)
        said += [f"alpha band {self.alpha}"] * (self.alpha is not None) + ["NaN"] * self.floating
        return said


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


class MaskBuffers:
    """Boolean and mask buffers for windows of at most `pixels` pixels, and what fills them.

    Args:
        rules: how nodata is told.
        pixels: pixels of the largest window.
        dtype: of the pixels as they are read.
    """

    def __init__(self, rules: MaskRules, pixels: int, dtype: np.dtype[Any]) -> None:
        self.rules = rules
        self._dtype = dtype
        self._shared = np.zeros(pixels if rules.shared or rules.alpha else 0, np.bool_)
        self._invalid = np.zeros(pixels, np.bool_)
        self._scratch = np.zeros(pixels, np.bool_)
        self._mask = np.zeros(pixels if rules.shared or rules.own else 0, np.uint8)
        self._alpha = np.zeros(pixels if rules.alpha else 0, dtype)

    @staticmethod
    def bytes(rules: MaskRules, pixels: int, itemsize: int) -> int:
        """Size of the buffers, bytes; none where no pixel can be nodata."""
        if rules.maskless(range(1, len(rules.nodata) + 1)):
            return 2 * pixels
        shared = bool(rules.shared or rules.alpha)
        masks = bool(rules.shared or rules.own)
        return pixels * (2 + shared + masks + (itemsize if rules.alpha else 0))

    def read_shared(self, dataset: Any, path: str, window: Window, alpha: NDArray[Any] | None = None) -> None:
        """Read what masks all bands of a window: mask band and alpha, unless alpha's pixels were read already."""
        if not len(self._shared):
            return
        shared = self._shared[: window.pixels]
        shared.fill(False)
        if self.rules.shared:
            # Any band that has the mask gives it; GDAL keeps one for all.
            self._or_mask(dataset, path, window, self._first_masked(dataset), shared)
        if self.rules.alpha:
            if alpha is None:
                alpha = self._alpha[: window.pixels]
                into = alpha.reshape(window.height, window.width)
                read(partial(dataset.read, self.rules.alpha, out=into, window=window.ranges), path, window)
            scratch = np.equal(alpha, 0, out=self._scratch[: window.pixels])
            np.logical_or(shared, scratch, out=shared)

    def invalid(self, dataset: Any, path: str, window: Window, band: int, raw: NDArray[Any]) -> BoolArray | None:
        """Where a band's pixels are nodata.

        Args:
            dataset: the open source, for a band's own mask.
            path: its name, for errors.
            window: where `raw` lies.
            band: the band's number.
            raw: `(pixels,)`, the band's pixels as they were read.

        Returns:
            `(pixels,)` bool, a buffer that the next call overwrites; None where none can be nodata.
        """
        if self.rules.maskless([band]):
            return None
        invalid, scratch = self._invalid[: window.pixels], self._scratch[: window.pixels]
        if len(self._shared):
            np.copyto(invalid, self._shared[: window.pixels])
        else:
            invalid.fill(False)
        if raw.dtype.kind == "f":
            np.logical_or(invalid, np.isnan(raw, out=scratch), out=invalid)
        nodata = comparable(self.rules.nodata[band - 1], raw.dtype)
        if nodata is not None:
            np.logical_or(invalid, np.equal(raw, nodata, out=scratch), out=invalid)
        if band in self.rules.own:
            self._or_mask(dataset, path, window, band, invalid)
        return invalid

    def _or_mask(self, dataset: Any, path: str, window: Window, band: int, into: BoolArray) -> None:
        mask = self._mask[: window.pixels]
        out = mask.reshape(window.height, window.width)
        read(partial(dataset.read_masks, band, out=out, window=window.ranges), path, window)
        np.logical_or(into, np.equal(mask, 0, out=self._scratch[: window.pixels]), out=into)

    def touch(self) -> None:
        """Write to every page, so that the baseline has them."""
        for buffer in (self._shared, self._invalid, self._scratch, self._mask, self._alpha):
            buffer.fill(0)

    @property
    def scratch(self) -> BoolArray:
        """`(pixels,)` bool that nothing relies on between calls."""
        return self._scratch

    @staticmethod
    def _first_masked(dataset: Any) -> int:
        flags = dataset.mask_flag_enums
        return next(
            i for i, each in enumerate(flags, 1) if MaskFlags.per_dataset in each and MaskFlags.alpha not in each
        )
