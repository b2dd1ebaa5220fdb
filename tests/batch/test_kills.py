"""Signals and kill -9 amid batches: what is there is whole, a rerun does what is not, nothing is left or done twice."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from lib.batch.naming import REPORTS
from lib.memory.ledger import entries
from lib.memory.proc import process_memory, started_with
from lib.publish import find_leftovers
from lib.units import MIB
from tests.batch.conftest import is_normalised, write_tile

ROOT = Path(__file__).resolve().parents[2]
FILES, KILLS = 8, 16


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """A folder of rasters of some tenths of a second each."""
    return [write_tile(tmp_path / "in" / f"t{n:02}.tif", seed=n, height=900, width=1100) for n in range(FILES)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `swath batch raster in --into OUT`, in a ledger of the test's own; ends what is left of it."""
    begun: list[subprocess.Popen[str]] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # of a test run in the background it is ignored

    def started(*words: str, into: str = "out", source: str = "in") -> subprocess.Popen[str]:
        command = ["batch", "raster", source, "--into", into, "--operation", "normalise", "--memory-limit-mb", "200"]
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", *command, "--json", *words], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(ROOT), "BATCH_LEDGER_PATH": str(tmp_path / "ledger")},
        )  # fmt: skip
        begun.append(process)
        return process

    yield started
    signal.signal(signal.SIGINT, before)
    for process in begun:
        process.kill()
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()


def _ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    printed, _ = process.communicate(timeout=120)
    return process.returncode, json.loads(printed)


def _done(out: Path) -> list[str]:
    return sorted(each.name for each in out.glob("*.tif"))


def _until(holds: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _no_process_of(process: subprocess.Popen[str]) -> None:
    """What it had started is gone, or goes within ten seconds."""
    _until(lambda: not started_with("SWATH_PARENT_PID", str(process.pid)), 10)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_batch_and_a_rerun_completes_it(
    number: int, code: int, sources: list[Path], start: Callable[..., Any], tmp_path: Path
) -> None:
    """At once: no leftovers, no processes, one JSON object; what was done stays done."""
    out = tmp_path / "out"
    process = start()
    _until(lambda: len(_done(out)) >= 2)
    began = time.monotonic()
    process.send_signal(number)
    exit_code, record = _ended(process)
    assert time.monotonic() - began < 10
    assert (exit_code, record["exit_code"], record["status"]) == (code, code, "cancelled")
    _no_process_of(process)
    assert find_leftovers(tmp_path) == []
    assert entries(tmp_path / "ledger") == []
    before = {name: (out / name).stat().st_ino for name in _done(out)}
    assert 2 <= len(before) <= FILES
    exit_code, record = _ended(start())
    assert (exit_code, record["reports"].get("reused", 0)) == (0, len(before))
    assert {name: (out / name).stat().st_ino for name in before} == before
    assert all(is_normalised(each, out / each.name) for each in sources)


def test_a_signal_while_it_plans_ends_it(start: Callable[..., Any], tmp_path: Path) -> None:
    """Of many files' headers no more are read."""
    whole = write_tile(tmp_path / "in" / "t.tif").read_bytes()
    for number in range(3000):
        (tmp_path / "in" / f"u{number}.tif").write_bytes(whole)
    process = start("--plan")
    _until(lambda: started_with("SWATH_PARENT_PID", str(process.pid)))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert _ended(process)[0] == 130
    assert time.monotonic() - began < 5
    _no_process_of(process)
    assert entries(tmp_path / "ledger") == []


class Watcher:
    """Looks at the outputs all the time: each that is there under its final name is whole, and made once."""

    def __init__(self, sources: list[Path], out: Path) -> None:
        self._sources, self._out = sources, out
        self._over, self._one_at_a_time = threading.Event(), threading.Lock()
        self.wrong: list[str] = []
        self.made: dict[str, set[tuple[int, int]]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def empty(self) -> None:
        """Begin anew, in an empty folder."""
        with self._one_at_a_time:
            for each in [*self._out.iterdir()]:
                each.unlink()
            self.made.clear()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            for source in self._sources:
                with contextlib.suppress(FileNotFoundError), self._one_at_a_time:
                    self._look(source, self._out / source.name)

    def _look(self, source: Path, output: Path) -> None:
        seen, state = self.made.setdefault(source.name, set()), output.stat()
        if (state.st_ino, state.st_mtime_ns) not in seen:
            seen.add((state.st_ino, state.st_mtime_ns))
            if not is_normalised(source, output):
                self.wrong.append(source.name)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "child"])
