"""Profiling a raster: read an evenly spread sample of windows exactly as the engine would, and say what that takes.

Nothing is written. The suggestions are for the default work, a copy of all bands, with the same resources.
"""

from contextlib import ExitStack

import numpy as np

from lib.jobs import ProfileJob, RasterJob
from lib.memory.proc import peak_bytes
from lib.memory.work import Bench, Room
from lib.raster import engine, windows
from lib.raster.block import Buffer
from lib.raster.pipeline import in_order
from lib.raster.reading import ReadingWork
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


class ProfileWork(ReadingWork):
    """A prepared profile.

    Args:
        job: what is asked.
        room: what there is.
        work: the default work, which is planned and read for, and not done.
        stack: closes it.
    """

    def __init__(self, job: ProfileJob, room: Room, work: engine.RasterWork, stack: ExitStack) -> None:
        super().__init__(room, job.resources.margin_bytes, stack)
        self.job, self._work = job, work

    def _plan(self) -> Plan:
        work, layout = self._work, self._work.reading_layout()
        # The probe reads with the buffers of one worker.
        own = work.task.for_one(layout) | {"gdal cache": max(layout.cache_bytes, work.task.source.block_bytes)}
        own["network cache"] = work.task.source.network_cache_bytes
        return self.plan_of(
            work.held.opened_bytes,
            own,
            work.held.reader_bytes,
            gdal_cache_bytes=layout.cache_bytes,
            window=layout.window,
            block_size=layout.block_size,
            chunks=min(work.task.count(layout), self.job.sample_chunks),
            facts=work.task.source.describe(),
        )

    def largest_bytes(self) -> int:
        """A block of the source."""
        return self._work.task.source.block_bytes

    def look(self) -> Plan:
        """The final plan, by reading where the source is heaviest."""
        self._work.look_in(self._work.reading_layout())
        return self._plan()

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
        buffer = Buffer(work.task.chunk_pixels(layout) * layout.bands_at_once, source.dtype)
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
        bench.meter.finish(work.held.reader_bytes)
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
