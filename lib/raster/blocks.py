"""What reading a raster decodes: its blocks, those of a mosaic's files, those of a mask beside it. From headers alone.

What decoders hold beside blocks is in `decoders.py`, what all of it takes in `terms.py`.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.errors import SourceError
from lib.raster import windows
from lib.raster.decoders import (
    compression_of,
    held_bytes,
    is_decoded_apart,
    is_split,
    largest_page_bytes,
    least_cache_bytes,
)
from lib.raster.formats import MOST_OPEN_SOURCES, open_source
from lib.raster.vrt import NO_RECIPE, Recipe, read_recipe

__all__ = ["Blocks", "Table", "blocks_of", "table_of"]

# Looking at a block's place costs 3 µs: up to here every one is looked at, beyond that so many, evenly spread.
_MOST_BLOCKS_CHECKED = 200_000
# Files of a mosaic that are looked into: opening one and its table of some blocks takes 4 ms, so about two seconds.
MOST_FILES_SEEN = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """What a read decodes.

    Attributes:
        block: `(height, width)` of the largest block, in pixels.
        block_bytes: decoded size of the largest block, all bands that it holds, masks' blocks included.
        cached_bytes: what GDAL's cache gets at a time: of a GeoTIFF's block of all bands, those of one.
        pixel_interleaved: that block holds all bands.
        compression: the codec's name, "" for none.
        last_bytes: what an open file keeps of the block read last: as it was in the file, its bands before they were parted.
        decoder_bytes: what decoders hold beside blocks, those of all files that are open at once.
        others_bytes: `last_bytes` of the other files that are open at once.
        whole_bytes: decoded size of all blocks; 0 where not all files were seen.
        least_cache_bytes: the GDAL cache below which blocks are decoded again and again.
        uneven: blocks of different sizes come among each other.
        sources: files that a mosaic is made of, the VRT itself not counted; else 1.
        sources_seen: those of them that were looked into.
        recipe: how a VRT reads its files.
    """

    block: tuple[int, int]
    block_bytes: int
    cached_bytes: int
    pixel_interleaved: bool
    compression: str
    last_bytes: int = 0
    decoder_bytes: int = 0
    others_bytes: int = 0
    whole_bytes: int = 0
    least_cache_bytes: int = 0
    uneven: bool = False
    sources: int = 1
    sources_seen: int = 1
    recipe: Recipe = NO_RECIPE

    @property
    def kept_bytes(self) -> int:
        """What an open file keeps."""
        return self.last_bytes + self.decoder_bytes + self.others_bytes


class Table(NamedTuple):
    """A TIFF's blocks in all bands, the largest one's compressed bytes, where in the file they end."""

    blocks: int
    largest: int
    end: int


def blocks_of(dataset: Any, path: str, table: Table | None) -> Blocks:
    """What reading an open raster decodes; for a VRT, what reading its files does."""
    found = _of_files(dataset, MOST_FILES_SEEN, {dataset.name}) if dataset.driver == "VRT" else None
    return _with_mask_file(found or _of_file(dataset, path, table), dataset)


def _of_file(dataset: Any, path: str, table: Table | None) -> Blocks:
    height, width = map(max, zip(*dataset.block_shapes, strict=True))
    interleaved = is_pixel_interleaved(dataset)
    itemsize = max(np.dtype(name).itemsize for name in dataset.dtypes)
    block_bytes = height * width * itemsize * (dataset.count if interleaved else 1)
    compression = compression_of(dataset)
    down, across = windows.steps(dataset.height, height) * height, windows.steps(dataset.width, width) * width
    # Where no table says more: as much as a block that did not compress.
    largest = table.largest if table else largest_page_bytes(dataset)
    compressed = (largest or block_bytes) if compression else 0
    last_bytes = compressed + (block_bytes if interleaved else _bits_packed_bytes(dataset, height * width))
    return Blocks(
        block=(height, width),
        block_bytes=block_bytes,
        cached_bytes=block_bytes // (dataset.count if interleaved and dataset.driver == "GTiff" else 1),
        pixel_interleaved=interleaved,
        compression=compression,
        last_bytes=0 if is_decoded_apart(dataset) else last_bytes,
        decoder_bytes=held_bytes(dataset, path),
        whole_bytes=down * across * itemsize * dataset.count,
        least_cache_bytes=least_cache_bytes(dataset),
    )


def _bits_packed_bytes(dataset: Any, pixels: int) -> int:
    """A TIFF's block of samples of 1, 4, 12 or 20 bits, as GDAL holds it beside the one of whole bytes; 0 where there is none."""
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") if dataset.driver == "GTiff" else None
    return pixels * int(bits) * 3 // 16 if bits else 0  # and half of it again, measured


