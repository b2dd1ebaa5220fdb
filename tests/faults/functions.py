"""User functions that go wrong on purpose; named in jobs as `tests.faults.functions:NAME`, run in the capped child."""

import ctypes
import os
import signal
import time
from typing import Any

_KEPT: list[Any] = []
_CALLS: list[None] = []
_TABLE: dict[int, str] = {}
_MIB = 1024 * 1024


def unchanged(pixels: Any, valid: Any) -> Any:
    """Hand the pixels back."""
    return pixels


def python_over(pixels: Any, valid: Any) -> Any:
    """Hold Python objects without end."""
    while True:
        _KEPT.append(bytearray(4 * _MIB))


def numpy_over(pixels: Any, valid: Any) -> Any:
    """Hold arrays without end, every page touched."""
    import numpy as np

    while True:
        _KEPT.append(np.ones(4 * _MIB, dtype="uint8"))


def numpy_at_once(pixels: Any, valid: Any) -> Any:
    """Ask for far more than the address space in one go."""
    import numpy as np

    _KEPT.append(np.ones(64 * 1024 * _MIB, dtype="uint8"))
    return pixels


def native_over(pixels: Any, valid: Any) -> Any:
    """Malloc without end, behind Python's back."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while True:
        block = libc.malloc(ctypes.c_size_t(4 * _MIB))
        if not block:
            raise MemoryError("malloc of size 4194304 failed")
        ctypes.memset(block, 1, 4 * _MIB)


def mmap_at_once(pixels: Any, valid: Any) -> Any:
    """Map far more than the address space: an OSError, ENOMEM."""
    import mmap

    _KEPT.append(mmap.mmap(-1, 64 * 1024 * _MIB))


def gdal_at_once(pixels: Any, valid: Any) -> Any:
    """Ask GDAL for far more than the address space: a RasterioIOError."""
    import rasterio

    with rasterio.MemoryFile() as file, file.open(driver="MEM", width=100000, height=100000, count=1, dtype="uint8"):
        return pixels


def wordless_over(pixels: Any, valid: Any) -> Any:
    """Fail as GDAL may, with no word of memory, when the addresses have run out."""
    from rasterio.errors import RasterioIOError

    fill_address_space(pixels, valid)
    raise RasterioIOError("Write failed")


def gdal_over(pixels: Any, valid: Any) -> Any:
    """Grow a file in GDAL's own memory without end."""
    import numpy as np
    from rasterio.io import MemoryFile

    block = np.random.default_rng(1).integers(0, 255, (1, 2048, 2048), dtype="uint8")
    while True:
        memory = MemoryFile()
        with memory.open(driver="GTiff", width=2048, height=2048, count=1, dtype="uint8") as dataset:
            dataset.write(block)
        _KEPT.append(memory)


def arrow_over(pixels: Any, valid: Any) -> Any:
    """Fill Arrow's pool without end."""
    import numpy as np
    import pyarrow as pa

    while True:
        buffer = pa.allocate_buffer(4 * _MIB, resizable=True)
        np.frombuffer(buffer, dtype="uint8")[:] = 1
        _KEPT.append(buffer)


def segfault(pixels: Any, valid: Any) -> Any:
    """Read address 0."""
    ctypes.string_at(0)


def abort(pixels: Any, valid: Any) -> Any:
    """Abort as C libraries do."""
    os.abort()


def exit_127(pixels: Any, valid: Any) -> Any:
    """End as a shell does that finds no command."""
    os._exit(127)


def killed(pixels: Any, valid: Any) -> Any:
    """Be killed, as by an operator."""
    os.kill(os.getpid(), signal.SIGKILL)


def stall(pixels: Any, valid: Any) -> Any:
    """Hang."""
    time.sleep(3600)
    return pixels


def speaks_and_raises(pixels: Any, valid: Any) -> Any:
    """Fail with words of memory in an error of its own."""
    raise ValueError("the river is out of memory of men")


def exits(pixels: Any, valid: Any) -> Any:
    """Leave as a script does."""
    raise SystemExit(3)


def interrupts(pixels: Any, valid: Any) -> Any:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


def raises_megabytes(pixels: Any, valid: Any) -> Any:
    """Fail with five megabytes and an escape sequence."""
    raise ValueError("\x1b[31m" + "z" * (5 * _MIB))


class WeirdError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError


def raises_weird(pixels: Any, valid: Any) -> Any:
    """Fail with what cannot be shown."""
    raise WeirdError


def raises(pixels: Any, valid: Any) -> Any:
    """Fail as user code does."""
    raise KeyError("no such class")


