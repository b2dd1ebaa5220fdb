"""PNG and JPEG. Their drivers only copy a whole dataset, so the staged GeoTIFF of the job, verified like any other, is copied.

GDAL copies line by line: of a PNG a row of tiles and some lines are held; of a JPEG all coefficients (GDAL optimises codes),
and its mask (`copying_bytes`). What a picture's format has no place for (CRS, transform, tags) stands in its `.aux.xml`, which is
published with it. Which pixels are valid:

- PNG: one band has its nodata value in the file; several get an alpha band where a pixel is not valid, as one that is there does.
- JPEG: loses digits of all values, so a nodata value could not be told: GDAL's mask behind the picture, for all bands at once.
"""

import xml.etree.ElementTree as ET  # of what GDAL has just written
from pathlib import Path
from typing import Any, NamedTuple

import rasterio.shutil
from rasterio.enums import ColorInterp

from lib.errors import UsageError
from lib.jobs import PICTURE_DRIVERS, RasterJob
from lib.paths import for_gdal
from lib.raster import gdal, tags
from lib.raster.faults import writing
from lib.raster.formats import open_source
from lib.raster.operations import Outputs
from lib.raster.sources.dataset import RasterSource
from lib.raster.windows import steps
from lib.units import KIB, MIB

# libpng's own bound, and that of JPEG's 16 bits as libjpeg has it.
_MOST_EDGE = {"PNG": 1_000_000, "JPEG": 65_500}
_DTYPES = {"PNG": ("uint8", "uint16"), "JPEG": ("uint8",)}
_PNG_LEVEL, JPEG_QUALITY = 6, 75  # zlib's and GDAL's own defaults
# As of other reads: what GDAL needs to keep a row of blocks (FACTS); and codecs, a VRT, its sidecar (MEASURED, "Pictures").
_ROW_CACHE, _LINES, _CODEC_BYTES = 1.3, 8, 4 * MIB
_HELD_SHARE = 1.2  # of a cache beyond its bound (MEASURED, "Pictures")
_MCU, _COEFFICIENT_BYTES = 16, 2
BLOCK = 128  # of the tiles that are copied: a row of larger ones would be more to hold
COMPARED_PIXELS = 64 * 1024  # at a time, or a line of them
_COMPARED_BYTES = 24  # for each: bands, masks and differences


class Picture(NamedTuple):
    """What is to be copied.

    Attributes:
        driver: PNG or JPEG.
        tiles: the staged GeoTIFF.
        path: the staged picture.
        invalid: some of its pixels are not valid, by a nodata value or a mask.
    """

    driver: str
    tiles: Path
    path: Path
    invalid: bool


def is_picture(job: RasterJob) -> bool:
    """Whether a job writes one."""
    return job.driver in PICTURE_DRIVERS


def tiles_of(staged: Path) -> Path:
    """Where the GeoTIFF is staged that a picture is copied from."""
    return staged.with_name(f"{staged.name}.tiles.tif")


def check(job: RasterJob, source: RasterSource, outputs: Outputs) -> None:
    """Can a picture hold what an operation writes?

    Raises:
        UsageError: it cannot; says what to do.
    """
    driver, (height, width) = job.driver, source.grid.shape
    bands = outputs.count(len(source.bands))
    has_alpha = not outputs.new_bands and source.validity.alpha == source.bands[-1] and bands > 1
    most, dtypes = _MOST_EDGE[driver], _DTYPES[driver]
    fewer = "choose bands with --bands, or write .tif"
    problem, hint = "", ""
    if max(height, width) > most:
        problem = f"is {width} x {height} pixels, and a {driver} at most {most:,} a side"
        hint = "write a part (--operation clip), a coarser grid (--operation warp --resolution), or .tif with --cog"
    elif outputs.dtype.name not in dtypes:
        problem = f"has {outputs.dtype} results, and a {driver} holds {' or '.join(dtypes)}"
        hint = "map them to 0 to 255 with --operation rescale and --dtype uint8, or write .tif"
    elif driver == "JPEG" and has_alpha:
        problem, hint = "has an alpha band, and a JPEG holds none", f"{fewer} or .png"
    elif driver == "JPEG" and bands not in {1, 3}:
        problem, hint = f"has {bands} bands, and a JPEG holds 1 or 3", fewer
    elif driver == "JPEG" and keeps_palette(source, outputs):
        problem = "has a colour table, and a JPEG holds none"
        hint = "write .png, or expand it to three bands first (`gdal_translate -expand rgb`)"
    elif bands not in {1, 2, 3, 4}:
        problem, hint = f"has {bands} bands, and a PNG holds 1 to 4", fewer
    elif bands in {2, 4} and not has_alpha:
        problem, hint = f"has {bands} bands, and the last is no alpha band, which a PNG takes it for", fewer
    if problem:
        raise UsageError(f"{job.label} {problem}", hint=hint)


def keeps_palette(source: RasterSource, outputs: Outputs) -> bool:
    """Whether the values written are indexes into a colour table."""
    return outputs.keeps_colours and source.dataset.colorinterp[source.bands[0] - 1] == ColorInterp.palette


def expected(of_tiles: dict[str, Any], driver: str) -> dict[str, Any]:
    """What a picture must be, by what its GeoTIFF must be."""
    gone = {"block_size", "compress", "mask", "holes"} | ({"nodata"} if driver == "JPEG" else set())
    return {name: value for name, value in of_tiles.items() if name not in gone} | {"driver": driver}


