"""One layer in every format that is read: what tests of sources share."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely

# Formats by their suffix: OGR's driver, and what it is given.
FORMATS: Mapping[str, tuple[str, dict[str, str]]] = {
    "gpkg": ("GPKG", {}),
    "fgb": ("FlatGeobuf", {}),
    "shp": ("ESRI Shapefile", {}),
    "geojson": ("GeoJSON", {"COORDINATE_PRECISION": "15"}),
    "geojsonl": ("GeoJSONSeq", {"COORDINATE_PRECISION": "15"}),
    "gdb": ("OpenFileGDB", {}),
    "gml": ("GML", {}),
    "kml": ("LIBKML", {}),
    "csv": ("CSV", {"GEOMETRY": "AS_WKT", "CREATE_CSVT": "NO"}),
    "parquet": ("Parquet", {}),
}
PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")


def frame(count: int = 120) -> geopandas.GeoDataFrame:
    """Multipolygons with six decimals, which every format keeps, with text that is no ASCII, and numbers."""
    generator = np.random.default_rng(11)
    left, low = np.round(generator.uniform([-99, 37], [-96, 40], (count, 2)), 3).T
    width, height = np.round(generator.uniform(0.0001, 0.002, (2, count)), 6)
    boxes = shapely.box(left, low, np.round(left + width, 6), np.round(low + height, 6), ccw=False)
    return geopandas.GeoDataFrame(
        {"n": np.arange(count), "label": [f"Straße {n % 17}" for n in range(count)], "value": np.arange(count) / 8},
        geometry=[shapely.MultiPolygon([each]) for each in boxes],
        crs="EPSG:4326",
    )


def written(folder: Path, suffix: str, of: geopandas.GeoDataFrame | None = None, stem: str = "a") -> Path:
    """The frame in a format; nothing of another program lies beside it but the parts of a Shapefile."""
    of = frame() if of is None else of
    path, (driver, options) = folder / f"{stem}.{suffix}", FORMATS[suffix]
    if suffix == "parquet":
        of.to_parquet(path)
        return path
    with warnings.catch_warnings(action="ignore"):
        pyogrio.write_dataframe(of, path, driver=driver, layer=None if suffix == "csv" else stem, **options)
    for beside in (".xsd", ".csvt"):
        path.with_suffix(beside).unlink(missing_ok=True)
    if suffix == "csv":
        path.with_suffix(".prj").unlink(missing_ok=True)
    return path


def zipped(path: Path, name: str = "", *, inside: str = "", level: int = 6) -> Path:
    """A zip of a layer with all its parts, beside it."""
    archive = path.with_name(name or f"{path.name}.zip")
    files = [path.with_suffix(end) for end in PARTS] if path.suffix == ".shp" else [path]
    if path.is_dir():
        files = sorted(path.iterdir())
        inside += f"{path.name}/"
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED, compresslevel=level) as into:
        for each in files:
            into.write(each, inside + each.name)
    return archive


def names_in(folder: Path) -> set[str]:
    """All files below a folder."""
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def of_csv(name: str | Path) -> dict[str, Any]:
    """What a job has to say of a CSV, which has no CRS."""
    return {"assume_crs": "EPSG:4326"} if "csv" in Path(name).name else {}
