"""What a format's decoder holds beside GDAL's blocks: bytes, told from headers alone. No pixel is read.

GDAL shows many formats as blocks of one row whose decoder keeps a whole strip, tile or image. What a block itself takes is in
`terms.py`. The numbers were measured: VmHWM of a fresh process after reads of windows, less its size with the source open, with
GDAL 3.12; jobs on such sources held their contract with GDAL 3.9, too.
"""

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from rasterio.enums import MaskFlags

from lib.units import MIB

__all__ = ["compression_of", "held_bytes", "is_decoded_apart", "is_split", "largest_page_bytes", "least_cache_bytes"]

# Formats whose decoder was measured to hold no more than a block: 0.3 to 1.5 MiB at 16 million pixels.
_BY_BLOCK = frozenset({"BIGGIF", "BMP", "GIF", "HFA", "NITF", "PCIDSK", "VRT"})
_GRIB_CACHE_BYTES = 100_000_000
# netCDF-C's default cache of chunks, 16 MiB since 4.9: 8.3 MiB measured at 11.5 MiB of compressed uint16.
_CHUNK_CACHE_BYTES = 16 * MIB
_CHUNKED = frozenset({"netCDF", "HDF5", "HDF5Image", "BAG"})
# Of the decoded strip: LERC has its values and a mask of one bit a pixel, and, where packed again, what was packed, at most the
# values' size; WebP and JPEG XL have their values.
_WHOLE_STRIP = {"LERC": 9 / 8, "LERC_DEFLATE": 17 / 8, "LERC_ZSTD": 17 / 8, "WEBP": 1.0, "JXL": 1.0}
# These keep what they have decoded last: LZMA at its level 6 so much; zstd as its frames say, 4 MiB at GDAL's level 9.
_LZMA_WINDOW_BYTES = _SHORT_WINDOW_BYTES = 8 * MIB
_ZSTD_MAGIC, _ZSTD_MOST_WINDOW_BYTES = 0xFD2FB528, 128 * MIB
# GDAL's PNG driver reads interlaced images in parts of at most so much.
_PNG_PART_BYTES = 100_000_000
# OpenJPEG decodes to int32. A tile of which parts are read takes, of a part, 6 int32 of one band and 3 more for two more; of
# every value in it 0.4 bytes for its code blocks' records; and its compressed bytes.
_INT32 = 4
_CODE_BLOCK_BYTES = 0.4
_MRF_MOST_INDEX_BYTES = 3 * MIB  # read at once
_SOC_SIZ = b"\xff\x4f\xff\x51"
_SOT = b"\xff\x90"
_SOF, _SOF_PROGRESSIVE, _SOS = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA}), frozenset({0xC2, 0xCA}), 0xDA


def held_bytes(dataset: Any, path: str) -> int:
    """What the decoder of an open dataset holds when some windows of it have been read, bytes.

    Args:
        dataset: the open source.
        path: its name; what is no local file is taken for the worst that its format may be.
    """
    if (told := _BY_FORMAT.get(dataset.driver)) is not None:
        return told(dataset, path)
    if dataset.driver in _CHUNKED:
        return min(_decoded_bytes(dataset), _CHUNK_CACHE_BYTES)
    if dataset.driver in _BY_BLOCK and compression_of(dataset) != "JPEG2000":
        return 0
    # An unknown format whose file is smaller than its pixels has a decoder, which may hold them all.
    decoded, size = _decoded_bytes(dataset), _file_bytes(path)
    return decoded if size is None or size < decoded else 0


def is_decoded_apart(dataset: Any) -> bool:
    """Whether `held_bytes` has all that a decoder holds, the block read last and its compressed bytes among it."""
    return bool(dataset.driver == "JP2OpenJPEG")


def is_split(dataset: Any) -> bool:
    """Whether GDAL shows the one strip of a TIFF's band as blocks of one row: libtiff then has no second block."""
    return bool(
        dataset.driver == "GTiff"
        and dataset.compression
        and dataset.height > 1
        and dataset.block_shapes[0] == (1, dataset.width)
        and dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1)
        and not dataset.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1)
    )


