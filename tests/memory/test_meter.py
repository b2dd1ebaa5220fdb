"""What the meter does for a job is bounded whatever the number of chunks: it stops the work only now and then."""

from types import SimpleNamespace
from typing import Any

import pytest

import lib.memory.meter
from lib.memory.meter import Meter
from lib.units import MIB


@pytest.mark.parametrize("chunks", [400, 4000])
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
