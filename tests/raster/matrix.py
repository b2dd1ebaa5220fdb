"""What a raster can carry, by source format: files with all of it, how each thing is read, and the README's table.

Files are made by GDAL's own writers of one VRT that has everything; what a format does not take shows when it is read back.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp, MaskFlags

from lib.raster.formats import environment

KEPT, BESIDE, ADJUSTED, AS_NAN, SAID, NONE = "kept", "kept beside", "adjusted", "as NaN", "dropped, said", "-"
HEIGHT, WIDTH = 40, 60
SUFFIXES = {
    "GTiff": ".tif", "COG": ".tif", "VRT": ".vrt", "PNG": ".png", "JPEG": ".jpg", "netCDF": ".nc", "HFA": ".img",
    "ENVI": ".dat",
}  # fmt: skip
_DTYPES = {"PNG": "UInt16", "JPEG": "Byte"}
_OPTIONS = {"GTiff": {"COPY_SRC_MDD": "YES"}}  # all domains of the dataset's tags, and none of a band's
_NUMPY = {"Int16": "int16", "UInt16": "uint16", "Byte": "uint8"}

_XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><yaw>12.5</yaw></x:xmpmeta>'
_TABLE = (
    '<GDALRasterAttributeTable tableType="thematic"><FieldDefn index="0"><Name>Value</Name><Type>0</Type>'
    '<Usage>5</Usage></FieldDefn><FieldDefn index="1"><Name>Class</Name><Type>2</Type><Usage>2</Usage>'
    '</FieldDefn><Row index="0"><F>1</F><F>wood</F></Row>'
    "</GDALRasterAttributeTable>"
)
_TAGS = '<Metadata><MDI key="SENSOR">MSI</MDI><MDI key="AREA_OR_POINT">Point</MDI></Metadata>'
_DOMAINS = (
    f'<Metadata domain="ORBIT"><MDI key="NUMBER">77</MDI></Metadata><Metadata domain="xml:XMP" format="xml">{_XMP}</Metadata>'
    '<Metadata domain="json:NOTE" format="json">{"a":1}</Metadata>'
)
_NUMBERS = "<Description>heat</Description><UnitType>K</UnitType><Offset>-3</Offset><Scale>0.02</Scale>"
_RPC = {
    "LINE_OFF": "20", "SAMP_OFF": "30", "LAT_OFF": "50", "LONG_OFF": "10", "HEIGHT_OFF": "100", "LINE_SCALE": "20",
    "SAMP_SCALE": "30", "LAT_SCALE": "1", "LONG_SCALE": "1", "HEIGHT_SCALE": "100", "ERR_BIAS": "1", "ERR_RAND": "1",
    **{f"{part}_COEFF": " ".join(["1"] * 20) for part in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN")},
}  # fmt: skip
_DEGREE = 'ANGLEUNIT["degree",0.0174532925199433]'
_ROTATED = (
    'GEOGCRS["Rotated pole",BASEGEOGCRS["WGS 84",DATUM["World Geodetic System 1984",ELLIPSOID["WGS 84",6378137,298.257223563]]],'
    'DERIVINGCONVERSION["Pole rotation",METHOD["Pole rotation (netCDF CF convention)"],'
    f'PARAMETER["Grid north pole latitude (netCDF CF convention)",41,{_DEGREE}],'
    f'PARAMETER["Grid north pole longitude (netCDF CF convention)",-170,{_DEGREE}],'
    f'PARAMETER["North pole grid longitude (netCDF CF convention)",0,{_DEGREE}]],'
    f'CS[ellipsoidal,2],AXIS["longitude",east],AXIS["latitude",north],{_DEGREE}]'
)
_PLACE = "<GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>"


def make(folder: Path, kind: str, driver: str) -> Path | None:
    """A file of one of `KINDS` in a format; None where the format does not take it."""
    dtype = _DTYPES.get(driver, "Int16") if kind == "numbers" else "Byte"
    bands = 4 if kind == "colours" else 1
    plain, mosaic, path = folder / "plain.tif", folder / "all.vrt", folder / f"in{SUFFIXES[driver]}"
    pixels = np.random.default_rng(3).integers(0, 4, (bands, HEIGHT, WIDTH)).astype(_NUMPY[dtype])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            plain, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=bands, dtype=_NUMPY[dtype], photometric="minisblack"
        ) as dataset:  # fmt: skip
            dataset.write(pixels)
            if kind == "masked":
                dataset.write_mask(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 7 != 0)
        mosaic.write_text(_vrt(kind, dtype, bands), encoding="ascii")
        if driver == "VRT":
            return mosaic
        try:
            rasterio.shutil.copy(mosaic, path, driver=driver, strict=False, **_OPTIONS.get(driver, {}))
        except Exception:  # noqa: BLE001 - whatever GDAL says: it does not take it
            return None
    if driver == "GTiff" and kind == "numbers":
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(1, WAVELENGTH="665")
    with environment(), rasterio.open(path) as dataset:
        return path if dataset.count == bands else None


def _vrt(kind: str, dtype: str, bands: int) -> str:
    coefficients = "".join(f'<MDI key="{key}">{text}</MDI>' for key, text in _RPC.items())
    place = {
        "numbers": f'<SRS coordinateEpoch="2021.5">EPSG:32633+5773</SRS>{_PLACE}{_TAGS}{_DOMAINS}',
        "colours": '<GCPList Projection="EPSG:4326">'
        + "".join(
            f'<GCP Id="{n}" Pixel="{n % 2 * 60}" Line="{n // 2 * 40}" X="{n % 2}" Y="{n // 2}" Z="3"/>'
            for n in range(4)
        )
        + "</GCPList>",
        "polynomials": f'<Metadata domain="RPC">{coefficients}</Metadata>',
        "classes": f"<SRS>EPSG:32633</SRS>{_PLACE}",
        "masked": f"<SRS>EPSG:32633</SRS>{_PLACE}",
        "rotated": f"<SRS>{escape(_ROTATED)}</SRS><GeoTransform>-28,0.11,0,22,0,-0.11</GeoTransform>",
    }[kind]
    found = ""
    for band in range(1, bands + 1):
        inner = {
            "numbers": f'<Metadata><MDI key="WAVELENGTH">665</MDI></Metadata><NoDataValue>0</NoDataValue>{_NUMBERS}',
            "colours": f"<ColorInterp>{('Red', 'Green', 'Blue', 'Alpha')[band - 1]}</ColorInterp>",
            "classes": '<ColorInterp>Palette</ColorInterp><ColorTable><Entry c1="1" c2="2" c3="3" c4="255"/>'
            f'<Entry c1="9" c2="8" c3="7" c4="255"/></ColorTable><CategoryNames><Category>water</Category>'
            f"<Category>wood</Category></CategoryNames>{_TABLE}",
        }.get(kind, "")
        found += (
            f'<VRTRasterBand dataType="{dtype}" band="{band}">{inner}<SimpleSource><SourceFilename relativeToVRT="1">plain.tif'
            f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        )
    mask = (
        '<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename relativeToVRT="1">plain.tif</SourceFilename>'
        "<SourceBand>mask,1</SourceBand></SimpleSource></VRTRasterBand></MaskBand>"
    ) * (kind == "masked")
    return f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{place}{found}{mask}</VRTDataset>'


def _as_vrt(path: Path) -> str:
    """What GDAL's own VRT of a raster says of it."""
    with environment():
        rasterio.shutil.copy(path, "/vsimem/swath-matrix.vrt", driver="VRT")
        with rasterio.open("/vsimem/swath-matrix.vrt") as dataset:
            said: str = dataset.tags(ns="xml:VRT")["xml:VRT"]
        rasterio.shutil.delete("/vsimem/swath-matrix.vrt")
    return said


