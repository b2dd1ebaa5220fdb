"""What rasterio, GDAL and the allocators raise, in our words: memory, output, or data, by what was being done.

Translated where it is raised: `read(fetch, path, window)` for each read, `with writing(path):` around each write.
GDAL has no exception type for "the disk is full" or "no memory", only words; the words here were all seen (FACTS, "Traps").
"""

import contextlib
import errno
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError, RasterioIOError

from lib.errors import DataError, MemoryExceeded, OutputError, SwathError
from lib.memory import cap
from lib.memory.evidence import NEAR_ADDRESS_SPACE_BYTES, speaks_of_memory
from lib.raster.windows import Window

__all__ = ["RASTERIO_ERRORS", "is_allocator", "read", "words", "writing"]

_Read = TypeVar("_Read")

# CPLE_AppDefinedError and its siblings are no RasterioError; RuntimeError is a thread that could not start.
RASTERIO_ERRORS = (RasterioError, RasterioIOError, CPLE_BaseError, RuntimeError, ValueError, OSError)

# libtiff says "No space for LZW hash table", "No space for output buffer" and more of that kind; GDAL's GeoPackage that its tiles
# are too big, where its cache of four is refused.
_ALLOCATORS = ("No space for", "Too big tiles")
_DISK_WORDS = ("no space left", "file too large", "write failed", "write error", "disk quota exceeded")
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})


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
        _raise_if_memory(error, f"reading {path}")
        if not _succeeds(fetch) and cap.lift_address_space_cap() and _succeeds(fetch):
            raise MemoryExceeded(
                f"no memory while reading {path}: it decodes without RLIMIT_AS: {words(error)}"
            ) from error
        where = f" in the window {window}" if window else ""
        raise DataError(f"{path}: a block{where} does not decode: {words(error)}", path=path) from error


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
        _raise_if_memory(error, f"writing {path}")
        said = words(error)
        if not _chain_has_disk_error(error) and cap.is_near_address_space_cap(NEAR_ADDRESS_SPACE_BYTES):
            raise MemoryExceeded(f"no memory while writing {path}: the address space is at its cap: {said}") from error
        full = _chain_has_disk_error(error) or any(word in said.lower() for word in _DISK_WORDS)
        why = "the disk is full or a file-size limit was reached" if full else "GDAL could not write"
        raise OutputError(f"{path}: {why}: {said}", path=path) from error


def words(error: BaseException) -> str:
    """What the error and its causes said, once each, in one line."""
    said: list[str] = []
    for each in _chain(error):
        text = " ".join(str(each).split())
        if text and not any(text in other for other in said):
            said.append(text)
    # rasterio's "Read failed. See previous exception for details." says nothing by itself.
    useful = [text for text in said if "See previous exception" not in text]
    return "; ".join(useful or said) or type(error).__name__


def is_allocator(error: BaseException) -> bool:
    """True where an allocator's words are in what was said."""
    said = words(error)
    return speaks_of_memory(said) or any(each in said for each in _ALLOCATORS)


def _raise_if_memory(error: BaseException, doing: str) -> None:
    if is_allocator(error):
        raise MemoryExceeded(f"no memory while {doing}: {words(error)}") from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _chain_has_disk_error(error: BaseException) -> bool:
    return any(isinstance(each, OSError) and each.errno in _DISK_ERRNOS for each in _chain(error))
