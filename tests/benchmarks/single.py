"""Entries that are no ratio to a peer, each a function of the place: planning, start-up, guards, swath against itself."""

import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.benchmarks.entries import (
    FEWER_PIXELS,
    GUARDS_GOAL,
    PEAK_GOAL,
    PLANNING_GOAL_SECONDS,
    STARTUP_GOAL_SECONDS,
    STRIPS_GOAL,
    VECTOR_PEAK_GOAL,
)
from tests.benchmarks.processes import Run
from tests.benchmarks.rows import Row


class Place(Protocol):
    """What of `bench.Place` is needed here."""

    results: Path
    swath: Path
    python: Path
    rounds: int

    @property
    def unrecorded(self) -> int:
        """Rounds that do not count."""

    def run(self, *command: str | Path, codes: tuple[int, ...] = (0,)) -> Run:
        """Run a command to its end."""

    def source(self, scene: str) -> Path:
        """A source."""


W1 = ("--operation", "normalise", "--compress", "lzw", "--predictor", "2")
SIMULATED = (2, 4)


def _row(entry: str, what: str, part: str, values: Sequence[float], **more: Any) -> Row:
    """A row of seconds, or of what `unit` says."""
    return Row(
        entry, what, part, "measured", value=statistics.median(values), low=min(values), high=max(values),
        **({"unit": " s"} | more), facts={"runs": list(values)},
    )  # fmt: skip


def _reported(run: Run) -> dict[str, float]:
    """The seconds that a report tells, by name."""
    seconds = json.loads(run.printed)["seconds"]
    return {name: value for name, value in seconds.items() if isinstance(value, (int, float)) and value}


def _parts(entry: str, what: str, runs: list[Run]) -> Iterator[Row]:
    """A row for each of the seconds that all reports tell."""
    told = [_reported(run) for run in runs]
    for name in told[0]:
        if all(name in one for one in told):
            yield _row(entry, what, f"seconds.{name} of its report", [one[name] for one in told])


def _vector(place: Place, *command: str, scene: str) -> Run:
    out = place.results / "single.gpkg"
    out.unlink(missing_ok=True)
    return place.run(place.swath, *command, place.source(scene), out, "--min-area-sqm", "5000", "--json")


def planning(place: Place) -> Iterator[Row]:
    """`swath plan vector` and a job's start-up, of V1 and of ten parcels in turn: the difference is V1's planning."""
    for entry, what, command in (("planning", "plan V1", ("plan", "vector")), ("planning", "V1 itself", ("vector",))):
        pairs = []
        for n in range(place.rounds + place.unrecorded):
            scenes = ("parcels.gpkg", "few.gpkg") if n % 2 else ("few.gpkg", "parcels.gpkg")
            runs = {scene: _vector(place, *command, scene=scene) for scene in scenes}
            pairs.append((runs["parcels.gpkg"], runs["few.gpkg"]))
        del pairs[: place.unrecorded]
        if command[0] == "plan":
            beyond = [many.seconds - few.seconds for many, few in pairs]
            yield _row(entry, what, "beyond ten parcels', whole", beyond, goal=PLANNING_GOAL_SECONDS)
        startups = [(_reported(many)["startup"], _reported(few)["startup"]) for many, few in pairs]
        beyond = [many - few for many, few in startups]
        yield _row(entry, what, "seconds.startup beyond ten parcels'", beyond, goal=PLANNING_GOAL_SECONDS)
        yield from _parts(entry, what, [many for many, _ in pairs])


def startup(place: Place) -> Iterator[Row]:
    """A raster of 64 x 64 pixels and ten parcels, start to exit, without the seconds of the work."""
    kinds: list[tuple[str, Callable[[], Run]]] = [
        ("raster of 64 x 64", lambda: _tiny(place)),
        ("ten parcels", lambda: _vector(place, "vector", scene="few.gpkg")),
    ]
    for what, once in kinds:
        runs = [once() for _ in range(place.rounds + place.unrecorded)][place.unrecorded :]
        beyond = [run.seconds - _reported(run).get("work", 0) for run in runs]
        yield _row("startup", what, "whole process without work", beyond, goal=STARTUP_GOAL_SECONDS)
        within = [_reported(run)["total"] - _reported(run).get("work", 0) for run in runs]
        yield _row("startup", what, "seconds.total without work", within)
        yield from _parts("startup", what, runs)
    for what, statement in IMPORTS.items():
        runs = [place.run(place.python, "-c", statement) for _ in range(place.rounds + place.unrecorded)][
            place.unrecorded :
        ]
        yield _row("startup", "interpreter and imports", what, [run.seconds for run in runs])


IMPORTS = {
    "nothing": "",
    "lib.jobs": "import lib.jobs",
    "raster engine": "from lib.memory.work import load_engine; load_engine('raster')",
    "vector engine": "from lib.memory.work import load_engine; load_engine('vector')",
}


