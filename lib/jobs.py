"""Jobs: one unit of work, as data. Every choice is in them; nothing here opens a dataset.

Operations are named here, so that flows and the command line can speak of them without a GIS library; what they do is in the
wings. A field made by `knob` is a flag, a flow parameter and a line of the README.

A new operation is a model here, and its place in `Operation`.
"""

import keyword
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lib.knobs import knob
from lib.units import MIB, file_label


class _Model(BaseModel):
    # Built when first used, as a process has one kind of job (MEASURED, "Start-up of a direct job").
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Resources(_Model):
    """What a job may use, and how it is watched. Sizes in bytes.

    `limit_origin` is the settings layer that chose the limit, or "host" where a default was lowered to what the host leaves.
    Without a `ledger_path` jobs share nothing; without `host_budget_bytes` they share what the host leaves.
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
    host_reserve_fraction: float = Field(0.25, ge=0, lt=1)
    ledger_path: Path | None = None
    history_path: Path | None = None


def _numbers(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return tuple(int(each) for each in value.split(","))
    except ValueError:
        raise ValueError(f"{value!r} is not a list of band numbers, such as 4,3,2") from None


def _nodata(value: Any) -> Any:
    """An integer of up to 64 bits stays one: a float would not hold all its digits."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if not text.removeprefix("-").removeprefix("+").isdigit():
        return text
    return int(text) if -(2**63) <= float(text) <= 2**64 else float(text)


def _function(value: str) -> str:
    if not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError(f"{value!r} is no function: write module:name, such as filters:keep_large")
    return value


_Function = Annotated[str, AfterValidator(_function)]


