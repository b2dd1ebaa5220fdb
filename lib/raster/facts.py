"""Header facts of a source, gathered in one frozen record, and the checks that a header alone allows. No pixel is read.

`plan.py` is a pure function of these facts. A file that declares more than it can hold, or whose blocks lie past its end, is
told here: before anything is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.errors import DataError, SourceError
from lib.memory.proc import process_memory
from lib.raster import windows
from lib.raster.decoders import held_bytes, is_split
from lib.raster.masks import MaskRules
from lib.units import format_bytes

__all__ = ["RasterFacts", "check_bands", "gather"]

# A block costs a TIFF at least its 4 bytes of offset; GDAL's own sparse files take 8 to 12.
_LEAST_TABLE_BYTES = 4
# Looking at a block's place costs 3 µs: up to here every one is looked at, beyond that so many, evenly spread.
_MOST_BLOCKS_CHECKED = 200_000
# Sources of a mosaic that are looked into for the shape of their blocks.
_MOSAIC_SAMPLE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterFacts:
    """What a header says of a raster.

    Attributes:
        path: as the job names it.
        driver: GDAL's name of the format.
        shape: `(height, width)` in pixels.
        count: bands in the file.
        dtype: that all selected bands are read as.
        bands: the selected bands' numbers.
        block: `(height, width)` of the largest block that a read decodes, in pixels.
        pixel_interleaved: one decoded block holds all bands.
        compression: the codec's name, "" for none.
        compressed_bytes: size of the largest compressed block, at most.
        decoder_bytes: what decoders hold beside blocks, those of all sources of a mosaic that are open at once.
        rules: how nodata is told.
        blocks: blocks in all bands of the file; 0 where not a TIFF.
        source_bytes: size of the file; 0 where it is not one.
        sources: files that a mosaic is made of, the VRT itself not counted; else 1.
        warped: a VRT that warps.
        opened_bytes: resident size of this process with the source open.
    """

    path: str
    driver: str
    shape: tuple[int, int]
    count: int
    dtype: np.dtype[Any]
    bands: tuple[int, ...]
    block: tuple[int, int]
    pixel_interleaved: bool
    compression: str
    rules: MaskRules
    compressed_bytes: int = 0
    decoder_bytes: int = 0
    blocks: int = 0
    source_bytes: int = 0
    sources: int = 1
    warped: bool = False
    opened_bytes: int = 0

    @property
    def block_bytes(self) -> int:
        """Decoded size of one block, all bands that it holds."""
        height, width = self.block
        return height * width * self.itemsize * (self.count if self.pixel_interleaved else 1)

    @property
    def itemsize(self) -> int:
        """Bytes of one pixel of one band."""
        return int(self.dtype.itemsize)

    @property
    def decoded_bytes(self) -> int:
        """Decoded size of the selected bands."""
        return self.shape[0] * self.shape[1] * len(self.bands) * self.itemsize

    def describe(self) -> dict[str, Any]:
        """The facts that a reader of a plan wants to see, JSON-able."""
        return {
            "driver": self.driver,
            "height": self.shape[0],
            "width": self.shape[1],
            "bands": len(self.bands),
            "dtype": self.dtype.name,
            "block": list(self.block),
            "interleave": "pixel" if self.pixel_interleaved else "band",
            "compression": self.compression or "none",
            "nodata": self.rules.describe(),
            "decoded_bytes": self.decoded_bytes,
            "source_bytes": self.source_bytes,
        }


@dataclass(frozen=True, slots=True)
class _Layout:
    block: tuple[int, int]
    pixel_interleaved: bool
    compression: str
    compressed_bytes: int
    decoder_bytes: int


class _Table(NamedTuple):
    """A TIFF's blocks in all bands, the largest one's compressed bytes, where in the file they end."""

    blocks: int
    largest: int
    end: int


def gather(dataset: Any, path: str, bands: Sequence[int] | None = None, *, tables_checked: bool = False) -> RasterFacts:
    """The facts of an open dataset; its header is checked on the way, its block tables unless they were already.

    Raises:
        SourceError: no bands, a band that is not there, complex pixels, a header that declares more than the file holds.
        DataError: blocks that lie past the end of the file.
    """
    selected = check_bands(dataset, path, bands)
    dtype = _dtype(dataset, path, selected)
    source_bytes = Path(path).stat().st_size if Path(path).is_file() else 0
    table = None if tables_checked else _table(dataset)
    if table and source_bytes:
        _check_table(dataset, path, source_bytes, table)
    files = _files_of(dataset)
    layout = _layout_of_sources(files, dataset, {dataset.name}) if files else _layout(dataset, path, table)
    return RasterFacts(
        path=path,
        driver=dataset.driver,
        shape=(dataset.height, dataset.width),
        count=dataset.count,
        dtype=dtype,
        bands=selected,
        block=layout.block,
        pixel_interleaved=layout.pixel_interleaved,
        compression=layout.compression,
        rules=MaskRules.of(dataset),
        compressed_bytes=layout.compressed_bytes,
        decoder_bytes=layout.decoder_bytes,
        blocks=table.blocks if table else 0,
        source_bytes=source_bytes,
        sources=max(1, len(files)),
        warped=dataset.driver == "VRT" and _is_warped(dataset),
        opened_bytes=process_memory().resident_bytes,
    )


def check_bands(dataset: Any, path: str, bands: Sequence[int] | None) -> tuple[int, ...]:
    """The selected bands' numbers, all of them where none are named.

    Raises:
        SourceError: the raster has no bands, or not these.
    """
    if dataset.count == 0:
        inside = ", ".join(dataset.subdatasets[:3])
        hint = f"name one of what it holds: {inside}" if inside else "it holds no pixels"
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


def _dtype(dataset: Any, path: str, bands: Sequence[int]) -> np.dtype[Any]:
    names = {dataset.dtypes[band - 1] for band in bands}
    odd = sorted(name for name in names if "complex" in name)
    if odd:
        raise SourceError(
            f"{path} has {odd[0]} pixels: complex numbers are not transformed",
            hint="extract the real part or the amplitude first (`gdal_translate` of a derived subdataset)",
            path=path,
        )
    return np.result_type(*(np.dtype(name) for name in names))


def _layout(dataset: Any, path: str, table: _Table | None) -> _Layout:
    height, width = map(max, zip(*dataset.block_shapes, strict=True))
    interleaved = _is_pixel_interleaved(dataset)
    compression = dataset.compression.value if dataset.compression else ""
    layout = _Layout((height, width), interleaved, compression, 0, held_bytes(dataset, path))
    if not compression:
        return layout
    # Where no table says more: as much as a block that did not compress.
    itemsize = max(np.dtype(name).itemsize for name in dataset.dtypes)
    block_bytes = height * width * itemsize * (dataset.count if interleaved else 1)
    return replace(layout, compressed_bytes=table.largest if table and table.largest else block_bytes)


def _is_pixel_interleaved(dataset: Any) -> bool:
    return bool(dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE", "").upper() == "PIXEL" and dataset.count > 1)


def _files_of(dataset: Any) -> list[str]:
    """What a VRT is made of; nothing for other formats."""
    return [name for name in dataset.files if name != dataset.name] if dataset.driver == "VRT" else []


def _layout_of_sources(files: list[str], mosaic: Any, seen: set[str]) -> _Layout:
    """The largest block among some sources of a mosaic: what a read of it decodes is theirs, not its own.

    As many decoders as sources may be open at once: those of the sampled ones, or so many of the largest. A source may be a VRT
    itself; `seen` are those on the way to this one, which GDAL refuses to read again.
    """
    from lib.raster.formats import MOST_OPEN_SOURCES, open_source

    layouts = []
    for i in windows.evenly(len(files), _MOSAIC_SAMPLE):
        try:
            with open_source(files[i]) as source:
                within = [name for name in _files_of(source) if name not in seen]
                layouts.append(
                    _layout_of_sources(within, source, seen | {files[i]})
                    if within
                    else _layout(source, files[i], _table(source))
                )
        except SourceError:
            continue  # an overview, a sidecar or a missing tile: reading it will tell
    if not layouts:
        return _layout(mosaic, mosaic.name, None)
    held = [each.decoder_bytes for each in layouts]
    most = sum(held) if len(files) <= _MOSAIC_SAMPLE else max(held) * MOST_OPEN_SOURCES
    largest = max(layouts, key=lambda each: each.block[0] * each.block[1])
    return replace(largest, compressed_bytes=max(each.compressed_bytes for each in layouts), decoder_bytes=most)


def _is_warped(dataset: Any) -> bool:
    return 'subClass="VRTWarpedDataset"' in "".join(
        dataset.tags(ns="xml:VRT").keys() | dataset.tags(ns="xml:VRT").values()
    )


def _table(dataset: Any) -> _Table | None:
    """A TIFF's block table; None for other formats, and where each entry may be a request to a server."""
    if dataset.driver != "GTiff" or not (Path(dataset.name).is_file() or is_split(dataset)):
        return None
    shape = (dataset.height, dataset.width)
    grid = shape if is_split(dataset) else dataset.block_shapes[0]
    across, per_plane = windows.steps(shape[1], grid[1]), windows.count(shape, grid)
    blocks = per_plane * (1 if _is_pixel_interleaved(dataset) else dataset.count)
    end = largest = 0
    for index in windows.evenly(blocks, _MOST_BLOCKS_CHECKED):
        plane, block = divmod(index, per_plane)
        y, x = divmod(block, across)
        offset = dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=plane + 1)
        size = dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=plane + 1)
        if offset and size:  # a sparse block has neither
            end, largest = max(end, int(offset) + int(size)), max(largest, int(size))
    return _Table(blocks, largest if blocks <= _MOST_BLOCKS_CHECKED else 0, end)


def _check_table(dataset: Any, path: str, source_bytes: int, table: _Table) -> None:
    """Hold a TIFF's block table against its size.

    Raises:
        SourceError: the file cannot hold the table.
        DataError: blocks lie past its end.
    """
    if table.blocks > 1 and table.blocks * _LEAST_TABLE_BYTES > source_bytes:
        raise SourceError(
            f"{path} declares {dataset.width} x {dataset.height} pixels in {table.blocks} blocks: its "
            f"{format_bytes(source_bytes)} cannot even hold their table",
            hint="the header is damaged or forged: fetch or export it again",
            path=path,
        )
    if table.end > source_bytes:
        raise DataError(
            f"{path} is truncated: its blocks reach to byte {table.end}, the file ends at {source_bytes}", path=path
        )
