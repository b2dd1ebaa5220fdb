"""Checks of a COG's overviews: their sizes, the order of a file's parts, and samples of each level made anew of the one above.

The plain path: NumPy's masked arrays over what rasterio reads of a level, without the engine's code.
"""

import itertools
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.memory.work import Bench
from lib.raster import windows
from lib.raster.formats import open_dataset
from lib.raster.windows import Window

_SEED = 20250102
_EDGE, _PLACES = 64, 3  # windows of a level that are made anew
_MOST_BANDS = 4
_TOLERANCE = {"float16": 1e-3, "float32": 5e-7, "float64": 2e-15}  # of the largest of the four


class Extent(NamedTuple):
    """Where the blocks of a level lie in its file: how many there are, how many are missing, first and last byte."""

    blocks: int
    missing: int
    start: int
    end: int


def extent(output: Any, bands: int, level: int | None = None) -> Extent:
    """Of an open GeoTIFF, or of one of its overviews, from 0."""
    shape, block = (output.height, output.width), output.block_shapes[0]
    if level is not None:
        with open_dataset(output.name, level) as overview:
            shape, block = overview.shape, overview.block_shapes[0]
    blocks = missing = end = 0
    start = -1
    for band in range(1, bands + 1):
        for y in range(windows.steps(shape[0], block[0])):
            for x in range(windows.steps(shape[1], block[1])):
                offset, size = (
                    int(output.get_tag_item(f"BLOCK_{what}_{x}_{y}", "TIFF", bidx=band, ovr=level) or 0)
                    for what in ("OFFSET", "SIZE")
                )
                blocks += 1
                missing += not (offset and size)
                end = max(end, offset + size)
                if offset:
                    start = offset if start < 0 else min(start, offset)
    return Extent(blocks, missing, start, end)


def structure(output: Any, expected: dict[str, Any], extents: list[Extent], bench: Bench) -> None:
    """Levels are as large as they must be; directories stand in front, and levels from the smallest to the raster itself."""
    found = []
    for level in range(len(output.overviews(1))):
        with open_dataset(output.name, level) as overview:
            found.append(list(overview.shape))
    wrong = [] if found == expected["overviews"] else [f"overviews of {found}, not {expected['overviews']}"]
    levels = [None, *range(len(found))]
    directories = [int(output.get_tag_item("IFD_OFFSET", "TIFF", bidx=1, ovr=level)) for level in levels]
    there = [each for each in extents if each.start >= 0]
    if directories != sorted(directories) or (there and directories[-1] > min(each.start for each in there)):
        wrong.append("directories do not stand in front of the tiles")
    if any(below.end > own.start for own, below in itertools.pairwise(there)):
        wrong.append("the tiles of a level stand behind those of a larger one")
    bench.check("overviews", not wrong, "; ".join(wrong) or f"{len(found)} levels, the smallest first")


def recomputed(output: Any, expected: dict[str, Any], bench: Bench) -> int:
    """Windows of each level made anew of the one above; how many."""
    count = 0
    for level in range(len(expected["overviews"])):
        with ExitStack() as stack:
            above = stack.enter_context(open_dataset(output.name, level - 1 if level else None))
            overview = stack.enter_context(open_dataset(output.name, level))
            for place in windows.sample(overview.shape, _EDGE, _PLACES, _SEED):
                count += 1
                for band in windows.evenly(overview.count, _MOST_BANDS):
                    if wrong := _differs(overview, above, band + 1, place, expected["overview_resampling"]):
                        bench.check("recomputed overviews", passed=False, detail=f"level {level + 1}, {place}: {wrong}")
                        return count
    bench.check("recomputed overviews", passed=True, detail=f"{count} windows of up to {_EDGE} x {_EDGE} pixels")
    return count


def _differs(overview: Any, above: Any, band: int, place: Window, method: str) -> str:
    double = Window(
        2 * place.top,
        2 * place.left,
        min(2 * place.height, above.height - 2 * place.top),
        min(2 * place.width, above.width - 2 * place.left),
    )
    found, source = _read(overview, band, place), _read(above, band, double)
    edge = [(0, length % 2) for length in source.shape]
    pixels = np.pad(source.data, edge)
    hidden = np.pad(np.ma.getmaskarray(source), edge, constant_values=True)
    corners = np.ma.array(
        [pixels[r::2, c::2] for r in (0, 1) for c in (0, 1)], mask=[hidden[r::2, c::2] for r in (0, 1) for c in (0, 1)]
    )
    hidden = np.ma.getmaskarray(corners)
    wanted_hidden = hidden[0] if method == "nearest" else hidden.all(axis=0)
    if (np.ma.getmaskarray(found) != wanted_hidden).any():
        return "valid pixels are not where those of the level above are"
    wrong = ~(_is_so(found.data, corners, method) | wanted_hidden | _is_beside_nodata(found, corners, overview.nodata))
    return f"{int(np.count_nonzero(wrong))} pixels are not the {method} of the level above" if wrong.any() else ""


def _read(dataset: Any, band: int, window: Window) -> Any:
    pixels, mask = dataset.read(band, window=window.ranges), dataset.read_masks(band, window=window.ranges)
    hidden = (mask == 0) | np.isnan(pixels) if pixels.dtype.kind == "f" else mask == 0
    return np.ma.array(pixels, mask=hidden)


def _is_so(found: Any, corners: Any, method: str) -> NDArray[np.bool_]:
    """Where pixels are what the method makes of the corners; an average within its rounding."""
    if method == "nearest":
        same = found == corners.data[0]
    elif method == "mode":
        alike = [((corners.data == each) & ~corners.mask).sum(axis=0) for each in (found, *corners.data)]
        same = alike[0] == np.max(alike, axis=0)
    else:
        with np.errstate(all="ignore"):
            mean = corners.mean(axis=0, dtype=np.float64).filled(0)
            largest = np.abs(corners.filled(0).astype(np.float64)).max(axis=0)  # whose digits a sum loses
            most = largest * _TOLERANCE.get(found.dtype.name, _TOLERANCE["float64"])
            if found.dtype.kind in "iu":  # rounded to a whole number
                most += 0.5
            same = (np.abs(found - mean) <= most) | (~np.isfinite(mean) & ~np.isfinite(found))
    return np.asarray(same, np.bool_)


def _is_beside_nodata(found: Any, corners: Any, nodata: float | None) -> NDArray[np.bool_]:
    """Where the average itself would have been read as nodata, and the pixel is next to it."""
    if nodata is None or np.isnan(nodata):
        return np.zeros(found.shape, np.bool_)
    mean = corners.mean(axis=0, dtype=np.float64).filled(nodata)
    step = 1 if found.dtype.kind in "iu" else abs(nodata) * 1e-5 + float(np.finfo(found.dtype).tiny)
    return np.asarray((np.abs(mean - nodata) <= step) & (np.abs(found.data - mean) <= 2 * step))
