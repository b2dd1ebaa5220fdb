"""Opening sources, creating outputs, and GDAL's own switches. What is carried from one to the other is in `carried.py`.

Sources are opened read-only and so that no sidecar is written beside them. Outputs are tiled GeoTIFFs, band-interleaved:
each tile of each band is then written once, whole, and many bands need no more buffers than one.
"""

import contextlib
import ctypes
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.ma  # noqa: F401 - rasterio imports it at the first write: here it is part of the size that a plan starts from
import rasterio
from rasterio import _base
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

from lib.diagnosis import diagnose, words
from lib.errors import SourceError
from lib.probe import VECTOR_SUFFIXES
from lib.raster.faults import RASTERIO_ERRORS, writing
from lib.units import KIB, MIB

__all__ = [
    "cache_bytes",
    "creation_options",
    "environment",
    "open_output",
    "open_source",
    "return_large_blocks",
    "returning_buffers",
    "set_cache",
]

# Zstandard's fastest level is LZW's size at half its CPU (FACTS); 6 is zlib's own default.
_CODEC_OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "lzw": {"COMPRESS": "LZW"},
    "deflate": {"COMPRESS": "DEFLATE", "ZLEVEL": 6},
    "zstd": {"COMPRESS": "ZSTD", "ZSTD_LEVEL": 1},
}
# Predictor 2 against 3 on float32 results, MB (CPU s) of 4096² pixels, GDAL 3.12: noisy imagery zstd 52.4 (0.28) against 47.4
# (0.25), lzw 48.1 against 61.7, deflate 31.6 against 47.5; land-cover classes zstd 0.22 (0.06) against 3.63 (0.22), lzw 2.5
# against 5.9. Predictor 3 wins one case of six, by a tenth, and loses another sixteenfold.
_PREDICTOR = 2
_LARGE_BLOCK_BYTES = 4 * MIB
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
# A mosaic's sources stay open, each with its decoder and its last compressed block; opening one again takes 0.3 ms.
MOST_OPEN_SOURCES = 8


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """GDAL's switches for every read and write of ours, and silence about what is no trouble here.

    A raster without georeferencing is transformed as it is; masks that shadow each other are joined (`masks.py`).
    """
    switches = rasterio.Env(
        GDAL_DISABLE_READDIR_ON_OPEN="FALSE",  # else `.msk` and `.aux.xml` beside the source are not seen
        GDAL_NUM_THREADS="1",  # decoder threads would hold blocks that no plan counts; the encoder's are named explicitly
        GDAL_MAX_DATASET_POOL_SIZE=str(MOST_OPEN_SOURCES),
        RAW_CHECK_FILE_SIZE="YES",
    )
    with switches, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield


def set_cache(cache_bytes: int) -> None:
    """Set GDAL's block cache, effective at once.

    The option GDAL_CACHEMAX is read once in a process, at the first block; a second job would keep the first one's. So this
    calls GDAL itself: a symbol looked up through rasterio's own extension is that of the GDAL it is linked with, not pyogrio's.
    """
    gdal = ctypes.CDLL(_base.__file__)
    gdal.GDALSetCacheMax64.argtypes = [ctypes.c_int64]
    gdal.GDALSetCacheMax64.restype = None
    gdal.GDALSetCacheMax64(cache_bytes)


def cache_bytes() -> tuple[int, int]:
    """GDAL's block cache: its bound and what it holds, bytes."""
    gdal = ctypes.CDLL(_base.__file__)
    gdal.GDALGetCacheMax64.restype = gdal.GDALGetCacheUsed64.restype = ctypes.c_int64
    return int(gdal.GDALGetCacheMax64()), int(gdal.GDALGetCacheUsed64())


@contextlib.contextmanager
def returning_buffers() -> Iterator[None]:
    """Have malloc give each large buffer back when it is freed; for work that is not the inner loop.

    glibc raises its mmap threshold with what is freed: after a loop of 4 MiB blocks, buffers of that size come from the heap
    and leave holes there (15 MiB seen in a verification). With the threshold fixed they do not, at 10 % of an encoder's time.
    """
    _set_mmap_threshold(128 * KIB)
    try:
        yield
    finally:
        _set_mmap_threshold(_LARGE_BLOCK_BYTES)


