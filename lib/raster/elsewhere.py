"""Sources that are no local files: behind a network or in an archive. What GDAL is told of networks, and asked of such files.

By the C functions of GDAL's virtual file systems, which rasterio does not reach. What servers answer becomes one line here.
Names are in `lib/paths.py`; credentials come from the environment, where GDAL finds them (`AWS_…`).
"""

import contextlib
import ctypes
import functools
import os
import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from rasterio import _base

from lib.errors import DataError, SourceError
from lib.paths import archive_system, container, for_gdal, is_local, is_remote
from lib.raster import gdal
from lib.units import MIB

# What GDAL keeps of what it fetched; a plan counts it. Windows are whole rows of blocks: little is asked for twice.
CACHE_BYTES = 4 * MIB
_SWITCHES = {
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    # A server that says nothing for so long hangs; it is asked four times at most, within `startup_seconds`.
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
}
_MOST_LISTED, _MOST_SHOWN = 1000, 20
_OF_OTHERS = (".msk", ".ovr", ".aux.xml")
_LOOKED_BYTES = 64
_SEEK_END, _RASTER = 2, 2
_UNCLEAR = re.compile(r"[?{}]|\.(?:zip|tar|t?gz|kmz|7z|rar)/", re.IGNORECASE)
_POINTER, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
_TEXTS = ctypes.POINTER(_TEXT)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "VSIFOpenExL": (_POINTER, _TEXT, _TEXT, ctypes.c_int),
    "VSIErrorReset": (None,),
    "VSIGetLastErrorMsg": (_TEXT,),
    "VSIFSeekL": (ctypes.c_int, _POINTER, ctypes.c_uint64, ctypes.c_int),
    "VSIFTellL": (ctypes.c_uint64, _POINTER),
    "VSIFReadL": (_SIZE, _POINTER, _SIZE, _SIZE, _POINTER),
    "VSIFCloseL": (ctypes.c_int, _POINTER),
    "VSIGetFileMetadata": (_TEXTS, _TEXT, _TEXT, _POINTER),
    "VSIReadDirRecursive": (_TEXTS, _TEXT),
    "VSICurlClearCache": (None,),
    "VSICurlPartialClearCache": (None, _TEXT),
    "GDALIdentifyDriverEx": (_POINTER, _TEXT, ctypes.c_uint, _POINTER, _POINTER),
    "CSLDestroy": (None, _TEXTS),
    "CPLErrorReset": (None,),
    "CPLGetLastErrorMsg": (_TEXT,),
    "CPLPushErrorHandler": (None, _POINTER),
    "CPLPopErrorHandler": (None,),
}
_ENVIRONMENT_HINT = (
    "give credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; "
    "AWS_NO_SIGN_REQUEST=YES for a public bucket"
)
_LATER = "try again later; GDAL_HTTP_MAX_RETRY and GDAL_HTTP_RETRY_DELAY say how often it is asked"
_NOTHING = "no bytes"
# What GDAL and curl say, what that means, and what to do.
_REASONS = (
    (r"NoSuchBucket|BucketNotFound", "its bucket does not exist", "check the bucket's name and AWS_REGION"),
    (
        r"code: 404|NoSuchKey|ObjectNotFound|does not exist in the file system|No such file",
        "the server has no such file (404)",
        "check the name",
    ),
    (r"InvalidCredentials|No valid AWS credentials", "there are no credentials for it", _ENVIRONMENT_HINT),
    (r"code(?: on \S+)?: 40[13]|AccessDenied|SignatureDoesNotMatch|InvalidAccessKey", "access is refused", _ENVIRONMENT_HINT),
    (r"Range downloading not supported", "its server does not give parts of files", "fetch it first"),
    (r"Could not resolve", "its host is not known", "check the host's name, and the network"),
    (r"Failed to connect|Could not connect|Connection refused", "its server cannot be reached", "check host and port"),
    (
        r"too slow|[Tt]imed out|[Tt]imeout",
        "its server does not answer",
        "try again later; GDAL_HTTP_LOW_SPEED_TIME says how many seconds are waited",
    ),
    (r"(?:response|error) code: (?P<status>\d+)|SlowDown|InternalError", "its server failed", _LATER),
    (r"CURL error", "the connection failed", _LATER),
    (_NOTHING, "its server gives no bytes of it", _LATER),
)  # fmt: skip