def _decoded_bytes(dataset: Any, shape: tuple[int, int] | None = None) -> int:
    return _pixels(shape or dataset.shape) * sum(int(np.dtype(name).itemsize) for name in dataset.dtypes)


def _pixels(shape: tuple[int, int]) -> int:
    return int(shape[0]) * int(shape[1])


def _file_bytes(path: str) -> int | None:
    """None where it is no local file."""
    return Path(path).stat().st_size if Path(path).is_file() else None


def compression_of(dataset: Any) -> str:
    """GDAL's name of the codec, upper case; "" for none. rasterio knows not all of them."""
    name = str(dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")).upper()
    return "" if name == "NONE" else name


def _tiff_bytes(dataset: Any, path: str) -> int:
    """What a codec keeps beside a strip's or tile's compressed bytes, which are a term of their own."""
    strip = _decoded_bytes(dataset, dataset.shape if is_split(dataset) else dataset.block_shapes[0])
    if dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") != "PIXEL":
        strip //= dataset.count
    compression = compression_of(dataset)
    window = min(strip, _LZMA_WINDOW_BYTES) if compression == "LZMA" else 0
    if compression == "ZSTD":
        window = _zstd_window_bytes(dataset, path, strip)
    return int(strip * _WHOLE_STRIP.get(compression, 0)) + window


def _zstd_window_bytes(dataset: Any, path: str, strip: int) -> int:
    """The window that a zstd frame asks for, by the header of the first block that there is (RFC 8878, 3.1.1.1).

    A decoder allocates all of it, however short the frame, and touches no more than the strip. A long one counts whole, for
    RLIMIT_AS knows no such difference.
    """
    place = next(
        (
            int(offset)
            for x in range(-(-dataset.width // dataset.block_shapes[0][1]))
            if (offset := dataset.get_tag_item(f"BLOCK_OFFSET_{x}_0", "TIFF", bidx=1))
        ),
        None,
    )
    if place is None or not Path(path).is_file():
        return min(strip, _ZSTD_MOST_WINDOW_BYTES)
    with Path(path).open("rb") as file:
        file.seek(place)
        header = file.read(6)
    if len(header) < 6 or struct.unpack("<I", header[:4])[0] != _ZSTD_MAGIC:  # noqa: PLR2004 - no frame: reading will tell
        return min(strip, _ZSTD_MOST_WINDOW_BYTES)
    if header[4] & 0x20:  # a single segment, with no window but its content
        return strip
    exponent, mantissa = divmod(header[5], 8)
    base = 1 << (10 + exponent)
    window = base + base // 8 * mantissa
    return min(window, strip) if window <= _SHORT_WINDOW_BYTES else min(window, _ZSTD_MOST_WINDOW_BYTES)


def _jpeg_bytes(dataset: Any, path: str) -> int:
    """Coefficients of the whole image, where it has more than one scan: two bytes each, chroma as far as it is sampled.

    Markers: ITU-T T.81, annex B: a frame header (SOF) has lines, samples a line, and components with their sampling factors; the
    first scan header (SOS) says how many components it has. libjpeg keeps an image of several scans whole (its jdapimin.c,
    `has_multiple_scans`). An embedded mask is kept as one bit a pixel.
    """
    pixels = _pixels(dataset.shape)
    mask = pixels // 8 if MaskFlags.per_dataset in dataset.mask_flag_enums[0] else 0
    whole = pixels * int(dataset.count) * 2 + mask
    if not Path(path).is_file():
        return whole
    with Path(path).open("rb") as file:
        frame: bytes = b""
        progressive = False
        file.read(2)
        while len(marker := file.read(4)) == 4 and marker[0] == 0xFF:  # noqa: PLR2004
            code, length = marker[1], struct.unpack(">H", marker[2:])[0]
            body = file.read(max(0, length - 2))
            if code in _SOF:
                frame, progressive = body, code in _SOF_PROGRESSIVE
            if code == _SOS and frame:
                return mask + (_coefficients(frame) * 2 if progressive or body[0] < frame[5] else 0)
    return whole


def _coefficients(frame: bytes) -> int:
    """How many a frame has; `frame` is the body of its header."""
    height, width = struct.unpack(">HH", frame[1:5])
    factors = [(each >> 4, each & 15) for each in frame[7 : 6 + 3 * frame[5] : 3]]
    widest, tallest = (max(each) for each in zip(*factors, strict=True))
    return sum(height * width * across * down // (widest * tallest) for across, down in factors)


def _png_bytes(dataset: Any, path: str) -> int:
    """An interlaced image, or a part of it. Told by the last byte of IHDR, the first chunk (PNG specification, 11.2.2)."""
    if Path(path).is_file():
        with Path(path).open("rb") as file:
            if file.read(29)[28:] == b"\0":
                return 0
    return min(_decoded_bytes(dataset), _PNG_PART_BYTES)


def _mrf_bytes(dataset: Any, _: str) -> int:
    """Buffers for a page, beside its blocks and what is read of the file.

    Measured, in pages: 1.7 to 3.5 in all of one band; of all bands, with a cache of a page, 3.0 to 4 with it: where
    windows are written, too, up to 4.6 (`terms.py`).
    """
    return least_cache_bytes(dataset) // 2 or _block_bytes(dataset) * 3 // 2


def least_cache_bytes(dataset: Any) -> int:
    """The GDAL cache below which a decoder would decode blocks again and again; 0 for most.

    An MRF whose pages hold all bands, asked for one band's block, makes those of the others: below a page each drops one that is
    asked for next, in heap that is not used again: 6.9 to 8 pages.
    """
    pixel = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL" and dataset.count > 1
    return _block_bytes(dataset) * int(dataset.count) if dataset.driver == "MRF" and pixel else 0


def largest_page_bytes(dataset: Any) -> int:
    """Compressed size of an MRF's largest page by the index beside it, bytes; 0 where that does not tell.

    Its index is of pages' offsets and sizes, 8 bytes each, big-endian (MRF specification, "MRF Index File"). A caching MRF's has
    only the pages that were asked for, and another file may be named for it.
    """
    if dataset.driver != "MRF" or not Path(dataset.name).is_file():
        return 0
    index = Path(dataset.name).with_suffix(".idx")
    if not index.is_file() or index.stat().st_size > _MRF_MOST_INDEX_BYTES:
        return 0
    if re.search(rb"<(CachedSource|IndexFile)", Path(dataset.name).read_bytes()):
        return 0
    sizes = np.fromfile(index, ">u8")[1::2]
    return int(sizes.max()) if len(sizes) and sizes.all() else 0


def _block_bytes(dataset: Any) -> int:
    """A block of one band; of an MRF, a page."""
    return _pixels(dataset.block_shapes[0]) * max(int(np.dtype(name).itemsize) for name in dataset.dtypes)


def _zarr_bytes(dataset: Any, _: str) -> int:
    """A chunk beside the one in GDAL's cache: 0.8 of it measured, of 122 MiB with zstd."""
    return _block_bytes(dataset)


def _tile_cache_bytes(dataset: Any, _: str) -> int:
    """Four tiles of four bands, which GDAL's GeoPackage and MBTiles allocate when they are opened, whatever is in them."""
    return 16 * _block_bytes(dataset)


def _grib_bytes(dataset: Any, _: str) -> int:
    """Decoded bands up to GDAL's GRIB_CACHEMAX (100 MB by default) and the one that passes it; one more while it is decoded.

    Measured: 130 MiB of one band of 69, and 110 of forty of 7.6.
    """
    band = _decoded_bytes(dataset) // dataset.count
    return int(min(_decoded_bytes(dataset), _GRIB_CACHE_BYTES + band) * 1.1 + band * 0.85)


def _webp_bytes(dataset: Any, path: str) -> int:
    """The image and the file."""
    decoded, size = _decoded_bytes(dataset), _file_bytes(path)
    return decoded + (decoded if size is None else size)


def _jp2_bytes(dataset: Any, path: str) -> int:
    """A tile in int32, of one band twice; or, where GDAL's blocks are parts of a tile, a part and the tile's records."""
    height, width = int(dataset.height), int(dataset.width)
    down, across = _jp2_tile(path) or (height, width)
    tile = min(down, height) * min(across, width)
    block = _pixels(dataset.block_shapes[0])
    compressed = _jp2_largest_tile_bytes(path) or _decoded_bytes(dataset) * tile // (height * width)
    if tile <= block:
        return tile * max(2, int(dataset.count)) * _INT32 + compressed
    part = int(block * (1.5 * dataset.count + 4.5) * _INT32)
    return part + int(_CODE_BLOCK_BYTES * tile * dataset.count) + compressed


def _jp2_tile(path: str) -> tuple[int, int] | None:
    """`(height, width)` of a tile; None where it is not told.

    Boxes: ISO/IEC 15444-1, annex I; the codestream opens with SOC and SIZ (annex A.5.1), which a raw codestream is all of.
    """
    with _codestream(path) as file:
        siz = file.read(28) if file else b""
    if len(siz) < 28:  # noqa: PLR2004
        return None
    across, down = struct.unpack(">II", siz[20:28])
    return down, across


def _jp2_largest_tile_bytes(path: str) -> int:
    """Compressed size of the largest tile, by its parts' headers (SOT: ISO/IEC 15444-1, annex A.4.2); 0 where not told."""
    with _codestream(path) as file:
        if file is None:
            return 0
        file.seek(-2, 1)  # before SIZ, the first of the main header's segments: a marker and its length
        while len(header := file.read(4)) == 4 and header[:2] != _SOT:  # noqa: PLR2004
            file.seek(int.from_bytes(header[2:]) - 2, 1)
        tiles: dict[int, int] = {}
        while len(header) == 4 and header[:2] == _SOT:  # noqa: PLR2004
            tile, size = struct.unpack(">HI", file.read(6).ljust(6, b"\0"))
            if size < 12:  # noqa: PLR2004 - 0: all that is left
                return 0
            tiles[tile] = tiles.get(tile, 0) + size
            file.seek(size - 10, 1)
            header = file.read(4)
    return max(tiles.values(), default=0)


@contextmanager
def _codestream(path: str) -> Iterator[BinaryIO | None]:
    """The open file, behind SOC and SIZ's marker; None where it is no local file or has none."""
    if not Path(path).is_file():
        yield None
        return
    with Path(path).open("rb") as file:
        yield file if file.read(4) == _SOC_SIZ or _find_codestream(file) else None


def _find_codestream(file: BinaryIO) -> bool:
    """Go behind SOC and SIZ's marker in the first codestream box; False where there is none."""
    file.seek(0)
    while len(header := file.read(8)) == 8:  # noqa: PLR2004
        length, kind = struct.unpack(">I4s", header)
        read = 8
        if length == 1:
            length, read = struct.unpack(">Q", file.read(8))[0], 16
        if kind == b"jp2c":
            return file.read(4) == _SOC_SIZ
        if length < read:
            return False
        file.seek(length - read, 1)
    return False


_BY_FORMAT: dict[str, Callable[[Any, str], int]] = {
    "GTiff": _tiff_bytes,
    "JPEG": _jpeg_bytes,
    "PNG": _png_bytes,
    "MRF": _mrf_bytes,
    "WEBP": _webp_bytes,
    "Zarr": _zarr_bytes,
    "GRIB": _grib_bytes,
    "GPKG": _tile_cache_bytes,
    "MBTiles": _tile_cache_bytes,
    "JP2OpenJPEG": _jp2_bytes,
}
