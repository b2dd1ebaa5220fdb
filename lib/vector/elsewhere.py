"""Layers that are no plain local files: behind a network, or in an archive. pyogrio's GDAL, asked as `lib/elsewhere.py` does.

What an archive's one dataset is called, what its files say of sizes and counts as local ones do, and what GDAL says of a
network or a packed file while features go on coming: OGR gives fewer, or such without a geometry, and no error.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from lib.diagnosis import one_line
from lib.elsewhere import Gdal, State, cache_bytes
from lib.errors import DataError, SourceError
from lib.paths import for_gdal, is_local, is_remote
from lib.vector import ogr  # noqa: F401 - it imports pyogrio without pandas, so it must come first

# isort: split
import pyogrio._ogr

__all__ = [
    "Listening",
    "State",
    "VirtualFile",
    "cache_bytes",
    "check_unchanged",
    "forget",
    "named",
    "refusal",
    "size",
    "state",
]

_VECTOR = 4  # GDAL_OF_VECTOR
_GZIP = b"\x1f\x8b"
_FOLDER = re.compile(r"(.*\.gdb)/[^/]*", re.IGNORECASE | re.DOTALL)
# Of datasets of several files the one that is named, by the suffixes of the others.
_PART_OF = {".shx": ".shp", ".dbf": ".shp", ".mid": ".mif"} | dict.fromkeys((".dat", ".map", ".id", ".ind"), ".tab")
_BESIDE = (".xsd", ".gfs", ".xml", ".qml", ".prj", ".cpg", ".csvt")
_OF_PACKED = re.compile(r"decompress|z_err|CRC|unexpected end|inflate", re.IGNORECASE)


def _mains(names: Sequence[str]) -> list[str]:
    """Of several Shapefile parts the .shp, of files in a .gdb the folder; nothing that other programs keep beside."""
    names = list(dict.fromkeys(found[1] if (found := _FOLDER.fullmatch(each)) else each for each in names))
    lower = {each.lower() for each in names}

    def is_main(name: str) -> bool:
        stem, dot, end = name.lower().rpartition(".")
        main = _PART_OF.get(dot + end)
        is_part = main is not None and stem + main in lower
        is_beside = name.lower().endswith(_BESIDE) and any(
            stem + each in lower for each in ("", ".shp", ".gml", ".csv")
        )
        return not (is_part or is_beside or "/__MACOSX/" in name)

    return [each for each in names if is_main(each)]


_GDAL = Gdal(pyogrio._ogr.__file__, _VECTOR, "vector dataset", _mains)  # noqa: SLF001 - the module that links GDAL
check_unchanged, forget, refusal, state = _GDAL.check_unchanged, _GDAL.forget, _GDAL.refusal, _GDAL.state


def named(source: str, layer: str | None = None) -> str:
    """The name by which OGR opens a source; of an archive that of the dataset in it, by the layer's name where there are several.

    Raises:
        SourceError: it holds none, or several.
    """
    if _is_gzip(source):
        return f"/vsigzip/{for_gdal(source)}"
    if not _GDAL.system(source):
        return source
    with ogr.configured():
        inside = _GDAL.inside(source)
        if layer is not None and len(inside) > 1:
            inside = [each for each in inside if PurePosixPath(each).stem == layer] or inside
        if len(inside) == 1:
            return inside[0]
        if not inside and is_local(source) and not _GDAL.is_archive(source):
            raise SourceError(f"{source} is no archive that can be read", hint="fetch or pack it again", path=source)
        raise refusal(source, "") or SourceError(f"{source} holds no vector dataset", path=source)


def _is_gzip(source: str) -> bool:
    if not is_local(source):
        name = for_gdal(source).partition("?")[0].lower()
        return name.endswith(".gz") and not name.endswith(".tar.gz") and not name.startswith("/vsigzip/")
    if _GDAL.system(source) or not Path(source).is_file():
        return False
    with Path(source).open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def size(name: str) -> int:
    """Bytes of a dataset of a virtual file system, unpacked, all its files; 0 where that is not known."""
    stem, dot, end = name.rpartition(".")
    if end.lower() == "gdb":
        return _GDAL.tree_size(name)
    parts = [dot + end, *(part for part, main in _PART_OF.items() if main == (dot + end).lower())]
    return sum(_GDAL.size(stem + each) for each in parts)


class _Stat(NamedTuple):
    st_size: int


@dataclass(frozen=True, slots=True)
class VirtualFile:
    """A file of a virtual file system, as far as modules of formats use a `Path`."""

    virtual: str

    @property
    def name(self) -> str:
        """The last part."""
        return self.virtual.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """With its dot."""
        return PurePosixPath(self.name).suffix

    def with_suffix(self, suffix: str) -> "VirtualFile":
        """The file beside it of another suffix."""
        return VirtualFile(self.virtual.removesuffix(self.suffix) + suffix)

    def is_file(self) -> bool:
        """Whether there are bytes."""
        return _GDAL.size(self.virtual) > 0

    def stat(self) -> _Stat:
        """Its size."""
        return _Stat(_GDAL.size(self.virtual))

    def open(self, mode: str) -> BinaryIO:
        """To be read."""
        del mode
        return _GDAL.open(self.virtual)


class Listening:
    """A reader of batches that fails where GDAL says of the network, or of unpacking, that it does."""

    def __init__(self, reader: Any, source: str, label: str) -> None:
        self._reader, self._source, self._label, self.schema = reader, source, label, reader.schema

    def read_next_batch(self) -> Any:
        """The next batch; StopIteration after the last, DataError where something was not read."""
        said: list[str] = []
        try:
            with _GDAL.listening(said):
                return self._reader.read_next_batch()
        finally:
            trouble = said if is_remote(self._source) else [each for each in said if _OF_PACKED.search(each)]
            if trouble:
                reason, hint = _GDAL.trouble(self._source)
                raise DataError(f"{self._label} can no longer be read: {reason or one_line(trouble[0])}", hint=hint)

    def __iter__(self) -> Iterator[Any]:
        """All batches that are left."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        return self.read_next_batch()
