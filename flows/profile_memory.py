"""The flow `profile-memory`: what reading a source chunk by chunk takes, and a limit that would do."""

from prefect import flow

from lib.reports import Report
from lib.request import Choices, profile_job
from tasks.profiling import profile_source
from tasks.states import named_end, settled

__all__ = ["profile_memory"]


@flow(name="profile-memory")
@named_end
def profile_memory(
    source: str,
    layer: str | None = None,
    sample_chunks: int = 32,
    memory_limit_mb: int | None = None,
    memory_limit_max_mb: int | None = None,
    max_chunk_mb: int | None = None,
    chunk_rows: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    config: str | None = None,
) -> Report:
    """Measure what reading a source takes: baseline, peak, top allocators; suggest a limit, a chunk and a cache.

    Args:
        source: The raster or vector dataset to read, a path on the worker's host, or anything else that GDAL opens.
        layer: The layer's name, for a vector source with several. Default: the only one.
        sample_chunks: How many chunks are read, spread over the source. Default 32.
        memory_limit_mb: Resident memory that the job may use, everything included, MiB. Default: as configured, 2048 where
            nothing is.
        memory_limit_max_mb: How far the limit may be raised after a death of memory, MiB. Default: as configured, not at all.
        max_chunk_mb: Upper bound of one window's buffers, MiB. Default: planned.
        chunk_rows: Upper bound of a batch, rows. Default: as configured, 10000 where nothing is.
        threads: Threads of the job. Default: planned.
        timeout: Time limit of the job, seconds. Default: none.
        config: A YAML file of settings on the worker's host. Default: what BATCH_CONFIG names, else none.
    """
    choices = Choices(
        config=config,
        memory_limit_mb=memory_limit_mb,
        memory_limit_max_mb=memory_limit_max_mb,
        max_chunk_mb=max_chunk_mb,
        chunk_rows=chunk_rows,
        threads=threads,
        timeout=timeout,
        layer="parameter",
    )
    return settled(profile_source(profile_job(source, choices=choices, layer=layer, sample_chunks=sample_chunks)))