def _between(text: str, name: str) -> str:
    start, end = text.find(f"<{name}"), text.rfind(f"</{name}>")
    return "".join(text[start:end].split()) if start >= 0 else ""


Read = Callable[[Any, Path], Any]
# By kind of file: each thing, and how it is read; something false where there is none.
KINDS: dict[str, dict[str, Read]] = {
    "numbers": {
        "nodata": lambda dataset, _: dataset.nodata is not None and [dataset.nodata],
        "scale and offset": lambda dataset, _: dataset.scales[0] != 1 and (dataset.scales, dataset.offsets),
        "unit": lambda dataset, _: dataset.units[0],
        "description": lambda dataset, _: dataset.descriptions[0],
        "tags": lambda dataset, _: dataset.tags().get("SENSOR"),
        "a band's tags": lambda dataset, _: dataset.tags(1).get("WAVELENGTH"),
        "tags of a domain": lambda dataset, _: dataset.tags(ns="ORBIT"),
        "XMP": lambda dataset, _: dataset.tags(ns="xml:XMP").get("xml:XMP", "").strip(),
        "JSON": lambda dataset, _: dataset.tags(ns="json:NOTE"),
        "vertical CRS": lambda dataset, _: dataset.crs and "VERT" in dataset.crs.to_wkt() and dataset.crs.to_wkt()[-40:],
        "coordinate epoch": lambda _, path: 'coordinateEpoch="2021.5"' in _as_vrt(path),
        "AREA_OR_POINT": lambda dataset, _: dataset.tags().get("AREA_OR_POINT"),
    },
    "colours": {
        "alpha band": lambda dataset, _: (
            dataset.colorinterp[-1] == ColorInterp.alpha and dataset.read(4).astype("float64").tobytes()
        ),
        "ground control points": lambda dataset, _: [(p.row, p.col, p.x, p.y) for p in dataset.gcps[0]],
    },
    "polynomials": {"RPCs": lambda dataset, _: dataset.rpcs},
    "classes": {
        "colour table": lambda dataset, _: dataset.colorinterp[0] == ColorInterp.palette and dataset.colormap(1)[1],
        "names of classes": lambda _, path: _between(_as_vrt(path), "CategoryNames"),
        "attribute table": lambda _, path: _between(_as_vrt(path), "GDALRasterAttributeTable"),
    },
    "rotated": {"CRS that GeoTIFF keys cannot hold": lambda dataset, _: dataset.crs and "Pole rotation" in dataset.crs.to_wkt()},
    "masked": {
        "CRS and grid": lambda dataset, _: dataset.crs and (dataset.crs.to_epsg(), dataset.transform),
        "mask": lambda dataset, _: MaskFlags.per_dataset in dataset.mask_flag_enums[0] and dataset.read_masks(1).tobytes(),
    },
}  # fmt: skip


