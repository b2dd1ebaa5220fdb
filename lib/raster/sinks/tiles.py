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
from lib.raster.sinks.directory import Directory, directories
from lib.raster.sinks.encode import Encoding
from lib.raster.windows import steps
from lib.units import KIB, MIB

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


def memory_bytes(shape: tuple[int, int], bands: int, block: int, *, mask: bool = False) -> int:
    """What a writer holds, skeleton being made included; encoders are apart (`Encoding.scratch_bytes`)."""
    made = block * block * 9 // 8 if mask else 0  # GDAL's own tile of the mask, which makes it exist
    return _tile_count(shape, bands, block, mask=mask) * _MEMORY_BYTES_PER_TILE + made


def disk_bytes(shape: tuple[int, int], bands: int, encoding: Encoding, *, mask: bool = False) -> int:
    """Upper bound of the file without its tags: every tile as large as the codec can make it."""
    tiles = _tile_count(shape, bands, encoding.block)
    mask_bytes = _tile_count(shape, 1, encoding.block) * (encoding.block**2 // 8 + KIB) if mask else 0
    tables = _tile_count(shape, bands, encoding.block, mask=mask) * _DISK_BYTES_PER_TILE
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
            try:
                images = list(directories(self._file))
                self._pixels = next(_Table(each) for each in images if not each.is_mask)
                self._mask = next((_Table(each) for each in images if each.is_mask), None)
                self._end = self._flushed = os.fstat(self._file).st_size
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
        self._append(self._pixels, (band, row, column), data)

    def append_mask(self, row: int, column: int, data: bytes | None) -> None:
        """Add a tile of the mask; None leaves it sparse: all of it is invalid.

        Raises:
            OutputError: as `append`.
        """
        if self._mask is None:
            raise ValueError("created without a mask")
        self._append(self._mask, (0, row, column), data)

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

    def _append(self, table: "_Table", place: tuple[int, int, int], data: bytes | None) -> None:
        if data is None:
            return
        if self._end + len(data) > table.most_bytes:  # `create` sees to it that this does not happen
            raise OutputError(f"{self._path}: passes the 4 GiB of a classic TIFF", hint="ask for BIGTIFF=YES")
        with writing(self._path):
            _write(self._file, data, self._end)
        table.offsets[place], table.byte_counts[place] = self._end, len(data)
        self._end += len(data)
        if self._end - self._flushed >= _WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            # Linux begins to write what is dirty there, and does not wait: nothing is left for the end.
            os.posix_fadvise(self._file, self._flushed, self._end - self._flushed, os.POSIX_FADV_DONTNEED)
            self._flushed = self._end


class _Table:
    """Places and sizes of one image's tiles, `(bands, rows, columns)` in the file's own types; 0 is a sparse tile."""

    __slots__ = ("byte_counts", "byte_counts_at", "most_bytes", "offsets", "offsets_at")

    def __init__(self, image: Directory) -> None:
        self.offsets = np.zeros(image.offsets.count, image.offsets.dtype).reshape(-1, *image.grid)
        self.byte_counts = np.zeros(self.offsets.shape, image.byte_counts.dtype)
        self.offsets_at, self.byte_counts_at = image.offsets.position, image.byte_counts.position
        self.most_bytes = int(np.iinfo(self.offsets.dtype).max)


def _write(file: int, data: Any, position: int) -> None:
    """Write all of it: a disk that fills up takes a part first, and says why only at the next call."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(file, rest, position)
        rest, position = rest[written:], position + written
