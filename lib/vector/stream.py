"""The stream from source to sink: one generator, pulled by the sink; nothing is kept between batches but counts.

A thread reads the next batch while this one is worked on: OGR, SQLite and Arrow let go of the interpreter while they read.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from lib.memory.cap import trim
from lib.memory.meter import Meter
from lib.vector import ogr
from lib.vector.row_checks import Found
from lib.vector.sinks import VectorSink
from lib.vector.steps import Step, Tally


class Taken(NamedTuple):
    """A batch as it was read, and what was found in it."""

    batch: Any
    found: Found


_Next = Callable[[], Taken | None]
# A batch that is so many times as large as was planned is worked on in slices.
_TOO_LARGE = 2


@contextmanager
def ahead_of(reader: Any, label: str) -> Iterator[_Next]:
    """What gives the reader's next batch, None behind the last, while a thread reads one more; it is in one thread at a time."""
    read = plain(reader, label)
    pool = ThreadPoolExecutor(1, "swath-reader")
    coming: list[Future[Taken | None]] = [pool.submit(read)]

    def take() -> Taken | None:
        taken = coming.pop().result()
        coming.append(pool.submit(read) if taken is not None else _ended())
        return taken

    try:
        yield take
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ended() -> Future[Any]:
    end: Future[Any] = Future()
    end.set_result(None)
    return end


def plain(reader: Any, label: str) -> _Next:
    """What gives the reader's next batch, None behind the last; raises DataError."""
    rows = 0

    def take() -> Taken | None:
        nonlocal rows
        with ogr.reads(label, after=rows):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return None
            rows += batch.num_rows
            found = getattr(reader, "found", None)  # pyarrow's own readers look at nothing
            return Taken(batch, found or Found(batch.num_rows))

    return take


def apply(batch: Any, steps: Sequence[Step], tally: Tally) -> Any:
    """What is left of a batch behind all steps."""
    before_all = tally.row, tally.places, tally.fids
    for step in steps:
        before, bad = batch.num_rows, tally.bad.count
        tally.kept_rows = None
        batch = step.apply(batch, tally)
        dropped = before - batch.num_rows
        tally.dropped[step.name] += dropped - (tally.bad.count - bad)
        if dropped:
            tally.follow(before)
    tally.row, tally.places, tally.fids = before_all
    return batch


@dataclass(slots=True)
class Pass:
    """What is done to the batches of a pass.

    Attributes:
        steps: done to each.
        sink: conforms what is left to its format.
        tally: counts.
        geometry_name: of the column; None where there is none.
        batch_bytes: what a batch was planned to have.
        is_whole: whether the rows are all of the source's, so that their numbers are.
        at: rows that came so far.
    """

    steps: Sequence[Step]
    sink: VectorSink
    tally: Tally
    geometry_name: str | None
    batch_bytes: int
    is_whole: bool = True
    at: int = 0

    def kept(self, taken: Taken) -> Iterator[Any]:
        """What is left of a batch, in pieces where it is large; those of which nothing is left are left out."""
        batch, found = taken
        tally = self.tally
        tally.take(found)
        if self.geometry_name:
            tally.geometries += batch.num_rows - batch.column(self.geometry_name).null_count
        done = 0
        for piece in _pieces(batch, self.batch_bytes):
            rows = piece.num_rows
            tally.begin(found, self.at if self.is_whole else None, slice(done, done + rows))
            kept = apply(piece, self.steps, tally)
            done += rows
            del piece
            if kept.num_rows:
                tally.kept += kept.num_rows
                yield self.sink.conform(kept)
            del kept
        self.at += found.rows


def stream(
    take: _Next, doing: Pass, meter: Meter, *, label: str, chunks: int, after: Callable[[int | None], None]
) -> Iterator[Any]:
    """The batches for the sink; empty ones are left out.

    What goes wrong is in the tally before it is raised, because the library that pulls this stream hides it.

    Args:
        take: gives the next batch.
        doing: what is done to each.
        meter: is ticked by batch.
        label: the source's name, for errors.
        chunks: how many batches there will be; 0 where not known.
        after: is called when a batch has been written, with the batch's size in bytes; with None behind the last.
    """
    try:
        meter.start(chunks)
        while (taken := take()) is not None:
            size = taken.batch.nbytes
            yield from doing.kept(taken)
            del taken
            after(size)
            meter.chunk()
        after(None)
        trim()  # indexes are planned in the memory that the batches had
        meter.phase("close", patient=True)
    except MemoryError as error:
        doing.tally.error = error
        raise
    except Exception as error:
        doing.tally.error = ogr.translated(error, label, writing=False)
        raise


def _pieces(batch: Any, batch_bytes: int) -> Iterator[Any]:
    """A batch, or slices of it where it is much larger than was planned."""
    size = batch.nbytes
    count = -(-size // batch_bytes) if batch_bytes and size > _TOO_LARGE * batch_bytes else 1
    rows = max(1, -(-batch.num_rows // count))
    if rows >= batch.num_rows:
        yield batch
        return
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
