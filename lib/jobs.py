"""Jobs: one unit of work, as data. Every choice is in them; nothing here opens a dataset.

A job is what goes down to the capped child, what a report repeats and what an output carries as its provenance.
Names of operations and their parameters live here, so that flows and the command line can speak of them without
importing a GIS library; what they do to pixels and features is in `lib/raster` and `lib/vector`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from lib.settings import Settings
from lib.units import MIB, file_label

__all__ = [
    "OPERATIONS",
    "RASTER_DRIVERS",
    "VECTOR_DRIVERS",
    "Copy",
    "Custom",
    "DriversJob",
    "Job",
    "Normalise",
    "Operation",
    "ProfileJob",
    "RasterJob",
    "Rescale",
    "Resources",
    "VectorJob",
    "VerifyJob",
    "parse_job",
    "user_function",
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Resources(_Model):
    """What a job may use, and how it is watched. Sizes in bytes.

    `limit_origin` is the settings layer that chose the limit, or "host" where a default was lowered to what the host leaves.
    """

    limit_bytes: int = Field(gt=0)
    limit_origin: str = "default"
    limit_max_bytes: int | None = None
    max_chunk_bytes: int | None = Field(None, gt=0)
    chunk_rows: int = Field(10000, gt=0)
    chunk_rows_fixed: bool = False
    threads: int | None = Field(None, gt=0)
    threads_max: int = Field(1, gt=0)
    gdal_cache_max_bytes: int = Field(512 * MIB, ge=0)
    drift_threshold_bytes: int = Field(100 * MIB, gt=0)
    residual_tolerance_bytes: int = Field(20 * MIB, ge=0)
    margin_bytes: int = Field(0, ge=0)
    watch_interval_seconds: float = Field(0.02, gt=0)
    stall_seconds: float = Field(300.0, gt=0)
    startup_seconds: float = Field(120.0, gt=0)
    timeout_seconds: float | None = Field(None, gt=0)
    cgroup_parent: Path | None = None
    host_budget_bytes: int | None = Field(None, gt=0)
    ledger_path: Path | None = None
    history_path: Path | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, *, limit_bytes: int, limit_origin: str, budget_bytes: int, chunk_rows_fixed: bool
    ) -> "Resources":
        """Settings as a job's resources; the limit is what the host's budget granted, and the ladder climbs no higher."""
        highest = _bytes(settings.memory_limit_max_mb)
        return cls(
            limit_bytes=limit_bytes,
            limit_origin=limit_origin,
            limit_max_bytes=None if highest is None else max(limit_bytes, min(highest, budget_bytes)),
            max_chunk_bytes=_bytes(settings.max_chunk_mb),
            chunk_rows=settings.chunk_rows,
            chunk_rows_fixed=chunk_rows_fixed,
            threads=settings.threads,
            threads_max=max(settings.gdal_num_threads, settings.threads or 1),
            gdal_cache_max_bytes=settings.gdal_cache_bytes,
            drift_threshold_bytes=settings.drift_threshold_mb * MIB,
            residual_tolerance_bytes=settings.residual_tolerance_mb * MIB,
            margin_bytes=settings.margin_mb * MIB,
            watch_interval_seconds=settings.watch_interval_ms / 1000,
            stall_seconds=settings.stall_seconds,
            startup_seconds=settings.startup_seconds,
            timeout_seconds=settings.timeout_seconds,
            cgroup_parent=settings.cgroup_parent,
            host_budget_bytes=_bytes(settings.host_budget_mb),
            ledger_path=settings.ledger_path,
            history_path=None if settings.history_path == "off" else Path(settings.history_path),
        )


def _bytes(size_mib: int | None) -> int | None:
    return None if size_mib is None else size_mib * MIB


class Copy(_Model):
    """Pixels as they are, in their own type."""

    name: Literal["copy"] = "copy"


class Normalise(_Model):
    """`clip(pixel / scale, low, high)`, float32."""

    name: Literal["normalise"] = "normalise"
    scale: float = Field(10000.0, description="what a pixel is divided by")
    clip: tuple[float, float] = Field((0.0, 1.0), description="lowest and highest value kept, after division")

    @model_validator(mode="after")
    def _usable(self) -> "Normalise":
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        if self.clip[0] > self.clip[1]:
            raise ValueError(f"clip is upside down: {self.clip[0]} is above {self.clip[1]}")
        return self


class Rescale(_Model):
    """`pixel * multiply + add`, float32."""

    name: Literal["rescale"] = "rescale"
    multiply: float = Field(1.0, description="factor")
    add: float = Field(0.0, description="added after the factor")


class Custom(_Model):
    """A user's function `module:name`, called with each window.

    It gets `(bands, height, width)` float32 pixels and a boolean array of the same shape, True where a pixel is valid; it returns
    an array of the first one's shape. It is imported from the working directory or the Python path, in the capped child.
    """

    name: Literal["custom"] = "custom"
    function: str = Field(pattern=r"^[\w.]+:\w+$", description="module:name")


Operation = Annotated[Copy | Normalise | Rescale | Custom, Field(discriminator="name")]

OPERATIONS: dict[str, type[Copy] | type[Normalise] | type[Rescale] | type[Custom]] = {
    "copy": Copy,
    "normalise": Normalise,
    "rescale": Rescale,
    "custom": Custom,
}
RASTER_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff"}
VECTOR_DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf"}

Verify = Literal["none", "basic", "full"]


class _Work(_Model):
    source: str = Field(min_length=1)
    resources: Resources

    @property
    def label(self) -> str:
        """The source's base name, for `ps` and messages."""
        return file_label(self.source)


