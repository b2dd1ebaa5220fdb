"""Batches: the budget in use, fixed-size pools, small files, reruns, planning.

Run `python -m tests.benchmarks.batches [ENTRY ...]`. Entries are `mixed`, `pools` (with `mixed` in it), `small` with its rerun,
`flow`, `dask`, `rows`; without any all are run. `--files`, `--rows` and `--budget` make them smaller. Whole processes are timed
from outside, children are looked at every 20 ms. Results are written down in README.md beside this file.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
LOOK_SECONDS = 0.02
OPERATION = ("--operation", "normalise")


@dataclass
class Seen:
    """What was seen of a command.

    Attributes:
        seconds: wall.
        cpu_seconds: its own and its children's.
        held: resident bytes of all children, look by look.
        waiting: those of the looks at which a job waited for memory.
        parent_peak: of the process itself, bytes.
        record: what it printed.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    held: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    parent_peak: int = 0
    record: dict[str, Any] = field(default_factory=dict)


def command(words: tuple[str, ...], folder: Path, *, looks: bool = False, only_plans: bool = False) -> Seen:
    """`swath WORDS --json` in a ledger of its own, looked at while it runs."""
    seen, ledger = Seen(), folder / "ledger"
    env = os.environ | {"BATCH_HISTORY_PATH": "off", "BATCH_LEDGER_PATH": str(ledger), "PYTHONPATH": str(ROOT),
                        "PREFECT_HOME": str(folder / "prefect")}  # fmt: skip
    with tempfile.TemporaryFile("w+") as printed:
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", *words, "--json"], cwd=folder, env=env, stdout=printed, stderr=subprocess.DEVNULL
        )  # fmt: skip
        while process.poll() is None:
            looked = time.monotonic()
            if looks:
                _look(process.pid, ledger, seen)
            with contextlib.suppress(OSError, ValueError, IndexError):
                seen.parent_peak = max(seen.parent_peak, _high_water(process.pid))
            time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - looked)))
        seen.seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        seen.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        printed.seek(0)
        seen.record = json.load(printed)
    if seen.record["exit_code"] and not only_plans:  # a plan may say that this disk does not hold it all
        raise SystemExit(f"{' '.join(words)}: {seen.record['error']}")
    return seen


def _look(pid: int, ledger: Path, seen: Seen) -> None:
    from lib.memory.ledger import entries
    from lib.memory.proc import process_memory, tree

    held = sum(process_memory(each).resident_bytes for each in tree(pid)[1:])
    seen.held.append(held)
    if any(not each.admitted for each in entries(ledger)):
        seen.waiting.append(held)


