"""One raster that GDAL opens: header facts, the checks that a header alone allows, and readers with handles of their own.

A file that declares more than it can hold, or whose blocks lie past its end, is told when it is opened, before any work.
"""

import copy
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import SourceError
from lib.paths import is_packed
from lib.raster import elsewhere
from lib.raster.block import Block
from lib.raster.faults import in_header, read
from lib.raster.formats import compression_of, is_pixel_interleaved, open_dataset, open_source
from lib.raster.grid import Grid
from lib.raster.outline import Outline
from lib.raster.sources.tables import Table, check_table, heavy_places, table_of
from lib.raster.validity import Validity
from lib.raster.windows import Window

_MOST_SHOWN = 20  # of a container's sub-datasets, in an error
# Each handle decodes by itself there, and GDAL's driver holds no lock; others (netCDF, HDF5) are read by one thread at a time.
_READ_IN_PARALLEL = frozenset({"GTiff"})

Ranges = tuple[tuple[int, int], tuple[int, int]]


@dataclass(slots=True, kw_only=True)
class RasterSource:
    """An open raster.

    Attributes:
        path: as the job names it.
        dataset: the open handle.
        grid: where it lies.
        bands: the selected bands' numbers.
        dtype: that all selected bands are read as.
        validity: how nodata is told.
        block: `(height, width)` of the largest block, in pixels.
        block_bytes: decoded size of such a block, all bands that it holds.
        pixel_interleaved: that block holds all bands.
        compression: the codec's name, "" for none.
        table: a TIFF's block table, None for other formats.
        source_bytes: size of the file; 0 where it is not one.
        offset: top row and left column of the grid on the file's, where it is a part of that.
        outline: the polygons outside of which nothing is kept; None where there are none.
        state: what a server says of the file; None where it is not remote.
        has_wide_results: what is written of it has more digits than float32, and so have results before that.
    """

    path: str
    dataset: Any
    grid: Grid
    bands: tuple[int, ...]
    dtype: np.dtype[Any]
    validity: Validity
    block: tuple[int, int]
    block_bytes: int
    pixel_interleaved: bool
    compression: str
    table: Table | None = None
    source_bytes: int = 0
    offset: tuple[int, int] = (0, 0)
    outline: Outline | None = None
    state: elsewhere.State | None = None
    has_wide_results: bool = False
    _others: list[Any] = field(default_factory=list)

    @property
    def itemsize(self) -> int:
        """Bytes of one pixel of one band."""
        return int(self.dtype.itemsize)

    @property
    def dtypes(self) -> list[str]:
        """The selected bands' own dtypes, in their order."""
        return [self.dataset.dtypes[band - 1] for band in self.bands]

    @property
    def is_mixed(self) -> bool:
        """Whether these differ."""
        return len(set(self.dtypes)) > 1

    @property
    def decoded_bytes(self) -> int:
        """Decoded size of the selected bands."""
        return self.grid.shape[0] * self.grid.shape[1] * len(self.bands) * self.itemsize

    @property
    def reads_in_parallel(self) -> bool:
        """Whether several readers may work at once, and gain by it; what is packed is unpacked from its start for each."""
        return self.dataset.driver in _READ_IN_PARALLEL and not is_packed(self.dataset.name)

    @property
    def network_cache_bytes(self) -> int:
        """What GDAL keeps of what it fetches; 0 of a source that is not remote."""
        return elsewhere.cache_bytes(self.path, self.source_bytes)

    def check_unchanged(self) -> None:
        """A remote source is what it was when it was opened.

        Raises:
            DataError: it has changed meanwhile.
        """
        elsewhere.check_unchanged(self.path, self.state)

    @property
    def is_aligned(self) -> bool:
        """Whether windows that are multiples of blocks are whole blocks of the file."""
        return not any(at % edge for at, edge in zip(self.offset, self.block, strict=True))

    @property
    def rpcs(self) -> Any:
        """Rational polynomials of the grid's own rows and columns; None where there are none."""
        found = copy.copy(self.dataset.rpcs)
        if found:
            found.line_off, found.samp_off = found.line_off - self.offset[0], found.samp_off - self.offset[1]
        return found

    @property
    def file_block(self) -> tuple[int, int]:
        """`(height, width)` of the file's largest block, in its own pixels."""
        height, width = map(max, zip(*self.dataset.block_shapes, strict=True))
        return height, width

    def on_file(self, ranges: Ranges) -> Ranges:
        """Rows and columns of the grid as those of the file."""
        (top, bottom), (left, right) = ranges
        down, across = self.offset
        return (top + down, bottom + down), (left + across, right + across)

    @property
    def is_regridded(self) -> bool:
        """Whether windows are made from others on the file's grid, and not read as they lie."""
        return False

    def footprint(self, window: tuple[int, int]) -> tuple[int, int]:
        """Height and width in the file's pixels of what a window is made from."""
        return window

    @property
    def piece_bytes(self) -> int:
        """Of what is regridded at once, before and after, bytes."""
        return 0

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it is of, where they are several, in the order in which they lie over each other."""
        return ()

    @property
    def whole(self) -> Any:
        """An open dataset of all its pixels, for GDAL's own algorithms; metadata are those of `dataset`."""
        return self.dataset

    @property
    def has_holes(self) -> bool:
        """Whether blocks are missing, as all of their pixels are nodata."""
        return self.table is not None and self.table.has_holes

    def beside_bytes(self, pixels: int, bands: int) -> int:
        """What a reader holds of its own beside a block of so many pixels and bands."""
        del pixels, bands
        return 0

    def is_untrue(self, band: int, key: str) -> bool:
        """Whether a tag of the dataset's (of a band; 0: its own) is not one of all pixels; "" is a band's description."""
        del band, key
        return False

    def remarks(self) -> list[str]:
        """What is to be said of an output beside what it does not carry."""
        return []

    def heavy_on_file(self) -> list[Window]:
        """Where reading is heaviest, as far as headers tell."""
        return heavy_places(self.dataset, self.table)

    def heaviest(self) -> list[Window]:
        """Where reading is heaviest, as far as headers tell; those places that lie on the grid."""
        (down, across), (height, width) = self.offset, self.grid.shape
        found = [each._replace(top=each.top - down, left=each.left - across) for each in self.heavy_on_file()]
        return [
            each._replace(top=max(0, each.top), left=max(0, each.left))
            for each in found
            if -each.height < each.top < height and -each.width < each.left < width
        ]

    def part(self, band: int) -> tuple["RasterSource", int]:
        """The raster that a selected band is read from, and its number there."""
        return self, band

    def readers(self, count: int) -> list["Reader"]:
        """Readers, each with a handle of its own; the first one's is the source's."""
        while len(self._others) < count - 1:
            self._others.append(open_dataset(self.path))
        return [Reader(self, handle) for handle in [self.dataset, *self._others[: count - 1]]]

    def close_others(self) -> None:
        """Close the handles of other readers than the first."""
        while self._others:
            self._others.pop().close()

    def close(self) -> None:
        """Close all handles."""
        self.close_others()
        self.dataset.close()

    def describe(self) -> dict[str, Any]:
        """What a reader of a plan wants to see, JSON-able."""
        return {
            "driver": self.dataset.driver,
            "height": self.grid.shape[0],
            "width": self.grid.shape[1],
            "bands": len(self.bands),
            "dtype": self.dtype.name,
            "block": list(self.block),
            "interleave": "pixel" if self.pixel_interleaved else "band",
            "compression": self.compression or "none",
            "nodata": self.validity.describe(self.dtype.kind == "f"),
            "decoded_bytes": self.decoded_bytes,
            "source_bytes": self.source_bytes,
        } | ({"files": [Path(each).name for each in self.files]} if self.files else {})


