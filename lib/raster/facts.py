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
from lib.raster.blocks import Blocks, Table, blocks_of, table_of
from lib.raster.carried import carried_bytes
from lib.raster.masks import MaskRules
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
        read: what reading it decodes.
        rules: how nodata is told.
        blocks: blocks in all bands of the file; 0 where not a TIFF.
        source_bytes: size of the file; 0 where it is not one.
        carried_bytes: size of the tags that an output takes over, as GDAL's XML.
        opened_bytes: resident size of this process with the source open.
        opening_growth_bytes: how far its peak rose while the source was opened, `mapped_bytes` included.
        mapped_bytes: libraries' pages that came to be resident then, once for all.
    """

    path: str
    driver: str
    shape: tuple[int, int]
    count: int
    dtype: np.dtype[Any]
    bands: tuple[int, ...]
    read: Blocks
    rules: MaskRules
    blocks: int = 0
    source_bytes: int = 0
    carried_bytes: int = 0
    opened_bytes: int = 0
    opening_growth_bytes: int = 0
    mapped_bytes: int = 0

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
            "block": list(self.read.block),
            "interleave": "pixel" if self.read.pixel_interleaved else "band",
            "compression": self.read.compression or "none",
            "nodata": self.rules.describe(),
            "decoded_bytes": self.decoded_bytes,
            "source_bytes": self.source_bytes,
            "sources": self.read.sources,
            "sources_seen": self.read.sources_seen,
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
        read=read,
        rules=MaskRules.of(dataset),
        blocks=table.blocks if table else 0,
        source_bytes=source_bytes,
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
