"""What rasterio does not reach, by GDAL's C functions: nodata of 64 bits, texts of any domain, category names, attribute tables.

The library is the one that rasterio's own extension is linked with, not pyogrio's. A dataset that rasterio has open is found
among all that GDAL has open; nothing is opened anew. For one thread at a time, before the work begins.
"""

import contextlib
import ctypes
import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from rasterio import _base
from rasterio._path import _parse_path, _vsi_path

from lib.elsewhere import function

_POINTER, _TEXT, _INT, _INT64, _UINT64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int64, ctypes.c_uint64
_TEXTS = ctypes.POINTER(ctypes.c_char_p)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "GDALGetOpenDatasets": (None, ctypes.POINTER(ctypes.POINTER(_POINTER)), ctypes.POINTER(_INT)),
    "GDALGetDescription": (_TEXT, _POINTER),
    "GDALGetRasterXSize": (_INT, _POINTER),
    "GDALGetRasterYSize": (_INT, _POINTER),
    "GDALGetRasterCount": (_INT, _POINTER),
    "GDALGetRasterBand": (_POINTER, _POINTER, _INT),
    "GDALGetRasterNoDataValueAsInt64": (_INT64, _POINTER, ctypes.POINTER(_INT)),
    "GDALGetRasterNoDataValueAsUInt64": (_UINT64, _POINTER, ctypes.POINTER(_INT)),
    "GDALSetRasterNoDataValueAsInt64": (_INT, _POINTER, _INT64),
    "GDALSetRasterNoDataValueAsUInt64": (_INT, _POINTER, _UINT64),
    "GDALGetMetadata": (_TEXTS, _POINTER, _TEXT),
    "GDALSetMetadata": (_INT, _POINTER, _TEXTS, _TEXT),
    "GDALGetRasterCategoryNames": (_TEXTS, _POINTER),
    "GDALSetRasterCategoryNames": (_INT, _POINTER, _TEXTS),
    "GDALGetDefaultRAT": (_POINTER, _POINTER),
    "GDALSetDefaultRAT": (_INT, _POINTER, _POINTER),
    "GDALRATGetRowCount": (_INT, _POINTER),
    "GDALGetSpatialRef": (_POINTER, _POINTER),
    "GDALSetSpatialRef": (_INT, _POINTER, _POINTER),
    "OSRGetCoordinateEpoch": (ctypes.c_double, _POINTER),
    "GDALGetDriverByName": (_POINTER, _TEXT),
    "GDALGetMetadataItem": (_TEXT, _POINTER, _TEXT, _TEXT),
    "GDALBuildOverviews": (_INT, _POINTER, _TEXT, _INT, ctypes.POINTER(_INT), _INT, _POINTER, _POINTER, _POINTER),
}


@functools.cache
def _function(name: str) -> Any:
    return function(_base.__file__, name, _SIGNATURES[name])


def handle_of(dataset: Any) -> Any:
    """GDAL's handle of an open rasterio dataset: of those of its size, the one of its name where there are several.

    Raises:
        LookupError: GDAL does not list it.
    """
    every, count = ctypes.POINTER(_POINTER)(), _INT()
    _function("GDALGetOpenDatasets")(ctypes.byref(every), ctypes.byref(count))
    names = {dataset.name, name_of(dataset.name)}
    size = dataset.width, dataset.height, dataset.count
    measures = [_function(f"GDALGetRaster{each}") for each in ("XSize", "YSize", "Count")]
    alike = [each for each in every[: count.value] if tuple(measure(each) for measure in measures) == size]
    named = [each for each in alike if (_function("GDALGetDescription")(each) or b"").decode(errors="replace") in names]
    if not alike:
        raise LookupError(f"GDAL has no open dataset {dataset.name}")
    return (named or alike)[-1]


def name_of(name: str) -> str:
    """GDAL's own name of what rasterio opens by a name: `/vsis3/…` for `s3://…`."""
    with contextlib.suppress(Exception):  # a name that rasterio does not take for a path
        return str(_vsi_path(_parse_path(name)))
    return name


def _of(dataset: Any, band: int) -> Any:
    """The handle of a band, or of the dataset itself for 0."""
    handle = handle_of(dataset)
    return _function("GDALGetRasterBand")(handle, band) if band else handle


