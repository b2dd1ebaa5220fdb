"""Several rasters of one kind on one grid of pixels as one: a reader has a few files open, and reads each where it lies.

The later one is on top, with its valid pixels; where none has a valid one there is nodata, by the value that the files declare,
NaN, alpha 0, or else a mask. `parts.py` says which files they are, and how they must be alike. What a pixel becomes does not
depend on windows.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from lib.errors import SourceError
from lib.raster import elsewhere
from lib.raster.block import Block, Buffer
from lib.raster.faults import read
from lib.raster.formats import open_dataset, open_source
from lib.raster.grid import Grid
from lib.raster.sources import layered
from lib.raster.sources.dataset import Ranges, RasterSource, Reader, open_raster, part_inside, within
from lib.raster.sources.layered import Piece
from lib.raster.sources.parts import Part, files_of, gather
from lib.raster.validity import Validity, comparable
from lib.raster.windows import Window

# Files that a reader holds open: as many as a probe looks at. Opening one again takes a millisecond.
_MOST_OPEN = 8
_NAMED = 4  # tags, in a remark


@dataclass(slots=True, kw_only=True)
class Mosaic(RasterSource):
    """Several open rasters as one; `dataset` is the first one's, of which metadata are taken.

    Attributes:
        one: the first.
        parts: all, the uppermost last.
        bounds: `(n, 4)` int64, each one's first and last row, first and last column, the last ones exclusive.
        untrue: `(band, key)` of the first one's tags that are not of all.
        heavy: where a block is largest.
        overlaps: whether any lie over each other.
        is_full: whether there is one everywhere.
        holes: whether blocks are missing in any.
        in_parallel: whether all may be read by several readers at once.
    """

    one: RasterSource
    parts: tuple[Part, ...]
    bounds: NDArray[np.int64]
    untrue: frozenset[tuple[int, str]]
    heavy: tuple[Window, ...]
    overlaps: bool
    is_full: bool
    holes: bool
    in_parallel: bool
    _first_reader: Any = None
    _layers: list[Any] = field(default_factory=list)

    @property
    def reads_in_parallel(self) -> bool:
        """Whether all of them do."""
        return self.in_parallel

    @property
    def is_aligned(self) -> bool:
        """Whether windows that are multiples of blocks are whole blocks of all files."""
        (down, across), (height, width) = self.offset, self.block
        return not ((self.bounds[:, 0] - down) % height).any() and not ((self.bounds[:, 2] - across) % width).any()

    @property
    def files(self) -> tuple[str, ...]:
        """See `RasterSource.files`."""
        return tuple(part.path for part in self.parts)

    @property
    def network_cache_bytes(self) -> int:
        """GDAL has one for all of them."""
        return max(elsewhere.cache_bytes(part.path, self.source_bytes) for part in self.parts)

    def check_unchanged(self) -> None:
        """Each remote one is what it was when it was opened."""
        for part in self.parts:
            elsewhere.check_unchanged(part.path, part.state)

    @property
    def has_holes(self) -> bool:
        """Gaps stay holes, too."""
        return self.holes or not self.is_full

    @property
    def file_block(self) -> tuple[int, int]:
        """The largest of all."""
        return self.block

    @property
    def rpcs(self) -> None:
        """Those of a file are of its own pixels."""

    @property
    def whole(self) -> Any:
        """A VRT of all files, in memory, made when it is asked for."""
        if not self._layers:
            text = layered.as_vrt(self.one, self.parts, self.grid, masked=self.validity.has_mask_band)
            self._layers.append(MemoryFile(text, ext=".vrt"))
            self._layers.append(rasterio.open(self._layers[0].name))
        return self._layers[1]

    def fill(self, band: int) -> Any:
        """What a band's pixels are where nothing is valid."""
        own = self.one.validity.dtypes[band - 1]
        if band == self.one.validity.alpha:
            return self.dtype.type(0)
        declared = comparable(self.one.validity.declared[band - 1], own)
        if declared is not None:
            return self.dtype.type(declared)
        return self.dtype.type(math.nan if own.kind == "f" else 0)

    def beside_bytes(self, pixels: int, bands: int) -> int:
        """What is laid over others is read apart, a file at a time; and which pixels are not valid is marked."""
        most = self.most_apart(pixels)
        return most + (Buffer.bytes(most * bands, self.dtype) if self.overlaps else 0)

    def most_apart(self, pixels: int) -> int:
        """How many pixels of one file are in so many at most."""
        return min(pixels, max(part.place.pixels for part in self.parts))

    def is_untrue(self, band: int, key: str) -> bool:
        """See `RasterSource.is_untrue`."""
        return (band, key) in self.untrue

    def remarks(self) -> list[str]:
        """Which tags are not kept."""
        lost = sorted({key or "descriptions of bands" for _, key in self.untrue})
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        name = self.path.rstrip("/").rpartition("/")[2]
        return (
            [f"{name}: of its files' tags those that differ are not kept: {', '.join(lost[:_NAMED])}{more}"]
            if lost
            else []
        )

    def heavy_on_file(self) -> list[Window]:
        """See `RasterSource.heavy_on_file`."""
        return list(self.heavy)

    def readers(self, count: int) -> list[Reader]:
        """Readers, each with its own handles."""
        if self._first_reader is None:
            self._first_reader = MosaicReader(self)
        while len(self._others) < count - 1:
            self._others.append(MosaicReader(self))
        return [self._first_reader, *self._others[: count - 1]]

    def close(self) -> None:
        """Close all handles."""
        self.close_others()
        if self._first_reader is not None:
            self._first_reader.close()
        while self._layers:
            self._layers.pop().close()
        self.dataset.close()

    def read_plainly(self, band: int, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A window of a band and where it is valid, each file opened anew and laid over the ones before it."""
        (top, bottom), (left, right) = self.on_file(window.ranges)
        pixels = np.full((bottom - top, right - left), self.fill(band), self.dtype)
        valid = np.zeros(pixels.shape, np.bool_)
        for part in self.parts:
            (first, last), (low, high) = part.place.ranges
            rows, columns = (max(top, first), min(bottom, last)), (max(left, low), min(right, high))
            if rows[0] >= rows[1] or columns[0] >= columns[1]:
                continue
            place = ((rows[0] - first, rows[1] - first), (columns[0] - low, columns[1] - low))
            with open_source(part.path) as dataset:
                found = read(partial(dataset.read, band, window=place, out_dtype=self.dtype), part.path, window)
                is_alpha = band == part.validity.alpha
                mask = found if is_alpha else read(partial(dataset.read_masks, band, window=place), part.path, window)
            good = mask != 0
            if found.dtype.kind == "f":
                good &= ~np.isnan(found)
            inside = slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left)
            pixels[inside] = np.where(good, found, pixels[inside])
            valid[inside] |= good
        if band == self.validity.alpha and not self.validity.alpha_hidden:
            valid.fill(True)
        return pixels, valid


class MosaicReader(Reader):
    """Reads each file where it lies in a window, by handles of its own, of which a few stay open."""

    def __init__(self, mosaic: Mosaic) -> None:
        super().__init__(mosaic, None)
        self._mosaic = mosaic
        self._open: OrderedDict[int, tuple[Any, Reader]] = OrderedDict()
        self._apart, self._room = Buffer(0, mosaic.dtype), 0

    def close(self) -> None:
        """Close its handles."""
        while self._open:
            self._open.popitem()[1][0].close()

    def make_room(self, pixels: int, bands: int) -> None:
        """See `Reader.make_room`."""
        self._have(self._mosaic.most_apart(pixels) * bands if self._mosaic.overlaps else 0)

    def _have(self, values: int) -> None:
        if values != self._room:
            self._apart = Buffer(0, self._mosaic.dtype)  # before the next takes its room
            self._apart, self._room = Buffer(values, self._mosaic.dtype), values

    def _read(self, window: Window, bands: tuple[int, ...], overlap: int, into: Block) -> Block:
        inside, place = within(window, overlap, self._mosaic.grid.shape)
        pixels, valid = part_inside(into, inside, place)
        all_valid = self._lay(self._mosaic.on_file(inside), Block(window, bands, pixels, valid))
        into.all_valid = all_valid and inside == place
        return into

    def _lay(self, ranges: Ranges, into: Block) -> bool:
        """Read all that lies in a place, from below; whether all of it is valid."""
        pieces = self._pieces(ranges, into.bands)
        (top, bottom), (left, right) = ranges
        is_full = self._is_full(pieces, (bottom - top) * (right - left))
        if not is_full:
            for band, plane in zip(into.bands, into.pixels, strict=True):
                plane.fill(self._mosaic.fill(band))
            into.valid.fill(False)
        all_valid = is_full
        for i, piece in enumerate(pieces):
            rows, columns = slice(piece.top - top, piece.bottom - top), slice(piece.left - left, piece.right - left)
            below = Block(into.window, into.bands, into.pixels[:, rows, columns], into.valid[:, rows, columns])
            if any(piece.meets(other) for other in pieces[:i]):
                self._over(piece, below)
            else:
                self._alone(piece, below)
                all_valid = all_valid and below.all_valid
        self._mark_alpha(into)
        return all_valid

    def _pieces(self, ranges: Ranges, bands: tuple[int, ...]) -> list[Piece]:
        """What lies in a place, the uppermost last, without what is hidden by another one that has no nodata."""
        (top, bottom), (left, right) = ranges
        bounds = self._mosaic.bounds
        there = (bounds[:, 0] < bottom) & (bounds[:, 1] > top) & (bounds[:, 2] < right) & (bounds[:, 3] > left)
        found: list[Piece] = []
        hiding: list[Piece] = []
        for index in np.flatnonzero(there)[::-1].tolist():
            first, last, low, high = bounds[index].tolist()
            piece = Piece(index, max(first, top), min(last, bottom), max(low, left), min(high, right))
            if any(other.covers(piece) for other in hiding):
                continue
            found.append(piece)
            rules = self._mosaic.parts[index].validity
            if self._mosaic.overlaps and all(rules.always(band, self._mosaic.dtype) for band in bands):
                hiding.append(piece)
        return found[::-1]

    def _is_full(self, pieces: Sequence[Piece], pixels: int) -> bool:
        """Whether nothing need be filled beforehand."""
        if self._mosaic.overlaps:
            return any(piece.pixels == pixels for piece in pieces[:1])
        return sum(piece.pixels for piece in pieces) == pixels

    def _alone(self, piece: Piece, into: Block) -> None:
        """Read what has nothing below it; what is not valid is as elsewhere."""
        mosaic = self._mosaic
        self._fetch(piece, into)
        if into.all_valid:
            return
        for band, pixels, valid in zip(into.bands, into.pixels, into.valid, strict=True):
            np.copyto(pixels, mosaic.fill(band), where=~valid)

    def _over(self, piece: Piece, below: Block) -> None:
        if below.pixels.size > self._room:
            self._have(below.pixels.size)
        rows, columns = below.pixels.shape[1:]
        above = self._apart.block(Window(0, 0, rows, columns), below.bands)
        self._fetch(piece, above)
        np.copyto(below.pixels, above.pixels, where=above.valid)
        np.logical_or(below.valid, above.valid, out=below.valid)

    def _fetch(self, piece: Piece, into: Block) -> None:
        """Read a piece, and where it is valid; alpha is where it is not 0."""
        part = self._mosaic.parts[piece.part]
        place = Window(
            piece.top - part.place.top, piece.left - part.place.left, piece.bottom - piece.top, piece.right - piece.left
        )
        found = Block(place, into.bands, into.pixels, into.valid)
        self._reader(piece.part).read(place, into.bands, 0, found)
        into.all_valid = found.all_valid
        if found.all_valid:
            into.valid.fill(True)
        if part.validity.alpha in into.bands:
            plane = into.bands.index(part.validity.alpha)
            np.not_equal(into.pixels[plane], 0, out=into.valid[plane])
            into.all_valid = False

    def _mark_alpha(self, into: Block) -> None:
        """Alpha is valid wherever it masks as a band."""
        rules = self._mosaic.validity
        if rules.alpha in into.bands and not rules.alpha_hidden:
            into.valid[into.bands.index(rules.alpha)] = True

    def _reader(self, index: int) -> Reader:
        """An open file's."""
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index][1]
        while len(self._open) >= _MOST_OPEN:
            self._open.popitem(last=False)[1][0].close()
        part = self._mosaic.parts[index]
        handle = open_dataset(part.path)
        if handle.shape != part.place[2:] or handle.count != self._mosaic.one.dataset.count:
            handle.close()
            raise SourceError(f"{part.path} is another file than when the work began", path=part.path)
        known = {each.name: getattr(self._mosaic.one, each.name) for each in fields(RasterSource)}
        own = {"path": part.path, "dataset": handle, "grid": Grid(handle.shape), "validity": part.validity}
        self._open[index] = handle, Reader(RasterSource(**known | own), handle)
        return self._open[index][1]


