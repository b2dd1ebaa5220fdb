"""Rasters in odd formats, one by one: `python -m tests.benchmarks.odd_sources NAME FOLDER --size SIZE` prints its path.

About 40 million samples each (medium: 10, small: 2); those of `tests/conformance/sources.py` have 5 to 16 million pixels.
"""

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.shutil import copy as rasterio_copy
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from tests.conformance import sources as conformance

SAMPLES = {"small": 2_000_000, "medium": 10_000_000, "full": 40_000_000}
STEP = 256
UTM = ("EPSG:32633", from_origin(500_000, 5_000_000, 10, 10))
MERCATOR = ("EPSG:3857", from_origin(1_000_000, 6_000_000, 9.554628535647032, 9.554628535647032))
DEGREES = ("EPSG:4326", from_origin(5, 50, 0.001, 0.001))
PEERS = Path(__file__).resolve().parents[2] / ".venv-peers" / "bin" / "python"
Made = Callable[[Path, str], Path]


def edge_of(size: str, bands: int) -> int:
    """Width and height of a square raster, whole tens of pixels."""
    return int((SAMPLES[size] / bands) ** 0.5) // 10 * 10


def base(path: Path, edge: int, dtype: str, bands: int, where: tuple[str, Any] = UTM, **options: Any) -> Path:
    """A GeoTIFF of smooth values with noise, written from top to bottom."""
    source = np.random.default_rng(11)
    columns = np.arange(edge, dtype="float32")
    with rasterio.open(
        path, "w", driver="GTiff", width=edge, height=edge, count=bands, dtype=dtype, crs=where[0], transform=where[1],
        bigtiff="if_safer", **options,
    ) as dataset:  # fmt: skip
        step = options.get("blockysize", STEP)
        for top in range(0, edge, step):
            rows = np.arange(top, min(top + step, edge), dtype="float32")[:, None]
            field = 115 + 60 * np.sin(rows / 150) + 50 * np.cos(columns / 210)
            stack = np.stack([field + 3 * band + source.integers(0, 6, field.shape) for band in range(bands)])
            dataset.write(np.clip(stack, 0, 250).astype(dtype), window=((top, top + len(rows)), (0, edge)))
    return path


def gtiff(dtype: str = "uint8", bands: int = 1, *, whole: bool = False, **options: Any) -> Made:
    """A GeoTIFF; `whole`: in one strip."""

    def made(folder: Path, size: str) -> Path:
        edge = edge_of(size, bands)
        more = {"blockysize": edge} if whole else {}
        return base(folder / "odd.tif", edge, dtype, bands, **options, **more)

    return made


def tiles(edge: int, **options: Any) -> dict[str, Any]:
    """Creation options of square tiles."""
    return {"tiled": True, "blockxsize": edge, "blockysize": edge, **options}


def bits(nbits: int, dtype: str) -> Made:
    """A GeoTIFF of few bits a sample."""

    def made(folder: Path, size: str) -> Path:
        edge = edge_of(size, 1)
        plain = base(folder / "in.tif", edge, dtype, 1)
        out = folder / "odd.tif"
        with (
            rasterio.open(plain) as read,
            rasterio.open(out, "w", **read.profile | tiles(512, compress="deflate", nbits=nbits)) as written,
        ):
            for top in range(0, edge, 512):
                window = ((top, min(top + 512, edge)), (0, edge))
                written.write(read.read(window=window) % 2**nbits, window=window)
        plain.unlink()
        return out

    return made


def copied(
    name: str, driver: str, dtype: str = "uint8", bands: int = 1, *, where: tuple[str, Any] = UTM, **options: Any
) -> Made:
    """The base, as another driver copies it."""

    def made(folder: Path, size: str) -> Path:
        plain = base(
            folder / "in.tif",
            edge_of(size, bands),
            dtype,
            bands,
            where,
            **({"photometric": "rgb"} if bands == 3 else {}),
        )
        rasterio_copy(plain, folder / name, driver=driver, **options)
        plain.unlink()
        return folder / name

    return made


