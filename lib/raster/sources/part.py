"""A part of a raster: the pixels whose centres lie in a box, or the span of polygons, with all that the file says of them."""

import math

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds

from lib.errors import SourceError, UsageError
from lib.operations import Clip
from lib.raster.grid import Grid
from lib.raster.outline import box_outline, read_outline
from lib.raster.sources.dataset import RasterSource
from lib.raster.windows import Window

Box = tuple[float, float, float, float]
# Of a pixel: a centre that lies on an edge but for rounding lies inside.
_ON_EDGE = 1e-6


def open_part(source: RasterSource, model: Clip) -> RasterSource:
    """Leave of an open raster the part that a clip keeps; it is closed where that fails.

    Raises:
        UsageError: nothing is left of it; a CRS that does not exist.
        SourceError: it lies nowhere; polygons that cannot be read.
    """
    try:
        _cut(source, model)
    except BaseException:
        source.close()
        raise
    return source


def _cut(source: RasterSource, model: Clip) -> None:
    grid = source.grid
    if grid.transform is None:
        raise SourceError(
            f"{source.path} has no transform: a place in its CRS is nowhere among its pixels",
            hint="bring it to a grid first: `swath raster SRC DST --operation warp`"
            if grid.points
            else "georeference it first",
            path=source.path,
        )
    window = Window(0, 0, *grid.shape)
    if model.mask is not None:
        source.outline = read_outline(model.mask, grid, source.path)
        if model.crop:
            window = _within(grid, source.outline.bounds)
    if model.bbox is not None:
        box = _in_crs(model.bbox, model.bbox_crs, grid)
        if is_rotated := bool(grid.transform.b or grid.transform.d):
            if model.mask is not None:
                raise UsageError(f"--bbox: {source.path} is rotated: a box and a mask at once are not cut out of it")
            source.outline = box_outline(box, grid)
        window = _common(window, _within(grid, box, whole=is_rotated))
    if window.height <= 0 or window.width <= 0:
        raise UsageError(
            f"a clip that leaves no pixels: {'--mask' if model.mask else '--bbox'} and {source.path} do not meet",
            hint=f"it spans {_bounds_in_words(grid)} in {grid.crs.to_string() if grid.crs else 'no CRS'}",
        )
    source.offset = window.top, window.left
    source.grid = Grid(
        shape=(window.height, window.width),
        crs=grid.crs,
        transform=grid.transform @ Affine.translation(window.left, window.top),
    )


def _in_crs(box: Box, crs: str | None, grid: Grid) -> Box:
    """A box in the raster's CRS."""
    if crs is None:
        return box
    try:
        other = CRS.from_user_input(crs)
    except CRSError as error:
        raise UsageError(f"--bbox-crs: {crs} is no CRS that PROJ knows", hint="name one such as EPSG:4326") from error
    if grid.crs is None:
        raise UsageError("--bbox-crs: the raster has no CRS itself", hint="give --bbox in its own coordinates alone")
    try:
        moved: Box = transform_bounds(other, grid.crs, *box)
    except CRSError as error:
        raise UsageError(f"--bbox {box} in {crs} has no place in the raster's CRS") from error
    return moved


def _within(grid: Grid, box: Box, *, whole: bool = False) -> Window:
    """The window of pixels whose centres lie in a box; `whole`: of all that it touches."""
    left, low, right, high = box
    corners = [~grid.transform @ corner for corner in ((left, low), (left, high), (right, low), (right, high))]
    if not all(math.isfinite(value) for corner in corners for value in corner):
        return Window(0, 0, 0, 0)
    half = 0.0 if whole else 0.5
    ranges = []
    for values, length in zip(zip(*corners, strict=True), reversed(grid.shape), strict=True):
        first = math.ceil(min(values) - half - _ON_EDGE) if half else math.floor(min(values))
        last = math.floor(max(values) - half + _ON_EDGE) + 1 if half else math.ceil(max(values))
        ranges.append((max(0, first), min(length, last)))
    (left_column, right_column), (top, bottom) = ranges
    return Window(top, left_column, bottom - top, right_column - left_column)


def _common(one: Window, other: Window) -> Window:
    ranges = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(one.ranges, other.ranges, strict=True)]
    (top, bottom), (left, right) = ranges
    return Window(top, left, bottom - top, right - left)


def _bounds_in_words(grid: Grid) -> str:
    height, width = grid.shape
    places = [grid.transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    x, y = zip(*places, strict=True)
    return ",".join(f"{value:.10g}" for value in (min(x), min(y), max(x), max(y)))
