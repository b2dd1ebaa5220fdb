"""What is traced is told by line in small tables, by the user's own lines, and tracing itself stays small."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lib.memory.traces import FUNCTION_FRAMES, MOST_TRACER_BYTES, Lines, Tracer, growth
from lib.units import MIB


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    """A tracer, tracing as where a user's function runs."""
    tracemalloc.start(FUNCTION_FRAMES)
    try:
        yield Tracer()
    finally:
        tracemalloc.stop()


def _look(tracer: Tracer, chunk: int = 0) -> Lines:
    found = tracer.look(chunk)
    assert found is not None
    return found


def test_an_array_that_numpys_python_made_is_told_by_its_callers_line(tracer: Tracer) -> None:
    """`np.ones` allocates in numpy/_core/numeric.py: the line that called it is named, with its size."""
    array = np.ones(MIB, dtype="uint8")
    _look(tracer)
    largest = tracer.top()[0]
    assert "test_traces.py" in largest["location"]
    assert largest["size_bytes"] == pytest.approx(array.nbytes, rel=0.01)


def test_growth_is_told_by_line(tracer: Tracer) -> None:
    """Between two looks, the line that grew is named with what it grew by; one that stayed, or grew less, is not."""
    stays = np.ones(4 * MIB, dtype="uint8")
    before = _look(tracer, 3)
    kept = [np.ones(MIB // 4, dtype="uint8") for _ in range(8)]
    little = np.ones(MIB // 4, dtype="uint8")
    after = _look(tracer, 11)
    (grown,) = growth(before, after, least_bytes=MIB)
    assert grown["size_bytes"] == pytest.approx(sum(each.nbytes for each in kept), rel=0.01)
    assert (before.chunk, after.chunk) == (3, 11)
    assert after.numpy_bytes == stays.nbytes + little.nbytes + sum(each.nbytes for each in kept)


def test_past_its_bound_tracing_looks_once_more_and_ends(tracer: Tracer) -> None:
    """Half a million objects, checked as they come, are traced up to the bound; the line is known, and what it held then."""
    kept: dict[int, str] = {}
    most = 0
    for i in range(200_000):
        kept[i] = str(i)
        if i % 1000 == 0:
            tracer.check(7)
            most = max(most, tracemalloc.get_tracemalloc_memory())
    assert not tracemalloc.is_tracing()
    assert most <= MOST_TRACER_BYTES
    assert tracer.stopped is not None
    assert tracer.stopped["chunk"] == 7
    assert 5_000 < tracer.stopped["allocations"] < 25_000
    assert "test_traces.py" in tracer.top()[0]["location"]
    assert tracer.look(8) is None


def test_far_past_its_bound_it_ends_without_a_look(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single call that made 200,000 objects is not looked at: that alone would take 50 MiB."""
    looks: list[Any] = []
    monkeypatch.setattr(tracemalloc, "take_snapshot", lambda: looks.append(None))
    kept = list(range(1_000_000, 1_200_000))
    assert tracer.look(1) is None
    assert tracer.stopped is not None
    assert tracer.stopped["allocations"] == 0
    assert not looks
    assert len(kept) == 200_000


def test_a_table_is_small(tracer: Tracer) -> None:
    """Ten thousand objects of one line make one row; lines below 4 KiB make none."""
    kept = [object() for _ in range(10_000)]
    small = bytes(1000)
    found = _look(tracer)
    assert len(found.by_location) < 10
    assert found.allocations >= len(kept)
    assert found.traced_bytes > len(kept) * 16 + len(small)
