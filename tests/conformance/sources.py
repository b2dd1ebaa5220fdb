"""Sources of every kind that a job may have, and what the job's output must hold by a path that is not ours."""

import shutil
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.shutil import copy as rasterio_copy
from rasterio.transform import from_origin
from shapely import orient_polygons
from shapely.geometry import Polygon

HEIGHT, WIDTH = 1900, 2300
NODATA = 7
Pixels = NDArray[Any]


@lru_cache(maxsize=4)
def pixels(dtype: str, bands: int) -> Pixels:
    """Smooth values with noise, some of them nodata: compresses as real rasters do. Not to be written to."""
    source = np.random.default_rng(11)
    base = 100 + 60 * np.sin(np.arange(HEIGHT)[:, None] / 150) + 50 * np.cos(np.arange(WIDTH) / 210)
    stack = np.empty((bands, HEIGHT, WIDTH), dtype)
    for band in range(bands):
        stack[band] = np.maximum(base + 3 * band + source.integers(0, 6, base.shape), 0)
    stack[:, 200:260, 300:900] = NODATA
    stack.flags.writeable = False
    return stack


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


def mosaic(folder: Path, dtype: str) -> Path:
    """A folder of twelve tiles of three bands, which lie over each other by a hundred pixels: more files than stay open."""
    whole, tiles = pixels(dtype, 3), folder / "tiles"
    tiles.mkdir()
    for row in range(0, HEIGHT - 100, 600):
        for column in range(0, WIDTH - 100, 600):
            part, place = whole[:, row : row + 700, column : column + 700], (500000 + 10 * column, 5000000 - 10 * row)
            with rasterio.open(
                tiles / f"{row:04}-{column:04}.tif", "w", driver="GTiff", height=part.shape[1], width=part.shape[2], count=3,
                dtype=dtype, nodata=NODATA, crs="EPSG:32633", transform=from_origin(*place, 10, 10),
                **_tiles(256),
            ) as dataset:  # fmt: skip
                dataset.write(part)
    return tiles


def png(folder: Path, dtype: str) -> Path:
    """A PNG; 8 and 16 bit only."""
    rasterio_copy(striped(folder, dtype), folder / "image.png", driver="PNG")
    return folder / "image.png"


# GDAL shows one strip of more than 2000 rows as rows.
TALL = 2100


def _tall(path: Path, dtype: str, bands: int, width: int = WIDTH, **options: Any) -> Path:
    """Some rows more than others have, without nodata, which lossy formats would not keep; bands beyond four repeat those."""
    four = pixels(dtype, min(bands, 4))
    stack = np.maximum(four[np.arange(bands) % len(four), :, :width], 60)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=TALL, count=bands, dtype=dtype, crs="EPSG:32633",
        transform=from_origin(500000, 5000000, 10, 10), **options,
    ) as dataset:  # fmt: skip
        dataset.write(np.concatenate([stack, stack[:, : TALL - HEIGHT]], axis=1))
    return path


def header(folder: Path, kind: str) -> Path:
    """A small raster whose header is tens of MB: a TIFF tag, metadata or a histogram in an .aux.xml beside it, or XMP."""
    path = _tall(folder / f"{kind}.tif", "uint8", 1, **_tiles(256))
    tags: dict[str, dict[str, str]] = {
        "tag": {"HISTORY": "x" * 30_000_000},
        "xmp": {"xml:XMP": "<x:xmpmeta>" + "x" * 20_000_000 + "</x:xmpmeta>"},
    }
    if kind in tags:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(ns="xml:XMP" if kind == "xmp" else None, **tags[kind])
        return path
    beside = {
        "metadata": f'<Metadata><MDI key="HISTORY">{"x" * 30_000_000}</MDI></Metadata>',
        "histogram": '<PAMRasterBand band="1"><Histograms><HistItem><HistMin>0</HistMin><HistMax>255</HistMax>'
        "<BucketCount>3000000</BucketCount><IncludeOutOfRange>0</IncludeOutOfRange><Approximate>0</Approximate>"
        f"<HistCounts>{'|'.join(['123456789'] * 3_000_000)}</HistCounts></HistItem></Histograms></PAMRasterBand>",
    }[kind]
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{beside}</PAMDataset>", encoding="ascii")
    return path


def one_strip(folder: Path, dtype: str) -> Path:
    """One deflated strip of four bands: 11 MB compressed, which GDAL shows as blocks of one row."""
    return _tall(
        folder / "strip.tif", dtype, 4, blockysize=TALL, compress="deflate", interleave="pixel",
        photometric="minisblack", alpha="no",
    )  # fmt: skip