class Reader:
    """Reads windows of a raster into blocks, with their validity.

    Args:
        source: what is read.
        handle: an open dataset that no other reader uses.
    """

    def __init__(self, source: RasterSource, handle: Any) -> None:
        self._source, self._handle, self._lock = source, handle, threading.Lock()

    def make_room(self, pixels: int, bands: int) -> None:
        """Have what `RasterSource.beside_bytes` counts of so many pixels and bands, before a probe begins; 0: let go of it."""

    def read(self, window: Window, bands: tuple[int, ...], overlap: int, into: Block) -> Block:
        """Read a window, and so many pixels around it; threads that share a reader take turns.

        Args:
            window: on the source's grid.
            bands: numbers of the bands that `into` has room for.
            overlap: pixels on each side; what lies beyond the raster's edge is 0 and not valid.
            into: `(bands, height + 2 overlap, width + 2 overlap)`; its `pixels`, `valid` and `all_valid` are set.

        Raises:
            DataError: a block that does not decode.
            MemoryExceeded: an allocator refused.
        """
        with self._lock:
            return self._read(window, bands, overlap, into)

    def _read(self, window: Window, bands: tuple[int, ...], overlap: int, into: Block) -> Block:
        inside, place = within(window, overlap, self._source.grid.shape)
        pixels, valid = into.pixels, into.valid
        if inside != place:
            pixels.fill(0)
            valid.fill(False)
            rows, columns = (slice(low - at, high - at) for (low, high), (at, _) in zip(inside, place, strict=True))
            pixels, valid = pixels[:, rows, columns], valid[:, rows, columns]
        self._read_pixels(window, inside, bands, pixels)
        rules, dtype = self._source.validity, self._source.dtype
        into.all_valid = inside == place and all(rules.always(band, dtype) for band in bands)
        if not into.all_valid:
            self._read_validity(window, inside, bands, pixels, valid)
        return into

    def _read_pixels(self, window: Window, inside: Ranges, bands: tuple[int, ...], pixels: Any) -> None:
        place = self._source.on_file(inside)
        if self._source.is_mixed:  # rasterio reads bands of one dtype at once
            for band, plane in zip(bands, pixels, strict=True):
                read(partial(self._handle.read, band, out=plane, window=place), self._source.path, window)
        else:
            read(partial(self._handle.read, bands, out=pixels, window=place), self._source.path, window)

    def _read_mask(self, window: Window, inside: Ranges, band: int) -> Any:
        place = self._source.on_file(inside)
        return read(partial(self._handle.read_masks, band, window=place), self._source.path, window)

    def _read_validity(self, window: Window, inside: Ranges, bands: tuple[int, ...], pixels: Any, valid: Any) -> None:
        rules, shared = self._source.validity, None
        for i, band in enumerate(bands):
            if band not in rules.masked:
                rules.by_value(band, pixels[i], valid[i])
                continue
            mask = shared
            if band == rules.alpha and rules.alpha_hidden:
                mask = pixels[i]  # GDAL's own mask of an alpha band is nowhere 0
            elif mask is None:
                mask = self._read_mask(window, inside, band)
                shared = mask if rules.shared else None
            np.not_equal(mask, 0, out=valid[i])
            if pixels.dtype.kind == "f":
                np.logical_and(valid[i], ~np.isnan(pixels[i]), out=valid[i])