def nodatavals(dataset: Any) -> tuple[int | float | None, ...]:
    """Each band's declared nodata value; of 64-bit integers exactly, which rasterio reads as floats."""
    if not {"int64", "uint64"} & set(dataset.dtypes):
        # One NaN, which is itself among others.
        return tuple(math.nan if value is not None and math.isnan(value) else value for value in dataset.nodatavals)
    return tuple(
        _nodata_64(dataset, band, dtype) if dtype in {"int64", "uint64"} else value
        for band, (dtype, value) in enumerate(zip(dataset.dtypes, dataset.nodatavals, strict=True), 1)
    )


def _nodata_64(dataset: Any, band: int, dtype: str) -> int | None:
    declared = _INT()
    name = "GDALGetRasterNoDataValueAsInt64" if dtype == "int64" else "GDALGetRasterNoDataValueAsUInt64"
    value = _function(name)(_of(dataset, band), ctypes.byref(declared))
    return int(value) if declared.value else None


def set_nodata_64(output: Any, nodata: int) -> None:
    """Declare the nodata value of an output of 64-bit integers, exactly."""
    kind = {"int64": "Int64", "uint64": "UInt64"}[output.dtypes[0]]
    for band in output.indexes:
        _function(f"GDALSetRasterNoDataValueAs{kind}")(_of(output, band), nodata)


def texts(dataset: Any, band: int, domain: str | None) -> list[bytes]:
    """A domain's texts as they are, `KEY=value` or one whole document; of the dataset where the band is 0."""
    return _strings(_function("GDALGetMetadata")(_of(dataset, band), domain.encode() if domain else None))


def set_texts(output: Any, band: int, domain: str | None, lines: Sequence[bytes]) -> None:
    """Set all of a domain's texts."""
    _function("GDALSetMetadata")(_of(output, band), _array(lines), domain.encode() if domain else None)


def category_names(dataset: Any, band: int) -> list[bytes]:
    """The names of a band's classes; none where it has none."""
    return _strings(_function("GDALGetRasterCategoryNames")(_of(dataset, band)))


def set_category_names(output: Any, band: int, names: Sequence[bytes]) -> None:
    """Name the classes of a band: a GeoTIFF has them in its `.aux.xml`."""
    _function("GDALSetRasterCategoryNames")(_of(output, band), _array(names))


def attribute_rows(dataset: Any, band: int) -> int:
    """Rows of a band's attribute table; 0 where it has none."""
    table = _function("GDALGetDefaultRAT")(_of(dataset, band))
    return int(_function("GDALRATGetRowCount")(table)) if table else 0


def carry_attribute_table(dataset: Any, band: int, output: Any, number: int) -> None:
    """Give a band's attribute table to a band of the output."""
    _function("GDALSetDefaultRAT")(_of(output, number), _function("GDALGetDefaultRAT")(_of(dataset, band)))


def carry_epoch(dataset: Any, output: Any) -> None:
    """Give the CRS with its coordinate epoch, which WKT does not hold, to an output; nothing where there is none."""
    place = _function("GDALGetSpatialRef")(handle_of(dataset))
    if place and _function("OSRGetCoordinateEpoch")(place):
        _function("GDALSetSpatialRef")(handle_of(output), place)


def epoch(dataset: Any) -> float | None:
    """The coordinate epoch of a dataset's CRS, a decimal year."""
    place = _function("GDALGetSpatialRef")(handle_of(dataset))
    return (float(_function("OSRGetCoordinateEpoch")(place)) or None) if place else None


def codecs() -> frozenset[str]:
    """The codecs with which this GDAL writes a GeoTIFF, by its names for them."""
    driver = _function("GDALGetDriverByName")(b"GTiff")
    said = _function("GDALGetMetadataItem")(driver, b"DMD_CREATIONOPTIONLIST", None) or b""
    [chosen] = re.findall(r"<Option name='COMPRESS'.*?</Option>", said.decode(), re.DOTALL) or [""]
    return frozenset(re.findall(r"<Value>(\w+)</Value>", chosen))


def make_room_for_overviews(output: Any, factors: Sequence[int]) -> None:
    """Give an output overviews, so many times smaller, and no pixels of them.

    Raises:
        OSError: GDAL did not.
    """
    array, none = (_INT * len(factors))(*factors), (None, None, None)
    if _function("GDALBuildOverviews")(handle_of(output), b"NONE", len(factors), array, 0, *none):
        raise OSError(f"GDAL made no overviews of {output.name}")


def _strings(array: Any) -> list[bytes]:
    return list(_until_null(array)) if array else []


def _until_null(array: Any) -> Iterator[bytes]:
    at = 0
    while (each := array[at]) is not None:
        yield each
        at += 1


def _array(lines: Sequence[bytes]) -> Any:
    return (ctypes.c_char_p * (len(lines) + 1))(*lines, None)