def _with_mask_file(blocks: Blocks, dataset: Any) -> Blocks:
    """A `.msk` beside a raster is a dataset of its own, with its own blocks and decoder."""
    beside = next((name for name in dataset.files if name == f"{dataset.name}.msk"), None)
    if beside is None:
        return blocks
    with open_source(beside) as opened:
        mask = _of_file(opened, beside, table_of(opened))
    return replace(
        blocks,
        block_bytes=max(blocks.block_bytes, mask.block_bytes),
        cached_bytes=max(blocks.cached_bytes, mask.cached_bytes),
        whole_bytes=blocks.whole_bytes + mask.whole_bytes,
        uneven=blocks.uneven or blocks.block_bytes != mask.block_bytes,
        decoder_bytes=blocks.decoder_bytes + mask.decoder_bytes,
        others_bytes=blocks.others_bytes + mask.last_bytes,
    )


def _of_files(mosaic: Any, most: int, on_the_way: set[str]) -> Blocks | None:
    """What reading a VRT's files decodes; None where there are none that can be opened.

    At most `most` files are looked into, evenly spread. A file may be a VRT itself, which shares that bound; `on_the_way` are
    those that lead to this one, which GDAL refuses to read again.
    """
    files = [name for name in mosaic.files if name not in on_the_way]
    found, largest = [], (1, 1)
    for i in windows.evenly(len(files), most):
        try:
            with open_source(files[i]) as source:
                within = None
                if source.driver == "VRT":
                    within = _of_files(source, max(1, most // len(files)), on_the_way | {files[i]})
                found.append(within or _with_mask_file(_of_file(source, files[i], table_of(source)), source))
                largest = max(largest, source.shape, key=lambda shape: shape[0] * shape[1])
        except SourceError:
            continue  # an overview, a sidecar or a missing tile: reading it will tell
    if not found:
        return None
    recipe = _joined(read_recipe(mosaic), found, largest[0] * largest[1] / (mosaic.height * mosaic.width))
    seen = min(len(files), most)
    whole = (
        sum(each.whole_bytes for each in found) if seen == len(files) and all(each.whole_bytes for each in found) else 0
    )
    return replace(_open_at_once(found), whole_bytes=whole, sources=len(files), sources_seen=seen, recipe=recipe)


def _open_at_once(found: Sequence[Blocks]) -> Blocks:
    """Of the files of a mosaic, those that keep most: so many as may be open at once."""
    first, *others = heapq.nlargest(MOST_OPEN_SOURCES, found, key=lambda each: each.kept_bytes)
    return replace(
        max(found, key=lambda each: each.block_bytes),
        cached_bytes=max(each.cached_bytes for each in found),
        last_bytes=first.last_bytes,
        decoder_bytes=first.decoder_bytes + sum(each.decoder_bytes for each in others),
        others_bytes=first.others_bytes + sum(each.last_bytes + each.others_bytes for each in others),
        uneven=any(each.uneven or each.block_bytes != first.block_bytes for each in found),
        least_cache_bytes=max(each.least_cache_bytes for each in found),
    )


def _joined(recipe: Recipe, found: Sequence[Blocks], whole: float) -> Recipe:
    """A VRT's recipe with those of the VRTs in it; `whole` is the scale of a file without a rectangle."""
    scale = max(recipe.scale, whole if recipe.unplaced else 1.0)
    inner = [each.recipe for each in found]
    return replace(
        recipe,
        warped=recipe.warped or any(each.warped for each in inner),
        scale=scale * max(each.scale for each in inner),
        averaged=max(scale * bool(recipe.averaged), *(scale * each.averaged for each in inner)),
        computed_bytes=recipe.computed_bytes + max(each.computed_bytes for each in inner),
        resampled_itemsize=max(recipe.resampled_itemsize, *(each.resampled_itemsize for each in inner)),
    )


def is_pixel_interleaved(dataset: Any) -> bool:
    """Whether one block holds all bands."""
    return bool(dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE", "").upper() == "PIXEL" and dataset.count > 1)


def table_of(dataset: Any) -> Table | None:
    """A TIFF's block table; None for other formats, and where each entry may be a request to a server."""
    if dataset.driver != "GTiff" or not (Path(dataset.name).is_file() or is_split(dataset)):
        return None
    shape = (dataset.height, dataset.width)
    grid = shape if is_split(dataset) else dataset.block_shapes[0]
    across, per_plane = windows.steps(shape[1], grid[1]), windows.count(shape, grid)
    blocks = per_plane * (1 if is_pixel_interleaved(dataset) else dataset.count)
    end = largest = 0
    for index in windows.evenly(blocks, _MOST_BLOCKS_CHECKED):
        plane, block = divmod(index, per_plane)
        y, x = divmod(block, across)
        offset = dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=plane + 1)
        size = dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=plane + 1)
        if offset and size:  # a sparse block has neither
            end, largest = max(end, int(offset) + int(size)), max(largest, int(size))
    return Table(blocks, largest if blocks <= _MOST_BLOCKS_CHECKED else 0, end)
