"""GDAL's own switches, opening sources, and what GDAL says of a file's structure. Outputs are made in `sinks/`.

Sources are opened read-only and so that no sidecar is written beside them.
"""

import contextlib
import ctypes
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.ma  # noqa: F401 - rasterio imports it at the first masked read: here it is part of the size that a plan starts from
import rasterio
from rasterio import _base
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

from lib.diagnosis import diagnose, words
from lib.errors import SourceError
from lib.paths import for_gdal, is_local
from lib.probe import VECTOR_SUFFIXES
from lib.raster import elsewhere
from lib.raster.faults import RASTERIO_ERRORS, writing
from lib.units import KIB

# We never read a block twice where windows are whole blocks: a cache would only hold what is done with.
TINY_CACHE_BYTES = 100 * KIB
# A mosaic's sources stay open, each with its decoder and its last compressed block; opening one again takes 0.3 ms.
_MOST_OPEN_SOURCES = 8


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """GDAL's switches for every read and write of ours, and silence about what is no trouble here.

    A raster without georeferencing is transformed as it is; of masks that shadow each other GDAL takes the first.
    """
    switches = rasterio.Env(
        GDAL_DISABLE_READDIR_ON_OPEN="FALSE",  # else `.msk` and `.aux.xml` beside the source are not seen
        GDAL_READDIR_LIMIT_ON_OPEN="64",  # in a folder of more files those are asked for by name
        GDAL_NUM_THREADS="1",  # decoder threads would hold blocks that no plan counts; ours are the pipeline's
        GDAL_MAX_DATASET_POOL_SIZE=str(_MOST_OPEN_SOURCES),
        RAW_CHECK_FILE_SIZE="YES",
        **elsewhere.switches(),
    )
    with switches, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning, r"rasterio\.")  # nodata 1e300
        yield


def set_cache(cache_bytes: int) -> None:
    """Empty GDAL's block cache and set its bound, effective at once.

    The option GDAL_CACHEMAX is read once in a process, at the first block; a second job would keep the first one's. So this
    calls GDAL itself: a symbol looked up through rasterio's own extension is that of the GDAL it is linked with, not pyogrio's.
    """
    gdal = ctypes.CDLL(_base.__file__)
    gdal.GDALSetCacheMax64.argtypes = [ctypes.c_int64]
    gdal.GDALSetCacheMax64.restype = None
    gdal.GDALSetCacheMax64(0)  # a block that is larger than the bound would stay until the next one comes
    gdal.GDALSetCacheMax64(cache_bytes)


def cache_bytes() -> tuple[int, int]:
    """GDAL's block cache: its bound and what it holds, bytes."""
    gdal = ctypes.CDLL(_base.__file__)
    gdal.GDALGetCacheMax64.restype = gdal.GDALGetCacheUsed64.restype = ctypes.c_int64
    return int(gdal.GDALGetCacheMax64()), int(gdal.GDALGetCacheUsed64())


def open_dataset(path: str, overview: int | None = None) -> Any:
    """Open a raster, or one of its overviews, from 0, read-only, inside `environment()`; closing it is the caller's.

    Raises:
        SourceError: missing, a folder, a vector or text file, an archive of several, or no raster that this GDAL reads.
    """
    more = {} if overview is None else {"overview_level": overview}
    try:
        return _opened(path, for_gdal(path), more)
    except SourceError as refused:
        if inside := elsewhere.only_one_inside(path):
            return _opened(path, inside, more)
        raise elsewhere.refusal(path, refused.facts.get("words", "")) or refused from refused


def _opened(path: str, name: str, more: dict[str, Any]) -> Any:
    try:
        switches = elsewhere.opening_switches(path)
        with rasterio.Env(**switches) if switches else contextlib.nullcontext():
            dataset = rasterio.open(name, **more)
    except RASTERIO_ERRORS as error:
        if diagnose(error) == "memory":
            raise MemoryError(words(error)) from error
        raise _not_a_raster(path, error) from error
    elsewhere.note_opened(path, dataset)
    return dataset


@contextlib.contextmanager
def open_source(path: str) -> Iterator[Any]:
    """`open_dataset`, closed on the way out."""
    with open_dataset(path) as dataset:
        yield dataset


@contextlib.contextmanager
def open_output(path: Path, profile: dict[str, Any], options: dict[str, Any]) -> Iterator[Any]:
    """Create a GeoTIFF; it is closed on the way out.

    Raises:
        OutputError: where it cannot be created, or closing it fails.
    """
    with writing(str(path)):
        # GDAL would first open what a former attempt left there, to find its sidecars: 7 MiB where it has a CRS.
        for former in (path, path.with_name(f"{path.name}.aux.xml")):
            former.unlink(missing_ok=True)
        dataset = rasterio.open(for_gdal(path), "w", driver="GTiff", **profile, **options)
    try:
        yield dataset
    except BaseException:
        with contextlib.suppress(*RASTERIO_ERRORS):
            dataset.close()
        raise
    with writing(str(path)):
        dataset.close()


def compression_of(dataset: Any) -> str:
    """GDAL's name of the codec, upper case; "" for none. rasterio knows not all of them."""
    name = str(dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")).upper()
    return "" if name == "NONE" else name


def is_pixel_interleaved(dataset: Any) -> bool:
    """Whether one block holds all bands."""
    return bool(dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE", "").upper() == "PIXEL" and dataset.count > 1)


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
    if not exists and is_local(path):
        return SourceError(f"{path} does not exist", hint="check the path", path=path)
    return SourceError(f"{path} is not a raster that GDAL can read: {words(error)}", path=path, words=words(error))


def read_tags(path: str | Path) -> dict[str, str]:
    """A raster's dataset tags; empty where it cannot be opened."""
    try:
        with environment(), open_source(str(path)) as dataset:
            return dict(dataset.tags())
    except SourceError:
        return {}
