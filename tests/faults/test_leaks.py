"""A planted leak is named with its lines before it kills the job; a healthy job of a thousand chunks is flat."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib.jobs import RasterJob
from lib.memory.process import run_job
from lib.reports import Report
from lib.units import KIB, MIB


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """4096 x 4096 uint8 in tiles of 64: more than a thousand windows where a chunk may hold one tile, or six."""
    path = tmp_path / "tile.tif"
    pixels = np.random.default_rng(7).integers(1, 200, (1, 64, 64), dtype="uint8").repeat(64, axis=1).repeat(64, axis=2)
    with rasterio.open(
        path, "w", driver="GTiff", width=4096, height=4096, count=1, dtype="uint8", tiled=True, blockxsize=64,
        blockysize=64, crs="EPSG:32633", transform=from_origin(500000, 5000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


@pytest.fixture
def run(job: Callable[..., RasterJob], tmp_path: Path) -> Callable[..., Report]:
    """Run in about a thousand chunks, with a drift threshold of 32 MiB."""

    def call(fault: str | None) -> Report:
        # Our own operations hold 512 KiB of scratch in a chunk, a function 13 bytes a pixel and band.
        chunk = 96 * KIB if fault else 600 * KIB
        resources = {"max_chunk_bytes": chunk, "drift_threshold_bytes": 32 * MIB, "threads": 1}
        report = run_job(job(fault, block_size=64, **resources), staged=tmp_path / "staged.tif")
        assert report.plan is not None, report.error
        assert report.plan["chunks"] >= 1000
        return report

    return call


@pytest.mark.parametrize("fault", ["leak_python", "leak_numpy"])
def test_a_leak_in_python_or_numpy_is_named_by_its_line(fault: str, run: Callable[..., Report]) -> None:
    """256 KiB kept a chunk is measured within a tenth, and the line that keeps it is the first one named."""
    report = run(fault)
    leak = report.memory.leak
    assert leak is not None, report.memory.slope_bytes_per_chunk
    assert 0.9 * 256 * KIB < leak["bytes_per_chunk"] < 1.1 * 256 * KIB
    assert "functions.py" in leak["lines"][0]["location"]


def test_drift_past_threshold_and_projection_ends_the_job(run: Callable[..., Report]) -> None:
    """The leak that was named then passes the threshold and the projection: exceeded, 137, with the top allocators."""
    report = run("leak_numpy")
    assert report.error is not None
    assert (report.status, report.exit_code, report.error.type) == ("exceeded", 137, "DriftExceeded")
    assert report.plan is not None
    assert (report.memory.peak_bytes or 0) > report.plan["projected_bytes"]
    assert len(report.attempts) == 1
    assert "functions.py" in report.memory.top_allocators[0].location
    assert 1 <= len(report.memory.top_allocators) <= 5
    assert any("leak" in warning for warning in report.warnings)


def test_a_native_leak_is_found_and_said_to_be_native(run: Callable[..., Report]) -> None:
    """256 KiB of malloc lost a chunk is measured, and no Python line is blamed."""
    report = run("leak_native")
    leak = report.memory.leak
    assert leak is not None, report.memory.slope_bytes_per_chunk
    assert 0.9 * 256 * KIB < leak["bytes_per_chunk"] < 1.1 * 256 * KIB
    assert leak["lines"] == []


@pytest.mark.slow
def test_a_sawtooth_is_not_a_leak(run: Callable[..., Report]) -> None:
    """Memory that is given back every eight chunks is not named, and the job completes."""
    report = run("sawtooth")
    assert report.status == "completed", report.error
    assert report.memory.leak is None


@pytest.mark.slow
def test_temporaries_are_no_leak(run: Callable[..., Report]) -> None:
    """8 MiB for a moment in each of four thousand chunks: not named, and the job completes."""
    report = run("temporaries")
    assert report.status == "completed", report.error
    assert report.memory.leak is None


def test_a_thousand_chunks_are_flat(run: Callable[..., Report]) -> None:
    """A healthy job's slope is not distinguishable from zero: its 95 % interval holds it, or is below 64 bytes a chunk."""
    report = run(None)
    assert report.status == "completed", report.error
    assert report.memory.slope_interval is not None
    low, high = report.memory.slope_interval
    assert low <= 64
    assert high >= -64
    assert report.memory.leak is None
