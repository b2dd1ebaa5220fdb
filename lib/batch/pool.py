"""Workers that take files in turn: each has a child, its place in the host's ledger, and one file at a time."""

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from lib.batch.order import Stopped, fulfil, order_of
from lib.batch.planning import Foreseen, job_record
from lib.batch.request import Batch
from lib.errors import SwathError
from lib.memory.process import Runner
from lib.memory.watch import OnEvent
from lib.reports import Report


@dataclass(frozen=True, slots=True)
class Ended:
    """A file's end.

    Attributes:
        at: its place in the batch.
        report: of its job.
    """

    at: int
    report: Report


def do(batch: Batch, foreseen: Foreseen, runner: Runner, on_event: OnEvent | None = None) -> Report:
    """One file, as it was planned."""
    try:
        order = order_of(batch, foreseen)
    except SwathError as error:
        return Report.of_error(error, job_record(batch, foreseen.at))
    return fulfil(order, runner, on_event)


@dataclass(slots=True)
class Pool:
    """The workers; first some of them plan.

    Attributes:
        batch: what there is to do.
        workers: how many.
        runners: theirs, whose children come when they are needed.
        threads: theirs; a child dies with the thread that started it.
    """

    batch: Batch
    workers: int
    runners: list[Runner] = field(init=False)
    threads: ThreadPoolExecutor = field(init=False)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Nothing is started yet."""
        self.runners = [Runner(keeps=True, patience=self._patience) for _ in range(self.workers)]
        self.threads = ThreadPoolExecutor(self.workers, "swath-batch")

    def close(self) -> None:
        """End the children that are there, then their threads."""
        for runner in self.runners:
            runner.close()
        self.threads.shutdown()

    def run(
        self,
        phases: Sequence[tuple[int, Sequence[Foreseen]]],
        on_event: Callable[[int, dict[str, Any]], None] | None = None,
    ) -> Generator[Ended]:
        """Do the files of each phase in their order, so many at once; each one's end as it comes.

        What is under way when nobody listens any more is stopped.
        """
        for workers, files in phases:
            yield from self._phase(files, on_event, min(workers, self.workers, len(files)))

    def _phase(self, files: Sequence[Foreseen], on_event: Any, busy: int) -> Generator[Ended]:
        waiting: SimpleQueue[Foreseen] = SimpleQueue()
        for each in files:
            waiting.put(each)
        ended: SimpleQueue[Ended | BaseException | None] = SimpleQueue()
        for idle in self.runners[busy:]:
            idle.close()
        tasks = [self.threads.submit(self._work, each, waiting, ended, on_event) for each in self.runners[:busy]]
        left = busy
        try:
            while left:
                found = ended.get()
                if found is None:
                    left -= 1
                elif isinstance(found, BaseException):
                    raise found
                else:
                    yield found
        finally:
            if left:
                self._stop.set()
            while not all(each.done() for each in tasks):
                if left:
                    self._kill()
                wait(tasks, 0.1)

    def _kill(self) -> None:
        for runner in self.runners:
            runner.kill()

    def _patience(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _work(self, runner: Runner, waiting: "SimpleQueue[Foreseen]", ended: "SimpleQueue[Any]", on_event: Any) -> None:
        try:
            with runner:
                while not self._stop.is_set():
                    each = waiting.get_nowait()
                    hear = None if on_event is None else (lambda event, at=each.at: on_event(at, event))
                    report = do(self.batch, each, runner, hear)
                    if not self._stop.is_set():
                        ended.put(Ended(each.at, report))
        except (Empty, Stopped):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the batch is run
            ended.put(error)
        ended.put(None)
