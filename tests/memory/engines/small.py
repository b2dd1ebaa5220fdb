"""An engine without a GIS library, for the life of a job in its child; what its probe and its work do is the source's stem.

It plans chunks of 64 MiB, or what the budget leaves; the margin of the job and 1 KiB for each row of a fixed chunk come on top.
"""

import ctypes
import mmap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.errors import DataError, MemoryRefused
from lib.memory.work import BASELINE_SPREAD_BYTES, Bench, Room
from lib.reports import Outcome, Plan
from lib.units import KIB, MIB

_CHUNK_BYTES, _LEAST_BYTES = 64 * MIB, MIB


def prepare(job: Any, room: Room) -> "_Work":
    """Nothing is opened."""
    match Path(job.source).stem:
        case "slow_to_open":
            time.sleep(3600)
        case "large_header":
            bytearray(b"x") * (300 * MIB)
    return _Work(job, room)


@dataclass(frozen=True, slots=True)
class _Work:
    job: Any
    room: Room

    def _fixed(self, **without: Any) -> int:
        resources = self.job.resources.model_copy(update=without)
        rows = resources.chunk_rows * KIB if resources.chunk_rows_fixed else 0
        return self.room.baseline_bytes + resources.margin_bytes + ((resources.threads or 1) - 1) * 2 * MIB + rows

    def smallest(self, **without: Any) -> int:
        return self._fixed(**without) + _LEAST_BYTES + BASELINE_SPREAD_BYTES

    def first(self) -> Plan:
        chunk = min(_CHUNK_BYTES, self.room.budget_bytes - self._fixed())
        is_stubborn = (
            Path(self.job.source).stem == "stubborn_block_of_304" and self.room.budget_bytes < self.room.limit_bytes
        )
        if chunk < _LEAST_BYTES or is_stubborn:
            raise MemoryRefused(f"{self.job.label}: no room", smallest_limit_bytes=self.smallest())
        return Plan(
            limit_bytes=self.room.limit_bytes,
            projected_bytes=self._fixed() + chunk,
            baseline_bytes=self.room.baseline_bytes,
            disk_bytes=0,
            smallest_limit_bytes=self.smallest(),
            terms={"fixed": self._fixed(), "chunk": chunk, "nothing": 0},
        )

    def look(self) -> Plan:
        return self._probed(self.first())

    def close(self) -> None:
        """Nothing is open."""

    def run(self, bench: Bench) -> Outcome:
        plan = self._probed(self.first())
        bench.settle(plan)
        bench.meter.start(1)
        if Path(self.job.source).stem == "grows_in_the_work":
            _hold(600 * MIB)
        bench.meter.chunk()
        bench.meter.finish()
        bench.check("sum", Path(self.job.source).stem != "wrong", "of all")
        return Outcome(result={"chunk_bytes": plan.terms["chunk"]})

    def _probed(self, plan: Plan) -> Plan:
        """The first chunk: what the stem says is held in it."""
        chunk = plan.terms["chunk"]
        match Path(self.job.source).stem:
            case "library_takes_thrice":
                _hold(3 * chunk)
                return replace(plan, projected_bytes=plan.projected_bytes + 3 * chunk)
            case "block_of_304" | "stubborn_block_of_304":
                _hold(304 * MIB)
            case "no_memory":
                raise MemoryError("Unable to allocate 1.00 TiB")
            case "no_addresses":
                mmap.mmap(-1, 4096 * MIB)
            case "needs_500":
                return replace(plan, projected_bytes=500 * MIB, smallest_limit_bytes=504 * MIB)
            case "reaches_96":
                _hold(96 * MIB)
                return replace(plan, projected_bytes=self.room.baseline_bytes)
            case "crashes":
                ctypes.string_at(0)
            case "hangs":
                time.sleep(3600)
            case "damaged":
                raise DataError("x: a block does not decode")
        return plan


def _hold(size_bytes: int) -> None:
    """Take so much, every page touched, and give it back: piece by piece, as the watchdog looks every 20 ms."""
    pieces = []
    for _ in range(0, size_bytes, 16 * MIB):
        pieces.append(mmap.mmap(-1, 16 * MIB))
        for _ in range(16):
            pieces[-1].write(b"x" * MIB)
        time.sleep(0.005)
    time.sleep(0.1)
    for piece in pieces:
        piece.close()
