"""Several aligned rasters as one: the job's own bands, then those of each further source, read window by window from each.

Only bands that are named are read. Files lie on one grid, or it is said how they do not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.errors import SourceError
from lib.raster.block import Block
from lib.raster.grid import Grid
from lib.raster.sources.dataset import RasterSource, Reader
from lib.raster.sources.mosaic import open_files
from lib.raster.validity import Validity
from lib.raster.windows import Window

# Of a pixel: what coordinates that went through text may differ by.
_ALIKE = 1e-3


@dataclass(slots=True, kw_only=True)
class Stack(RasterSource):
    """Several open rasters; `bands` number what is read of all of them, from 1, and `dataset` is the first one's.

    Attributes:
        parts: the rasters, each with its own selection of bands.
    """

    parts: Sequence[RasterSource]
    _places: list[tuple[RasterSource, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Number the bands."""
        self._places = [(part, band) for part in self.parts for band in part.bands]

    @property
    def dtypes(self) -> list[str]:
        """Each band's own dtype."""
        return [name for part in self.parts for name in part.dtypes]

    @property
    def reads_in_parallel(self) -> bool:
        """Whether all of them do."""
        return all(part.reads_in_parallel for part in self.parts)

    @property
    def network_cache_bytes(self) -> int:
        """GDAL has one for all of them."""
        return max(part.network_cache_bytes for part in self.parts)

    def check_unchanged(self) -> None:
        """Each is what it was when it was opened."""
        for part in self.parts:
            part.check_unchanged()

    @property
    def files(self) -> tuple[str, ...]:
        """Those of all that are of several."""
        return tuple(file for part in self.parts for file in part.files)

    @property
    def is_aligned(self) -> bool:
        """Whether all are."""
        return all(part.is_aligned for part in self.parts)

    def beside_bytes(self, pixels: int, bands: int) -> int:
        """What the readers of all hold."""
        return sum(part.beside_bytes(pixels, min(bands, len(part.bands))) for part in self.parts)

    def is_untrue(self, band: int, key: str) -> bool:
        """As of the first, whose tags are taken."""
        return self.parts[0].is_untrue(band, key)

    def remarks(self) -> list[str]:
        """Those of the first."""
        return self.parts[0].remarks()

    def heavy_on_file(self) -> list[Window]:
        """Where any is."""
        return [place for part in self.parts for place in part.heavy_on_file()]

    def part(self, band: int) -> tuple[RasterSource, int]:
        """The raster that a band is read from, and its number there."""
        return self._places[band - 1]

    def readers(self, count: int) -> list["Reader"]:
        """Readers, each with handles of its own."""
        of_parts = [part.readers(count) for part in self.parts]
        return [_StackReader(self, list(readers)) for readers in zip(*of_parts, strict=True)]

    def close_others(self) -> None:
        """Close the handles of other readers than the first."""
        for part in self.parts:
            part.close_others()

    def close(self) -> None:
        """Close all handles."""
        for part in self.parts:
            part.close()


class _StackReader(Reader):
    """Reads a window from each raster."""

    def __init__(self, stack: Stack, readers: list[Reader]) -> None:
        super().__init__(stack, None)
        self._stack, self._readers = stack, readers

    def make_room(self, pixels: int, bands: int) -> None:
        """See `Reader.make_room`."""
        for part, reader in zip(self._stack.parts, self._readers, strict=True):
            reader.make_room(pixels, min(bands, len(part.bands)))

    def read(self, window: Window, bands: tuple[int, ...], overlap: int, into: Block) -> Block:
        """See `Reader.read`; `bands` are those of the stack."""
        all_valid = True
        at = 0
        for part, reader in zip(self._stack.parts, self._readers, strict=True):
            mine = [self._stack.part(band)[1] for band in bands if self._stack.part(band)[0] is part]
            some = slice(at, at + len(mine))
            at += len(mine)
            if mine:
                block = Block(window, tuple(mine), into.pixels[some], into.valid[some])
                reader.read(window, tuple(mine), overlap, block)
                if block.all_valid:
                    block.valid.fill(True)
                all_valid = all_valid and block.all_valid
        into.all_valid = all_valid
        return into


def open_stack(sources: Iterable[tuple[str, Sequence[int], Sequence[str]]]) -> Stack:
    """Open rasters, each by its path with the bands that are read of it and what lies over it, and check that they are aligned.

    Raises:
        SourceError: as `open_raster`; they are not aligned.
    """
    parts: list[RasterSource] = []
    try:
        for path, bands, over in sources:
            parts.append(open_files(path, bands, over))
            _check_aligned(parts[0], parts[-1])
        first, dtype = parts[0], np.result_type(*(part.dtype for part in parts))
        names = [name for part in parts for name in part.dtypes]
        return Stack(
            path=first.path,
            dataset=first.dataset,
            grid=first.grid,
            bands=tuple(range(1, len(names) + 1)),
            dtype=dtype,
            validity=Validity((), (), ()),
            block=max((part.block for part in parts), key=lambda block: block[0] * block[1]),
            block_bytes=max(part.block_bytes for part in parts),
            pixel_interleaved=any(part.pixel_interleaved for part in parts),
            compression=first.compression,
            table=first.table,
            source_bytes=sum(part.source_bytes for part in parts),
            parts=parts,
        )
    except BaseException:
        for part in parts:
            part.close()
        raise


def _check_aligned(first: RasterSource, other: RasterSource) -> None:
    if how := _differ(first.grid, other.grid):
        raise SourceError(
            f"{other.path} does not lie on the grid of {first.path}: {how}",
            hint="bring it there first: `swath raster SRC DST --operation warp`, or `gdalwarp -te … -ts …`",
            path=other.path,
        )


def _differ(one: Grid, other: Grid) -> str:
    """How two grids differ; "" where they are the same."""
    if one.shape != other.shape:
        (height, width), (mine, wide) = other.shape, one.shape
        return f"it has {width} x {height} pixels, not {wide} x {mine}"
    if (one.crs is None) != (other.crs is None) or (one.crs and one.crs != other.crs):
        return f"its CRS is {_name(other.crs)}, not {_name(one.crs)}"
    if one.points or other.points:
        same = [(p.row, p.col, p.x, p.y) for p in one.points] == [(p.row, p.col, p.x, p.y) for p in other.points]
        return "" if same else "its ground control points are others"
    if (one.transform is None) != (other.transform is None):
        return "only one of them is georeferenced"
    if one.transform is None:
        return ""
    pixel = max(abs(one.transform.a), abs(one.transform.b), abs(one.transform.d), abs(one.transform.e))
    corners = [(0, 0), (one.shape[1], 0), (0, one.shape[0]), (one.shape[1], one.shape[0])]
    apart = max(
        abs(a - b) for corner in corners for a, b in zip(one.transform @ corner, other.transform @ corner, strict=True)
    )
    return "" if apart <= _ALIKE * pixel else f"its corners are up to {apart / pixel:.3g} pixels away"


def _name(crs: Any) -> str:
    return "none" if crs is None else str(crs.to_string())[:60]