def one_lerc_strip(folder: Path, dtype: str) -> Path:
    """One LERC strip of four bands, whose decoder holds it all."""
    return _tall(
        folder / "lerc.tif", dtype, 4, blockysize=TALL, compress="lerc", interleave="pixel",
        photometric="minisblack", alpha="no",
    )  # fmt: skip


def strips_vrt(folder: Path, dtype: str) -> Path:
    """A VRT of one strip."""
    rasterio_copy(one_strip(folder, dtype), folder / "strip.vrt", driver="VRT")
    return folder / "strip.vrt"


def vrt_of_vrt(folder: Path, dtype: str) -> Path:
    """A VRT of a VRT of one strip."""
    text = strips_vrt(folder, dtype).read_text()
    (folder / "outer.vrt").write_text(text.replace("strip.tif", "strip.vrt"))  # GDAL's copy of a VRT is the same VRT
    return folder / "outer.vrt"


def long_window(folder: Path, dtype: str) -> Path:
    """One strip in zstd's level 22, whose decoder asks for 128 MiB whatever the strip has."""
    return _tall(folder / "long.tif", dtype, 1, blockysize=TALL, compress="zstd", zstd_level=22)


def _copied(name: str, driver: str, bands: int, **options: Any) -> Callable[[Path, str], Path]:
    def made(folder: Path, dtype: str) -> Path:
        rasterio_copy(_tall(folder / "in.tif", dtype, bands), folder / name, driver=driver, **options)
        return folder / name

    return made


