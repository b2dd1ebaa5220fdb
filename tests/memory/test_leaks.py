"""A slope is a leak only when it is sure and would cross the threshold before the job's end."""

import random
from itertools import pairwise

import pytest

from lib.memory.leaks import Residues, Sizes, Slope, fit, growing, would_cross
from lib.units import KIB, MIB

THRESHOLD = 32 * MIB
Point = tuple[int, int]


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


def _named(series: list[Point], *, chunks: int, threshold: int = THRESHOLD) -> list[int]:
    """The chunks at which a leak would be named, judged after every point as the meter does."""
    base, named, sizes = series[0][1], [], Sizes()
    for chunk, size in series:
        sizes.add(chunk, size)
        where = {"chunk": chunk, "held_bytes": size - base, "chunks": chunks, "threshold_bytes": threshold}
        if size - base > threshold // 2 and (slope := growing(sizes.points)) and would_cross(slope, **where):
            named.append(chunk)
    return named


@pytest.mark.parametrize(
    "sizes",
    [
        [(n % 10) * 3 * MIB for n in range(160)],
        [(n % 200) * MIB // 8 for n in range(1000)],
        [n * MIB // 8 if n < 8 else (n - (1 << n.bit_length() - 1)) * MIB // 8 for n in range(440)],
        [60 * MIB if n > 100 else 0 for n in range(300)],
        [min(n, 96) * MIB // 4 for n in range(400)],
        [min(n, 400) * MIB // 20 for n in range(1000)],
    ],
    ids=["sawtooth", "long teeth", "growing teeth", "cache at once", "cache that fills", "cache that fills slowly"],
)
def test_what_is_given_back_or_stays_is_no_leak(sizes: list[int]) -> None:
    """Sawteeth below seven eighths of the threshold, and caches, are named at no time, however long the job."""
    assert _named([(n, 90 * MIB + size) for n, size in enumerate(sizes)], chunks=100_000) == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_leak(seed: int) -> None:
    """Noise around a constant has no sure slope and crosses nothing, even from close below the threshold."""
    series = _series(0, 500 * KIB, seed=seed)
    slope = fit(series)
    assert slope is not None
    assert not slope.is_sure
    assert would_cross(slope, chunk=120, held_bytes=30 * MIB, chunks=10_000, threshold_bytes=THRESHOLD) is None


def test_a_slope_that_may_be_none_is_not_named() -> None:
    """A positive slope whose interval holds zero crosses nothing, however near the threshold is."""
    unsure = Slope(300 * KIB, -10.0, 600 * KIB)
    sure = Slope(300 * KIB, 10.0, 600 * KIB)
    where = {"chunk": 100, "held_bytes": 31 * MIB, "chunks": 1000, "threshold_bytes": THRESHOLD}
    assert would_cross(unsure, **where) is None
    assert would_cross(sure, **where) is not None


@pytest.mark.parametrize("begins", [0, 50, 700, 3000])
def test_a_leak_is_told_from_where_it_began(begins: int) -> None:
    """Named before it crosses, with its own slope and the right chunk, also where memory was flat for long before."""
    series = [(n, 90 * MIB + max(0, n - begins) * 64 * KIB) for n in range(0, begins + 600, 8)]
    named = _named(series, chunks=4096)
    assert named
    assert begins + 448 <= named[0] <= begins + 512
    seen = [point for point in series if point[0] <= named[0]]
    slope = growing(seen)
    assert slope is not None
    assert slope.bytes_per_chunk == pytest.approx(64 * KIB, rel=0.01)
    held = seen[-1][1] - 90 * MIB
    crossing = would_cross(slope, chunk=seen[-1][0], held_bytes=held, chunks=4096, threshold_bytes=THRESHOLD)
    assert crossing == pytest.approx(begins + 512, abs=2)


def test_one_outlier_does_not_bend_the_line() -> None:
    """A single sample 50 MiB too high leaves the slope of a flat series at zero."""
    series = [(n, 90 * MIB) for n in range(60)]
    series[40] = (40, 140 * MIB)
    slope = fit(series)
    assert slope is not None
    assert slope.bytes_per_chunk == 0


def test_a_slow_slope_is_reported_but_not_named() -> None:
    """A slope that stays below the threshold for the whole job is no leak; on a longer job it is."""
    slope = fit(_series(100 * KIB, 0, chunks=920))
    assert slope is not None
    where = {"chunk": 920, "held_bytes": 92_000 * KIB, "threshold_bytes": 100 * MIB}
    assert would_cross(slope, chunks=1000, **where) is None
    assert would_cross(slope, chunks=2000, **where) == pytest.approx(1024, abs=2)


def test_past_the_threshold_the_crossing_is_told_as_seen() -> None:
    """Growth that is past the threshold already has crossed by the chunk at which it was measured."""
    slope = Slope(1000.0, 900.0, 1100.0)
    assert would_cross(slope, chunk=77, held_bytes=THRESHOLD + 1, chunks=77, threshold_bytes=THRESHOLD) == 77


def test_too_few_points_say_nothing() -> None:
    """Seven chunks are no evidence of anything."""
    assert fit([(n, n * MIB) for n in range(7)]) is None


def _releases(sizes: list[tuple[int, int]]) -> list[int]:
    """The chunks after which growth asked for a release, of `(held, free)` bytes beside each other."""
    residues, asked = Residues(THRESHOLD), []
    residues.begin(0)
    for chunk, (held, free) in enumerate(sizes, 1):
        if residues.asks(held + free):
            residues.add(chunk, held + free, held)
            asked.append(chunk)
    return asked


def test_growth_is_seen_some_thirty_times_before_the_threshold() -> None:
    """A leak asks for a release at each thirty-second of the threshold, and as often again where it doubles after it."""
    assert len(_releases([(n * 128 * KIB, 0) for n in range(256)])) == pytest.approx(28, abs=3)
    assert len(_releases([(n * 128 * KIB, 0) for n in range(256 * 8)])) < 32 * 4


def test_a_swing_asks_for_few_releases_and_hides_no_leak() -> None:
    """24 MiB that come and go ask once; a leak of 128 KiB beside 6 MiB of free memory is still seen twenty times."""
    assert len(_releases([(0, 24 * MIB)] * 4000)) == 1
    assert len(_releases([(n * 128 * KIB, 6 * MIB) for n in range(256)])) >= 20
    source = random.Random(3)
    assert len(_releases([(0, source.randrange(24 * MIB)) for _ in range(4000)])) < 40


def test_after_a_swing_that_went_the_schedule_recovers() -> None:
    """One release that gave 200 MiB back blinds for a few more only: regular ones halve it."""
    residues = Residues(THRESHOLD)
    residues.begin(0)
    residues.add(1, 200 * MIB, 0)
    assert not residues.asks(100 * MIB)
    for chunk in range(2, 12):
        residues.add(chunk, 0, 0)
    assert residues.asks(2 * MIB)


def test_sizes_are_thinned_evenly() -> None:
    """Of ten thousand sizes at most 128 are kept, from the first to near the last, evenly apart."""
    sizes = Sizes()
    for chunk in range(10_000):
        sizes.add(chunk, chunk)
    chunks = [chunk for chunk, _ in sizes.points]
    assert 64 <= len(chunks) <= 128
    assert chunks[0] == 0
    assert chunks[-1] > 9_800
    assert len({later - earlier for earlier, later in pairwise(chunks)}) == 1


def test_growth_that_has_levelled_off_is_no_leak() -> None:
    """A cache that fills over half of the job and is full then grows no more, however surely it did."""
    filling = [(n, 100 * MIB + min(n, 60) * MIB) for n in range(120)]
    assert growing(filling[:60]) is not None
    assert growing(filling) is None
