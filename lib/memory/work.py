"""What an engine gets and gives: the room to plan in, the bench to work at. Every job kind is two functions of these.

An engine module has `plan(job, room) -> Plan`, which opens headers only, and `run(job, plan, bench) -> Outcome`.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lib.errors import UsageError
from lib.memory.meter import Meter
from lib.reports import Check, Outcome, Plan
from lib.units import MIB

__all__ = ["BASELINE_SPREAD_BYTES", "ENGINES", "Bench", "Engine", "Room", "load_engine", "load_function"]

# The size after imports, from which a job is planned, differs by up to 3 MiB between children of the same job (file-backed pages
# that the kernel maps along, more where the machine is busy): a smallest limit must do for the next child too.
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
        checks: the checks made so far.
    """

    staged: Path | None
    meter: Meter
    send: Callable[[dict[str, Any]], None]
    checks: list[Check] = field(default_factory=list)

    def check(self, name: str, passed: bool, detail: str) -> Check:
        """Record one check of a verification, as an event too."""
        made = Check(name, bool(passed), detail)
        self.checks.append(made)
        self.send({"event": "check", "name": made.name, "passed": made.passed, "detail": made.detail})
        return made

    @property
    def failed_checks(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]


class Engine(Protocol):
    """One job kind, as a module."""

    def plan(self, job: Any, room: Room) -> Plan:
        """Read headers and plan; raises MemoryRefused, DiskRefused, SourceError."""

    def run(self, job: Any, plan: Plan, bench: Bench) -> Outcome:
        """Do the work."""


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
