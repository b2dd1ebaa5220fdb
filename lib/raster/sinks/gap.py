"""Bytes let into the middle of a file, and files that hold them until then. Nothing of TIFF.

Linux inserts whole blocks of a file system (ext4, XFS) without touching the rest; elsewhere what follows is moved up.
"""

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.units import MIB

COPY_BYTES = MIB
_INSERT_RANGE = 0x20  # linux/falloc.h


def spill(folder: Path) -> int:
    """A file without a name in a folder: its descriptor."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def aligned(file: int, length: int) -> int:
    """A length rounded up to whole blocks of the file's system."""
    block = os.fstatvfs(file).f_bsize
    return -(-length // block) * block


def insert(file: int, at: int, end: int, length: int) -> None:
    """Move the bytes from `at` to `end` up by a length, both whole blocks; what is there then is anything.

    Raises:
        OSError: the disk is full, a limit was reached.
    """
    if end > at and not _insert_range(file, at, length):
        for start, size in reversed(list(_steps(at, end))):
            write(file, os.pread(file, size, start), start + length)


def _insert_range(file: int, at: int, length: int) -> bool:
    with contextlib.suppress(AttributeError, OSError):  # no such function, or a file system that cannot
        fallocate = ctypes.CDLL(None).fallocate
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        return bool(fallocate(file, _INSERT_RANGE, at, length) == 0)
    return False


def copy(source: int, target: int, length: int, at: int) -> None:
    """Copy the first bytes of a file to a place in another.

    Raises:
        OSError: as `insert`.
    """
    for start, size in _steps(0, length):
        write(target, os.pread(source, size, start), at + start)


def write(file: int, data: Any, position: int) -> None:
    """Write all of it: a disk that fills up takes a part first, and says why only at the next call."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(file, rest, position)
        rest, position = rest[written:], position + written


def _steps(start: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(start, end, COPY_BYTES):
        yield at, min(COPY_BYTES, end - at)
