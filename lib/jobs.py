"""Jobs: one unit of work, as data. Every choice is in them; nothing here opens a dataset.

Flows and the command line speak of jobs without a GIS library; what they do is in the wings, what a raster's operations are in
`operations.py`. A field made by `knob` is a flag, a flow parameter and a line of the README.
"""

import csv
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lib.knobs import knob
from lib.operations import Box, Copy, Custom, Function, Model, Operation, named_apart, read_box
from lib.paths import source_path_at, whole_path
from lib.units import MIB, file_label


class Resources(Model):
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


def _names(value: Any) -> Any:
    """Names with commas between them; one with a comma of its own is quoted as in a CSV."""
    names = next(csv.reader([value], skipinitialspace=True), []) if isinstance(value, str) else value
    if names is not None and not (names and all(names)):
        raise ValueError(f"{value!r} is not a list of fields, such as name,use")
    return names


def _casts(value: Any) -> Any:
    """Pairs with commas between them; one with a comma of its own is quoted as in a CSV."""
    pairs = next(csv.reader([value], skipinitialspace=True), []) if isinstance(value, str) else value or ()
    fields = [str(pair).rpartition("=")[0] for pair in pairs]
    for pair in map(str, pairs):
        name, _, typed = pair.rpartition("=")
        if not name or typed not in CASTS:
            raise ValueError(f"{pair!r} is no FIELD=TYPE, such as n=integer64; types are {', '.join(CASTS)}")
        if fields.count(name) > 1:
            raise ValueError(f"field {name!r} is cast twice")
    return tuple(pairs)


def _nodata(value: Any) -> Any:
    """An integer of up to 64 bits stays one: a float would not hold all its digits."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if not text.removeprefix("-").removeprefix("+").isdigit():
        try:
            return text if text == "nan" else float(text)
        except ValueError:
            raise ValueError(f"{value!r} is no number, and not nan") from None
    return int(text) if -(2**63) <= float(text) <= 2**64 else float(text)


def _creation_option(value: str) -> str:
    key, _, chosen = value.partition("=")
    key, chosen = key.strip().upper(), chosen.strip().upper()
    is_quality = key == "QUALITY" and chosen.isascii() and chosen.isdigit() and int(chosen) in range(1, 101)
    if not is_quality and chosen not in _CREATION_OPTIONS.get(key, ()):
        known = "; ".join(f"{name}={' or '.join(values)}" for name, values in _CREATION_OPTIONS.items())
        raise ValueError(f"{value!r} is none of {known}; of a JPEG QUALITY=1 to 100")
    return f"{key}={chosen}"


# Those that change how a file is laid out or georeferenced, and nothing that flags say or the writer decides.
_CREATION_OPTIONS = {
    "BIGTIFF": ("YES", "IF_SAFER"),
    "GEOTIFF_VERSION": ("1.0", "1.1"),
    "GEOTIFF_KEYS_FLAVOR": ("STANDARD", "ESRI_PE"),
}
_CreationOption = Annotated[str, AfterValidator(_creation_option)]
_LEVELS = {"deflate": 12, "zstd": 22}
_PNG_LEVELS = 9


def _condition(value: str | None) -> str | None:
    """A condition that parses; whether its names are the layer's is for the engine."""
    from lib.vector.predicates.text import checked_where

    return checked_where(value)


def _codec(value: str | None) -> str | None:
    try:
        if value is not None:
            "".encode(value)
    except LookupError:
        raise ValueError(f"{value!r} is no encoding of text, such as ISO-8859-1 or CP1252") from None
    return value


RASTER_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
PICTURE_DRIVERS = frozenset({"PNG", "JPEG"})
# What has no meaning for a picture.
OF_GEOTIFF = ("output_profile", "compress", "predictor", "block_size", "cog", "overview_resampling")
VECTOR_DRIVERS = {
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
    ".geoparquet": "Parquet",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".geojsonl": "GeoJSONSeq",
    ".geojsons": "GeoJSONSeq",
    ".ndjson": "GeoJSONSeq",
    ".shp": "ESRI Shapefile",
}

CASTS = ("boolean", "integer", "integer64", "real", "string", "json", "date", "time", "datetime", "binary")

Verify = Literal["none", "basic", "full"]
DType = Literal["auto", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]