def return_large_blocks() -> None:
    """Have malloc give each buffer above 4 MiB back when it is freed, from now on; an encoder's tiles are smaller.

    Where a raster's large blocks come between small ones of other files, each may else find its hole taken and go on top of the
    heap: 10 MiB more were measured of a tile of 10 MiB in a mosaic, and of a mask of 16 MiB.
    """
    _set_mmap_threshold(_LARGE_BLOCK_BYTES)


def _set_mmap_threshold(size_bytes: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # a C library without it
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, size_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * size_bytes)


@contextlib.contextmanager
def open_source(path: str) -> Iterator[Any]:
    """Open a raster read-only, inside `environment()`.

    Raises:
        SourceError: missing, a folder, a vector or text file, or no raster that this GDAL reads.
    """
    try:
        dataset = rasterio.open(path)
    except RASTERIO_ERRORS as error:
        if diagnose(error) == "memory":
            raise MemoryError(words(error)) from error
        raise _not_a_raster(path, error) from error
    with dataset:
        yield dataset


def _not_a_raster(path: str, error: BaseException) -> SourceError:
    local = Path(path)
    try:
        exists, folder = local.exists(), local.is_dir()
    except OSError:
        exists, folder = False, False
    if folder and local.suffix.lower() not in VECTOR_SUFFIXES:
        return SourceError(f"{path} is a folder, not a raster", hint="name a file in it", path=path)
    if exists and local.suffix.lower() in VECTOR_SUFFIXES:
        return SourceError(
            f"{path} is a vector file: use `swath vector`", hint="`swath vector SRC DST` filters features", path=path
        )
    if not exists and "://" not in path and ":" not in path and not path.startswith("/vsi"):
        return SourceError(f"{path} does not exist", hint="check the path", path=path)
    return SourceError(f"{path} is not a raster that GDAL can read: {words(error)}", path=path)


def creation_options(compress: str, block_size: int, threads: int, nbits_dtype: str) -> dict[str, Any]:
    """GeoTIFF creation options of an output.

    Args:
        compress: none, lzw, deflate or zstd.
        block_size: edge of a tile in pixels.
        threads: encoder threads.
        nbits_dtype: dtype's name; predictors are for compressed pixels.
    """
    options: dict[str, Any] = {
        "TILED": "YES",
        "BLOCKXSIZE": block_size,
        "BLOCKYSIZE": block_size,
        "INTERLEAVE": "BAND",
        "BIGTIFF": "IF_SAFER",
        "SPARSE_OK": "FALSE",
        "NUM_THREADS": threads,
    } | _CODEC_OPTIONS[compress]
    if compress != "none" and nbits_dtype in ("float32", "float64"):
        options["PREDICTOR"] = _PREDICTOR
    return options


@contextlib.contextmanager
def open_output(path: Path, profile: dict[str, Any], options: dict[str, Any]) -> Iterator[Any]:
    """Create a GeoTIFF; closing it is the caller's, who may do so inside.

    Raises:
        OutputError: where it cannot be created, or closing it fails.
    """
    with writing(str(path)):
        # GDAL would first open what a former attempt left there, to find its sidecars: 7 MiB where it has a CRS.
        path.unlink(missing_ok=True)
        dataset = rasterio.open(path, "w", driver="GTiff", **profile, **options)
    try:
        yield dataset
    except BaseException:
        with contextlib.suppress(*RASTERIO_ERRORS):
            dataset.close()
        raise
    with writing(str(path)):
        dataset.close()


def read_tags(path: str | Path) -> dict[str, str]:
    """A raster's dataset tags; empty where it cannot be opened."""
    try:
        with environment(), open_source(str(path)) as dataset:
            return dict(dataset.tags())
    except SourceError:
        return {}


def from_json(text: str | None) -> Any:
    """What a tag's JSON says; None where it is none."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None
