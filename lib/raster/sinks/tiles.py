"""A tiled GeoTIFF whose tiles others encode: GDAL writes an empty skeleton, one writer appends, tables are patched at the end.

So any number of threads may encode (`encode.py`), and everything that is not a tile (georeferencing, tags, colours) is GDAL's.
Each band's tiles stand apart (INTERLEAVE=BAND). Tables of places, in memory, are all that the writer holds.

With overviews it is a COG: all directories stand in front, then the levels' tiles, the smallest first, then the raster's own.
As these come first, levels wait in files of their own, a third of the output, and are let in before them at the end (`gap.py`).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio

from lib.errors import OutputError
from lib.paths import for_gdal
from lib.raster import gdal
from lib.raster.faults import writing
from lib.raster.formats import open_output
from lib.raster.sinks import gap
from lib.raster.sinks.directory import Directory, directories
from lib.raster.sinks.encode import Encoding
from lib.raster.sinks.gap import COPY_BYTES
from lib.raster.windows import steps
from lib.units import KIB, MIB

EXACT_DTYPES = frozenset({"int64", "uint64"})  # whose nodata rasterio would write as a float
_CLASSIC_BYTES = 2**32  # a classic TIFF's places are 32 bits wide
_DIRECTORY_BYTES = 64 * KIB  # a directory without its tables and tags
_TAGS_BYTES = 64 * MIB  # left to tags where BigTIFF is decided
_DISK_BYTES_PER_TILE = 16
_WRITEBACK_BYTES = 8 * MIB  # (MEASURED, "Bringing tiles to the disk")
# libtiff's tables and the copies that it writes, while GDAL makes the skeleton (MEASURED, "A skeleton's tables").
_MEMORY_BYTES_PER_TILE = 24


def _tile_count(shape: tuple[int, int], bands: int, block: int, *, mask: bool = False) -> int:
    """How many tiles `bands` bands of `(height, width)` pixels take, those of a mask included."""
    return steps(shape[0], block) * steps(shape[1], block) * (bands + mask)


def memory_bytes(
    shape: tuple[int, int], bands: int, block: int, *, mask: bool = False, levels: Sequence[tuple[int, int]] = ()
) -> int:
    """What a writer holds, skeleton being made included; encoders are apart (`Encoding.scratch_bytes`)."""
    made = block * block * 9 // 8 if mask else 0  # GDAL's own tile of the mask, which makes it exist
    copying = COPY_BYTES if levels else 0
    tiles = sum(_tile_count(each, bands, block, mask=mask) for each in (shape, *levels))
    return tiles * _MEMORY_BYTES_PER_TILE + made + copying


def disk_bytes(
    shape: tuple[int, int],
    bands: int,
    encoding: Encoding,
    *,
    mask: bool = False,
    levels: Sequence[tuple[int, int]] = (),
) -> int:
    """Upper bound of the file without its tags: every tile as large as the codec can make it, and levels there twice."""
    tiles = _tile_count(shape, bands, encoding.block)
    mask_bytes = _tile_count(shape, 1, encoding.block) * (encoding.block**2 // 8 + KIB) if mask else 0
    tables = _tile_count(shape, bands, encoding.block, mask=mask) * _DISK_BYTES_PER_TILE
    below = sum(2 * disk_bytes(each, bands, encoding, mask=mask) for each in levels)
    return tiles * encoding.bound_bytes + mask_bytes + tables + 2 * _DIRECTORY_BYTES + below


def create(
    path: Path,
    *,
    profile: Mapping[str, Any],
    encoding: Encoding,
    describe: Callable[[Any], None],
    mask: bool = False,
    levels: Sequence[tuple[int, int]] = (),
    options: Mapping[str, Any] | None = None,
) -> "Writer":
    """Create a GeoTIFF without pixels, inside `formats.environment()`, and open it for its tiles.

    Args:
        path: where; what stands there is removed.
        profile: height, width, count and what else `rasterio.open` takes; the dtype is the encoding's.
        encoding: of the tiles.
        describe: writes tags, colours, scales to the open dataset.
        mask: with an internal mask of the whole dataset.
        levels: `(height, width)` of its overviews, each half of the last.
        options: further creation options. BIGTIFF is IF_SAFER without, and YES where the bound of the size asks for it.

    Raises:
        OutputError: the disk or GDAL said no.
        MemoryExceeded: an allocator did.
    """
    shape, bands = (profile["height"], profile["width"]), profile["count"]
    # GDAL judges by the raster's size: tiles that reach far over its edge, and LZW's growth, are not in it.
    most = disk_bytes(shape, bands, encoding, mask=mask, levels=levels) + _TAGS_BYTES
    creation = encoding.options | {"SPARSE_OK": "TRUE", "BIGTIFF": "IF_SAFER" if most < _CLASSIC_BYTES else "YES"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=mask, GDAL_TIFF_OVR_BLOCKSIZE=encoding.block):
        whole = {**profile, "dtype": encoding.dtype.name}
        with open_output(path, whole, creation | dict(options or {})) as dataset:
            describe(dataset)
            if mask:  # it begins to exist with a first pixel
                dataset.write_mask(np.zeros((1, 1), np.bool_), window=((0, 1), (0, 1)))
            # Of 64-bit integers with nodata GDAL 3.12 loses all overviews but the first, unless each has a handle of its own.
            at_once = encoding.dtype.name not in EXACT_DTYPES
            factors = [2 << level for level in range(len(levels))]
            if factors and at_once:
                with writing(str(path)):
                    gdal.make_room_for_overviews(dataset, factors)
        for factor in [] if at_once else factors:
            with writing(str(path)), rasterio.open(for_gdal(path), "r+", SPARSE_OK="TRUE") as dataset:
                gdal.make_room_for_overviews(dataset, [factor])
    return Writer(path)


class Writer:
    """Appends encoded tiles to a skeleton, in any order, each at most once; for one thread.

    A context: leaving it closes, an error inside leaves the file as the empty skeleton that it was for readers.
    """

    def __init__(self, path: Path) -> None:
        """Open a skeleton, as `create` made it."""
        self._path = str(path)
        with writing(self._path):
            self._file = os.open(path, os.O_RDWR)
            self._levels: list[_Level] = []
            try:
                images = list(directories(self._file))
                pixels = [_Table(each) for each in images if not each.is_mask]
                masks: list[_Table | None] = [_Table(each) for each in images if each.is_mask]
                masks = masks or [None] * len(pixels)
                size = os.fstat(self._file).st_size
                if len(pixels) > 1:
                    size = gap.aligned(self._file, size)
                self._start = size
                self._levels.append(_Level(pixels[0], masks[0], self._file, size))
                for table, mask in zip(pixels[1:], masks[1:], strict=True):
                    self._levels.append(_Level(table, mask, gap.spill(path.parent), 0))
            except BaseException:
                self._let_go()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._let_go()

    def append(self, band: int, row: int, column: int, data: bytes | None, level: int = 0) -> None:
        """Add a tile of a band, all counted from 0; None leaves it sparse: nodata or else 0 is what is read there.

        Raises:
            OutputError: the disk is full, a quota or a file-size limit was reached.
        """
        self._append(self._levels[level], self._levels[level].pixels, (band, row, column), data)

    def append_mask(self, row: int, column: int, data: bytes | None, level: int = 0) -> None:
        """Add a tile of the mask; None leaves it sparse: all of it is invalid.

        Raises:
            OutputError: as `append`.
        """
        mask = self._levels[level].mask
        if mask is None:
            raise ValueError("created without a mask")
        self._append(self._levels[level], mask, (0, row, column), data)

    def close(self) -> None:
        """Bring the tiles to the disk, those of overviews in front of the others, then write their tables.

        Raises:
            OutputError: as `append`; network file systems say so only here.
        """
        try:
            with writing(self._path):
                self._let_in()
                os.fsync(self._file)  # a table never names data that a crash has lost
                for table in (each for level in self._levels for each in level.tables):
                    gap.write(self._file, table.offsets, table.offsets_at)
                    gap.write(self._file, table.byte_counts, table.byte_counts_at)
        finally:
            self._let_go()

    def _let_in(self) -> None:
        """Move what stands in the file up, and put the levels before it, the smallest first."""
        [own, *rest] = self._levels
        length = gap.aligned(self._file, sum(level.end for level in rest))
        if not length:
            return
        self._check_room(own, own.end + length)
        gap.insert(self._file, self._start, own.end, length)
        own.move(length)
        at = self._start
        for level in reversed(rest):
            gap.copy(level.file, self._file, level.end, at)
            os.ftruncate(level.file, 0)
            level.move(at)
            at += level.end

    def _let_go(self) -> None:
        for file in {self._file, *(level.file for level in self._levels)}:
            os.close(file)

    def _check_room(self, level: "_Level", end: int) -> None:
        if end > level.pixels.most_bytes:  # `create` sees to it that this does not happen
            raise OutputError(f"{self._path}: passes the 4 GiB of a classic TIFF", hint="ask for BIGTIFF=YES")

    def _append(self, level: "_Level", table: "_Table", place: tuple[int, int, int], data: bytes | None) -> None:
        if data is None:
            return
        self._check_room(level, level.end + len(data))
        with writing(self._path):
            gap.write(level.file, data, level.end)
        table.offsets[place], table.byte_counts[place] = level.end, len(data)
        level.end += len(data)
        if level.end - level.flushed >= _WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            # Linux begins to write what is dirty there, and does not wait: nothing is left for the end.
            os.posix_fadvise(level.file, level.flushed, level.end - level.flushed, os.POSIX_FADV_DONTNEED)
            level.flushed = level.end


@dataclass(slots=True)
class _Level:
    """The raster itself or an overview: its tables, and the file where its tiles stand so far."""

    pixels: "_Table"
    mask: "_Table | None"
    file: int
    end: int
    flushed: int = 0

    @property
    def tables(self) -> Iterator["_Table"]:
        return (each for each in (self.pixels, self.mask) if each is not None)

    def move(self, by: int) -> None:
        """All its tiles stand so many bytes further on."""
        for table in self.tables:
            table.offsets[table.byte_counts > 0] += table.offsets.dtype.type(by)


class _Table:
    """Places and sizes of one image's tiles, `(bands, rows, columns)` in the file's own types; 0 is a sparse tile."""

    __slots__ = ("byte_counts", "byte_counts_at", "most_bytes", "offsets", "offsets_at")

    def __init__(self, image: Directory) -> None:
        self.offsets = np.zeros(image.offsets.count, image.offsets.dtype).reshape(-1, *image.grid)
        self.byte_counts = np.zeros(self.offsets.shape, image.byte_counts.dtype)
        self.offsets_at, self.byte_counts_at = image.offsets.position, image.byte_counts.position
        self.most_bytes = int(np.iinfo(self.offsets.dtype).max)
