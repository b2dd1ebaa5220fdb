"""Which texts of a source its output carries: all domains but those that speak of the source's file, all tags that stay true.

A tag that repeats a band's scale, fill value, unit or range (netCDF, GRIB, GDAL's statistics) is kept where the output's own
says the same, and dropped elsewhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lib.raster import gdal

# Written by GDAL itself from other things, or true of the source's file only.
_OF_THE_FILE = frozenset(
    {
        "IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "TIFF", "OVR", "OVERVIEWS", "xml:VRT", "vrt_sources",
        "new_vrt_sources", "LocationInfo", "ENVI", "BLOCK",
    }
)  # fmt: skip
_COLOURS = frozenset({"COLOR_PROFILE"})
# NODATA_VALUES would mask the output by the source's values: what it hides is in the output's mask.
_NEVER = ("NODATA_VALUES", "SWATH_", "SourceColorInterp")
_STATISTICS = ("STATISTICS_", "TIFFTAG_MINSAMPLEVALUE", "TIFFTAG_MAXSAMPLEVALUE")
_RANGES = frozenset(
    {
        "valid_range",
        "valid_min",
        "valid_max",
        "actual_range",
        "_Unsigned",
        "NBITS",
        "flag_values",
        "flag_masks",
        "flag_meanings",
    }
)
_FILLS = frozenset({"_FillValue", "missing_value", "fill_value", "GRIB_NODATA"})
_SCALES = frozenset({"scale_factor", "add_offset"})
_UNITS = frozenset({"units", "GRIB_UNIT"})


class Truths(NamedTuple):
    """What of the source is still true of its output.

    Attributes:
        values: pixels are what they were, and invalid ones as they were marked.
        scales: so are scale and offset.
        units: so is the unit of each selected band, in their order.
        colours: colour tables and profiles still speak of these pixels.
    """

    values: bool
    scales: bool
    units: tuple[bool, ...]
    colours: bool


class Texts(NamedTuple):
    """What is carried of one domain, by the output's band number, 0 for the dataset; and the keys that are dropped."""

    number: int
    domain: str | None
    lines: list[bytes]
    dropped: list[str]


def carried(source: Any, bands: Sequence[int], truths: Truths) -> Iterator[Texts]:
    """Each domain of a dataset and its selected bands with what is carried of it.

    Args:
        source: the open dataset.
        bands: the selected bands' numbers.
        truths: what is still true.
    """
    variables = {source.tags(band).get("NETCDF_VARNAME"): number for number, band in enumerate(bands)}
    for number, band in enumerate([0, *bands]):
        for domain in [None, *domains(source, band, colours=truths.colours)]:
            lines = gdal.texts(source, band, domain)
            if domain is None:
                stale = [line for line in lines if _is_stale(_key(line), number, variables, truths)]
                never = [line for line in lines if _key(line).startswith(_NEVER)]
                kept = [line for line in lines if line not in stale and line not in never]
                yield Texts(number, None, kept, [_key(line).rpartition("#")[2] for line in stale])
            elif lines:
                yield Texts(number, domain, lines, [])


def name(texts: Texts, line: bytes) -> str:
    """What a line is known by: its key, or its domain where that is another than the default one."""
    return _key(line) if texts.domain is None else f"{texts.domain}:"


def others(dataset: Any, band: int) -> dict[str, str]:
    """The texts of all domains but the default one, by `name`."""
    return {f"{each}:": str(dataset.tags(band, ns=each)) for each in domains(dataset, band)}


def unknown_domains(source: Any, bands: Sequence[int]) -> list[str]:
    """Domains of a header's own words, which are not carried and would be missed."""
    return sorted({"ENVI"} & {domain for band in (0, *bands) for domain in source.tag_namespaces(band)})


def domains(source: Any, band: int, *, colours: bool = True) -> list[str]:
    """The named domains of a band, or of the dataset for 0, that speak not of its file; without `colours` no profiles of them."""
    left_out = _OF_THE_FILE if colours else _OF_THE_FILE | _COLOURS
    return [name for name in source.tag_namespaces(band) if name and name not in left_out]


def _key(line: bytes) -> str:
    return line.split(b"=", 1)[0].decode(errors="replace")


def _is_stale(key: str, number: int, variables: dict[str | None, int], truths: Truths) -> bool:
    """Whether a tag of the default domain is no longer true: of a band, or of the variable that its name begins with."""
    variable, _, attribute = key.rpartition("#")
    # Of the dataset, or of a variable whose band is not known, it is true only if it is of all bands.
    at = slice(number - 1, number) if number else slice(None)
    if number == 0 and variable in variables:
        at = slice(variables[variable], variables[variable] + 1)
    return (
        (attribute in _UNITS and not all(truths.units[at]))
        or (attribute in _SCALES and not truths.scales)
        or (attribute in _RANGES | _FILLS and not truths.values)
        or attribute.startswith(_STATISTICS)
    )
