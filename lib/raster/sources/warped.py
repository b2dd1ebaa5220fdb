"""A raster on another grid: GDAL's warper between the file and the windows that are read, each reader with a VRT of its own.

What a pixel becomes must not depend on the windows that memory allows. GDAL interpolates a row's places between exact ones, so
that they depend on where its pieces of a row begin: pieces have fixed columns here. And how far its kernels reach follows from
the shape of a piece, unless it is told (XSCALE, YSCALE): it is told the scale at the middle.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from lib.errors import SourceError, UsageError
from lib.operations import Warp
from lib.raster import virtual
from lib.raster.block import Block
from lib.raster.faults import read
from lib.raster.grid import Grid
from lib.raster.operations.cast import nodata_for
from lib.raster.sources.dataset import Ranges, RasterSource, Reader
from lib.raster.validity import Validity, comparable, in_words
from lib.raster.windows import Window

# Pixels of a source that a place may be off: gdalwarp allows 0.125, which is hardly faster (MEASURED.md, "Warps").
_TOLERANCE = 0.01
_MOST_STEP, _LEAST_STEP, _MOST_ROWS = 512, 16, 1024
_WARP_MB = 64
# From here on GDAL takes a scale for none (gdalwarpkernel.cpp).
_NO_SCALE = 0.95
_SAMPLES = 33  # a side, of places that are looked at
_COPIES = 2.6  # of a piece: pixels, validity and densities beside them, what is read of it
_NAMES = {"nearest": "near"}


@dataclass(frozen=True, slots=True)
class Place:
    """How an output's grid lies over its source, about the middle.

    Attributes:
        jacobian: `(2, 2)`: source columns and rows for a step of an output's column and row.
        windows: of one pixel, where a pixel of the output is most of the source's.
    """

    jacobian: NDArray[np.float64]
    heaviest: tuple[Window, ...]

    @property
    def scale(self) -> tuple[float, float]:
        """Output pixels for one of the source, along its columns and rows; 1 where it is not reduced."""
        across, down = (1 / max(float(np.hypot(*each)), 1e-9) for each in self.jacobian)
        return tuple(1.0 if each >= _NO_SCALE else each for each in (across, down))  # type: ignore[return-value]

    @property
    def step(self) -> tuple[int, int]:
        """Columns and rows of a piece, which are as many more of the source as that is reduced."""
        across, down = self.jacobian[0], self.jacobian[1]
        for_column, for_row = max(1.0, abs(across[0]), abs(down[0])), max(1.0, abs(across[1]), abs(down[1]))
        columns = 2 ** round(math.log2(max(_LEAST_STEP, _MOST_STEP / for_column)))
        return columns, max(_LEAST_STEP, int(_MOST_ROWS / for_row))

    def footprint(self, window: tuple[int, int]) -> tuple[int, int]:
        """Height and width in the source's pixels of a window of `(height, width)`."""
        height, width = window
        across, down = np.abs(self.jacobian)
        return math.ceil(width * down[0] + height * down[1]) + 8, math.ceil(width * across[0] + height * across[1]) + 8