def within(window: Window, overlap: int, shape: tuple[int, int]) -> tuple[Any, Any]:
    """The rows and columns that are there, and those that are wanted."""
    place = tuple((low - overlap, high + overlap) for low, high in window.ranges)
    inside = tuple((max(low, 0), min(high, length)) for (low, high), length in zip(place, shape, strict=True))
    return inside, place


@in_header
def band_numbers(path: str, bands: Sequence[int] | None = None) -> tuple[int, ...]:
    """The numbers of a raster's bands, or of those that are selected.

    Raises:
        SourceError: as `open_raster`.
    """
    with open_source(path) as dataset:
        return _check_bands(dataset, path, bands)


@in_header
def open_raster(path: str, bands: Sequence[int] | None = None) -> RasterSource:
    """Open a raster and check its header.

    Raises:
        SourceError: it is none, has no bands or not these, complex pixels, a header that declares more than the file holds.
        DataError: blocks that lie past the end of the file.
    """
    elsewhere.forget(path)
    dataset = open_dataset(path)
    try:
        return described(dataset, path, bands)
    except BaseException:
        dataset.close()
        raise


def described(dataset: Any, path: str, bands: Sequence[int] | None = None) -> RasterSource:
    """A dataset that is open, its header checked.

    Raises:
        SourceError, DataError: as `open_raster`; it stays open.
    """
    selected = _check_bands(dataset, path, bands)
    is_file = Path(path).is_file() and not is_packed(dataset.name)
    source_bytes = Path(path).stat().st_size if is_file else elsewhere.size(dataset.name)
    table = table_of(dataset)
    if table and source_bytes:
        check_table(dataset, path, source_bytes, table)
    block = tuple(map(max, zip(*dataset.block_shapes, strict=True)))
    interleaved = is_pixel_interleaved(dataset)
    dtype = _dtype(dataset, path, selected)
    itemsize = max(_itemsize(name) for name in dataset.dtypes)
    return RasterSource(
        path=path,
        dataset=dataset,
        grid=Grid.of(dataset),
        bands=selected,
        dtype=dtype,
        validity=Validity.of(dataset).among(selected, dtype),
        block=(block[0], block[1]),
        block_bytes=block[0] * block[1] * itemsize * (dataset.count if interleaved else 1),
        pixel_interleaved=interleaved,
        compression=compression_of(dataset),
        table=table,
        source_bytes=source_bytes,
        state=elsewhere.state(path),
    )


