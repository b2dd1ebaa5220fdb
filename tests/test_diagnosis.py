"""What a disk, an allocator or a driver said: told from types, error numbers and words that were seen."""

import errno
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from lib.diagnosis import Kind, asked_bytes, diagnose, named, one_line, space_is_short, words


class _OfRasterioError(Exception):
    """Stands for rasterio's own errors, which are known by the module of their type."""

    __module__ = "rasterio.errors"


class _WeirdError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("No space for output buffer", "memory"),
        ("No space for LZW hash table", "memory"),
        ("Too big tiles: the cache of four is refused", "memory"),
        ("Out of memory allocating 4194304 bytes", "memory"),
        ("CPLCreateJoinableThread() failed in CPLWorkerThreadPool::Setup()", "memory"),
        ("Unable to allocate 3.73 GiB for an array", "memory"),
        ("malloc of size 1048576 failed", "memory"),
        ("cannot allocate memory for thread-local data", "memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "memory"),
        ("Cannot write header : No space left on device", "disk full"),
        ("no space left on device", "disk full"),
        ("File too large", "disk full"),
        ("Disk quota exceeded", "disk full"),
        ("sqlite3_exec failed: database or disk is full", "disk full"),
        ("TIFFAppendToStrip:Write error at scanline 0", "short"),
        ("Write failed", "short"),
        ("disk I/O error", "short"),
        ("cannot rollback - no transaction is active", "short"),
        ("failed to write the index", "io"),
        ("Permission denied", "io"),
        ("ICreateFeature: Mismatched geometry type", "other"),
        ("No such file or directory", "other"),
        ("memory map of the tiles", "other"),
        ("", "other"),
    ],
)
def test_words_that_were_seen_are_known(said: str, kind: Kind) -> None:
    """Of allocators, of a full disk, of writes cut off, of other I/O; the same in a library's exception."""
    assert diagnose(said) == kind
    assert diagnose(_OfRasterioError(said)) == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (OSError(errno.ENOSPC, "?"), "disk full"),
        (OSError(errno.EFBIG, "?"), "disk full"),
        (OSError(errno.EDQUOT, "?"), "disk full"),
        (OSError(errno.ENOENT, "?"), "io"),
        (_caused(_OfRasterioError("Write failed"), OSError(errno.ENOSPC, "?")), "disk full"),
        (_caused(_OfRasterioError("Write failed"), RuntimeError("No space for output buffer")), "memory"),
        (ValueError("odd"), "other"),
    ],
    ids=repr,
)
def test_types_and_error_numbers_count_wherever_they_stand_in_the_chain(error: Exception, kind: Kind) -> None:
    """An exception is judged with its causes."""
    assert diagnose(error) == kind


def test_at_the_cap_a_wordless_failure_is_memory_but_not_a_disk_that_is_full() -> None:
    """GDAL says "Write failed" of a disk and of memory alike; a disk's own error number stays the disk's."""
    assert diagnose(_OfRasterioError("Write failed"), at_cap=True) == "memory"
    assert diagnose(OSError(errno.ENOSPC, "No space left on device"), at_cap=True) == "disk full"


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
def test_in_a_users_function_a_refusal_is_known_by_what_was_raised(error: Exception) -> None:
    """The type or the error number, anywhere among the causes; words only of libraries that have nothing else."""
    assert diagnose(error, of_user=True) == "memory"


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
def test_in_a_users_function_prose_is_no_refusal(error: Exception) -> None:
    """Whoever writes of memory in an error of his own has not run out of it."""
    assert diagnose(error, of_user=True) != "memory"


def test_the_cap_says_nothing_of_a_users_own_exceptions() -> None:
    """Of a library's it does."""
    assert diagnose(_OfRasterioError("Write failed"), at_cap=True, of_user=True) == "memory"
    assert diagnose(ValueError("Write failed"), at_cap=True, of_user=True) != "memory"


@pytest.mark.parametrize("text", ["x" * 500_000, "alloc( " * 100_000, "malloc of size " + "1" * 500_000])
def test_the_search_takes_linear_time(text: str) -> None:
    """Half a megabyte of almost nothing, and one word: of a long text both ends are looked at, in no time."""
    began = time.process_time()
    assert diagnose(text) == diagnose(text[:30_000]) == "other"
    assert time.process_time() - began < 1
    assert diagnose(text + "Out of memory") == "memory"


def test_a_chain_is_said_once_and_without_what_only_points_elsewhere() -> None:
    """Rasterio's "See previous exception" says nothing by itself; a chain that bites its tail ends."""
    inner = RuntimeError("band 1:\n  No space for output buffer")
    outer = _caused(_OfRasterioError("Read failed. See previous exception for details."), inner)
    assert words(outer) == "band 1: No space for output buffer"
    inner.__context__ = outer
    assert words(_caused(ValueError("band 1:"), outer)) == "band 1:; band 1: No space for output buffer"


@pytest.mark.parametrize(
    ("error", "line", "with_type"),
    [
        (KeyError("no such\nclass"), r"'no such\nclass'", r"KeyError: 'no such\nclass'"),
        (MemoryError(), "MemoryError", "MemoryError"),
        (_WeirdError(), "_WeirdError", "_WeirdError"),
        (ValueError("a\n  b"), "a b", "ValueError: a b"),
    ],
    ids=repr,
)
def test_an_exception_is_one_line(error: Exception, line: str, with_type: str) -> None:
    """Its text, or its type's name where it has none or cannot be shown."""
    assert (one_line(error), named(error)) == (line, with_type)


def test_space_is_short_where_the_disk_or_a_limit_leaves_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the disk what is free now counts, of a file-size limit the whole; a folder that is gone says nothing."""
    assert not space_is_short(tmp_path / "out.tif", 1)
    assert space_is_short(tmp_path / "out.tif", 2**60)
    assert not space_is_short(tmp_path / "gone" / "out.tif", 2**60)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    assert space_is_short(tmp_path / "out.tif", 101)


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (MemoryError("Unable to allocate 890. MiB for an array with shape (1, 21600, 43200)"), 890 * 2**20),
        (MemoryError("Unable to allocate 12 bytes for an array with shape (3,)"), 12),
        (MemoryError("malloc of size 268435456 failed"), 2**28),
        (MemoryError(), 0),
        (_caused(ValueError("no"), MemoryError("Unable to allocate 1.50 GiB for an array")), 3 * 2**29),
    ],
    ids=["NumPy", "bytes", "Arrow", "unsaid", "of a cause"],
)
def test_what_an_allocator_was_asked_for(error: BaseException, asked: int) -> None:
    """Its own words tell how much more would have been needed."""
    assert asked_bytes(error) == asked


def test_numpys_own_words_are_read() -> None:
    """Not only those that are written down here."""
    with pytest.raises(MemoryError) as refused:
        np.empty((2**60,), np.uint8)
    assert asked_bytes(refused.value) == 2**60
