"""Profiling reads a sample and suggests what is enough."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.jobs import ProfileJob, Resources
from lib.memory.proc import process_memory
from lib.raster import profile
from lib.reports import Plan
from lib.units import MIB
from tests.raster.conftest import Workshop

Write = Callable[..., Path]


def profiled(shop: Workshop, job: ProfileJob) -> tuple[Plan, dict[str, Any]]:
    """A profile's final plan and result."""
    plans: list[Plan] = []
    with closing(profile.prepare(job, shop.room(job))) as work:
        work.first()
        result = work.run(shop.bench(None, plans.append)).result
    [plan] = plans
    return plan, result


@pytest.mark.parametrize("bands", [1, 3])
def test_a_sample_is_read_and_a_limit_suggested(shop: Workshop, write: Write, bands: int) -> None:
    """As many chunks as asked for are read; the suggested limit is enough for the default work."""
    raw = np.random.default_rng(1).integers(0, 99, (bands, 900, 1100), dtype="uint16")
    source = write(raw, nodata=0, tiled=True, blockxsize=64, blockysize=64)
    limit = process_memory().resident_bytes + 512 * MIB
    job = ProfileJob(source=str(source), sample_chunks=4, resources=Resources(limit_bytes=limit, max_chunk_bytes=MIB))
    plan, found = profiled(shop, job)
    assert found["chunks_read"] == 4 < found["chunks_total"]
    assert found["decoded_bytes"] < raw.nbytes
    assert found["nodata"] == ["nodata 0"]
    assert sum(plan.terms.values()) == plan.projected_bytes
    work, _ = shop.run(shop.job(source, resources={"max_chunk_bytes": 2 * MIB}))
    assert work.projected_bytes <= found["suggested_limit_mb"] * MIB
    assert found["suggested_chunk"] == [edge - edge % 64 for edge in found["suggested_chunk"]] != [0, 0]


def test_all_chunks_of_a_small_raster_are_read(shop: Workshop, write: Write) -> None:
    """Where the sample is larger than the raster, every pixel is read once."""
    raw = np.ones((2, 100, 100), "uint8")
    limit = process_memory().resident_bytes + 512 * MIB
    job = ProfileJob(source=str(write(raw)), resources=Resources(limit_bytes=limit))
    _, found = profiled(shop, job)
    assert found["chunks_read"] == found["chunks_total"]
    assert found["decoded_bytes"] == raw.nbytes
