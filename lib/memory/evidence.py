"""How did a child die? Memory only on evidence: words, sizes, counters; anything else is a failure with its signal. Pure.

A tight limit surfaces as "Write failed", a thread that cannot start, SIGSEGV, SIGABRT or a hang. Not seen: native code that
is refused one large block and writes to the NULL it got instead dies of SIGSEGV, silent and far from any limit.
"""

import signal
from dataclasses import dataclass
from typing import Any

from lib.diagnosis import FULL_HINT, LIBRARIES, asked_bytes, chain, diagnose, named, words
from lib.errors import (
    ChildDied,
    ChildStalled,
    DataError,
    FunctionError,
    JobFailed,
    MemoryExceeded,
    OutputError,
    SwathError,
)
from lib.units import MIB, format_bytes, format_seconds

_NEAR_LIMIT = 0.9
NEAR_ADDRESS_SPACE_BYTES = 16 * MIB
_SHOWN_WORDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """What the parent knows of a child that ended without a report.

    Attributes:
        returncode: as `subprocess` has it: negative for a signal; None where the parent ended it for a stall.
        stalled_seconds: how long it had been silent, where the parent ended it for that.
        limit_bytes: the job's limit.
        held_bytes: resident + swapped at the last sample.
        virtual_bytes: virtual size at the last sample.
        address_space_bytes: the soft RLIMIT_AS that held, if one did.
        oom_kills: the cgroup leaf's oom_kill count.
        last_words: the end of its standard error.
    """

    returncode: int | None
    stalled_seconds: float | None = None
    limit_bytes: int
    held_bytes: int = 0
    virtual_bytes: int = 0
    address_space_bytes: int | None = None
    oom_kills: int = 0
    last_words: str = ""


def classify(death: Death, label: str) -> SwathError:
    """The error that this death is; `label` names the job's file."""
    said = " ".join(death.last_words.split())[-_SHOWN_WORDS:]
    evidence = _memory_evidence(death)
    how = _how(death)
    facts: dict[str, Any] = {
        "returncode": death.returncode,
        "held_bytes": death.held_bytes,
        "last_words": death.last_words[-2000:],
    }
    if evidence:
        return MemoryExceeded(
            f"{label}: stopped at its limit of {format_bytes(death.limit_bytes)}: {how}, {evidence}", **facts
        )
    if death.stalled_seconds is not None:
        return ChildStalled(f"{label}: {how}", **facts)
    return ChildDied(
        f"{label}: the job's process {how}" + (f"; its last words: {said}" if said else ""),
        signal=None if death.returncode is None or death.returncode >= 0 else -death.returncode,
        **facts,
    )


def _memory_evidence(death: Death) -> str:
    if death.oom_kills:
        return "the cgroup counts an oom_kill"
    if diagnose(death.last_words) == "memory":
        return "an allocator said so"
    if death.held_bytes >= _NEAR_LIMIT * death.limit_bytes:
        return f"it held {format_bytes(death.held_bytes)}"
    cap = death.address_space_bytes
    if cap is not None and death.virtual_bytes >= cap - NEAR_ADDRESS_SPACE_BYTES:
        return f"its address space was at the cap of {format_bytes(cap)}"
    return ""


def _how(death: Death) -> str:
    if death.stalled_seconds is not None:
        return f"made no progress for {format_seconds(death.stalled_seconds)}"
    code = death.returncode or 0
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"


def explain_exception(error: BaseException, label: str) -> SwathError:
    """What an exception in the child is, as an error of ours; those of ours pass, unless an allocator was behind them."""
    kind = diagnose(error)
    if isinstance(error, SwathError):
        may_be_memory = isinstance(error, JobFailed) and not isinstance(error, (DataError, FunctionError))
        if kind == "memory" and may_be_memory:
            return MemoryExceeded(f"{label}: an allocator was refused: {error.message}", asked_bytes=asked_bytes(error))
        return error
    if kind == "memory":
        return MemoryExceeded(f"{label}: an allocator was refused: {words(error)}", asked_bytes=asked_bytes(error))
    if kind in {"disk full", "short"}:
        return OutputError(f"{label}: writing failed: {words(error)}", hint=FULL_HINT)
    if any(type(each).__module__.split(".")[0] in LIBRARIES for each in chain(error)):
        return DataError(f"{label}: GDAL cannot go on: {words(error)}")  # not translated where it was raised
    return JobFailed(f"{label}: unexpected {named(error)}")
