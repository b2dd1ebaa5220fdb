"""What a disk, an allocator or a driver said, told from its exception or its words: memory, a full disk, I/O, or neither.

GDAL, OGR, SQLite and Arrow have no types for "no memory" and "the disk is full", only words: those here were all seen. Imports no
GIS library. What the words mean for a job, and for a death, is said where they were met (`memory/evidence.py`, the wings).
"""

import errno
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

# "short": a write was cut off, and nobody says why: mostly a full disk, or a limit (`space_is_short`).
Kind = Literal["memory", "disk full", "short", "io", "other"]

_OF_GDALS_SOURCES = re.compile(r"(?:error occurred )?\bin (?:file )?/\S+/(\w+\.\w+),? at line (\d+)", re.IGNORECASE)
FULL = "the disk is full or a file-size limit was reached"

# Of GDAL, libtiff, zstd, NumPy, Arrow, glibc, CPython and OpenBLAS under RLIMIT_AS; "Too big tiles" is GDAL's GeoPackage, whose
# cache of four is refused. Repetitions are bounded, so that the search takes linear time whatever it is given.
_ALLOCATOR = re.compile(
    r"No space for |[Oo]ut of memory|CPLCreateJoinableThread\(\) failed|Unable to allocate|Too big tiles|"
    r"[Cc]annot allocate memory|std::bad_alloc|MemoryError|(malloc|realloc) of size \d{1,20} failed|"
    r"can't start new thread|Memory allocation fail(ed|ure)|failed to map segment from shared object|"
    r"pthread_create failed|not enough memory|[Aa]lloc\(\)?:? .{0,80}failed|cannot allocate [\dx]{1,40} bytes"
)
# NumPy writes "Unable to allocate 890. MiB for an array"; Arrow "malloc of size 64 failed".
_ASKED = re.compile(
    r"Unable to allocate (?P<numpy>[\d.]{1,20}) (?P<unit>[KMGTPE]iB|bytes)|"
    r"(?:(?:malloc|realloc) of size|cannot allocate) (?P<bytes>\d{1,20})(?: bytes| failed)"
)
_FULL = re.compile(r"[Nn]o space left|[Ff]ile too large|[Dd]isk quota|database or disk is full")
# The last is SQLite's last word, not its first: a full disk or an I/O error had ended the transaction
# (sqlite.org/lang_transaction.html).
_SHORT = re.compile(r"[Ww]rite (failed|error)|disk I/O error|cannot rollback - no transaction is active")
_IO = re.compile(r"quota|disk|I/O|failed to write|[Cc]annot write|fwrite|Read-only file system|Permission denied")
# Of decoders, libtiff, SQLite and text formats: the bytes are not what they should be.
_DAMAGE = re.compile(
    r"[Cc]orrupt|[Mm]alformed|[Tt]runcat|[Dd]amaged|[Pp]remature|CRC|[Cc]hecksum|[Uu]nexpected end|[Nn]ot enough data|"
    r"TIFFFillTile|TIFFFillStrip|TIFFReadEncoded|_TIFFPartialRead|[Dd]ecod\w* (error|fail)|[Dd]ecoding error|"
    r"inflate|Using code not yet in table|Bad code|[Ii]nvalid (code|data|stream|block|compressed)|[Rr]ead error|not a database|"
    r"LZW|ZSTD_decompress|[Zz]lib|libpng|libjpeg"
)
DAMAGED_HINT = "the source is damaged: fetch or export it again"
FULL_HINT = "check free space, quota and file-size limits at the destination"
_FULL_ERRORS = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
LIBRARIES = {"rasterio", "pyogrio", "pyarrow", "osgeo"}
_SCANNED_CHARACTERS = 16 * 1024
_POINTS_ELSEWHERE = "See previous exception"


