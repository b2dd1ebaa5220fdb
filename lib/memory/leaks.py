"""A leak is residue that slopes with chunks: a robust line through resident sizes after release. Pure.

Theil-Sen slope with Sen's confidence interval (Sen 1968, JASA 63, 1379-1389): the median of all pairwise slopes, and
the pairwise slopes at the ranks that Kendall's statistic gives for 95 %. A sawtooth has a wide interval around zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Slope", "fit", "would_cross"]

_FEWEST_POINTS = 8
_Z_95 = 1.959964
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Slope:
    """Bytes per chunk, with its 95 % interval `[low, high]`, and how many points it was fitted through."""

    bytes_per_chunk: float
    low: float
    high: float
    points: int
    confidence: float = _CONFIDENCE


def fit(points: Sequence[tuple[int, int]]) -> Slope | None:
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
    return Slope(round(median(slopes), 1), round(low, 1), round(high, 1), n)


def would_cross(slope: Slope, *, chunks: int, threshold_bytes: int) -> int | None:
    """The chunk at which this slope crosses the threshold, if that is before the job's end and the slope is surely above 0.

    Args:
        slope: the fit.
        chunks: how many chunks the job has; 0 where unknown (then only what has been seen counts).
        threshold_bytes: the drift threshold.
    """
    if slope.low <= 0 or slope.bytes_per_chunk <= 0:
        return None
    crossing = math.ceil(threshold_bytes / slope.bytes_per_chunk)
    return crossing if crossing <= chunks else None
