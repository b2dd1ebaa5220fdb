"""kill -9 at any moment of a job's life, start-up, work, verification and publishing: the old file whole, or the new one."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio

from lib.memory.proc import started_with
from lib.publish import find_leftovers, remove_leftover

ROOT = Path(__file__).resolve().parents[2]
OLD, MASK = b"what was there before", b"and its mask"
MOMENTS = 12


def _is_new(path: Path, raster: Path) -> bool:
    """Whether the file is the job's whole output: every pixel as NumPy has it."""
    with rasterio.open(raster) as source, rasterio.open(path) as made:
        expected = np.clip(source.read().astype("float32") / np.float32(10000), 0, 1)
        return bool(np.array_equal(made.read(), expected))


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _started(raster: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["raster", str(raster), str(out), "--operation", "normalise", "--verify", "full", "--overwrite"]
    words += ["--memory-limit-mb", "256"]
    return subprocess.Popen(
        [sys.executable, "-m", "flows", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=os.environ | {"BATCH_HISTORY_PATH": "off"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "child"])
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new(victim: str, raster: Path, tmp_path: Path) -> None:
    """One job to its end, for its time; then twelve, each killed a little later in that time than the one before."""
    out, mask = tmp_path / "out.tif", tmp_path / "out.tif.msk"
    began = time.monotonic()
    assert _started(raster, out).wait() == 0
    seconds = time.monotonic() - began
    assert _is_new(out, raster)
    olds = 0
    for moment in range(MOMENTS):
        out.write_bytes(OLD)
        mask.write_bytes(MASK)
        process = _started(raster, out)
        threading.Event().wait(seconds * (moment + 0.5) / MOMENTS)
        family = _family(process)
        for each in family if victim == "child" else [process]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself just now
                each.kill()
        process.communicate(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
        deadline = time.monotonic() + 10
        while started_with("SWATH_PARENT_PID", str(process.pid)):  # a child that came after the family was looked at
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for leftover in find_leftovers(tmp_path):
            assert leftover.dead
            remove_leftover(leftover)
        if out.read_bytes() == OLD:
            assert mask.read_bytes() == MASK
            olds += 1
        else:
            assert not mask.exists()
            assert _is_new(out, raster)
        assert {path.name for path in tmp_path.iterdir()} <= {"tile.tif", "out.tif", "out.tif.msk"}
    assert olds > MOMENTS // 4, "most of these were to die before the end"
