"""What a path means, and the name by which each library is given a file so that it takes it literally. No GIS library.

A user's name of something that exists is that file, whatever GDAL would read into it; only else may it be a URL, one of GDAL's
virtual files, or a dataset's name with a prefix (`NETCDF:"a.nc":b`). Inside, local files go by absolute paths, so that no
prefix is one. What is left: rasterio and GDAL see a virtual file in `/vsi…` (`for_gdal`), pyogrio splits at `!`, `;` and `?` (its
door is `vector/ogr.py`), and SQLite decodes `%XX` where GDAL makes a URI (`without_escapes`).
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


def is_local(name: str) -> bool:
    """Whether a source's name is that of a local file: it exists, or looks like no other thing.

    False for a URL, one of GDAL's virtual files, a dataset's name with a prefix.
    """
    return os.path.lexists(name) or not (_ELSEWHERE.match(name) or _WITH_PREFIX.match(name))


def is_local_output(name: str) -> bool:
    """Whether an output's name is a local path: one with a prefix is, too, as no such dataset is written."""
    return not _ELSEWHERE.match(name) or Path(name).parent.is_dir()


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


def for_gdal(name: str | Path) -> str:
    """The name by which GDAL and rasterio open a local file, or create one, literally; that of another source as it is."""
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
