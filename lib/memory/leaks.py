"""A leak is residue that slopes with chunks: when to release, a robust line through what stays, and what that line means. Pure.

Theil-Sen slope with Sen's confidence interval (Sen 1968, JASA 63, 1379-1389): the median of all pairwise slopes, and those at the
ranks that Kendall's statistic gives for 95 %. Which lines of code grow is in `traces.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_FEWEST_POINTS = 8
_Z_95 = 1.959964
_MOST_POINTS = 128
_GROWTH_STEPS = 32
_BEGUN = 0.1
_EXPLAINED = 0.5
_NAMED_FROM = 7 / 8

Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Slope:
    """Bytes per chunk, with its 95 % interval `[low, high]`."""

    bytes_per_chunk: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Memory grows: the whole interval is above 0."""
        return self.low > 0


def fit(points: Sequence[Point]) -> Slope | None:
    """The slope through `(chunk, resident bytes after release)`; the first quarter is warm-up; None for too few points."""
    settled = points[len(points) // 4 :]
    if len(settled) < _FEWEST_POINTS:
        return None
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for i, earlier in enumerate(settled)
        for later in settled[i + 1 :]
        if later[0] > earlier[0]
    )
    if not slopes:
        return None
    n = len(settled)
    half_width = _Z_95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = slopes[max(0, math.floor((len(slopes) - half_width) / 2))]
    high = slopes[min(len(slopes) - 1, math.ceil((len(slopes) + half_width) / 2))]
    median = (slopes[(len(slopes) - 1) // 2] + slopes[len(slopes) // 2]) / 2
    return Slope(round(median, 1), round(low, 1), round(high, 1))


def growing(points: Sequence[Point]) -> Slope | None:
    """The slope since growth began, where it is surely above 0; None where it is not.

    It began where memory was last within a tenth of the way up. A line that explains less than half of the growth is none: of a
    few large steps it is that of the treads. Nor is one that has levelled off: of a cache that is full by now.
    """
    if not points:
        return None
    lowest = min(size for _, size in points)
    few = lowest + _BEGUN * (points[-1][1] - lowest)
    begun = max((i for i, (_, size) in enumerate(points) if size <= few), default=0)
    slope = fit(points[begun:])
    late = fit(points[begun + (len(points) - begun) // 2 :])
    if slope is None or not slope.is_sure or (late is not None and not late.is_sure):
        return None
    (first, least), (last, most) = points[begun], points[-1]
    return slope if slope.bytes_per_chunk * (last - first) >= _EXPLAINED * (most - least) else None


def would_cross(slope: Slope, *, chunk: int, held_bytes: int, chunks: int, threshold_bytes: int) -> int | None:
    """The chunk at which this slope crosses the threshold, if that is before the job's end and the slope is surely above 0.

    None while less than seven eighths of the threshold are held: so far a cache that fills, or a sawtooth, looks the same.

    Args:
        slope: the fit.
        chunk: chunks done.
        held_bytes: growth over the baseline by then, after release.
        chunks: how many chunks the job has; those done where unknown (then only what has been seen counts).
        threshold_bytes: the drift threshold.
    """
    if not slope.is_sure or slope.bytes_per_chunk <= 0 or held_bytes < _NAMED_FROM * threshold_bytes:
        return None
    crossing = chunk + max(0, math.ceil((threshold_bytes - held_bytes) / slope.bytes_per_chunk))
    return crossing if crossing <= chunks else None


class Sizes:
    """Resident sizes over chunks or seconds, evenly thinned to so many."""

    def __init__(self, most: int = _MOST_POINTS) -> None:
        self.points: list[tuple[Any, int]] = []
        self._most = most
        self._stride = 1
        self._seen = 0

    def add(self, at: float, resident_bytes: int) -> None:
        """One more size; only every so many are kept."""
        if self._seen % self._stride == 0:
            self.points.append((at, resident_bytes))
            if len(self.points) > self._most:
                del self.points[1::2]
                self._stride *= 2
        self._seen += 1


class Residues:
    """What stays after each release, and whether growth asks for the next one.

    It does where memory is higher than ever after a release, by a step and by what releases lately gave back: memory that comes
    and goes asks for none once its swing is known.

    Args:
        threshold_bytes: the drift threshold.
    """

    def __init__(self, threshold_bytes: int) -> None:
        self._threshold_bytes = threshold_bytes
        self._base_bytes = self._highest_bytes = self._swing_bytes = 0
        self.points: list[Point] = []

    def begin(self, baseline_bytes: int) -> None:
        """Growth counts from this size on."""
        self._base_bytes = self._highest_bytes = baseline_bytes

    def asks(self, resident_bytes: int) -> bool:
        """Whether to release now, at this size before release."""
        step = max(self._threshold_bytes, self._highest_bytes - self._base_bytes) // _GROWTH_STEPS
        return resident_bytes > self._highest_bytes + step + self._swing_bytes

    def add(self, chunk: int, before_bytes: int, after_bytes: int) -> None:
        """A release: resident bytes before it and after it."""
        # Halved, not kept: after a single swing the schedule is as watchful again a few releases later.
        self._swing_bytes = max(before_bytes - after_bytes, self._swing_bytes // 2)
        self._highest_bytes = max(self._highest_bytes, after_bytes)
        self.points.append((chunk, after_bytes))
        if len(self.points) > _MOST_POINTS:
            del self.points[1::2]
