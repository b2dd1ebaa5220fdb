"""Raster or vector? Told by opening, for the jobs that take either: profile, verify, drivers.

Each library is imported only when its turn comes, so that a vector is not measured with the raster library's weight.
"""

import gc
import importlib
import sys
import tracemalloc
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Literal, NamedTuple

from lib.errors import SourceError
from lib.folders import rasters_in
from lib.paths import archive_system, check_exists, is_local
from lib.units import file_label

# Vectors by name: asked of OGR first, anything else of the raster library first.
_OF_VECTORS = (
    "csv dxf fgb gdb geojson geojsonl geojsons geoparquet gml gpkg gpx json kml kmz mif parquet pbf shp shz sqlite tab"
)
_PACKED = (".zip", ".gz", ".tar")
VECTOR_SUFFIXES = frozenset(f".{name}" for name in _OF_VECTORS.split())


class Probe(NamedTuple):
    """What opens a source: the kind of data, and GDAL's short name of the driver."""

    kind: Literal["raster", "vector"]
    driver: str


def probe(source: str, what: str = "source") -> Probe:
    """What opens a source.

    Args:
        source: a path, a URL or one of GDAL's virtual files.
        what: what it is called in errors.

    Raises:
        SourceError: it does not exist, or neither library opens it.
    """
    check_exists(what, source)
    path = Path(source)
    vector_first = _is_vectors_name(file_label(source))
    refusals: list[SourceError] = []
    for ask in (_vector, _raster) if vector_first else (_raster, _vector):
        found = ask(source, refusals)
        if found:
            return found
    if is_local(source) and path.is_dir() and not vector_first and (rasters := rasters_in(path)):
        return Probe("raster", probe(rasters[0], what).driver)
    if is_local(source) and path.is_dir():
        raise SourceError(
            f"{what} {source} is a folder and no dataset",
            hint="name a file in it, a folder of rasters or of Parquet files, or a .gdb folder",
        )
    if refusals and (
        not is_local(source) or archive_system(source)
    ):  # what its server says, or which datasets it holds
        raise max(refusals, key=lambda refused: " holds no " not in refused.message)
    raise SourceError(f"{what} {source} is neither a raster nor a vector dataset that GDAL reads")


def _is_vectors_name(name: str) -> bool:
    *_, before, suffix = ["", "", *PurePosixPath(name.lower()).suffixes]
    return suffix in VECTOR_SUFFIXES or (suffix in _PACKED and before in VECTOR_SUFFIXES)


def load(name: str) -> ModuleType:
    """Import a module late, yet as the child imports an engine: not traced, and frozen for the garbage collector.

    Traced, the imports of GIS libraries would be most of all traces (MEASURED, "Traces").
    """
    if name in sys.modules:
        return sys.modules[name]
    tracing = tracemalloc.is_tracing()
    tracemalloc.stop()
    try:
        return importlib.import_module(name)
    finally:
        gc.collect()
        gc.freeze()
        if tracing:
            tracemalloc.start(1)


def _raster(source: str, refusals: list[SourceError]) -> Probe | None:
    formats = load("lib.raster.formats")
    try:
        with formats.environment(), formats.open_source(source) as dataset:
            return Probe("raster", dataset.driver)
    except SourceError as refused:
        refusals.append(refused)
        return None


def _vector(source: str, refusals: list[SourceError]) -> Probe | None:
    reading = load("lib.vector.reading")
    try:
        info = reading.read_info(source)
    except MemoryError:
        raise
    except SourceError as refused:
        refusals.append(refused)
        return None
    except Exception:  # noqa: BLE001 - whatever pyogrio says, it is no vector dataset
        return None
    return Probe("vector", info["driver"])
