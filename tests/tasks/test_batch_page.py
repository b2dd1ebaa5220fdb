"""The page of a batch."""

import re
from pathlib import Path

from lib.batch.summary import Summary
from lib.units import MIB
from tasks.batch_page import budget_svg


def test_the_picture_shows_what_was_admitted_and_resident() -> None:
    """Its scale is that of its lines, MiB: labels go up to the budget, and the lines take what is theirs of its height."""
    summary = Summary(Path("out"), 3, budget_bytes=400 * MIB)
    summary.samples += [(0.1, 280 * MIB, 90 * MIB), (0.4, 300 * MIB, 210 * MIB), (0.7, 120 * MIB, 100 * MIB)]
    drawn = budget_svg(summary)
    numbers = [float(each) for each in re.findall(r"<!-- ([\d.]+) -->", drawn)]
    assert max(numbers) in {400, 500}
    assert {"admitted", "resident", "budget"} <= set(re.findall(r"<!-- (\w+) -->", drawn))
    lines = re.findall(r'<path d="([^"]+)" clip-path="[^"]+" style="fill: none; stroke: #\w+; stroke-width: 2', drawn)
    assert len(lines) == 2
    for line, share in zip(lines, (300 - 120, 210 - 90), strict=True):
        heights = [float(each) for each in re.findall(r"[ML] [\d.]+ ([\d.]+)", line)]
        assert max(heights) - min(heights) > 0.6 * 223 * share / 400
