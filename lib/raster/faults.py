"""What rasterio, GDAL and the allocators raise, in our words: memory, output, or data, by what was being done.

Translated where it is raised: `read(fetch, path, window)` for each read, `with writing(path):` around each write.
What the words mean is in `lib/diagnosis.py`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError, RasterioIOError

from lib.diagnosis import FULL, FULL_HINT, diagnose, words
from lib.errors import DataError, MemoryExceeded, OutputError, SourceError, SwathError
from lib.memory import cap
from lib.memory.evidence import NEAR_ADDRESS_SPACE_BYTES
from lib.raster import elsewhere
from lib.raster.culprit import culprit
from lib.raster.windows import Window

_Read = TypeVar("_Read")
_Work = TypeVar("_Work", bound=Callable[..., Any])

# CPLE_AppDefinedError and its siblings are no RasterioError; RuntimeError is a thread that could not start.
RASTERIO_ERRORS = (RasterioError, RasterioIOError, CPLE_BaseError, RuntimeError, ValueError, OSError)


def read(fetch: Callable[[], _Read], path: str, window: Window | None = None) -> _Read:
    """What `fetch` reads of the pixels of `path`, with what it raises translated.

    Returns:
        What `fetch` returns.

    Raises:
        DataError: a block that does not decode; names the file and the window.
        MemoryExceeded: an allocator's words; or a decoder that fails twice under the address-space cap and not without it:
            some codecs say only that they failed.
    """
    try:
        return fetch()
    except (MemoryError, SwathError):
        raise
    except RASTERIO_ERRORS as error:
        if diagnose(error) == "memory":
            raise MemoryExceeded(f"no memory while reading {path}: {words(error)}") from error
        reason, todo = elsewhere.trouble(path)
        if reason:
            raise DataError(f"{path} can no longer be read: {reason}", hint=todo, path=path) from error
        if not _succeeds(fetch) and cap.lift_address_space_cap() and _succeeds(fetch):
            raise MemoryExceeded(
                f"no memory while reading {path}: it decodes without RLIMIT_AS: {words(error)}"
            ) from error
        where = f" in the window {window}" if window else ""
        said = words(error)
        cause, hint = culprit(path, said)
        what = f"{path}: {cause}" if cause else f"{path}: a block{where} does not decode"
        raise DataError(f"{what}: {said}", hint=hint, path=path) from error


@contextlib.contextmanager
def header(path: str) -> Iterator[None]:
    """Translate what is raised while something else than pixels is asked of `path`: tags, tables, overviews, its CRS.

    Raises:
        SourceError: it is damaged.
        MemoryExceeded: an allocator's words.
    """
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        if diagnose(error) == "memory":
            raise MemoryExceeded(f"no memory while reading the header of {path}: {words(error)}") from error
        raise SourceError(
            f"{path}: its header cannot be read: {words(error)}", hint="look at it with `gdalinfo`", path=path
        ) from error


def in_header(work: _Work) -> _Work:
    """A function whose first argument is a path, with `header` around it."""

    @functools.wraps(work)
    def within(path: str, *arguments: Any, **named: Any) -> Any:
        with header(path):
            return work(path, *arguments, **named)

    return cast("_Work", within)


def _succeeds(fetch: Callable[[], Any]) -> bool:
    try:
        fetch()
    except (MemoryError, SwathError, *RASTERIO_ERRORS):
        return False
    return True


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Translate what is raised while pixels or the directory of `path` are written.

    Raises:
        OutputError: the disk, a quota or a file-size limit said no, or the driver did.
        MemoryExceeded: an allocator's words, or any while the address space is at its cap: then GDAL says "Write failed", too.
    """
    try:
        yield
    except (MemoryError, SwathError):
        raise
    except RASTERIO_ERRORS as error:
        kind = diagnose(error, at_cap=cap.is_near_address_space_cap(NEAR_ADDRESS_SPACE_BYTES))
        if kind == "memory":
            raise MemoryExceeded(f"no memory while writing {path}: {words(error)}") from error
        why, hint = (FULL, FULL_HINT) if kind in {"disk full", "short"} else ("GDAL could not write", "")
        raise OutputError(f"{path}: {why}: {words(error)}", hint=hint, path=path) from error