def _check_bands(dataset: Any, path: str, bands: Sequence[int] | None) -> tuple[int, ...]:
    """The selected bands' numbers, all of them where none are named."""
    if dataset.count == 0:
        inside = [shlex.quote(name) for name in dataset.subdatasets]  # to be pasted into a shell
        more = f" and {len(inside) - _MOST_SHOWN} more" if len(inside) > _MOST_SHOWN else ""
        hint = f"name one of what it holds: {' '.join(inside[:_MOST_SHOWN])}{more}" if inside else "it holds no pixels"
        raise SourceError(f"{path} has no bands of its own", hint=hint, path=path)
    selected = tuple(bands or range(1, dataset.count + 1))
    missing = [band for band in selected if not 1 <= band <= dataset.count]
    if missing:
        raise SourceError(
            f"{path} has no band {missing[0]}: its bands are 1 to {dataset.count}",
            hint=f"choose bands from 1 to {dataset.count}",
            path=path,
        )
    if len(set(selected)) < len(selected):
        twice = next(band for band in selected if selected.count(band) > 1)
        raise SourceError(f"band {twice} is named more than once", hint="name each band once", path=path)
    return selected


def _itemsize(name: str) -> int:
    """Bytes of a pixel; NumPy has no complex integers, of two parts each."""
    return 2 * _itemsize(name.removeprefix("complex_")) if name.startswith("complex_") else int(np.dtype(name).itemsize)


def _dtype(dataset: Any, path: str, bands: Sequence[int]) -> np.dtype[Any]:
    """The dtype that holds each pixel of the bands exactly.

    Raises:
        SourceError: there is none.
    """
    names = [dataset.dtypes[band - 1] for band in bands]
    odd = sorted(name for name in names if "complex" in name)
    if odd:
        raise SourceError(
            f"{path} has {odd[0]} pixels: complex numbers are not transformed",
            hint="extract the real part or the amplitude first (`gdal_translate` of a derived subdataset)",
            path=path,
        )
    common = np.result_type(*(np.dtype(name) for name in names))
    wide = [name for name in names if name in {"int64", "uint64"}]
    if wide and common.kind == "f":  # NumPy's rule for these, which loses digits
        alike = {name: [band for band, each in zip(bands, names, strict=True) if each == name] for name in names}
        listed = ", ".join(f"{name} in {','.join(map(str, some))}" for name, some in alike.items())
        raise SourceError(
            f"{path}: no type holds the pixels of all bands exactly: {listed}",
            hint=f"write them one type at a time, with --bands {','.join(map(str, alike[wide[0]]))} and so on",
            path=path,
        )
    return common
