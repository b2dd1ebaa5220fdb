"""Polygons of a small vector file in a raster's CRS, and which pixels of a window have their centre in one.

GDAL burns them (`rasterio.features`): the rule is that of `gdalwarp -cutline` without ALL_TOUCHED. The file is read whole.
"""

from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from lib.errors import SourceError
from lib.raster.grid import Grid
from lib.raster.windows import Window
from lib.units import MIB, format_bytes

_MOST_BYTES = 64 * MIB
# An edge that is straight in one CRS is none in another: each is cut into parts of at most so much of the whole's extent.
_PARTS = 256


class Outline:
    """Polygons on a grid of pixels.

    Args:
        polygons: in the raster's CRS, an array of shapely's.
        transform: affine, of the whole file's pixels to its CRS.
    """

    def __init__(self, polygons: NDArray[Any], transform: Affine) -> None:
        import shapely

        self._polygons, self._transform = polygons, transform
        self.bounds: tuple[float, float, float, float] = tuple(map(float, shapely.total_bounds(polygons)))  # type: ignore[assignment]
        shapely.prepare(polygons)
        self._valid = shapely.is_valid(polygons)
        self._tree = shapely.STRtree(polygons)

    def inside(self, window: Window) -> NDArray[np.bool_] | None:
        """Where pixels of a window of the file lie inside, `(height, width)`; None where all do."""
        import shapely

        transform = self._transform @ Affine.translation(window.left, window.top)
        corners = [(0, 0), (window.width, 0), (window.width, window.height), (0, window.height)]
        place = shapely.Polygon([transform @ corner for corner in corners])
        near = self._tree.query(place)
        if any(self._valid[i] and shapely.covers(self._polygons[i], place) for i in near):
            return None
        return self._burnt([self._polygons[i] for i in near], transform, window)

    def plainly(self, window: Window) -> NDArray[np.bool_]:
        """The same, by burning every polygon."""
        return self._burnt(list(self._polygons), self._transform @ Affine.translation(window.left, window.top), window)

    def _burnt(self, polygons: list[Any], transform: Affine, window: Window) -> NDArray[np.bool_]:
        from rasterio.features import rasterize

        shape = (window.height, window.width)
        if not polygons:
            return np.zeros(shape, np.bool_)
        burnt: NDArray[np.uint8] = rasterize(
            polygons, out_shape=shape, transform=transform, default_value=1, dtype="uint8"
        )
        return burnt.view(np.bool_)


def box_outline(box: tuple[float, float, float, float], grid: Grid) -> Outline:
    """A box in the raster's CRS."""
    import shapely

    return Outline(np.array([shapely.box(*box)]), grid.transform)


def read_outline(path: str, grid: Grid, label: str) -> Outline:
    """The polygons of a vector file in the CRS of a grid.

    Raises:
        SourceError: it cannot be read, is large, holds no polygons; one of both has no CRS.
    """
    import pyogrio.raw
    import shapely

    from lib.vector import ogr

    size = Path(path).stat().st_size if Path(path).is_file() else 0
    if size > _MOST_BYTES:
        raise SourceError(
            f"--mask {path} is {format_bytes(size)} large: polygons of at most {format_bytes(_MOST_BYTES)} are read",
            hint="write those that are needed to a file of their own (`swath vector`)",
            path=path,
        )
    try:
        with ogr.configured(), ogr.opening(path) as (name, options):
            meta, _, found, _ = pyogrio.raw.read(name, columns=[], **options)
    except Exception as error:
        raise ogr.translated(error, path, writing=False) from error
    shapes = shapely.from_wkb(found) if found is not None else np.array([])
    parts = shapely.get_parts(shapely.force_2d(shapes[~shapely.is_missing(shapes) & ~shapely.is_empty(shapes)]))
    polygons = parts[
        np.isin(shapely.get_type_id(parts), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    ]
    if not len(polygons):
        raise SourceError(f"--mask {path} holds no polygons", hint="name a file that does", path=path)
    if (meta["crs"] is None) != (grid.crs is None):
        without = path if meta["crs"] is None else label
        raise SourceError(
            f"--mask {path}: {without} has no CRS, so that they cannot be laid over each other", path=path
        )
    if meta["crs"] is None:
        return Outline(polygons, grid.transform)
    return Outline(_moved(polygons, meta["crs"], grid), grid.transform)


def _moved(polygons: NDArray[Any], crs: str, grid: Grid) -> NDArray[Any]:
    """Polygons in another CRS, with their edges cut into short ones."""
    import pyproj
    import shapely

    there, here = pyproj.CRS.from_user_input(crs), pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if there.equals(here, ignore_axis_order=True):
        return polygons
    left, low, right, high = shapely.total_bounds(polygons)
    cut = shapely.segmentize(polygons, max(right - left, high - low) / _PARTS)
    move = pyproj.Transformer.from_crs(there, here, always_xy=True)
    moved: NDArray[Any] = shapely.transform(cut, lambda points: np.column_stack(move.transform(*points.T)))
    return moved
