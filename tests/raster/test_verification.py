"""Verification catches what is wrong with an output, and a cut file is never taken for whole."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lib.errors import OutputError, VerificationFailed
from lib.jobs import VerifyJob
from lib.raster import verification
from lib.raster.formats import cache_bytes
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RAW = np.random.default_rng(4).integers(0, 9000, (2, 500, 600), dtype="uint16")
SMALL = {"block_size": 64, "resources": {"max_chunk_bytes": 180_000}}


@pytest.fixture
def done(shop: Workshop, write: Write):
    """A finished job: its record, plan and outcome."""
    source = write(RAW, nodata=0)
    job = shop.job(source, **SMALL)
    return job, *shop.run(job)


def full(shop: Workshop, job, plan, outcome) -> dict:
    """Verify a finished job's output in full."""
    bench = shop.bench(None)
    counted = verification.full(job.destination, job.source, job, plan.expected, bench, result=outcome.result)
    return counted | {"checks": [check.name for check in bench.checks if check.passed]}


def test_a_sound_output_passes(shop: Workshop, done) -> None:
    """Every check of the full level is made and passes, and nodata is counted anew."""
    found = full(shop, *done)
    assert found["nodata_pixels"] == np.count_nonzero(RAW == 0)
    assert found["windows_recomputed"] == 25
    assert found["checks"] == [
        "structure",
        "pixel count",
        "tile table",
        "decodes",
        "nodata pixels",
        "recomputed windows",
    ]


def test_basic_checks_are_part_of_the_job(done) -> None:
    """A job's own checks are in its outcome."""
    assert [check.name for check in done[2].checks] == ["structure", "pixel count", "tile table", "recomputed windows"]


def test_verify_none_still_checks_structure_and_counts(shop: Workshop, write: Write) -> None:
    """`verify="none"` skips recomputation only."""
    _, outcome = shop.transform(write(RAW), verify="none", **SMALL)
    assert [check.name for check in outcome.checks] == ["structure", "pixel count", "tile table"]


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_a_wrong_pixel_block_is_found(shop: Workshop, done, value: float) -> None:
    """A corner overwritten with plausible values, or with nodata, does not pass."""
    with rasterio.open(shop.folder / "out.tif", "r+") as dataset:
        dataset.write(np.full((1, 64, 64), value, "float32"), [1], window=((0, 64), (0, 64)))
    with pytest.raises(VerificationFailed, match=r"nodata pixels|recomputed windows"):
        full(shop, *done)


def test_a_damaged_tile_is_found(shop: Workshop, done) -> None:
    """A tile that does not decode fails the check `decodes`."""
    path = shop.folder / "out.tif"
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_4_4", "TIFF", bidx=2))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 50)
    with pytest.raises(VerificationFailed) as failed:
        full(shop, *done)
    assert failed.value.check == "decodes"


def test_a_cut_file_is_found(shop: Workshop, done) -> None:
    """Blocks past the end of the file are a disk's or a limit's doing."""
    path = shop.folder / "out.tif"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(OutputError, match="the disk or a file-size limit cut the output"):
        full(shop, *done)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"count": 3}, "count is 2, not 3"),
        ({"dtype": "float64"}, "dtype is float32"),
        ({"nodata": 0.0}, "nodata is nan, not 0"),
        ({"crs": None, "transform": [1, 0, 0, 0, -1, 0]}, "the transform is"),
    ],
)
def test_a_wrong_structure_is_found(shop: Workshop, done, change: dict, match: str) -> None:
    """What the plan expected and the output is not is said in words."""
    job, plan, outcome = done
    plan.expected.update(change)
    with pytest.raises(VerificationFailed, match=match):
        full(shop, job, plan, outcome)


def test_an_output_that_does_not_open_is_found(shop: Workshop, done) -> None:
    """A file that is no raster fails the check `opens`."""
    (shop.folder / "out.tif").write_bytes(b"nothing")
    with pytest.raises(VerificationFailed, match="'opens'"):
        full(shop, *done)


def test_without_the_job_structure_alone_is_checked(shop: Workshop, done) -> None:
    """An output that does not say how it was made is held against its source's grid, and every block decodes."""
    bench = shop.bench(None)
    found = verification.full(done[0].destination, done[0].source, None, None, bench)
    assert found["windows_recomputed"] == 0
    assert [check.name for check in bench.checks] == ["structure", "tile table", "decodes"]


def test_its_plan_sums(shop: Workshop, done) -> None:
    """A full verification has a projection of its own, whose terms sum to it."""
    job = done[0]
    verify = VerifyJob(source=job.source, output=job.destination, work=job, resources=job.resources)
    plan = verification.plan_full(verify, shop.room(job))
    assert sum(plan.terms.values()) == plan.projected_bytes <= job.resources.limit_bytes
    assert plan.chunks == 2 * 8 * 1


_LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from lib.errors import OutputError
from tests.raster.conftest import Workshop
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
shop = Workshop(Path({folder!r}))
job = shop.job({source!r}, block_size=64, compress={compress!r}, resources={{"threads": 2}})
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    shop.run(job)
except OutputError as error:
    print("OutputError", error)
"""


@pytest.mark.parametrize("compress", ["zstd", "none"])
def test_a_file_size_limit_with_encoder_threads_fails(shop: Workshop, write: Write, compress: str) -> None:
    """With two encoder threads GDAL loses tiles in silence when the disk says no: the job fails all the same."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    source = write(RAW)
    root = str(Path(__file__).parents[2])
    script = _LIMITED.format(root=root, folder=str(shop.folder), source=str(source), compress=compress)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert ran.stdout.startswith("OutputError"), ran.stdout + ran.stderr


def test_the_cache_is_set_for_each_job_in_turn(shop: Workshop, write: Write) -> None:
    """The second job's cache is effective in the same process, and what it holds stays below it."""
    source = write(RAW, compress="deflate", blockysize=1)
    sizes = []
    for bound in (0, 64 * 1024 * 1024):
        plan, _ = shop.transform(source, block_size=64, resources={"gdal_cache_max_bytes": bound})
        assert cache_bytes()[0] == plan.gdal_cache_bytes
        sizes.append(plan.gdal_cache_bytes)
    assert sizes[0] == 0
    assert sizes[1] > 0
