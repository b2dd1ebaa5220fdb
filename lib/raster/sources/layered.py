"""How the files of a mosaic lie, and a VRT of them for GDAL's own algorithms: its warper reads no mosaic of ours."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.paths import for_gdal
from lib.raster import gdal
from lib.raster.grid import Grid
from lib.raster.sources.dataset import RasterSource
from lib.raster.sources.parts import Part

_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "uint64": "UInt64", "int64": "Int64", "float16": "Float16", "float32": "Float32", "float64": "Float64",
}  # fmt: skip
_OWN_ALPHA = "0"


class Piece(NamedTuple):
    """A part's pixels in a window, by the mosaic's rows and columns."""

    part: int
    top: int
    bottom: int
    left: int
    right: int

    def meets(self, other: "Piece") -> bool:
        """Whether they have pixels in common."""
        return (
            self.top < other.bottom and other.top < self.bottom and self.left < other.right and other.left < self.right
        )

    def covers(self, other: "Piece") -> bool:
        """Whether it has all of the other's."""
        return (
            self.top <= other.top
            and other.bottom <= self.bottom
            and self.left <= other.left
            and other.right <= self.right
        )

    @property
    def pixels(self) -> int:
        """How many."""
        return (self.bottom - self.top) * (self.right - self.left)


def lie(bounds: NDArray[np.int64], shape: tuple[int, int]) -> tuple[bool, bool]:
    """Whether rectangles leave no gap in a grid, and whether any lie over each other.

    Args:
        bounds: `(n, 4)`: each one's first and last row, first and last column, the last ones exclusive.
        shape: `(height, width)` of the grid.
    """
    edges = np.unique(bounds[:, :2])
    is_full, overlaps = bool(edges[0] == 0 and edges[-1] == shape[0]), False
    for top in edges[:-1]:
        row = bounds[(bounds[:, 0] <= top) & (bounds[:, 1] > top), 2:]
        row = row[np.argsort(row[:, 0], kind="stable")]
        reach = np.maximum.accumulate(row[:, 1])
        is_full = is_full and bool(
            len(row) and row[0, 0] == 0 and reach[-1] == shape[1] and (row[1:, 0] <= reach[:-1]).all()
        )
        overlaps = overlaps or bool((row[1:, 0] < reach[:-1]).any())
        if overlaps and not is_full:
            break
    return is_full, overlaps


def as_vrt(one: RasterSource, parts: Sequence[Part], grid: Grid, *, masked: bool) -> bytes:
    """A VRT of files, the later ones on top.

    Args:
        one: the first of them, for what they have in common.
        parts: where they lie.
        grid: of all.
        masked: with a mask band, as no value says what a gap is.
    """
    rules, height, width = one.validity, *grid.shape
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    if grid.crs:
        ET.SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = grid.crs.to_wkt()
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(each)) for each in grid.transform.to_gdal())
    for band in one.dataset.indexes:
        dtype = one.dataset.dtypes[band - 1]
        own = ET.SubElement(root, "VRTRasterBand", dataType=_TYPES[dtype], band=str(band))
        nodata = _number(rules.declared[band - 1]) if rules.declared[band - 1] is not None else ""
        if not nodata and dtype.startswith("float") and not masked and not rules.masks_by_alpha:
            nodata = "nan"
        if nodata:
            ET.SubElement(own, "NoDataValue").text = nodata
        ET.SubElement(own, "ColorInterp").text = "Alpha" if band == rules.alpha else "Undefined"
        hidden = _OWN_ALPHA if band == rules.alpha else nodata
        for part in parts:
            _add(own, part, str(band), hidden, by_mask=bool(part.validity.masked) and band != rules.alpha)
    if masked:
        mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        for part in parts:
            _add(mask, part, "mask,1", "0", by_mask=False)
    return ET.tostring(root)


def _add(band: ET.Element, part: Part, number: str, hidden: str, *, by_mask: bool) -> None:
    """One file in a band; its pixels of the value `hidden`, or that its mask hides, let what is below through."""
    source = ET.SubElement(band, "ComplexSource" if hidden or by_mask else "SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = gdal.name_of(for_gdal(part.path))
    ET.SubElement(source, "SourceBand").text = number
    size = {"xSize": str(part.place.width), "ySize": str(part.place.height)}
    ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | size)
    ET.SubElement(source, "DstRect", {"xOff": str(part.place.left), "yOff": str(part.place.top)} | size)
    if by_mask:
        ET.SubElement(source, "UseMaskBand").text = "true"
    elif hidden:
        ET.SubElement(source, "NODATA").text = hidden


def _number(value: float | None) -> str:
    return str(value) if isinstance(value, int) else f"{value:.17g}"
