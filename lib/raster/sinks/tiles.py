"""A tiled GeoTIFF whose tiles others encode: GDAL writes an empty skeleton, one writer appends, tables are patched at the end.

So any number of threads may encode (`encode.py`), and everything that is not a tile (georeferencing, tags, colours) is GDAL's.
Each band's tiles stand apart (INTERLEAVE=BAND). Two tables of places, in memory, are all that the writer holds.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio

from lib.errors import OutputError
from lib.raster.faults import writing
from lib.raster.formats import open_output
from lib.raster.sinks.directory import Column, Directory, directories
from lib.raster.sinks.encode import Encoding
from lib.raster.windows import steps
from lib.units import KIB, MIB

__all__ = ["Writer", "create", "disk_bytes", "memory_bytes"]

_CLASSIC_BYTES = 2**32  # a classic TIFF's places are 32 bits wide
_DIRECTORY_BYTES = 64 * KIB  # a directory without its tables and tags
_TAGS_BYTES = 64 * MIB  # left to tags where BigTIFF is decided: more than GDAL takes
_DISK_BYTES_PER_TILE = 16
# libtiff's tables and the copies that it writes, while GDAL makes the skeleton (MEASURED, "A skeleton's tables").
_MEMORY_BYTES_PER_TILE = 32


def tile_count(shape: tuple[int, int], bands: int, block: int, *, mask: bool = False) -> int:
    """How many tiles `bands` bands of `(height, width)` pixels take, those of a mask included."""
    return steps(shape[0], block) * steps(shape[1], block) * (bands + mask)


def memory_bytes(shape: tuple[int, int], bands: int, block: int, *, mask: bool = False) -> int:
    """What a writer holds, skeleton being made included; encoders are apart (`Encoding.scratch_bytes`)."""
    made = block * block * 9 // 8 if mask else 0  # GDAL's own tile of the mask, which makes it exist
    return tile_count(shape, bands, block, mask=mask) * _MEMORY_BYTES_PER_TILE + made


def disk_bytes(shape: tuple[int, int], bands: int, encoding: Encoding, *, mask: bool = False) -> int:
    """Upper bound of the file without its tags: every tile as large as the codec can make it."""
    tiles = tile_count(shape, bands, encoding.block)
    mask_bytes = tile_count(shape, 1, encoding.block) * (encoding.block**2 // 8 + KIB) if mask else 0
    tables = tile_count(shape, bands, encoding.block, mask=mask) * _DISK_BYTES_PER_TILE
    return tiles * encoding.bound_bytes + mask_bytes + tables + 2 * _DIRECTORY_BYTES


def create(
    path: Path,
    *,
    profile: Mapping[str, Any],
    encoding: Encoding,
    describe: Callable[[Any], None],
    mask: bool = False,
    options: Mapping[str, Any] | None = None,
) -> "Writer":
    """Create a GeoTIFF without pixels, inside `formats.environment()`, and open it for its tiles.

    Args:
        path: where; what stands there is removed.
        profile: height, width, count and what else `rasterio.open` takes; the dtype is the encoding's.
        encoding: of the tiles.
        describe: writes tags, colours, scales to the open dataset.
        mask: with an internal mask of the whole dataset.
        options: further creation options. BIGTIFF is IF_SAFER without, and YES where the bound of the size asks for it.

    Raises:
        OutputError: the disk or GDAL said no.
        MemoryExceeded: an allocator did.
    """
    shape, bands = (profile["height"], profile["width"]), profile["count"]
    # GDAL judges by the raster's size: tiles that reach far over its edge, and LZW's growth, are not in it.
    most = disk_bytes(shape, bands, encoding, mask=mask) + _TAGS_BYTES
    creation = encoding.options | {"SPARSE_OK": "TRUE", "BIGTIFF": "IF_SAFER" if most < _CLASSIC_BYTES else "YES"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=mask):
        whole = {**profile, "dtype": encoding.dtype.name}
        with open_output(path, whole, creation | dict(options or {})) as dataset:
            describe(dataset)
            if mask:  # it begins to exist with a first pixel
                dataset.write_mask(np.zeros((1, 1), np.bool_), window=((0, 1), (0, 1)))
    return Writer(path, (bands, steps(shape[0], encoding.block), steps(shape[1], encoding.block)), mask=mask)


class Writer:
    """Appends encoded tiles to a skeleton, in any order, each at most once; for one thread.

    A context: leaving it closes, an error inside leaves the file as the empty skeleton that it was for readers.
    """

    def __init__(self, path: Path, grid: tuple[int, int, int], *, mask: bool) -> None:
        """Open a skeleton.

        Args:
            path: the file, as `create` made it.
            grid: `(bands, rows, columns)` of tiles.
            mask: does it have one?
        """
        self._path, self._grid = str(path), grid
        with writing(self._path):
            self._file = os.open(path, os.O_RDWR)
            try:
                found = {each.is_mask: each for each in directories(self._file)}
                self._pixels = _Table(found[False], grid[0] * grid[1] * grid[2])
                self._mask = _Table(found[True], grid[1] * grid[2]) if mask else None
                self._end = os.fstat(self._file).st_size
            except BaseException:
                os.close(self._file)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            os.close(self._file)

    def append(self, band: int, row: int, column: int, data: bytes | None) -> None:
        """Add a tile of a band, all counted from 0; None leaves it sparse: nodata or else 0 is what is read there.

        Raises:
            OutputError: the disk is full, a quota or a file-size limit was reached.
        """
        self._append(self._pixels, (band * self._grid[1] + row) * self._grid[2] + column, data)

    def append_mask(self, row: int, column: int, data: bytes | None) -> None:
        """Add a tile of the mask; None leaves it sparse: all of it is invalid.

        Raises:
            OutputError: as `append`.
        """
        if self._mask is None:
            raise ValueError("created without a mask")
        self._append(self._mask, row * self._grid[2] + column, data)

    def close(self) -> None:
        """Bring the tiles to the disk, then write their tables.

        Raises:
            OutputError: as `append`; network file systems say so only here.
        """
        try:
            with writing(self._path):
                os.fsync(self._file)  # a table never names data that a crash has lost
                for table in (self._pixels, self._mask):
                    if table is not None:
                        _write(self._file, table.offsets, table.offsets_at)
                        _write(self._file, table.byte_counts, table.byte_counts_at)
        finally:
            os.close(self._file)

    def _append(self, table: "_Table", index: int, data: bytes | None) -> None:
        if data is None:
            return
        if self._end + len(data) > table.most_bytes:  # `create` sees to it that this does not happen
            raise OutputError(f"{self._path}: passes the 4 GiB of a classic TIFF", hint="ask for BIGTIFF=YES")
        with writing(self._path):
            _write(self._file, data, self._end)
        table.offsets[index], table.byte_counts[index] = self._end, len(data)
        self._end += len(data)


class _Table:
    """Places and sizes of one image's tiles, in the file's own types."""

    __slots__ = ("byte_counts", "byte_counts_at", "most_bytes", "offsets", "offsets_at")

    def __init__(self, directory: Directory, tiles: int) -> None:
        self.offsets, self.offsets_at = _zeros(directory.offsets, tiles)
        self.byte_counts, self.byte_counts_at = _zeros(directory.byte_counts, tiles)
        self.most_bytes = int(np.iinfo(self.offsets.dtype).max)


def _zeros(column: Column, tiles: int) -> tuple[Any, int]:
    if column.count != tiles:
        raise ValueError(f"the skeleton has a table of {column.count} tiles, not of {tiles}")
    return np.zeros(tiles, column.dtype), column.position


def _write(file: int, data: Any, position: int) -> None:
    """Write all of it: a disk that fills up takes a part first, and says why only at the next call."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(file, rest, position)
        rest, position = rest[written:], position + written
