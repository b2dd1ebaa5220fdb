"""Geometries that a file has and OGR shows as null without a word, by driver: their bytes or their text do not decode."""

import struct
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.vector.row_checks import Hidden, Nulls
from lib.vector.sources import shapefile, sqlite, texts
from lib.vector.sources.facts import LayerFacts

# Drivers whose feature ids tell where a row is in the file.
BY_FID = ("GPKG", "ESRI Shapefile")
# As OGR's CSV driver knows a column of geometries (gdal.org/drivers/vector/csv.html).
_WKT = ("wkt", "_wkt")
_SHAPE_HEADER_BYTES = 52
_POINTS = (1, 11, 21)


def hidden_in(facts: LayerFacts, path: Path) -> Hidden | None:
    """Of rows without a geometry, whether the file has one; None where that is not known."""
    if facts.geometry_name is None or not path.is_file():
        return None
    if facts.driver == "GPKG":
        return partial(_in_table, path, facts.layer, facts.geometry_name)
    if facts.driver == "ESRI Shapefile" and path.suffix.lower() == ".shp":
        return partial(_in_shapefile, path)
    if facts.driver in ("GeoJSON", "GeoJSONSeq"):
        return _InJson(path, facts.driver)
    return _in_csv if facts.driver == "CSV" else None


def _none(nulls: Nulls) -> NDArray[np.bool_]:
    return np.zeros(len(nulls.at), bool)


def _in_table(path: Path, layer: str, geometry: str, nulls: Nulls) -> NDArray[np.bool_]:
    if nulls.fids is None:
        return _none(nulls)
    found = sqlite.with_geometry(path, layer, geometry, int(nulls.fids.min()), int(nulls.fids.max()))
    return np.isin(nulls.fids, found)


def _in_shapefile(path: Path, nulls: Nulls) -> NDArray[np.bool_]:
    """By the records' own headers: a type that is not null's, and parts or points (ESRI's description, 1998)."""
    found, index = _none(nulls), shapefile.sibling(path, ".shx")
    if nulls.fids is None or index is None:
        return found
    with path.open("rb") as shapes, index.open("rb") as places:
        for at, fid in enumerate(nulls.fids.tolist()):
            places.seek(100 + 8 * fid)
            shapes.seek(2 * struct.unpack(">i", places.read(4))[0] + 8)
            header = shapes.read(_SHAPE_HEADER_BYTES)
            kind, *_ = struct.unpack_from("<i", header) if len(header) >= 4 else (1,)  # noqa: PLR2004 - of an int
            parts = struct.unpack_from("<i", header, 36)[0] if len(header) >= 40 else 1  # noqa: PLR2004 - behind the box
            found[at] = kind != 0 and (kind in _POINTS or parts != 0)
    return found


def _in_csv(nulls: Nulls) -> NDArray[np.bool_]:
    columns = [column for name, column in nulls.batch.items() if name.lower().startswith(_WKT)]
    found = _none(nulls)
    for column in columns:
        found |= np.array([bool(str(column[int(at)].as_py() or "").strip()) for at in nulls.at], bool)
    return found


class _InJson:
    """By the text itself, which is read once, at the first row without a geometry."""

    def __init__(self, path: Path, driver: str) -> None:
        self._path, self._driver = path, driver
        self._without: NDArray[np.int64] | None = None

    def __call__(self, nulls: Nulls) -> NDArray[np.bool_]:
        """Which of the rows have a geometry in the text."""
        if nulls.rows is None:
            return _none(nulls)
        if self._without is None:
            features = texts.features(self._path, self._driver)
            self._without = np.array([row for row, each in enumerate(features) if not each.get("geometry")], np.int64)
        return ~np.isin(nulls.rows, self._without)
