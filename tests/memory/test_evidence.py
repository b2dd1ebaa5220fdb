"""A death is memory only on evidence."""

import errno
import signal
import time

import pytest

from lib.errors import ChildDied, ChildStalled, DataError, JobFailed, MemoryExceeded, OutputError
from lib.memory.evidence import Death, classify, explain_exception, is_refusal, speaks_of_memory
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


@pytest.mark.parametrize(
    "words",
    [
        "No space for output buffer",
        "Out of memory allocating 4194304 bytes",
        "CPLCreateJoinableThread() failed in CPLWorkerThreadPool::Setup()",
        "Unable to allocate 3.73 GiB for an array",
        "malloc of size 1048576 failed",
        "cannot allocate memory for thread-local data",
    ],
)
def test_allocators_words_are_known(words: str) -> None:
    """What allocators were seen to say counts as evidence."""
    assert speaks_of_memory(words)


@pytest.mark.parametrize(
    "words", ["", "No such file or directory", "no space left on device", "memory map of the tiles"]
)
def test_other_words_are_not_taken_for_memory(words: str) -> None:
    """A disk, a path or the mere word is no evidence."""
    assert not speaks_of_memory(words)


def test_exceptions_are_explained_by_what_they_are() -> None:
    """MemoryError, a full disk and anything else each become their own error."""
    assert isinstance(explain_exception(MemoryError(), "x"), MemoryExceeded)
    assert isinstance(explain_exception(OSError(errno.ENOSPC, "No space left on device"), "x"), OutputError)
    assert isinstance(explain_exception(OSError(errno.EFBIG, "File too large"), "x"), OutputError)
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


class _OfRasterioError(Exception):
    """Stands for rasterio's own errors, which are known by the module of their type."""

    __module__ = "rasterio.errors"


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        _caused(ValueError("bad thing"), MemoryError("x")),
        _caused(ValueError("bad thing"), OSError(errno.ENOMEM, "Cannot allocate memory")),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
        _OfRasterioError("memdataset.cpp, 1431: cannot allocate 1x10000000000 bytes"),
        _caused(ValueError("no output"), _OfRasterioError("Out of memory allocating 4194304 bytes")),
    ],
    ids=repr,
)
def test_a_refusal_is_known_by_what_was_raised(error: Exception) -> None:
    """The type or the errno, anywhere among the causes; words only from libraries that have nothing else."""
    assert is_refusal(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("river is out of memory of men"),
        KeyError("out of memory"),
        RuntimeError("Unable to allocate seats"),
        OSError(errno.ENOSPC, "Out of memory on the card"),
        ModuleNotFoundError("No module named 'Out of memory'"),
        _OfRasterioError("Write failed"),
    ],
    ids=repr,
)
def test_prose_is_no_refusal(error: Exception) -> None:
    """Whoever writes of memory in an error of his own has not run out of it."""
    assert not is_refusal(error)


def test_a_wordless_failure_of_a_library_is_one_at_the_cap() -> None:
    """GDAL says "Write failed" when RLIMIT_AS holds; of other exceptions the cap says nothing."""
    assert is_refusal(_OfRasterioError("Write failed"), at_cap=True)
    assert not is_refusal(ValueError("Write failed"), at_cap=True)


@pytest.mark.parametrize("text", ["x" * 500_000, "alloc( " * 100_000, "malloc of size " + "1" * 500_000])
def test_the_search_for_allocators_words_takes_linear_time(text: str) -> None:
    """Half a megabyte of almost nothing, and one word: of a long text both ends are looked at, in no time."""
    began = time.process_time()
    assert not speaks_of_memory(text)
    assert not speaks_of_memory(text[:30_000])
    assert time.process_time() - began < 1
    assert speaks_of_memory(text + "Out of memory")


def test_an_exception_that_cannot_be_shown_is_named() -> None:
    """One whose own __str__ raises is told by its type."""

    class WeirdError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "Weird" in explain_exception(WeirdError(), "x").message