def _named_source(value: str) -> str:
    name, equals, path = value.partition("=")
    if not (equals and path):
        raise ValueError(f"{value!r} names no source: write name=FILE, such as before=scene_2024.tif")
    if not re.fullmatch(r"[A-Za-z]\w*", name) or re.fullmatch(r"b\d+", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot name a source: letters, digits and _, and not like a band (b1)")
    return value


def _apart(values: tuple[str, ...]) -> tuple[str, ...]:
    names = [value.partition("=")[0] for value in values]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two sources are named {twice!r}")
    return values


_NamedSource = Annotated[str, AfterValidator(_named_source)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} is even: the pixel itself is in the middle of an odd number")
    return value


def _codec(value: str | None) -> str | None:
    try:
        if value is not None:
            "".encode(value)
    except LookupError:
        raise ValueError(f"{value!r} is no encoding of text, such as ISO-8859-1 or CP1252") from None
    return value


class Copy(_Model):
    """Pixels as they are, in their own type."""

    name: Literal["copy"] = "copy"


class Normalise(_Model):
    """`clip(pixel / scale, low, high)`, float32; float64 of 32- and 64-bit integers and float64."""

    name: Literal["normalise"] = "normalise"
    scale: float = knob("what a pixel is divided by", 10000.0, unit="in the raster's units")
    clip: tuple[float, float] = knob("lowest and highest value kept, after division", (0.0, 1.0), unit="no unit")

    @model_validator(mode="after")
    def _usable(self) -> "Normalise":
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        if self.clip[0] > self.clip[1]:
            raise ValueError(f"clip is upside down: {self.clip[0]} is above {self.clip[1]}")
        return self


class Rescale(_Model):
    """`pixel * multiply + add`, float32; float64 of 32- and 64-bit integers and float64."""

    name: Literal["rescale"] = "rescale"
    multiply: float = knob("factor", 1.0, unit="no unit")
    add: float = knob("added after the factor", 0.0, unit="in the output's units")
    unscale: bool = knob("apply each band's own scale and offset first, so that pixels are what they stand for", False)


class Expression(_Model):
    """Arithmetic over bands, such as `(b4 - b3) / (b4 + b3)`: float32; float64 of 32- and 64-bit integers and float64."""

    name: Literal["expression"] = "expression"
    expr: str = knob(
        "what is computed: bands b1, b2, … (as bands orders them) and other.b1, …, arithmetic, comparison, and or not, functions "
        "such as where, min, sqrt; several, one for each band written, with ; between them"
    )
    sources: Annotated[tuple[_NamedSource, ...], AfterValidator(_apart)] = knob(
        "a further raster on the same grid as name=FILE; its bands are name.b1, …", (), flag="source", unset="none"
    )


class Reclassify(_Model):
    """Classes for ranges of values, or one value for another; integers stay integers."""

    name: Literal["reclassify"] = "reclassify"
    table: str = knob(
        "ranges, from one value on up to below another, and what they become: 0:1000=1,1000:5000=2,5000:=3; single values: 7=70; "
        "all others: *=0 (else nodata); or a YAML file of them"
    )


class Focal(_Model):
    """A statistic of each pixel's neighbourhood, of its valid pixels alone; valid where the pixel itself is.

    Beyond the raster's edge nothing is valid. min and max are in the raster's own type; the others in float32, of 32- and 64-bit
    integers and float64 in float64, and so are sums that float32 does not hold.
    """

    name: Literal["focal"] = "focal"
    statistic: Literal["mean", "min", "max", "sum", "std", "median", "gaussian", "kernel"] = knob(
        "what is computed; kernel, a sum by weights of your own, where a neighbour that is not valid counts as the pixel",
        "mean",
    )
    size: Annotated[int, AfterValidator(_odd)] | None = knob(
        "edge of the neighbourhood, an odd number",
        None,
        unit="pixels",
        unset="3; of gaussian 4 sigma to each side",
        ge=1,
    )
    sigma: float | None = knob("standard deviation of gaussian weights", None, unit="pixels", unset="1", gt=0)
    kernel: str | None = knob(
        "weights row by row from the north-west, odd in both directions: 0 1 0; 1 -4 1; 0 1 0, or a YAML file of such rows",
        None,
    )

    @model_validator(mode="after")
    def _usable(self) -> "Focal":
        if (self.kernel is None) == (self.statistic == "kernel"):
            raise ValueError("statistic kernel and a kernel go together: one is given without the other")
        if self.sigma is not None and self.statistic != "gaussian":
            raise ValueError(f"sigma is of statistic gaussian, not of {self.statistic}")
        if self.size is not None and self.statistic == "kernel":
            raise ValueError("size is not of statistic kernel, whose rows say how large it is")
        return self


class Terrain(_Model):
    """An attribute of a surface of heights, of three by three pixels as gdaldem defines it.

    A result is valid where all nine are. Pixels are measured on the ground: a geographic CRS's by the latitude of each row.
    """

    name: Literal["terrain"] = "terrain"
    attribute: Literal["slope", "aspect", "hillshade", "roughness", "tpi", "tri"] = knob(
        "slope (degrees), aspect (0 to 360 clockwise from north, flat is nodata), hillshade (1 to 255, uint8), roughness, tpi, "
        "or Riley's tri",
        "slope",
    )
    z_factor: float = knob("what heights are multiplied by", 1.0, unit="no unit", gt=0)
    percent: bool = knob("slope in percent", False)
    zero_for_flat: bool = knob("aspect 0 where it is flat", False)
    azimuth: float = knob(
        "where light comes from for hillshade", 315.0, unit="degrees clockwise from north", ge=0, le=360
    )
    altitude: float = knob("how high light stands for hillshade", 45.0, unit="degrees", ge=0, le=90)

    @model_validator(mode="after")
    def _usable(self) -> "Terrain":
        owners = {"percent": "slope", "zero_for_flat": "aspect", "azimuth": "hillshade", "altitude": "hillshade"}
        for name, owner in owners.items():
            if self.attribute != owner and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of attribute {owner}, not of {self.attribute}")
        return self


class Custom(_Model):
    """Your own function, called with each window.

    It gets `(bands, height, width)` float32 pixels and a boolean array of the same shape, True where a pixel is valid; it returns
    an array of the first one's shape. Its attributes may say `overlap`, `dtype` and `bands`; a third parameter gets a context.
    It is imported from the working directory or the Python path, in the capped child.
    """

    name: Literal["custom"] = "custom"
    function: _Function = knob("your function as module:name, importable where the job runs")


Operation = Copy | Normalise | Rescale | Expression | Reclassify | Focal | Terrain | Custom

OPERATIONS: dict[str, type[_Model]] = {model.model_fields["name"].default: model for model in get_args(Operation)}
RASTER_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff"}
VECTOR_DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf"}

Verify = Literal["none", "basic", "full"]
DType = Literal["auto", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]

# What knobs of several kinds have in common.
_PATH: dict[str, Any] = {"min_length": 1, "positional": True, "common": True}
_AREA: dict[str, Any] = {"unit": "square metres", "ge": 0, "common": True}
_LAYER = knob("the layer, where the source has several", None, unset="the only one", common=True)
_OVERWRITE = knob("replace an existing destination, which is an error otherwise", False, common=True)
_VERIFY = knob(
    "checks before publication: none, structure and counts only; basic, some windows or rows recomputed too; full, all of them "
    "decoded as well",
    "basic",
    in_flows="full",
)


# Settings that are flags and flow parameters of every job; each kind names its own beside them.
COMMON_SETTINGS = ("memory_limit_mb", "memory_limit_max_mb", "threads", "timeout_seconds")


class _Work(_Model):
    settings: ClassVar[tuple[str, ...]] = COMMON_SETTINGS

    source: str = Field(min_length=1)
    resources: Resources

    @property
    def label(self) -> str:
        """The source's base name, for `ps` and messages."""
        return file_label(self.source)


class RasterJob(_Work):
    """Transform a raster window by window into a tiled, compressed GeoTIFF."""

    settings: ClassVar[tuple[str, ...]] = (*COMMON_SETTINGS, "max_chunk_mb")

    kind: Literal["raster"] = "raster"
    source: str = knob("the raster to read, a path or what else GDAL opens", **_PATH)
    destination: str = knob("the GeoTIFF to write (.tif), in a folder that exists", **_PATH)
    operation: Operation = knob("what is done to the pixels", default_factory=Copy, discriminator="name", common=True)
    driver: str = "GTiff"
    bands: Annotated[tuple[Annotated[int, Field(ge=1)], ...] | None, BeforeValidator(_numbers)] = knob(
        "bands to write, by number from 1 in the order wanted, such as 4,3,2", None, unset="all"
    )
    compress: Literal["none", "lzw", "deflate", "zstd"] = knob("codec of the output", "zstd")
    block_size: int | None = knob(
        "edge of an output tile", None, unit="pixels", unset="planned, 512 where it fits", ge=16, multiple_of=16
    )
    nodata: Annotated[int | float | Literal["nan"] | None, BeforeValidator(_nodata)] = knob(
        "nodata value of the output, a number or nan",
        None,
        unset="the source's for copy, else nan",
        in_forms=Annotated[float, Field(title="number")]
        | Annotated[Literal["nan"], Field(title="nan", json_schema_extra={"enum": ["nan"]})],
    )
    dtype: DType = knob(
        "type of the output's pixels: auto, the operation's own; results are rounded half away from zero and saturate at its "
        "ends",
        "auto",
    )
    scale_offset: tuple[float, float] | None = knob(
        "scale and offset that the output declares: a result is written as (result - offset) / scale, such as 0.0001 0 for "
        "reflectance in int16",
        None,
        unset="none",
    )
    verify: Verify = _VERIFY
    overwrite: bool = _OVERWRITE

    @model_validator(mode="after")
    def _usable(self) -> "RasterJob":
        if self.scale_offset is not None and self.scale_offset[0] == 0:
            raise ValueError("the scale of scale_offset must not be 0")
        return self


class VectorJob(_Work):
    """Filter a vector layer batch by batch."""

    settings: ClassVar[tuple[str, ...]] = (*COMMON_SETTINGS, "chunk_rows")

    kind: Literal["vector"] = "vector"
    source: str = knob("the dataset to read, a path or what else OGR opens", **_PATH)
    destination: str = knob("the GeoPackage (.gpkg) or FlatGeobuf (.fgb) to write, in a folder that exists", **_PATH)
    driver: str = "GPKG"
    layer: str | None = _LAYER
    min_area_sqm: float | None = knob("keep features of at least this true area", None, unset="no lower bound", **_AREA)
    max_area_sqm: float | None = knob("keep features of at most this true area", None, unset="no upper bound", **_AREA)
    area: Literal["auto", "geodesic", "planar"] = knob(
        "how area is measured: auto and geodesic, on the ellipsoid whatever the CRS, edges being geodesics between vertices "
        "(auto: in the plane where a CRS has no ellipsoid); planar, grid area in the CRS's plane",
        "auto",
    )
    assume_crs: str | None = knob(
        "the CRS of a layer that has none, such as EPSG:32633; an error where it has another",
        None,
        unset="none",
        min_length=1,
    )
    encoding: Annotated[str | None, AfterValidator(_codec)] = knob(
        "how text is encoded that the source does not declare, and that is not UTF-8, such as ISO-8859-1 or CP1252",
        None,
        unset="as declared, else UTF-8",
    )
    function: _Function | None = knob("your own filter as module:name, importable where the job runs", None)
    verify: Verify = _VERIFY
    overwrite: bool = _OVERWRITE

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
    source: str = knob("what the output was made from", **_PATH)
    output: str = knob("the output to check", **_PATH)
    work: RasterJob | VectorJob | None = Field(None, discriminator="kind")
    expected: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    level: Literal["basic", "full"] = knob(
        "how thoroughly: basic, structure, counts and a few samples; full, every block or row decoded too", "full"
    )


class ProfileJob(_Work):
    """Read a sample of a source's chunks and measure what that takes."""

    settings: ClassVar[tuple[str, ...]] = (*COMMON_SETTINGS, "max_chunk_mb", "chunk_rows")

    kind: Literal["profile"] = "profile"
    source: str = knob("the raster or vector dataset to read, a path or what else GDAL opens", **_PATH)
    layer: str | None = _LAYER
    sample_chunks: int = knob("how many chunks are read, spread over the source", 32, flag="chunks", gt=0)


class DriversJob(_Model):
    """Which drivers this build can open with and create with, tried and not only looked up."""

    settings: ClassVar[tuple[str, ...]] = COMMON_SETTINGS

    kind: Literal["drivers"] = "drivers"
    names: tuple[str, ...] = knob("drivers by GDAL's short names", (), unset="the common ones", positional=True)
    create: tuple[str, ...] = Field((), description="drivers among `names` that must create")
    source: str | None = Field(None, description="a source whose own driver must open it")
    data: Literal["raster", "vector"] | None = Field(None, description="ask the drivers of one kind of data only")
    resources: Resources

    @property
    def label(self) -> str:
        """The names asked for, for `ps` and messages."""
        return ",".join(self.names) or "all"


Job = RasterJob | VectorJob | VerifyJob | ProfileJob | DriversJob


def parse_job(record: dict[str, Any]) -> Job:
    """The job that `model_dump(mode="json")` described.

    Raises:
        pydantic.ValidationError: where it is no job.
    """
    kinds: dict[str, type[Job]] = {model.model_fields["kind"].default: model for model in get_args(Job)}
    return kinds[record["kind"]].model_validate(record)


def user_function(job: Job) -> str | None:
    """The user's function that a job calls, `module:name`; None where it calls none."""
    match job:
        case RasterJob(operation=Custom(function=name)) | VectorJob(function=name):
            return name
    return None
