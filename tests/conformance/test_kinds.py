"""Every job kind and registry is in this suite; jobs that write nothing hold the memory contract, too."""

import typing
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib import jobs, operations
from lib.jobs import DriversJob, ProfileJob, RasterJob, VerifyJob
from lib.memory.process import run_job
from lib.memory.work import ENGINES
from lib.raster.operations import REGISTRY
from lib.run import run_published
from tests.conformance import sources, test_rasters
from tests.conformance.contract import AMPLE_MB, OPERATIONS, at, close, holds, limits, resources, smallest_by_plan

# By kind: the tests that hold it.
KINDS = {
    "raster": test_rasters.test_a_common_raster,
    "vector": "test_vectors.py",
    "verify": "test_verify_and_profile_a_raster",
    "profile": "test_verify_and_profile_a_raster",
    "drivers": "test_drivers",
}


def test_nothing_is_left_out() -> None:
    """Every job kind, raster operation and output driver that exists is in this suite."""
    union = typing.get_args(jobs.Job)
    assert set(ENGINES) == {model.model_fields["kind"].default for model in union} == set(KINDS)
    assert set(REGISTRY) == set(operations.OPERATIONS) == set(OPERATIONS) == {name for name, _ in test_rasters.CASES}
    assert {type(each) for each in OPERATIONS.values()} == set(operations.OPERATIONS.values())
    assert set(jobs.RASTER_DRIVERS.values()) == {"GTiff", *test_rasters.PICTURES}


def _done(source: tuple[sources.Made, str], folder: Path, operation: str) -> tuple[VerifyJob, ProfileJob]:
    """Do a job; the verification of its output, and the profile of its source."""
    work = RasterJob(
        source=str(source[0](folder, source[1])), destination=str(folder / "out.tif"), operation=OPERATIONS[operation],
        resources=resources(AMPLE_MB),
    )  # fmt: skip
    done = run_published(work)
    assert done.status == "completed", done.error
    assert done.plan is not None
    check = VerifyJob(
        source=work.source, output=work.destination, work=work, expected=done.plan["expected"], result=done.result,
        resources=work.resources,
    )  # fmt: skip
    return check, ProfileJob(source=work.source, resources=work.resources)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["tiled", "png"])
def test_verify_and_profile_a_raster(source: str, tmp_path: Path) -> None:
    """Both hold the contract at their smallest limits, below which they are refused, and with ample memory; and are near."""
    for job in _done(sources.RASTERS[source], tmp_path, "copy"):
        asked = limits(job)
        for limit_mb in (asked.smallest, asked.ample):
            close(run_job(at(job, limit_mb)), limit_mb, smallest=limit_mb == asked.smallest)


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    ["one-strip", "interlaced-png", "one-tile-mask", "mosaic-of-stacks", "header-histogram", "netcdf", "jp2-one-tile"],
)
def test_verify_and_profile_an_odd_raster(source: str, tmp_path: Path) -> None:
    """At the smallest limits that their plans name both complete, never over the limit."""
    for job in _done(sources.ODD[source], tmp_path, "rescale"):
        limit_mb = smallest_by_plan(job)
        holds(run_job(at(job, limit_mb)), limit_mb)


@pytest.mark.slow
def test_verify_of_anothers_output(tmp_path: Path) -> None:
    """An output that says nothing of its origin may have any layout: tiles of 2048 and 12 bands."""
    path, output = sources.tiled(tmp_path, "uint16"), tmp_path / "other.tif"
    noise = np.random.default_rng(6).integers(0, 60_000, (12, 1, 2048, 2048), dtype="uint16")
    where = {"width": sources.WIDTH, "height": sources.HEIGHT, "crs": "EPSG:32633", "count": 12, "dtype": "uint16"}
    with rasterio.open(
        output, "w", driver="GTiff", transform=from_origin(500000, 5000000, 10, 10), tiled=True, blockxsize=2048,
        blockysize=2048, compress="lzw", interleave="pixel", photometric="minisblack", alpha="no", **where,
    ) as dataset:  # fmt: skip
        dataset.write(noise[:, 0, : sources.HEIGHT], window=((0, sources.HEIGHT), (0, 2048)))
    job = VerifyJob(source=str(path), output=str(output), resources=resources(AMPLE_MB))
    limit_mb = smallest_by_plan(job)
    holds(run_job(at(job, limit_mb)), limit_mb)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raster", "vector", "both"])
def test_drivers(kind: str, tmp_path: Path) -> None:
    """Trying drivers holds the contract; of one kind with a source, as flows ask, and of all."""
    asked: dict[str, dict[str, typing.Any]] = {
        "raster": {"create": ("GTiff",), "data": "raster", "source": str(sources.header(tmp_path, "tag"))},
        "vector": {"create": ("GPKG",), "data": "vector", "source": str(sources.vector(tmp_path, "GPKG"))},
        "both": {"names": ("GTiff", "GPKG", "FlatGeobuf")},
    }
    job = DriversJob(**asked[kind], resources=resources(AMPLE_MB))
    limit_mb = smallest_by_plan(job)
    close(run_job(at(job, limit_mb)), limit_mb, smallest=True)
