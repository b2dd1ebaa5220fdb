"""Where a source is heaviest: a TIFF's block table, and the heaviest files of a mosaic. By headers alone; it says where to look.

What decoders hold is not told from here: a probe reads the places (`lib/raster/probe.py`) and measures.
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.diagnosis import DAMAGED_HINT
from lib.errors import DataError, SourceError
from lib.raster import windows
from lib.raster.formats import is_pixel_interleaved, open_source
from lib.raster.windows import Window
from lib.units import format_bytes

# A block costs a TIFF at least its 4 bytes of offset; GDAL's own sparse files take 8 to 12.
_LEAST_TABLE_BYTES = 4
# Looking at a block's place costs 6 µs: up to here every one is looked at, beyond that so many, evenly spread.
_MOST_BLOCKS_CHECKED = 20_000
# Opening a file of a mosaic takes 4 ms: at most so many are, evenly spread; so many of the heaviest are read.
_MOST_FILES_SEEN, _MOST_FILES_READ = 200, 8


class Table(NamedTuple):
    """A TIFF's blocks in all bands, where in the file they end, the window of the one with most bytes, and are any missing?"""

    blocks: int
    end: int
    heaviest: Window | None
    has_holes: bool = False


def _is_split(dataset: Any) -> bool:
    """Whether GDAL shows the one strip of a TIFF's band as blocks of one row."""
    return bool(
        dataset.driver == "GTiff"
        and dataset.height > 1
        and dataset.block_shapes[0] == (1, dataset.width)
        and dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1)
        and not dataset.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1)
    )


def table_of(dataset: Any) -> Table | None:
    """A TIFF's block table; None for other formats. Of a remote one GDAL fetches entries by the thousand, all once."""
    if dataset.driver != "GTiff" or not (Path(dataset.name).is_file() or dataset.name.startswith("/vsi")):
        return None
    shape = (dataset.height, dataset.width)
    grid = shape if _is_split(dataset) else dataset.block_shapes[0]
    across, per_plane = windows.steps(shape[1], grid[1]), windows.count(shape, grid)
    blocks = per_plane * (1 if is_pixel_interleaved(dataset) else dataset.count)
    end = largest = 0
    heaviest, has_holes = None, False
    for index in windows.evenly(blocks, _MOST_BLOCKS_CHECKED):
        plane, block = divmod(index, per_plane)
        y, x = divmod(block, across)
        offset = dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=plane + 1)
        size = dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=plane + 1)
        if offset and size:  # a sparse block has neither
            end = max(end, int(offset) + int(size))
            if int(size) > largest:
                largest, heaviest = int(size), windows.nth(shape, grid, block)
        else:
            has_holes = True
    return Table(blocks, end, heaviest, has_holes)


def heavy_places(dataset: Any, table: Table | None) -> list[Window]:
    """Where reading is heaviest, as far as headers tell: a TIFF's largest block, a mosaic's files with the largest blocks."""
    if table is not None:
        return [table.heaviest] if table.heaviest else []
    if dataset.driver != "VRT" or not Path(dataset.name).is_file():
        return []
    places = list(dict(_mosaic(Path(dataset.name))).items())
    seen = [places[i] for i in windows.evenly(len(places), _MOST_FILES_SEEN)]
    weighed = sorted(((_block_bytes(name), place) for name, place in seen), reverse=True)
    return [place for size, place in weighed[:_MOST_FILES_READ] if size]


def _mosaic(path: Path) -> list[tuple[str, Window]]:
    """Each file of a VRT's first band and where it lies; read as a stream, so that 100,000 files are not held as a tree."""
    found: list[tuple[str, Window]] = []
    try:
        for _, element in ET.iterparse(path):  # noqa: S314 - GDAL has read it as its own; expat bounds what entities grow to
            if element.tag.endswith("Source") and (name := element.find("SourceFilename")) is not None:
                place = element.find("DstRect")
                if place is not None and name.text:
                    is_relative = name.get("relativeToVRT") == "1"
                    file = str(path.parent / name.text) if is_relative else name.text
                    top, left, height, width = (float(place.get(key, 0)) for key in ("yOff", "xOff", "ySize", "xSize"))
                    found.append((file, Window(int(top), int(left), max(1, int(height)), max(1, int(width)))))
            if element.tag == "VRTRasterBand" or element.tag.endswith("Source"):
                element.clear()
    except (ET.ParseError, OSError, ValueError):
        return []
    return found


def _block_bytes(name: str) -> int:
    """Decoded size of a file's largest block with all its bands; 0 where it does not open: reading it will tell."""
    try:
        with open_source(name) as dataset:
            pixels: int = max(height * width for height, width in dataset.block_shapes)
            return pixels * sum(int(np.dtype(each).itemsize) for each in dataset.dtypes)
    except SourceError:
        return 0


def check_table(dataset: Any, path: str, source_bytes: int, table: Table) -> None:
    """Hold a TIFF's block table against its size.

    Raises:
        SourceError: the file cannot even hold the table.
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
            f"{path} is truncated: its blocks reach to byte {table.end}, the file ends at {source_bytes}",
            hint=DAMAGED_HINT,
            path=path,
        )
