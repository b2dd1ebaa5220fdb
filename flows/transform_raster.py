"""The flow `transform-raster`: one raster, window by window, under a memory limit, into a tiled, compressed GeoTIFF."""

from typing import Literal

from prefect import flow

from flows.steps import make
from lib.jobs import Verify
from lib.reports import Report
from lib.request import Choices, raster_job
from tasks.raster import transform
from tasks.states import named_end

__all__ = ["transform_raster"]


@flow(name="transform-raster")
@named_end
def transform_raster(
    source: str,
    destination: str,
    operation: Literal["copy", "normalise", "rescale", "custom"] = "copy",
    scale: float | None = None,
    clip: tuple[float, float] | None = None,
    multiply: float | None = None,
    add: float | None = None,
    function: str | None = None,
    bands: list[int] | None = None,
    compress: Literal["none", "lzw", "deflate", "zstd"] = "zstd",
    block_size: int | None = None,
    nodata: float | Literal["nan"] | None = None,
    memory_limit_mb: int | None = None,
    memory_limit_max_mb: int | None = None,
    max_chunk_mb: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    config: str | None = None,
    verify: Verify = "full",
    profile: bool = True,
    overwrite: bool = False,
) -> Report:
    """Transform a raster inside a memory limit: validate drivers, profile, transform, verify, publish.

    Args:
        source: The raster to read: a path on the worker's host, or anything else that GDAL opens.
        destination: The GeoTIFF to write (.tif), a path on the worker's host. Its folder must exist.
        operation: What is done to the pixels: normalise, clip(pixel / scale); rescale, pixel x multiply + add; custom, your
            own function. All bands, float32.
        scale: normalise: what a pixel is divided by, in the raster's units. Default 10000.
        clip: normalise: lowest and highest value kept, after division, no unit. Default 0 and 1.
        multiply: rescale: factor, no unit. Default 1.
        add: rescale: added after the factor, in the output's units. Default 0.
        function: custom: your function as module:name, importable on the worker's host. No default.
        bands: Bands to write, by number from 1, in the order wanted. Default: all.
        compress: Codec of the output. Default zstd.
        block_size: Edge of an output tile, pixels, a multiple of 16. Default: planned, 512 where it fits.
        nodata: Nodata value of the output, a number or nan. Default: chosen for the output's type.
        memory_limit_mb: Resident memory that each job of this flow may use, everything included, MiB. Default: as configured,
            2048 where nothing is.
        memory_limit_max_mb: How far the limit may be raised after a death of memory, MiB. Default: as configured, not at all.
        max_chunk_mb: Upper bound of one window's buffers, MiB. Default: planned.
        threads: Threads of the job. Default: planned.
        timeout: Time limit of each job, seconds. Default: none.
        config: A YAML file of settings on the worker's host. Default: what BATCH_CONFIG names, else none.
        verify: Checks before publication: none, structure and counts only; basic, some windows recomputed too; full, every block
            decoded as well. Default full.
        profile: Whether a sample of the source is read and measured first. Default yes.
        overwrite: Whether an existing destination is replaced. Default no: it is an error.
    """
    choices = Choices(
        config=config,
        memory_limit_mb=memory_limit_mb,
        memory_limit_max_mb=memory_limit_max_mb,
        max_chunk_mb=max_chunk_mb,
        threads=threads,
        timeout=timeout,
        layer="parameter",
    )
    job = raster_job(
        source,
        destination,
        choices=choices,
        operation=operation,
        parameters={"scale": scale, "clip": clip, "multiply": multiply, "add": add, "function": function},
        bands=bands,
        compress=compress,
        block_size=block_size,
        nodata=nodata,
        verify=verify,
        overwrite=overwrite,
    )
    return make(job, transform, profile=profile)