def masked(kind: str, mask_tile: int) -> Made:
    """A tiled GeoTIFF with an internal mask, a mask beside it, or alpha."""

    def made(folder: Path, size: str) -> Path:
        bands = 4 if kind == "alpha" else 1
        edge = edge_of(size, bands)
        path = base(folder / "odd.tif", edge, "uint8", bands, **tiles(256, compress="deflate"))
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal"), rasterio.open(path, "r+") as dataset:
            if kind == "alpha":
                dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
            else:
                mask = np.full((edge, edge), 255, "uint8")
                mask[:, edge // 3 : edge // 2] = 0
                if kind == "internal":
                    dataset.write_mask(mask)
        if kind == "beside":
            options = tiles(mask_tile, compress="deflate")
            with rasterio.open(
                f"{path}.msk", "w", driver="GTiff", width=edge, height=edge, count=1, dtype="uint8", **options
            ) as beside:
                beside.write(mask[None])
                beside.update_tags(INTERNAL_MASK_FLAGS_1="2")
        return path

    return made


CHUNKED = """
import sys
from osgeo import gdal
gdal.UseExceptions()
source, out, edge = sys.argv[1], sys.argv[2], sys.argv[3]
with gdal.OpenEx(source, gdal.OF_MULTIDIM_RASTER) as read:
    pass
options = ["-co", f"ARRAY:BLOCKSIZE={edge},{edge}", "-co", "ARRAY:COMPRESS=DEFLATE", "-co", "ARRAY:ZLEVEL=1"]
gdal.MultiDimTranslate(out, source, format="netCDF", options=options)
"""


def chunked(name: str, edge: int, dtype: str) -> Made:
    """netCDF-4, which is HDF5, in square chunks: by the peers' GDAL, as rasterio has no multidimensional door."""

    def made(folder: Path, size: str) -> Path:
        plain = base(folder / "in.tif", edge_of(size, 1), dtype, 1, DEGREES)
        classic = folder / "in.nc"
        rasterio_copy(plain, classic, driver="netCDF", FORMAT="NC4")
        out = folder / "chunked.nc"
        subprocess.run([PEERS, "-c", CHUNKED, classic, out, str(edge)], check=True, stderr=subprocess.PIPE, text=True)
        classic.unlink()
        plain.unlink()
        return out.rename(folder / name)

    return made


def _vrt(path: Path, size: tuple[int, int], kind: str, sources: str, attributes: str = "", inside: str = "") -> Path:
    path.write_text(
        f'<VRTDataset rasterXSize="{size[0]}" rasterYSize="{size[1]}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="{kind}" band="1"{attributes}>{inside}{sources}</VRTRasterBand></VRTDataset>'
    )
    return path


def _source(name: str, edge: int, at: tuple[int, int] = (0, 0), tag: str = "SimpleSource", inside: str = "") -> str:
    return (
        f'<{tag}><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{edge}" ySize="{edge}"/>'
        f'<DstRect xOff="{at[0]}" yOff="{at[1]}" xSize="{edge}" ySize="{edge}"/>{inside}</{tag}>'
    )


def mosaic(folder: Path, size: str) -> Path:
    """Forty files, eight by five, in tiles of 512."""
    edge = edge_of(size, 40)
    placed = []
    for n in range(40):
        base(folder / f"{n}.tif", edge, "uint16", 1, **tiles(512, compress="deflate"))
        placed.append(_source(f"{n}.tif", edge, (n % 8 * edge, n // 8 * edge)))
    return _vrt(folder / "mosaic.vrt", (8 * edge, 5 * edge), "UInt16", "".join(placed))


def nested(folder: Path, size: str) -> Path:
    """A VRT of a VRT of the forty files."""
    inner = mosaic(folder, size)
    edge = edge_of(size, 40)
    return _vrt(folder / "outer.vrt", (5 * edge, 5 * edge), "UInt16", _source(inner.name, 5 * edge))


def warped(resampling: Resampling, times: float = 1) -> Made:
    """A VRT that warps from UTM to degrees; `times`: of the resolution."""

    def made(folder: Path, size: str) -> Path:
        path = base(folder / "in.tif", edge_of(size, 1), "uint16", 1, **tiles(512, compress="deflate"))
        with rasterio.open(path) as dataset:
            with WarpedVRT(dataset, crs="EPSG:4326") as as_is:
                transform, width, height = as_is.transform, int(as_is.width * times), int(as_is.height * times)
            scaled = transform * transform.scale(1 / times)
            with WarpedVRT(
                dataset, crs="EPSG:4326", resampling=resampling, transform=scaled, width=width, height=height
            ) as vrt:
                rasterio_copy(vrt, folder / "warped.vrt", driver="VRT")
        return folder / "warped.vrt"

    return made


def derived(
    inside: str, kind: str = "UInt16", *, tag: str = "ComplexSource", attributes: str = "", of_band: str = ""
) -> Made:
    """A VRT that computes from a tiled file."""

    def made(folder: Path, size: str) -> Path:
        edge = edge_of(size, 1)
        base(folder / "in.tif", edge, "uint16", 1, **tiles(512, compress="zstd"))
        return _vrt(
            folder / "derived.vrt",
            (edge, edge),
            kind,
            _source("in.tif", edge, tag=tag, inside=inside),
            attributes,
            of_band,
        )

    return made


def _held() -> dict[str, Made]:
    """The conformance suite's own odd sources, under its names."""
    return {
        f"{name}-{dtype}": lambda folder, _size, make=make, dtype=dtype: make(folder, dtype)
        for name, (make, dtype) in conformance.ODD.items()
    }


RGB: dict[str, Any] = {"bands": 3, "interleave": "pixel", "photometric": "rgb"}
STACK: dict[str, Any] = {"interleave": "pixel", "photometric": "minisblack", "alpha": "no"}
SOURCES: dict[str, Made] = {
    "tiles-none": gtiff(**tiles(512)),
    "tiles-deflate": gtiff("uint16", **tiles(512, compress="deflate")),
    "tiles-zstd-large": gtiff("uint16", **tiles(2048, compress="zstd")),
    "tiles-zstd-huge": gtiff(**tiles(4096, compress="zstd")),
    "tiles-lzma": gtiff(**tiles(512, compress="lzma")),
    "tiles-packbits": gtiff(**tiles(512, compress="packbits")),
    "tiles-lerc": gtiff("float32", **tiles(512, compress="lerc")),
    "tiles-lerc-zstd": gtiff("float32", **tiles(1024, compress="lerc_zstd")),
    "tiles-lerc-deflate": gtiff("float32", **tiles(1024, compress="lerc_deflate")),
    "tiles-webp": gtiff(**RGB, **tiles(512, compress="webp")),
    "tiles-jpeg": gtiff(**tiles(512, compress="jpeg")),
    "tiles-jpeg-ycbcr": gtiff(**RGB | {"photometric": "ycbcr"}, **tiles(512, compress="jpeg")),
    "tiles-float64": gtiff("float64", **tiles(256, compress="deflate", predictor=3)),
    "strips-none": gtiff("uint16"),
    "strips-lzw": gtiff("uint16", compress="lzw", blockysize=1),
    "strips-deflate-whole": gtiff("uint16", whole=True, compress="deflate"),
    "strips-zstd-whole": gtiff(whole=True, compress="zstd"),
    "strips-lerc-zstd-whole": gtiff("float32", whole=True, compress="lerc_zstd"),
    "strips-lzma-whole": gtiff(whole=True, compress="lzma"),
    "strips-packbits": gtiff(blockysize=64, compress="packbits"),
    "strips-jpeg": gtiff(blockysize=64, compress="jpeg"),
    "strips-webp": gtiff(**RGB, blockysize=512, compress="webp"),
    "bits-1": bits(1, "uint8"),
    "bits-4": bits(4, "uint8"),
    "bits-12": bits(12, "uint16"),
    "pixel-4": gtiff("uint16", 4, **STACK, **tiles(512, compress="deflate")),
    "pixel-40": gtiff("uint8", 40, **STACK, **tiles(512, compress="deflate")),
    "band-12": gtiff("uint8", 12, interleave="band", photometric="minisblack", alpha="no", **tiles(512, compress="lzw")),
    "mask-internal": masked("internal", 256),
    "mask-beside": masked("beside", 256),
    "mask-beside-large": masked("beside", 2048),
    "alpha": masked("alpha", 0),
    "cog-jpeg-ycbcr": copied("odd.tif", "COG", bands=3, COMPRESS="JPEG"),
    "cog-webp": copied("odd.tif", "COG", bands=3, COMPRESS="WEBP"),
    "cog-zstd": copied("odd.tif", "COG", "uint16", COMPRESS="ZSTD", PREDICTOR="YES"),
    "png-8": copied("odd.png", "PNG"),
    "png-16": copied("odd.png", "PNG", "uint16"),
    "png-rgb": copied("odd.png", "PNG", bands=3),
    "jpeg-baseline": copied("odd.jpg", "JPEG", bands=3),
    "jpeg-progressive": copied("odd.jpg", "JPEG", bands=3, PROGRESSIVE="YES"),
    "jp2-tiles": copied("odd.jp2", "JP2OpenJPEG", "uint16", BLOCKXSIZE="1024", BLOCKYSIZE="1024"),
    "jp2-tiles-small": copied("odd.jp2", "JP2OpenJPEG", BLOCKXSIZE="256", BLOCKYSIZE="256"),
    "jp2-one-tile": copied("odd.jp2", "JP2OpenJPEG", bands=3, BLOCKXSIZE="6400", BLOCKYSIZE="6400"),
    "mrf-png": copied("odd.mrf", "MRF", COMPRESS="PNG"),
    "mrf-jpeg": copied("odd.mrf", "MRF", bands=3, COMPRESS="JPEG", INTERLEAVE="PIXEL"),
    "mrf-lerc": copied("odd.mrf", "MRF", "float32", COMPRESS="LERC", BLOCKSIZE="1024"),
    "mrf-deflate-large": copied("odd.mrf", "MRF", "uint16", COMPRESS="DEFLATE", BLOCKSIZE="2048"),
    "netcdf-rows": copied("odd.nc", "netCDF", "uint16", where=DEGREES, FORMAT="NC4", COMPRESS="DEFLATE"),
    "netcdf-classic": copied("odd.nc", "netCDF", "float32", where=DEGREES),
    "netcdf-640": chunked("odd.nc", 640, "uint16"),
    "netcdf-2000": chunked("odd.nc", 2000, "float32"),
    "hdf5-640": chunked("odd.h5", 640, "uint16"),
    "grib-simple": copied("odd.grb2", "GRIB", "float32", where=DEGREES, DATA_ENCODING="SIMPLE_PACKING"),
    "grib-jpeg2000": copied("odd.grb2", "GRIB", "float32", 3, where=DEGREES, DATA_ENCODING="JPEG2000"),
    "grib-png": copied("odd.grb2", "GRIB", "float32", 3, where=DEGREES, DATA_ENCODING="PNG"),
    "webp-lossy": copied("odd.webp", "WEBP", bands=3),
    "webp-lossless": copied("odd.webp", "WEBP", bands=3, LOSSLESS="YES"),
    "hfa": copied("odd.img", "HFA", "uint16"),
    "hfa-compressed": copied("odd.img", "HFA", COMPRESSED="YES"),
    "nitf": copied("odd.ntf", "NITF", where=DEGREES),
    "nitf-jpeg": copied("odd.ntf", "NITF", bands=3, where=DEGREES, IC="C3"),
    "pcidsk-pixel": copied("odd.pix", "PCIDSK", bands=3, INTERLEAVING="PIXEL"),
    "pcidsk-tiled": copied("odd.pix", "PCIDSK", INTERLEAVING="TILED", COMPRESSION="RLE"),
    "bmp": copied("odd.bmp", "BMP", bands=3),
    "gif": copied("odd.gif", "GIF"),
    "gif-interlaced": copied("odd.gif", "GIF", INTERLACING="YES"),
    "zarr": copied("odd.zarr", "Zarr", "uint16", BLOCKSIZE="1000,1000"),
    "zarr-large": copied("odd.zarr", "Zarr", "float32", BLOCKSIZE="3000,3000", COMPRESS="ZSTD"),
    "gpkg-png": copied("odd.gpkg", "GPKG", bands=3, where=MERCATOR, TILE_FORMAT="PNG"),
    "gpkg-jpeg": copied("odd.gpkg", "GPKG", bands=3, where=MERCATOR, TILE_FORMAT="JPEG"),
    "gpkg-float": copied("odd.gpkg", "GPKG", "float32", where=MERCATOR, TILE_FORMAT="TIFF"),
    "mbtiles": copied("odd.mbtiles", "MBTiles", bands=3, where=MERCATOR, TILE_FORMAT="PNG"),
    "envi-bip": copied("odd.bin", "ENVI", "uint16", 4, INTERLEAVE="BIP"),
    "vrt-mosaic-40": mosaic,
    "vrt-nested": nested,
    "vrt-warped": warped(Resampling.nearest),
    "vrt-warped-cubic": warped(Resampling.cubic),
    "vrt-warped-quarter": warped(Resampling.average, 0.25),
    "vrt-scaled": derived("<ScaleOffset>3</ScaleOffset><ScaleRatio>0.5</ScaleRatio>", "Float32"),
    "vrt-lut": derived("<LUT>0:10, 100:2000, 250:60000</LUT>"),
    "vrt-pixel-function": derived("", tag="SimpleSource", attributes=' subClass="VRTDerivedRasterBand"',
                                  of_band="<PixelFunctionType>sqrt</PixelFunctionType>", kind="Float32"),
    **_held(),
}  # fmt: skip


def main() -> None:
    """Make one, and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SAMPLES, default="small")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.stdout.write(str(SOURCES[given.name](given.folder, given.size)))


if __name__ == "__main__":
    main()
