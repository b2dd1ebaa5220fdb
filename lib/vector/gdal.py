"""What pyogrio does not reach, by OGR's C functions: a curve's linear form, and whether bytes are a geometry at all.

The library is the one that pyogrio's own extension is linked with. Geometry by geometry: for the few that NumPy does not read.
"""

import ctypes
import functools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_POINTER, _INT, _BYTES = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "OGR_G_CreateFromWkb": (_INT, _BYTES, _POINTER, ctypes.POINTER(_POINTER), _INT),
    "OGR_G_DestroyGeometry": (None, _POINTER),
    "OGR_G_GetLinearGeometry": (_POINTER, _POINTER, ctypes.c_double, _POINTER),
    "OGR_G_HasCurveGeometry": (_INT, _POINTER, _INT),
    "OGR_G_WkbSize": (_INT, _POINTER),
    "OGR_G_ExportToIsoWkb": (_INT, _POINTER, _INT, _BYTES),
    "CPLPushErrorHandler": (None, _POINTER),
    "CPLPopErrorHandler": (None,),
}
_LITTLE_ENDIAN = 1
_EWKB_SRID = 0x20000000


@functools.cache
def _library() -> Any:
    from lib.vector import ogr  # noqa: F401 - it imports pyogrio without pandas, so it must come first

    # isort: split
    import pyogrio._ogr

    library = ctypes.CDLL(pyogrio._ogr.__file__)  # noqa: SLF001 - the module that links GDAL
    for name, (result, *arguments) in _SIGNATURES.items():
        getattr(library, name).restype, getattr(library, name).argtypes = result, arguments
    return library


def prepare() -> None:
    """Look the functions up now, and not amid the work."""
    _library()


def is_geometry(wkb: bytes) -> bool:
    """Whether OGR reads the bytes as a geometry."""
    with _geometry(wkb) as geometry:
        return geometry is not None


def linear(wkb: bytes, step_degrees: float) -> bytes | None:
    """A geometry with chords for its arcs, little-endian ISO WKB; the same bytes where it has none; None where it is no geometry.

    Args:
        wkb: well-known binary of any kind.
        step_degrees: the largest angle between two vertices on an arc, as seen from its centre.
    """
    library = _library()
    with _geometry(wkb) as geometry:
        if geometry is None:
            return None
        if not library.OGR_G_HasCurveGeometry(geometry, 0):
            return wkb
        made = _POINTER(library.OGR_G_GetLinearGeometry(geometry, step_degrees, None))
        try:
            into = ctypes.create_string_buffer(library.OGR_G_WkbSize(made))
            library.OGR_G_ExportToIsoWkb(made, _LITTLE_ENDIAN, into)
        finally:
            library.OGR_G_DestroyGeometry(made)
        return into.raw


def _without_srid(wkb: bytes) -> bytes:
    """EWKB without the SRID behind its type, which OGR does not read."""
    order = "<>"[wkb[:1] == b"\0"]
    if len(wkb) < 9:  # noqa: PLR2004 - byte order, type, SRID
        return wkb
    (code,) = struct.unpack_from(f"{order}I", wkb, 1)
    return wkb[:1] + struct.pack(f"{order}I", code & ~_EWKB_SRID) + wkb[9:] if code & _EWKB_SRID else wkb


@contextmanager
def _geometry(wkb: bytes) -> Iterator[Any]:
    """OGR's geometry of some bytes; None where they are none. GDAL says nothing of it."""
    library, made, wkb = _library(), _POINTER(), _without_srid(wkb)
    library.CPLPushErrorHandler(ctypes.cast(library.CPLQuietErrorHandler, _POINTER))
    try:
        failed = library.OGR_G_CreateFromWkb(wkb, None, ctypes.byref(made), len(wkb))
    finally:
        library.CPLPopErrorHandler()
    try:
        yield None if failed else made
    finally:
        if made:
            library.OGR_G_DestroyGeometry(made)
