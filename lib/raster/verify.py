"""Verification of a raster: what ends a run (`basic`), and a job of its own (`prepare`). The checks are in `checks.py`."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lib.diagnosis import FULL_HINT
from lib.errors import DataError, OutputError, SourceError, VerificationFailed
from lib.jobs import RasterJob, VerifyJob
from lib.memory.proc import process_memory
from lib.memory.work import Bench, Room
from lib.operations import Custom
from lib.raster import checks, windows
from lib.raster.block import Buffer
from lib.raster.carried import read_provenance  # noqa: F401 - `lib.verify` asks each wing for it
from lib.raster.checks import Subject
from lib.raster.formats import TINY_CACHE_BYTES, environment, set_cache
from lib.raster.operations import Operation, make
from lib.raster.probe import Growth, undecoded_bytes
from lib.raster.reading import ReadingWork
from lib.raster.recompute import BASIC_EDGE, SAMPLE_EDGE
from lib.raster.sinks import picture
from lib.raster.sources.dataset import RasterSource, open_raster
from lib.raster.sources.mosaic import open_files
from lib.raster.sources.opening import open_for
from lib.reports import Outcome, Plan
from lib.units import MIB

_BASIC_WINDOWS, _FULL_WINDOWS = 6, 25
_GUESS_BYTES = 8 * MIB
# Of a recomputed window: pixels and mask as read, float64 of them, of the result and between, the output's, comparisons.
_BYTES_PER_SAMPLED_PIXEL = 64
_TABLE_BYTES_PER_BLOCK = 16
_OPENS = "the output failed the check 'opens': "


def basic(
    output_path: str,
    source: RasterSource,
    job: RasterJob,
    operation: Operation,
    expected: dict[str, Any],
    bench: Bench,
    *,
    result: dict[str, Any],
) -> None:
    """Structure, counts, tile table; a few recomputed windows unless `job.verify` is "none".

    Raises:
        OutputError: what was just written does not open, or blocks are missing: its directory did not reach the disk.
    """
    try:
        output = _open_output(output_path)
    except SourceError as error:
        bench.check("opens", passed=False, detail=error.message)
        raise OutputError(
            f"the disk or a file-size limit cut the output: {_OPENS}{error.message}",
            hint=FULL_HINT,
            check="opens",
            path=output_path,
        ) from error
    try:
        subject = Subject(output, source, job, operation, expected, result)
        checks.structure(subject, bench)
        checks.counts(subject, bench)
        checks.tile_table(subject, bench)
        if job.verify != "none":
            checks.recomputed(subject, bench, BASIC_EDGE, _BASIC_WINDOWS)
    finally:
        output.close()


def prepare(job: VerifyJob, room: Room) -> "VerifyWork":
    """Open source and output.

    Raises:
        SourceError: the source cannot be opened.
        VerificationFailed: the output cannot.
        OutputError: the output is cut off.
    """
    work = job.work if isinstance(job.work, RasterJob) else None
    with ExitStack() as stack:
        stack.enter_context(environment())
        set_cache(TINY_CACHE_BYTES)
        source = open_for(work.model_copy(update={"source": job.source})) if work else open_files(job.source, None)
        stack.callback(source.close)
        # A user's function is not called again, so it need not be importable here.
        operation = None if work is None or isinstance(work.operation, Custom) else make(work, source)
        expected = job.expected or source.grid.describe()
        try:
            output = _open_output(job.output, _bands_of_picture(work, operation, source, expected))
        except SourceError as error:
            raise VerificationFailed(_OPENS + error.message, check="opens") from error
        stack.callback(output.close)
        # The pixels of a JPEG are others, and its mask is one for all bands.
        lossy = work is not None and work.driver == "JPEG"
        subject = Subject(output, source, work, None if lossy else operation, expected, None if lossy else job.result)
        return VerifyWork(job, room, subject, stack.pop_all())


def _bands_of_picture(
    work: RasterJob | None, operation: Operation | None, source: RasterSource, expected: dict[str, Any]
) -> range | None:
    """The bands of a picture without the alpha band that it may have got; None: all, of other outputs."""
    if work is None or not picture.is_picture(work):
        return None
    count = expected.get("count") or (operation.outputs.count(len(source.bands)) if operation else None)
    return None if count is None else range(1, count + 1)


def _open_output(path: str, bands: range | None = None) -> RasterSource:
    try:
        return open_raster(path, bands)
    except DataError as error:
        raise OutputError(
            f"the disk or a file-size limit cut the output: {error.message}", hint=FULL_HINT, check="opens", path=path
        ) from error


class VerifyWork(ReadingWork):
    """A prepared verification: decodes the whole output in flat memory, and recomputes samples.

    Args:
        job: what is asked.
        room: what there is.
        subject: output, source, and the work that made one of the other.
        stack: closes them.
    """

    def __init__(self, job: VerifyJob, room: Room, subject: Subject, stack: ExitStack) -> None:
        super().__init__(room, job.resources.margin_bytes, stack)
        self.job, self.subject = job, subject
        self._opened_bytes = process_memory().resident_bytes
        # A guess, before it is measured.
        self._held_bytes = _GUESS_BYTES + 2 * (subject.source.block_bytes + subject.output.block_bytes)

    def largest_bytes(self) -> int:
        """The largest block of both."""
        return max(self.subject.source.block_bytes, self.subject.output.block_bytes)

    def look(self) -> Plan:
        """The final plan, by reading where both are heaviest."""
        self._probe()
        return self._plan()

    def run(self, bench: Bench) -> Outcome:
        """Every check that can be made; what was counted is the result.

        Raises:
            OutputError: blocks are missing or cut off.
        """
        subject, basic_only = self.subject, self.job.level == "basic" and self.subject.job is not None
        bench.meter.start(checks.decode_count(subject.output))
        bench.settle(self.look())
        checks.structure(subject, bench)
        bench.conclude(Path(self.job.output).name)
        checks.counts(subject, bench)
        checks.tile_table(subject, bench)
        result: dict[str, Any] = {}
        if not basic_only:
            nodata = checks.decodes(subject, bench)
            bench.conclude(Path(self.job.output).name)
            shape = subject.output.grid.shape
            result = {
                "width": shape[1],
                "height": shape[0],
                "bands": len(subject.output.bands),
                "nodata_pixels": nodata,
            }
        edge, most = (BASIC_EDGE, _BASIC_WINDOWS) if basic_only else (SAMPLE_EDGE, _FULL_WINDOWS)
        result["windows_recomputed"] = checks.recomputed(subject, bench, edge, most)
        bench.meter.finish(self._held_bytes)
        return Outcome(result=result, checks=tuple(bench.checks))

    def _probe(self) -> None:
        """Read where source and output are heaviest, as the checks will."""
        growth, source, output = Growth(), self.subject.source, self.subject.output
        decoded = 0
        for raster, step in ((source, (SAMPLE_EDGE, SAMPLE_EDGE)), (output, checks.decode_window(output.block))):
            rows, columns = raster.grid.shape
            height, width = min(step[0], rows), min(step[1], columns)
            buffer, [reader] = Buffer(height * width, raster.dtype), raster.readers(1)
            for place in [windows.Window(0, 0, 0, 0), *raster.heaviest()]:
                window = windows.Window(min(place.top, rows - height), min(place.left, columns - width), height, width)
                for band in (raster.bands[0], raster.bands[-1]):
                    reader.read(window, (band,), 0, buffer.block(window, (band,)))
                    decoded += window.pixels * source.itemsize if raster is source else 0
        undecoded = undecoded_bytes(source.dataset.driver, source.decoded_bytes, decoded)
        self._held_bytes = growth.bytes() + undecoded

    def _chunk_bytes(self) -> int:
        """A chunk of a VRT with its masks, which is read as the job read it."""
        chunk, source = self.subject.chunk, self.subject.source
        if chunk is None or source.dataset.driver != "VRT":
            return 0
        height, width = (min(each, most) for each, most in zip(chunk[:2], source.grid.shape, strict=True))
        return height * width * chunk[2] * (source.itemsize + 1)

    def _sample_pixels(self) -> int:
        """Of a window that is recomputed, those around it included."""
        overlap = self.subject.operation.overlap if self.subject.operation else 0
        edges = (min(SAMPLE_EDGE + 2 * overlap, each) for each in self.subject.source.grid.shape) if overlap else ()
        return max(SAMPLE_EDGE**2, math.prod(edges))

    def _plan(self) -> Plan:
        output = self.subject.output
        step = checks.decode_window(output.block)
        tiles = windows.count(output.grid.shape, output.block) * len(output.bands)
        own = {
            "decode buffers": Buffer.bytes(step[0] * step[1], output.dtype),
            "recomputed window": self._sample_pixels() * _BYTES_PER_SAMPLED_PIXEL + self._chunk_bytes(),
            "output index": tiles * _TABLE_BYTES_PER_BLOCK,
            "network cache": self.subject.source.network_cache_bytes,
        }
        return self.plan_of(
            self._opened_bytes,
            own,
            self._held_bytes,
            gdal_cache_bytes=TINY_CACHE_BYTES,
            window=step,
            block_size=output.block[0],
            chunks=checks.decode_count(output),
            facts=self.subject.source.describe(),
        )
