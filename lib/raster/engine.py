"""The raster engine: window by window from an open source into a tiled GeoTIFF, in buffers that are made once.

For each row of windows, for each group of bands, for each window of the row: read, mask, transform, write. How large a
window is and what is cached was decided in `plan.py`; what a pixel becomes, in `operations.py`; what is nodata, in `masks.py`.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import UsageError
from lib.jobs import Normalise, RasterJob
from lib.memory.cap import trim
from lib.memory.proc import mapped_bytes, process_memory
from lib.memory.work import Bench, Room
from lib.raster import verification
from lib.raster.carried import carry, check_points, georeferencing
from lib.raster.facts import RasterFacts, gather
from lib.raster.faults import read, writing
from lib.raster.formats import (
    creation_options,
    environment,
    open_output,
    open_source,
    return_large_blocks,
    set_cache,
)
from lib.raster.masks import MaskBuffers
from lib.raster.operations import (
    Transform,
    avoid,
    call_function,
    load_user_function,
    output_dtype,
    output_nodata,
)
from lib.raster.plan import check_disk, make_plan
from lib.raster.terms import TINY_CACHE_BYTES
from lib.raster.windows import Window, windows
from lib.reports import Outcome, Plan

__all__ = ["plan", "run"]

Chunk = tuple[Window, tuple[int, ...]]


def plan(job: RasterJob, room: Room) -> Plan:
    """Read the source's header and plan.

    Raises:
        SourceError: what the header shows cannot be used.
        DataError: a truncated file.
        MemoryRefused, DiskRefused: it does not fit.
    """
    _check_job(job)
    load_user_function(job.operation)  # a name that cannot be imported is told before any work
    set_cache(TINY_CACHE_BYTES)
    # A child's peak is set back to its size before each job.
    before, mapped = process_memory().peak_bytes, mapped_bytes()
    with environment(), open_source(job.source) as source:
        facts = gather(source, job.source, job.bands)
        grown, mapped = process_memory().peak_bytes - before, mapped_bytes() - mapped
        facts = replace(facts, opening_growth_bytes=grown, mapped_bytes=min(grown, max(0, mapped)))
        made = make_plan(facts, job, room)
        made.expected.update(verification.grid(source))
        check_points(made.expected["gcps"], job.label)
    trim()  # what reading the header took and freed: it is read again
    check_disk(facts, job, made, room.disk_free_bytes)
    return made


def run(job: RasterJob, plan: Plan, bench: Bench) -> Outcome:
    """Transform every window, close, verify.

    Raises:
        DataError, FunctionError, MemoryExceeded, OutputError: under way.
        VerificationFailed: the output is not what it must be.
    """
    if bench.staged is None or plan.window is None or plan.block_size is None:
        raise TypeError("a raster job needs a staged file, and a plan with window and block size")
    set_cache(plan.gdal_cache_bytes)
    with environment():
        with open_source(job.source) as source:
            counts = _transform(job, plan, bench.staged, bench, source)
        bench.meter.finish()
        bench.meter.phase("verify")
        verification.basic(str(bench.staged), job.source, job, plan.expected, bench, result=counts)
    return Outcome(result=counts, checks=tuple(bench.checks), warnings=tuple(_notes(job, plan)), driver="GTiff")


def _notes(job: RasterJob, plan: Plan) -> list[str]:
    files, seen = plan.facts["sources"], plan.facts["sources_seen"]
    if seen == files:
        return []
    return [
        f"{job.label}: {seen} of its {files} files were looked into; one with larger blocks than theirs takes more memory"
    ]


def _check_job(job: RasterJob) -> None:
    if job.driver != "GTiff":
        raise UsageError(
            f"driver {job.driver} is not written: rasters are written as GTiff", hint="name the output .tif"
        )
    if isinstance(job.nodata, float) and abs(job.nodata) > float(np.finfo(np.float32).max):
        raise UsageError(f"nodata {job.nodata:g} does not fit into float32", hint="choose a smaller value, or nan")


def _transform(job: RasterJob, plan: Plan, staged: Path, bench: Bench, source: Any) -> dict[str, Any]:
    """Everything between opening and closing the output; what it counts is the outcome's result."""
    facts = gather(source, job.source, job.bands, tables_checked=True)
    if facts.read.uneven:
        return_large_blocks()
    options = creation_options(job.compress, plan.block_size or 512, plan.threads, plan.expected["dtype"])
    profile = {
        "width": facts.shape[1],
        "height": facts.shape[0],
        "count": len(facts.bands),
        "dtype": plan.expected["dtype"],
        "nodata": output_nodata(job, np.dtype(plan.expected["dtype"])),
        **georeferencing(source),
    }
    at_once = int(plan.facts["bands_at_once"])
    chunks = 0
    with open_output(staged, profile, options) as output:
        carry(source, output, job, facts.bands, job.destination)
        worker = _Worker(job, facts, source, output, plan.window or (1, 1), at_once)
        worker.touch()
        bench.meter.start(plan.chunks)
        for chunk in in_order(facts.shape, plan.window or (1, 1), facts.bands, at_once):
            worker.do(*chunk)
            chunks += 1
            bench.meter.chunk()
        bench.meter.phase("close", patient=True)
    return {
        "width": facts.shape[1],
        "height": facts.shape[0],
        "bands": len(facts.bands),
        "windows": chunks,
        "valid_pixels": worker.pixels - worker.nodata_pixels,
        "nodata_pixels": worker.nodata_pixels,
        "decoded_bytes": facts.decoded_bytes,
    }


