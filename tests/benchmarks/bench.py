"""swath and its peers, whole processes in turn (A B C, B C A, …): `python -m tests.benchmarks.bench [--size small|full]`.

Prints a table and writes the same as JSON, build/bench/SIZE.json. What is measured is in `entries.py`. A time counts only
where the results of the round before it, which is not counted, were equal.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks import single
from tests.benchmarks.entries import ENTRIES, Entry, Peer
from tests.benchmarks.processes import Run, RunError, run
from tests.benchmarks.rows import Row, header, line, verdict

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).with_name("peers")
MIB = 1 << 20
SAME_SIZE = 0.01
NEAR_SIZE = 0.05  # of what a codec's limit has encoded: our LZW starts its table anew earlier than libtiff's


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are: sources, results, interpreters; and how often everything is run."""

    sources: Path
    results: Path
    swath: Path
    python: Path
    peers: Path
    size: str
    rounds: int
    wanted: tuple[str, ...] = ("",)

    @property
    def unrecorded(self) -> int:
        """How many rounds of what has no peer do not count; of small sources none, as nothing is learned from their times."""
        return int(self.size == "full")

    def environment(self) -> dict[str, str]:
        """The user's, with a history of its own, so that a plan knows of no earlier run; byte code is kept, as a user's is."""
        more = {
            "XDG_STATE_HOME": str(self.results / "state"),
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        return os.environ | more

    def run(self, *command: str | Path, codes: tuple[int, ...] = (0,)) -> Run:
        """Run a command to its end, from the root of the project."""
        return run(command, cwd=ROOT, env=self.environment(), codes=codes)

    def source(self, scene: str) -> Path:
        """A source, made where it is not there yet."""
        path = self.sources / scene
        if not path.exists():
            self.sources.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.sources) as folder:
                self.run(self.python, "-m", "tests.benchmarks.scenes", scene, folder, "--size", self.size)
                for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == scene):
                    part.rename(self.sources / part.name)
        return path


@dataclass(slots=True)
class Runner:
    """One of those that are compared in an entry: its command, its result, its runs."""

    name: str
    command: tuple[str | Path, ...]
    destination: Path | None
    peer: Peer | None = None
    runs: list[Run] = field(default_factory=list)
    size: int = 0
    detail: str = ""

    def once(self, place: Place, *, counted: bool) -> Run:
        """Run it; the result of a round that is not counted is kept, to be compared."""
        if self.destination is not None:
            self.destination.unlink(missing_ok=True)
        done = place.run(*self.command)
        if self.peer and self.peer.is_limit:
            done = replace(done, seconds=json.loads(done.printed)["seconds"])
        size = self.destination.stat().st_size if self.destination else 0
        if not counted:
            self.size = size
            return done
        if abs(size - self.size) > self.size * SAME_SIZE:
            raise RunError(f"{self.name}: a result of {size} bytes; the one that was compared had {self.size}")
        if self.destination is not None:
            self.destination.unlink()
        self.runs.append(done)
        return done

    def median(self, name: str) -> float:
        """The median of one figure of its runs."""
        return statistics.median(getattr(done, name) for done in self.runs)


def runners(entry: Entry, place: Place, swaths: dict[str, Path]) -> tuple[list[Runner], list[Row]]:
    """Those that can run, ours first; and a row for each that cannot."""
    source = place.source(entry.scene)
    suffix = entry.suffix or (".tif" if entry.kind == "raster" else ".gpkg")
    able, missing = [], []
    for n, (name, swath) in enumerate(swaths.items()):
        out = place.results / f"swath{n}{suffix}"
        able.append(Runner(name, (swath, entry.kind, source, out, *entry.arguments, "--json"), out))
    for peer in entry.peers:
        if not any(part in peer.name for part in place.wanted):
            continue
        lacks = missing_modules(place, peer.modules)
        if lacks:
            missing.append(Row(entry.name, entry.what, peer.name, "MISSING", goal=peer.goal, detail=f"no {lacks}"))
            continue
        script: tuple[str | Path, ...] = (place.peers, PEERS / peer.script, source)
        if not peer.writes:
            able.append(Runner(peer.name, (*script, *peer.arguments), None, peer))
        else:
            out = place.results / f"{Path(peer.script).stem}{suffix}"
            able.append(Runner(peer.name, (*script, out, *peer.arguments), out, peer))
    return able, missing


def missing_modules(place: Place, modules: tuple[str, ...]) -> str:
    """The modules that the peers' interpreter cannot import, joined; empty where it can."""
    if not place.peers.exists():
        return f"{place.peers} (make bench builds it)"
    lacks = []
    for module in modules:
        try:
            place.run(place.peers, "-c", f"import {module}")
        except RunError:
            lacks.append(module)
    return ", ".join(lacks)


def compared(entry: Entry, ours: Runner, theirs: Runner, first: dict[str, Run], place: Place) -> tuple[bool, str]:
    """Whether two results are the same, and what was compared."""
    report = json.loads(first[ours.name].printed)
    if theirs.peer and theirs.peer.is_limit:
        encoded = json.loads(first[theirs.name].printed)["bytes"]
        near = abs(ours.size - encoded) <= NEAR_SIZE * encoded
        return near, f"{encoded:,} bytes encoded; ours has {ours.size:,}"
    if theirs.destination is None or ours.destination is None:
        read, counted = int(first[theirs.name].printed), report["result"]["features_read"]
        return read == counted, f"{counted:,} features read, {read:,} by the peer"
    command = ["tests.benchmarks.compare", entry.kind, ours.destination, theirs.destination]
    more = ("--least", str(entry.least_sqm), "--tolerance", json.dumps(asdict(entry.tolerance)))
    said = json.loads(place.run(place.python, "-m", *command, *more).printed)
    return said["equal"], said["detail"]


