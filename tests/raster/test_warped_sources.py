"""A warped VRT gives other pixels in other windows: verification reads the very windows that the job read, and stays exact."""

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import lib.verify
from lib.errors import VerificationFailed
from lib.jobs import RasterJob, VerifyJob
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]


@pytest.fixture
def warped(write: Write) -> Path:
    """Three bands of noise, where each neighbour that is taken instead shows, warped by GDAL's own program."""
    raw = np.random.default_rng(6).integers(1, 60_000, (3, 300, 340)).astype("uint16")
    path = write(raw, "plain.tif", nodata=0).with_name("in.vrt")
    command = ["gdalwarp", "-q", "-of", "VRT", "-t_srs", "EPSG:3035", "-r", "bilinear", "-tr", "9", "9"]
    subprocess.run([*command, str(path.with_name("plain.tif")), str(path)], check=True)
    return path


def again(shop: Workshop, job: RasterJob, **choices: Any) -> list[str]:
    """Verify as `swath verify` does, by what the output says of itself; the checks that passed."""
    asked = VerifyJob(source=job.source, output=job.destination, resources=job.resources, **choices)
    bench = shop.bench(None)
    with closing(lib.verify.prepare(asked, shop.room(job))) as work:
        work.first()
        work.run(bench)
    bench.conclude("out.tif")
    return [check.name for check in bench.checks]


@pytest.mark.parametrize(
    "choices",
    [
        {"resources": {"max_chunk_bytes": 150_000}},
        {"resources": {"max_chunk_bytes": 500_000, "threads": 2}},
        {"bands": (3, 1)},
        {"operation": {"name": "rescale", "multiply": 2}, "resources": {"max_chunk_bytes": 900_000}},
        {},
    ],
)
def test_a_right_output_passes(shop: Workshop, warped: Path, choices: dict) -> None:
    """Whatever the windows and the bands at once: at the end of the job and afterwards, by the file alone."""
    job = shop.job(warped, block_size=64, **choices)
    plan, _ = shop.run(job)
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        said = dataset.tags()["SWATH_WINDOW"]
    assert said == ",".join(map(str, [*plan.window, plan.expected["bands_at_once"]]))
    assert "recomputed windows" in again(shop, job)


def test_one_wrong_pixel_is_found(shop: Workshop, warped: Path) -> None:
    """One more than it must be is no rounding."""
    job = shop.job(warped, block_size=64, resources={"max_chunk_bytes": 150_000})
    shop.run(job)
    with rasterio.open(job.destination, "r+") as dataset:
        pixels = dataset.read(1)
        pixels[::64, ::64] += 1  # of each chunk
        dataset.write(pixels, 1)
    with pytest.raises(VerificationFailed, match=r"\d of \d+ pixels differ"):
        again(shop, job)


def test_other_sources_say_nothing_of_windows(shop: Workshop, warped: Path) -> None:
    """The same work gives the same file, whatever the limit, where pixels do not depend on it."""
    shop.transform(warped.with_name("plain.tif"))
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        assert "SWATH_WINDOW" not in dataset.tags()
