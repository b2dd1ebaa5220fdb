"""A batch from its plans to its summary, in threads; the terminal's way. Flows do the same file by file as tasks."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lib.batch.cores import cores
from lib.batch.planning import Foreseen, check_disk, foresee_all
from lib.batch.pool import Pool
from lib.batch.request import Batch
from lib.batch.summary import Summary, reports_in, row_of
from lib.memory.ledger import entries
from lib.memory.proc import jobs_below, process_memory
from lib.memory.process import budget_of
from lib.reports import Report
from lib.units import parse_threads

OnEvent = Callable[[dict[str, Any]], None]
_SAMPLE_SECONDS = 0.25
_MOST_SAMPLES = 480


def workers_of(batch: Batch) -> int:
    """How many files are worked on at once at most: as many as the cores have room for threads of theirs.

    By the file with the fewest threads; those with more wait for cores (cores.py).
    """
    common = batch.base.resources.threads or 1
    threads = {parse_threads(str(each.options.get("threads", common)), cores()) for each in batch.items}
    return max(1, cores() // min(threads))


def phases(batch: Batch, todo: Sequence[Foreseen]) -> list[tuple[int, list[Foreseen]]]:
    """Those files in the order in which they are done, with how many are worked on at once: the largest first, fewer at once.

    So many that each one's limit fits as often into the budget: one more would wait, and end its child for that. Within a phase
    those with the largest outputs come first, so that no core has nothing to do at its end while another begins a long one.
    """
    most, budget = workers_of(batch), budget_in(batch) or 0

    def count(each: Foreseen) -> int:
        return max(1, min(most, budget // (each.limit_bytes or 1)))

    ordered = sorted(todo, key=lambda each: (count(each), -each.disk_bytes))
    return [(at_once, list(files)) for at_once, files in itertools.groupby(ordered, count)]


def run_batch(batch: Batch, *, fail_fast: bool = False, on_event: OnEvent | None = None) -> Summary:
    """Plan all, then do what is missing; one file's failure does not stop the others.

    Args:
        batch: what there is to do.
        fail_fast: whether it does.
        on_event: hears `{"event": "planned", …}` and `{"event": "file", …}` of each file.

    Raises:
        DiskRefused: the disk cannot hold what is to be written.
    """
    hear = on_event or (lambda _: None)
    began = time.monotonic()
    summary = Summary(batch.into, len(batch.items), budget_bytes=budget_in(batch))
    pool = Pool(batch, workers_of(batch))
    with reports_in(batch.into) as reports, contextlib.closing(pool):

        def end(at: int, report: Report | None) -> None:
            row = row_of(batch, at, report)
            summary.add(row, is_reported=reports.add(row, report))
            hear({"event": "file", **row})

        todo: list[Foreseen] = []
        stops = False
        told: Callable[[Foreseen], None] = lambda found: hear({"event": "planned", "at": found.at})  # noqa: E731 - typed
        with contextlib.closing(foresee_all(batch, told, runners=pool.runners, threads=pool.threads)) as plans:
            for each in plans:
                if each.is_done or each.report:
                    end(each.at, each.report)
                else:
                    todo.append(each)
                if stops := fail_fast and each.report is not None:
                    break
        summary.planning_seconds = time.monotonic() - began
        todo = [] if stops else todo
        check_disk(batch, todo)
        with contextlib.closing(pool.run(phases(batch, todo))) as ends, sampled(summary, batch, began):
            for ended in ends:
                end(ended.at, ended.report)
                if fail_fast and not ended.report.ok:
                    break
    summary.conclude(time.monotonic() - began)
    return summary


def budget_in(batch: Batch) -> int | None:
    """What all jobs of this host may hold together now, bytes."""
    budget = budget_of(batch.base.resources)
    return budget if isinstance(budget, int) else budget([])


@contextlib.contextmanager
def sampled(summary: Summary, batch: Batch, began: float) -> Iterator[None]:
    """Meanwhile a thread notes what is admitted and what is resident; of a long batch every second look is let go, and so on."""
    over, path = threading.Event(), batch.base.resources.ledger_path
    pause = _SAMPLE_SECONDS

    def look() -> None:
        nonlocal pause
        while not over.wait(pause):
            if path is None:
                return
            held = entries(path)
            children = [child for pid in {each.pid for each in held} for child in jobs_below(pid)]
            admitted, resident = sum(each.bytes for each in held if each.admitted), sum(map(_held, children))
            summary.samples.append((round(time.monotonic() - began, 2), admitted, resident))
            if len(summary.samples) >= _MOST_SAMPLES:
                del summary.samples[::2]
                pause *= 2

    thread = threading.Thread(target=look, name="swath-batch-samples", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _held(pid: int) -> int:
    return process_memory(pid).resident_bytes
