"""How W1 goes with more workers than this host has cores: `python -m tests.benchmarks.workers SOURCE` prints JSON.

One worker does the job, in this process and without guards; what reading, computing, encoding and appending took of each chunk is
noted, in processor time: a busy host does little to it. Then the queue of `pipeline.finished` is simulated. The simulation
knows of no lock and no memory bus that workers share, so it is an upper bound; what two workers really gained stands beside it.
"""

import contextlib
import heapq
import json
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib.jobs import RasterJob, Resources
from lib.memory.work import Bench, Room, load_engine
from lib.operations import Normalise
from lib.units import MIB
from tests.benchmarks.guards import NoMeter

WORKERS = (1, 2, 4, 8)
PARTS = ("read", "compute", "encode", "append")


class Times(NamedTuple):
    """Seconds of one chunk, by its parts."""

    read: float
    compute: float
    encode: float
    append: float

    @property
    def worker(self) -> float:
        """What a worker does of it."""
        return self.read + self.compute + self.encode


def simulated(chunks: Sequence[Times], workers: int, probed: int) -> float:
    """Seconds of the queue: `probed` chunks by one worker, then the rest by all; one more than workers is on its way."""
    now = sum(each.worker + each.append for each in (chunks if workers == 1 else chunks[:probed]))
    if workers == 1:
        return now
    free, waiting = [now] * workers, deque[tuple[float, float]]()

    def append() -> float:
        done, seconds = waiting.popleft()
        return max(now, done) + seconds

    for each in chunks[probed:]:
        done = max(now, heapq.heappop(free)) + each.worker
        heapq.heappush(free, done)
        waiting.append((done, each.append))
        if len(waiting) > workers:
            now = append()
    while waiting:
        now = append()
    return now


class Spent:
    """Seconds spent in methods, by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def note(self, owner: Any, method: str) -> None:
        """Have the calls of a method timed from now on."""
        plain = getattr(owner, method)

        def timed(*arguments: Any, **more: Any) -> Any:
            began = time.thread_time()
            try:
                return plain(*arguments, **more)
            finally:
                self.seconds[method] += time.thread_time() - began

        setattr(owner, method, timed)


def measured(source: str) -> tuple[list[Times], int]:
    """Times of each chunk with one worker, and how many the probe did."""
    engine = load_engine("raster")
    from lib.raster.attempt import Attempt
    from lib.raster.pipeline import Worker
    from lib.raster.sinks.encode import TileEncoder
    from lib.raster.sources.dataset import Reader

    spent, chunks, probed = Spent(), [], 0
    for owner, method in ((Reader, "read"), (TileEncoder, "encode"), (Worker, "do"), (Attempt, "_take")):
        spent.note(owner, method)
    do, take, probe = Worker.do, Attempt._take, Attempt.probe

    def doing(worker: Worker, chunk: Any) -> Any:
        spent.seconds.clear()  # of looks and samples beforehand
        return do(worker, chunk)

    def taking(attempt: Attempt, done: Any) -> None:
        take(attempt, done)
        read, encode, whole, append = (spent.seconds[name] for name in ("read", "encode", "do", "_take"))
        chunks.append(Times(read, whole - read - encode, encode, append))

    def probing(attempt: Attempt) -> Any:
        nonlocal probed
        held = probe(attempt)
        probed = len(chunks)
        return held

    Worker.do, Attempt._take, Attempt.probe = doing, taking, probing  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=Path(source).parent) as folder:
        job = RasterJob(
            source=source, destination=f"{folder}/out.tif", operation=Normalise(), compress="lzw", predictor="2",
            resources=Resources(limit_bytes=512 * MIB, threads=1),
        )  # fmt: skip
        room = Room(limit_bytes=512 * MIB, budget_bytes=512 * MIB, baseline_bytes=100 * MIB)
        with contextlib.closing(engine.prepare(job, room)) as work:
            work.first()
            work.run(Bench(Path(job.destination), NoMeter(), lambda _: None, lambda _: None))  # type: ignore[arg-type]
    return chunks, probed


def main(source: str) -> None:
    """Measure, simulate, and print."""
    chunks, probed = measured(str(Path(source).absolute()))
    parts = {name: sum(getattr(each, name) for each in chunks) for name in PARTS}
    bound = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items())
    seconds = {count: simulated(chunks, count, probed) for count in WORKERS}
    words = f"{bound}; the probe does {probed} alone; the one writer needs {parts['append']:.2f} s at least"
    print(json.dumps({"chunks": len(chunks), "probed": probed, "parts": parts, "seconds": seconds, "bound": words}))


if __name__ == "__main__":
    main(*sys.argv[1:])
