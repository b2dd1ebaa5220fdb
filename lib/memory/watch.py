"""One job in one child, from its sending to its end: what it says, what it holds, and the deadlines.

The watchdog is here. It looks at the resident and swapped memory of the child's process tree every
`watch_interval_seconds`, and ends the child past its limit; before there is a plan, past the start-up ceiling.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.errors import ChildStalled, MemoryExceeded, SwathError, TimedOut
from lib.jobs import user_function
from lib.memory.cap import STARTUP_CEILING_BYTES
from lib.memory.evidence import Death, classify
from lib.memory.launch import Child
from lib.memory.noise import sift
from lib.memory.proc import cpu_seconds, tree_memory
from lib.memory.record import Record
from lib.units import format_bytes, format_seconds

OnEvent = Callable[[dict[str, Any]], None]

_PATIENT_CPU_SECONDS = 0.01
_HEAR_SECONDS = 0.5
_ALIVE_SECONDS = 5.0
_FORK_SECONDS = (0.005, 0.01, 0.02)  # on a busy machine an exec takes its time


@dataclass(slots=True)
class Watch:
    """One job in one child, from its sending to its end; what is known of it is in `record`.

    Attributes:
        may_go_on: asked with the first plan by a child that waits for the answer; None of one that does not.
        held_back: the answer was no: the child has ended the job without beginning it.
    """

    child: Child
    record: Record
    leaf: Path | None = None
    deadline: float | None = None
    may_go_on: Callable[[dict[str, Any]], bool] | None = None
    held_back: bool = False
    died: bool = False
    _over: threading.Event = field(default_factory=threading.Event)
    _calls_function: bool = field(init=False)
    _in_callback: bool = False
    _virtual_bytes: int = 0
    _stalled_seconds: float | None = None
    _progress_at: float = field(default_factory=time.monotonic)
    _cpu_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Whose words come."""
        self._calls_function = user_function(self.record.job) is not None

    def until_done(self, hear: OnEvent) -> None:
        """Hear the child until the job is done, failed or dead, while a thread looks at its memory.

        A thread of its own, so that no callback that blocks (a slow terminal, an API that is away) blinds the watchdog.
        """
        looking = threading.Thread(target=self._keep_looking, name="swath-watchdog", daemon=True)
        looking.start()
        try:
            self._keep_hearing(hear)
        finally:
            self._over.set()
            looking.join()

    def until_planned(self) -> None:
        """The same of a look at a header, which takes milliseconds: no callback can block, so no thread is started."""
        self._keep_hearing(lambda _: None, looks_every=self.record.job.resources.watch_interval_seconds)

    def _keep_hearing(self, hear: OnEvent, looks_every: float | None = None) -> None:
        told_at = looked_at = time.monotonic()
        while not self.record.done:
            events, speaks = self.child.hear(looks_every or _HEAR_SECONDS)
            if looks_every and time.monotonic() - looked_at > looks_every:
                looked_at = time.monotonic()
                self._look()
            if events:
                told_at = time.monotonic()
            elif time.monotonic() - told_at > _ALIVE_SECONDS:  # in a long chunk the child says nothing
                told_at = time.monotonic()
                self._hand({"event": "alive", "resident_bytes": self.record.held_bytes}, hear)
            for event in events:
                self._take(event, hear)
            if not speaks and not self.record.done:
                self._over.set()
                self._died(self.child.wait())

    def _take(self, event: dict[str, Any], hear: OnEvent) -> None:
        if event["event"] == "stderr":
            noted = self.record.noted
            before = len(noted)
            event["text"] = sift(event["text"], noted, calls_function=self._calls_function)
            for text in noted[before:]:
                self._hand({"event": "warning", "text": text}, hear)
            if not event["text"]:
                return
        else:  # words are no progress: a hang may log for ever
            self._progress_at = time.monotonic()
        self.record.take(event)
        if self.may_go_on and event["event"] == "planned" and not event["final"]:
            self.held_back = not self.may_go_on(event["plan"])
            self.child.send({"goes_on": not self.held_back})
        if not self.held_back:
            self._hand(event, hear)

    def _hand(self, event: dict[str, Any], hear: OnEvent) -> None:
        self._in_callback, began = True, time.monotonic()
        hear(event)
        self._progress_at += time.monotonic() - began  # the callback's silence is not the child's
        self._in_callback = False

    def _keep_looking(self) -> None:
        while not self._over.wait(self.record.job.resources.watch_interval_seconds) and not self.record.done:
            self._look()

    def _look(self) -> None:
        """The watchdog's look, and the deadlines."""
        memory = tree_memory(self.child.pid)
        for seconds in _FORK_SECONDS:
            # Between vfork and exec a new process shows its parent's size as its own: seen again, it is real.
            if memory.processes > 1 and memory.held_bytes > self.record.peak_bytes:
                self._over.wait(seconds)
                memory = min(memory, tree_memory(self.child.pid))
        self._virtual_bytes = memory.virtual_bytes or self._virtual_bytes
        self.record.sample(memory.held_bytes)
        now = time.monotonic()
        if memory.held_bytes > self._limit_bytes:
            self._end(self._over_limit())
        elif late := self._too_late(now):
            self._end(late)
        elif self._has_stalled(now):
            self._stalled_seconds = now - self._progress_at
            self.child.kill()
            self._over.set()

    def _too_late(self, now: float) -> SwathError | None:
        """The deadline that has passed, if one has: the user's own, or the one of start-up."""
        label, resources = self.record.job.label, self.record.job.resources
        if self.deadline is not None and now > self.deadline:
            seconds = format_seconds(resources.timeout_seconds or 0.0)
            return TimedOut(f"{label}: not done within its time limit of {seconds}")
        if self.record.plan is None and now - self.record.began > resources.startup_seconds:
            return ChildStalled(
                f"{label}: no plan within startup_seconds ({format_seconds(resources.startup_seconds)})",
                hint="raise startup_seconds if the source is that slow to open",
            )
        return None

    @property
    def _limit_bytes(self) -> int:
        """What holds now: the job's limit, or before there is a plan the start-up ceiling."""
        return STARTUP_CEILING_BYTES if self.record.plan is None else self.record.job.resources.limit_bytes

    def _has_stalled(self, now: float) -> bool:
        is_silent = now - self._progress_at > self.record.job.resources.stall_seconds
        return is_silent and self.record.plan is not None and not self._in_callback and not self._is_patiently_busy()

    def _over_limit(self) -> MemoryExceeded:
        is_planned, held = self.record.plan is not None, self.record.held_bytes
        return MemoryExceeded(
            f"{self.record.job.label}: stopped by the watchdog at {format_bytes(held)}, over "
            f"{'its limit' if is_planned else 'the start-up ceiling'} of {format_bytes(self._limit_bytes)}",
            hint=None if is_planned else "no setting raises it: import less in the function's module",
            held_bytes=held,
        )

    def _is_patiently_busy(self) -> bool:
        """Index building and closing send no heartbeats; the processor's time tells them from a hang."""
        if not self.record.patient:
            return False
        used = cpu_seconds(self.child.pid)
        busy = used > self._cpu_seconds + _PATIENT_CPU_SECONDS
        self._cpu_seconds = used
        if busy:
            self._progress_at = time.monotonic()
        return busy

    def _end(self, error: SwathError) -> None:
        """From the watchdog's thread: the child is killed; the thread that hears it finds its pipe closed."""
        if not self.record.done:
            self.record.fail(error)
            self.child.kill()
            self._over.set()

    def _died(self, returncode: int) -> None:
        """The child ended without a report: by our own verdict, or by something to be judged."""
        self.record.done = self.died = True
        if self.record.error is not None:
            return
        stalled = self._stalled_seconds
        death = Death(
            returncode=None if stalled is not None else returncode,
            stalled_seconds=stalled,
            limit_bytes=self._limit_bytes,
            held_bytes=self.record.held_bytes,
            virtual_bytes=self._virtual_bytes,
            address_space_bytes=self.record.address_space_bytes,
            oom_kills=_oom_kills(self.leaf),
            last_words=self.child.last_text(),
        )
        self.record.fail(classify(death, self.record.job.label))


def _oom_kills(leaf: Path | None) -> int:
    if leaf is None:
        return 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        events = (leaf / "memory.events").read_text(encoding="ascii").split()
        return int(events[events.index("oom_kill") + 1])
    return 0
