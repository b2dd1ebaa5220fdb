"""The capped child: `python -P -m lib.memory.child KIND LABEL FD`. Jobs as JSON lines on stdin, events on the pipe FD.

Order matters: death signal and start-up ceiling before any import that could be large; the engine, and with it GDAL, before the
size is taken from which the job is planned; the cap after the first plan, before the first read.
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
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.errors import MemoryRefused, shown_lines
from lib.jobs import parse_job, user_function
from lib.memory import refusal
from lib.memory.evidence import explain_exception
from lib.memory.meter import Meter
from lib.memory.noise import heard
from lib.memory.proc import peak_bytes, process_memory, restart_peak
from lib.memory.traces import FUNCTION_FRAMES
from lib.memory.work import Bench, Engine, Room, Work, load_engine
from lib.reports import Plan
from lib.units import file_label

Send = Callable[..., None]  # of events


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

        def send(*events: dict[str, Any]) -> None:
            lines = "".join(json.dumps(event) + "\n" for event in events)
            with one_at_a_time:
                pipe.write(lines)

        load_engine(kind)
        gc.collect()
        gc.freeze()  # what imports made lives for ever: later collections need not walk it
        send({"event": "ready", "resident_bytes": process_memory().resident_bytes})
        for line in jobs:
            _take(json.loads(line), jobs, send, leaf)


def _take(request: dict[str, Any], answers: Iterator[str], send: Send, leaf: Path | None) -> None:
    """One job, to its `done` or `error` event."""
    os.environ |= request["environment"]
    if tempfile := sys.modules.get("tempfile"):
        vars(tempfile)["tempdir"] = None  # Python looks at TMPDIR once
    job = parse_job(request["job"])
    cap.lift_address_space_cap()
    cap.apply_startup_ceiling()
    if leaf:
        cap.limit_leaf(leaf, cap.STARTUP_CEILING_BYTES)
    guard = None
    if user_function(job):
        cap.adopt_orphans()
        guard = cap.end_with_us()
    restart_peak(forget=True)
    resources = job.resources
    told: list[dict[str, Any]] = []
    tell = told.append if request["plan"] == "header" else send  # of a look of milliseconds all is told at once
    meter = Meter(
        tell,
        drift_threshold_bytes=resources.drift_threshold_bytes,
        residual_tolerance_bytes=resources.residual_tolerance_bytes,
    )
    try:
        with heard(meter.warnings, lambda text: tell({"event": "warning", "text": text})):
            last = _Sitting(request, job, meter, answers, tell, leaf).work(load_engine(job.kind))
    except BaseException as error:  # noqa: BLE001 - the job's boundary
        cap.lift_address_space_cap()
        last = _error_event(error, job.label, meter)
    cap.lift_address_space_cap()
    tracemalloc.stop()
    # A child whose function had left processes is not kept: their parts in this one (pools, pipes) are broken now.
    last["ended_processes"] = 0 if guard is None else cap.end_descendants(guard)
    send(*told, last)


@dataclass(frozen=True, slots=True)
class _Sitting:
    """One job in this child: what was asked, and with what it is measured, told, answered and capped."""

    request: dict[str, Any]
    job: Any
    meter: Meter
    answers: Iterator[str]
    send: Send
    leaf: Path | None

    def work(self, engine: Engine) -> dict[str, Any]:
        """Plan and do the job; the event that says that it is done."""
        limit_bytes = self.job.resources.limit_bytes
        cap.trim()  # what a job before has freed is none of this one (MEASURED, "Children that are kept in a batch")
        room = Room(
            limit_bytes=limit_bytes,
            budget_bytes=int(limit_bytes * self.request["budget_fraction"]),
            baseline_bytes=process_memory().resident_bytes,
            disk_free_bytes=self._free_bytes(),
        )
        with closing(engine.prepare(self.job, room)) as work:
            try:
                first = self._tell(work.first(), room, final=False)
                if self.request["plan"] == "header" or not self._may_go_on():
                    return {"event": "done", "outcome": None, "memory": self.meter.record()}
                self._cap(first)
                return self._look(work, room) if self.request["plan"] else self._run(work, room)
            except MemoryRefused as refused:
                raise refusal.hinted(refused, work, self.job, room) from refused

    def _tell(self, plan: Plan, room: Room, *, final: bool) -> Plan:
        held = refusal.held(plan, self.job.label, peak_bytes())
        record = replace(held, disk_free_bytes=room.disk_free_bytes).to_record()
        self.send({"event": "planned", "plan": record, "final": final})
        return held

    def _may_go_on(self) -> bool:
        """Whether the parent has a place for what the plan says; the answer is the next line, if one is to come."""
        if not self.request["asks"]:
            return True
        answer = next(self.answers, None)
        return answer is not None and bool(json.loads(answer)["goes_on"])

    def _cap(self, first: Plan) -> None:
        address_space = cap.apply_address_space_cap(first.limit_bytes, first.threads + 1)  # and the meter's
        if self.leaf:
            cap.limit_leaf(self.leaf, first.limit_bytes)
        leaf = str(self.leaf) if self.leaf else None
        self.send({"event": "capped", "address_space_bytes": address_space, "leaf": leaf})

    def _look(self, work: Work, room: Room) -> dict[str, Any]:
        self._tell(work.look(), room, final=True)
        return {"event": "done", "outcome": None, "memory": self.meter.record()}

    def _run(self, work: Work, room: Room) -> dict[str, Any]:
        # From here, as what planning imports would make each look eight times longer (MEASURED, "Traces").
        tracemalloc.start(FUNCTION_FRAMES if user_function(self.job) else 1)
        self.meter.expect(room.limit_bytes)

        def settle(plan: Plan) -> None:
            self.meter.expect(self._tell(plan, room, final=True).projected_bytes)

        bench = Bench(staged=self._staged, meter=self.meter, send=self.send, settle=settle)
        began = time.monotonic()
        outcome = work.run(bench)
        output = getattr(self.job, "output", None)
        bench.conclude(file_label(output) if output else self.job.label)
        warnings = list(dict.fromkeys([*outcome.warnings, *self.meter.warnings]))
        return {
            "event": "done",
            "outcome": {"result": outcome.result, "warnings": warnings},
            "memory": self.meter.record(),
            "seconds": time.monotonic() - began,
        }

    @property
    def _staged(self) -> Path | None:
        return Path(self.request["staged"]) if self.request["staged"] else None

    def _free_bytes(self) -> int | None:
        """What is free where the job writes; of a plan that is only looked at, where it would."""
        destination = self._staged or getattr(self.job, "destination", None)
        if destination is None:
            return None
        with suppress(OSError):
            return shutil.disk_usage(Path(destination).parent).free
        return None


def _error_event(error: BaseException, label: str, meter: Meter) -> dict[str, Any]:
    meter.note_failure()
    return {
        "event": "error",
        "error": json.loads(json.dumps(explain_exception(error, label).to_record(), default=str)),
        "traceback": shown_lines("".join(traceback.format_exception(error))),
        "memory": meter.record(),
        "warnings": meter.warnings,
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[3]))
    sys.stderr.flush()
    os._exit(0)  # a user's thread that does not end would hold the interpreter; nothing of ours is left to do at exit
