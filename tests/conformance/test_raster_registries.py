"""Every format, codec and choice that the raster planner names has a job that holds the contract, or a reason why not."""

import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lib.jobs import RasterJob
from lib.memory.process import run_job
from lib.raster import decoders
from lib.run import run_published
from lib.units import MIB, mib
from tests.conformance import sources
from tests.conformance.test_contract import OPERATIONS, _at, _holds, _limit_mb, _resources

Made = Callable[[Path, str], Path]

# By GDAL's driver: sources of `sources.RASTERS`, or of `FORMATS` here.
FORMATS: dict[str, Made] = {
    "BMP": sources._copied("in.bmp", "BMP", 1),
    "GIF": sources._copied("in.gif", "GIF", 1),
    "GPKG": sources._copied("in.gpkg", "GPKG", 3),
    "GRIB": sources._copied("in.grb2", "GRIB", 1, DATA_ENCODING="SIMPLE_PACKING"),
    "HFA": sources._copied("in.img", "HFA", 3, COMPRESSED="YES"),
    "MRF": sources._copied("in.mrf", "MRF", 3, COMPRESS="DEFLATE", INTERLEAVE="BAND"),
    "NITF": sources._copied("in.ntf", "NITF", 1),
    "PCIDSK": sources._copied("in.pix", "PCIDSK", 3),
    "Zarr": sources._copied("in.zarr", "Zarr", 3, COMPRESS="ZSTD"),
    "netCDF": sources._copied("in.nc", "netCDF", 1, FORMAT="NC4", COMPRESS="DEFLATE"),
}
# Blocks that a decoder holds beside GDAL's: a chunk that is the raster, four tiles of four bands, samples of 12 bits.
LARGE_BLOCKS: dict[str, Made] = {
    "Zarr": sources._copied("in.zarr", "Zarr", 1, COMPRESS="ZSTD", BLOCKSIZE="2048,2048"),
    "GPKG": sources._copied("in.gpkg", "GPKG", 1, BLOCKSIZE="2048", TILE_FORMAT="PNG"),
    "12 bits": sources._copied("in12.tif", "GTiff", 1, NBITS="12", TILED="YES", BLOCKXSIZE="2048", BLOCKYSIZE="2048"),
}
IN_THE_SUITE = {
    "GTiff": "tiled",
    "JPEG": "progressive-jpeg",
    "PNG": "interlaced-png",
    "WEBP": "webp",
    "JP2OpenJPEG": "jp2",
    "VRT": "vrt",
}
NOT_MADE = {
    "BIGGIF": "a GIF of more than 100 MB in memory: GDAL writes it as GIF",
    "MBTiles": "Web Mercator only; its tiles are a GeoPackage's",
    "HDF5": "read only; its chunks are netCDF's",
    "HDF5Image": "read only; its chunks are netCDF's",
    "BAG": "elevation and uncertainty only; its chunks are netCDF's",
}
# Strips whose decoder holds them whole: bands and creation options.
STRIPS: dict[str, tuple[int, dict[str, typing.Any]]] = {
    "LERC": (3, {"compress": "lerc"}),
    "LERC_DEFLATE": (2, {"compress": "lerc_deflate"}),
    "LERC_ZSTD": (2, {"compress": "lerc_zstd"}),
    "WEBP": (3, {"compress": "webp", "interleave": "pixel"}),
}
NO_STRIPS = {"JXL": "rasterio's GDAL has no JPEG XL codec"}
COMPRESSIONS = typing.get_args(RasterJob.model_fields["compress"].annotation)


def test_every_decoder_has_a_case() -> None:
    """A driver or codec that decoders.py comes to name fails here until it has a source, or a reason."""
    drivers = {*decoders._BY_FORMAT, *decoders._BY_BLOCK, *decoders._CHUNKED}
    assert drivers == {*FORMATS, *IN_THE_SUITE, *NOT_MADE}
    assert set(IN_THE_SUITE.values()) <= set(sources.RASTERS)
    assert set(decoders._WHOLE_STRIP) == {*STRIPS, *NO_STRIPS}


def _job(path: Path, folder: Path, **choices: typing.Any) -> RasterJob:
    return RasterJob(
        source=str(path),
        destination=str(folder / "out.tif"),
        operation=OPERATIONS["rescale"],
        resources=_resources(2048, **choices.pop("resources", {})),
        **choices,
    )


