"""A death is memory only on evidence."""

import errno
import signal

import pytest

from lib.errors import ChildDied, ChildStalled, DataError, JobFailed, MemoryExceeded, OutputError
from lib.memory.evidence import Death, classify, explain_exception
from lib.units import MIB

LIMIT = 256 * MIB


@pytest.mark.parametrize(
    "death",
    [
        Death(returncode=-signal.SIGKILL, limit_bytes=LIMIT, held_bytes=LIMIT * 9 // 10 + 1),
        Death(returncode=-signal.SIGSEGV, limit_bytes=LIMIT, last_words="terminate: std::bad_alloc"),
        Death(returncode=1, limit_bytes=LIMIT, last_words="CPLCreateJoinableThread() failed in CPLWorkerThreadPool"),
        Death(returncode=-signal.SIGKILL, limit_bytes=LIMIT, oom_kills=1),
        Death(returncode=-signal.SIGABRT, limit_bytes=LIMIT, virtual_bytes=990 * MIB, address_space_bytes=1000 * MIB),
        Death(returncode=None, stalled_seconds=9.0, limit_bytes=LIMIT, held_bytes=LIMIT),
    ],
    ids=["near the limit", "bad_alloc", "thread", "oom_kill", "address space", "stall near the cap"],
)
def test_a_death_with_evidence_is_memory(death: Death) -> None:
    """Each kind of evidence alone makes a death one of memory, exit 137."""
    error = classify(death, "tile.tif")
    assert isinstance(error, MemoryExceeded)
    assert error.exit_code == 137
    assert "tile.tif" in error.message


@pytest.mark.parametrize(
    ("returncode", "words"),
    [(-signal.SIGSEGV, "SIGSEGV"), (-signal.SIGABRT, "SIGABRT"), (127, "exit code 127"), (-signal.SIGKILL, "SIGKILL")],
)
def test_a_death_without_evidence_is_a_failure_with_its_signal(returncode: int, words: str) -> None:
    """A segfault, an abort, exit 127 or a kill from outside is exit 1 and names itself."""
    error = classify(Death(returncode=returncode, limit_bytes=LIMIT, held_bytes=LIMIT // 2), "tile.tif")
    assert isinstance(error, ChildDied)
    assert error.exit_code == 1
    assert words in error.message


def test_a_stall_far_from_the_limit_is_a_stall() -> None:
    """Silence without evidence is named as such, exit 1."""
    error = classify(Death(returncode=None, stalled_seconds=5.0, limit_bytes=LIMIT, held_bytes=LIMIT // 3), "tile.tif")
    assert isinstance(error, ChildStalled)
    assert "5.0 s" in error.message


def test_exceptions_are_explained_by_what_they_are() -> None:
    """MemoryError, a full disk and anything else each become their own error."""
    assert isinstance(explain_exception(MemoryError(), "x"), MemoryExceeded)
    assert isinstance(explain_exception(OSError(errno.ENOSPC, "No space left on device"), "x"), OutputError)
    assert isinstance(explain_exception(OSError(errno.EFBIG, "File too large"), "x"), OutputError)
    assert isinstance(explain_exception(ValueError("Write failed"), "x"), OutputError)
    assert type(explain_exception(ValueError("odd"), "x")) is JobFailed


def test_a_wrapped_allocator_error_is_memory() -> None:
    """A "Write failed" whose cause is an allocator's refusal is one of memory."""
    error = OutputError("Write failed")
    error.__cause__ = RuntimeError("No space for output buffer")
    assert isinstance(explain_exception(error, "x"), MemoryExceeded)


def test_damaged_data_stays_damaged_data() -> None:
    """A hostile file may make a decoder speak of memory; its own error stands."""
    error = DataError("tile.tif: block 3: Out of memory allocating 2 GB for a tile")
    assert explain_exception(error, "x") is error


def test_an_exception_that_cannot_be_shown_is_named() -> None:
    """One whose own __str__ raises is told by its type."""

    class WeirdError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "Weird" in explain_exception(WeirdError(), "x").message
