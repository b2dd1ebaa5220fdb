"""Window arithmetic: how a grid is cut into windows, and which windows make a fair sample. No dataset, no I/O.

A window is a multiple of the *output* block, so that no output block is written twice. What fits into memory is
decided in `plan.py`.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """A rectangle of pixels: top row, left column, height and width."""

    top: int
    left: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """How many pixels it holds."""
        return self.height * self.width

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """`((row start, row stop), (column start, column stop))`, which rasterio takes for a window."""
        return (self.top, self.top + self.height), (self.left, self.left + self.width)

    def __str__(self) -> str:
        (top, bottom), (left, right) = self.ranges
        return f"rows {top}:{bottom}, columns {left}:{right}"


def steps(length: int, step: int) -> int:
    """How many steps cover a length; the last may be short."""
    return -(-length // step)


def count(shape: tuple[int, int], window: tuple[int, int]) -> int:
    """How many windows of `(height, width)` cover a grid of `(height, width)` pixels."""
    return steps(shape[0], window[0]) * steps(shape[1], window[1])


def windows(shape: tuple[int, int], window: tuple[int, int]) -> Iterator[Window]:
    """Cut a grid into windows, row by row; each pixel is in one window, those at the far edges are smaller."""
    (height, width), (step_down, step_across) = shape, window
    for top in range(0, height, step_down):
        for left in range(0, width, step_across):
            yield Window(top, left, min(step_down, height - top), min(step_across, width - left))


def nth(shape: tuple[int, int], window: tuple[int, int], index: int) -> Window:
    """The window that `windows` yields at `index`."""
    down, across = divmod(index, steps(shape[1], window[1]))
    top, left = down * window[0], across * window[1]
    return Window(top, left, min(window[0], shape[0] - top), min(window[1], shape[1] - left))


def containing(shape: tuple[int, int], step: tuple[int, int], window: Window) -> Window:
    """The window of `windows` that another lies in."""
    top, left = window.top // step[0] * step[0], window.left // step[1] * step[1]
    return Window(top, left, min(step[0], shape[0] - top), min(step[1], shape[1] - left))


def grown(shape: tuple[int, int], window: Window, by: int) -> Window:
    """A window with so many pixels around it, as far as the grid has them."""
    (top, bottom), (left, right) = (
        (max(low - by, 0), min(high + by, length)) for (low, high), length in zip(window.ranges, shape, strict=True)
    )
    return Window(top, left, bottom - top, right - left)


def evenly(total: int, most: int) -> list[int]:
    """At most `most` of the indexes `0 … total - 1`, evenly spread, first and last among them."""
    if total <= most:
        return list(range(total))
    if most == 1:
        return [total // 2]
    return [round(i * (total - 1) / (most - 1)) for i in range(most)]


def sample(shape: tuple[int, int], edge: int, most: int, seed: int) -> list[Window]:
    """At most `most` windows of at most `edge` pixels a side: the four corners, then places drawn with `seed`."""
    height, width = min(edge, shape[0]), min(edge, shape[1])
    bottom, right = shape[0] - height, shape[1] - width
    places = dict.fromkeys([(0, 0), (bottom, right), (0, right), (bottom, 0)][:most])
    draw = random.Random(seed)  # noqa: S311 - a repeatable sample, no secret
    for _ in range(most - len(places)):
        places[draw.randint(0, bottom), draw.randint(0, right)] = None
    return [Window(top, left, height, width) for top, left in places]
