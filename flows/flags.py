"""Flags of the command line, in groups that several commands share; what they mean is said here, once.

Sizes and counts come as text: settings check them, so that a unit where MiB is expected can be answered with what to write.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from lib import request
from lib.errors import UsageError

__all__ = ["Common", "RasterFlags", "VectorFlags", "Writing"]

_Signed = Parameter(allow_leading_hyphen=True)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Flags of every command."""

    memory_limit_mb: Annotated[str | None, _Signed] = None
    "Resident memory that the job may use, everything included, MiB (setting memory_limit_mb, default 2048)."
    memory_limit_max_mb: Annotated[str | None, _Signed] = None
    "How far the limit may be raised after a death of memory, MiB (default: not at all)."
    threads: Annotated[str | None, _Signed] = None
    "Threads of the job (default: planned)."
    timeout: Annotated[float | None, _Signed] = None
    "Time limit of the whole job, seconds (default: none)."
    config: str | None = None
    "A YAML file of settings."
    json: bool = False
    "Print exactly one JSON object on stdout, errors included."
    debug: bool = False
    "Show tracebacks."

    def choices(self, *, max_chunk_mb: str | None = None, chunk_rows: str | None = None) -> request.Choices:
        """The choices that become a job's resources."""
        return request.Choices(
            config=self.config,
            memory_limit_mb=self.memory_limit_mb,
            memory_limit_max_mb=self.memory_limit_max_mb,
            max_chunk_mb=max_chunk_mb,
            chunk_rows=chunk_rows,
            threads=self.threads,
            timeout=self.timeout,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Writing:
    """Flags of commands that write an output."""

    overwrite: bool = False
    "Replace an existing destination."
    verify: Literal["none", "basic", "full"] | None = None
    "How thoroughly the output is checked before it is published (default: basic; full with --flow)."
    flow: bool = False
    "Run as a Prefect flow run: on the server in PREFECT_API_URL, or on an embedded one."

    def parameters(self) -> dict[str, Any]:
        """Parameters of a writing flow."""
        return {"overwrite": self.overwrite, "verify": self.verify or "full"}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RasterFlags:
    """Flags of a raster job."""

    operation: Literal["copy", "normalise", "rescale", "custom"] = "copy"
    "What is done to the pixels."
    scale: Annotated[float | None, _Signed] = None
    "normalise: what a pixel is divided by (default 10000)."
    clip: Annotated[tuple[float, float] | None, _Signed] = None
    "normalise: lowest and highest value kept (default 0 1)."
    multiply: Annotated[float | None, _Signed] = None
    "rescale: factor (default 1)."
    add: Annotated[float | None, _Signed] = None
    "rescale: added after the factor (default 0)."
    function: str | None = None
    "custom: your function, module:name."
    bands: str | None = None
    "Bands by number, in the order wanted: 4,3,2 (default: all)."
    compress: Literal["none", "lzw", "deflate", "zstd"] | None = None
    "Codec of the output (default zstd)."
    block_size: Annotated[int | None, _Signed] = None
    "Edge of an output tile, pixels (default: planned, 512 where it fits)."
    nodata: Annotated[str | None, _Signed] = None
    "Nodata value of the output (default nan)."
    max_chunk_mb: Annotated[str | None, _Signed] = None
    "Upper bound of one window's buffers, MiB (default: planned)."

    def parameters(self) -> dict[str, Any]:
        """The operation's own parameters."""
        return {name: getattr(self, name) for name in ("scale", "clip", "multiply", "add", "function")}

    def output(self) -> dict[str, Any]:
        """The job's other fields."""
        return {
            "bands": _bands(self.bands),
            "compress": self.compress,
            "block_size": self.block_size,
            "nodata": _nodata(self.nodata),
        }


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class VectorFlags:
    """Flags of a vector job."""

    layer: str | None = None
    "The layer, where the source has several."
    min_area_sqm: Annotated[float | None, _Signed] = None
    "Keep features of at least this true area, square metres."
    max_area_sqm: Annotated[float | None, _Signed] = None
    "Keep features of at most this true area, square metres."
    area: Literal["auto", "geodesic", "planar"] = "auto"
    "How area is measured (auto: by the layer's CRS)."
    function: str | None = None
    "Your own filter, module:name."
    chunk_rows: Annotated[str | None, _Signed] = None
    "Upper bound of a batch, rows (setting chunk_rows, default 10000)."

    def output(self) -> dict[str, Any]:
        """The job's fields."""
        names = ("layer", "min_area_sqm", "max_area_sqm", "area", "function")
        return {name: getattr(self, name) for name in names}


def _bands(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError as error:
        raise UsageError(f"--bands {text!r} is not a list of band numbers", hint="write --bands 4,3,2") from error


def _nodata(text: str | None) -> float | str | None:
    if text is None or text.lower() == "nan":
        return None if text is None else "nan"
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--nodata {text!r} is not a number", hint="write a number, or nan") from error
