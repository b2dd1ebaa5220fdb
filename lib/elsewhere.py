"""Sources that are no local files: behind a network or in an archive. What GDAL is told of networks, and asked of such files.

By the C functions of GDAL's virtual file systems, which no binding reaches: rasterio and pyogrio each bring their own GDAL, and
each wing has a `Gdal` of its own (`raster/elsewhere.py`, `vector/elsewhere.py`). What servers answer becomes one line here.
Names are in `lib/paths.py`; credentials come from the environment, where GDAL finds them (`AWS_…`).
"""

import contextlib
import ctypes
import functools
import io
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from lib.diagnosis import DAMAGED_HINT
from lib.errors import DataError, SourceError
from lib.paths import archive_system, container, for_gdal, is_local, is_remote
from lib.units import MIB, file_label

__all__ = ["CACHE_BYTES", "Gdal", "State", "cache_bytes", "function", "switches"]

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
_LOOKED_BYTES = 64
_SEEK_END = 2
_ZIP = b"PK\x03\x04"
_CLEAR = (".zip", ".kmz", ".tar", ".tgz", ".tar.gz")
_FAILURE = 3  # CPLErr
_UNCLEAR = re.compile(r"[?{}]|\.(?:zip|tar|t?gz|kmz|7z|rar)/", re.IGNORECASE)
_POINTER, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
_TEXTS = ctypes.POINTER(_TEXT)
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_int, _TEXT)  # CPLErrorHandler
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "VSIFOpenExL": (_POINTER, _TEXT, _TEXT, ctypes.c_int),
    "VSIErrorReset": (None,),
    "VSIGetLastErrorMsg": (_TEXT,),
    "VSIFSeekL": (ctypes.c_int, _POINTER, ctypes.c_uint64, ctypes.c_int),
    "VSIFTellL": (ctypes.c_uint64, _POINTER),
    "VSIFReadL": (_SIZE, _POINTER, _SIZE, _SIZE, _POINTER),
    "VSIFErrorL": (ctypes.c_int, _POINTER),
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
_AGAIN = "run again; if it fails again, fetch the file"
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
    """GDAL's options for networks, where the environment has none of its own; those that memory depends on are ours.

    Nor is the size of what a gzip holds kept beside it.
    """
    own = {name: os.environ.get(name, value) for name, value in _SWITCHES.items()}
    return own | {
        "CPL_VSIL_CURL_CACHE_SIZE": str(CACHE_BYTES),
        "VSI_CACHE": "NO",
        "CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO",
    }


def cache_bytes(path: str, source_bytes: int) -> int:
    """What GDAL keeps at most of what it fetches of a source."""
    return min(CACHE_BYTES, source_bytes or CACHE_BYTES) if is_remote(path) else 0


@functools.cache
def function(library: str, name: str, signature: tuple[Any, ...]) -> Any:
    """A C function of the GDAL that an extension module is linked with; of its signature the result's type is first."""
    result, *arguments = signature
    found = getattr(ctypes.CDLL(library), name)
    found.restype, found.argtypes = result, arguments
    return found