def carried(path: Path, kind: str) -> dict[str, Any]:
    """Each thing of a kind as a raster has it."""
    with environment(), rasterio.open(path) as dataset:
        return {name: read(dataset, path) for name, read in KINDS[kind].items()}


CHANGED = "values changed"
COLUMNS = (*SUFFIXES, CHANGED)


def _row(cells: str) -> dict[str, str]:
    """Cells by column, a letter each."""
    meanings = {"k": KEPT, "b": BESIDE, "a": ADJUSTED, "n": AS_NAN, "s": SAID, "-": NONE}
    return {column: meanings[each] for column, each in zip(COLUMNS, cells.replace(" ", ""), strict=True)}


# What a GeoTIFF keeps of each thing, by the source's format; the last column is a GeoTIFF under `rescale --multiply 2`.
TABLE: dict[str, dict[str, str]] = {
    name: _row(cells)
    for name, cells in {
        #                                   GTiff COG VRT PNG JPEG netCDF HFA ENVI changed
        "CRS and grid": "                        k k k k k k k k k",
        "vertical CRS": "                        k k k k k k - k k",
        "coordinate epoch": "                    k k k k k - - - k",
        "CRS that GeoTIFF keys cannot hold": "   b b b b b b b - b",
        "ground control points": "               k k k k - - k k k",
        "RPCs": "                                k k k k k - k k k",
        "AREA_OR_POINT": "                       k k k k k - k k k",
        "nodata": "                              k k k k k k k k n",
        "mask": "                                k k k k k - k k n",
        "alpha band": "                          k k k k - - - - k",
        "colour table": "                        k k k - - - k k s",
        "names of classes": "                    b b b - b - b b s",
        "attribute table": "                     k k k - k - k k s",
        "scale and offset": "                    k k k k k k k k a",
        "unit": "                                k k k k k - k - k",
        "description": "                         k k k k k - k k k",
        "tags": "                                k k k k k - k k k",
        "a band's tags": "                       k k k k k k k k k",
        "tags of a domain": "                    k - k - - - - - k",
        "XMP": "                                 k k k k k - - k k",
        "JSON": "                                k - k - - - - - k",
    }.items()
}  # fmt: skip


def as_markdown() -> str:
    """The table as the README has it."""
    lines = [f"| {name} | {' | '.join(cells[column] for column in COLUMNS)} |" for name, cells in TABLE.items()]
    return "\n".join([f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|", *lines])
