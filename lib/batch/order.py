"""One file's work as it is handed on: only paths, choices and numbers, for any process that sees the same storage."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lib.batch.finished import Finished
from lib.batch.planning import Foreseen
from lib.batch.request import Batch
from lib.errors import OutputError, SwathError
from lib.jobs import RasterJob, VectorJob
from lib.memory.process import Runner
from lib.memory.watch import OnEvent
from lib.reports import Report
from lib.run import run_published

# A child that waits for the next file longer than this ends, and leaves its place in the ledger.
_IDLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Order:
    """One file.

    Attributes:
        at: its place in the batch.
        job: with what it is admitted with as its limit.
        key: what its output is made of.
        into: the batch's folder.
    """

    at: int
    job: RasterJob | VectorJob
    key: str | None
    into: Path


def order_of(batch: Batch, foreseen: Foreseen) -> Order:
    """The order of a file that was planned.

    Raises:
        SwathError: its job cannot be.
    """
    job = batch.job(foreseen.at)
    limit = min(foreseen.limit_bytes, job.resources.limit_bytes)
    job = job.model_copy(update={"resources": job.resources.model_copy(update={"limit_bytes": limit})})
    return Order(foreseen.at, job, foreseen.key, batch.into)


def fulfil(order: Order, runner: Runner, on_event: OnEvent | None = None) -> Report:
    """Do one file: plan again within its limit, work, verify, note what it is made of, publish."""
    noted = Finished(order.into)
    output = Path(order.job.destination)
    try:
        return run_published(
            order.job, on_event, runner=runner, before=lambda staged: noted.note(output, order.key, staged.path)
        )
    except SwathError as error:
        return Report.of_error(error, order.job.model_dump(mode="json"))
    except OSError as error:  # of one file's folder or note; it stops no other
        said = OutputError(f"{output} cannot be written: {error}", hint="check the rights and the free space there")
        return Report.of_error(said, order.job.model_dump(mode="json"))


class _Seat(threading.local):
    """A thread's runner: a child dies with the thread that started it."""

    runner: Runner | None = None
    timer: threading.Timer | None = None
    lock: threading.Lock


_seat = _Seat()


@contextmanager
def seated() -> Iterator[Runner]:
    """This thread's runner, whose child is kept for a while for the next file that the thread is given."""
    lock = _seat.__dict__.setdefault("lock", threading.Lock())
    if _seat.timer is not None:
        _seat.timer.cancel()
    with lock:
        runner = _seat.runner = _seat.runner or Runner(keeps=True)
        try:
            yield runner
        except BaseException:
            runner.close()
            raise

    def leave() -> None:
        with lock:
            runner.close()

    _seat.timer = threading.Timer(_IDLE_SECONDS, leave)
    _seat.timer.daemon = True
    _seat.timer.start()
