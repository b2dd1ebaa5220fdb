"""The vector half of driver validation: what pyogrio's GDAL has, and a trial of what can be tried."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from lib.drivers import DriverFacts, metadata_reader
from lib.vector import ogr  # noqa: F401 - it imports pyogrio without pandas, so it must come first

# isort: split
import pyogrio
import pyogrio._ogr
import pyogrio.raw


class _Trial(NamedTuple):
    """How to try a vector driver: a file's extension, whether it holds points only, options it needs."""

    extension: str
    point: bool = False
    options: Mapping[str, str] = {}


TRIALS = {
    "Parquet": _Trial(".parquet"),
    "GPKG": _Trial(".gpkg"),
    "FlatGeobuf": _Trial(".fgb"),
    "ESRI Shapefile": _Trial(".shp"),
    "GeoJSON": _Trial(".geojson"),
    "GeoJSONSeq": _Trial(".geojsonl"),
    "OpenFileGDB": _Trial(".gdb"),
    "SQLite": _Trial(".sqlite"),
    "MapInfo File": _Trial(".tab"),
    "GML": _Trial(".gml"),
    "KML": _Trial(".kml"),
    "LIBKML": _Trial(".kml"),
    "GPX": _Trial(".gpx", point=True),
    "CSV": _Trial(".csv", options={"GEOMETRY": "AS_WKT"}),
}


def known() -> dict[str, DriverFacts]:
    """Every vector driver by short name, as its metadata has it."""
    item = metadata_reader(pyogrio._ogr.__file__)  # noqa: SLF001 - the module that links GDAL
    by_pyarrow = DriverFacts("Parquet", "(Geo)Parquet, by pyarrow", "vector", reads=True, creates=True)
    return {"Parquet": by_pyarrow} | {
        name: DriverFacts(name, item(name, "DMD_LONGNAME") or name, "vector", "r" in able, "w" in able)
        for name, able in pyogrio.list_drivers().items()
    }


def attempt(name: str) -> str:
    """Create one feature, reopen and compare.

    Raises:
        ValueError: it came back otherwise.
    """
    if name == "Parquet":
        return _attempt_parquet()
    trial = TRIALS[name]
    sent = shapely.Point(5.5, 45.25) if trial.point else shapely.box(5, 45, 5.5, 45.25)
    with tempfile.TemporaryDirectory(prefix="swath-drivers-") as folder:
        path = Path(folder, f"trial{trial.extension}")
        pyogrio.raw.write(
            path,
            geometry=np.array([shapely.to_wkb(sent)], dtype=object),
            field_data=[np.array(["swath"], dtype=object)],
            fields=np.array(["name"], dtype=object),
            geometry_type=sent.geom_type,
            crs="EPSG:4326",
            driver=name,
            **trial.options,
        )
        layer = "waypoints" if name == "GPX" else None
        meta, _, geometry, columns = pyogrio.raw.read(path, layer=layer)
    # A driver may name its own field (KML: Name) or add others; the value must be there.
    values = [str(column[0]) for column in columns if len(column)]
    returned = [] if geometry is None else [shapely.from_wkb(each) for each in geometry]
    if len(returned) != 1 or _coordinates(returned[0]) != _coordinates(sent) or "swath" not in values:
        raise ValueError(f"one feature came back as {len(returned)}, fields {', '.join(meta['fields'])}")
    return "created, reopened, equal"


def _attempt_parquet() -> str:
    """The one format that pyarrow writes; raises ValueError likewise."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"name": ["swath"], "geometry": [shapely.to_wkb(shapely.box(5, 45, 5.5, 45.25))]})
    with tempfile.TemporaryDirectory(prefix="swath-drivers-") as folder:
        path = Path(folder, "trial.parquet")
        parquet.write_table(table, path, compression="zstd")
        if not parquet.read_table(path).equals(table):
            raise ValueError("one feature came back otherwise")
    return "created, reopened, equal"


def _coordinates(geometry: Any) -> set[tuple[float, float]]:
    """Its vertices: drivers may promote to multi, add a Z of 0, turn rings and start them elsewhere."""
    return {(round(float(x), 6), round(float(y), 6)) for x, y in shapely.get_coordinates(geometry)}
