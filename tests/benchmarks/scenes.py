"""The sources of the benchmarks, made by a seed: `python -m tests.benchmarks.scenes NAME FOLDER --size small|full`.

It runs in a process of its own, so that the harness stays small: what it starts would inherit its high-water mark.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import rasterio
import shapely
from pyproj import Transformer
from rasterio.transform import from_origin

from tests.benchmarks.entries import FEWER_PIXELS

EDGES = {"small": 1100, "full": 10_000}
PARCELS = {"small": 5_000, "full": 1_000_000}
FEW, MANY = 10, 4  # rows, and times as many
# Areas are log-normal: 6 % are at least 5,000 m2, and 67 % at least 330 m2.
MEDIAN_SQM, SIGMA = 600, 1.364
CORNERS = {4: 0.55, 5: 0.1, 6: 0.1, 7: 0.07, 8: 0.06, 9: 0.05, 10: 0.04, 11: 0.03}
ZONES = ("arable", "meadow", "vineyard", "Obstgärten", "forêt")
NAMES = ("Müller", "Kovač", "Łukasz", "Peña", "Owner", "Σταύρος", "Smith", "Ødegård")
ROW_GROUP = 100_000
STRIP = 512
TILED = {"tiled": True, "blockxsize": 512, "blockysize": 512}
HOLES = {300: 0.8, 60: 0.6}
REFLECTANCE = {1024: 1900.0, 256: 1100.0, 64: 600.0, 16: 260.0, 4: 130.0, 2: 60.0}
RELIEF = {1024: 420.0, 256: 110.0, 64: 30.0, 16: 7.0, 4: 1.2}


class Noise:
    """Correlated noise: normal numbers on grids of several steps, interpolated and added up, row by row.

    Args:
        seed: the same makes the same.
        edge: of the square raster, pixels.
        octaves: standard deviation by step in pixels.
    """

    def __init__(self, seed: int, edge: int, octaves: dict[int, float]) -> None:
        source = np.random.default_rng(seed)
        self._grids = {
            step: np.float32(size) * source.standard_normal((edge // step + 2, edge // step + 2), dtype="float32")
            for step, size in octaves.items()
        }
        self._columns = np.arange(edge)

    def rows(self, rows: Any) -> Any:
        """Some rows `(len(rows), edge)` float32."""
        total = np.zeros((len(rows), len(self._columns)), "float32")
        for step, grid in self._grids.items():
            part = _between(grid, rows, step)
            total += _between(part.T, self._columns, step).T
        return total


def _between(grid: Any, places: Any, step: int) -> Any:
    """Rows of a grid of so many pixels a step, interpolated at some pixels."""
    at, rest = np.divmod(places, step)
    share = (rest / step).astype("float32")[:, None]
    return grid[at] * (1 - share) + grid[at + 1] * share


def raster(
    path: Path, edge: int, made: list[Callable[[Any], Any]], nodata: int | None, dtype: str, **options: Any
) -> None:
    """A file of so many bands, each made row by row."""
    with rasterio.open(
        path, "w", driver="GTiff", width=edge, height=edge, count=len(made), dtype=dtype, crs="EPSG:32633", nodata=nodata,
        transform=from_origin(500_000, 5_000_000, 10, 10), compress="deflate", predictor=2, num_threads=2, **options,
    ) as dataset:  # fmt: skip
        for top in range(0, edge, STRIP):
            rows = np.arange(top, min(top + STRIP, edge))
            for band, make in enumerate(made, 1):
                dataset.write(make(rows).astype(dtype), band, window=((top, top + len(rows)), (0, edge)))


def _reflectance(edge: int, seed: int, *, holes: bool = True) -> Callable[[Any], Any]:
    """Reflectances as of a satellite, times 10,000: correlated noise, some above 1; holes are 0."""
    values, gaps = Noise(seed, edge, REFLECTANCE), Noise(1, edge, HOLES)
    grain = np.random.default_rng(seed + 100)

    def rows(numbers: Any) -> Any:
        pixels = 5600 + values.rows(numbers)
        pixels += 30 * grain.standard_normal(pixels.shape, dtype="float32")
        np.clip(pixels, 1, 65_535, out=pixels)
        if holes:
            pixels[gaps.rows(numbers) > 1] = 0
        return pixels

    return rows


def _scene(
    name: str, *, bands: int = 1, holes: bool = True, smaller: int = 1, **options: Any
) -> Callable[[Path, str], None]:
    def made(folder: Path, size: str) -> None:
        edge = round(EDGES[size] / smaller**0.5)
        makers = [_reflectance(edge, 15 + band, holes=holes) for band in range(bands)]
        raster(folder / name, edge, makers, 0 if holes else None, "uint16", **options)

    return made


def heights(folder: Path, size: str) -> None:
    """Heights in metres, int16, with holes."""
    edge = EDGES[size]
    relief, gaps = Noise(7, edge, RELIEF), Noise(1, edge, HOLES)
    raster(
        folder / "heights.tif", edge, [lambda rows: np.where(gaps.rows(rows) > 1, -32768, 1200 + relief.rows(rows))],
        -32768, "int16", **TILED,
    )  # fmt: skip


def tiny(folder: Path, _size: str) -> None:
    """A raster of 64 x 64 pixels."""
    raster(folder / "tiny.tif", 64, [_reflectance(64, 15, holes=False)], None, "uint16")


def _rings(source: np.random.Generator, rows: int, corners: int) -> tuple[Any, Any]:
    """Centres `(rows, 2)` in degrees and rings `(rows, corners + 1, 2)` in metres about them: of four corners rectangles."""
    centres = np.column_stack([source.uniform(-10, 30, rows), source.uniform(35, 60, rows)])
    areas = MEDIAN_SQM * np.exp(SIGMA * source.standard_normal(rows))
    turns = 2 * np.pi * np.arange(corners) / corners + np.zeros((rows, 1))
    if corners > 4:
        turns += 2 * np.pi * source.uniform(-0.15, 0.15, (rows, corners)) / corners
    turned = source.uniform(0, 2 * np.pi, (rows, 1))
    stretch = source.uniform(0.6, 1.6, (rows, 1))
    x, y = np.cos(turns + np.pi / 4) * stretch, np.sin(turns + np.pi / 4) / stretch
    points = np.stack([x * np.cos(turned) - y * np.sin(turned), x * np.sin(turned) + y * np.cos(turned)], axis=-1)
    x, y = points[..., 0], points[..., 1]
    unit = np.abs(np.sum(x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1), axis=1)) / 2
    points *= np.sqrt(areas / unit)[:, None, None]
    return centres, np.concatenate([points, points[:, :1]], axis=1)


def _shapes(source: np.random.Generator, rows: int, crs: str) -> Any:
    """Parcels as WKB, `(rows,)`, in no order."""
    parts, left = [], rows
    for corners, share in reversed(CORNERS.items()):
        count = left if corners == min(CORNERS) else int(rows * share)
        left -= count
        centres, rings = _rings(source, count, corners)
        degrees = rings / 111_320
        degrees[..., 0] /= np.cos(np.radians(centres[:, 1]))[:, None]
        degrees += centres[:, None]
        if crs != "EPSG:4326":
            x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(degrees[..., 0], degrees[..., 1])
            degrees = np.stack([x, y], axis=-1)
        parts.append(shapely.to_wkb(shapely.polygons(degrees)))
    return source.permutation(np.concatenate(parts))


def parcels(path: Path, rows: int, driver: str, crs: str = "EPSG:4326") -> None:
    """Rectangles and irregular polygons of 5 to 12 ring coordinates, in no order; seven attributes, with nulls and umlauts."""
    source = np.random.default_rng(6)
    shapes = _shapes(source, rows, crs)
    numbers = source.permutation(rows)
    lots = numbers * 7919 % 99_991
    columns: dict[str, tuple[Any, Any]] = {
        "number": (numbers, None),
        "owner": (
            np.array([f"{NAMES[n % 8]} {n:05d}, Field Lane {n % 240}" for n in lots.tolist()], dtype=object),
            source.random(rows) < 0.05,
        ),
        "zone": (np.array(ZONES, dtype=object)[source.integers(0, len(ZONES), rows)], None),
        "value": (np.round(source.uniform(1, 90_000, rows), 2), source.random(rows) < 0.1),
        "note": (np.array([f"geprüft {n % 97}" for n in lots.tolist()], dtype=object), source.random(rows) < 0.7),
        "year": (source.integers(1950, 2026, rows).astype("int32"), None),
        "share": (source.uniform(0, 1, rows), None),
    }
    if driver == "Parquet":
        _write_parquet(path, columns, shapes, crs)
        return
    values, masks = zip(*columns.values(), strict=True)
    pyogrio.raw.write(
        path, driver=driver, geometry=shapes, geometry_type="Polygon", field_data=list(values), field_mask=list(masks),
        fields=list(columns), crs=crs,
    )  # fmt: skip


def _write_parquet(path: Path, columns: dict[str, tuple[Any, Any]], shapes: Any, crs: str) -> None:
    """As geopandas writes a GeoParquet file that is to be filtered: boxes beside the shapes, ZSTD, row groups of 100,000."""
    arrays = {name: pa.array(values, mask=mask) for name, (values, mask) in columns.items()}
    frame = geopandas.GeoDataFrame(pa.table(arrays).to_pandas(), geometry=shapely.from_wkb(shapes), crs=crs)
    frame.to_parquet(path, compression="zstd", write_covering_bbox=True, row_group_size=ROW_GROUP)


def _of(
    name: str, driver: str, crs: str = "EPSG:4326", *, few: bool = False, times: int = 1
) -> Callable[[Path, str], None]:
    def made(folder: Path, size: str) -> None:
        parcels(folder / name, FEW if few else times * PARCELS[size], driver, crs)

    return made


SCENES: dict[str, Callable[[Path, str], None]] = {
    "scene.tif": _scene("scene.tif", **TILED),
    "whole.tif": _scene("whole.tif", holes=False, **TILED),
    "scene-strips.tif": _scene("scene-strips.tif"),
    "part.tif": _scene("part.tif", smaller=FEWER_PIXELS, **TILED),
    "bands.tif": _scene("bands.tif", bands=2, interleave="band", **TILED),
    "heights.tif": heights,
    "tiny.tif": tiny,
    "parcels.gpkg": _of("parcels.gpkg", "GPKG"),
    "many.gpkg": _of("many.gpkg", "GPKG", times=MANY),
    "laea.gpkg": _of("laea.gpkg", "GPKG", "EPSG:3035"),
    "parcels.fgb": _of("parcels.fgb", "FlatGeobuf"),
    "parcels.shp": _of("parcels.shp", "ESRI Shapefile"),
    "parcels.parquet": _of("parcels.parquet", "Parquet"),
    "few.gpkg": _of("few.gpkg", "GPKG", few=True),
}


def main() -> None:
    """Make one, under another name until it is whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SCENES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=EDGES, default="small")
    given = parser.parse_args()
    SCENES[given.name](given.folder, given.size)


if __name__ == "__main__":
    main()
