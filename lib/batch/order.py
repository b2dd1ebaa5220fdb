"""One file's work as it is handed on: only paths, choices and numbers, for any process that sees the same storage."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.batch.cores import Cores, cores
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
_KILL_SECONDS = 0.05
_cores = Cores(cores())


class Stopped(BaseException):
    """Nothing more is to be done."""


@dataclass(frozen=True, slots=True)
class Order:
    """One file.

    Attributes:
        at: its place in the batch.
        job: with what it is admitted with as its limit.
        key: what its output is made of.
        into: the batch's folder.
        run: the batch's run that it is of; what is stopped is a run, and another may do the same batch later.
    """

    at: int
    job: RasterJob | VectorJob
    key: str | None
    into: Path
    run: str = ""


def order_of(batch: Batch, foreseen: Foreseen, run: str = "") -> Order:
    """The order of a file that was planned.

    Raises:
        SwathError: its job cannot be.
    """
    job = batch.job(foreseen.at)
    limit = min(foreseen.limit_bytes, job.resources.limit_bytes)
    job = job.model_copy(update={"resources": job.resources.model_copy(update={"limit_bytes": limit})})
    return Order(foreseen.at, job, foreseen.key, batch.into, run)


def fulfil(order: Order, runner: Runner, on_event: OnEvent | None = None) -> Report:
    """Do one file: plan again within its limit, work, verify, note what it is made of, publish."""
    noted = Finished(order.into)
    output = Path(order.job.destination)
    try:
        with _cores.taken(order.job.resources.threads or 1, runner.close, runner.patience):
            report = run_published(
                order.job, on_event, runner=runner, before=lambda staged: noted.note(output, order.key, staged.path)
            )
    except SwathError as error:
        return Report.of_error(error, order.job.model_dump(mode="json"))
    except OSError as error:  # of one file's folder or note; it stops no other
        said = OutputError(f"{output} cannot be written: {error}", hint="check the rights and the free space there")
        return Report.of_error(said, order.job.model_dump(mode="json"))
    if report.ok:
        with contextlib.suppress(OSError):  # it is there, and as noted
            noted.note_published(output)
    return report


class _Seat:
    """A thread's runner: at work for a batch, or waiting for its next file. A child dies with the thread that started it."""

    def __init__(self) -> None:
        self.runner = Runner(keeps=True, patience=lambda: check_goes_on(self.run))
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None
        self.run = ""
        self.is_at_work = False

    def leave(self) -> None:
        """End the child, and leave its place; where it is at work, when that is done."""
        with self.lock:
            self.runner.close()
            _seats.discard(self)


_own = threading.local()
_seats: set[_Seat] = set()
_stopped: set[str] = set()


def check_goes_on(run: str) -> None:
    """The run of a batch has not been stopped.

    Raises:
        Stopped: it has.
    """
    if run in _stopped:
        raise Stopped


def stop(run: str) -> None:
    """End all that this process does for a run of a batch, with the children that it keeps; nothing more of it is begun here."""
    _stopped.add(run)
    while busy := [each for each in tuple(_seats) if each.run == run and each.is_at_work]:
        for each in busy:
            each.runner.kill()
        time.sleep(_KILL_SECONDS)
    for each in [each for each in tuple(_seats) if each.run == run]:
        each.leave()


@contextlib.contextmanager
def seated(run: str) -> Iterator[Runner]:
    """This thread's runner, whose child is kept for a while for the next file that the thread is given.

    Raises:
        Stopped: that run of a batch has been stopped.
    """
    seat: _Seat = getattr(_own, "seat", None) or _Seat()
    _own.seat = seat
    if seat.timer is not None:
        seat.timer.cancel()
    with seat.lock:
        seat.run, seat.is_at_work = run, True
        _seats.add(seat)
        try:
            check_goes_on(run)
            yield seat.runner
        except BaseException:
            seat.runner.close()
            raise
        finally:
            seat.is_at_work = False
    seat.timer = threading.Timer(_IDLE_SECONDS, seat.leave)
    seat.timer.daemon = True
    seat.timer.start()
