"""`terrain`: slope, aspect, hillshade, roughness, TPI and TRI, of three by three heights as gdaldem defines them.

A result is valid where all nine heights are, as in gdaldem without `-compute_edges`: so a raster's outermost pixels are not.

Slope, aspect and hillshade are of Horn's gradient (Horn 1981, "Hill shading and the reflectance map"), by metres on the ground: a
projected CRS's unit in metres; of a geographic one, those of a degree at each row's latitude on the ellipsoid (Snyder 1987, "Map
Projections: A Working Manual", equations 4-18 and 4-20). gdaldem takes one latitude, the middle's, on a sphere, and none for
aspect. Heights are metres, or what the band's unit says; a grid without a CRS is one of metres.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import SourceError
from lib.operations import Terrain
from lib.raster.block import Block
from lib.raster.grid import Grid
from lib.raster.operations.base import Operation, Outputs, check_nodata
from lib.raster.operations.linear import exact_float
from lib.raster.sources.dataset import RasterSource

Values = NDArray[Any]
_PIECE = 64 * 1024  # heights at a time (MEASURED.md, "Pieces of neighbourhoods")
_COPIES = 12  # of a piece, at most
_FOOT, _US_FOOT = 0.3048, 1200 / 3937
_METRES = {
    "": 1.0, "m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0, "ft": _FOOT, "foot": _FOOT, "feet": _FOOT,
    "international foot": _FOOT, "us-ft": _US_FOOT, "ftus": _US_FOOT, "us survey foot": _US_FOOT, "km": 1000.0, "cm": 0.01,
    "dm": 0.1, "mm": 0.001,
}  # fmt: skip
_SPACED = frozenset({"slope", "aspect", "hillshade"})  # those that depend on the size of pixels
_DEGREES = 180 / math.pi
# What the plain path may differ by: degrees, steps of a shade; else a share of the largest height that there is.
_TOLERANCES = {"slope": 1e-3, "aspect": 1e-3, "hillshade": 1.0}
_ROUNDING = {"float32": 2e-6, "float64": 1e-13}
_AROUND = [(row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)]


class TerrainAttribute(Operation):
    """One attribute of a surface; per band."""

    overlap = 1

    def __init__(self, model: Terrain, source: RasterSource, nodata: float | None) -> None:
        self._model, self._source = model, source
        self._is_spaced = model.attribute in _SPACED
        if self._is_spaced:
            _check_grid(source)
        factor = model.z_factor
        self._z = {band: factor * (_metres(source, band) if self._is_spaced else 1.0) for band in source.bands}
        shade, self._arithmetic = model.attribute == "hillshade", exact_float(source)
        dtype = np.dtype(np.uint8) if shade else self._arithmetic
        value = (0 if shade else math.nan) if nodata is None else nodata
        self.outputs = Outputs(dtype=dtype, nodata=check_nodata(value, dtype))

    def memory(self, pixels: int, bands: int) -> int:
        """A piece in several copies, and which neighbourhoods are valid."""
        del bands
        piece = min(max(_PIECE, 3 * (self._source.grid.shape[1] + 2)), pixels)
        return _COPIES * self._arithmetic.itemsize * piece + 2 * pixels

    def tolerance(self, block: Block) -> float:
        """Of arithmetic in another order and float64."""
        model = self._model
        if model.attribute in _TOLERANCES and not model.percent:
            return _TOLERANCES[model.attribute]
        heights = np.abs(block.pixels.astype(np.float64))
        largest = float(heights.max(where=block.valid & np.isfinite(heights), initial=0)) * max(self._z.values())
        if model.percent:
            east, south = self._spacing(slice(block.window.top, block.window.top + block.window.height))
            largest *= 100 / min(float(np.abs(east).min()), abs(float(np.min(np.abs(south)))))
        return largest * _ROUNDING[self._arithmetic.name]

    def _spacing(self, rows: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Metres from one pixel to the next eastwards and southwards, `(rows, 1)` each."""
        return spacing(self._source.grid, rows)

    def apply(self, block: Block, out: Block) -> Block:
        """In pieces of whole rows."""
        (height, width), top = (out.window.height, out.window.width), block.window.top
        step = max(1, _PIECE // (width + 2) - 2)
        floating = block.pixels.dtype.kind == "f" or self._model.attribute == "aspect"
        out.all_valid = block.all_valid and not floating
        if block.all_valid:
            out.valid.fill(True)
        else:
            _all_around(block.valid, out.valid)
        with np.errstate(all="ignore"):
            for band, raw, written, valid in zip(block.bands, block.pixels, out.pixels, out.valid, strict=True):
                for start in range(0, height, step):
                    rows = slice(start, min(start + step, height))
                    heights = raw[rows.start : rows.stop + 2].astype(self._arithmetic)
                    found = self._compute(heights, band, slice(top + rows.start, top + rows.stop))
                    if floating:
                        np.logical_and(valid[rows], np.isfinite(found), out=valid[rows])
                    np.copyto(written[rows], found, casting="unsafe")
        return out

    def _compute(self, heights: Values, band: int, rows: slice) -> Values:
        """The attribute of `(rows + 2, columns + 2)` heights, as floating point."""
        z = self._arithmetic.type(self._z[band])
        match self._model.attribute:
            case "roughness":
                span: Values = (_extreme(heights, np.maximum) - _extreme(heights, np.minimum)) * z
                return span
            case "tpi":
                above: Values = self._summed(heights, square=False) * (z / self._arithmetic.type(-8))
                return above
            case "tri":
                rough: Values = np.sqrt(self._summed(heights, square=True)) * z
                return rough
        east, south = ((self._z[band] / (8 * each)).astype(self._arithmetic) for each in self._spacing(rows))
        dx, dy = _horn(heights)
        dx *= east
        dy *= south
        if self._model.attribute == "hillshade":
            return self._shaded(dx, dy)
        return self._slope(dx, dy) if self._model.attribute == "slope" else self._aspect(dx, dy)

    def _summed(self, heights: Values, *, square: bool) -> Values:
        """What the eight neighbours are above the one in the middle, or the squares of that, summed."""
        height, width = heights.shape[0] - 2, heights.shape[1] - 2
        total, middle = np.zeros((height, width), heights.dtype), heights[1:-1, 1:-1]
        for row, column in _AROUND:
            away = heights[row : row + height, column : column + width] - middle
            total += np.multiply(away, away, out=away) if square else away
        return total

    def _slope(self, dx: Values, dy: Values) -> Values:
        dx *= dx
        dy *= dy
        dx += dy
        np.sqrt(dx, out=dx)
        if not self._model.percent:
            np.arctan(dx, out=dx)
        dx *= dx.dtype.type(100 if self._model.percent else _DEGREES)
        return dx

    def _aspect(self, dx: Values, dy: Values) -> Values:
        """Where a drop runs to, clockwise from north, degrees."""
        flat = (dx == 0) & (dy == 0)
        found = np.arctan2(np.negative(dx, out=dx), dy)
        found *= found.dtype.type(_DEGREES)
        np.add(found, found.dtype.type(360), out=found, where=found < 0)
        found[found >= 360] = 0  # noqa: PLR2004 - a full turn, by rounding
        found[flat] = 0 if self._model.zero_for_flat else math.nan
        return found

    def _shaded(self, dx: Values, dy: Values) -> Values:
        """254 times the cosine of the angle between light and normal, 0 in the shade; and 1, and a half to be cut off."""
        east, north, up = (dx.dtype.type(254 * each) for each in _light(self._model))
        norm = dx * dx
        norm += dy * dy
        norm += 1
        np.sqrt(norm, out=norm)
        dx *= -east
        dy *= north
        dx += dy
        dx += up
        dx /= norm
        np.maximum(dx, 0, out=dx)
        dx += dx.dtype.type(1.5)
        return dx

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Nine heights of each pixel at once; but for the gradient's sums in float64."""
        height, width = block.window.height, block.window.width
        places = [(row, column) for row in range(3) for column in range(3)]
        heights = block.pixels.astype(self._arithmetic)
        nine = np.stack([heights[:, row : row + height, column : column + width] for row, column in places])
        good = np.all([block.valid[:, row : row + height, column : column + width] for row, column in places], axis=0)
        rows = slice(block.window.top, block.window.top + height)
        east, south = self._spacing(rows) if self._is_spaced else (np.ones(1), np.ones(1))
        z = np.array([self._z[band] for band in block.bands])[:, None, None]
        with np.errstate(all="ignore"):
            found = _plain(self._model, nine, z, east, south)
            good &= np.isfinite(found)
            wanted = found.astype(self.outputs.dtype)
            if self._model.attribute == "aspect":
                wanted[wanted >= 360] = 0  # noqa: PLR2004
            return wanted, good


def _plain(model: Terrain, nine: Values, z: Values, east: Values, south: Values) -> Any:
    """An attribute by its definition, of `(9, bands, height, width)` heights from north-west to south-east."""
    wide = nine.astype(np.float64)
    match model.attribute:
        case "roughness":
            return (wide.max(axis=0) - wide.min(axis=0)) * z
        case "tpi":
            return (wide[4] - (wide.sum(axis=0) - wide[4]) / 8) * z
        case "tri":
            return np.sqrt(((wide - wide[4]) ** 2).sum(axis=0)) * z
    rows, columns = (
        [nine[i] - nine[j] for i, j in pairs] for pairs in ([(6, 0), (7, 1), (8, 2)], [(2, 0), (5, 3), (8, 6)])
    )
    dx, dy = (
        (sides[0] + sides[2] + sides[1] + sides[1]).astype(np.float64) * z / (8 * each)
        for sides, each in ((columns, east), (rows, south))
    )
    if model.attribute == "slope":
        rise = np.hypot(dx, dy)
        return rise * 100 if model.percent else np.degrees(np.arctan(rise))
    if model.attribute == "aspect":
        found = np.degrees(np.arctan2(-dx, dy)) % 360
        return np.where((dx == 0) & (dy == 0), 0 if model.zero_for_flat else np.nan, found)
    light = _light(model)
    cosine = (light[2] - dx * light[0] + dy * light[1]) / np.sqrt(1 + dx**2 + dy**2)
    return np.floor(1 + 254 * np.maximum(cosine, 0) + 0.5)


def _light(model: Terrain) -> tuple[float, float, float]:
    """Where the light comes from, a vector of length 1: east, north, up."""
    azimuth, altitude = math.radians(model.azimuth), math.radians(model.altitude)
    across = math.cos(altitude)
    return math.sin(azimuth) * across, math.cos(azimuth) * across, math.sin(altitude)


def _horn(heights: Values) -> tuple[Values, Values]:
    """Eight times the rise from one pixel to the next, eastwards and southwards: differences first, which lose few digits."""
    across = heights[:, 2:] - heights[:, :-2]
    dx = across[:-2] + across[2:]
    dx += across[1:-1]
    dx += across[1:-1]
    down = heights[2:] - heights[:-2]
    dy = down[:, :-2] + down[:, 2:]
    dy += down[:, 1:-1]
    dy += down[:, 1:-1]
    return dx, dy


def _extreme(heights: Values, function: Any) -> Values:
    rows = function(function(heights[:-2], heights[1:-1]), heights[2:])
    found: Values = function(function(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return found


def _all_around(valid: NDArray[np.bool_], out: NDArray[np.bool_]) -> None:
    """Where all of three by three are valid."""
    rows = valid[:, :-2] & valid[:, 1:-1]
    rows &= valid[:, 2:]
    np.logical_and(rows[..., :-2], rows[..., 1:-1], out=out)
    np.logical_and(out, rows[..., 2:], out=out)


def spacing(grid: Grid, rows: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres from one pixel to the next eastwards and southwards (negative: they go north) in each of some rows, `(rows, 1)`."""
    count, (across, down) = rows.stop - rows.start, (grid.transform.a, -grid.transform.e)
    unit = 1.0 if grid.crs is None else grid.crs.units_factor[1]
    if grid.crs is None or not grid.crs.is_geographic:
        return np.full((count, 1), across * unit), np.full((count, 1), down * unit)
    major, minor = _ellipsoid(grid.crs.to_wkt())
    latitude = (grid.transform.f - down * (np.arange(rows.start, rows.stop) + 0.5))[:, None] * unit
    eccentricity = 1 - (minor / major) ** 2
    curved = 1 - eccentricity * np.sin(latitude) ** 2
    of_parallel = major * np.cos(latitude) / np.sqrt(curved)
    of_meridian = major * (1 - eccentricity) / curved**1.5
    return of_parallel * across * unit, of_meridian * down * unit


@lru_cache(maxsize=4)
def _ellipsoid(wkt: str) -> tuple[float, float]:
    """Half axes, metres."""
    import pyproj  # what only a geographic CRS needs

    ellipsoid: Any = pyproj.CRS.from_wkt(wkt).ellipsoid  # every geographic CRS has one
    return float(ellipsoid.semi_major_metre), float(ellipsoid.semi_minor_metre)


def _metres(source: RasterSource, band: int) -> float:
    """Metres of a unit of height.

    Raises:
        SourceError: the band's unit is none of length that is known.
    """
    part, number = source.part(band)
    unit = (part.dataset.units[number - 1] or "").strip().lower()
    if unit not in _METRES:
        raise SourceError(
            f"{source.path}: band {band} is in {unit}, which is no known unit of height",
            hint="known are m, ft, us-ft, km, dm, cm and mm; without a unit heights are metres",
            path=source.path,
        )
    return _METRES[unit]


def _check_grid(source: RasterSource) -> None:
    """Is it known how large pixels are, and where north is?"""
    grid = source.grid
    if grid.transform is None:
        raise SourceError(
            f"{source.path} has no transform: how large its pixels are is not known",
            hint="warp it to a grid first (`gdalwarp`), or use roughness, tpi or tri",
            path=source.path,
        )
    if grid.transform.b or grid.transform.d:
        raise SourceError(
            f"{source.path} is rotated: its rows do not run from west to east",
            hint="warp it to a grid first (`gdalwarp`), or use roughness, tpi or tri",
            path=source.path,
        )
