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
def edge() -> int:
    """Pixels of the raster's edge; where a function makes each chunk slow, 2048 are a thousand chunks, too."""
    return 4096


@pytest.fixture
def raster(edge: int, tmp_path: Path) -> Path:
    """4096 x 4096 uint8 in tiles of 64: more than a thousand windows where a chunk may hold one tile, or six."""
    path = tmp_path / "tile.tif"
    tiles = edge // 64
    pixels = np.random.default_rng(7).integers(1, 200, (1, tiles, tiles), dtype="uint8")
    pixels = pixels.repeat(64, axis=1).repeat(64, axis=2)
    with rasterio.open(
        path, "w", driver="GTiff", width=edge, height=edge, count=1, dtype="uint8", tiled=True, blockxsize=64,
        blockysize=64, crs="EPSG:32633", transform=from_origin(500000, 5000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


@pytest.fixture
def run(job: Callable[..., RasterJob], tmp_path: Path) -> Callable[..., Report]:
    """Run in about a thousand chunks, with a drift threshold of 32 MiB."""

    def call(fault: str | None, drift_mb: int = 32) -> Report:
        chunk = 96 * KIB if fault else 88 * KIB  # a function holds 13 bytes a pixel and band
        resources = {"max_chunk_bytes": chunk, "drift_threshold_bytes": drift_mb * MIB, "threads": 1}
        report = run_job(job(fault, block_size=64, **resources), staged=tmp_path / "staged.tif")
        assert report.plan is not None, report.error
        assert report.plan["chunks"] >= 1000
        return report

    return call


@pytest.mark.parametrize(
    "fault", ["leak_numpy", *(pytest.param(each, marks=pytest.mark.slow) for each in ("leak_python", "leak_ones"))]
)
def test_a_leak_in_python_or_numpy_is_named_by_its_line(fault: str, run: Callable[..., Report]) -> None:
    """256 KiB kept a chunk is measured within a tenth, and the line that keeps it is the first one named."""
    report = run(fault)
    leak = report.memory.leak
    assert leak is not None, report.memory.slope_bytes_per_chunk
    assert 0.9 * 256 * KIB < leak["bytes_per_chunk"] < 1.1 * 256 * KIB
    assert "functions.py" in leak["lines"][0]["location"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["leak_late_beside_noise", "leak_in_bursts"])
def test_no_leak_kills_unnamed(fault: str, run: Callable[..., Report]) -> None:
    """A leak that begins late beside much noise, and one of few large steps, are named with their line as drift ends the job."""
    report = run(fault)
    assert report.error is not None
    assert report.error.type == "DriftExceeded"
    assert "functions.py" in report.error.message
    leak = report.memory.leak
    assert leak is not None, report.memory.slope_bytes_per_chunk
    assert "functions.py" in leak["lines"][0]["location"]
    per_chunk = (128 if fault == "leak_late_beside_noise" else 256) * KIB
    assert leak["interval"][0] <= 1.05 * per_chunk
    assert leak["bytes_per_chunk"] == pytest.approx(per_chunk, rel=0.25)
    assert leak["crosses_at_chunk"] == pytest.approx(report.error.facts["chunks"], abs=12)


@pytest.mark.slow
@pytest.mark.parametrize("edge", [2048])
@pytest.mark.parametrize("fault", ["long_sawtooth", "cache_that_fills"])
def test_what_stays_below_the_threshold_is_no_leak(fault: str, run: Callable[..., Report]) -> None:
    """Teeth of 25 MiB and a cache of 24, below a threshold of 32: not named, and the job completes."""
    report = run(fault)
    assert report.status == "completed", report.error
    assert report.memory.leak is None


@pytest.mark.slow
def test_tracing_does_not_kill_a_job_that_fits(run: Callable[..., Report]) -> None:
    """A table of 33 MiB, 46 while it grows, whose traces would take 150: tracing ends, says so, and costs few MiB."""
    report = run("looks_up", drift_mb=100)
    assert report.status == "completed", report.error
    assert report.memory.baseline_bytes is not None
    assert (report.memory.peak_bytes or 0) - report.memory.baseline_bytes < 46 * MIB + 18 * MIB
    assert report.memory.tracing_stopped is not None
    assert report.memory.tracing_stopped["allocations"] > 5_000
    assert any("tracing stopped" in warning for warning in report.warnings)
    assert "functions.py" in report.memory.top_allocators[0].location
    end = report.memory.attribution_end
    assert (end["tracing_bytes"], end["python_heap_bytes"], end["numpy_bytes"]) == (0, 0, 0)
    assert end["unexplained_bytes"] > 25 * MIB


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
@pytest.mark.parametrize("edge", [2048])
def test_a_sawtooth_is_not_a_leak(run: Callable[..., Report]) -> None:
    """Memory that is given back every eight chunks is not named, and the job completes."""
    report = run("sawtooth")
    assert report.status == "completed", report.error
    assert report.memory.leak is None


@pytest.mark.slow
@pytest.mark.parametrize("edge", [2048])
def test_temporaries_are_no_leak(run: Callable[..., Report]) -> None:
    """8 MiB for a moment in each of a thousand chunks: not named, and the job completes."""
    report = run("temporaries")
    assert report.status == "completed", report.error
    assert report.memory.leak is None


@pytest.mark.slow
def test_a_thousand_chunks_are_flat(run: Callable[..., Report]) -> None:
    """Over four thousand chunks a healthy job's slope is zero within 64 bytes, by a narrow interval and by samples."""
    report = run("unchanged")
    assert report.status == "completed", report.error
    assert report.memory.slope_interval is not None
    low, high = report.memory.slope_interval
    assert low <= 64
    assert high >= -64
    assert high - low <= KIB  # a leak that ends this job takes 8
    assert report.memory.leak is None
    # The parent's samples, through a plain line of least squares: what memory grew by from the middle of the work on.
    began = report.seconds.total - report.seconds.verify - report.seconds.work / 2
    late = np.array([sample for sample in report.memory.samples if sample[0] >= began])
    assert len(late) >= 8
    bytes_a_second = np.polynomial.Polynomial.fit(late[:, 0], late[:, 1], 1).convert().coef[1]
    assert abs(bytes_a_second) * (late[-1, 0] - late[0, 0]) < 2 * MIB


@pytest.mark.slow
def test_attribution_is_of_near_the_peak_and_of_the_end(run: Callable[..., Report]) -> None:
    """What memory is made of is told at a size close to the peak, and apart from it after release; both sum up exactly."""
    report = run(None)
    peak, end = report.memory.attribution, report.memory.attribution_end
    assert peak != end
    for found in (peak, end):
        assert sum(found.values()) == 2 * found["resident_bytes"]
    assert (report.memory.peak_bytes or 0) - peak["resident_bytes"] < 4 * MIB
    assert end["resident_bytes"] == pytest.approx(report.memory.final_bytes, abs=MIB)
    assert end["numpy_bytes"] < peak["numpy_bytes"]