def copying_bytes(driver: str, shape: tuple[int, int], bands: int, itemsize: int, block: int, *, mask: bool) -> int:
    """What is held while a picture is copied from tiles of edge `block`; `mask`: some pixels may not be valid."""
    height, width = shape
    whole = 0
    if driver == "JPEG":  # chroma has a quarter of the pixels, twice
        samples = steps(height, _MCU) * steps(width, _MCU) * _MCU**2 * (1 if bands == 1 else 1.5)
        # GDAL holds all of a mask, and once more deflated.
        whole = int(samples * _COEFFICIENT_BYTES) + (2 * steps(width, 8) * height if mask else 0)
    lines = _LINES * width * (bands + 1) * itemsize
    compared = _COMPARED_BYTES * max(COMPARED_PIXELS, width)
    cache = int(_HELD_SHARE * row_bytes(width, bands + mask, itemsize, block))
    return cache + lines + compared + whole + _CODEC_BYTES


def row_bytes(width: int, bands: int, itemsize: int, block: int) -> int:
    """A cache that keeps one row of tiles."""
    return int(_ROW_CACHE * steps(width, block) * block * block * bands * itemsize) + 64 * KIB


def disk_bytes(shape: tuple[int, int], bands: int, itemsize: int) -> int:
    """Upper bound of a picture: its pixels (and alpha) as they are, a byte a line of each, and its tables."""
    height, width = shape
    return height * (width * (bands + 1) * itemsize * 257 // 256 + 64) + MIB


def write(picture: Picture, job: RasterJob) -> None:
    """Copy the GeoTIFF to the picture, with all that it says of itself.

    Raises:
        OutputError: the disk or GDAL said no.
        MemoryExceeded: an allocator did.
    """
    description = picture.path.with_name(f"{picture.path.name}.vrt")
    options: dict[str, Any] = dict(each.split("=", 1) for each in job.creation_options)
    if picture.driver == "PNG":
        options["ZLEVEL"] = job.level or _PNG_LEVEL
    with writing(str(picture.path)):
        for former in (picture.path, picture.path.with_name(f"{picture.path.name}.aux.xml")):
            former.unlink(missing_ok=True)
        rasterio.shutil.copy(for_gdal(picture.tiles), for_gdal(description), driver="VRT")
        _describe(picture, description)
        # Not strict: a PNG has no mask band, and alpha in its place.
        rasterio.shutil.copy(
            for_gdal(description), for_gdal(picture.path), driver=picture.driver, strict=False, **options
        )
        description.unlink()
        _complete(picture)


def _describe(picture: Picture, description: Path) -> None:
    """Change the VRT of the GeoTIFF so that validity is where a picture has it."""
    tree = ET.parse(description)  # noqa: S314
    root = tree.getroot()
    bands, mask = root.findall("VRTRasterBand"), root.find("MaskBand")
    names = [band.findtext("ColorInterp") for band in bands]
    if mask is not None:
        root.remove(mask)
    if picture.driver == "JPEG":
        for band in bands:
            for value in band.findall("NoDataValue"):
                band.remove(value)
        if picture.invalid:
            whole = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
            _least(whole, bands, picture)
    elif picture.invalid and (len(bands) > 1 or mask is not None):
        kind, alpha = bands[0].get("dataType", "Byte"), bands[-1] if names[-1] == "Alpha" else None
        colours = bands if alpha is None else bands[:-1]
        whole = ET.Element("VRTRasterBand", dataType=kind, band=str(len(colours) + 1))
        ET.SubElement(whole, "ColorInterp").text = "Alpha"
        _least(whole, colours, picture, beside=alpha)
        if alpha is not None:
            root.remove(alpha)
        root.append(whole)
    tree.write(description, encoding="utf-8")


def _least(whole: ET.Element, bands: list[ET.Element], picture: Picture, beside: ET.Element | None = None) -> None:
    """Make a band the least of other bands' masks, and of an alpha band."""
    whole.set("subClass", "VRTDerivedRasterBand")
    ET.SubElement(whole, "PixelFunctionType").text = "min"
    wide = whole.get("dataType") == "UInt16"
    sources = [] if beside is None else [each for each in beside if each.tag.endswith("Source")]
    for number in range(1, len(bands) + 1):
        source = ET.Element("ComplexSource" if wide else "SimpleSource")
        ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = picture.tiles.name
        ET.SubElement(source, "SourceBand").text = f"mask,{number}"
        if wide:
            ET.SubElement(source, "ScaleOffset").text = "0"
            ET.SubElement(source, "ScaleRatio").text = "257"
        sources.append(source)
    whole.extend(sources)


def _complete(picture: Picture) -> None:
    """Give the picture's sidecar the texts that a VRT or GDAL's copy left behind."""
    with open_source(str(picture.tiles)) as tiles, open_source(str(picture.path)) as copied:
        for band in range(tiles.count + 1):
            for domain in [None, *tags.domains(tiles, band)]:
                lines = gdal.texts(tiles, band, domain)
                if lines and set(lines) - set(gdal.texts(copied, band, domain)):
                    gdal.set_texts(copied, band, domain, lines)
