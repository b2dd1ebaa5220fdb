"""The one door to an engine: `prepare(job, room) -> Work`. What it gets (Room, Bench) and what it gives (Work).

A Work has opened its source once and keeps what it opened and learned: nothing that steers it travels in its Plan, which is for
people and reports. It lives in the child and crosses nothing.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lib.errors import UsageError, VerificationFailed
from lib.memory.meter import Meter
from lib.reports import Check, Outcome, Plan
from lib.units import MIB

# The size after imports differs between children of the same job (MEASURED, "Size after imports"): a smallest limit must do for
# the next child, too.
BASELINE_SPREAD_BYTES = 4 * MIB

ENGINES = {
    "raster": "lib.raster.engine",
    "vector": "lib.vector.engine",
    "verify": "lib.verify",
    "profile": "lib.profiling",
    "drivers": "lib.drivers",
}


@dataclass(frozen=True, slots=True)
class Room:
    """What a planner may use.

    Attributes:
        limit_bytes: the job's limit.
        budget_bytes: what the plan may project: the limit, or a fraction of it after a death of memory.
        baseline_bytes: resident size of the child now, imports done.
        disk_free_bytes: what is free where the output will be staged; None where nothing is written or that is not known.
    """

    limit_bytes: int
    budget_bytes: int
    baseline_bytes: int
    disk_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What a job works with: where to write, the meter, and how to tell the parent.

    Attributes:
        staged: the file to write; None for jobs that write none.
        meter: `start` when datasets are open and buffers touched, `chunk` after each chunk, `finish` after closing.
        send: sends one event to the parent.
        settle: takes the final plan, once, behind the probe; raises MemoryRefused where it does not fit.
        checks: the checks made so far.
    """

    staged: Path | None
    meter: Meter
    send: Callable[[dict[str, Any]], None]
    settle: Callable[[Plan], None]
    checks: list[Check] = field(default_factory=list)

    def check(self, name: str, passed: bool, detail: str) -> Check:
        """Record one check of a verification, as an event too."""
        made = Check(name, bool(passed), detail)
        self.checks.append(made)
        self.send({"event": "check", "name": made.name, "passed": made.passed, "detail": made.detail})
        return made

    def conclude(self, label: str) -> None:
        """End the job where a check has failed so far; the shell does so at its end.

        Raises:
            VerificationFailed: fact `check` names the first that failed.
        """
        for check in self.checks:
            if not check.passed:
                raise VerificationFailed(f"{label} failed the check {check.name!r}: {check.detail}", check=check.name)


class Work(Protocol):
    """A prepared job."""

    def first(self) -> Plan:
        """The plan by header and own terms; raises MemoryRefused, DiskRefused."""

    def look(self) -> Plan:
        """The final plan after reading a chunk or two, for a plan that is only looked at; raises MemoryRefused."""

    def run(self, bench: Bench) -> Outcome:
        """Do it. The first chunks are the probe: behind them, once, `bench.settle` gets the final plan."""

    def smallest(self, **without: Any) -> int:
        """The smallest limit that would do, bytes, with these fields of the job's resources; reopens nothing."""

    def close(self) -> None:
        """Let go of what is open."""


class Engine(Protocol):
    """One job kind, as a module."""

    def prepare(self, job: Any, room: Room) -> Work:
        """Open the source, once, and gather what its header says; raises SourceError, DataError and the like."""


def with_probed(own_bytes: int, probed_bytes: int) -> int:
    """A projection of own terms (baseline included) and of what libraries were measured to hold, with its margin, bytes."""
    return own_bytes + max(probed_bytes * 115 // 100, probed_bytes + 8 * MIB)


def load_engine(kind: str) -> Engine:
    """Import the engine of a job kind; only the child does."""
    return importlib.import_module(ENGINES[kind])


def load_function(name: str) -> Callable[..., Any]:
    """A user's function by `module:name`; the working directory comes last on the path, so that it shadows nothing.

    Raises:
        UsageError: where it cannot be imported or is not callable.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except MemoryError:
        raise
    except Exception as error:
        raise UsageError(
            f"function {name} cannot be imported: {error}", hint="write module:name, importable from here"
        ) from error
    if not callable(found):
        raise UsageError(f"function {name} is not callable", hint="name a function")
    return found  # type: ignore[no-any-return]