@dataclass(frozen=True, slots=True)
class Gdal:
    """The virtual file systems of one GDAL.

    Attributes:
        library: the extension module that is linked with it.
        kind: of data, as GDAL's flag for opening datasets (`GDAL_OF_…`).
        noun: what a dataset is called.
        mains: of names in an archive those that may be datasets by themselves.
    """

    library: str
    kind: int
    noun: str
    mains: Callable[[Sequence[str]], list[str]]

    def forget(self, path: str) -> None:
        """Let nothing that was fetched of a remote source before, for another job, be taken for what it is now."""
        if is_remote(path):
            self.c_function("VSICurlClearCache")()  # the lists of folders, too, which no prefix of a file clears

    def size(self, path: str) -> int:
        """Bytes of a source in one of GDAL's virtual file systems, unpacked; 0 where that is not known."""
        name = for_gdal(path)
        if is_local(path) or not name.startswith("/vsi"):
            return 0
        with self.quiet(), self._opened(name) as file:
            if not file or self.c_function("VSIFSeekL")(file, 0, _SEEK_END):
                return 0
            return int(self.c_function("VSIFTellL")(file))

    def files_in(self, folder: str) -> list[str]:
        """The files in a folder, each by its name; the first thousand."""
        with self.quiet():
            names = self._texts(self.c_function("VSIReadDirRecursive")(for_gdal(folder).encode()))[:_MOST_LISTED]
        return [f"{for_gdal(folder)}/{name}" for name in names if not name.endswith("/")]

    def open(self, name: str) -> BinaryIO:
        """A file of a virtual file system, to read; raises FileNotFoundError, or DataError where its server fails."""
        try:
            return cast("BinaryIO", io.BufferedReader(_File(self, name)))
        except FileNotFoundError:
            if self.trouble(name)[0]:
                raise self.cut(name, "") from None
            raise

    def state(self, path: str) -> State | None:
        """What the server says now of a remote source, or of the archive that it is in; None of a source that is not remote."""
        if not is_remote(path):
            return None
        with self.quiet():
            found = self._texts(self.c_function("VSIGetFileMetadata")(container(path).encode(), b"HEADERS", None))
        headers = {name.lower(): value.strip() for name, _, value in (each.partition("=") for each in found)}
        whole = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length", "")
        return State(int(whole) if whole.isdigit() else None, headers.get("etag"), headers.get("last-modified"))

    def check_unchanged(self, path: str, before: State | None) -> None:
        """A remote source is still what it was when it was opened, as far as its server tells.

        Raises:
            DataError: it is not.
        """
        if before is None:
            return
        now = self.state(path)
        differ = [
            name for name, was, at in zip(State._fields, before, now or before, strict=True) if at and was and at != was
        ]
        if differ:
            raise DataError(
                f"{path} has changed while it was read: its server says so ({', '.join(differ)})",
                hint="run again when nobody writes it",
                path=path,
            )

    def refusal(self, path: str, words: str) -> SourceError | None:
        """Why a source that does not open is not one, where that is for its server or its archive to say; else None."""
        system = self.system(path)
        if is_remote(path) and not system:
            reason, hint = self._reason(path, words)
            return SourceError(f"{path} cannot be opened: {reason}", hint=hint, path=path) if reason else None
        if not system:
            return None
        inside = self.inside(path)
        if len(inside) > 1:
            listed = [shlex.quote(each) for each in inside[:_MOST_SHOWN]]
            more = f" and {len(inside) - _MOST_SHOWN} more" if len(inside) > _MOST_SHOWN else ""
            return SourceError(
                f"{path} holds {len(inside)} {self.noun}s",
                hint=f"name one of them: {' '.join(listed)}{more}",
                path=path,
            )
        if is_remote(path) and (found := self._reason(path, words))[0]:
            return SourceError(f"{path} cannot be opened: {found[0]}", hint=found[1], path=path)
        more = "; where its server does not give parts of files, fetch it first" if is_remote(path) else ""
        hint = f"it holds {self._listed(path, system)}{more}"
        return SourceError(f"{path} holds no {self.noun}", hint=hint, path=path)

    def only_one_inside(self, path: str) -> str | None:
        """The name of the one dataset in an archive; None where there are none or several, or it is no archive."""
        inside = self.inside(path)
        return inside[0] if len(inside) == 1 else None

    def cut(self, path: str, words: str, label: str = "") -> DataError:
        """That a source which was opened can no longer be read: what its server says, or else these words of GDAL's."""
        reason, hint = self.trouble(path)
        if not reason and is_remote(path):  # a short answer cannot be told from a damaged file
            reason, hint = "its server's answer was cut short, or it is damaged there", _AGAIN
        why = ": ".join(filter(None, (reason, words if hint in {"", _AGAIN} else ""))) or "its bytes end early"
        return DataError(
            f"{label or file_label(path)} can no longer be read: {why}", hint=hint or DAMAGED_HINT, path=path
        )

    def trouble(self, path: str, words: str = "") -> tuple[str, str]:
        """What keeps a remote source from being read now, of which these words were said, and what to do; else both empty."""
        return self._reason(path, words) if is_remote(path) else ("", "")

    def _reason(self, path: str, words: str) -> tuple[str, str]:
        """Asked anew, as what was said last may be of a sidecar."""
        said = self._asked_again(container(path))
        said = f"{words} {said}" if said in {"", _NOTHING} else said
        for pattern, reason, hint in _REASONS:
            if found := re.search(pattern, said):
                status = found.groupdict().get("status")
                return f"{reason} ({status})" if status else reason, hint
        return "", ""

    def _asked_again(self, name: str) -> str:
        """What GDAL says when the first bytes of a file are fetched anew; "" where it gets them."""
        with self.quiet():
            self.c_function("VSICurlPartialClearCache")(name.encode())
            with self._opened(name) as file:
                buffer = ctypes.create_string_buffer(_LOOKED_BYTES)
                if file and self.c_function("VSIFReadL")(buffer, 1, _LOOKED_BYTES, file):
                    return ""
            said = [self.c_function(each)() or b"" for each in ("VSIGetLastErrorMsg", "CPLGetLastErrorMsg")]
        return b"; ".join(filter(None, said)).decode(errors="replace") or _NOTHING

    def system(self, path: str) -> str:
        """The virtual file system that lists an archive, by its suffix, of a local file else by its first bytes; "" for none."""
        return archive_system(path) or ("/vsizip/" if is_local(path) and _begins(path) == _ZIP else "")

    def inside(self, path: str) -> list[str]:
        """The datasets in an archive, each by a name that opens; none where it is no archive."""
        system = self.system(path)
        mains = self.mains(self.members(path, system)) if system else []
        return [each for each in mains if self.is_one(each)]

    def members(self, path: str, system: str) -> list[str]:
        """The files in an archive, each by its name in the system that lists it; the first thousand."""
        archive = for_gdal(path) if is_local(path) else container(path)
        # Where GDAL would not find the archive's end by itself, braces say it.
        is_clear = archive.lower().endswith(_CLEAR) and not _UNCLEAR.search(archive)
        folder = f"{system}{archive}" if is_clear else f"{system}{{{archive}}}"
        with self.quiet():
            names = self._texts(self.c_function("VSIReadDirRecursive")(folder.encode()))[:_MOST_LISTED]
        return [f"{folder}/{name}" for name in names if not name.endswith("/")]

    def _listed(self, path: str, system: str) -> str:
        names = [each.rpartition("/")[2] for each in self.members(path, system)]
        return ", ".join(names[:_MOST_SHOWN]) or "nothing that GDAL can list"

    def is_one(self, name: str) -> bool:
        """Whether a driver of GDAL's knows it for a dataset."""
        with self.quiet():
            return bool(self.c_function("GDALIdentifyDriverEx")(name.encode(), self.kind, None, None))

    @contextlib.contextmanager
    def listening(self, said: list[str]) -> Iterator[None]:
        """What GDAL says in this thread of errors behind which a call went on is gathered, and not printed."""

        def handle(severity: int, number: int, text: bytes | None) -> None:
            del number
            if severity >= _FAILURE:
                said.append((text or b"").decode(errors="replace"))

        handler = _HANDLER(handle)  # alive as long as GDAL has it
        self.c_function("CPLPushErrorHandler")(ctypes.cast(handler, _POINTER))
        try:
            yield
        finally:
            self.c_function("CPLPopErrorHandler")()

    def c_function(self, name: str) -> Any:
        """One of those in `_SIGNATURES`."""
        return function(self.library, name, _SIGNATURES[name])

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """GDAL keeps its last error and prints none."""
        handler = ctypes.cast(ctypes.CDLL(self.library).CPLQuietErrorHandler, _POINTER)
        self.c_function("CPLPushErrorHandler")(handler)
        for name in ("CPLErrorReset", "VSIErrorReset"):
            self.c_function(name)()
        try:
            yield
        finally:
            self.c_function("CPLPopErrorHandler")()

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        file = self.c_function("VSIFOpenExL")(name.encode(), b"rb", True)
        try:
            yield file
        finally:
            if file:
                self.c_function("VSIFCloseL")(file)

    def _texts(self, array: Any) -> list[str]:
        found: list[str] = []
        while array and (each := array[len(found)]) is not None:
            found.append(each.decode(errors="replace"))
        if array:
            self.c_function("CSLDestroy")(array)
        return found


