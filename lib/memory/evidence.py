"""How did a child die? Memory only on evidence; anything else is a failure with its signal. Pure.

A tight limit surfaces as "Write failed", as a thread that cannot start, as SIGSEGV, SIGABRT or a hang, so words, sizes and
counters are all looked at; without any of them a death is not called memory. One death of memory is not seen: native code that is
refused one large block and writes to the NULL it got instead dies of SIGSEGV, silent and far from any limit.
"""

import errno
import re
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lib.errors import (
    ChildDied,
    ChildStalled,
    DataError,
    FunctionError,
    JobFailed,
    MemoryExceeded,
    OutputError,
    SwathError,
)
from lib.units import MIB, format_bytes, format_seconds

__all__ = [
    "NEAR_ADDRESS_SPACE_BYTES",
    "Death",
    "all_words",
    "classify",
    "explain_exception",
    "is_refusal",
    "one_line",
    "speaks_of_memory",
]

_NEAR_LIMIT = 0.9
NEAR_ADDRESS_SPACE_BYTES = 16 * MIB
# Seen in what allocators say when RLIMIT_AS holds (GDAL, libtiff, zstd, NumPy, Arrow, glibc, CPython, OpenBLAS). Repetitions are
# bounded, so that the search takes linear time whatever it is given.
_ALLOCATOR_WORDS = re.compile(
    r"No space for output buffer|[Oo]ut of memory|CPLCreateJoinableThread\(\) failed|Unable to allocate|"
    r"[Cc]annot allocate memory|std::bad_alloc|MemoryError|(malloc|realloc) of size \d{1,20} failed|"
    r"can't start new thread|Memory allocation fail(ed|ure)|failed to map segment from shared object|"
    r"pthread_create failed|not enough memory|[Aa]lloc\(\)?:? .{0,80}failed|cannot allocate [\dx]{1,40} bytes",
)
_DISK_ERRORS = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_DISK_WORDS = re.compile(r"No space left|File too large|[Dd]isk quota|database or disk is full|disk I/O error")
_SHOWN_WORDS = 200
_SCANNED_CHARACTERS = 16 * 1024
_ALLOCATING_LIBRARIES = {"rasterio", "pyogrio", "pyarrow", "osgeo"}


def speaks_of_memory(text: str) -> bool:
    """True where an allocator's words stand in the text, in its first or last 16 Ki characters."""
    if len(text) > 2 * _SCANNED_CHARACTERS:
        text = f"{text[:_SCANNED_CHARACTERS]}\n{text[-_SCANNED_CHARACTERS:]}"
    return bool(_ALLOCATOR_WORDS.search(text))


def is_refusal(error: BaseException, *, at_cap: bool = False) -> bool:
    """True where an exception of a user's function is an allocator's refusal, by what it or one of its causes *is*.

    That is MemoryError and errno ENOMEM. Of a library that has no type for it ("Write failed", says GDAL) it is an exception
    with an allocator's words, or any while the address space is at its cap. In a ValueError such words are prose.
    """
    return any(
        isinstance(each, MemoryError)
        or (isinstance(each, OSError) and each.errno == errno.ENOMEM)
        or (_is_of_library(each) and (at_cap or speaks_of_memory(one_line(each))))
        for each in _chain(error)
    )


def _is_of_library(error: BaseException) -> bool:
    """Of a library whose allocators speak through it; of CPython: a thread that cannot start, a library not mapped."""
    if type(error) is RuntimeError:
        return str(error) == "can't start new thread"
    return type(error) is ImportError or type(error).__module__.split(".")[0] in _ALLOCATING_LIBRARIES


def one_line(error: BaseException) -> str:
    """An exception as a traceback ends with it, type and text, in one line; also where its own `__str__` raises."""
    return " ".join("".join(traceback.format_exception_only(error)).split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """What the parent knows of a child that ended without a report.

    Attributes:
        returncode: as `subprocess` has it: negative for a signal; None where the parent ended it for a stall.
        stalled_seconds: how long it had been silent, where the parent ended it for that.
        limit_bytes: the job's limit.
        held_bytes: resident + swapped at the last sample.
        virtual_bytes: virtual size at the last sample.
        address_space_bytes: the soft RLIMIT_AS that held, if one did.
        oom_kills: the cgroup leaf's oom_kill count.
        last_words: the end of its standard error.
    """

    returncode: int | None
    stalled_seconds: float | None = None
    limit_bytes: int
    held_bytes: int = 0
    virtual_bytes: int = 0
    address_space_bytes: int | None = None
    oom_kills: int = 0
    last_words: str = ""


def classify(death: Death, label: str) -> SwathError:
    """The error that this death is; `label` names the job's file."""
    said = " ".join(death.last_words.split())[-_SHOWN_WORDS:]
    evidence = _memory_evidence(death)
    how = _how(death)
    facts: dict[str, Any] = {
        "returncode": death.returncode,
        "held_bytes": death.held_bytes,
        "last_words": death.last_words[-2000:],
    }
    if evidence:
        return MemoryExceeded(
            f"{label}: stopped at its limit of {format_bytes(death.limit_bytes)}: {how}, {evidence}", **facts
        )
    if death.stalled_seconds is not None:
        return ChildStalled(f"{label}: {how}", **facts)
    return ChildDied(
        f"{label}: the job's process {how}" + (f"; its last words: {said}" if said else ""),
        signal=None if death.returncode is None or death.returncode >= 0 else -death.returncode,
        **facts,
    )


def _memory_evidence(death: Death) -> str:
    if death.oom_kills:
        return "the cgroup counts an oom_kill"
    if speaks_of_memory(death.last_words):
        return "an allocator said so"
    if death.held_bytes >= _NEAR_LIMIT * death.limit_bytes:
        return f"it held {format_bytes(death.held_bytes)}"
    cap = death.address_space_bytes
    if cap is not None and death.virtual_bytes >= cap - NEAR_ADDRESS_SPACE_BYTES:
        return f"its address space was at the cap of {format_bytes(cap)}"
    return ""


def _how(death: Death) -> str:
    if death.stalled_seconds is not None:
        return f"made no progress for {format_seconds(death.stalled_seconds)}"
    code = death.returncode or 0
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"


def explain_exception(error: BaseException, label: str) -> SwathError:
    """What an exception in the child is, as an error of ours; those of ours pass."""
    if isinstance(error, SwathError):
        if (
            isinstance(error, JobFailed)
            and not isinstance(error, (DataError, FunctionError))
            and speaks_of_memory(all_words(error))
        ):
            return MemoryExceeded(f"{label}: an allocator was refused: {error.message}")
        return error
    words = all_words(error)
    if is_refusal(error) or speaks_of_memory(words):
        return MemoryExceeded(f"{label}: an allocator was refused: {words}")
    if (isinstance(error, OSError) and error.errno in _DISK_ERRORS) or _DISK_WORDS.search(words):
        return OutputError(f"{label}: writing failed: {words}")
    return JobFailed(f"{label}: unexpected {words}")


def all_words(error: BaseException) -> str:
    """What an exception and its causes say, once each."""
    return "; ".join(dict.fromkeys(map(one_line, _chain(error))))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, each once."""
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen:
        seen.append(each)
        yield each
        each = each.__cause__ or each.__context__