def _high_water(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def mixed_rasters(folder: Path, files: int) -> list[Path]:
    """Rasters of 0.2 to 40 MPx of all bands, log-uniform; dtypes, codecs, strips and tiles in turn. The same each time."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    source, made = np.random.default_rng(20), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        bands = (1, 1, 3, 1, 1, 4)[number % 6]
        pixels = 0.2e6 * 200 ** source.random() / bands
        width = int((pixels * source.uniform(0.6, 1.6)) ** 0.5)
        height = int(pixels / width)
        dtype = ("uint8", "uint16", "int16", "float32")[number % 4]
        compress = ("none", "lzw", "deflate", "zstd", "packbits")[number % 5]
        edge = (256, 512, 0, 1024, 1, 256, 64)[number % 7]
        layout = {"tiled": True, "blockxsize": edge, "blockysize": edge} if edge > 1 else {"blockysize": max(edge, 1)}
        path = folder / f"m{number:03}.tif"
        made.append(path)
        if path.exists():
            continue
        aside = path.with_suffix(".part")
        with rasterio.open(
            aside, "w", driver="GTiff", width=width, height=height, count=bands, dtype=dtype, nodata=0, crs="EPSG:32633",
            transform=from_origin(5e5, 5e6, 10, 10), compress=compress, interleave="pixel" if number % 2 else "band", **layout,
        ) as dataset:  # fmt: skip
            columns = 100 + 60 * np.sin(np.arange(width) / 210)
            for top in range(0, height, 1024):
                rows = np.arange(top, min(top + 1024, height))[:, None]
                block = columns + 50 * np.cos(rows / 150) + source.integers(0, 6, (len(rows), width))
                for band in range(1, bands + 1):
                    dataset.write(
                        np.clip(block, 0, 255).astype(dtype), band, window=((top, rows[-1, 0] + 1), (0, width))
                    )
        aside.replace(path)
    return made


def small_rasters(folder: Path, files: int) -> list[Path]:
    """Rasters of 720 x 720 uint16, 1 MB each, tiles of 256, not compressed."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    source, made = np.random.default_rng(21), [folder / f"s{number:05}.tif" for number in range(files)]
    folder.mkdir(parents=True, exist_ok=True)
    for path in made:
        pixels = source.integers(0, 10000, (1, 720, 720), dtype="uint16")
        if not path.exists():
            with rasterio.open(
                path, "w", driver="GTiff", width=720, height=720, count=1, dtype="uint16", nodata=0, crs="EPSG:32633",
                transform=from_origin(5e5, 5e6, 10, 10), tiled=True, blockxsize=256, blockysize=256,
            ) as dataset:  # fmt: skip
                dataset.write(pixels)
    return made


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """A folder of outputs, gone before and after."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def mixed(folder: Path, files: int, budget_mb: int) -> Seen:
    """The batch of mixed rasters under its budget."""
    mixed_rasters(folder / "mixed", files)
    with emptied(folder / "out"):
        words = ("batch", "raster", "mixed", "--into", "out", *OPERATION, *_limits(budget_mb, budget_mb))
        seen = command(words, folder, looks=True)
    budget = budget_mb * MIB
    print(f"mixed: {files} rasters in {seen.seconds:.1f} s, {seen.cpu_seconds:.1f} s of processor time")
    print(
        f"mixed: children hold at most {max(seen.held) / budget:.0%} of the budget, {_mean(seen.held) / budget:.0%} in the mean"
    )
    share = len(seen.waiting) / len(seen.held)
    used = f"{_mean(seen.waiting) / budget:.0%}" if seen.waiting else "-"
    print(f"mixed: jobs wait for memory in {share:.0%} of the time; then {used} of the budget is in use")
    return seen


def _limits(limit_mb: int, budget_mb: int = 1024) -> tuple[str, ...]:
    return ("--memory-limit-mb", str(limit_mb), "--host-budget-mb", str(budget_mb))


def _mean(values: list[int]) -> float:
    return statistics.fmean(values) if values else 0.0


def pools(folder: Path, files: int, budget_mb: int) -> None:
    """The batch against pools of one to six threads, each with its share of the budget as every job's limit."""
    sources = mixed_rasters(folder / "mixed", files)
    batch = mixed(folder, files, budget_mb).seconds
    walls: dict[int, float] = {}
    for size in range(1, 7):
        with emptied(folder / "out") as out:
            seconds, failed, cpu = _pool(folder, sources, out, size, budget_mb // size)
        print(
            f"pools: {size} at once, {budget_mb // size} MiB each: {seconds:.1f} s, cpu {cpu:.1f} s, {failed} not done"
        )
        if not failed:
            walls[size] = seconds
    best = min(walls, key=walls.__getitem__)
    print(f"pools: the batch takes {batch / walls[best]:.2f} of the best, that of {best}")


def _pool(folder: Path, sources: list[Path], out: Path, size: int, limit_mb: int) -> tuple[float, int, float]:
    """Wall seconds, how many were not done, and processor seconds of a process with so many threads, each a Runner's."""
    words = [
        sys.executable,
        "-m",
        "tests.benchmarks.batches",
        "--pool",
        str(size),
        str(limit_mb),
        "--folder",
        str(folder),
    ]
    words += map(str, sources)
    out.mkdir()
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    env = os.environ | {"BATCH_HISTORY_PATH": "off"}
    ended = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, int(ended.stdout), cpu


def as_pool(folder: Path, sources: list[str], size: int, limit_mb: int) -> int:
    """How many of them a pool of that size does not do."""
    from lib.memory.process import Runner
    from lib.request import raster_job
    from lib.run import run_published

    free = [Runner() for _ in range(size)]
    given: dict[str, Any] = {"operation": "normalise", "memory_limit_mb": limit_mb, "host_budget_mb": "off"}

    def one(source: str) -> bool:
        runner = free.pop()
        try:
            return run_published(raster_job(source, str(folder / "out" / Path(source).name), **given), runner=runner).ok
        finally:
            free.append(runner)

    with ThreadPoolExecutor(size) as threads:
        done = list(threads.map(one, sources))
        for each in free:
            each.close()
    return done.count(False)


def small(folder: Path, files: int) -> None:
    """A thousand small files: what each takes beyond the same work in one process without us around it."""
    small_rasters(folder / "small", files)
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1",
                        "MALLOC_MMAP_THRESHOLD_": str(4 * MIB), "MALLOC_TRIM_THRESHOLD_": str(8 * MIB)}  # fmt: skip
    words = [sys.executable, "-m", "tests.benchmarks.batches", "--bare", "--folder", str(folder)]
    bare = json.loads(subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout)
    with emptied(folder / "out"):
        words_ = ("batch", "raster", "small", "--into", "out", *OPERATION, *_limits(512))
        seen = command(words_, folder)
        print(f"small: {files} files in {seen.seconds:.1f} s ({seen.record['seconds']['planning']} planning)")
        print(f"small: a file takes {1000 * seen.seconds / files:.1f} ms, its work alone {bare['wall_ms']:.1f} ms; "
              f"of the processor {1000 * seen.cpu_seconds / files:.1f} ms and {bare['cpu_ms']:.1f} ms")  # fmt: skip
        print(f"small: {1000 * seen.seconds / files - bare['wall_ms']:.1f} ms beyond the work; "
              f"parent's peak {seen.parent_peak / MIB:.0f} MiB")  # fmt: skip
        again = command(words_, folder)
        print(f"rerun: {files} finished files in {again.seconds:.2f} s, cpu {again.cpu_seconds:.2f} s")


def flow(folder: Path, files: int) -> None:
    """The same as a flow, a task a file: what each of the later files takes, with the API's server, beyond the work."""
    sources = small_rasters(folder / "small", files)
    few = max(1, files // 4)
    seconds = {}
    for count in (few, files):
        (folder / "some.csv").write_text("source\n" + "".join(f"small/{each.name}\n" for each in sources[:count]))
        with emptied(folder / "out"):
            words = ("batch", "raster", "some.csv", "--into", "out", *OPERATION, *_limits(512))
            seconds[count] = (command((*words, "--flow"), folder).seconds, command((*words, "--force"), folder).seconds)
    as_flow, direct = ((seconds[files][at] - seconds[few][at]) / (files - few) for at in (0, 1))
    print(f"flow: of {files} files each beyond the first {few} takes {1000 * as_flow:.1f} ms as a flow, "
          f"{1000 * direct:.1f} ms directly")  # fmt: skip


def dask(folder: Path, files: int, budget_mb: int) -> None:
    """The mixed rasters as a flow, on a local Dask against threads."""
    mixed_rasters(folder / "mixed", files)
    walls: dict[str, float] = {}
    for engine in ("threads", "dask", "threads", "dask"):
        with emptied(folder / "out"):
            words = ("batch", "raster", "mixed", "--into", "out", *OPERATION, *_limits(budget_mb // 2, budget_mb))
            seen = command((*words, "--flow", "--engine", engine), folder)
        walls[engine] = min(walls.get(engine, seen.seconds), seen.seconds)
        print(f"dask: {engine}: {seen.seconds:.1f} s, {seen.cpu_seconds:.1f} s of processor time")
    print(f"dask: {walls['dask'] / walls['threads']:.2f} of threads, the better of two each")


def bare(folder: Path) -> dict[str, float]:
    """Milliseconds of one file of `small`, wall and processor, by the engine alone, one after another."""
    import gc

    from lib.memory.work import Bench, Room, load_engine
    from lib.request import raster_job
    from tests.benchmarks.guards import NoMeter

    sources, out = sorted((folder / "small").iterdir())[:120], folder / "bare.tif"
    engine = load_engine("raster")
    gc.collect()
    gc.freeze()
    began, cpu = 0.0, 0.0
    for number, source in enumerate(sources):
        if number == 20:  # warm
            began, cpu = time.monotonic(), time.process_time()
        job = raster_job(str(source), str(out), operation="normalise", memory_limit_mb=512, threads="1", overwrite=True)
        room = Room(limit_bytes=512 * MIB, budget_bytes=512 * MIB, baseline_bytes=100 * MIB)
        with contextlib.closing(engine.prepare(job, room)) as work:
            work.first()
            work.run(Bench(out, NoMeter(), lambda _: None, lambda _: None))  # type: ignore[arg-type]
    out.unlink()
    count = len(sources) - 20
    return {"wall_ms": 1000 * (time.monotonic() - began) / count, "cpu_ms": 1000 * (time.process_time() - cpu) / count}


def rows(folder: Path, count: int) -> None:
    """A manifest of so many rows, with choices of their own, planned."""
    sources = small_rasters(folder / "small", min(1000, count))
    with (folder / "rows.csv").open("w", encoding="utf-8") as manifest:
        manifest.write("source,destination,scale\n")
        for number in range(count):
            manifest.write(f"small/{sources[number % len(sources)].name},o{number}.tif,{1000 + number}\n")
    words = ("batch", "raster", "rows.csv", "--into", "out", *OPERATION, *_limits(512), "--plan")
    seen = command(words, folder, only_plans=True)
    if seen.record["reports"]["planned"] != count:
        raise SystemExit(f"rows: {seen.record['error']}")
    print(
        f"rows: {count} planned in {seen.seconds:.1f} s, cpu {seen.cpu_seconds:.1f} s, "
        f"parent's peak {seen.parent_peak / MIB:.0f} MiB"
    )


def main() -> None:
    """Run entries, and print lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", nargs="*", default=[])
    parser.add_argument("--folder", default=str(ROOT / "build" / "bench" / "batches"))
    parser.add_argument("--files", type=int)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--pool", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = Path(given.folder)
    if given.pool:
        print(as_pool(folder, given.entries, *given.pool))
        return
    if given.bare:
        print(json.dumps(bare(folder)))
        return
    folder.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Callable[[], object]] = {
        "mixed": lambda: mixed(folder, given.files or 64, given.budget),
        "pools": lambda: pools(folder, given.files or 64, given.budget),
        "small": lambda: small(folder, given.files or 1000),
        "flow": lambda: flow(folder, given.files or 400),
        "dask": lambda: dask(folder, given.files or 64, given.budget),
        "rows": lambda: rows(folder, given.rows),
    }
    for name in given.entries or ["pools", "small", "flow", "dask", "rows"]:
        asked[name]()


if __name__ == "__main__":
    main()
