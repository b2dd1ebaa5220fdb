"""Threads of the files that this process works on: no more at work together than there are cores, first come first served.

Memory is the ledger's, of the whole host. Who waits for cores must hold none of it: who has them may be waiting for memory.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

_LOOK_SECONDS = 0.05


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Cores:
    """So many of them.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._count = self._free = count
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(
        self, threads: int, on_wait: Callable[[], None], patience: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Have a core for each thread meanwhile, or all of them where there are fewer.

        Args:
            threads: how many.
            on_wait: called before there is a wait; lets go of memory.
            patience: called now and then in it; what it raises ends it.
        """
        wanted, place = min(threads, self._count), object()

        def has_turn() -> bool:
            return self._queue[0] is place and self._free >= wanted

        with self._changed:
            self._queue.append(place)
            waits = not has_turn()
        try:
            if waits:
                on_wait()
            with self._changed:
                while not has_turn():
                    if patience:
                        patience()
                    self._changed.wait(_LOOK_SECONDS)
                self._free -= wanted
        finally:
            with self._changed:
                self._queue.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()
