"""The flow `filter-vector`: one layer, batch by batch, under a memory limit, into a GeoPackage or a FlatGeobuf."""

from typing import Literal

from prefect import flow

from flows.steps import make
from lib.jobs import Verify
from lib.reports import Report
from lib.request import Choices, vector_job
from tasks.states import named_end
from tasks.vector import filter_features

__all__ = ["filter_vector"]


@flow(name="filter-vector")
@named_end
def filter_vector(
    source: str,
    destination: str,
    layer: str | None = None,
    min_area_sqm: float | None = None,
    max_area_sqm: float | None = None,
    area: Literal["auto", "geodesic", "planar"] = "auto",
    function: str | None = None,
    chunk_rows: int | None = None,
    memory_limit_mb: int | None = None,
    memory_limit_max_mb: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    config: str | None = None,
    verify: Verify = "full",
    profile: bool = True,
    overwrite: bool = False,
) -> Report:
    """Filter a vector layer inside a memory limit: validate drivers, profile, filter, verify, publish.

    Args:
        source: The dataset to read: a path on the worker's host, or anything else that OGR opens.
        destination: The GeoPackage (.gpkg) or FlatGeobuf (.fgb) to write, a path on the worker's host. Its folder must exist.
        layer: The layer's name. Default: the only one; an error where the source has several.
        min_area_sqm: Keep features of at least this true area, square metres. Default: no lower bound.
        max_area_sqm: Keep features of at most this true area, square metres. Default: no upper bound.
        area: How area is measured: auto, by the layer's CRS; geodesic, on its ellipsoid; planar, in its plane. Default auto.
        function: Your own filter as module:name, importable on the worker's host. Default: none.
        chunk_rows: Upper bound of a batch, rows. Default: as configured, 10000 where nothing is.
        memory_limit_mb: Resident memory that each job of this flow may use, everything included, MiB. Default: as configured,
            2048 where nothing is.
        memory_limit_max_mb: How far the limit may be raised after a death of memory, MiB. Default: as configured, not at all.
        threads: Threads of the job. Default: planned.
        timeout: Time limit of each job, seconds. Default: none.
        config: A YAML file of settings on the worker's host. Default: what BATCH_CONFIG names, else none.
        verify: Checks before publication: none, structure and counts only; basic, some rows recomputed too; full, every row read
            as well. Default full.
        profile: Whether a sample of the source is read and measured first. Default yes.
        overwrite: Whether an existing destination is replaced. Default no: it is an error.
    """
    choices = Choices(
        config=config,
        memory_limit_mb=memory_limit_mb,
        memory_limit_max_mb=memory_limit_max_mb,
        chunk_rows=chunk_rows,
        threads=threads,
        timeout=timeout,
        layer="parameter",
    )
    job = vector_job(
        source,
        destination,
        choices=choices,
        layer=layer,
        min_area_sqm=min_area_sqm,
        max_area_sqm=max_area_sqm,
        area=area,
        function=function,
        verify=verify,
        overwrite=overwrite,
    )
    return make(job, filter_features, profile=profile)