OUTPUT_PROFILES: dict[str | None, dict[str, Any]] = {
    "fast": {"compress": "zstd", "level": 1},
    "small": {"compress": "zstd", "level": 9},
    "cog": {"cog": True, "compress": "deflate", "block_size": 512},
    "compat": {"compress": "deflate", "predictor": "2", "block_size": 256},
}
# GDAL makes overviews with tiles of no other sizes.
COG_BLOCK_SIZES = frozenset({64, 128, 256, 512, 1024, 2048, 4096})
OverviewResampling = Literal["auto", "average", "nearest", "mode"]

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


class _Work(Model):
    settings: ClassVar[tuple[str, ...]] = COMMON_SETTINGS

    source: str = Field(min_length=1)
    resources: Resources

    @property
    def label(self) -> str:
        """The source's base name, for `ps` and messages."""
        return file_label(self.source)


class RasterJob(_Work):
    """Transform a raster window by window into a tiled, compressed GeoTIFF, or a picture."""

    settings: ClassVar[tuple[str, ...]] = (*COMMON_SETTINGS, "max_chunk_mb")

    kind: Literal["raster"] = "raster"
    source: str = knob("the raster to read, a path or what else GDAL opens", **_PATH)
    destination: str = knob("the GeoTIFF (.tif) or the picture (.png, .jpg) to write, in a folder that exists", **_PATH)
    operation: Operation = knob("what is done to the pixels", default_factory=Copy, discriminator="name", common=True)
    driver: str = "GTiff"
    bands: Annotated[tuple[Annotated[int, Field(ge=1)], ...] | None, BeforeValidator(_numbers)] = knob(
        "bands to write, by number from 1 in the order wanted, such as 4,3,2", None, unset="all"
    )
    sources: tuple[str, ...] = knob(
        "a further raster: FILE lies over the source, on the same grid of pixels, of several the last on top, and lets it show "
        "where it has no valid pixels; name=FILE is beside it in an expression, on the very same grid, its bands name.b1, …; "
        "a folder, here and as source, is its rasters over each other, in the order of their names",
        (),
        flag="source",
        path_at=source_path_at,
        unset="none",
    )
    output_profile: Literal["none", "fast", "small", "cog", "compat"] = knob(
        "several of the following choices by one name, each still taken where it is made: fast, zstd 1; small, zstd 9; cog, "
        "a COG of deflate in tiles of 512; compat, deflate of differences in tiles of 256, which every libtiff reads",
        "none",
    )
    compress: Literal["none", "lzw", "deflate", "zstd", "lerc"] = knob("codec of the output; all lose nothing", "zstd")
    level: int | None = knob(
        "how hard the codec tries: 1 to 12 for deflate, 1 to 22 for zstd, 1 to 9 for a PNG; others have none",
        None,
        unset="6 for deflate and PNG, 1 for zstd",
        ge=1,
    )
    predictor: Literal["auto", "1", "2", "3"] = knob(
        "what is encoded of neighbouring pixels: 1, themselves; 2, differences; 3, those of floating point; auto, what makes "
        "sampled tiles smallest, 2 where that is hardly so",
        "auto",
    )
    creation_options: Annotated[tuple[_CreationOption, ...], AfterValidator(named_apart)] = knob(
        "a further option of GDAL's driver as KEY=VALUE: of a GeoTIFF BIGTIFF=YES or IF_SAFER, GEOTIFF_VERSION=1.0 or 1.1, "
        "GEOTIFF_KEYS_FLAVOR=STANDARD or ESRI_PE; of a JPEG QUALITY=1 to 100 (else 75)",
        (),
        flag="creation-option",
        unset="none",
    )
    block_size: int | None = knob(
        "edge of an output tile",
        None,
        unit="pixels",
        unset="planned: 512, or less where windows need it",
        ge=16,
        multiple_of=16,
    )
    cog: bool = knob("write a Cloud Optimized GeoTIFF: with overviews, its directories in front of its tiles", False)
    overview_resampling: OverviewResampling = knob(
        "how overviews of a COG are made, each of the one above: average of the valid ones of 2 x 2 pixels, nearest (the upper "
        "left), mode (the most frequent); auto, nearest for classes and palettes, else average",
        "auto",
    )
    nodata: Annotated[int | float | Literal["nan"] | None, BeforeValidator(_nodata)] = knob(
        "nodata value of the output, a number or nan",
        None,
        unset="the source's for copy, else nan",
        in_forms=Annotated[float, Field(title="number")]
        | Annotated[Literal["nan"], Field(title="nan", json_schema_extra={"enum": ["nan"]})],
    )
    dtype: DType = knob(
        "type of the output's pixels: auto, the operation's own; results are rounded half away from zero, and saturate",
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

    @property
    def replaces(self) -> bool:
        """Whether an existing destination is replaced."""
        return self.overwrite

    @model_validator(mode="before")
    @classmethod
    def _by_profile(cls, given: Any) -> Any:
        """A profile's choices beneath those that are made; its level and predictor are of its own codec."""
        if not isinstance(given, dict):
            return given
        profile = dict(OUTPUT_PROFILES.get(given.get("output_profile"), {}))
        if profile and given.get("compress", profile["compress"]) != profile["compress"]:
            profile.pop("level", None)
            profile.pop("predictor", None)
        return profile | given

    @model_validator(mode="after")
    def _usable(self) -> "RasterJob":
        if self.scale_offset is not None and self.scale_offset[0] == 0:
            raise ValueError("the scale of scale_offset must not be 0")
        self._fits_driver()
        levels = _LEVELS.get(self.compress, 0)
        if self.driver not in PICTURE_DRIVERS and self.level is not None and self.level > levels:
            known = f"has levels 1 to {levels}" if levels else "has no levels"
            of_others = ", ".join(
                f"{codec} has 1 to {most}" for codec, most in _LEVELS.items() if codec != self.compress
            )
            raise ValueError(f"level {self.level}: {self.compress} {known}, {of_others}")
        if self.overview_resampling != "auto" and not self.cog:
            raise ValueError("overview_resampling is for cog: a plain GeoTIFF has no overviews")
        if self.cog and self.block_size is not None and self.block_size not in COG_BLOCK_SIZES:
            raise ValueError(f"block_size of a COG is one of {', '.join(map(str, sorted(COG_BLOCK_SIZES)))}")
        return self

    def _fits_driver(self) -> None:
        """Refuse what only another driver takes."""
        if self.cog and self.driver in PICTURE_DRIVERS:
            raise ValueError(f"cog is of a GeoTIFF, and the output is a {self.driver}")
        for key in (each.partition("=")[0] for each in self.creation_options):
            owner = "JPEG" if key == "QUALITY" else "GTiff"
            if self.driver != owner:
                raise ValueError(f"creation option {key} is of {owner}, and the output is {self.driver}")
        if self.driver == "JPEG" and self.level is not None:
            raise ValueError("level is not of a JPEG: creation option QUALITY=90 says how much it keeps")
        if self.driver == "PNG" and self.level is not None and self.level > _PNG_LEVELS:
            raise ValueError(f"level {self.level}: a PNG has levels 1 to {_PNG_LEVELS}")


class VectorJob(_Work):
    """Filter a vector layer batch by batch."""

    settings: ClassVar[tuple[str, ...]] = (*COMMON_SETTINGS, "chunk_rows")

    kind: Literal["vector"] = "vector"
    source: str = knob("the dataset to read, a path or what else OGR opens", **_PATH)
    destination: str = knob(
        "the file to write, in a folder that exists: GeoPackage (.gpkg), FlatGeobuf (.fgb), GeoParquet (.parquet, .geoparquet), "
        "GeoJSON (.geojson, .json), GeoJSON text sequence (.geojsonl, .geojsons, .ndjson) or Shapefile (.shp)",
        **_PATH,
    )
    driver: str = "GPKG"
    layer: str | None = _LAYER
    where: Annotated[str | None, AfterValidator(_condition)] = knob(
        "keep features of which this condition over their fields is true, in CQL2 text, such as kind = 'field' AND height > 3",
        None,
        common=True,
    )
    bbox: Annotated[Box | None, BeforeValidator(read_box)] = knob(
        "keep features whose geometry, not its envelope alone, meets the box XMIN,YMIN,XMAX,YMAX, edges included",
        None,
        unit="in the layer's CRS or bbox_crs",
        common=True,
    )
    bbox_crs: str | None = knob(
        "the CRS of bbox, such as EPSG:4326: the box's edges are straight there",
        None,
        unset="the layer's",
        min_length=1,
    )
    intersects: str | None = knob(
        "keep features whose geometry meets a polygon of this vector file, in any CRS, of at most 32 MiB",
        None,
        path_at=whole_path,
        min_length=1,
    )
    min_area_sqm: float | None = knob("keep features of at least this true area", None, unset="no lower bound", **_AREA)
    max_area_sqm: float | None = knob("keep features of at most this true area", None, unset="no upper bound", **_AREA)
    min_length_m: float | None = knob(
        "keep features whose lines have at least this true length on the ellipsoid; polygons and points have length 0",
        None,
        unit="metres",
        unset="no lower bound",
        ge=0,
    )
    max_length_m: float | None = knob(
        "keep features whose lines have at most this true length", None, unit="metres", unset="no upper bound", ge=0
    )
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
    skip_bad: bool = knob(
        "leave bad rows out, which are an error otherwise, and count and list them: text in another encoding, a geometry or a "
        "line that does not decode, a value that does not fit its cast",
        False,
    )
    function: Function | None = knob(
        "your own filter, or what changes features, as module:name, importable where the job runs", None
    )
    select: Annotated[tuple[str, ...] | None, BeforeValidator(_names)] = knob(
        "fields to keep, in the order wanted, such as name,use", None, unset="all"
    )
    repair: bool = knob(
        "make invalid geometries valid: polygons stay polygons and lines lines, all as their multi types where either may come",
        False,
    )
    cast: Annotated[tuple[str, ...], BeforeValidator(_casts)] = knob(
        "fields to make another type of, as FIELD=TYPE, such as n=integer64,seen=date: boolean, integer, integer64, real, "
        "string, json, date, time, datetime or binary; a value that would not stay the same is a bad row",
        (),
        unset="none",
    )
    add_area: str | None = knob(
        "a field to add, by this name, of each feature's area, square metres, measured as area says, before geometries change",
        None,
        unset="none",
        min_length=1,
    )
    simplify: float | None = knob(
        "leave vertices out that are no farther than this from where they are missed, each feature by itself; no geometry "
        "becomes invalid; metres on the ground in a geographic CRS, of the plane in others",
        None,
        unit="metres",
        unset="all vertices",
        gt=0,
    )
    centroid: bool = knob("a point instead of each geometry: its centroid, in the plane of the layer's CRS", False)
    to_crs: str | None = knob(
        "the CRS to transform to, such as EPSG:3857: every vertex by PROJ, heights as they are, nothing cut at the antimeridian",
        None,
        unset="the layer's",
        min_length=1,
    )
    no_index: bool = knob(
        "write no spatial index: of a GeoPackage, a Shapefile (.qix) and a FlatGeobuf, which then keeps the source's order, and "
        "no boxes of features in a GeoParquet; others have none",
        False,
    )
    append: bool = knob(
        "add to an existing GeoPackage, which is replaced by a copy with the new rows: to its layer of the source's name, whose "
        "fields must be the same, or as a new layer",
        False,
    )
    verify: Verify = _VERIFY
    overwrite: bool = _OVERWRITE

    @property
    def replaces(self) -> bool:
        """Whether an existing destination is replaced."""
        return self.overwrite or self.append

    @model_validator(mode="after")
    def _usable(self) -> "VectorJob":
        low, high = self.min_area_sqm, self.max_area_sqm
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_area_sqm ({low} m²) is above max_area_sqm ({high} m²)")
        short, long = self.min_length_m, self.max_length_m
        if short is not None and long is not None and short > long:
            raise ValueError(f"min_length_m ({short} m) is above max_length_m ({long} m)")
        if self.bbox is None and self.bbox_crs is not None:
            raise ValueError("bbox_crs is of a bbox, and there is none")
        if self.append and self.overwrite:
            raise ValueError("append adds to the destination, which overwrite would replace: choose one")
        if self.append and self.driver != "GPKG":
            raise ValueError(f"append is for a GeoPackage (.gpkg): a {self.driver} cannot be added to")
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


class DriversJob(Model):
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
