"""Checks of a picture against the GeoTIFF that it was copied from: its place, its pixels, what is valid, and what it lost.

A PNG holds each pixel as it is. A JPEG changes all of them, and pixels of noise by any amount; what it keeps is the mean of its
blocks: the mean of a band may differ by what a block's own is rounded to, and by half the root mean square of all differences,
where values are cut off at 0 and 255.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from lib.jobs import RasterJob
from lib.memory.work import Bench
from lib.raster import gdal, tags
from lib.raster.faults import read
from lib.raster.formats import open_source
from lib.raster.grid import Grid
from lib.raster.sinks.picture import COMPARED_PIXELS, JPEG_QUALITY, Picture
from lib.raster.windows import Window, windows

_PEAK = 255.0
# Of the mean of 8 x 8 pixels, in steps of the quantisation of JPEG's first coefficient (T.81, K.1): half a step is a sixteenth of
# it, and once more for both chroma; and as much for rounding.
_FIRST_STEP, _SHARE, _ROUNDING = 17, 0.175, 3.0
_HALF_QUALITY = 50


def check(picture: Picture, job: RasterJob, bench: Bench) -> list[str]:
    """Hold a picture against its GeoTIFF; what it does not keep, in words."""
    with open_source(str(picture.tiles)) as tiles, open_source(str(picture.path)) as copied:
        wrong = _misplaced(tiles, copied)
        bench.check("picture", not wrong, wrong or f"{copied.width} x {copied.height}, {copied.count} bands")
        said = [f"a {picture.driver} does not keep its {each}" for each in _lost(tiles, copied, picture)]
        if wrong or job.verify == "none":
            return said
        found = _Comparison(picture, tiles, copied)
        found.all()
        problem, detail = found.by_quality(job) if picture.driver == "JPEG" else found.exact()
        bench.check("pixels of the picture", not problem, problem or detail)
    if found.partly:
        said.append(
            f"{found.partly:,} pixels are valid in some bands only: a {picture.driver} has them hidden in all of them"
        )
    if picture.driver == "JPEG" and picture.invalid:
        said.append("a JPEG has no nodata: GDAL reads the mask behind it, and other programs show what is below")
    return said


def _misplaced(tiles: Any, copied: Any) -> str:
    one, other = Grid.of(tiles), Grid.of(copied)
    if one.shape != other.shape:
        return f"{other.shape} pixels, not {one.shape}"
    if (one.crs or None) != (other.crs or None) and (
        not one.crs or not other.crs or one.crs.to_wkt() != other.crs.to_wkt()
    ):
        return "its CRS did not reach its sidecar"
    if (one.transform is None) != (other.transform is None):
        return "its transform did not reach its sidecar"
    if one.transform is not None and not np.allclose(list(one.transform), list(other.transform), rtol=1e-12, atol=0):
        return f"the transform is {list(other.transform)[:6]}, not {list(one.transform)[:6]}"
    if len(one.points) != len(other.points):
        return f"{len(other.points)} ground control points, not {len(one.points)}"
    return ""


def _lost(tiles: Any, copied: Any, picture: Picture) -> list[str]:
    """What the GeoTIFF says and the picture does not, in words."""
    count, found = tiles.count, []
    texts = {
        domain or "tags"
        for band in range(count + 1)
        for domain in [None, *tags.domains(tiles, band)]
        if set(gdal.texts(tiles, band, domain)) - set(gdal.texts(copied, band, domain))
    }
    found += [f"{name} texts" if name != "tags" else name for name in sorted(texts)]
    if bool(tiles.rpcs) and not copied.rpcs:
        found.append("RPCs")
    for name in ("descriptions", "scales", "offsets", "units"):
        if getattr(tiles, name) != getattr(copied, name)[:count]:
            found.append(name)
    if tiles.colorinterp[0] == ColorInterp.palette and not _same_colours(tiles, copied):
        found.append("colour table")
    for number in range(1, count + 1):
        if gdal.category_names(tiles, number) != gdal.category_names(copied, number):
            found.append("names of classes")
        if gdal.attribute_rows(tiles, number) != gdal.attribute_rows(copied, number):
            found.append("attribute table")
    if picture.driver == "JPEG" and tiles.nodata is not None and not picture.invalid:
        found.append(f"nodata value {tiles.nodata:g}, which no pixel has")
    return list(dict.fromkeys(found))


def _same_colours(tiles: Any, copied: Any) -> bool:
    """Whether entries that there are have the same colours; the nodata value's own is transparent in a PNG."""
    if copied.colorinterp[0] != ColorInterp.palette:
        return False
    one, other = tiles.colormap(1), copied.colormap(1)
    return all(other.get(index, (0, 0, 0))[:3] == colour[:3] for index, colour in one.items() if any(colour[:3]))