class _File(io.RawIOBase):
    """What `Gdal.open` reads from."""

    def __init__(self, gdal: Gdal, name: str) -> None:
        super().__init__()
        self._gdal, self._name = gdal, name
        with gdal.quiet():
            self._file = gdal.c_function("VSIFOpenExL")(name.encode(), b"rb", True)
        if not self._file:
            raise FileNotFoundError(name)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes; raises DataError where the network or the packing gives no more of them."""
        into = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        with self._gdal.quiet():
            found = int(self._gdal.c_function("VSIFReadL")(into, 1, len(buffer), self._file))
            is_cut = found < len(buffer) and self._is_cut()
        if is_cut:
            raise self._gdal.cut(self._name, "")
        return found

    def _is_cut(self) -> bool:
        """Whether there should be more. Of what a tar holds its size is known; GDAL calls the end of a packed one an error."""
        if self._name.startswith("/vsitar/"):
            return int(self._gdal.c_function("VSIFTellL")(self._file)) < self._gdal.size(self._name)
        return bool(self._gdal.c_function("VSIFErrorL")(self._file))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place; where that is."""
        with self._gdal.quiet():
            self._gdal.c_function("VSIFSeekL")(self._file, offset, whence)
            return int(self._gdal.c_function("VSIFTellL")(self._file))

    def close(self) -> None:
        """Let go of it."""
        if self._file:
            self._gdal.c_function("VSIFCloseL")(self._file)
            self._file = None
        super().close()


def _begins(path: str) -> bytes:
    """The first bytes of a local file; none where it is a folder, or cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path's name, as GDAL is given it
            return file.read(len(_ZIP))
    except OSError:
        return b""
