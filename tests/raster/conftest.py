"""A bench without a parent, and small rasters of every layout."""

import gc
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from lib.jobs import RASTER_DRIVERS, RasterJob, Resources
from lib.memory.meter import Meter
from lib.memory.proc import process_memory
from lib.memory.work import Bench, Room
from lib.raster import engine
from lib.raster.formats import cache_bytes, environment, set_cache
from lib.reports import Outcome, Plan
from lib.units import MIB


@dataclass
class Workshop:
    """Runs jobs in this process; memory is not what these tests measure, so limits are over what pytest holds."""

    folder: Path

    def job(
        self,
        source: Path | str,
        *,
        extra_mb: int = 512,
        resources: dict[str, Any] | None = None,
        to: str = "out.tif",
        **choices: Any,
    ) -> RasterJob:
        """A job whose limit is `extra_mb` above what this process holds."""
        limit = process_memory().resident_bytes + extra_mb * MIB
        return RasterJob(
            source=str(source),
            destination=str(self.folder / to),
            driver=RASTER_DRIVERS[Path(to).suffix],
            resources=Resources(limit_bytes=limit, **(resources or {})),
            **choices,
        )

    def room(self, job: Any) -> Room:
        """All of the job's limit."""
        limit = job.resources.limit_bytes
        return Room(limit, limit, process_memory().resident_bytes, shutil.disk_usage(self.folder).free)

    def bench(self, staged: Path | None, settle: Callable[[Plan], None] = lambda _: None) -> Bench:
        """A bench whose events go nowhere."""
        events: list[dict[str, Any]] = []
        gc.freeze()  # as a child does: the meter's collections need not walk all that pytest holds
        meter = Meter(events.append, drift_threshold_bytes=1024 * MIB, residual_tolerance_bytes=1024 * MIB)
        return Bench(staged, meter, events.append, settle)

    def first(self, job: RasterJob) -> Plan:
        """The plan by header and own terms."""
        with closing(engine.prepare(job, self.room(job))) as work:
            return work.first()

    def run(self, job: RasterJob) -> tuple[Plan, Outcome]:
        """Do a job as the child does, verification included; its final plan, which is settled once, and its outcome."""
        plans: list[Plan] = []
        bench = self.bench(Path(job.destination), plans.append)
        with closing(engine.prepare(job, self.room(job))) as work:
            work.first()
            outcome = work.run(bench)
        bench.conclude(job.label)
        [plan] = plans
        return plan, outcome

    def transform(self, source: Path | str, **choices: Any) -> tuple[Plan, Outcome]:
        """Make a job of a source and run it."""
        return self.run(self.job(source, **choices))

    @property
    def output(self) -> np.ndarray:
        """The output's pixels, `(bands, height, width)`."""
        with environment(), rasterio.open(self.folder / "out.tif") as dataset:
            return dataset.read()


@pytest.fixture(autouse=True)
def _cache_as_before() -> Iterator[None]:
    """A job's cache stays in the process: of 100 KiB, it makes writing other tests' rasters seven times slower, an MRF wrong."""
    bound, _ = cache_bytes()
    yield
    set_cache(bound)


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """A workshop in a folder of its own."""
    return Workshop(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes `(bands, height, width)` pixels; `mask`, `colorinterp` and tags as asked for."""

    def written(
        pixels: np.ndarray,
        name: str = "in.tif",
        *,
        mask: np.ndarray | None = None,
        internal_mask: bool = True,
        colorinterp: list[Any] | None = None,
        driver: str = "GTiff",
        placed: bool = True,
        **options: Any,
    ) -> Path:
        path = tmp_path / name
        bands, height, width = pixels.shape
        where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)} if placed else {}
        with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal_mask):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                path,
                "w",
                driver=driver,
                width=width,
                height=height,
                count=bands,
                dtype=pixels.dtype,
                **where,
                **options,
            ) as dataset:
                if colorinterp:
                    dataset.colorinterp = colorinterp
                dataset.write(pixels)
                if mask is not None:
                    dataset.write_mask(mask)
        return path

    return written
