"""Verification catches what is wrong with an output, and a cut file is never taken for whole."""

import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lib.errors import OutputError, VerificationFailed
from lib.jobs import VerifyJob
from lib.operations import Normalise
from lib.raster import verify
from lib.reports import Plan
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RAW = np.random.default_rng(4).integers(0, 9000, (2, 500, 600), dtype="uint16")
SMALL = {"operation": Normalise(), "block_size": 64, "resources": {"max_chunk_bytes": 180_000}}


@pytest.fixture
def done(shop: Workshop, write: Write):
    """A finished job: its record, plan and outcome."""
    source = write(RAW, nodata=0)
    job = shop.job(source, **SMALL)
    return job, *shop.run(job)


def full(shop: Workshop, job, plan, outcome, **known) -> dict:
    """Verify a finished job's output in full, as the child does."""
    known = {"work": job, "expected": plan.expected, "result": outcome.result} | known
    asked = VerifyJob(source=job.source, output=job.destination, resources=job.resources, **known)
    plans: list[Plan] = []
    bench = shop.bench(None, plans.append)
    with closing(verify.prepare(asked, shop.room(job))) as work:
        work.first()
        found = work.run(bench)
    bench.conclude(Path(job.destination).name)
    [final] = plans
    assert sum(final.terms.values()) == final.projected_bytes <= job.resources.limit_bytes
    return found.result | {"checks": [check.name for check in bench.checks if check.passed]}


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
    with pytest.raises(VerificationFailed, match=match):
        full(shop, *done, expected=done[1].expected | change)


def test_an_output_that_does_not_open_is_found(shop: Workshop, done) -> None:
    """A file that is no raster fails the check `opens`."""
    (shop.folder / "out.tif").write_bytes(b"nothing")
    with pytest.raises(VerificationFailed, match="'opens'"):
        full(shop, *done)


def test_without_the_job_structure_alone_is_checked(shop: Workshop, done) -> None:
    """An output that does not say how it was made is held against its source's grid, and every block decodes."""
    found = full(shop, *done, work=None, expected=None, result=None)
    assert found["windows_recomputed"] == 0
    assert found["checks"] == ["structure", "tile table", "decodes"]


@pytest.mark.parametrize("choices", [{}, {"nodata": 0.5}, {"nodata": 1.0}, {"nodata": 0.0}])
def test_results_beside_a_nodata_value_are_sound(shop: Workshop, write: Write, choices: dict) -> None:
    """Valid results that were moved off the nodata value are no difference."""
    raw = RAW.copy()
    raw[0, :50], raw[0, 50:90] = 5000, 20000
    job = shop.job(write(raw, nodata=7), **SMALL, **choices)
    assert full(shop, job, *shop.run(job))["windows_recomputed"] == 25


_LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from lib.errors import OutputError
from tests.raster.conftest import Workshop
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
shop = Workshop(Path({folder!r}))
job = shop.job({source!r}, block_size=64, compress={compress!r}, resources={{"threads": 3}})
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    shop.run(job)
except OutputError as error:
    print("OutputError", error)
"""


@pytest.mark.parametrize("compress", ["zstd", "none"])
def test_a_file_size_limit_fails(shop: Workshop, write: Write, compress: str) -> None:
    """When the disk says no the job fails, with several workers, too."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    source = write(RAW)
    root = str(Path(__file__).parents[2])
    script = _LIMITED.format(root=root, folder=str(shop.folder), source=str(source), compress=compress)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert ran.stdout.startswith("OutputError"), ran.stdout + ran.stderr