def prints(pixels: Any, valid: Any) -> Any:
    """Print to standard output, which must harm nothing."""
    print("{not an event}")  # noqa: T201 - that is the point
    return pixels


def child_over(pixels: Any, valid: Any) -> Any:
    """Hold memory in a process of its own: the limit is of the whole tree."""
    import subprocess
    import sys

    code = "x = bytearray(400 * 1024 * 1024)\nimport time; time.sleep(3600)"
    subprocess.run([sys.executable, "-c", code], check=False)
    return pixels


def child_that_stays(pixels: Any, valid: Any) -> Any:
    """Start a process by fork, one by exec and a daemon, write their ids to the file STARTED, and hang."""
    import subprocess
    import sys

    executed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    daemon = _daemon(0)
    forked = os.fork()
    if forked:
        _note(executed.pid, forked, daemon)
    time.sleep(3600)
    return pixels


def daemon_left(pixels: Any, valid: Any) -> Any:
    """Start a daemon, write its id to the file STARTED, and be done."""
    from pathlib import Path

    if not Path(os.environ["STARTED"]).exists():
        _note(_daemon(0))
    return pixels


def daemons_over(pixels: Any, valid: Any) -> Any:
    """Hold memory in four daemons, 150 MiB each, and write their ids to the file STARTED."""
    _note(*[_daemon(150 * _MIB) for _ in range(4)])
    time.sleep(3600)
    return pixels


def fork_that_comes_back(pixels: Any, valid: Any) -> Any:
    """Fork, and let the new process raise out of the function as well."""
    if os.fork() == 0:
        raise MemoryError("in the fork")
    os.wait()
    return pixels


def forks_with_files(pixels: Any, valid: Any) -> Any:
    """In a fork of a fork all files that the first opened must still be open."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        files = [open(os.devnull) for _ in range(30)]  # noqa: PTH123, SIM115
        if os.fork() == 0:
            closed = [file.fileno() for file in files if not os.path.exists(f"/proc/self/fd/{file.fileno()}")]  # noqa: PTH110
            os.write(writer, repr(closed).encode())
            os._exit(0)
        os.wait()
        os._exit(0)
    os.wait()
    closed_too = os.read(reader, 100)
    if closed_too != b"[]":
        raise ValueError(f"closed behind its back: {closed_too!r}")
    return pixels


def _daemon(size: int) -> int:
    """The id of a process that has left session and parent, and holds so many bytes."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            held = bytearray(size)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(3600)
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))


def _note(*pids: int) -> None:
    from pathlib import Path

    part = Path(os.environ["STARTED"] + ".part")
    part.write_text(" ".join(map(str, pids)))
    part.rename(os.environ["STARTED"])


