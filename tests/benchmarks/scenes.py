"""The sources of the benchmarks, made by a seed: `python -m tests.benchmarks.scenes NAME FOLDER --size small|full`.

It runs in a process of its own, so that the harness stays small: what it starts would inherit its high-water mark.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from pyproj import Transformer
from rasterio.transform import from_origin

EDGES = {"small": 1100, "full": 10_000}
PARCELS = {"small": 5_000, "full": 1_000_000}
FEW = 10
# Areas are log-normal: 6 % are at least 5,000 m2, and 67 % at least 1,000 m2.
MEDIAN_SQM, SIGMA = 1441, 0.8
STRIP = 512


def imagery(path: Path, edge: int, **options: Any) -> None:
    """Reflectances as of a satellite, times 10,000: a smooth field with noise, uint16, some above 1."""
    source = np.random.default_rng(15)
    columns = np.arange(edge, dtype="float32")
    with rasterio.open(
        path, "w", driver="GTiff", width=edge, height=edge, count=1, dtype="uint16", crs="EPSG:32633",
        transform=from_origin(500_000, 5_000_000, 10, 10), compress="deflate", predictor=2, num_threads=2, **options,
    ) as dataset:  # fmt: skip
        for top in range(0, edge, STRIP):
            rows = np.arange(top, min(top + STRIP, edge), dtype="float32")[:, None]
            field = 5200 + 3000 * np.sin(rows / 410) * np.cos(columns / 370) + 2400 * np.sin((rows + columns) / 1900)
            noise = source.standard_normal(field.shape, dtype="float32") * 60
            window = ((top, top + len(rows)), (0, edge))
            dataset.write(np.maximum(field + noise, 0).astype("uint16"), 1, window=window)


def tiled(folder: Path, size: str) -> None:
    """Tiles of 512, deflate with predictor 2, as Earth observation data are."""
    imagery(folder / "tiled.tif", EDGES[size], tiled=True, blockxsize=512, blockysize=512)


def strips(folder: Path, size: str) -> None:
    """Strips as GDAL makes them (here of one row), deflate with predictor 2."""
    imagery(folder / "strips.tif", EDGES[size])


def tiny(folder: Path, _size: str) -> None:
    """A raster of 64 x 64 pixels."""
    imagery(folder / "tiny.tif", 64)


def _rings(source: np.random.Generator, rows: int, corners: int) -> tuple[Any, Any]:
    """Centres `(rows, 2)` in degrees and rings `(rows, corners + 1, 2)` in metres about them."""
    centres = np.column_stack([source.uniform(-10, 30, rows), source.uniform(35, 60, rows)])
    areas = MEDIAN_SQM * np.exp(SIGMA * source.standard_normal(rows))
    turns = 2 * np.pi * (np.arange(corners) + source.uniform(-0.15, 0.15, (rows, corners))) / corners
    turns += source.uniform(0, 2 * np.pi, (rows, 1))
    stretch = source.uniform(0.6, 1.6, (rows, 1))
    points = np.stack([np.cos(turns) * stretch, np.sin(turns) / stretch], axis=-1)
    x, y = points[..., 0], points[..., 1]
    unit = np.abs(np.sum(x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1), axis=1)) / 2
    points *= np.sqrt(areas / unit)[:, None, None]
    return centres, np.concatenate([points, points[:, :1]], axis=1)


def parcels(path: Path, rows: int, driver: str, crs: str = "EPSG:4326") -> None:
    """Irregular quadrangles, a tenth of them octagons, in no order, with numbers and texts."""
    source = np.random.default_rng(6)
    parts = []
    for count, corners in ((rows - rows // 10, 4), (rows // 10, 8)):
        centres, rings = _rings(source, count, corners)
        metre = 1 / 111_320
        degrees = rings * metre
        degrees[..., 0] /= np.cos(np.radians(centres[:, 1]))[:, None]
        degrees += centres[:, None]
        if crs != "EPSG:4326":
            x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(degrees[..., 0], degrees[..., 1])
            degrees = np.stack([x, y], axis=-1)
        parts.append(shapely.polygons(degrees))
    numbers = source.permutation(rows)
    zones = np.array(["arable", "meadow", "vineyard", "orchard", "forest"], dtype=object)
    columns: dict[str, Any] = {
        "number": numbers,
        "owner": np.array([f"Owner {n * 7919 % 99_991:05d}, Field Lane {n % 240}" for n in numbers], dtype=object),
        "zone": zones[source.integers(0, len(zones), rows)],
        "value": np.round(source.uniform(1, 90_000, rows), 2),
    }
    pyogrio.raw.write(
        path, driver=driver, geometry=shapely.to_wkb(np.concatenate(parts)[numbers]), geometry_type="Polygon",
        field_data=list(columns.values()), fields=list(columns), crs=crs,
    )  # fmt: skip


def _of(name: str, driver: str, crs: str = "EPSG:4326", *, few: bool = False) -> Callable[[Path, str], None]:
    def made(folder: Path, size: str) -> None:
        parcels(folder / name, FEW if few else PARCELS[size], driver, crs)

    return made


SCENES: dict[str, Callable[[Path, str], None]] = {
    "tiled.tif": tiled,
    "strips.tif": strips,
    "tiny.tif": tiny,
    "parcels.gpkg": _of("parcels.gpkg", "GPKG"),
    "laea.gpkg": _of("laea.gpkg", "GPKG", "EPSG:3035"),
    "parcels.fgb": _of("parcels.fgb", "FlatGeobuf"),
    "parcels.shp": _of("parcels.shp", "ESRI Shapefile"),
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