def test_kills_at_any_moment_leave_whole_files_and_a_rerun_does_the_rest(
    victim: str, sources: list[Path], start: Callable[..., Any], tmp_path: Path
) -> None:
    """Sixteen at random points of planning and work, run after run into one folder, which is emptied when all is done."""
    moments, out = random.Random(20), tmp_path / "out"
    began = time.monotonic()
    assert _ended(start())[0] == 0
    seconds = time.monotonic() - began
    amid = 0
    with Watcher(sources, out) as watcher:
        while amid < KILLS:
            if len(_done(out)) == FILES:
                watcher.empty()
            process = start()
            threading.Event().wait(moments.uniform(0.05, 0.9) * seconds)
            killed = 0
            for each in _victims(process, victim, moments):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
                    killed += 1
            process.communicate(timeout=120)
            _no_process_of(process)
            assert entries(tmp_path / "ledger") == []
            amid += killed
            names = {each.name for each in out.iterdir()}
            staged = {name for name in names if name.endswith(".swath")}
            assert victim == "parent" or not staged
            assert all(each.dead for each in find_leftovers(out))
            assert names - staged <= {each.name for each in sources} | {
                REPORTS,
                "swath-reports.csv",
                ".swath-finished.jsonl",
            }
        finished = {name: (out / name).stat().st_ino for name in _done(out)}
        code, record = _ended(start())
    assert (code, record["reports"].get("reused", 0)) == (0, len(finished))
    assert {name: (out / name).stat().st_ino for name in finished} == finished
    assert watcher.wrong == []
    assert all(len(made) <= 1 for made in watcher.made.values()), "a finished file was done twice"
    assert all(is_normalised(each, out / each.name) for each in sources)
    assert find_leftovers(tmp_path) == []


def _victims(process: subprocess.Popen[str], victim: str, moments: random.Random) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        if parent.status() == psutil.STATUS_ZOMBIE:
            return []
        if victim == "parent":
            return [parent]
        children = parent.children()
        while not children and psutil.pid_exists(process.pid) and parent.status() != psutil.STATUS_ZOMBIE:
            children = parent.children()  # it has not begun one yet
        return [moments.choice(children)] if children else []
    return []


@pytest.mark.slow
def test_two_batches_at_once_stay_under_one_budget(
    sources: list[Path], start: Callable[..., Any], tmp_path: Path
) -> None:
    """The children of both, looked at every 20 ms, never hold more together, while one batch is killed and the other goes on."""
    budget = 330
    words = ("--host-budget-mb", str(budget))
    first, second = start(*words, into="one"), start(*words, into="two")
    sums = [0]
    while first.poll() is None or second.poll() is None:
        began, held = time.monotonic(), 0
        for process in (first, second):
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(process.pid).children(recursive=True)
                held += sum(process_memory(each.pid).resident_bytes for each in children)
        sums.append(held)
        if len(_done(tmp_path / "one")) >= 3 and first.poll() is None:
            first.kill()
        time.sleep(max(0.0, 0.02 - (time.monotonic() - began)))
    assert max(sums) <= budget * MIB
    assert _ended(second)[0] == 0
    first.communicate()
    assert _ended(start(*words, into="one"))[0] == 0
    for each in sources:
        assert is_normalised(each, tmp_path / "one" / each.name)
        assert is_normalised(each, tmp_path / "two" / each.name)


@pytest.mark.slow
def test_a_killed_batch_frees_its_share_at_once(start: Callable[..., Any], sources: list[Path], tmp_path: Path) -> None:
    """Whoever waited behind it is admitted within a second."""
    from lib.memory.ledger import admission

    ledger = tmp_path / "ledger"
    process = start("--host-budget-mb", "200")
    _until(lambda: any(each.admitted for each in entries(ledger)))
    freed: list[float] = []

    def kill(_: object) -> None:
        process.kill()
        freed.append(time.monotonic())

    with admission(ledger, 190 * MIB, 200 * MIB, "late", kill):
        assert freed
        assert time.monotonic() - freed[0] < 2
