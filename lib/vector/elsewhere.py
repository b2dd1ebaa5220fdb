"""Layers that are no plain local files: behind a network, or in an archive. pyogrio's GDAL, asked as `lib/elsewhere.py` does.

What an archive's one dataset is called, what its files say of sizes and counts as local ones do, and what GDAL says of a
network or a packed file while features go on coming: OGR gives fewer, or such without a geometry, and no error.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from lib.diagnosis import without_places
from lib.elsewhere import Gdal, State, switches
from lib.errors import DataError, SourceError
from lib.paths import archive_system, for_gdal, is_local, is_packed, is_remote
from lib.units import MIB
from lib.vector import ogr  # it imports pyogrio without pandas, so it must come first

# isort: split
import pyogrio
import pyogrio._ogr

__all__ = [
    "Origin",
    "State",
    "check_parts",
    "file_of",
    "heard",
    "listening",
    "named",
    "origin_of",
    "size",
    "trouble",
    "unpacks",
]

_VECTOR = 4  # GDAL_OF_VECTOR
_GZIP = b"\x1f\x8b"
_FOLDER = re.compile(r"(.*\.gdb)/[^/]*", re.IGNORECASE | re.DOTALL)
# Of datasets of several files the one that is named, by the suffixes of the others.
_PART_OF = {".shx": ".shp", ".dbf": ".shp", ".mid": ".mif"} | dict.fromkeys((".dat", ".map", ".id", ".ind"), ".tab")
_BESIDE = (".xsd", ".gfs", ".xml", ".qml", ".prj", ".cpg", ".csvt")
_PARQUET = (".parquet", ".geoparquet")
_AWAY = ("the server has no such file", "its server gives no bytes")  # the latter of a bucket that does not list it
_NOT_WHOLE, _PACK_AGAIN = "it does not unpack to what was packed", "fetch or pack it again"
_OF_SHAPEFILE = (".shx", ".dbf", ".prj", ".cpg")
_OF_PACKED = re.compile(r"decompress|z_err|CRC|unexpected end|inflate|read error|stream error", re.IGNORECASE)


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


class _Vectors(Gdal):
    """pyogrio's GDAL, which has no driver for Parquet: that is read by pyarrow."""

    __slots__ = ()

    def is_one(self, name: str) -> bool:
        """Whether it is a dataset, by its name or by what GDAL says."""
        return name.lower().endswith(_PARQUET) or Gdal.is_one(self, name)


_GDAL = _Vectors(pyogrio._ogr.__file__, _VECTOR, "vector dataset", _mains)  # noqa: SLF001 - the module that links GDAL
listening, trouble = _GDAL.listening, _GDAL.trouble


def named(source: str, layer: str | None = None) -> str:
    """The name by which OGR opens a source; of an archive that of the dataset in it, by the layer's name where there are several.

    A plain local file keeps its own. A .kmz is one to OGR itself.

    Raises:
        SourceError: it holds none, or several; its server does not give it.
    """
    _tell(source)
    if _is_gzip(source):
        return f"/vsigzip/{for_gdal(source)}"
    if not (system := _GDAL.system(source)) or _is_one_itself(source):
        return source if is_local(source) else for_gdal(source)
    inside = _GDAL.inside(source)
    if layer is not None and len(inside) > 1:
        inside = [each for each in inside if PurePosixPath(each).stem == layer] or inside
    if len(inside) == 1:
        return inside[0]
    if not inside and not _GDAL.members(source, system) and not trouble(source)[0]:
        raise SourceError(f"{source} is no archive that can be read", hint=_PACK_AGAIN, path=source)
    raise _GDAL.refusal(source, "") or SourceError(f"{source} holds no vector dataset", path=source)


def _is_one_itself(source: str) -> bool:
    """Whether a file that is a zip is a dataset to OGR: a .kmz, a table of a spreadsheet; not by the suffix of archives."""
    return source.lower().endswith(".kmz") or (not archive_system(source) and _GDAL.is_one(for_gdal(source)))


def _tell(source: str) -> None:
    """Tell GDAL of networks; and how what lies beside a file is found: a web server's page of a folder has no bound."""
    by_name = "TRUE" if "/vsicurl" in for_gdal(source) else "FALSE"
    beside = by_name if is_remote(source) else None
    pyogrio.set_gdal_config_options({**switches(), "GDAL_DISABLE_READDIR_ON_OPEN": beside})


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
    return sum(map(_GDAL.size, _files_of(name)))


def _files_of(name: str) -> list[str]:
    stem, dot, end = name.rpartition(".")
    if end.lower() == "gdb":
        return _GDAL.files_in(name)
    return [name, *(stem + part for part, main in _PART_OF.items() if main == (dot + end).lower())]


def check_parts(source: str, name: str, label: str) -> None:
    """Of a Shapefile on a server no part is away but those that are not there: OGR would do without its table.

    Raises:
        SourceError: the server fails for one of them.
    """
    if not is_remote(source) or not name.lower().endswith(".shp"):
        return
    for end in _OF_SHAPEFILE:
        part = name[: -len(end)] + end
        reason, hint = ("", "") if _GDAL.size(part) else trouble(part)
        if reason and not reason.startswith(_AWAY):
            raise SourceError(f"{label} cannot be opened: of its part {end}, {reason}", hint=hint, path=source)


