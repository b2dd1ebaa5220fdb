"""Profiling a raster: read an evenly spread sample of windows exactly as the engine would, and say what that takes.

Nothing is written. The suggestions are for the default work, a copy of all bands, with the same resources.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.jobs import ProfileJob, RasterJob
from lib.memory.proc import peak_bytes
from lib.memory.work import BASELINE_SPREAD_BYTES, Bench, Room, with_probed
from lib.raster import engine, windows
from lib.raster.block import Buffer
from lib.raster.pipeline import in_order
from lib.reports import Outcome, Plan
from lib.units import mib

_HEADROOM = 1.2


def prepare(job: ProfileJob, room: Room) -> "ProfileWork":
    """Open the source as the default work would.

    Raises:
        SourceError, DataError: as for the work itself.
    """
    work = RasterJob(source=job.source, destination="profile.tif", nodata=None, resources=job.resources)
    with ExitStack() as stack:
        prepared = engine.prepare(work, room, for_reading=True)
        stack.callback(prepared.close)
        return ProfileWork(job, room, prepared, stack.pop_all())


@dataclass(slots=True)
class ProfileWork:
    """A prepared profile; `_work` is the default work, which is planned and read for, and not done."""

    job: ProfileJob
    room: Room
    _work: engine.RasterWork
    _open: ExitStack

    def close(self) -> None:
        """Close the source."""
        self._open.close()

    def first(self) -> Plan:
        """What reading takes, by headers."""
        return self._plan()

    def look(self) -> Plan:
        """The final plan, by reading where the source is heaviest."""
        self._work.look_in(self._work.reading_layout())
        return self._plan()

    def smallest(self, **without: Any) -> int:
        """The smallest limit with other resources, bytes."""
        margin: int = without.get("margin_bytes", self.job.resources.margin_bytes)
        return self._plan().smallest_limit_bytes - self.job.resources.margin_bytes + margin

    def run(self, bench: Bench) -> Outcome:
        """Read the sample, masks included, and suggest a limit, a chunk and a cache.

        Raises:
            DataError, MemoryExceeded: under way.
        """
        work, source = self._work, self._work.task.source
        layout = work.reading_layout()
        total = work.task.count(layout)
        wanted = set(windows.evenly(total, self.job.sample_chunks))
        bench.meter.start(len(wanted))
        work.look_in(layout)
        bench.settle(self._plan())
        buffer = Buffer(work.task.chunk_pixels(layout), source.dtype)
        [reader] = source.readers(1)
        nodata_pixels = read_pixels = 0
        for i, (window, bands) in enumerate(
            in_order(source.grid.shape, layout.window, source.bands, layout.bands_at_once)
        ):
            if i in wanted:
                block = reader.read(window, bands, 0, buffer.block(window, bands))
                nodata_pixels += 0 if block.all_valid else block.valid.size - int(np.count_nonzero(block.valid))
                read_pixels += block.pixels.size
                bench.meter.chunk()
        bench.meter.finish()
        default = work.default_choice()
        return Outcome(
            result={
                "kind": "raster",
                "width": source.grid.shape[1],
                "height": source.grid.shape[0],
                "bands": len(source.bands),
                "chunks_total": total,
                "chunks_read": len(wanted),
                "decoded_bytes": read_pixels * source.itemsize,
                "nodata": source.validity.describe(source.dtype.kind == "f"),
                "nodata_share": round(nodata_pixels / read_pixels, 4) if read_pixels else 0.0,
                "suggested_limit_mb": mib(max(int(peak_bytes() * _HEADROOM), default.projected_bytes)) + 1,
                "suggested_chunk": list(default.layout.window),
                "suggested_gdal_cachemax_mb": max(1, mib(default.layout.cache_bytes)),
            },
            checks=tuple(bench.checks),
        )

    def _plan(self) -> Plan:
        work, resources = self._work, self.job.resources
        layout = work.reading_layout()
        own = {
            "baseline": self.room.baseline_bytes,
            "opening the source": max(0, work.held.opened_bytes - self.room.baseline_bytes),
            **work.task.for_one(layout),  # which the probe reads with
            "gdal cache": layout.cache_bytes,
            "margin": resources.margin_bytes,
        }
        projected = with_probed(sum(own.values()), work.held.reader_bytes)
        return Plan(
            limit_bytes=self.room.limit_bytes,
            projected_bytes=projected,
            baseline_bytes=self.room.baseline_bytes,
            disk_bytes=0,
            smallest_limit_bytes=projected + BASELINE_SPREAD_BYTES,
            gdal_cache_bytes=layout.cache_bytes,
            window=layout.window,
            block_size=layout.block_size,
            chunks=min(work.task.count(layout), self.job.sample_chunks),
            terms=own | {"libraries": projected - sum(own.values())},
            facts=work.task.source.describe(),
        )