def checked(entry: Entry, place: Place, swaths: dict[str, Path]) -> tuple[list[Runner], list[Row]]:
    """Those whose results are the same as ours, which is the first, by a round that is not counted; a row for each other."""
    able, rows = runners(entry, place, swaths)
    ours, first, fit = able[0], {}, []
    for runner in able:
        try:
            first[runner.name] = runner.once(place, counted=False)
            equal, runner.detail = (True, "") if runner is ours else compared(entry, ours, runner, first, place)
        except RunError as error:
            equal, runner.detail = False, str(error)
        if equal:
            fit.append(runner)
        else:
            rows.append(Row(entry.name, entry.what, runner.name, "FAILED", detail=runner.detail))
    return (fit if ours in fit else []), rows


def timed(entry: Entry, fit: list[Runner], place: Place) -> Iterator[Row]:
    """Rows of those whose results are the same, after `place.rounds` rounds in turn."""
    for n in range(place.rounds):
        for runner in fit[n % len(fit) :] + fit[: n % len(fit)]:
            runner.once(place, counted=True)
    ours = fit[0]
    reports = [json.loads(done.printed) for done in ours.runs]
    child_mib = statistics.median(report["memory"]["peak_bytes"] for report in reports) / MIB
    for runner in fit[1:]:
        yield against(entry, ours, runner, child_mib)


def measured(entry: Entry, place: Place, swaths: dict[str, Path]) -> Iterator[Row]:
    """Rows of one entry."""
    fit, rows = checked(entry, place, swaths)
    yield from rows
    if fit:
        yield from timed(entry, fit, place)


def against(entry: Entry, ours: Runner, theirs: Runner, child_mib: float) -> Row:
    """The row of one peer: ratios of medians and of the fastest, and the range of the ratios round by round.

    Of a peer that is bimodal its fastest run stands for its median.
    """
    fastest = [min(run.seconds for run in runner.runs) for runner in (ours, theirs)]
    ratios = [one.seconds / other.seconds for one, other in zip(ours.runs, theirs.runs, strict=True)]
    typical = fastest[1] if theirs.peer and theirs.peer.is_bimodal else theirs.median("seconds")
    return Row(
        entry.name, entry.what, theirs.name, "measured", value=ours.median("seconds") / typical,
        low=min(ratios), high=max(ratios), best=fastest[0] / fastest[1],
        goal=theirs.peer.goal if theirs.peer else None, peak_goal=theirs.peer.peak_goal if theirs.peer else None,
        seconds=(ours.median("seconds"), typical),
        peaks_mib=(ours.median("peak_mib"), theirs.median("peak_mib")),
        cpu_ratio=ours.median("cpu_seconds") / theirs.median("cpu_seconds"), detail=theirs.detail,
        facts={"child_peak_mib": child_mib, "bytes": [ours.size, theirs.size], "rounds": len(ratios),
               "runs": [[one.seconds, other.seconds] for one, other in zip(ours.runs, theirs.runs, strict=True)]},
    )  # fmt: skip


def arguments(names: list[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "full"), default="full")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--with", dest="peer", nargs="+", default=[""], help="only peers whose names contain one of these"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    parser.add_argument("--against", type=Path, help="the `swath` of another checkout, as one more peer")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write; 1 where results differ or a run failed."""
    names = [entry.name for entry in ENTRIES] + list(single.ENTRIES)
    given = arguments(names)
    python, results = Path(sys.executable), given.results.absolute()
    place = Place(
        results / given.size, results, python.with_name("swath"), python, given.peers.absolute(), given.size,
        given.rounds, tuple(given.peer),
    )  # fmt: skip
    results.mkdir(parents=True, exist_ok=True)
    swaths = {"swath": place.swath} | ({"swath of another checkout": given.against.absolute()} if given.against else {})
    jobs: dict[str, Callable[[], Iterator[Row]]] = {
        entry.name: (lambda entry=entry: measured(entry, place, swaths)) for entry in ENTRIES
    } | {name: (lambda made=made: made(place)) for name, made in single.ENTRIES.items()}
    rows: list[Row] = []
    print(header(), flush=True)
    for name in given.only or names:
        for row in told(name, jobs[name]):
            rows.append(row)
            print(line(row, judged=place.size == "full"), flush=True)
            written(rows, place)
    for row in rows:
        if row.status != "measured":
            print(f"{row.status}: {row.entry}, {row.peer}: {row.detail}")
    verdicts = [
        f"{what} of {row.entry} ÷ {row.peer}: {value:.2f} {verdict(value, goal)}"
        for row in rows
        for what, value, goal in (("wall", row.value, row.goal), ("peak", row.peak_ratio, row.peak_goal))
        if value is not None and goal is not None
    ]
    missed = [each for each in verdicts if each.endswith("missed")]
    if verdicts and place.size == "full":  # of small sources start-up is most
        print(f"goals: {len(verdicts) - len(missed)} met, {len(missed)} missed", *missed, sep="\n  ")
    print(f"written: {written(rows, place)}")
    return 1 if any(row.status == "FAILED" for row in rows) else 0


def told(name: str, job: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows of an entry; a run that fails among those that count ends the entry, not the others."""
    try:
        yield from job()
    except RunError as error:
        yield Row(name, name, "", "FAILED", detail=str(error))


def written(rows: list[Row], place: Place) -> Path:
    """Write what there is as JSON."""
    record: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "size": place.size, "rounds": place.rounds,
        "cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg(),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    path = place.results / f"{place.size}.json"
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