class Origin(NamedTuple):
    """Where a layer comes from.

    Attributes:
        source: as the job names it.
        name: as GDAL opens it.
        state: what its server said of it when it was opened; None where it is local.
    """

    source: str
    name: str
    state: State | None

    @property
    def file(self) -> Path:
        """The file, or what does for one."""
        return file_of(self.name)

    @property
    def is_plain(self) -> bool:
        """Whether it is a local file, which is not packed."""
        return is_local(self.name)

    def check_whole(self, label: str) -> None:
        """Raises DataError where what is packed has another checksum than when it was packed: who seeks in it is not told."""
        if is_packed(self.name) and not unpacks(self.name):
            reason, hint = trouble(self.source)
            raise DataError(f"{label} is damaged: {reason or _NOT_WHOLE}", hint=hint or _PACK_AGAIN, path=self.source)

    def check_unchanged(self) -> None:
        """Raises DataError where a server says that the file has changed since."""
        _GDAL.check_unchanged(self.source, self.state)


def origin_of(source: str, layer: str | None) -> Origin:
    """Where a layer comes from, looked at anew.

    Raises:
        SourceError: an archive holds none, or several; a server does not give it.
    """
    if not is_local(source):
        _GDAL.forget(source)
        if not for_gdal(source).startswith("/vsi"):
            raise SourceError(
                f"{source} is no file, and no name of one in GDAL's virtual file systems",
                hint="fetch it first",
                path=source,
            )
    _tell(source)
    state = _GDAL.state(source)  # before anything is read of it
    return Origin(source, named(source, layer), state)


def unpacks(name: str) -> bool:
    """Whether a dataset of a virtual file system can be read to its end, and GDAL finds its checksums right."""
    try:
        for each in filter(_GDAL.size, _files_of(name)):
            with _GDAL.open(each) as file:
                while file.read(MIB):
                    pass
    except DataError:
        return False
    return True


class _Stat(NamedTuple):
    st_size: int


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a virtual file system, as far as modules of formats use a `Path`."""

    virtual: str

    def __str__(self) -> str:
        return self.virtual

    @property
    def name(self) -> str:
        return self.virtual.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def with_suffix(self, suffix: str) -> "_File":
        return _File(self.virtual.removesuffix(self.suffix) + suffix)

    def with_name(self, name: str) -> "_File":
        return _File(self.virtual.removesuffix(self.name) + name)

    def exists(self) -> bool:
        return self.is_file()

    def is_dir(self) -> bool:
        return False

    def is_file(self) -> bool:
        return _GDAL.size(self.virtual) > 0

    def stat(self) -> _Stat:
        return _Stat(_GDAL.size(self.virtual))

    def open(self, mode: str = "r", **text: Any) -> IO[Any]:
        file = _GDAL.open(self.virtual)
        return file if "b" in mode else io.TextIOWrapper(file, **text)


def file_of(name: str) -> Path:
    """The file of a name that `named` gave: a `Path`, or what does for one where it is no local file."""
    return Path(name) if is_local(name) else cast("Path", _File(name))


class Listening:
    """A reader of batches that fails where GDAL says of the network, or of unpacking, that it does.

    Where nothing else would tell of rows that are lost (`hears_all`), at whatever GDAL calls an error.
    """

    def __init__(self, reader: Any, origin: Origin, label: str, *, hears_all: bool) -> None:
        self._reader, self._label, self.schema = reader, label, reader.schema
        self._source, self._hears_all = origin.source, hears_all or is_remote(origin.source)
        self._rows = 0

    def read_next_batch(self) -> Any:
        """The next batch; StopIteration after the last, DataError where something was not read."""
        said: list[str] = []
        try:
            with _GDAL.listening(said):
                batch = self._reader.read_next_batch()
        finally:
            self.check(said)
        self._rows += batch.num_rows
        return batch

    def check(self, said: Sequence[str]) -> None:
        """Raises DataError where GDAL said what it means that something was not read."""
        heard = said if self._hears_all else [each for each in said if _OF_PACKED.search(each)]
        if heard:
            words = without_places(" ".join(heard[0].split()))
            behind = f"{self._label}, after {self._rows} features," if self._rows else self._label
            raise _GDAL.cut(self._source, words, behind)

    @property
    def found(self) -> Any:
        """What was found in the latest batch."""
        return self._reader.found

    def __iter__(self) -> Iterator[Any]:
        """All batches that are left."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        return self.read_next_batch()


@contextmanager
def heard(
    batches: AbstractContextManager[tuple[Any, Any]], origin: Origin, label: str, *, hears_all: bool
) -> Iterator[Listening]:
    """What `ogr.open_batches` gives, listened to from its opening on."""
    said: list[str] = []
    _tell(origin.source)  # another source may have been opened since
    with ExitStack() as stack:
        try:
            with _GDAL.listening(said):
                _, reader = stack.enter_context(batches)
        except MemoryError:
            raise
        except Exception as error:
            reason, hint = trouble(origin.source)
            if reason:
                raise DataError(f"{label} can no longer be read: {reason}", hint=hint, path=origin.source) from error
            raise ogr.translated(error, label, writing=False) from error
        listening = Listening(reader, origin, label, hears_all=hears_all)
        listening.check(said)
        yield listening
