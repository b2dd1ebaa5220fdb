"""What the guards cost: the same engine under cap, watchdog, meter, tracemalloc and heartbeat, and bare, in turn.

Run `python -m tests.benchmarks.guards [SOURCE ...] [--pairs N]`. It prints the ratio guarded / bare of the work's wall seconds,
pair by pair, and their median; start-up is left out on both sides. Results are written down in README.md beside this file.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib.jobs import RasterJob, Resources, VectorJob, parse_job
from lib.memory.launch import child_environment, job_environment
from lib.memory.process import run_job
from lib.memory.work import Bench, Room, load_engine
from lib.operations import Normalise
from lib.units import MIB

ROOT = Path(__file__).resolve().parents[2]


class NoMeter:
    """Measures nothing; what an engine calls and no more."""

    warnings: tuple[str, ...] = ()

    def phase(self, name: str, *, patient: bool = False) -> None:
        """Say nothing."""

    def start(self, chunks: int = 0) -> None:
        """Take no baseline."""

    def chunk(self) -> None:
        """Do nothing."""

    def finish(self, held_bytes: int = 0) -> None:
        """Release nothing."""


def bare(job_json: str, staged: str) -> None:
    """The engine without guards, in this process; prints its seconds."""
    job = parse_job(json.loads(job_json))
    engine = load_engine(job.kind)
    limit = job.resources.limit_bytes
    room = Room(limit_bytes=limit, budget_bytes=limit, baseline_bytes=100 * MIB)
    with contextlib.closing(engine.prepare(job, room)) as work:
        work.first()
        began = time.monotonic()
        work.run(Bench(Path(staged), NoMeter(), lambda _: None, lambda _: None))  # type: ignore[arg-type]
        sys.stdout.write(str(time.monotonic() - began))


def pair(job: RasterJob | VectorJob, folder: Path, *, guarded_first: bool) -> tuple[float, float]:
    """Seconds guarded and bare, one run each; which comes first takes turns, as the disk is busier after a run."""
    staged = folder / Path(job.destination).name
    runs = [("guarded", guarded), ("bare", bare_run)]
    seconds = {name: run(job, staged) for name, run in (runs if guarded_first else runs[::-1])}
    return seconds["guarded"], seconds["bare"]


def guarded(job: RasterJob | VectorJob, staged: Path) -> float:
    """Seconds of the work in its capped child."""
    report = run_job(job, staged=staged)
    if report.status != "completed":
        raise SystemExit(f"the guarded run did not complete: {report.error}")
    staged.unlink()
    return report.seconds.work


def bare_run(job: RasterJob | VectorJob, staged: Path) -> float:
    """Seconds of the same engine in a plain process with the same environment."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.guards", "--bare", job.model_dump_json(), "--staged", str(staged)],
        env=child_environment(None) | job_environment(job.resources, None) | os.environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    staged.unlink()
    return float(run.stdout)


def main() -> None:
    """Compare, and print one line a pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", default=[".demo/KG_simplified_uint8.tif"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    parser.add_argument("--staged", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        bare(given.bare, given.staged)
        return
    resources = Resources(limit_bytes=512 * MIB, threads_max=os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        for source in given.sources:
            job: RasterJob | VectorJob
            if source.endswith((".tif", ".vrt")):
                job = RasterJob(
                    source=str(Path(source).absolute()),
                    destination="out.tif",
                    operation=Normalise(),
                    resources=resources,
                )
            else:
                job = VectorJob(
                    source=str(Path(source).absolute()), destination="out.gpkg", min_area_sqm=5000, resources=resources
                )
            pairs = [pair(job, Path(name), guarded_first=n % 2 == 0) for n in range(given.pairs + 1)][1:]
            ratios = [with_guards / without for with_guards, without in pairs]
            for (with_guards, without), ratio in zip(pairs, ratios, strict=True):
                print(f"{Path(source).name}: guarded {with_guards:.2f} s, bare {without:.2f} s, ratio {ratio:.3f}")
            print(f"{Path(source).name}: median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
