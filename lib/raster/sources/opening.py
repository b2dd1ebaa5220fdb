"""What a job reads, opened: one file, or the bands of several that its expression names."""

import difflib
from pathlib import Path

from lib.errors import UsageError
from lib.jobs import RasterJob
from lib.operations import Clip, Expression, Warp
from lib.raster import expression
from lib.raster.expression import Band
from lib.raster.sources.dataset import RasterSource, band_numbers
from lib.raster.sources.mosaic import open_files
from lib.raster.sources.part import open_part
from lib.raster.sources.parts import files_of
from lib.raster.sources.stack import open_stack
from lib.raster.sources.warped import open_warped


def open_for(job: RasterJob) -> RasterSource:
    """Open what a job reads.

    Raises:
        UsageError: an expression names a source or a band that is not there.
        SourceError, DataError: as `open_raster` and `open_stack`.
    """
    over = [_beside(job.source, each) for each in job.sources]
    if isinstance(job.operation, Clip):
        mask = None if job.operation.mask is None else _beside(job.source, job.operation.mask)
        return open_part(open_files(job.source, job.bands, over), job.operation.model_copy(update={"mask": mask}))
    if isinstance(job.operation, Warp):
        nodata = None if job.nodata == "nan" else job.nodata
        return open_warped(open_files(job.source, job.bands, over), job.operation, nodata)
    if not isinstance(job.operation, Expression):
        return open_files(job.source, job.bands, over)
    bands = expression.named(expression.parse(job.operation.expr))
    paths = _paths(job.operation, job.source)
    names = dict.fromkeys(band.source for band in bands)
    for name in names:
        if name not in paths:
            _no_source(name, [*paths][1:])
    return open_stack((paths[name], _numbers(name, paths[name], bands, job), [] if name else over) for name in names)


def _paths(model: Expression, source: str) -> dict[str, str]:
    """Each source's path by its name, the job's own under ""."""
    named = dict(each.split("=", 1) for each in model.sources)
    return {"": source} | {name: _beside(source, path) for name, path in named.items()}


def _beside(source: str, path: str) -> str:
    """A file without a folder (an output's own record) lies beside the source."""
    return path if "/" in path else f"{source.rpartition('/')[0] or '.'}/{path}"


def _numbers(name: str, path: str, bands: list[Band], job: RasterJob) -> list[int]:
    """The numbers in its file of the bands that an expression names of a source; of the job's own, among those selected."""
    available = band_numbers(files_of(path)[0], job.bands if not name else None)
    for band in bands:
        if band.source == name and band.number > len(available):
            there = f"{Band(name, 1)} to {Band(name, len(available))}" if len(available) > 1 else f"{Band(name, 1)}"
            raise UsageError(
                f"--expr names band {band}, which {Path(path).name} has not", hint=f"its bands are {there}"
            )
    return [available[band.number - 1] for band in bands if band.source == name]


def _no_source(name: str, known: list[str]) -> None:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"name its file: --source {name}=FILE"
    raise UsageError(f"--expr names a source {name!r} that is not given", hint=hint)
