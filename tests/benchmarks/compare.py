"""Whether two results are the same: `python -m tests.benchmarks.compare raster|vector A B` prints `{"equal": …, "detail": …}`.

It runs in a process of its own, so that the harness stays small.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import rasterio
import shapely
from pyproj import Geod, Transformer

from tests.benchmarks.entries import EXACT, Tolerance

ROWS = 512
ON_DISK = ("driver", "dtype", "compress", "blockxsize", "blockysize", "tiled", "interleave")
# How far an area in an equal-area projection, whose edges are no geodesics, may be from the true one.
AREA_TOLERANCE = 1e-5


def rasters(ours: Path, theirs: Path, tolerance: Tolerance = EXACT) -> tuple[bool, str]:
    """Same grid, codec, blocks, predictor, overviews' sizes, validity and valid pixels, window by window.

    Nodata values may differ: what counts is which pixels are valid.
    """
    with rasterio.open(ours) as one, rasterio.open(theirs) as other:
        for name in ("shape", "crs", "transform"):
            if getattr(one, name) != getattr(other, name):
                return False, f"{name} differs: {getattr(one, name)} and {getattr(other, name)}"
        layouts = [
            {k: file.profile.get(k) for k in ON_DISK} | {"predictor": file.tags(ns="IMAGE_STRUCTURE").get("PREDICTOR")}
            for file in (one, other)
        ]
        if layouts[0] != layouts[1]:
            return False, f"layout differs: {layouts[0]} and {layouts[1]}"
        levels = one.overviews(1)
        if levels != other.overviews(1):
            return False, f"overviews differ: {levels} and {other.overviews(1)}"
        equal, detail = _pixels(one, other, tolerance)
    for level in range(len(levels)) if equal else ():
        with rasterio.open(ours, overview_level=level) as one, rasterio.open(theirs, overview_level=level) as other:
            if any(abs(a - b) > 1 for a, b in zip(one.shape, other.shape, strict=True)):
                return False, f"overview {levels[level]}: {one.shape} and {other.shape}"
            if one.shape != other.shape:  # GDAL's COG driver rounds down, gdaladdo and swath up: pixels of other places
                continue
            equal, words = _pixels(one, other, replace(tolerance, absolute=tolerance.overviews))
        if not equal:
            return False, f"overview {levels[level]}: {words}"
    return equal, f"{detail}; {len(levels)} overviews" if levels else detail


def _pixels(one: Any, other: Any, tolerance: Tolerance) -> tuple[bool, str]:
    """Whether pixels are the same within a tolerance, and in words how far they are."""
    alone = beyond = 0
    most = 0.0
    for top in range(0, one.height, ROWS):
        window = ((top, min(top + ROWS, one.height)), (0, one.width))
        (a, is_a), (b, is_b) = (_valid(file, window) for file in (one, other))
        if np.array_equal(is_a, is_b) and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            continue
        alone += int(np.count_nonzero(is_a != is_b))
        both = is_a & is_b
        away = np.abs(a[both].astype("float64") - b[both])
        most = max(most, float(away.max(initial=0)))
        beyond += int(
            np.count_nonzero(away > tolerance.absolute + tolerance.relative * np.abs(b[both], dtype="float64"))
        )
    pixels = one.width * one.height
    if alone + beyond > tolerance.share * pixels:
        return False, f"{alone:,} pixels are valid in one alone, and {beyond:,} differ, by {most:.4g} at most"
    if not (most or alone):
        return True, f"{pixels:,} pixels, the same to the bit"
    words = (
        f"{pixels:,} pixels, within {tolerance.absolute:g} + {tolerance.relative:g} of the value, at most {most:.3g}"
    )
    return True, f"{words}; {alone + beyond:,} beyond or valid in one alone" if tolerance.share else words


def _valid(file: Any, window: Any) -> tuple[Any, Any]:
    """Pixels, and which are valid."""
    pixels = file.read(1, window=window)
    valid = file.read_masks(1, window=window) != 0
    return pixels, valid & ~np.isnan(pixels) if pixels.dtype.kind == "f" else valid


def _read(path: Path) -> tuple[list[str], Any, list[Any]]:
    """Fields, WKB and columns of a layer, by pyogrio."""
    meta, _, shapes, columns = pyogrio.raw.read(path)
    return [str(name) for name in meta["fields"]], shapes, columns


def _read_parquet(path: Path) -> tuple[list[str], Any, list[Any]]:
    """The same of a GeoParquet file; boxes beside the shapes, which not all write, are left out."""
    table = pq.read_table(path)
    shape = json.loads(table.schema.metadata[b"geo"])["primary_column"]
    fields = [each.name for each in table.schema if each.name != shape and not pa.types.is_struct(each.type)]
    columns = [table[name].to_numpy() for name in fields]
    return fields, table[shape].cast(pa.binary()).to_numpy(), columns


def _rows(path: Path) -> tuple[Any, list[Any], list[Any]]:
    """Numbers, WKB and columns of a layer, all in the order of `number`."""
    fields, shapes, columns = _read_parquet(path) if path.suffix == ".parquet" else _read(path)
    numbers = columns[fields.index("number")].astype("int64")
    order = np.argsort(numbers)
    return numbers[order], shapes[order], [[name, columns[i][order]] for i, name in enumerate(fields)]


def _same_shapes(ours: Any, theirs: Any) -> bool:
    """Whether vertices are the same, in the same order; a multipolygon of one polygon, as of Shapefiles, is that polygon."""
    one, other = (shapely.get_parts(shapely.from_wkb(wkb), return_index=True) for wkb in (ours, theirs))
    return np.array_equal(one[1], other[1]) and bool(shapely.equals_exact(one[0], other[0]).all())


def _same_values(ours: Any, theirs: Any) -> bool:
    """Whether a column's values are the same, nulls among them: not-a-number among numbers, None among texts."""
    return np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == theirs.dtype.kind == "f")