def diagnose(said: BaseException | str, *, at_cap: bool = False, of_user: bool = False) -> Kind:
    """What an exception, or the last words of a process, speak of.

    Args:
        said: an exception, which is judged with its causes; or words, of which the first and last 16 Ki characters are looked at.
        at_cap: the address space is at its cap: then GDAL fails without a word of memory ("Write failed").
        of_user: raised in a user's function: there the words and the cap count only with the exceptions of libraries, as prose
            about memory is no evidence.

    Returns:
        "memory", "disk full", "short" (a write that was cut off), "io" (another failure of files) or "other".
    """
    if isinstance(said, str):
        return _of_words(said)
    errors = list(chain(said))
    if any(isinstance(each, MemoryError) or _has_errno(each, {errno.ENOMEM}) for each in errors):
        return "memory"
    heard = [each for each in errors if not of_user or _is_of_library(each)]
    kind = _of_words("\n".join(map(named, heard)))
    is_full = any(_has_errno(each, _FULL_ERRORS) for each in errors)
    if kind == "memory" or (at_cap and heard and not is_full):
        return "memory"
    if is_full:
        return "disk full"
    return "io" if kind == "other" and any(isinstance(each, OSError) for each in errors) else kind


def _of_words(text: str) -> Kind:
    if len(text) > 2 * _SCANNED_CHARACTERS:
        text = f"{text[:_SCANNED_CHARACTERS]}\n{text[-_SCANNED_CHARACTERS:]}"
    tables: tuple[tuple[Kind, re.Pattern[str]], ...] = (
        ("memory", _ALLOCATOR),
        ("disk full", _FULL),
        ("short", _SHORT),
        ("io", _IO),
    )
    return next((kind for kind, table in tables if table.search(text)), "other")


def speaks_of_damage(text: str) -> bool:
    """Whether words about a file that cannot be read tell of damaged bytes; a missing codec, or a right, does not."""
    return _DAMAGE.search(text[:_SCANNED_CHARACTERS]) is not None


def _has_errno(error: BaseException, numbers: set[int]) -> bool:
    return isinstance(error, OSError) and error.errno in numbers  # GDAL's own errors have an `errno` of another meaning


def _is_of_library(error: BaseException) -> bool:
    """Of a library whose allocators speak through it; of CPython: a thread that cannot start, a library not mapped."""
    if type(error) is RuntimeError:
        return str(error) == "can't start new thread"
    return type(error) is ImportError or type(error).__module__.split(".")[0] in LIBRARIES


def asked_bytes(error: BaseException) -> int:
    """What an allocator was asked for and refused, by the words of NumPy, Arrow or glibc; 0 where they do not say."""
    found = _ASKED.search("\n".join(map(one_line, chain(error))))
    if found is None:
        return 0
    unit = "BKMGTPE".index((found["unit"] or "B")[0].upper())
    return int(float(found["numpy"] or found["bytes"]) * 1024**unit)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, each once."""
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and not any(each is other for other in seen):
        seen.append(each)
        yield each
        each = each.__cause__ or each.__context__


def without_places(words: str) -> str:
    """GDAL's words without the folders of its own sources."""
    return _OF_GDALS_SOURCES.sub(r"error at \1, line \2", words)


def one_line(error: BaseException) -> str:
    """An exception's text in one line; its type's name where it has none, or cannot be shown."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a user's own __str__
        text = ""
    return text or type(error).__name__


def named(error: BaseException) -> str:
    """An exception in one line with its type before it, as a traceback ends."""
    name, text = type(error).__name__, one_line(error)
    return name if text == name else f"{name}: {text}"


def words(error: BaseException) -> str:
    """What an exception and its causes say, once each, in one line; but for those that only point to another."""
    said: list[str] = []
    for text in map(one_line, chain(error)):
        if not any(text in other for other in said):
            said.append(text)
    return "; ".join([text for text in said if _POINTS_ELSEWHERE not in text] or said)


def space_is_short(staged: Path, needed_bytes: int) -> bool:
    """Whether so much may not fit; asked after a failure, when what was written is mostly gone again."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    try:
        free = shutil.disk_usage(staged.parent).free
    except OSError:
        free = needed_bytes
    return free < needed_bytes or (limit != resource.RLIM_INFINITY and limit < needed_bytes)