def _tiny(place: Place) -> Run:
    out = place.results / "single.tif"
    out.unlink(missing_ok=True)
    return place.run(place.swath, "raster", place.source("tiny.tif"), out, "--operation", "normalise", "--json")


def guards(place: Place) -> Iterator[Row]:
    """What cap, watchdog, meter and tracing cost: `guards.py`, which runs the engine with and without them."""
    for scene, what in (("scene.tif", "W1, guarded / bare"), ("parcels.gpkg", "V1, guarded / bare")):
        command = ("-m", "tests.benchmarks.guards", place.source(scene), "--pairs", str(place.rounds))
        ratios = [float(found) for found in re.findall(r", ratio ([\d.]+)", place.run(place.python, *command).printed)]
        yield _row("guards", what, "the same engine without guards", ratios, unit="", goal=GUARDS_GOAL)


def itself(place: Place) -> Iterator[Row]:
    """W1 of a 96th of the pixels, of tiles and of strips, in turn: what size and layout of the source do."""
    runs: dict[str, list[Run]] = {"part.tif": [], "scene.tif": [], "scene-strips.tif": []}
    for _ in range(place.rounds + place.unrecorded):
        for scene, done in runs.items():
            done.append(_w1(place, scene))
    part, tiles, strips = (done[place.unrecorded :] for done in runs.values())
    peaks = [many.peak_mib / few.peak_mib for few, many in zip(part, tiles, strict=True)]
    yield _row("itself", "W1, peak", f"{FEWER_PIXELS} times fewer pixels", peaks, unit="", goal=PEAK_GOAL)
    for what, name, goal in (("W1, wall", "seconds", STRIPS_GOAL), ("W1, peak", "peak_mib", None)):
        ratios = [getattr(one, name) / getattr(other, name) for one, other in zip(strips, tiles, strict=True)]
        yield _row("itself", f"{what}, of strips", "tiles", ratios, unit="", goal=goal)


def parcels(place: Place) -> Iterator[Row]:
    """V1 and four times as many parcels, in turn: what their number does to the child's peak, and to the seconds of a million."""
    runs: dict[str, list[Run]] = {"parcels.gpkg": [], "many.gpkg": []}
    for _ in range(place.rounds + place.unrecorded):
        for scene, done in runs.items():
            done.append(_vector(place, "vector", scene=scene))
    few, many = (done[place.unrecorded :] for done in runs.values())
    for what, name in (("V2 ÷ V1, peak", "peak_mib"), ("V2 ÷ V1, wall", "seconds")):
        ratios = [getattr(more, name) / getattr(less, name) for less, more in zip(few, many, strict=True)]
        goal = VECTOR_PEAK_GOAL if name == "peak_mib" else None
        yield _row("parcels", what, "four times fewer parcels", ratios, unit="", goal=goal)


def _w1(place: Place, scene: str, *more: str) -> Run:
    out = place.results / "single.tif"
    out.unlink(missing_ok=True)
    return place.run(place.swath, "raster", place.source(scene), out, *W1, *more, "--json")


def workers(place: Place) -> Iterator[Row]:
    """One worker ÷ two as measured, and ÷ two and four as the queue is simulated; the work alone, and whole processes."""
    alone, two = [], []
    for _ in range(place.rounds + place.unrecorded):
        alone.append(_w1(place, "scene.tif", "--threads", "1"))
        two.append(_w1(place, "scene.tif", "--threads", "2"))
    del alone[: place.unrecorded], two[: place.unrecorded]
    command = (place.python, "-m", "tests.benchmarks.workers", place.source("scene.tif"))
    told = [json.loads(place.run(*command).printed) for _ in range(place.rounds)]
    others = statistics.median(run.seconds - _reported(run)["work"] for run in alone)
    works = [_reported(one)["work"] / _reported(other)["work"] for one, other in zip(alone, two, strict=True)]
    wholes = [one.seconds / other.seconds for one, other in zip(alone, two, strict=True)]
    yield _row("workers", "W1, work, 2 workers", "one, measured", works, unit="x")
    yield _row("workers", "W1, whole, 2 workers", "one, measured", wholes, unit="x")
    for count in SIMULATED:
        work = [one["seconds"]["1"] / one["seconds"][str(count)] for one in told]
        yield _row("workers", f"W1, work, {count} workers", "one, simulated", work, unit="x")
        whole = [(one["seconds"]["1"] + others) / (one["seconds"][str(count)] + others) for one in told]
        bound = f"of {told[0]['chunks']} chunks: {told[0]['bound']}; beside the work {others:.2f} s"
        yield _row("workers", f"W1, whole, {count} workers", "one, simulated", whole, unit="x", detail=bound)


ENTRIES: dict[str, Callable[[Any], Iterator[Row]]] = {
    "planning": planning,
    "startup": startup,
    "guards": guards,
    "itself": itself,
    "parcels": parcels,
    "workers": workers,
}
