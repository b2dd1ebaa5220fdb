"""Raster jobs hold the memory contract: every operation, and every kind of source that somebody has measured.

Of common formats the projection is near the peak, and so is the smallest limit that a refusal names. Of odd ones nothing is
asked but what a user needs: never over the limit, right pixels, and a smallest limit that does.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib.jobs import RASTER_DRIVERS, RasterJob, Resources
from lib.operations import Normalise
from lib.raster.formats import environment
from lib.run import run_published
from lib.units import MIB
from tests.conformance import sources
from tests.conformance.contract import AMPLE_MB, OPERATIONS, at, close, holds, limits, resources, smallest_by_plan

CASES = [("copy", source) for source in sources.RASTERS] + [(name, "tiled") for name in OPERATIONS if name != "copy"]
PICTURES = {"PNG": ".png", "JPEG": ".jpg"}
QUICK = {("copy", "striped")}


def _job(made: tuple[sources.Made, str], folder: Path, operation: str, **choices: Any) -> RasterJob:
    return RasterJob(
        source=str(made[0](folder, made[1])),
        destination=str(folder / "out.tif"),
        operation=OPERATIONS[operation],
        resources=resources(AMPLE_MB),
        overwrite=True,
        **choices,
    )


@lru_cache(maxsize=1)
def _truth(path: Path, operation: str) -> np.ma.MaskedArray:
    """What NumPy makes of all pixels at once."""
    if path.is_dir() and path.suffix == "":  # of tiles, which hold parts of one array
        raw = np.ma.masked_equal(sources.pixels("uint16", 3), sources.NODATA)
    else:
        with environment(), rasterio.open(path) as source:
            raw = source.read(masked=True)
    return sources.raster_truth(operation, raw)


def _is_right(job: RasterJob) -> None:
    """The output is what NumPy makes of all pixels at once, and GDAL takes the same ones of it for valid."""
    with environment(), rasterio.open(job.destination) as output:
        found = output.read(masked=True)
    truth = _truth(Path(job.source), job.operation.name)
    np.testing.assert_array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(truth))
    if job.operation.name == "copy":
        np.testing.assert_array_equal(found.data, truth.data)
    else:
        np.testing.assert_allclose(found.filled(0), truth.filled(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("operation", "source"),
    [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow, id="-".join(each)) for each in CASES],
)
def test_a_common_raster(operation: str, source: str, tmp_path: Path) -> None:
    """Refused below the smallest limit, naming it; at it and with ample memory, measured <= projected <= limit, and near."""
    job = _job(sources.RASTERS[source], tmp_path, operation)
    asked = limits(job)
    for limit_mb in (asked.smallest, asked.ample):
        close(run_published(at(job, limit_mb)), limit_mb, smallest=limit_mb == asked.smallest)
        _is_right(job)


@pytest.mark.slow
@pytest.mark.parametrize("source", sources.ODD)
def test_an_odd_raster(source: str, tmp_path: Path) -> None:
    """At the smallest limit that its plan names it completes, never over the limit, and right."""
    job = _job(sources.ODD[source], tmp_path, "rescale")
    limit_mb = smallest_by_plan(job)
    holds(run_published(at(job, limit_mb)), limit_mb)
    _is_right(job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "operation", "block_size"),
    [("tiled", "normalise", None), ("tiled", "normalise", 128), ("striped", "copy", 128), ("mask", "copy", None)],
)
def test_a_cog(source: str, operation: str, block_size: int | None, tmp_path: Path) -> None:
    """Its overviews' rows of tiles are in the plan: at the smallest limit and with ample memory, near."""
    made = (sources.one_tile_mask, "uint8") if source == "mask" else sources.RASTERS[source]
    job = _job(made, tmp_path, operation, cog=True, block_size=block_size)
    for limit_mb in (smallest_by_plan(job), AMPLE_MB):
        (holds if source == "mask" else close)(run_published(at(job, limit_mb)), limit_mb)
        _is_right(job)


