"""The capped child: `python -P -m lib.memory.child KIND LABEL FD`. Jobs as JSON lines on stdin, events on the pipe FD.

Order matters here. The death signal and the start-up ceiling come before any import that could be slow or large; the
engine (and with it GDAL) is imported before the size is taken from which the job is planned; the cap comes after the first plan,
and before the first read. Standard output is sent to standard error, so that a user function's `print` harms nothing.
"""

import os
import sys

from lib.memory import cap

if __name__ == "__main__":  # before everything else: see the module's docstring
    cap.die_with_parent(int(os.environ["SWATH_PARENT_PID"]))
    cap.apply_startup_ceiling()
    cap.enter_leaf(os.environ.get("SWATH_CGROUP_LEAF"))

import gc
import json
import shutil
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.errors import MemoryRefused, SwathError, shown_lines
from lib.jobs import parse_job, user_function
from lib.memory import refusal
from lib.memory.evidence import explain_exception
from lib.memory.meter import Meter
from lib.memory.proc import peak_bytes, process_memory, restart_peak
from lib.memory.traces import FUNCTION_FRAMES
from lib.memory.work import Bench, Engine, Room, Work, load_engine
from lib.reports import Outcome, Plan

__all__ = ["main"]

Send = Callable[[dict[str, Any]], None]


def main(kind: str, descriptor: int) -> None:
    """Take jobs of one kind until end of file."""
    leaf = Path(os.environ["SWATH_CGROUP_LEAF"]) if "SWATH_CGROUP_LEAF" in os.environ else None
    os.dup2(2, 1)
    jobs = os.fdopen(os.dup(0), encoding="utf-8")
    with Path(os.devnull).open("rb") as nothing:  # what a user's function reads is not the next job
        os.dup2(nothing.fileno(), 0)
    os.set_inheritable(descriptor, False)
    with os.fdopen(descriptor, "w", encoding="utf-8", buffering=1) as pipe:
        one_at_a_time = threading.Lock()

        def send(event: dict[str, Any]) -> None:
            line = json.dumps(event) + "\n"
            with one_at_a_time:
                pipe.write(line)

        engine = load_engine(kind)
        gc.collect()
        gc.freeze()  # what imports made lives for ever: later collections need not walk it
        send({"event": "ready", "resident_bytes": process_memory().resident_bytes})
        for line in jobs:
            _take(json.loads(line), engine, send, leaf)


def _take(request: dict[str, Any], engine: Engine, send: Send, leaf: Path | None) -> None:
    """One job, to its `done` or `error` event."""
    job = parse_job(request["job"])
    cap.lift_address_space_cap()
    cap.apply_startup_ceiling()
    guard = None
    if user_function(job):
        cap.adopt_orphans()
        guard = cap.end_with_us()
    restart_peak(forget=True)
    meter = Meter(
        send,
        drift_threshold_bytes=job.resources.drift_threshold_bytes,
        residual_tolerance_bytes=job.resources.residual_tolerance_bytes,
    )
    try:
        last = _work(request, job, engine, meter, send, leaf)
    except BaseException as error:  # noqa: BLE001 - the job's boundary
        cap.lift_address_space_cap()
        last = _error_event(error, job.label, meter)
    cap.lift_address_space_cap()
    tracemalloc.stop()
    # A child whose function had left processes is not kept: their parts in this one (pools, pipes) are broken now.
    last["ended_processes"] = 0 if guard is None else cap.end_descendants(guard)
    send(last)


def _work(
    request: dict[str, Any], job: Any, engine: Engine, meter: Meter, send: Send, leaf: Path | None
) -> dict[str, Any]:
    """Plan and do the job; the event that says that it is done."""
    limit_bytes = job.resources.limit_bytes
    staged = Path(request["staged"]) if request.get("staged") else None
    room = Room(
        limit_bytes=limit_bytes,
        budget_bytes=int(limit_bytes * request.get("budget_fraction", 1.0)),
        baseline_bytes=process_memory().resident_bytes,
        disk_free_bytes=_free_bytes(job, staged),
    )
    with closing(engine.prepare(job, room)) as work:
        try:
            return _planned_and_run(
                work, job, room, meter, send, staged, leaf, plan_only=bool(request.get("plan_only"))
            )
        except MemoryRefused as refused:
            raise refusal.hinted(refused, work, job, room) from refused


def _planned_and_run(
    work: Work,
    job: Any,
    room: Room,
    meter: Meter,
    send: Send,
    staged: Path | None,
    leaf: Path | None,
    *,
    plan_only: bool,
) -> dict[str, Any]:
    """First plan, cap, probe, final plan, work."""

    def tell(plan: Plan, *, final: bool) -> Plan:
        held = refusal.held(plan, room, job.label, peak_bytes())
        record = replace(held, disk_free_bytes=room.disk_free_bytes).to_record()
        send({"event": "planned", "plan": record, "final": final})
        return held

    def settle(plan: Plan) -> None:
        meter.expect(tell(plan, final=True).projected_bytes)

    first = tell(work.first(), final=False)
    address_space = cap.apply_address_space_cap(room.limit_bytes, first.threads + 1)  # and the meter's
    if leaf:
        cap.limit_leaf(leaf, room.limit_bytes)
    send({"event": "capped", "address_space_bytes": address_space, "leaf": str(leaf) if leaf else None})
    if plan_only:
        tell(work.look(), final=True)
        return {"event": "done", "outcome": None, "memory": meter.record()}
    # Traced from here: with what planning imports, a snapshot takes 17 ms instead of 2.
    tracemalloc.start(FUNCTION_FRAMES if user_function(job) else 1)
    meter.expect(room.limit_bytes)
    bench = Bench(staged=staged, meter=meter, send=send, settle=settle)
    began = time.monotonic()
    outcome = work.run(bench)
    bench.conclude(job.label)
    return _done(outcome, meter, time.monotonic() - began)


def _done(outcome: Outcome, meter: Meter, seconds: float) -> dict[str, Any]:
    return {
        "event": "done",
        "outcome": {
            "result": outcome.result,
            "driver": outcome.driver,
            "warnings": [*outcome.warnings, *meter.warnings],
        },
        "memory": meter.record(),
        "seconds": seconds,
    }


def _free_bytes(job: Any, staged: Path | None) -> int | None:
    """What is free where the job writes; of a plan that is only looked at, where it would."""
    destination = staged or getattr(job, "destination", None)
    if destination is None:
        return None
    with suppress(OSError):
        return shutil.disk_usage(Path(destination).parent).free
    return None


def _error_event(error: BaseException, label: str, meter: Meter) -> dict[str, Any]:
    explained: SwathError = explain_exception(error, label)
    meter.note_failure()
    record = explained.to_record()
    record["facts"]["traceback"] = shown_lines("".join(traceback.format_exception(error)))
    return {
        "event": "error",
        "error": json.loads(json.dumps(record, default=str)),
        "memory": meter.record(),
        "warnings": meter.warnings,
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[3]))
    sys.stderr.flush()
    os._exit(0)  # a user's thread that does not end would hold the interpreter; nothing of ours is left to do at exit
