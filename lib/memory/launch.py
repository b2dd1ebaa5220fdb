"""One capped child: launch, send, hear, stop. What it does and when it has died is judged in `process.py`.

A direct job's child is launched before the command line is imported, by kind and label alone: both imports take half a second,
on a core each (MEASURED, "Start-up of a direct job"). So this module imports little, and what a job chooses goes down with it.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from lib.memory.proc import MARK, kill_all, started_with, tree
from lib.units import MIB

if TYPE_CHECKING:
    from lib.jobs import Resources

_ROOT = Path(__file__).resolve().parents[2]
_READ_BYTES = 65536
_LAST_WORDS_BYTES = 16 * 1024
_DEAD_SECONDS = 10


class Child:
    """A capped child's process and its pipes.

    Args:
        kind: the job kind that it will take.
        label: the file name that an operator sees in `ps`.
        leaf: its cgroup v2 leaf, if it gets one.
    """

    def __init__(self, kind: str, label: str, leaf: Path | None = None) -> None:
        self._mark = os.urandom(8).hex()
        reader, writer = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lib.memory.child", kind, label, str(writer)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writer,),
                start_new_session=True,
                env=child_environment(leaf) | {MARK: self._mark},
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.kind, self.label = kind, label
        self.pid = self._process.pid
        self.last_words: deque[bytes] = deque()
        self._words_bytes = 0
        self._selector = selectors.DefaultSelector()
        self._unfinished: list[bytes] = []
        self._reader = reader
        self._stdin, self._stderr = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stderr)
        for stream, name in ((reader, "events"), (self._stderr.fileno(), "stderr")):
            os.set_blocking(stream, False)
            self._selector.register(stream, selectors.EVENT_READ, name)

    def send(self, request: dict[str, Any]) -> None:
        """Send one job; a child that is already dead shows in `hear`."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()

    def hear(self, seconds: float) -> tuple[list[dict[str, Any]], bool]:
        """Events within the next `seconds`, and whether the child still speaks."""
        events: list[dict[str, Any]] = []
        speaks = True
        # The pipe outlives the child where something that it had forked holds it: all that the child wrote is in it by now.
        is_dead = self._process.poll() is not None
        ready = self._selector.select(0 if is_dead else seconds)
        if is_dead and not any(key.data == "events" for key, _ in ready):
            speaks = False
        for key, _ in ready:
            try:
                data = os.read(key.fd, _READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                self._selector.unregister(key.fileobj)
                speaks = speaks and key.data != "events"
            else:
                events += self._hear_words(data) if key.data == "stderr" else self._split(data)
        return events, speaks

    def _split(self, data: bytes) -> list[dict[str, Any]]:
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._unfinished, lines[0]])
            self._unfinished = []
        self._unfinished.append(rest)  # joined once: a line of megabytes comes in pieces of 64 KiB
        return [_event(line) for line in lines if line]

    def _hear_words(self, data: bytes) -> list[dict[str, Any]]:
        self.last_words.append(data)
        self._words_bytes += len(data)
        while self._words_bytes > _LAST_WORDS_BYTES and len(self.last_words) > 1:
            self._words_bytes -= len(self.last_words.popleft())
        return [{"event": "stderr", "text": data.decode("utf-8", "replace").rstrip("\n")}]

    def forget_words(self) -> None:
        """Let what it wrote for one job be no evidence in the next."""
        self._drain()
        self.last_words.clear()
        self._words_bytes = 0

    def last_text(self) -> str:
        """The end of what it wrote to standard error."""
        return b"".join(self.last_words).decode("utf-8", "replace")

    def wait(self) -> int:
        """Its exit code once it has closed its pipe; ends it if it does not go."""
        try:
            code = self._process.wait(_DEAD_SECONDS)
        except subprocess.TimeoutExpired:
            code = self.stop()
        self._drain()
        return code

    def stop(self) -> int:
        """End the child and all its descendants, now, and wait for it."""
        self.kill()
        code = self._process.wait()
        self._drain()
        return code

    def kill(self) -> None:
        """Kill the child and all its descendants; nothing of it needs a farewell (its files are the parent's)."""
        if self._process.poll() is None:  # while it lives, what they leave behind comes to it
            kill_all(lambda: tree(self.pid)[1:], until_gone=False)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._process.poll() != 0:  # a child that took its leave has ended its descendants itself
            kill_all(lambda: started_with(MARK, self._mark), until_gone=True)

    def close(self) -> None:
        """Let an idle child end by itself, and close our ends of its pipes."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DEAD_SECONDS)
        finally:
            self.stop()
            self._selector.close()
            os.close(self._reader)
            self._stderr.close()

    def _drain(self) -> None:
        """Hear the rest of what it wrote to standard error before it ended."""
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self._stderr.fileno(), _READ_BYTES):
                self._hear_words(data)


def _event(line: bytes) -> dict[str, Any]:
    """A line of the pipe; what is no event was written by a user's function, and is heard as its other words are."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and "event" in found:
            return found
    return {"event": "stderr", "text": line.decode("utf-8", "replace")}


def child_environment(leaf: Path | None) -> dict[str, str]:
    """What the child must have before it imports anything; the rest is the parent's own."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
        "SWATH_PARENT_PID": str(os.getpid()),
        "MALLOC_ARENA_MAX": "1",
        # Else the threshold moves with what is freed, and no two runs take the same (MEASURED, "malloc pinned").
        "MALLOC_MMAP_THRESHOLD_": str(4 * MIB),
        "MALLOC_TRIM_THRESHOLD_": str(8 * MIB),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "PYDANTIC_DISABLE_PLUGINS": "__all__",  # it would read the metadata of every installed package
    }
    if leaf:
        environment["SWATH_CGROUP_LEAF"] = str(leaf)
    return environment


def job_environment(resources: "Resources", folder: Path | None) -> dict[str, str]:
    """What libraries in the child must have before the job opens anything.

    Args:
        resources: the job's.
        folder: where libraries may put temporary files; None: the system's own.
    """
    import tempfile

    place = str(folder or tempfile.gettempdir())
    return {
        # GDAL takes numbers from 100000 on as bytes and less as megabytes.
        "GDAL_CACHEMAX": str(max(resources.gdal_cache_max_bytes, 100_000)),
        "GDAL_NUM_THREADS": str(min(resources.threads or resources.threads_max, resources.threads_max)),
        "CPL_TMPDIR": place,
        "TMPDIR": place,
    }


_early: list[Child] = []


def launch_early(kind: str, label: str) -> None:
    """Launch the child of the job that is to come, if all goes well; it dies with us if it does not."""
    _early.append(Child(kind, label))


def take_early(kind: str, label: str) -> Child | None:
    """The child that was launched early, if it is for such a job; else it is ended."""
    while _early:
        child = _early.pop()
        if (child.kind, child.label) == (kind, label):
            return child
        child.stop()
        child.close()
    return None