@dataclass(slots=True)
class _Comparison:
    """All pixels of a picture and of its GeoTIFF, some lines at a time.

    Attributes:
        different: values that are not the same.
        masked: pixels that are valid in one and not in the other.
        partly: pixels that are valid in some bands only, where a picture has one mask for all.
        sums: of differences and of their squares, a band each.
    """

    picture: Picture
    tiles: Any
    copied: Any
    different: int = 0
    masked: int = 0
    partly: int = 0
    sums: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is summed yet."""
        self.sums = np.zeros((2, self.tiles.count))

    def all(self) -> None:
        """Go through all lines."""
        height, width = self.tiles.shape
        for window in windows((height, width), (max(1, COMPARED_PIXELS // width), width)):
            self._validity(window)
            for band in range(1, self.tiles.count + 1):
                self._band(window, band)

    def _band(self, window: Window, band: int) -> None:
        wanted, found = (_read(each, window, band) for each in (self.tiles, self.copied))
        if self.picture.driver == "JPEG":
            difference = found.astype(np.float64) - wanted
            self.sums[:, band - 1] += difference.sum(), np.square(difference, out=difference).sum()
        elif not (self.tiles.colorinterp[band - 1] == ColorInterp.alpha and self.picture.invalid):
            self.different += int(np.count_nonzero(found != wanted))

    def _validity(self, window: Window) -> None:
        bands = [each for each in self.tiles.indexes if self.tiles.colorinterp[each - 1] != ColorInterp.alpha]
        wanted = [_mask(self.tiles, window, each) for each in bands]
        every = np.logical_and.reduce(wanted)
        if self.picture.invalid:
            self.partly += int(np.count_nonzero(np.logical_or.reduce(wanted) & ~every))
        if self.picture.driver == "JPEG":
            self.masked += int(np.count_nonzero(_mask(self.copied, window, 1) != every))
            return
        if self.copied.nodata is None and self.copied.colorinterp[-1] == ColorInterp.alpha:
            has_alpha = self.tiles.colorinterp[-1] == ColorInterp.alpha
            opaque = _read(self.tiles, window, self.tiles.count) != 0 if has_alpha else True
            wanted = [every & opaque] * len(bands)
        for each, good in zip(bands, wanted, strict=True):
            self.masked += int(np.count_nonzero(_mask(self.copied, window, each) != good))

    def exact(self) -> tuple[str, str]:
        """The problem of a PNG, and the detail where there is none."""
        if self.different or self.masked:
            return (
                f"{self.different} values and the validity of {self.masked} pixels are not those that were written",
                "",
            )
        return "", "each as it was computed"

    def by_quality(self, job: RasterJob) -> tuple[str, str]:
        """The problem of a JPEG, and what its loss is."""
        chosen = dict(each.split("=", 1) for each in job.creation_options).get("QUALITY", JPEG_QUALITY)
        pixels, most = self.tiles.width * self.tiles.height, _first_step(int(chosen)) * _SHARE + _ROUNDING
        means, squares = self.sums / pixels
        square = float(squares.mean())
        detail = f"PSNR {10 * math.log10(_PEAK**2 / square):.1f} dB" if square else "each as it was computed"
        if self.masked:
            return f"the validity of {self.masked} pixels is not what was written", ""
        worst = float(np.max(np.abs(means) - np.sqrt(squares) / 2))
        return (f"the mean of a band is off by more than {most:.1f}: {detail}" if worst > most else ""), detail


def _first_step(quality: int) -> int:
    """How JPEG's first coefficient is rounded, by libjpeg's scale of qualities."""
    percent = 5000 // quality if quality < _HALF_QUALITY else 200 - 2 * quality
    return min(255, max(1, (_FIRST_STEP * percent + _HALF_QUALITY) // 100))


def _read(dataset: Any, window: Window, band: int) -> NDArray[Any]:
    found: NDArray[Any] = read(lambda: dataset.read(band, window=window.ranges), dataset.name, window)
    return found


def _mask(dataset: Any, window: Window, band: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = read(lambda: dataset.read_masks(band, window=window.ranges), dataset.name, window) != 0
    return found
