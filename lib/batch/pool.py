"""Workers that take files in turn: each has a child, its place in the host's ledger, and one file at a time."""

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from lib.batch.planning import Foreseen
from lib.batch.request import Batch
from lib.errors import SwathError
from lib.jobs import RasterJob, VectorJob
from lib.memory.process import Runner
from lib.memory.watch import OnEvent
from lib.publish import Staging
from lib.reports import Report
from lib.run import run_published


class _Stopped(BaseException):
    """Nothing more is to be done."""


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
    """One file, as it was planned: its limit is what was foreseen, and may climb to the batch's."""
    try:
        job = admitted_job(batch, foreseen)
        note: Callable[[Staging], None] = lambda staged: batch.finished.note(  # noqa: E731 - one call, typed
            batch.outputs[foreseen.at], foreseen.key, staged.path
        )
        return run_published(job, on_event, runner=runner, before=note)
    except SwathError as error:
        record = {"source": batch.items[foreseen.at].source, "destination": str(batch.outputs[foreseen.at])}
        return Report.of_error(error, record | {"kind": batch.wing})


def admitted_job(batch: Batch, foreseen: Foreseen) -> RasterJob | VectorJob:
    """The job with what it is admitted with as its limit."""
    job = batch.job(foreseen.at)
    limit = min(foreseen.limit_bytes, job.resources.limit_bytes)
    resources = job.resources.model_copy(update={"limit_bytes": limit, "limit_max_bytes": job.resources.limit_bytes})
    return job.model_copy(update={"resources": resources})


@dataclass(slots=True)
class Pool:
    """The workers.

    Attributes:
        batch: what there is to do.
        workers: how many.
        runners: theirs.
    """

    batch: Batch
    workers: int
    runners: list[Runner] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(
        self, todo: list[Foreseen], on_event: Callable[[int, dict[str, Any]], None] | None = None
    ) -> Generator[Ended]:
        """Do them in their order; each one's end as it comes. What is under way when nobody listens any more is stopped."""
        waiting: SimpleQueue[Foreseen] = SimpleQueue()
        for each in todo:
            waiting.put(each)
        ended: SimpleQueue[Ended | BaseException | None] = SimpleQueue()
        threads = [
            threading.Thread(target=self._work, args=(waiting, ended, on_event), name=f"swath-batch-{number}")
            for number in range(min(self.workers, len(todo)))
        ]
        self.runners = [Runner(keeps=True, patience=self._patience) for _ in threads]
        for thread in threads:
            thread.start()
        try:
            left = len(threads)
            while left:
                found = ended.get()
                if found is None:
                    left -= 1
                elif isinstance(found, BaseException):
                    raise found
                else:
                    yield found
        finally:
            self._stop.set()
            while any(thread.is_alive() for thread in threads):
                if left:
                    self._kill()
                for thread in threads:
                    thread.join(0.1)

    def _kill(self) -> None:
        for runner in self.runners:
            runner.kill()

    def _patience(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _work(self, waiting: "SimpleQueue[Foreseen]", ended: "SimpleQueue[Any]", on_event: Any) -> None:
        runner = self.runners[int(threading.current_thread().name.rpartition("-")[2])]
        try:
            with runner:
                while not self._stop.is_set():
                    each = waiting.get_nowait()
                    hear = None if on_event is None else (lambda event, at=each.at: on_event(at, event))
                    report = do(self.batch, each, runner, hear)
                    if not self._stop.is_set():
                        ended.put(Ended(each.at, report))
        except (Empty, _Stopped):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the batch is run
            ended.put(error)
        ended.put(None)