def uneven_jp2(folder: Path, dtype: str) -> Path:
    """Lossless tiles of 1024, of which one is noise."""
    path = _tall(folder / "in.tif", dtype, 1, **_tiles(512))
    noise = np.random.default_rng(2).integers(100, np.iinfo(dtype).max, (1024, 1024), dtype=dtype)
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.full((TALL, WIDTH), 90, dtype), 1)
        dataset.write(noise, 1, window=((1024, 2048), (1024, 2048)))
    rasterio_copy(path, folder / "uneven.jp2", driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    return folder / "uneven.jp2"


def interlaced_png(folder: Path, dtype: str) -> Path:
    """An RGB PNG in Adam7's seven passes (PNG specification, clause 8), which GDAL does not write."""
    image = np.moveaxis(np.maximum(pixels(dtype, 3), 60), 0, -1)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b"".join(
        np.pad(part.reshape(part.shape[0], -1), ((0, 0), (1, 0))).tobytes()
        for part in (image[top::down, left::across] for top, left, down, across in passes)
    )
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1),
        b"IDAT": zlib.compress(lines, 1),
        b"IEND": b"",
    }
    with (folder / "interlaced.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, body in chunks.items():
            file.write(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
    (folder / "interlaced.pgw").write_text("10\n0\n0\n-10\n500005\n4999995\n")
    return folder / "interlaced.png"


def _placed(
    name: str, at: tuple[int, int], size: tuple[int, int], inside: tuple[int, int], attributes: str = ""
) -> str:
    """One source of a VRT's band: `size` at `at`, of `inside` in the file; each `(x, y)`."""
    return (
        f'<SimpleSource{attributes}><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{inside[0]}" ySize="{inside[1]}"/>'
        f'<DstRect xOff="{at[0]}" yOff="{at[1]}" xSize="{size[0]}" ySize="{size[1]}"/></SimpleSource>'
    )


def _vrt(path: Path, size: tuple[int, int], dtype: str, placed: list[str]) -> Path:
    """A VRT of one band, `size` `(x, y)`."""
    kind = {"uint8": "Byte", "uint16": "UInt16"}[dtype]
    path.write_text(
        f'<VRTDataset rasterXSize="{size[0]}" rasterYSize="{size[1]}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="{kind}" band="1">{"".join(placed)}</VRTRasterBand></VRTDataset>'
    )
    return path


def _tiles(edge: int) -> dict[str, Any]:
    return {"tiled": True, "blockxsize": edge, "blockysize": edge, "compress": "deflate", "zlevel": 1}


def uneven_mosaic(folder: Path, dtype: str) -> Path:
    """Seventeen files side by side; the fifth is one tile."""
    first = _tall(folder / "0.tif", dtype, 1, **_tiles(256))
    for i in range(1, 17):
        shutil.copyfile(first, folder / f"{i}.tif")
    _tall(folder / "4.tif", dtype, 1, **_tiles(2304))
    placed = [_placed(f"{i}.tif", (i * 200, 0), (200, TALL), (200, TALL)) for i in range(17)]
    return _vrt(folder / "mosaic.vrt", (17 * 200, TALL), dtype, placed)


def mosaic_of_stacks(folder: Path, dtype: str) -> Path:
    """Nine files, each with its last block of 12 bands, of which the mosaic has one."""
    first = _tall(folder / "0.tif", dtype, 12, **_tiles(512), interleave="pixel", photometric="minisblack", alpha="no")
    for i in range(1, 9):
        shutil.copyfile(first, folder / f"{i}.tif")
    placed = [_placed(f"{i}.tif", (i * 250, 0), (250, TALL), (250, TALL)) for i in range(9)]
    return _vrt(folder / "stacks.vrt", (9 * 250, TALL), dtype, placed)


def mixed_mosaic(folder: Path, dtype: str) -> Path:
    """Blocks of 512 pixels of one band, and of 496 pixels of forty."""
    _tall(folder / "one.tif", dtype, 1, 900, **_tiles(512))
    _tall(folder / "forty.tif", dtype, 40, 900, **_tiles(496), interleave="pixel", photometric="minisblack", alpha="no")
    placed = [_placed(name, (x, 0), (900, TALL), (900, TALL)) for name, x in (("one.tif", 0), ("forty.tif", 900))]
    return _vrt(folder / "mixed.vrt", (1800, TALL), dtype, placed)


def averaged_vrt(folder: Path, dtype: str) -> Path:
    """A VRT at a quarter of its file's resolution, averaged: GDAL reads all pixels that a window covers.

    A whole number, for at others its average of a pixel depends on the window that is read.
    """
    with rasterio.open(_tall(folder / "tall.tif", dtype, 1, **_tiles(512))) as dataset:
        whole = np.tile(dataset.read(), (1, 3, 3))
        profile = dataset.profile | {"height": whole.shape[1], "width": whole.shape[2]}
    with rasterio.open(folder / "whole.tif", "w", **profile) as dataset:
        dataset.write(whole)
    inside = (3 * WIDTH, 3 * TALL)
    size = (inside[0] // 4, inside[1] // 4)
    return _vrt(
        folder / "small.vrt", size, dtype, [_placed("whole.tif", (0, 0), size, inside, ' resampling="average"')]
    )


def one_tile_mask(folder: Path, dtype: str) -> Path:
    """Small tiles, and beside them a mask that is one tile of 16 million pixels."""
    edge = 4096
    path = folder / "masked.tif"
    where = {"width": edge, "height": edge, "count": 1, "crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", dtype=dtype, **where, **_tiles(256)) as dataset:
        dataset.write(np.resize(np.maximum(pixels(dtype, 1), 60), (1, edge, edge)))
    mask = np.full((1, edge, edge), 255, "uint8")
    mask[:, 1000:2000] = 0
    with rasterio.open(f"{path}.msk", "w", driver="GTiff", dtype="uint8", **where, **_tiles(edge)) as dataset:
        dataset.write(mask)
        dataset.update_tags(INTERNAL_MASK_FLAGS_1="2")
    return path


def cog(folder: Path, dtype: str) -> Path:
    """A COG with overviews of three bands."""
    rasterio_copy(tiled(folder, dtype), folder / "cog.tif", driver="COG", COMPRESS="LZW")
    return folder / "cog.tif"


def imagery(folder: Path, dtype: str) -> Path:
    """YCbCr JPEG tiles with nodata 0 and an internal mask, as satellite imagery comes; black pixels inside the mask."""
    path = folder / "imagery.tif"
    stack = np.maximum(pixels(dtype, 3), 60)
    stack[:, 300:600, 300:900] = 0
    mask = np.full(stack.shape[1:], 255, "uint8")
    mask[:, 1500:] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=3, dtype=dtype, nodata=0, crs="EPSG:32633",
            transform=from_origin(500000, 5000000, 10, 10), photometric="ycbcr", **_tiles(512) | {"compress": "jpeg"},
        ) as dataset,
    ):  # fmt: skip
        dataset.write(stack)
        dataset.write_mask(mask)
    return path


def _strip(bands: int, compress: str, **options: Any) -> Callable[[Path, str], Path]:
    def made(folder: Path, dtype: str) -> Path:
        return _tall(folder / "strip.tif", dtype, bands, blockysize=TALL, compress=compress, **options)

    return made


def _header(kind: str) -> Callable[[Path, str], Path]:
    return lambda folder, _: header(folder, kind)


Made = Callable[[Path, str], Path]
# What most people have: a projection is near, within 25 % or 32 MiB.
RASTERS: dict[str, tuple[Made, str]] = {
    "tiled": (tiled, "uint16"),
    "striped": (striped, "uint8"),
    "cog": (cog, "uint16"),
    "vrt": (vrt, "uint16"),
    "png": (png, "uint16"),
    "jpeg": (_copied("image.jpg", "JPEG", 3), "uint8"),
}
# The rest: a job never passes its limit, its output is right, and its smallest limit does. What was found out about each format's
# memory is here as a source; what it holds is measured by the probe.
ODD: dict[str, tuple[Made, str]] = {
    "mosaic": (mosaic, "uint16"),  # so small that no second reader opens as many files as it may
    "pixel": (pixel_interleaved, "float32"),
    "uncompressed": (uncompressed, "float64"),
    "imagery": (imagery, "uint8"),
    "one-strip": (one_strip, "uint16"),
    "lerc": (_strip(3, "lerc"), "uint8"),
    "lerc-zstd": (_strip(2, "lerc_zstd"), "uint8"),
    "webp-strip": (_strip(3, "webp", interleave="pixel"), "uint8"),
    "pixel-lerc": (one_lerc_strip, "uint8"),
    "long-window": (long_window, "uint8"),
    "12-bits": (
        _copied("in12.tif", "GTiff", 1, NBITS="12", TILED="YES", BLOCKXSIZE="2048", BLOCKYSIZE="2048"),
        "uint16",
    ),
    "vrt-of-vrt": (vrt_of_vrt, "uint8"),
    "uneven-mosaic": (uneven_mosaic, "uint16"),
    "mosaic-of-stacks": (mosaic_of_stacks, "uint8"),
    "mixed-mosaic": (mixed_mosaic, "uint16"),
    "averaged-vrt": (averaged_vrt, "uint8"),
    "one-tile-mask": (one_tile_mask, "uint8"),
    "progressive-jpeg": (_copied("image.jpg", "JPEG", 3, PROGRESSIVE="YES"), "uint8"),
    "interlaced-png": (interlaced_png, "uint8"),
    "jp2": (_copied("image.jp2", "JP2OpenJPEG", 3), "uint16"),
    "jp2-one-tile": (_copied("tile.jp2", "JP2OpenJPEG", 1, BLOCKXSIZE=WIDTH, BLOCKYSIZE=TALL), "uint8"),
    "uneven-jp2": (uneven_jp2, "uint16"),
    "webp": (_copied("image.webp", "WEBP", 3), "uint8"),
    "mrf": (_copied("in.mrf", "MRF", 3, COMPRESS="DEFLATE", INTERLEAVE="BAND"), "uint8"),
    "mrf-pages": (_copied("pages.mrf", "MRF", 3, COMPRESS="DEFLATE", INTERLEAVE="PIXEL", BLOCKSIZE=1024), "float32"),
    "bmp": (_copied("in.bmp", "BMP", 1), "uint8"),
    "gif": (_copied("in.gif", "GIF", 1), "uint8"),
    "gpkg": (_copied("in.gpkg", "GPKG", 3), "uint8"),
    "gpkg-large-tiles": (_copied("in.gpkg", "GPKG", 1, BLOCKSIZE="2048", TILE_FORMAT="PNG"), "uint8"),
    "grib": (_copied("in.grb2", "GRIB", 1, DATA_ENCODING="SIMPLE_PACKING"), "uint8"),
    "hfa": (_copied("in.img", "HFA", 3, COMPRESSED="YES"), "uint8"),
    "nitf": (_copied("in.ntf", "NITF", 1), "uint8"),
    "pcidsk": (_copied("in.pix", "PCIDSK", 3), "uint8"),
    "zarr": (_copied("in.zarr", "Zarr", 3, COMPRESS="ZSTD"), "uint8"),
    "zarr-large-chunks": (_copied("in.zarr", "Zarr", 1, COMPRESS="ZSTD", BLOCKSIZE="2048,2048"), "uint8"),
    "netcdf": (_copied("in.nc", "netCDF", 1, FORMAT="NC4", COMPRESS="DEFLATE"), "uint8"),
    "header-tag": (_header("tag"), "uint8"),
    "header-xmp": (_header("xmp"), "uint8"),
    "header-metadata": (_header("metadata"), "uint8"),
    "header-histogram": (_header("histogram"), "uint8"),
}


def raster_truth(operation: str, raw: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """The whole output by NumPy, of all pixels read at once, masked where nodata."""
    return TRUTHS.get(operation, lambda pixels: pixels.astype("float32"))(raw)


def _rescaled(raw: np.ma.MaskedArray) -> np.ma.MaskedArray:
    wide = raw.dtype.name in {"int32", "uint32", "int64", "uint64", "float64"}
    return (raw.astype("float64") * 2.5 - 3).astype("float64" if wide else "float32")


def _computed(raw: np.ma.MaskedArray) -> np.ma.MaskedArray:
    index = (raw[0].astype("float32") - raw[1]) / (raw[0].astype("float32") + raw[1])
    return np.ma.concatenate([index[None], (raw[2:3] > 110).astype("float32")])


def _classes(raw: np.ma.MaskedArray) -> np.ma.MaskedArray:
    found = np.ma.array(np.select([raw.data < 90, raw.data < 130], [1, 2], 3), mask=raw.mask)
    return np.ma.masked_where(raw.data >= 150, found)


def _mean_around(raw: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """The mean of five by five, from sums of everything above and to the left (Crow 1984), which are exact of integers."""
    valid = ~np.ma.getmaskarray(raw)

    def total(values: Pixels) -> Pixels:
        whole = np.pad(values.astype("int64"), ((0, 0), (3, 2), (3, 2))).cumsum(axis=1).cumsum(axis=2)
        found: Pixels = whole[:, 5:, 5:] - whole[:, 5:, :-5] - whole[:, :-5, 5:] + whole[:, :-5, :-5]
        return found

    found = total(raw.filled(0)) / np.maximum(total(valid), 1)
    return np.ma.array(found.astype("float32"), mask=~valid)


def _slope(raw: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """Per cent, by Horn's formula, of pixels of 10 m; where all nine are valid."""
    around = np.pad(raw.astype("float64").filled(np.nan), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)

    def at(row: int, column: int) -> Pixels:
        found: Pixels = around[:, row : row + raw.shape[1], column : column + raw.shape[2]]
        return found

    east = at(0, 2) + 2 * at(1, 2) + at(2, 2) - at(0, 0) - 2 * at(1, 0) - at(2, 0)
    south = at(2, 0) + 2 * at(2, 1) + at(2, 2) - at(0, 0) - 2 * at(0, 1) - at(0, 2)
    rise = 100 * np.hypot(east, south) / 80 + 0 * at(1, 1)
    return np.ma.masked_invalid(rise.astype("float32"))


TRUTHS: dict[str, Callable[[np.ma.MaskedArray], np.ma.MaskedArray]] = {
    "copy": lambda raw: raw,
    "normalise": lambda raw: np.ma.clip(raw.astype("float32") / np.float32(200), 0, 1),
    "rescale": _rescaled,
    "expression": _computed,
    "reclassify": _classes,
    "focal": _mean_around,
    "terrain": _slope,
    "warp": lambda raw: raw.repeat(2, 1).repeat(2, 2),
    "clip": lambda raw: raw[:, 301:1500, 200:2100],
}


def _frame(rows: int) -> gpd.GeoDataFrame:
    source = np.random.default_rng(5)
    west, south = source.uniform(-10, 30, rows), source.uniform(35, 60, rows)
    edges = source.uniform(0.0002, 0.002, rows)
    return gpd.GeoDataFrame(
        {"number": np.arange(rows), "name": [f"parcel {n:06d}" for n in range(rows)]},
        geometry=shapely.box(west, south, west + edges, south + edges),
        crs="EPSG:4326",
    )


ROWS = 30_000
VECTORS = {
    "GPKG": "parcels.gpkg",
    "FlatGeobuf": "parcels.fgb",
    "ESRI Shapefile": "parcels.shp",
    "GeoJSON": "parcels.geojson",
    "GeoJSONSeq": "parcels.geojsonl",
    "SQLite": "parcels.sqlite",
    "Parquet": "parcels.parquet",
}


def vector(folder: Path, driver: str) -> Path:
    """Thirty thousand parcels in geographic coordinates."""
    path = folder / VECTORS[driver]
    _write(_frame(ROWS), path, driver)
    return path


def _write(frame: gpd.GeoDataFrame, path: Path, driver: str, **options: Any) -> None:
    if driver == "Parquet":
        frame.to_parquet(path, compression="zstd", write_covering_bbox=True, **options)
    else:
        frame.to_file(path, driver=driver, **options)


def wide(folder: Path) -> Path:
    """Twelve thousand parcels with a string of 14 kB each, GeoPackage."""
    frame = _frame(12_000)
    frame["name"] = [f"{number:05d} " * 2400 for number in frame["number"]]
    frame.to_file(folder / "wide.gpkg")
    return folder / "wide.gpkg"


def huge(folder: Path, vertices: int = 2_000_000) -> Path:
    """One polygon of two million vertices, GeoPackage."""
    turns = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    radii = 0.5 + 0.01 * np.sin(50 * turns)
    shape = Polygon(np.column_stack([10 + radii * np.cos(turns), 50 + radii * np.sin(turns)]))
    gpd.GeoDataFrame({"number": [7]}, geometry=[shape], crs="EPSG:4326").to_file(folder / "huge.gpkg")
    return folder / "huge.gpkg"


# One row of many has a string of 9 MB: as much as GDAL takes in a GeoJSON.
SKEWED = VECTORS | {"CSV": "parcels.csv"}
SKEWED.pop("ESRI Shapefile")  # its strings end at 254 bytes
SKEWED.pop("Parquet")  # no footer tells the longest text: where it does not fit, the ladder says what would do
SKEWED_ROWS = 20_000


def skewed(folder: Path, driver: str) -> Path:
    """Twenty thousand parcels, one of them with a string of 9 MB."""
    frame, path = _frame(SKEWED_ROWS), folder / SKEWED[driver]
    frame.loc[7777, "name"] = "long " * 1_800_000
    _write(frame, path, driver, **({"GEOMETRY": "AS_WKT"} if driver == "CSV" else {}))
    return path


MANY = 1_100_000  # indexes are what counts


def many(folder: Path) -> Path:
    """`MANY` parcels, GeoPackage."""
    path, rows = folder / "many.gpkg", MANY
    source = np.random.default_rng(3)
    west, south, edges = (
        source.uniform(-10, 30, rows),
        source.uniform(35, 60, rows),
        source.uniform(0.0002, 0.002, rows),
    )
    pyogrio.raw.write(
        path, driver="GPKG", geometry=shapely.to_wkb(shapely.box(west, south, west + edges, south + edges)),
        field_data=[np.arange(rows)], fields=["number"], geometry_type="Polygon", crs="EPSG:4326",
    )  # fmt: skip
    return path


def columns(folder: Path, driver: str, rows: int) -> Path:
    """Parcels with 1,500 columns, texts and numbers in turn."""
    frame, path = _frame(rows), folder / f"columns{Path(VECTORS[driver]).suffix}"
    more = {f"c{i}": ["x"] * rows if i % 2 else np.arange(rows, dtype="float64") for i in range(1_498)}
    gpd.GeoDataFrame(pd.DataFrame(more).assign(number=frame["number"]), geometry=frame.geometry).to_file(
        path, driver=driver
    )
    return path


def repeated(folder: Path) -> Path:
    """Four thousand parcels with one of five texts of 20 kB each, which a Parquet file has five times in all: 80 MB of 1."""
    frame = _frame(4_000)
    frame["name"] = [f"{number % 5:05d} " * 3333 for number in frame["number"]]
    _write(frame, folder / "repeated.parquet", "Parquet")
    return folder / "repeated.parquet"


def huge_parquet(folder: Path) -> Path:
    """The same polygon, GeoParquet."""
    _write(gpd.read_file(huge(folder)), folder / "huge.parquet", "Parquet")
    return folder / "huge.parquet"


LARGE_FEATURES: dict[str, Callable[[Path], Path]] = {
    "wide": wide,
    "huge": huge,
    "huge-as-text": lambda folder: huge(folder, 1_000_000),  # a vertex takes twice as much there
    "repeated": repeated,
    "huge-parquet": huge_parquet,
    "many": many,
}


@lru_cache(maxsize=1)
def kept_by_geod(path: Path, least_sqm: float) -> set[int]:
    """The numbers of the parcels of at least this area, by geopandas and pyproj.Geod."""
    geod = Geod(ellps="WGS84")
    frame = gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)
    areas = [abs(geod.geometry_area_perimeter(shape)[0]) for shape in orient_polygons(frame.geometry.to_numpy())]
    return set(frame.loc[np.array(areas) >= least_sqm, "number"])
