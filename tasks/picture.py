"""The picture of a job's memory: resident size over time, with its limit, projection, baseline and peak, as SVG."""

import io
from typing import Any

from lib.reports import MemoryRecord
from lib.units import MIB

# Transparent ground and middle tones: each has a contrast of at least 3.2:1 on white and on the UI's near-black.
_INK, LIMIT, PROJECTED, _BASELINE, RESIDENT = "#747c8c", "#e5484d", "#d17a00", "#2b9a66", "#3b82f6"
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "svg.fonttype": "path",
    "svg.hashsalt": "swath",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.alpha": 0.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), _INK),
}


def memory_svg(memory: MemoryRecord, *, limit_bytes: int | None, projected_bytes: int | None) -> str:
    """The picture: resident samples in MiB over seconds, with limit, projection and baseline as labelled lines.

    About 30 kB; drawn without pyplot, which would keep state between the threads of a flow.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    seconds = [second for second, _ in memory.samples]
    resident = [size / MIB for _, size in memory.samples]
    lines = [
        (size / MIB, name, colour, style)
        for size, name, colour, style in (
            (limit_bytes, "limit", LIMIT, "-"),
            (projected_bytes, "projected", PROJECTED, "--"),
            (memory.baseline_bytes, "baseline", _BASELINE, ":"),
        )
        if size
    ]
    top = max([*resident, *(line[0] for line in lines), (memory.peak_bytes or 0) / MIB]) * 1.1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.fill_between(seconds, resident, color=RESIDENT, alpha=0.18, linewidth=0)
        axes.plot(seconds, resident, color=RESIDENT, linewidth=2, marker="o" if len(seconds) < 3 else None)  # noqa: PLR2004 - a line needs two points
        for level, _, colour, style in lines:
            axes.axhline(level, color=colour, linewidth=1.6, linestyle=style)
        labels = [(level, f"{name} {level:.0f} MiB", colour) for level, name, colour, _ in lines]
        if memory.peak_bytes:
            labels.append((memory.peak_bytes / MIB, f"peak {memory.peak_bytes / MIB:.0f} MiB", RESIDENT))
        for place, level, text, colour in _apart(labels, least=top * 0.085):
            axes.annotate(
                text,
                xy=(1.0, level),
                xytext=(1.035, place),
                xycoords=("axes fraction", "data"),
                textcoords=("axes fraction", "data"),
                color=colour,
                va="center",
                fontweight="bold",
                annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
            )
        axes.set(xlabel="time since the job began, seconds", ylabel="resident memory, MiB", ylim=(0, top))
        axes.set_xlim(0, max([*seconds, 0.001]) or 1)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return drawn.getvalue()


def _apart(labels: list[tuple[float, str, str]], *, least: float) -> list[tuple[float, float, str, str]]:
    """Places for labels on one axis, from below, at least `least` apart: `(place, level, text, colour)`."""
    placed: list[tuple[float, float, str, str]] = []
    for level, text, colour in sorted(labels):
        place = max(level, placed[-1][0] + least) if placed else level
        placed.append((place, level, text, colour))
    return placed