def in_order(shape: tuple[int, int], window: tuple[int, int], bands: Sequence[int], at_once: int) -> Iterator[Chunk]:
    """Chunks in the order of work: rows of windows, in each the groups of bands, in each the windows.

    So strips that a row of windows shares need be cached for one group of bands only.
    """
    groups = [tuple(bands[start : start + at_once]) for start in range(0, len(bands), at_once)]
    for _, row in itertools.groupby(windows(shape, window), key=lambda each: each.top):
        across = list(row)
        for group in groups:
            for each in across:
                yield each, group


class _Worker:
    """The buffers of one job, and what is done with each chunk in them."""

    def __init__(
        self, job: RasterJob, facts: RasterFacts, source: Any, output: Any, window: tuple[int, int], at_once: int
    ) -> None:
        self._job, self._facts, self._source, self._output = job, facts, source, output
        pixels = min(window[0], facts.shape[0]) * min(window[1], facts.shape[1])
        self._dtype = output_dtype(job.operation, facts.dtype)
        self._nodata = output_nodata(job, self._dtype)
        self._highest = job.operation.clip[1] if isinstance(job.operation, Normalise) else None
        self._raw = np.empty(at_once * pixels, facts.dtype)
        self._out = np.empty(pixels, self._dtype)
        self._masks = MaskBuffers(facts.rules, pixels, facts.dtype)
        self._numbers = {band: number for number, band in enumerate(facts.bands, 1)}
        self._function = load_user_function(job.operation)
        values = at_once * pixels if self._function else 0
        self._pixels, self._valid = np.empty(values, np.float32), np.empty(values, np.bool_)
        self._transform = None if self._function else Transform(job.operation, facts.dtype, self._dtype, pixels)
        self.pixels = self.nodata_pixels = 0

    def touch(self) -> None:
        """Write to every page of the buffers, so that the baseline has them."""
        for buffer in (self._raw, self._out, self._pixels, self._valid):
            buffer.fill(0)
        self._masks.touch()

    def do(self, window: Window, bands: tuple[int, ...]) -> None:
        """Read, mask, transform and write one chunk."""
        raw = self._raw[: len(bands) * window.pixels].reshape(len(bands), window.pixels)
        out = raw.reshape(len(bands), window.height, window.width)
        read(partial(self._source.read, bands, out=out, window=window.ranges), self._job.source, window)
        alpha = self._facts.rules.alpha
        self._masks.read_shared(
            self._source, self._job.source, window, raw[bands.index(alpha)] if alpha in bands else None
        )
        if self._function:
            self._do_function(self._function, window, bands, raw)
            return
        for band, pixels in zip(bands, raw, strict=True):
            self._do_band(window, band, pixels)

    def _do_band(self, window: Window, band: int, raw: NDArray[Any]) -> None:
        out = self._out[: window.pixels]
        if band == self._facts.rules.alpha or self._transform is None:
            np.copyto(out, raw, casting="unsafe")  # alpha is carried as it is
            self._write(window, band, out, 0)
            return
        self._transform(raw, out)
        invalid = self._masks.invalid(self._source, self._job.source, window, band, raw)
        self._finish(window, band, out, invalid)

    def _finish(self, window: Window, band: int, out: NDArray[Any], invalid: NDArray[np.bool_] | None) -> None:
        """Results that are NaN are nodata, valid ones that equal the nodata value are moved beside it; then write."""
        nodata_pixels = 0
        if invalid is not None:
            np.copyto(out, np.nan, where=invalid)
        if invalid is not None or self._job.operation.name != "normalise":
            hits = np.isnan(out, out=self._masks.scratch[: window.pixels])
            nodata_pixels = int(np.count_nonzero(hits))
        avoid(out, self._nodata, self._highest, self._masks.scratch[: window.pixels])
        if nodata_pixels and not np.isnan(self._nodata):
            np.copyto(out, self._nodata, where=np.isnan(out, out=self._masks.scratch[: window.pixels]))
        self._write(window, band, out, nodata_pixels)

    def _do_function(
        self, function: Callable[..., Any], window: Window, bands: tuple[int, ...], raw: NDArray[Any]
    ) -> None:
        """Give a user's function the bands that are not alpha, all at once."""
        alpha = self._facts.rules.alpha
        given = [(i, band) for i, band in enumerate(bands) if band != alpha]
        shape = (len(given), window.height, window.width)
        pixels = self._pixels[: len(given) * window.pixels].reshape(len(given), window.pixels)
        valid = self._valid[: pixels.size].reshape(pixels.shape)
        for k, (i, band) in enumerate(given):
            np.copyto(pixels[k], raw[i], casting="unsafe")
            invalid = self._masks.invalid(self._source, self._job.source, window, band, raw[i])
            if invalid is None:
                valid[k] = True
            else:
                np.logical_not(invalid, out=valid[k])
                np.copyto(pixels[k], np.nan, where=invalid)
        returned = call_function(function, self._job.operation, pixels.reshape(shape), valid.reshape(shape))  # type: ignore[arg-type]
        for k, (i, band) in enumerate(given):
            out = self._out[: window.pixels]
            np.copyto(out.reshape(shape[1:]), returned[k], casting="unsafe")
            # The function may have written into what it was given: nodata is found anew.
            self._finish(window, band, out, self._masks.invalid(self._source, self._job.source, window, band, raw[i]))
        for i, band in enumerate(bands):
            if band == alpha:
                self._do_band(window, band, raw[i])

    def _write(self, window: Window, band: int, out: NDArray[Any], nodata_pixels: int) -> None:
        self.pixels += window.pixels
        self.nodata_pixels += nodata_pixels
        with writing(self._job.destination):
            # A three-dimensional array and a list of bands: given two dimensions, rasterio copies the array first.
            self._output.write(out.reshape(1, window.height, window.width), [self._numbers[band]], window=window.ranges)
