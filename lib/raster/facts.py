"""Header facts of a source, gathered in one frozen record, and the checks that a header alone allows. No pixel is read.

`plan.py` is a pure function of these facts. A file that declares more than it can hold, or whose blocks lie past its end, is
told here: before anything is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import DataError, SourceError
from lib.memory.proc import process_memory
from lib.raster.blocks import Table, blocks_of, table_of
from lib.raster.carried import carried_bytes
from lib.raster.masks import MaskRules
from lib.raster.vrt import NO_RECIPE, Recipe
from lib.units import format_bytes

__all__ = ["RasterFacts", "check_bands", "gather"]

# A block costs a TIFF at least its 4 bytes of offset; GDAL's own sparse files take 8 to 12.
_LEAST_TABLE_BYTES = 4


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
        rules: how nodata is told.
        largest_block_bytes: decoded size of the largest block that a read of pixels or masks decodes; 0: of the raster's own.
        cached_bytes: what GDAL's cache gets of blocks at a time; 0: the largest block.
        compressed_bytes: size of the largest compressed block, at most.
        last_bytes: what an open file keeps of the block read last.
        decoder_bytes: what decoders hold beside blocks, those of all sources of a mosaic that are open at once.
        others_bytes: what the other sources of a mosaic that are open at once keep of their last blocks.
        whole_bytes: decoded size of all blocks, masks' included; 0 where not known.
        least_cache_bytes: the GDAL cache below which blocks are decoded again and again; 0 for most formats.
        uneven: blocks of different sizes come among each other: a mosaic's, a mask file's.
        blocks: blocks in all bands of the file; 0 where not a TIFF.
        source_bytes: size of the file; 0 where it is not one.
        sources: files that a mosaic is made of, the VRT itself not counted; else 1.
        sources_seen: those of them that were looked into.
        recipe: how a VRT reads its sources.
        carried_bytes: size of the tags that an output takes over, as GDAL's XML.
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
    largest_block_bytes: int = 0
    cached_bytes: int = 0
    compressed_bytes: int = 0
    last_bytes: int = 0
    decoder_bytes: int = 0
    others_bytes: int = 0
    whole_bytes: int = 0
    least_cache_bytes: int = 0
    uneven: bool = False
    blocks: int = 0
    source_bytes: int = 0
    sources: int = 1
    sources_seen: int = 1
    recipe: Recipe = NO_RECIPE
    carried_bytes: int = 0
    opened_bytes: int = 0

    @property
    def block_bytes(self) -> int:
        """Decoded size of the largest block, all bands that it holds."""
        height, width = self.block
        own = height * width * self.itemsize * (self.count if self.pixel_interleaved else 1)
        return self.largest_block_bytes or own

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
            "sources": self.sources,
            "sources_seen": self.sources_seen,
        }


def gather(dataset: Any, path: str, bands: Sequence[int] | None = None, *, tables_checked: bool = False) -> RasterFacts:
    """The facts of an open dataset; its header is checked on the way, its block tables unless they were already.

    Raises:
        SourceError: no bands, a band that is not there, complex pixels, a header that declares more than the file holds.
        DataError: blocks that lie past the end of the file.
    """
    selected = check_bands(dataset, path, bands)
    dtype = _dtype(dataset, path, selected)
    source_bytes = Path(path).stat().st_size if Path(path).is_file() else 0
    table = None if tables_checked else table_of(dataset)
    if table and source_bytes:
        _check_table(dataset, path, source_bytes, table)
    read = blocks_of(dataset, path, table)
    opened = process_memory().resident_bytes
    return RasterFacts(
        path=path,
        driver=dataset.driver,
        shape=(dataset.height, dataset.width),
        count=dataset.count,
        dtype=dtype,
        bands=selected,
        block=read.block,
        pixel_interleaved=read.pixel_interleaved,
        compression=read.compression,
        rules=MaskRules.of(dataset),
        largest_block_bytes=read.block_bytes,
        cached_bytes=read.cached_bytes,
        compressed_bytes=read.compressed_bytes,
        last_bytes=read.last_bytes,
        decoder_bytes=read.decoder_bytes,
        others_bytes=read.others_bytes,
        whole_bytes=read.whole_bytes,
        least_cache_bytes=read.least_cache_bytes,
        uneven=read.uneven,
        blocks=table.blocks if table else 0,
        source_bytes=source_bytes,
        sources=read.sources,
        sources_seen=read.sources_seen,
        recipe=read.recipe,
        carried_bytes=0 if tables_checked else carried_bytes(dataset, selected),
        opened_bytes=opened,
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


def _check_table(dataset: Any, path: str, source_bytes: int, table: Table) -> None:
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