_alone: set[str] = set()


class State(NamedTuple):
    """What a server says of a file, by which a change shows; None where it does not.

    Attributes:
        bytes: its size.
        etag: of its content, as it comes.
        modified: when it was, as it comes.
    """

    bytes: int | None
    etag: str | None
    modified: str | None


def switches() -> dict[str, str]:
    """GDAL's options for networks, where the environment has none of its own; those that memory depends on are ours."""
    own = {name: os.environ.get(name, value) for name, value in _SWITCHES.items()}
    return own | {"CPL_VSIL_CURL_CACHE_SIZE": str(CACHE_BYTES), "VSI_CACHE": "NO"}


def opening_switches(path: str) -> dict[str, str]:
    """Options for opening a source: how sidecars (masks, RPCs, .aux.xml) of a remote one are found, which EMPTY_DIR would lose.

    A bucket is listed: one request, which GDAL bounds to a thousand names. A web server's page of a folder has no bound: there
    GDAL asks for 40 names, one by one, but only once: where nothing is beside the file, it is told so from then on.
    """
    if not is_remote(path):
        return {}
    by_name = "TRUE" if "/vsicurl" in for_gdal(path) else "FALSE"
    return {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if path in _alone else by_name}


def note_opened(path: str, dataset: Any) -> None:
    """Remember of a remote source that nothing lies beside it; its mask GDAL would only look for when that is read."""
    if is_remote(path) and path not in _alone and len(dataset.files) == 1 and not size(f"{dataset.files[0]}.msk"):
        _alone.add(path)


def cache_bytes(path: str, source_bytes: int) -> int:
    """What GDAL keeps at most of what it fetches of a source."""
    return min(CACHE_BYTES, source_bytes or CACHE_BYTES) if is_remote(path) else 0


def forget(path: str) -> None:
    """Let nothing that was fetched of a remote source before, for another job of this process, be taken for what it is now."""
    if is_remote(path):
        _alone.discard(path)
        _function("VSICurlClearCache")()  # the lists of folders, too, which no prefix of a file clears


def size(path: str) -> int:
    """Bytes of a source in one of GDAL's virtual file systems, unpacked; 0 where that is not known."""
    name = for_gdal(path)
    if is_local(path) or not name.startswith("/vsi"):
        return 0
    with _quiet(), _opened(name) as file:
        if not file or _function("VSIFSeekL")(file, 0, _SEEK_END):
            return 0
        return int(_function("VSIFTellL")(file))


def state(path: str) -> State | None:
    """What the server says now of a remote source, or of the archive that it is in; None of a source that is not remote."""
    if not is_remote(path):
        return None
    with _quiet():
        found = _texts(_function("VSIGetFileMetadata")(container(path).encode(), b"HEADERS", None))
    headers = {name.lower(): value.strip() for name, _, value in (each.partition("=") for each in found)}
    whole = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length", "")
    return State(int(whole) if whole.isdigit() else None, headers.get("etag"), headers.get("last-modified"))


def check_unchanged(path: str, before: State | None) -> None:
    """A remote source is still what it was when it was opened, as far as its server tells.

    Raises:
        DataError: it is not.
    """
    if before is None:
        return
    now = state(path)
    differ = [
        name for name, was, at in zip(State._fields, before, now or before, strict=True) if at and was and at != was
    ]
    if differ:
        raise DataError(
            f"{path} has changed while it was read: its server says so ({', '.join(differ)})",
            hint="run again when nobody writes it",
            path=path,
        )


