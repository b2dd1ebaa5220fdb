"""A slope is a leak only when it is sure and would cross the threshold before the job's end."""

import random

import pytest

from lib.memory.leaks import fit, would_cross
from lib.units import KIB, MIB


def _series(per_chunk: float, noise: int, chunks: int = 120, seed: int = 1) -> list[tuple[int, int]]:
    source = random.Random(seed)
    return [(n, int(90 * MIB + per_chunk * n + source.uniform(-noise, noise))) for n in range(chunks)]


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_slope_is_found_within_its_interval(seed: int) -> None:
    """A leak of 200 KiB a chunk under noise of ±300 KiB is measured to a few per cent, its interval holding it."""
    slope = fit(_series(200 * KIB, 300 * KIB, seed=seed))
    assert slope is not None
    assert slope.bytes_per_chunk == pytest.approx(200 * KIB, rel=0.05)
    assert slope.low <= slope.bytes_per_chunk <= slope.high
    assert slope.low > 0


def test_a_sawtooth_is_no_leak() -> None:
    """Growth that is given back every ten chunks is not named, however long the job."""
    series = [(n, 90 * MIB + (n % 10) * 4 * MIB) for n in range(160)]
    slope = fit(series)
    assert slope is not None
    assert would_cross(slope, chunks=10_000, threshold_bytes=100 * MIB) is None


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_leak(seed: int) -> None:
    """Noise around a constant crosses nothing within a thousand chunks."""
    slope = fit(_series(0, 500 * KIB, seed=seed))
    assert slope is not None
    assert would_cross(slope, chunks=1000, threshold_bytes=100 * MIB) is None


def test_one_outlier_does_not_bend_the_line() -> None:
    """A single sample 50 MiB too high leaves the slope of a flat series at zero."""
    series = [(n, 90 * MIB) for n in range(60)]
    series[40] = (40, 140 * MIB)
    slope = fit(series)
    assert slope is not None
    assert slope.bytes_per_chunk == 0


def test_a_slow_slope_is_reported_but_not_named() -> None:
    """A slope that stays below the threshold for the whole job is no leak; on a longer job it is."""
    slope = fit(_series(100 * KIB, 0))
    assert slope is not None
    assert would_cross(slope, chunks=500, threshold_bytes=100 * MIB) is None
    assert would_cross(slope, chunks=2000, threshold_bytes=100 * MIB) == pytest.approx(1024, abs=2)


def test_too_few_points_say_nothing() -> None:
    """Seven chunks are no evidence of anything."""
    assert fit([(n, n * MIB) for n in range(7)]) is None
