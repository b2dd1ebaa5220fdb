"""VRTs as gdalwarp describes them, made in memory by its C function; and its transformer, from an output's pixels to a source's.

rasterio's WarpedVRT takes no ground control points or RPCs where a grid is given, and no bands; this takes what gdalwarp takes.
"""

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import _base

from lib.errors import UsageError
from lib.raster import gdal

_POINTER, _TEXT, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_double
_POINTERS, _DOUBLES = ctypes.POINTER(_POINTER), ctypes.POINTER(_DOUBLE)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "GDALWarpAppOptionsNew": (_POINTER, ctypes.POINTER(_TEXT), _POINTER),
    "GDALWarpAppOptionsFree": (None, _POINTER),
    "GDALWarp": (_POINTER, _TEXT, _POINTER, _INT, _POINTERS, _POINTER, ctypes.POINTER(_INT)),
    "GDALClose": (_INT, _POINTER),
    "GDALCreateGenImgProjTransformer2": (_POINTER, _POINTER, _POINTER, _POINTER),
    "GDALGenImgProjTransform": (_INT, _POINTER, _INT, _INT, _DOUBLES, _DOUBLES, _DOUBLES, ctypes.POINTER(_INT)),
    "GDALDestroyGenImgProjTransformer": (None, _POINTER),
    "VSIUnlink": (_INT, _TEXT),
    "CPLErrorReset": (None,),
    "CPLGetLastErrorMsg": (_TEXT,),
}
_numbers = itertools.count()


def _function(name: str) -> Any:
    result, *arguments = _SIGNATURES[name]
    found = getattr(ctypes.CDLL(_base.__file__), name)
    found.restype, found.argtypes = result, arguments
    return found


def warped(dataset: Any, arguments: Sequence[str]) -> str:
    """Describe a warp of an open dataset, by gdalwarp's own arguments; the name of the VRT, which `forget` removes.

    Raises:
        UsageError: GDAL says that it cannot be done.
    """
    texts = [each.encode() for each in ("-of", "VRT", *arguments)]
    options = _function("GDALWarpAppOptionsNew")((_TEXT * (len(texts) + 1))(*texts, None), None)
    name = f"/vsimem/swath/{next(_numbers)}.vrt"
    _function("CPLErrorReset")()
    try:
        made = options and _function("GDALWarp")(
            name.encode(), None, 1, (_POINTER * 1)(gdal.handle_of(dataset)), options, ctypes.byref(_INT())
        )
        if not made:
            said = (_function("CPLGetLastErrorMsg")() or b"").decode(errors="replace")
            raise UsageError(f"{dataset.name} cannot be warped: {said}", hint="look at its CRS with `gdalinfo`")
        _function("GDALClose")(made)
    finally:
        if options:
            _function("GDALWarpAppOptionsFree")(options)
    return name


def forget(name: str) -> None:
    """Remove a VRT from memory."""
    _function("VSIUnlink")(name.encode())


def places(dataset: Any, output: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where pixels of an output lie among those of a source.

    Args:
        dataset: the source, open.
        output: open, georeferenced.
        points: `(n, 2)`, column and row.

    Returns:
        `(n, 2)`, column and row; NaN where there is no such place.
    """
    x, y, z = (np.ascontiguousarray(each, np.float64) for each in (*points.T, np.zeros(len(points))))
    good = np.zeros(len(points), np.intc)
    transformer = _function("GDALCreateGenImgProjTransformer2")(gdal.handle_of(dataset), gdal.handle_of(output), None)
    if not transformer:
        return np.full(points.shape, np.nan)
    try:
        _function("GDALGenImgProjTransform")(
            transformer, 1, len(points), *(each.ctypes.data_as(_DOUBLES) for each in (x, y, z)),
            good.ctypes.data_as(ctypes.POINTER(_INT)),
        )  # fmt: skip
    finally:
        _function("GDALDestroyGenImgProjTransformer")(transformer)
    found = np.column_stack([x, y])
    found[(good == 0) | ~np.isfinite(found).all(axis=1)] = np.nan
    return found
