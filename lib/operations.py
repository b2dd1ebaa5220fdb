"""Operations on rasters, as data: each a model of its parameters. What they do to pixels is in `raster/operations/`.

A field made by `knob` is a flag, a flow parameter and a line of the README. A new operation is a model here, and its place in
`Operation`.
"""

import keyword
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lib.knobs import knob
from lib.paths import kernel_path_at, table_path_at, whole_path


class Model(BaseModel):
    """Base of jobs and of what they are made of: frozen, and nothing else is taken."""

    # Built when first used, as a process has one kind of job (MEASURED, "Start-up of a direct job").
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def read_box(value: Any) -> Any:
    """Four numbers in a text, as numbers."""
    if not isinstance(value, str):
        return value
    try:
        left, low, right, high = (float(each) for each in value.split(","))
    except ValueError:
        raise ValueError(f"{value!r} is no box: write XMIN,YMIN,XMAX,YMAX, such as 10,45,11.5,46") from None
    return left, low, right, high


def _upright(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, low, right, high = box
    if left > right or low > high:
        raise ValueError(
            "a box is XMIN,YMIN,XMAX,YMAX, each minimum below its maximum; one across the antimeridian is two boxes"
        )
    return box


Box = Annotated[tuple[float, float, float, float], AfterValidator(_upright)]


def _sizes(value: Any) -> Any:
    """One number or two in a text, as numbers."""
    if isinstance(value, (int, float)):
        return (float(value),)
    if not isinstance(value, str):
        return value
    try:
        return tuple(float(each) for each in value.split(","))
    except ValueError:
        raise ValueError(f"{value!r} is no resolution: write X or X,Y, such as 10 or 10,20") from None


_Resolution = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=2)]
Resampling = Literal[
    "nearest",
    "bilinear",
    "cubic",
    "cubicspline",
    "lanczos",
    "average",
    "rms",
    "mode",
    "min",
    "max",
    "med",
    "q1",
    "q3",
    "sum",
]


def _function(value: str) -> str:
    if not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError(f"{value!r} is no function: write module:name, such as filters:keep_large")
    return value


Function = Annotated[str, AfterValidator(_function)]


def _named_source(value: str) -> str:
    name, equals, path = value.partition("=")
    if not (equals and path):
        raise ValueError(f"{value!r} names no source: write name=FILE, such as before=scene_2024.tif")
    if not re.fullmatch(r"[A-Za-z]\w*", name) or re.fullmatch(r"b\d+", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot name a source: letters, digits and _, and not like a band (b1)")
    return value


def named_apart(values: tuple[str, ...]) -> tuple[str, ...]:
    """Values of the form NAME=…, as they are; raises ValueError where a name is there twice."""
    names = [value.partition("=")[0] for value in values]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice!r} is there twice")
    return values


_NamedSource = Annotated[str, AfterValidator(_named_source)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} is even: the pixel itself is in the middle of an odd number")
    return value


class Copy(Model):
    """Pixels as they are, in their own type."""

    name: Literal["copy"] = "copy"


class Normalise(Model):
    """`clip(pixel / scale, low, high)`.

    The result is float32; float64 of 32- and 64-bit integers and float64.
    """

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


class Rescale(Model):
    """`pixel * multiply + add`.

    The result is float32; float64 of 32- and 64-bit integers and float64.
    """

    name: Literal["rescale"] = "rescale"
    multiply: float = knob("factor", 1.0, unit="no unit")
    add: float = knob("added after the factor", 0.0, unit="in the output's units")
    unscale: bool = knob("apply each band's own scale and offset first, so that pixels are what they stand for", False)


class Expression(Model):
    """Arithmetic over bands, such as `(b4 - b3) / (b4 + b3)`.

    The result is float32; float64 of 32- and 64-bit integers and float64.
    """

    name: Literal["expression"] = "expression"
    expr: str = knob(
        "what is computed: bands b1, b2, … (as bands orders them) and other.b1, …, arithmetic, comparison, and or not, functions "
        "such as where, min, sqrt; several, one for each band written, with ; between them"
    )
    sources: Annotated[tuple[_NamedSource, ...], AfterValidator(named_apart)] = ()


class Reclassify(Model):
    """Classes for ranges of values, or one value for another; integers stay integers."""

    name: Literal["reclassify"] = "reclassify"
    table: str = knob(
        "ranges, from one value on up to below another, and what they become: 0:1000=1,1000:5000=2,5000:=3; single values: 7=70; "
        "all others: *=0 (else nodata); or a YAML file of them",
        path_at=table_path_at,
    )


class Focal(Model):
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
        path_at=kernel_path_at,
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


class Terrain(Model):
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


class Custom(Model):
    """Your own function, called with each window.

    It gets `(bands, height, width)` float32 pixels and a boolean array of the same shape, True where a pixel is valid; it returns
    an array of the first one's shape. Its attributes may say `overlap`, `dtype` and `bands`; a third parameter gets a context.
    It is imported from the working directory or the Python path, in the capped child.
    """

    name: Literal["custom"] = "custom"
    function: Function = knob("your function as module:name, importable where the job runs")


class Clip(Model):
    """A part of the raster: a box, or what lies inside the polygons of a vector file."""

    name: Literal["clip"] = "clip"
    bbox: Annotated[Box | None, BeforeValidator(read_box)] = knob(
        "the box to cut out, as XMIN,YMIN,XMAX,YMAX: the pixels whose centres it holds",
        None,
        unit="in the raster's CRS or bbox_crs",
    )
    bbox_crs: str | None = knob("the CRS of bbox, such as EPSG:4326", None, unset="the raster's", min_length=1)
    mask: str | None = knob(
        "a vector file: pixels whose centres lie in none of its polygons become nodata",
        None,
        min_length=1,
        path_at=whole_path,
    )
    crop: bool = knob("cut the raster to what the polygons of mask span, too", False)

    @model_validator(mode="after")
    def _usable(self) -> "Clip":
        if self.bbox is None and self.mask is None:
            raise ValueError("a clip needs a bbox or a mask")
        if self.bbox is None and self.bbox_crs is not None:
            raise ValueError("bbox_crs is of a bbox, and there is none")
        if self.mask is None and self.crop:
            raise ValueError("crop is of a mask, and there is none: a bbox is always cut out")
        return self


class Warp(Model):
    """The raster on another grid: another CRS, another resolution, by GDAL's own warper."""

    name: Literal["warp"] = "warp"
    to_crs: str | None = knob("the CRS to warp to, such as EPSG:3857", None, unset="the raster's", min_length=1)
    resolution: Annotated[_Resolution | None, BeforeValidator(_sizes)] = knob(
        "size of a pixel, as X or X,Y",
        None,
        unit="in the CRS warped to",
        unset="as GDAL suggests: as many pixels as there were",
    )
    target_aligned: bool = knob("edges of the output are multiples of its resolution", False)
    resampling: Resampling = knob("what a pixel is made from", "nearest")

    @model_validator(mode="after")
    def _usable(self) -> "Warp":
        if self.target_aligned and self.resolution is None:
            raise ValueError("target_aligned needs a resolution")
        return self


Operation = Copy | Normalise | Rescale | Expression | Reclassify | Focal | Terrain | Clip | Warp | Custom

OPERATIONS: dict[str, type[Model]] = {model.model_fields["name"].default: model for model in get_args(Operation)}
