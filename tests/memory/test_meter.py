"""What the meter does for a job is bounded whatever the number of chunks: it stops the work only now and then."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import lib.memory.meter
from lib.errors import DriftExceeded
from lib.memory.meter import Meter
from lib.units import MIB


@pytest.mark.parametrize("chunks", [400, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("known", [True, False])
def test_releases_stay_few_where_memory_swings(chunks: int, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that comes and goes by 24 MiB at every chunk is released some dozens of times, not at every chunk."""
    clock = iter(range(1_000_000))
    releases: list[None] = []
    resident = [100 * MIB]
    events: list[dict[str, Any]] = []

    def trim() -> None:
        releases.append(None)
        resident[0] = 100 * MIB

    monkeypatch.setattr(lib.memory.meter, "time", SimpleNamespace(monotonic=lambda: next(clock) / 1000))
    monkeypatch.setattr(lib.memory.meter, "process_memory", lambda: SimpleNamespace(resident_bytes=resident[0]))
    monkeypatch.setattr(lib.memory.meter, "trim", trim)
    monkeypatch.setattr(Meter, "_watch_peak", lambda _: None)
    meter = Meter(events.append, drift_threshold_bytes=32 * MIB, residual_tolerance_bytes=MIB)
    meter.expect(256 * MIB)
    meter.start(chunks if known else 0)
    for _ in range(chunks):
        resident[0] = 124 * MIB
        meter.chunk()
    assert 1 <= len(releases) <= 100
    assert meter.leak is None
    assert meter.max_drift_bytes == 24 * MIB
    assert events[-1]["event"] == "chunk"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets resident memory: what a release leaves of it, and what it gives back; releases are rationed by no clock."""
    held = [100 * MIB, 0]

    def trim() -> None:
        held[1] = 0

    def set_to(stays: int, free: int = 0) -> None:
        held[:] = [stays, free]

    now = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(lib.memory.meter, "time", now)
    monkeypatch.setattr(
        lib.memory.meter, "process_memory", lambda: SimpleNamespace(resident_bytes=sum(held), peak_bytes=sum(held))
    )
    monkeypatch.setattr(lib.memory.meter, "trim", trim)
    monkeypatch.setattr(Meter, "_watch_peak", lambda _: None)
    return set_to


def _meter(events: list[dict[str, Any]], projected_bytes: int) -> Meter:
    meter = Meter(events.append, drift_threshold_bytes=32 * MIB, residual_tolerance_bytes=100 * MIB)
    meter.expect(projected_bytes)
    return meter


def test_a_leak_is_judged_before_drift_is_raised(sizes: Callable[..., None]) -> None:
    """A leak of 1 MiB that is hidden under 12 MiB of swings, so that few releases see it, is named as drift ends the job."""
    events: list[dict[str, Any]] = []
    meter = _meter(events, 100 * MIB)
    meter.start(1000)
    meter._rested_at = 1.0

    def work() -> None:
        for chunk in range(1, 100):
            sizes(100 * MIB + chunk * MIB + (chunk % 3 != 2) * 12 * MIB)
            meter.chunk()

    with pytest.raises(DriftExceeded):
        work()
    assert meter.leak is not None
    assert meter.leak["bytes_per_chunk"] == pytest.approx(MIB, rel=0.2)
    assert "leak" in [event["event"] for event in events]


def test_a_leak_within_the_projection_is_judged_at_the_end(sizes: Callable[..., None]) -> None:
    """Growth of 40 MiB past a threshold of 32, below what was projected, ends no job; it is named by its end."""
    meter = _meter([], 500 * MIB)
    meter.start(1000)
    meter._rested_at = 1.0
    for chunk in range(1, 41):
        sizes(100 * MIB + chunk * MIB)
        meter._judge_leak, judge = (lambda: None), meter._judge_leak  # type: ignore[method-assign]
        meter.chunk()
        meter._judge_leak = judge  # type: ignore[method-assign]
    assert meter.leak is None
    meter.finish()
    assert meter.leak is not None
    assert meter.leak["crosses_at_chunk"] == 40


@pytest.mark.parametrize(("unexplained_mib", "is_named"), [(0, True), (41, False)])
def test_growth_below_what_nothing_explained_before_is_no_leak(
    sizes: Callable[..., None], unexplained_mib: int, is_named: bool
) -> None:
    """Growth of 40 MiB beside 41 that no holder explained at the baseline tells nothing; beside none it is a leak."""
    meter = _meter([], 500 * MIB)
    meter.start(1000)
    meter._unexplained_bytes = unexplained_mib * MIB
    meter._rested_at = 1.0
    for chunk in range(1, 41):
        sizes(100 * MIB + chunk * MIB)
        meter.chunk()
    meter.finish()
    assert (meter.leak is not None) == is_named


def test_attribution_stays_that_of_the_highest_size(sizes: Callable[..., None]) -> None:
    """What memory was made of at 160 MiB is kept where the end holds 101; the two are told apart."""
    events: list[dict[str, Any]] = []
    meter = _meter(events, 500 * MIB)
    sizes(160 * MIB)
    meter.start(10)
    noted = meter.attribution
    assert noted
    sizes(160 * MIB + 1)
    meter.finish()
    assert meter.attribution is noted
    assert meter.attribution_end
    assert meter.attribution_end is not noted
    assert [event["resident_bytes"] for event in events if event["event"] == "allocators"] == [160 * MIB]


def test_a_failure_after_the_end_leaves_the_end_as_it_was(sizes: Callable[..., None]) -> None:
    """A check that fails after the work was measured, untraced, does not overwrite what was measured."""
    meter = _meter([], 500 * MIB)
    meter.start(10)
    meter.finish()
    end = meter.attribution_end
    meter.note_failure()
    assert meter.attribution_end is end


def test_what_gdals_cache_holds_is_neither_residue_nor_a_leak(
    sizes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source's one large block, or a cache that fills with its rows, goes when its dataset is closed."""
    cached = [5 * MIB]
    monkeypatch.setattr(lib.memory.meter.Attributor, "cached_bytes", lambda _: cached[0])
    meter = Meter(lambda _: None, drift_threshold_bytes=32 * MIB, residual_tolerance_bytes=MIB)
    meter.expect(500 * MIB)
    meter.start(24)
    for chunk in range(1, 25):
        cached[0] = (5 + 3 * chunk) * MIB
        sizes((100 + 3 * chunk) * MIB)
        meter.chunk()
    meter.finish()
    assert meter.max_drift_bytes == 72 * MIB
    assert meter.residual_bytes == 0
    assert meter.leak is None
    assert meter.warnings == []