def _holds_tight(job: RasterJob, limit: str = "tight") -> None:
    """At its smallest limit the job holds the contract, and its pixels are those of NumPy on GDAL's read of all."""
    limit_mb = _limit_mb("tight", job)
    _holds(run_published(_at(job, limit_mb)), limit, limit_mb)
    with rasterio.open(job.source) as source, rasterio.open(job.destination) as output:
        truth = sources.raster_truth("rescale", source.read(masked=True).filled(sources.NODATA))
        np.testing.assert_allclose(output.read(), truth, rtol=1e-6, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("driver", sorted(FORMATS))
def test_a_format_holds_the_contract(driver: str, tmp_path: Path) -> None:
    """A source of each format holds the contract at its smallest limit."""
    _holds_tight(_job(FORMATS[driver](tmp_path, "uint8"), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE_BLOCKS)
def test_large_blocks_hold_the_contract(kind: str, tmp_path: Path) -> None:
    """Large blocks are right at the smallest limit; of a GeoPackage's four tiles one is touched, and RLIMIT_AS counts all."""
    path = LARGE_BLOCKS[kind](tmp_path, "uint16" if kind == "12 bits" else "uint8")
    _holds_tight(_job(path, tmp_path), "padded" if kind == "GPKG" else "tight")


@pytest.mark.slow
@pytest.mark.parametrize("header", ["XMP", "histogram"])
def test_a_header_that_takes_more_than_the_work(header: str, tmp_path: Path) -> None:
    """20 MB of XMP, or of a histogram beside the raster, are within the projection, though they are freed again."""
    path = sources.tiled(tmp_path, "uint8")
    if header == "XMP":
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(ns="xml:XMP", **{"xml:XMP": f"<x:xmpmeta>{'<a>word</a>' * 2_000_000}</x:xmpmeta>"})
    else:
        counts = "|".join(str(number) for number in range(3_000_000))
        histogram = (
            f"<HistItem><HistMin>0</HistMin><HistMax>9</HistMax><BucketCount>3000000</BucketCount><HistCounts>{counts}"
        )
        path.with_name(f"{path.name}.aux.xml").write_text(
            f'<PAMDataset><PAMRasterBand band="1"><Histograms>{histogram}</HistCounts></HistItem></Histograms></PAMRasterBand>'
            "</PAMDataset>",
            encoding="ascii",
        )
    job = _job(path, tmp_path)
    limit_mb = _limit_mb("tight", job)
    _holds(run_published(_at(job, limit_mb)), "padded", limit_mb)


@pytest.mark.slow
@pytest.mark.parametrize("codec", sorted(STRIPS))
def test_a_strip_that_its_decoder_holds(codec: str, tmp_path: Path) -> None:
    """One strip of each codec that decodes it whole holds the contract at its smallest limit."""
    bands, options = STRIPS[codec]
    path = sources._tall(tmp_path / "in.tif", "uint8", bands, blockysize=sources.TALL, **options)
    _holds_tight(_job(path, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("block_size", [None, 1024])
@pytest.mark.parametrize("threads", [None, 4])
def test_a_choice_of_the_output(compress: str, block_size: int | None, threads: int | None, tmp_path: Path) -> None:
    """Every codec, with tiles and threads chosen or not, takes no more than projected of pixels that do not compress."""
    path = tmp_path / "in.tif"
    noise = np.random.default_rng(3).uniform(1, 2, (1, 3000, 3000)).astype("float32")
    with rasterio.open(
        path, "w", driver="GTiff", width=3000, height=3000, count=1, dtype="float32", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), tiled=True, blockxsize=256, blockysize=256,
    ) as dataset:  # fmt: skip
        dataset.write(noise)
    job = _job(path, tmp_path, compress=compress, block_size=block_size, resources={"threads": threads})
    planned = run_job(job, plan_only=True)
    assert planned.plan is not None, planned.error
    limit_mb = mib(planned.plan["smallest_limit_bytes"])
    tight = job.resources.model_copy(update={"limit_bytes": limit_mb * MIB})
    _holds(run_published(job.model_copy(update={"resources": tight})), "normal", limit_mb)
