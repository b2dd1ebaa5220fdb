"""Windows as properties: each pixel once, aligned, in order; samples inside the raster."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lib.raster import windows
from lib.raster.pipeline import in_order

LENGTHS = st.integers(1, 90)
STEPS = st.integers(1, 40)


@given(LENGTHS, LENGTHS, STEPS, STEPS)
def test_windows_cover_each_pixel_once(height: int, width: int, down: int, across: int) -> None:
    """Painted one after another, windows touch each pixel exactly once, start at multiples, and are counted rightly."""
    painted = np.zeros((height, width), int)
    made = list(windows.windows((height, width), (down, across)))
    for each in made:
        rows, columns = each.ranges
        painted[slice(*rows), slice(*columns)] += 1
        assert each.top % down == 0
        assert each.left % across == 0
        assert 0 < each.pixels <= down * across
    assert (painted == 1).all()
    assert len(made) == windows.count((height, width), (down, across))


@given(LENGTHS, LENGTHS, STEPS, STEPS, st.integers(1, 7), st.integers(1, 7))
def test_chunks_cover_each_pixel_of_each_band_once(
    height: int, width: int, down: int, across: int, bands: int, at_once: int
) -> None:
    """The engine's order of work reaches each pixel of each band once, and finishes a row of windows before the next."""
    painted = np.zeros((bands, height, width), int)
    tops = []
    for each, group in in_order((height, width), (down, across), range(1, bands + 1), at_once):
        rows, columns = each.ranges
        for band in group:
            painted[band - 1, slice(*rows), slice(*columns)] += 1
        tops.append(each.top)
        assert len(group) <= at_once
    assert (painted == 1).all()
    assert tops == sorted(tops)


@given(st.integers(1, 10_000), st.integers(1, 300))
def test_an_even_sample_has_both_ends(total: int, most: int) -> None:
    """An even sample is in order, without repeats, within bounds, and holds first and last where it may hold two."""
    chosen = windows.evenly(total, most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(total, most)
    assert 0 <= chosen[0] <= chosen[-1] < total
    if most > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)


@given(LENGTHS, LENGTHS, st.integers(1, 40), st.integers(1, 30), st.integers(0, 5))
def test_sampled_windows_lie_inside(height: int, width: int, edge: int, most: int, seed: int) -> None:
    """Sampled windows lie inside the raster, the first corner among them, and the same seed gives the same ones."""
    chosen = windows.sample((height, width), edge, most, seed)
    assert 1 <= len(chosen) <= most
    assert chosen == windows.sample((height, width), edge, most, seed)
    assert (chosen[0].top, chosen[0].left) == (0, 0)
    for each in chosen:
        (top, bottom), (left, right) = each.ranges
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
