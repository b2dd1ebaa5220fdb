"""One measurement as a row of the table: what the screen and the JSON show."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        entry: its name.
        what: the job in words.
        peer: whom it is measured against, or what part of it is measured.
        status: `measured`, `MISSING` or `FAILED`.
        value: ratio of medians, ours ÷ theirs, or seconds.
        low: least of the single values.
        high: largest of them.
        unit: empty for a ratio, else `s`.
        goal: what `value` should be at most.
        seconds: medians, ours and theirs.
        peaks_mib: medians of the largest process's peak, ours and theirs.
        cpu_ratio: ratio of processor seconds, which a busy machine moves less.
        detail: what was compared, or why there is no value.
        facts: more, for the JSON alone.
    """

    entry: str
    what: str
    peer: str
    status: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    goal: float | None = None
    seconds: tuple[float, float] | None = None
    peaks_mib: tuple[float, float] | None = None
    cpu_ratio: float | None = None
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def header() -> str:
    """The table's first line."""
    return (
        f"{'what':<30} {'peer':<34} {'median (min to max)':<24} {'goal':>5} {'cpu':>5} {'seconds':>13} {'peak MiB':>11}"
    )


def line(row: Row) -> str:
    """A row as the screen shows it."""
    if row.value is None:
        return f"{row.what:<30} {row.peer:<34} {row.status}: {row.detail.splitlines()[0][:80]}"
    value = f"{row.value:.2f}{row.unit} ({row.low:.2f} to {row.high:.2f})"
    goal = "" if row.goal is None else f"{row.goal:.2f}"
    cpu = "" if row.cpu_ratio is None else f"{row.cpu_ratio:.2f}"
    seconds = "" if row.seconds is None else f"{row.seconds[0]:.2f} / {row.seconds[1]:.2f}"
    peaks = "" if row.peaks_mib is None else f"{row.peaks_mib[0]:.0f} / {row.peaks_mib[1]:.0f}"
    return f"{row.what:<30} {row.peer:<34} {value:<24} {goal:>5} {cpu:>5} {seconds:>13} {peaks:>11}"
