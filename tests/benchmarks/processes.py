"""Whole processes, timed from outside: wall seconds, processor seconds and peak memory, by the kernel's own accounts.

The peak is the largest single process of those that the command waited for. A process begins with the high-water mark of who
started it, so the harness imports neither NumPy nor what it measures.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

KIB_PER_MIB = 1024


class RunError(Exception):
    """A command that did not end well: what it was, and the end of what it said."""


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process: wall and processor seconds (user and system), peak in MiB, and what it printed."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    printed: str


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], codes: tuple[int, ...] = (0,)) -> Run:
    """Run `command` to its end; raises RunError where its exit code is none of `codes`."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        began = time.monotonic()
        # A session each, as swath has for its child: a busy kernel may share out its processors by sessions.
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=said, cwd=cwd, env=dict(env),
            start_new_session=True,
        )  # fmt: skip
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        printed, words = out.read(), said.read()
    if process.returncode not in codes:
        raise RunError(f"exit {process.returncode}: {' '.join(map(str, command))}\n{(words or printed)[-1500:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / KIB_PER_MIB, printed)
