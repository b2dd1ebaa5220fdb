"""Processes of `make up`: each with a session and a log of its own, and a death signal, so that it ends even if we are killed."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

_PR_SET_PDEATHSIG = 1
_LAST_LINES = 15
# A start time comes from clock ticks and the boot time, which may be read a little differently.
_SAME_SECONDS = 1.0


def spawn(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str],
    *,
    last_signal: signal.Signals = signal.SIGTERM,
    user: str | None = None,
    folder: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a process that gets `last_signal` from the kernel when we die. A session of its own keeps our Ctrl-C from it."""
    with log.open("wb") as written:
        return subprocess.Popen(
            [str(word) for word in command],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **as_user(user),
            preexec_fn=_dies_with(os.getpid(), last_signal),  # noqa: PLW1509 - we have one thread
        )


def as_user(name: str | None) -> dict[str, Any]:
    """Arguments of Popen that start it as another user, without our groups."""
    return {} if name is None else {"user": name, "group": _group_of(name), "extra_groups": []}


def _group_of(name: str) -> int:
    import pwd

    return pwd.getpwnam(name).pw_gid


def _dies_with(parent: int, number: signal.Signals) -> Callable[[], None]:
    """What runs between fork and exec: ask for the death signal, and hear SIGINT even if a shell's `&` had it ignored."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def prepare() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def end(process: psutil.Process, number: signal.Signals, *, seconds: float) -> None:
    """Ask a process to end, and kill it with all that it started where it does not within `seconds`."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = process.children(recursive=True)
        process.send_signal(number)
        _, alive = psutil.wait_procs([process, *below], timeout=seconds)
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(alive, timeout=seconds)


def same(pid: int, began: float) -> psutil.Process | None:
    """The process of this id, if it is the one that began then and not another that got its id since."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - began) < _SAME_SECONDS and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def last_lines(log: Path) -> str:
    """The end of a log, indented, to be shown under a sentence that says why."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])
    return ""