def _true_areas(path: Path, numbers: Any, wkb: Any) -> Any:
    """Geodesic areas of some parcels, square metres."""
    shapes = shapely.from_wkb(wkb[np.isin(_rows(path)[0], numbers)])
    crs = "EPSG:4326" if path.suffix == ".parquet" else pyogrio.read_info(path)["crs"]
    if crs != "EPSG:4326":
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform
        shapes = shapely.transform(shapes, to_degrees, interleaved=False)
    geod = Geod(ellps="WGS84")
    return np.array([abs(geod.geometry_area_perimeter(shape)[0]) for shape in shapes])


def vectors(ours: Path, theirs: Path, least: float) -> tuple[bool, str]:
    """Same parcels, shapes and attributes; a parcel may be in one alone only where its true area is at the threshold."""
    (a, wkb_a, columns_a), (b, wkb_b, columns_b) = _rows(ours), _rows(theirs)
    differ = 0
    for path, one, other, wkb in ((ours, a, b, wkb_a), (theirs, b, a, wkb_b)):
        alone = np.setdiff1d(one, other)
        if len(alone):
            away = np.abs(_true_areas(path, alone, wkb) / least - 1).max()
            if away > AREA_TOLERANCE:
                return False, f"{len(alone)} parcels in {path.name} alone, up to {away:.1e} of the threshold from it"
            differ += len(alone)
    both = np.intersect1d(a, b)
    in_a, in_b = np.isin(a, both), np.isin(b, both)
    if not len(both) or not _same_shapes(wkb_a[in_a], wkb_b[in_b]):
        return False, f"{len(both):,} parcels in both, whose shapes differ"
    for (name, values_a), (other_name, values_b) in zip(columns_a, columns_b, strict=True):
        if name != other_name or not _same_values(values_a[in_a], values_b[in_b]):
            return False, f"column {name} differs"
    return True, f"{len(a):,} and {len(b):,} parcels; {differ} in one alone, within {AREA_TOLERANCE} of the threshold"


def main() -> None:
    """Compare, and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("raster", "vector"))
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("--least", type=float, default=5000)
    parser.add_argument("--tolerance", type=json.loads, default={})
    given = parser.parse_args()
    if given.kind == "raster":
        equal, detail = rasters(given.ours, given.theirs, Tolerance(**given.tolerance))
    else:
        equal, detail = vectors(given.ours, given.theirs, given.least)
    sys.stdout.write(json.dumps({"equal": equal, "detail": detail}))


if __name__ == "__main__":
    main()