@pytest.mark.slow
@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "zstd", "lerc"])
def test_pixels_that_do_not_compress(compress: str, tmp_path: Path) -> None:
    """Every codec, with large tiles and three workers, holds the contract for noise, which it makes larger."""
    path = tmp_path / "in.tif"
    noise = np.random.default_rng(3).uniform(1, 2, (1, 3000, 3000)).astype("float32")
    with rasterio.open(
        path, "w", driver="GTiff", width=3000, height=3000, count=1, dtype="float32", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), tiled=True, blockxsize=256, blockysize=256,
    ) as dataset:  # fmt: skip
        dataset.write(noise)
    job = RasterJob(
        source=str(path), destination=str(tmp_path / "out.tif"), operation=OPERATIONS["rescale"], compress=compress,
        block_size=1024, resources=resources(AMPLE_MB, threads=3), overwrite=True,
    )  # fmt: skip
    for limit_mb in (smallest_by_plan(job), AMPLE_MB):
        close(run_published(at(job, limit_mb)), limit_mb)
        _is_right(job)


@pytest.mark.parametrize(
    "function", ["segfault", *(pytest.param(each, marks=pytest.mark.slow) for each in ("numpy_over", "raises"))]
)
def test_nothing_is_published_on_failure(function: str, tmp_path: Path) -> None:
    """An existing destination is as it was after a job that was to replace it has failed."""
    job = _job((sources.tiled, "uint8"), tmp_path, "custom")
    job = job.model_copy(update={"operation": type(job.operation)(function=f"tests.faults.functions:{function}")})
    out = Path(job.destination)
    out.write_bytes(b"precious")
    report = run_published(at(job, 384))
    assert report.exit_code in {1, 137}
    assert (report.memory.peak_bytes or 0) < (384 + 200) * MIB
    assert out.read_bytes() == b"precious"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@pytest.mark.slow
def test_many_interleaved_bands_keep_their_plan(tmp_path: Path) -> None:
    """150 bands in each block, one worker: what is sampled for a predictor is small, and a chunk that is done with is let go."""
    path = tmp_path / "many.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=1100, height=700, count=150, dtype="uint16", tiled=True, blockxsize=64,
        blockysize=64, interleave="pixel", photometric="minisblack", crs="EPSG:32633",
        transform=from_origin(500_000, 5_000_000, 10, 10),
    ) as dataset:  # fmt: skip
        for band in range(1, 151):
            noise = np.random.default_rng(band).integers(0, 65535, (700, 1100), dtype="uint16")
            dataset.write(noise, band)
    job = RasterJob(
        source=str(path), destination=str(tmp_path / "out.tif"), operation=Normalise(scale=65535),
        resources=Resources(limit_bytes=256 * MIB, threads_max=1), overwrite=True,
    )  # fmt: skip
    report = run_published(job)
    close(report, 256)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", PICTURES.values())
def test_a_picture(suffix: str, tmp_path: Path) -> None:
    """What GDAL holds while it copies is in the plan, a JPEG's coefficients and mask among it."""
    source, shape = tmp_path / "in.tif", (3000, 6000)
    pixels = np.random.default_rng(5).integers(0, 200, (3, *shape), dtype="uint8")
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    profile = {"count": 3, "height": shape[0], "width": shape[1], "dtype": "uint8", "tiled": True, "nodata": 0}
    with rasterio.open(source, "w", driver="GTiff", **place, **profile) as dataset:
        dataset.write(pixels)
    job = RasterJob(
        source=str(source),
        destination=str(source.with_suffix(suffix)),
        driver=RASTER_DRIVERS[suffix],
        overwrite=True,
        resources=resources(AMPLE_MB),
    )
    asked = limits(job)
    for limit_mb in (asked.smallest, asked.ample):
        close(run_published(at(job, limit_mb)), limit_mb, smallest=limit_mb == asked.smallest)