def refusal(path: str, words: str) -> SourceError | None:
    """Why a source that does not open is not one, where that is for its server or its archive to say; else None."""
    system = archive_system(path)
    if is_remote(path) and not system:
        reason, hint = _reason(path, words)
        return SourceError(f"{path} cannot be opened: {reason}", hint=hint, path=path) if reason else None
    if not system:
        return None
    inside = _inside(path, system)
    if len(inside) > 1:
        listed = [shlex.quote(each) for each in inside[:_MOST_SHOWN]]
        more = f" and {len(inside) - _MOST_SHOWN} more" if len(inside) > _MOST_SHOWN else ""
        return SourceError(
            f"{path} holds {len(inside)} rasters", hint=f"name one of them: {' '.join(listed)}{more}", path=path
        )
    if is_remote(path) and (found := _reason(path, words))[0]:
        return SourceError(f"{path} cannot be opened: {found[0]}", hint=found[1], path=path)
    return SourceError(f"{path} holds no raster", hint=f"it holds {_listed(path, system)}", path=path)


def only_one_inside(path: str) -> str | None:
    """The name of the one raster in an archive; None where there are none or several, or it is no archive."""
    system = archive_system(path)
    inside = _inside(path, system) if system else []
    return inside[0] if len(inside) == 1 else None


def trouble(path: str) -> tuple[str, str]:
    """What keeps a remote source from being read now, and what to do; both empty where nothing does."""
    return _reason(path, "") if is_remote(path) else ("", "")


def _reason(path: str, words: str) -> tuple[str, str]:
    """Asked anew, as what was said last may be of a sidecar."""
    said = _asked_again(container(path))
    said = f"{words} {said}" if said in {"", _NOTHING} else said
    for pattern, reason, hint in _REASONS:
        if found := re.search(pattern, said):
            status = found.groupdict().get("status")
            return f"{reason} ({status})" if status else reason, hint
    return "", ""


def _asked_again(name: str) -> str:
    """What GDAL says when the first bytes of a file are fetched anew; "" where it gets them."""
    with _quiet():
        _function("VSICurlPartialClearCache")(name.encode())
        with _opened(name) as file:
            buffer = ctypes.create_string_buffer(_LOOKED_BYTES)
            if file and _function("VSIFReadL")(buffer, 1, _LOOKED_BYTES, file):
                return ""
        said = [_function(each)() or b"" for each in ("VSIGetLastErrorMsg", "CPLGetLastErrorMsg")]
    return b"; ".join(filter(None, said)).decode(errors="replace") or _NOTHING


def _inside(path: str, system: str) -> list[str]:
    """The rasters in an archive, each by a name that opens."""
    return [each for each in _members(path, system) if _is_raster(each)]


def _members(path: str, system: str) -> list[str]:
    archive = for_gdal(path)
    # Where GDAL would not find the archive's end by itself, braces say it.
    folder = f"{system}{{{archive}}}" if _UNCLEAR.search(archive) else f"{system}{archive}"
    with _quiet():
        names = _texts(_function("VSIReadDirRecursive")(folder.encode()))[:_MOST_LISTED]
    return [f"{folder}/{name}" for name in names if not name.endswith("/")]


def _listed(path: str, system: str) -> str:
    names = [each.rpartition("/")[2] for each in _members(path, system)]
    return ", ".join(names[:_MOST_SHOWN]) or "nothing that GDAL can list"


def _is_raster(name: str) -> bool:
    if name.lower().endswith(_OF_OTHERS):
        return False
    with _quiet():
        return bool(_function("GDALIdentifyDriverEx")(name.encode(), _RASTER, None, None))


@functools.cache
def _function(name: str) -> Any:
    return gdal.function(name, _SIGNATURES[name])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """GDAL keeps its last error and prints none."""
    handler = ctypes.cast(ctypes.CDLL(_base.__file__).CPLQuietErrorHandler, _POINTER)
    _function("CPLPushErrorHandler")(handler)
    for name in ("CPLErrorReset", "VSIErrorReset"):
        _function(name)()
    try:
        yield
    finally:
        _function("CPLPopErrorHandler")()


@contextlib.contextmanager
def _opened(name: str) -> Iterator[Any]:
    file = _function("VSIFOpenExL")(name.encode(), b"rb", True)
    try:
        yield file
    finally:
        if file:
            _function("VSIFCloseL")(file)


def _texts(array: Any) -> list[str]:
    found: list[str] = []
    while array and (each := array[len(found)]) is not None:
        found.append(each.decode(errors="replace"))
    if array:
        _function("CSLDestroy")(array)
    return found
