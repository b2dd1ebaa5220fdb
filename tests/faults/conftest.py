"""A small raster and jobs on it, for the ways in which a job may die."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib.jobs import RasterJob, Resources
from lib.operations import Custom, Normalise
from lib.units import MIB


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """1200 x 1200 uint16, tiled: nine output tiles."""
    path = tmp_path / "tile.tif"
    pixels = np.random.default_rng(7).integers(1, 10000, (1, 1200, 1200), dtype="uint16")
    with rasterio.open(
        path, "w", driver="GTiff", width=1200, height=1200, count=1, dtype="uint16", tiled=True, blockxsize=256,
        blockysize=256, crs="EPSG:32633", transform=from_origin(500000, 5000000, 10, 10), nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


@pytest.fixture
def job(raster: Path, tmp_path: Path) -> Callable[..., RasterJob]:
    """A raster job by the name of its fault; None for a healthy one. Keywords are resources.

    A fault `late_…` begins when the first chunks are done, behind the probe: the job has a hundred of them.
    """

    def make(
        fault: str | None = None, *, limit_mb: int = 256, block_size: int | None = None, **resources: Any
    ) -> RasterJob:
        if fault and fault.startswith("late_"):
            block_size, resources = 128, {"max_chunk_bytes": 450_000} | resources
        operation = Custom(function=f"tests.faults.functions:{fault}") if fault else Normalise()
        return RasterJob(
            source=str(raster),
            destination=str(tmp_path / "out.tif"),
            operation=operation,
            block_size=block_size,
            resources=Resources(limit_bytes=limit_mb * MIB, **resources),
        )

    return make