@dataclass(slots=True, kw_only=True)
class Warped(RasterSource):
    """An open raster on another grid; `dataset` is the file's, of which all but the grid and pixels is taken.

    Attributes:
        of: what is warped, open.
        name: of the VRT, in memory.
        numbers: the VRT's of each band of the file's that it has.
        handle: open on it.
        model: the warp.
        place: how the grids lie.
        chosen_nodata: the value that marks what is beyond the source, where that declares none and one had to be chosen.
        mask_number: of the VRT's band that masks the others, None where there is none.
    """

    of: RasterSource
    name: str
    numbers: dict[int, int]
    handle: Any
    model: Warp
    place: Place
    chosen_nodata: int | None = None
    mask_number: int | None = None

    @property
    def is_aligned(self) -> bool:
        """Windows are no whole blocks of the file."""
        return False

    @property
    def is_regridded(self) -> bool:
        """They are."""
        return True

    @property
    def rpcs(self) -> None:
        """They are used up."""

    @property
    def files(self) -> tuple[str, ...]:
        """Those of what is warped."""
        return self.of.files

    @property
    def whole(self) -> Any:
        """What is warped."""
        return self.of.whole

    @property
    def file_block(self) -> tuple[int, int]:
        """That of what is warped."""
        return self.of.file_block

    def is_untrue(self, band: int, key: str) -> bool:
        """As of what is warped."""
        return self.of.is_untrue(band, key)

    def footprint(self, window: tuple[int, int]) -> tuple[int, int]:
        """See `Place.footprint`."""
        return self.place.footprint(window)

    @property
    def piece_bytes(self) -> int:
        """Of a piece of all bands, in the warper's hands and in ours."""
        columns, rows = self.place.step
        high, wide = self.place.footprint((min(rows, self.grid.shape[0]), min(columns, self.grid.shape[1])))
        return int(_COPIES * (high * wide + rows * columns) * self.itemsize * len(self.numbers))

    def heaviest(self) -> list[Window]:
        """Where a pixel is most of the source's, and the middle."""
        return list(self.place.heaviest)

    def readers(self, count: int) -> list[Reader]:
        """Readers, each with a VRT of its own."""
        while len(self._others) < count - 1:
            self._others.append(rasterio.open(self.name))
        return [_WarpReader(self, handle) for handle in [self.handle, *self._others[: count - 1]]]

    def read_plainly(self, band: int, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A window of a band and where it is valid, by a VRT opened anew."""
        with rasterio.open(self.name) as handle:
            shape = (1, *window[2:])
            block = Block(window, (band,), np.zeros(shape, self.dtype), np.zeros(shape, np.bool_))
            _WarpReader(self, handle).read(window, (band,), 0, block)
        return block.pixels[0], np.ones(window[2:], np.bool_) if block.all_valid else block.valid[0]

    def close(self) -> None:
        """Close all handles."""
        self.close_others()
        self.handle.close()
        self.of.close()
        virtual.forget(self.name)

    def remarks(self) -> list[str]:
        """What else there is to be said of the output."""
        if self.chosen_nodata is None:
            return self.of.remarks()
        value = in_words(self.chosen_nodata)
        return [
            *self.of.remarks(),
            f"{self.path} declares no nodata value: pixels beyond it are {value}, and its own of that value the one beside it",
        ]


class _WarpReader(Reader):
    """Reads in pieces of fixed columns."""

    def _read_pixels(self, window: Window, inside: Ranges, bands: tuple[int, ...], pixels: Any) -> None:
        source: Any = self._source
        numbers = [source.numbers[band] for band in bands]
        by_mask = source.mask_number is not None
        if by_mask:  # GDAL warps all bands at once: another read would warp them again
            numbers.append(source.mask_number)
            self._mask = np.empty(pixels.shape[1:], source.handle.dtypes[0])
        for place, rows, columns, part in self._pieces(inside):
            if not by_mask and columns.stop - columns.start == place[1][1] - place[1][0]:
                out = pixels[:, rows, columns]
                read(partial(self._handle.read, numbers, window=place, out=out), source.path, window)
                continue
            found = read(partial(self._handle.read, numbers, window=place), source.path, window)[:, :, part]
            pixels[:, rows, columns] = found[: len(bands)]
            if by_mask:
                self._mask[rows, columns] = found[-1]

    def _read_mask(self, window: Window, inside: Ranges, band: int) -> Any:
        del window, inside, band
        return self._mask

    def _pieces(self, inside: Ranges) -> Iterator[tuple[Ranges, slice, slice, slice]]:
        """Pieces of a window on the grid, where they lie in the window, and their columns that do."""
        source: Any = self._source
        (top, bottom), (left, right) = inside
        across, down = source.place.step
        for low in range(left // across * across, right, across):
            high = min(low + across, source.grid.shape[1])
            first, last = max(low, left), min(high, right)
            for row in range(top // down * down, bottom, down):
                start, stop = max(row, top), min(row + down, bottom)
                columns = slice(first - left, last - left)
                yield (
                    ((start, stop), (low, high)),
                    slice(start - top, stop - top),
                    columns,
                    slice(first - low, last - low),
                )


def open_warped(source: RasterSource, model: Warp, nodata: float | None = None) -> Warped:
    """An open raster on the grid that a warp asks for; it is closed where that fails.

    `nodata` is what marks places beyond a source that declares no such value, if its type can hold that.

    Raises:
        UsageError: a CRS that does not exist, nothing is left of it, GDAL cannot do it.
        SourceError: it has no CRS.
    """
    name = ""
    try:
        arguments, chosen = _arguments(source, model, nodata)
        name = virtual.warped(source.whole, arguments)
        with rasterio.open(name) as output:
            place = _place(source, output)
        virtual.forget(name)
        (across, _), (x, y) = place.step, place.scale
        fixed = ["-wo", f"XSCALE={x!r}", "-wo", f"YSCALE={y!r}", "-co", f"BLOCKXSIZE={across}", "-co", "BLOCKYSIZE=16"]
        name = virtual.warped(source.whole, [*arguments, *fixed])
        return _made(source, name, model, place, chosen)
    except BaseException:
        source.close()
        if name:
            virtual.forget(name)
        raise


def _made(source: RasterSource, name: str, model: Warp, place: Place, chosen: int | None) -> Warped:
    handle = rasterio.open(name)
    grid = Grid.of(handle)
    all_bands = source.dataset.indexes if source.validity.masks_by_alpha else source.bands
    numbers = {band: number for number, band in enumerate(all_bands, 1)}
    rows, columns = (
        max(1, round(edge * scale)) for edge, scale in zip(source.block, reversed(place.scale), strict=True)
    )
    known = {each.name: getattr(source, each.name) for each in fields(RasterSource)}
    return Warped(
        **known
        | {
            "grid": grid,
            "validity": _validity(handle, numbers, source).among(source.bands, source.dtype),
            "numbers": numbers,
            "mask_number": handle.count if source.validity.shared and source.dtype.kind != "f" else None,
            "block": (min(rows, grid.shape[0]), min(columns, grid.shape[1])),
            "table": None,
            "pixel_interleaved": True,  # GDAL warps all bands at once
            "of": source,
            "_others": [],
            "name": name,
            "handle": handle,
            "model": model,
            "place": place,
            "chosen_nodata": chosen,
        }
    )


def _validity(output: Any, numbers: dict[int, int], source: RasterSource) -> Validity:
    """How nodata is told in a VRT, by the numbers of the file's bands."""
    rules, is_masked = Validity.of(output), source.validity.shared and source.dtype.kind != "f"
    at = [numbers.get(band) for band in source.dataset.indexes]
    return replace(
        rules,
        nodata=tuple(rules.nodata[each - 1] if each else None for each in at),
        declared=tuple(rules.declared[each - 1] if each else None for each in at),
        dtypes=source.validity.dtypes,
        masked=source.validity.masked if is_masked else frozenset(),
        shared=is_masked,
        alpha=source.validity.alpha,
        masks_by_alpha=source.validity.masks_by_alpha,
    )


def _arguments(source: RasterSource, model: Warp, nodata: float | None) -> tuple[list[str], int | None]:
    """Arguments of gdalwarp, and the nodata value where one had to be chosen."""
    if source.grid.crs is None and not source.rpcs and (model.to_crs or source.grid.transform is None):
        raise SourceError(
            f"{source.path} has no CRS: nothing says where on Earth it lies",
            hint="give it one first: `rio edit-info --crs EPSG:… FILE`",
            path=source.path,
        )
    found = [
        "-r",
        _NAMES.get(model.resampling, model.resampling),
        "-et",
        str(_TOLERANCE),
        "-ovr",
        "NONE",
        "-wm",
        str(_WARP_MB),
    ]
    if model.to_crs is not None:
        found += ["-t_srs", _crs(model.to_crs).to_wkt()]
    elif source.grid.crs is None and source.rpcs:
        found += ["-t_srs", "EPSG:4326"]
    if model.resolution is not None:
        found += ["-tr", *(repr(each) for each in (model.resolution[0], model.resolution[-1]))]
    if model.target_aligned:
        found.append("-tap")
    if not source.validity.masks_by_alpha:
        found.append("-nosrcalpha")
    if not source.validity.masks_by_alpha and source.bands != tuple(source.dataset.indexes):
        found += [text for band in source.bands for text in ("-b", str(band))]
    if source.dtype.kind == "f":
        declared = source.validity.nodata[source.bands[0] - 1]
        return found + ["-dstnodata", "nan"] + (["-srcnodata", "nan"] if declared is None else []), None
    return _of_integers(source, found, nodata)


def _of_integers(source: RasterSource, found: list[str], nodata: float | None) -> tuple[list[str], int | None]:
    rules = source.validity
    if rules.masks_by_alpha:
        return found, None
    if rules.has_mask_band:
        return [*found, "-dstalpha"], None
    values = [rules.nodata[band - 1] for band in source.bands]
    held = [int(each) for each in values if comparable(each, source.dtype) is not None and each is not None]
    chosen = None if held else int(nodata_for(source.dtype, None, nodata, None))
    return [*found, "-dstnodata", str(held[0] if held else chosen)], chosen


def _crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise UsageError(f"--to-crs: {text} is no CRS that PROJ knows", hint="name one such as EPSG:3857") from error


def _place(source: RasterSource, output: Any) -> Place:
    """How an output's grid lies over its source.

    Raises:
        UsageError: it does not.
    """
    rows, columns = (np.linspace(0, length, _SAMPLES) for length in (output.height, output.width))
    points = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    corners = [points, points + np.array((1, 0)), points + np.array((0, 1))]
    here, right, below = (virtual.places(source.whole, output, each) for each in corners)
    height, width = source.whole.shape
    jacobians = np.stack([right - here, below - here], axis=-1)
    there = np.isfinite(jacobians).all(axis=(1, 2))
    inside = there & (here >= 0).all(axis=1) & (here[:, 0] <= width) & (here[:, 1] <= height)
    if not there.any():
        raise UsageError(f"a warp that leaves no pixels: no place of {source.path} has one in {output.crs.to_string()}")
    which = np.flatnonzero(inside if inside.any() else there)
    middle = which[np.argmin(np.abs(points[which] - (output.width / 2, output.height / 2)).sum(axis=1))]
    most = which[np.argmax(np.abs(jacobians[which]).sum(axis=(1, 2)))]
    windows = tuple(Window(int(points[i][1]), int(points[i][0]), 1, 1) for i in dict.fromkeys([middle, most]))
    return Place(jacobians[middle], windows)
