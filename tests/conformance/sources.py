"""Sources of every kind that a job may have, and what the job's output must hold by a path that is not ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.shutil import copy as rasterio_copy
from rasterio.transform import from_origin
from shapely import orient_polygons
from shapely.geometry import Polygon, box

HEIGHT, WIDTH = 1900, 2300
NODATA = 7
Pixels = NDArray[Any]


def pixels(dtype: str, bands: int) -> Pixels:
    """Smooth values with noise, some of them nodata: compresses as real rasters do."""
    source = np.random.default_rng(11)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    base = 100 + 60 * np.sin(rows / 150) + 50 * np.cos(columns / 210)
    stack = np.stack([base + 3 * band + source.integers(0, 6, base.shape) for band in range(bands)])
    stack[:, 200:260, 300:900] = NODATA
    return np.maximum(stack, 0).astype(dtype)


def _gtiff(path: Path, dtype: str, bands: int, **options: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=bands, dtype=dtype, nodata=NODATA, crs="EPSG:32633",
        transform=from_origin(500000, 5000000, 10, 10), **options,
    ) as dataset:  # fmt: skip
        dataset.write(pixels(dtype, bands))
    return path


def tiled(folder: Path, dtype: str) -> Path:
    """Tiles of 256, LZW, three bands, band by band."""
    return _gtiff(
        folder / "tiled.tif", dtype, 3, tiled=True, blockxsize=256, blockysize=256, compress="lzw", interleave="band"
    )


def pixel_interleaved(folder: Path, dtype: str) -> Path:
    """Tiles of 512, deflate, four bands in each."""
    return _gtiff(
        folder / "pixel.tif", dtype, 4, tiled=True, blockxsize=512, blockysize=512, compress="deflate",
        interleave="pixel", photometric="minisblack", alpha="no",
    )  # fmt: skip


def striped(folder: Path, dtype: str) -> Path:
    """Strips of one row, deflate, one band."""
    return _gtiff(folder / "striped.tif", dtype, 1, blockysize=1, compress="deflate")


def uncompressed(folder: Path, dtype: str) -> Path:
    """Strips as GDAL makes them, not compressed, one band."""
    return _gtiff(folder / "plain.tif", dtype, 1)


def vrt(folder: Path, dtype: str) -> Path:
    """A VRT of a tiled file."""
    rasterio_copy(tiled(folder, dtype), folder / "mosaic.vrt", driver="VRT")
    return folder / "mosaic.vrt"


def png(folder: Path, dtype: str) -> Path:
    """A PNG; 8 and 16 bit only."""
    rasterio_copy(striped(folder, dtype), folder / "image.png", driver="PNG")
    return folder / "image.png"


RASTERS: dict[str, tuple[Callable[[Path, str], Path], tuple[str, ...]]] = {
    "tiled": (tiled, ("uint8", "int16", "uint16", "int32", "float32", "float64")),
    "pixel": (pixel_interleaved, ("uint8", "uint16", "float32")),
    "striped": (striped, ("uint8", "uint16", "float32")),
    "uncompressed": (uncompressed, ("uint8", "float64")),
    "vrt": (vrt, ("uint16",)),
    "png": (png, ("uint8", "uint16")),
}


def raster_truth(operation: str, dtype: str, bands: int) -> Pixels:
    """The whole output by NumPy; NaN where nodata."""
    raw = pixels(dtype, bands)
    valid = raw != NODATA
    if operation == "rescale":
        result = (raw.astype("float64") * 2.5 - 3).astype("float64" if dtype == "float64" else "float32")
    elif operation == "normalise":
        result = np.clip(raw.astype("float32") / np.float32(200), 0, 1)
    else:
        result = raw.astype("float32")
    return np.where(valid, result, np.nan)


def _frame(rows: int) -> gpd.GeoDataFrame:
    source = np.random.default_rng(5)
    west, south = source.uniform(-10, 30, rows), source.uniform(35, 60, rows)
    edges = source.uniform(0.0002, 0.002, rows)
    return gpd.GeoDataFrame(
        {"number": np.arange(rows), "name": [f"parcel {n:06d}" for n in range(rows)]},
        geometry=[box(x, y, x + e, y + e) for x, y, e in zip(west, south, edges, strict=True)],
        crs="EPSG:4326",
    )


ROWS = 30_000
VECTORS = {
    "GPKG": "parcels.gpkg",
    "FlatGeobuf": "parcels.fgb",
    "ESRI Shapefile": "parcels.shp",
    "GeoJSON": "parcels.geojson",
}


def vector(folder: Path, driver: str) -> Path:
    """Thirty thousand parcels in geographic coordinates."""
    path = folder / VECTORS[driver]
    _frame(ROWS).to_file(path, driver=driver)
    return path


def wide(folder: Path) -> Path:
    """Twelve thousand parcels with a string of 14 kB each, GeoPackage."""
    frame = _frame(12_000)
    frame["name"] = [f"{number:05d} " * 2400 for number in frame["number"]]
    frame.to_file(folder / "wide.gpkg")
    return folder / "wide.gpkg"


def huge(folder: Path) -> Path:
    """One polygon of two million vertices, GeoPackage."""
    turns = np.linspace(0, 2 * np.pi, 2_000_000, endpoint=False)
    radii = 0.5 + 0.01 * np.sin(50 * turns)
    shape = Polygon(np.column_stack([10 + radii * np.cos(turns), 50 + radii * np.sin(turns)]))
    gpd.GeoDataFrame({"number": [7]}, geometry=[shape], crs="EPSG:4326").to_file(folder / "huge.gpkg")
    return folder / "huge.gpkg"


LARGE_FEATURES = {"wide": wide, "huge": huge}


def kept_by_geod(path: Path, least_sqm: float) -> set[int]:
    """The numbers of the parcels of at least this area, by geopandas and pyproj.Geod."""
    geod = Geod(ellps="WGS84")
    frame = gpd.read_file(path)
    areas = [abs(geod.geometry_area_perimeter(shape)[0]) for shape in orient_polygons(frame.geometry.to_numpy())]
    return set(frame.loc[np.array(areas) >= least_sqm, "number"])
