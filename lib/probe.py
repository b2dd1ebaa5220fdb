"""Raster or vector? Told by opening, for the jobs that take either: profile, verify, drivers.

Each library is imported only when its turn comes, so that a vector is not measured with the raster library's weight.
"""

import gc
import importlib
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

from lib.errors import SourceError
from lib.folders import rasters_in
from lib.paths import check_exists, is_local

# Vectors by name: asked of OGR first, anything else of the raster library first.
_OF_VECTORS = (
    "csv dxf fgb gdb geojson geojsonl geojsons geoparquet gml gpkg gpx json kml kmz mif parquet pbf shp sqlite tab"
)
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
    vector_first = path.suffix.lower() in VECTOR_SUFFIXES
    for ask in (_vector, _raster) if vector_first else (_raster, _vector):
        found = ask(source)
        if found:
            return found
    if is_local(source) and path.is_dir() and not vector_first and (rasters := rasters_in(path)):
        return Probe("raster", probe(rasters[0], what).driver)
    if is_local(source) and path.is_dir():
        raise SourceError(
            f"{what} {source} is a folder and no dataset",
            hint="name a file in it, a folder of rasters or of Parquet files, or a .gdb folder",
        )
    raise SourceError(f"{what} {source} is neither a raster nor a vector dataset that GDAL reads")


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


def _raster(source: str) -> Probe | None:
    formats = load("lib.raster.formats")
    try:
        with formats.environment(), formats.open_source(source) as dataset:
            return Probe("raster", dataset.driver)
    except SourceError:
        return None


def _vector(source: str) -> Probe | None:
    reading = load("lib.vector.reading")
    try:
        info = reading.read_info(source)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever pyogrio says, it is no vector dataset
        return None
    return Probe("vector", info["driver"])