def open_files(path: str, bands: Sequence[int] | None, more: Sequence[str] = ()) -> RasterSource:
    """Open a raster, or the mosaic that a folder of rasters is, or a source with what lies over it.

    Raises:
        SourceError, DataError: as `open_raster`; a folder without rasters; they are not alike, or not aligned.
    """
    files = files_of(path, more)
    if len(files) == 1:
        return open_raster(files[0], bands)
    gathered = gather(files, bands)
    one = gathered.first
    try:
        top, left, height, width = gathered.settle(path)
        bounds = np.array([[*rows, *columns] for rows, columns in (part.place.ranges for part in gathered.parts)])
        is_full, overlaps = layered.lie(bounds, (height, width))
        known = {each.name: getattr(one, each.name) for each in fields(RasterSource)}
        return Mosaic(
            **known
            | {
                "path": path,
                "grid": Grid((height, width), one.grid.crs, one.grid.transform @ Affine.translation(left, top)),
                "validity": _validity(one, [part.validity for part in gathered.parts], is_full=is_full),
                "block": gathered.block,
                "block_bytes": gathered.block_bytes,
                "pixel_interleaved": gathered.pixel_interleaved,
                "table": None,
                "source_bytes": gathered.source_bytes,
                "_others": [],
            },
            one=one,
            parts=tuple(gathered.parts),
            bounds=bounds,
            untrue=frozenset(gathered.untrue),
            heavy=tuple(place for _, place in gathered.heavy),
            overlaps=overlaps,
            is_full=is_full,
            holes=gathered.has_holes,
            in_parallel=gathered.in_parallel,
        )
    except BaseException:
        one.close()
        raise


def _validity(one: RasterSource, rules: Sequence[Validity], *, is_full: bool) -> Validity:
    """How nodata is told in all: as in the files, or by a mask where none of them says what a gap is."""
    masked = next((each for each in rules if each.has_mask_band), None) or next(
        (each for each in rules if each.masked), None
    )
    if masked is not None:
        return masked
    first = one.validity
    if is_full or not any(first.always(band, one.dtype) for band in one.bands):
        return first
    none = (None,) * len(first.nodata)
    every = frozenset(range(1, len(none) + 1))
    return replace(first, nodata=none, masked=every, shared=True, masks_by_alpha=False)
