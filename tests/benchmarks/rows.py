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
        best: ratio of the fastest runs.
        goal: what `value` should be at most.
        peak_goal: what the ratio of the peaks should be at most.
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
    best: float | None = None
    goal: float | None = None
    peak_goal: float | None = None
    seconds: tuple[float, float] | None = None
    peaks_mib: tuple[float, float] | None = None
    cpu_ratio: float | None = None
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def peak_ratio(self) -> float | None:
        """Ours ÷ theirs."""
        return self.peaks_mib[0] / self.peaks_mib[1] if self.peaks_mib else None


def verdict(value: float | None, goal: float | None, *, judged: bool = True) -> str:
    """A goal and whether it is met: `≤ 0.75 met`, or the goal alone; empty where there is none."""
    if value is None or goal is None:
        return ""
    if not judged:
        return f"≤ {goal:.2f}"
    return f"≤ {goal:.2f} {'met' if value <= goal else 'missed'}"


def header() -> str:
    """The table's first line."""
    return (
        f"{'what':<28} {'peer':<28} {'median (min to max)':<24} {'best':>5} {'goal':<13} {'cpu':>5} {'seconds':>13} "
        f"{'peak MiB':>11} {'peak':>5} {'goal':<13}"
    )


def line(row: Row, *, judged: bool = True) -> str:
    """A row as the screen shows it; whether goals are met is for sources of full size."""
    if row.value is None:
        return f"{row.what:<28} {row.peer:<28} {row.status}: {row.detail.splitlines()[0][:80]}"
    value = f"{row.value:.2f}{row.unit} ({row.low:.2f} to {row.high:.2f})"
    best, cpu, peak = ("" if each is None else f"{each:.2f}" for each in (row.best, row.cpu_ratio, row.peak_ratio))
    seconds = "" if row.seconds is None else f"{row.seconds[0]:.2f} / {row.seconds[1]:.2f}"
    peaks = "" if row.peaks_mib is None else f"{row.peaks_mib[0]:.0f} / {row.peaks_mib[1]:.0f}"
    goal, peak_goal = (
        verdict(*each, judged=judged) for each in ((row.value, row.goal), (row.peak_ratio, row.peak_goal))
    )
    return (
        f"{row.what:<28} {row.peer:<28} {value:<24} {best:>5} {goal:<13} {cpu:>5} {seconds:>13} {peaks:>11} {peak:>5} "
        f"{peak_goal:<13}".rstrip()
    )