class RasterJob(_Work):
    """Transform a raster window by window into a tiled, compressed GeoTIFF."""

    kind: Literal["raster"] = "raster"
    destination: str = Field(min_length=1)
    operation: Operation = Copy()
    driver: str = "GTiff"
    bands: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    compress: Literal["none", "lzw", "deflate", "zstd"] = "zstd"
    block_size: Annotated[int, Field(ge=16, multiple_of=16)] | None = None
    nodata: float | Literal["nan"] | None = None
    verify: Verify = "basic"
    overwrite: bool = False


class VectorJob(_Work):
    """Filter a vector layer batch by batch."""

    kind: Literal["vector"] = "vector"
    destination: str = Field(min_length=1)
    driver: str = "GPKG"
    layer: str | None = None
    min_area_sqm: float | None = Field(None, ge=0)
    max_area_sqm: float | None = Field(None, ge=0)
    area: Literal["auto", "geodesic", "planar"] = "auto"
    function: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    verify: Verify = "basic"
    overwrite: bool = False

    @model_validator(mode="after")
    def _usable(self) -> "VectorJob":
        low, high = self.min_area_sqm, self.max_area_sqm
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_area_sqm ({low} m²) is above max_area_sqm ({high} m²)")
        return self


class VerifyJob(_Work):
    """Check an output against its source: structure, counts, decoded blocks or rows, recomputed samples.

    `work` is the job that wrote the output, from a report or from the output's own metadata; where neither has it (None),
    structure alone is checked. `expected` is what that job's plan said the output would be.
    """

    kind: Literal["verify"] = "verify"
    output: str = Field(min_length=1)
    work: RasterJob | VectorJob | None = Field(None, discriminator="kind")
    expected: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    level: Literal["basic", "full"] = "full"


class ProfileJob(_Work):
    """Read a sample of a source's chunks and measure what that takes."""

    kind: Literal["profile"] = "profile"
    layer: str | None = None
    sample_chunks: int = Field(32, gt=0)


class DriversJob(_Model):
    """Which drivers this build can open with and create with, tried and not only looked up."""

    kind: Literal["drivers"] = "drivers"
    names: tuple[str, ...] = ()
    create: tuple[str, ...] = Field((), description="drivers among `names` that must create")
    source: str | None = Field(None, description="a source whose own driver must open it")
    data: Literal["raster", "vector"] | None = Field(None, description="ask the drivers of one kind of data only")
    resources: Resources

    @property
    def label(self) -> str:
        """The names asked for, for `ps` and messages."""
        return ",".join(self.names) or "all"


Job = Annotated[RasterJob | VectorJob | VerifyJob | ProfileJob | DriversJob, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[RasterJob | VectorJob | VerifyJob | ProfileJob | DriversJob] = TypeAdapter(Job)


def parse_job(record: dict[str, Any]) -> RasterJob | VectorJob | VerifyJob | ProfileJob | DriversJob:
    """The job that `model_dump(mode="json")` described.

    Raises:
        pydantic.ValidationError: where it is no job.
    """
    return _ADAPTER.validate_python(record)


def user_function(job: RasterJob | VectorJob | VerifyJob | ProfileJob | DriversJob) -> str | None:
    """The user's function that a job calls, `module:name`; None where it calls none."""
    match job:
        case RasterJob(operation=Custom(function=name)) | VectorJob(function=name):
            return name
    return None