def leak_python(pixels: Any, valid: Any) -> Any:
    """Keep 256 KiB of Python objects a chunk."""
    _KEPT.append(b"x" * (_MIB // 4))  # exact: a bytearray may hold an eighth more
    return pixels


def leak_numpy(pixels: Any, valid: Any) -> Any:
    """Keep 256 KiB of arrays a chunk."""
    import numpy as np

    kept = np.empty(_MIB // 4, dtype="uint8")
    kept[:] = 1
    _KEPT.append(kept)
    return pixels


def leak_ones(pixels: Any, valid: Any) -> Any:
    """Keep 256 KiB of arrays a chunk, which NumPy's own Python allocates."""
    import numpy as np

    _KEPT.append(np.ones(_MIB // 4, dtype="uint8"))
    return pixels


def leak_late_beside_noise(pixels: Any, valid: Any) -> Any:
    """Hold 6 MiB for a moment in each chunk, and from chunk 301 on keep 128 KiB of it."""
    import numpy as np

    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(ctypes.c_size_t(60_000)) for _ in range(100)]
    for block in blocks:
        ctypes.memset(block, 1, 60_000)
    for block in blocks:
        libc.free(block)
    _CALLS.append(None)
    if len(_CALLS) > 300:
        _KEPT.append(np.ones(_MIB // 8, dtype="uint8"))
    return pixels


def leak_in_bursts(pixels: Any, valid: Any) -> Any:
    """Keep 12.5 MiB every fifty chunks."""
    import numpy as np

    _CALLS.append(None)
    if len(_CALLS) % 50 == 0:
        _KEPT.append(np.ones(50 * _MIB // 4, dtype="uint8"))
    return pixels


def long_sawtooth(pixels: Any, valid: Any) -> Any:
    """Keep 128 KiB a chunk and give all back every 200 chunks."""
    import numpy as np

    if len(_KEPT) >= 200:
        _KEPT.clear()
    _KEPT.append(np.ones(_MIB // 8, dtype="uint8"))
    return pixels


def cache_that_fills(pixels: Any, valid: Any) -> Any:
    """Keep 24 MiB, filled in 96 chunks."""
    import numpy as np

    if len(_KEPT) < 96:
        _KEPT.append(np.ones(_MIB // 4, dtype="uint8"))
    return pixels


def looks_up(pixels: Any, valid: Any) -> Any:
    """Make a table of 300,000 entries once: 33 MiB, and 150 MiB more to trace it."""
    if not _TABLE:
        _TABLE.update((i, str(i)) for i in range(300_000))
    return pixels


def leak_native(pixels: Any, valid: Any) -> Any:
    """Lose 256 KiB of malloc a chunk."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    ctypes.memset(libc.malloc(ctypes.c_size_t(_MIB // 4)), 1, _MIB // 4)
    return pixels


def hold_128_mib(pixels: Any, valid: Any) -> Any:
    """Take 128 MiB for a moment."""
    import numpy as np

    np.ones(128 * _MIB, dtype="uint8").sum()
    return pixels


def takes_a_hundred_times(pixels: Any, valid: Any) -> Any:
    """Take a hundred times the window's size for a moment."""
    import numpy as np

    np.ones(100 * pixels.nbytes, dtype="uint8").sum()
    return pixels


def says_done(pixels: Any, valid: Any) -> Any:
    """Write the child's last event to whatever is open."""
    import contextlib
    import os

    for descriptor in range(3, 20):
        with contextlib.suppress(OSError):
            os.write(descriptor, b'{"event": "done", "outcome": null, "memory": {}, "ended_processes": 0}\n')
    return pixels


def reads_input(pixels: Any, valid: Any) -> Any:
    """Read standard input to its end."""
    import sys

    if sys.stdin.read():
        raise ValueError
    return pixels


def sawtooth(pixels: Any, valid: Any) -> Any:
    """Keep a chunk's worth of memory and give all back every eight chunks."""
    import numpy as np

    _KEPT.append(np.ones(_MIB, dtype="uint8"))
    if len(_KEPT) >= 8:
        _KEPT.clear()
    return pixels


def speaks_of_memory(pixels: Any, valid: Any) -> Any:
    """Say an allocator's words and go on."""
    print("Out of memory here, falling back")  # noqa: T201 - that is the point
    return pixels


def logs_and_hangs(pixels: Any, valid: Any) -> Any:
    """Hang, but log twice a second."""
    while True:
        print("still here")  # noqa: T201 - that is the point
        time.sleep(0.5)


def hoard_slowly(pixels: Any, valid: Any) -> Any:
    """Hold 10 MiB more every 50 ms, in one chunk."""
    import numpy as np

    while True:
        kept = np.empty(10 * _MIB, dtype="uint8")
        kept[:] = 1
        _KEPT.append(kept)
        time.sleep(0.05)


def thread_that_stays(pixels: Any, valid: Any) -> Any:
    """Start a thread that does not end, and that Python would wait for."""
    import threading

    threading.Thread(target=time.sleep, args=(3600,)).start()
    return pixels


def temporaries(pixels: Any, valid: Any) -> Any:
    """Need 8 MiB for a moment, in every chunk."""
    import numpy as np

    np.ones(8 * _MIB, dtype="uint8").sum()
    return pixels


def fill_address_space(pixels: Any, valid: Any) -> Any:
    """Reserve addresses, no memory, until 6 MiB of RLIMIT_AS are left."""
    import mmap
    import resource
    from pathlib import Path

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    left = resource.getrlimit(resource.RLIMIT_AS)[0] - used - 6 * _MIB
    if left > 0:
        _KEPT.append(mmap.mmap(-1, left, prot=0))
    return pixels


def many_copies(pixels: Any, valid: Any) -> Any:
    """Twelve temporaries of float64, as a formula of many steps has them."""
    kept = [pixels.astype("float64") for _ in range(12)]
    time.sleep(0.02)  # so that all workers have theirs at once
    return (sum(kept[1:], kept[0]) / 12).astype("float32")


def __getattr__(name: str) -> Any:
    """`late_NAME` is the function NAME, but for its first calls: those are the probe's, at most 17 and one to look."""
    function = globals().get(name.removeprefix("late_"))
    if function is None or not name.startswith("late_"):
        raise AttributeError(name)

    def late(pixels: Any, valid: Any) -> Any:
        _CALLS.append(None)
        return function(pixels, valid) if len(_CALLS) > 20 else pixels

    return late
