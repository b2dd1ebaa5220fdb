"""What a path means, and the name by which each library is given a file so that it takes it literally. No GIS library.

A user's name of something that exists is that file, whatever GDAL would read into it; only else may it be a URL (`https://…`,
`s3://bucket/key`, `zip://a.zip!b.tif`), one of GDAL's virtual files, or a dataset's name with a prefix (`NETCDF:"a.nc":b`).
Inside, local files go by absolute paths, so that no prefix is one. What is left: rasterio and GDAL see a virtual file in `/vsi…`
(`for_gdal`), pyogrio splits at `!`, `;` and `?` (its door is `vector/ogr.py`), and SQLite decodes `%XX` where GDAL makes a URI
(`without_escapes`).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lib.errors import SourceError

_ELSEWHERE = re.compile(r"/vsi|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Of one letter it would be a drive; a time (`scene-2024-01-01T10:30.tif`) has more than letters and digits before its colon.
_WITH_PREFIX = re.compile(r"[a-z][a-z0-9_]+:", re.IGNORECASE)
DESCRIPTORS = Path("/proc/self/fd")
_URL = re.compile(r"((?:zip|tar|gzip)(?:\+[a-z0-9]+)?|https?|ftp|s3|gs|az)://(.*)", re.IGNORECASE | re.DOTALL)
# GDAL's virtual file systems, by the schemes of URLs (gdal.org/user/virtual_file_systems.html).
_SYSTEMS = {
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
    "zip": "/vsizip/",
    "tar": "/vsitar/",
    "gzip": "/vsigzip/",
}
_NETWORK = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)(?:_streaming)?[/?]")
_PACKED = re.compile(r"/vsi(?:zip|tar|gzip|7z|rar)/")
_ARCHIVE = re.compile(
    r"/vsi(?:zip|tar|7z|rar)/(?:\{(?P<braced>.*?)\}|(?P<plain>.*?\.(?:zip|kmz|shz|tar\.gz|tgz|tar|7z|rar)))(?:/.*)?",
    re.DOTALL,
)
ARCHIVES = {
    ".zip": "/vsizip/",
    ".kmz": "/vsizip/",
    ".shz": "/vsizip/",
    ".tar": "/vsitar/",
    ".tgz": "/vsitar/",
    ".tar.gz": "/vsitar/",
}


def is_local(name: str) -> bool:
    """Whether a source's name is that of a local file: it exists, or looks like no other thing.

    False for a URL, one of GDAL's virtual files, a dataset's name with a prefix.
    """
    return os.path.lexists(name) or not (_ELSEWHERE.match(name) or _WITH_PREFIX.match(name))


def is_local_output(name: str) -> bool:
    """Whether an output's name is a local path: one with a prefix is, too, as no such dataset is written."""
    return not _ELSEWHERE.match(name) or Path(name).parent.is_dir()


def whole_path(_value: str) -> int:
    """Where a path begins that is all of a value."""
    return 0


def source_path_at(value: str) -> int:
    """Where the path begins in a further source: behind its name, if it has one; ./ before it says that it has none."""
    name, equals, _ = value.partition("/")[0].partition("=")
    return len(name) + len(equals) if equals else 0


def table_path_at(value: str) -> int | None:
    """Where the path begins in a table of classes; None of one that is written out."""
    return None if "=" in value else 0


def kernel_path_at(value: str) -> int | None:
    """Where the path begins in a kernel; None of one that is written out."""
    return None if re.fullmatch(r"[\d\s.,;eE+-]+", value) else 0


def check_exists(what: str, name: str) -> None:
    """A source or an output that is a local path is there, by a name that GDAL can be given.

    Raises:
        SourceError: it is not; `what` is what it is called in errors.
    """
    if not is_local(name):
        return
    if not Path(name).exists():
        raise SourceError(f"{what} {name} does not exist", hint="check the path")
    if not is_text(os.path.abspath(name)):  # noqa: PTH100 - of the name as it is written, links not followed
        raise SourceError(
            f"{what} {name} has a path that is not UTF-8, which GDAL cannot be given",
            hint="rename it, or give it a link with another name",
        )


def is_text(name: str) -> bool:
    """Whether a path's bytes are UTF-8; others come as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def absolute(source: str) -> str:
    """A local source by its absolute path, as a child or a worker may stand elsewhere; another one as it is."""
    return str(Path(source).absolute()) if is_local(source) else source


def is_remote(name: str) -> bool:
    """Whether GDAL fetches a source over a network, by itself or out of an archive there."""
    return not is_local(name) and _NETWORK.search(_virtual(name)) is not None


def is_packed(name: str) -> bool:
    """Whether a source is read out of an archive or a compressed file by one of GDAL's virtual file systems."""
    return not is_local(name) and _PACKED.search(_virtual(name)) is not None


def container(name: str) -> str:
    """The file, as GDAL names it, whose bytes a source is read from: of what is in an archive, the archive."""
    inner = for_gdal(name)
    if ':"' in inner:  # a sub-dataset
        inner = inner.split('"')[1]
    while not is_local(inner):
        if inner.startswith("/vsigzip/"):
            inner = inner.removeprefix("/vsigzip/")
        elif found := _ARCHIVE.fullmatch(inner):
            inner = found["braced"] or found["plain"]
        else:
            break
        inner = f"/{inner}" if inner.startswith("vsi") else inner
    return inner


def archive_system(name: str) -> str:
    """The virtual file system that lists what an archive holds, by the archive's suffix; "" for what is none."""
    path = name.split("?", maxsplit=1)[0] if not is_local(name) else name
    return next((system for suffix, system in ARCHIVES.items() if path.lower().endswith(suffix)), "")


def _virtual(name: str) -> str:
    """A URL as GDAL's virtual file; another name as it is."""
    found = _URL.fullmatch(name)
    if found is None:
        return name
    kinds, rest = found[1].lower(), found[2]
    packing, _, scheme = kinds.partition("+") if "+" in kinds or kinds in {"zip", "tar", "gzip"} else ("", "", kinds)
    archive, _, inner = rest.partition("!") if packing else (rest, "", "")
    system = _SYSTEMS.get(scheme, f"/vsicurl/{scheme}://") if scheme and scheme != "file" else ""
    if not packing:
        return system + archive
    within = system + archive
    return f"{_SYSTEMS[packing]}{{{within}}}/{inner.lstrip('/')}" if inner else f"{_SYSTEMS[packing]}{within}"


def for_gdal(name: str | Path) -> str:
    """The name by which GDAL and rasterio open a local file, or create one, literally; a URL as GDAL's virtual file."""
    if isinstance(name, str) and not is_local(name):
        return _virtual(name)
    path = absolute(name) if isinstance(name, str) else str(name.absolute())
    is_virtual_to_gdal = path.startswith("/vsi") and (isinstance(name, Path) or is_local(name))
    return f"/.{path}" if is_virtual_to_gdal else path


@contextlib.contextmanager
def without_escapes(path: str) -> Iterator[str | None]:
    """A name of an existing file in which a URI finds nothing to decode; None where the system has no such name.

    It is that of an open descriptor: SQLite follows it to the real file, and looks for that one's journals.
    """
    if "%" not in path:
        yield path
    elif not DESCRIPTORS.is_dir():
        yield None
    else:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield str(DESCRIPTORS / str(descriptor))
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def while_written(path: Path) -> Iterator[Path]:
    """A new file's name while it is written: some of GDAL's drivers take a backslash for a folder's end."""
    written = path.with_name(path.name.replace("\\", "_"))
    yield written
    if written != path:
        written.rename(path)
