"""Batches as flow runs: a task a file, threads and Dask, pages, reports, and what is said of bad parameters."""

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rasterio
from rasterio.transform import from_origin

from flows import run_batch as module
from flows.run_batch import run_batch
from lib.batch.naming import REPORTS, TABLE
from lib.batch.request import batch_of
from lib.batch.run import run_batch as run_direct
from lib.errors import BatchFailed, UsageError
from lib.memory.ledger import admitted, entries
from lib.publish import find_leftovers
from lib.units import MIB

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_api")]

_FILES = 6
_OPTIONS = {"operation": "normalise", "scale": 200, "verify": "basic"}


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A folder of six rasters, each of its own pixels."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number in range(_FILES):
        with rasterio.open(
            folder / f"s{number}.tif", "w", driver="GTiff", width=300, height=260, count=1, dtype="uint8", nodata=0,
            crs="EPSG:32633", transform=from_origin(500000, 5000000, 10, 10),
        ) as dataset:  # fmt: skip
            dataset.write(_pixels(number), 1)
    return folder


def _pixels(number: int) -> Any:
    return np.random.default_rng(number).integers(1, 200, (260, 300), dtype="uint8")


def _is_right(path: Path, number: int) -> None:
    with rasterio.open(path) as dataset:
        np.testing.assert_allclose(dataset.read(1), _pixels(number) / np.float32(200), rtol=1e-6)


def _run(scenes: Path, into: Path, **more: Any) -> Any:
    return run_batch(inputs=[str(scenes)], into=str(into), options=_OPTIONS, return_state=True, **more)


def test_a_task_a_file_and_a_page(
    scenes: Path, tmp_path: Path, task_runs: Callable[..., dict[str, str]], artifacts: Callable[..., dict[str, str]]
) -> None:
    """All are done and right; the page counts them; a second run does none again, a third with force all."""
    into = tmp_path / "out"
    state = _run(scenes, into)
    assert state.is_completed(), state.message
    record = state.result()
    assert record["reports"]["completed"] == _FILES
    for number in range(_FILES):
        _is_right(into / f"s{number}.tif", number)
    names = task_runs(state)
    assert {name for name in names if name.startswith("Do ")} == {f"Do s{number}.tif" for number in range(_FILES)}
    page = next(iter(artifacts(state).values()))
    assert page.startswith(f"# Completed: {_FILES} of {_FILES} files")
    before = {path.name: path.stat().st_mtime_ns for path in into.glob("*.tif")}
    assert _run(scenes, into).result()["reports"]["reused"] == _FILES
    assert {path.name: path.stat().st_mtime_ns for path in into.glob("*.tif")} == before
    assert _run(scenes, into, force=True).result()["reports"]["completed"] == _FILES


def test_one_that_fails_stops_no_other(scenes: Path, tmp_path: Path, artifacts: Callable[..., dict[str, str]]) -> None:
    """The run ends as BatchFailed, its page names the file, the reports have all, and a rerun does only the one."""
    broken = scenes / "s3.tif"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    into = tmp_path / "out"
    state = _run(scenes, into)
    assert (state.name, state.is_failed()) == ("BatchFailed", True)
    assert "s3.tif" in state.message
    assert "s3.tif" in next(iter(artifacts(state).values()))
    lines = [json.loads(line) for line in (into / REPORTS).read_text().splitlines()]
    assert sorted(line["number"] for line in lines) == list(range(1, _FILES + 1))
    assert [Path(line["source"]).name for line in lines if line["exit_code"]] == ["s3.tif"]
    assert len((into / TABLE).read_text().splitlines()) == _FILES + 1
    assert find_leftovers(into) == []
    broken.write_bytes(whole)
    record = _run(scenes, into).result()
    assert (record["reports"]["completed"], record["reports"]["reused"]) == (1, _FILES - 1)


def test_very_many_are_done_in_groups(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_runs: Callable[..., dict[str, str]]
) -> None:
    """More files than tasks: groups of them, each file's result kept."""
    monkeypatch.setattr(module, "_MOST_TASKS", 2)
    state = _run(scenes, tmp_path / "out")
    assert state.result()["reports"]["completed"] == _FILES
    assert sorted(name for name in task_runs(state) if name.startswith("Do ")) == [
        "Do s0.tif and 2 more",
        "Do s3.tif and 2 more",
    ]


def test_fail_fast_begins_nothing_where_a_header_is_broken(scenes: Path, tmp_path: Path) -> None:
    """As the terminal does: planning tells, so no file is done."""
    (scenes / "s5.tif").write_bytes(b"no raster")
    state = _run(scenes, tmp_path / "out", fail_fast=True)
    with pytest.raises(BatchFailed) as caught:
        state.result()
    counts = caught.value.facts["record"]["reports"]
    assert (counts["failed"], counts["not started"]) == (1, _FILES - 1)
    assert list((tmp_path / "out").glob("*.tif")) == []


def test_a_task_that_breaks_stops_no_other(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no error of a job (a worker that is gone, a defect of ours) is its files' end, and no other's."""
    from tasks import batching

    fulfil = batching.fulfil

    def broken(order: Any, runner: Any) -> Any:
        if order.job.label == "s2.tif":
            raise ValueError("a defect")
        return fulfil(order, runner)

    monkeypatch.setattr(batching, "fulfil", broken)
    state = _run(scenes, tmp_path / "out")
    with pytest.raises(BatchFailed, match=r"s2.tif: its task ended .*a defect") as caught:
        state.result()
    assert caught.value.facts["record"]["reports"]["completed"] == _FILES - 1


def test_an_interrupt_ends_what_waits(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while files wait behind another's job: the run does not wait with them, and its tickets are gone."""
    ledger = tmp_path / "ledger"
    monkeypatch.setenv("BATCH_LEDGER_PATH", str(ledger))
    monkeypatch.setattr(module, "check_disk", lambda *_: places.append(admitted(ledger, 390 * MIB, 400 * MIB, "other")))
    places: list[Any] = []

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not any(each.label.startswith("raster") for each in entries(ledger)) and time.monotonic() < deadline:
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # of a test run in the background it is ignored
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            _run(scenes, tmp_path / "out", host_budget_mb=400, memory_limit_mb=200)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    assert [each.label for each in entries(ledger)] == ["other"]
    places[0].leave()
    assert find_leftovers(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"options": {"operaton": "copy"}}, "unknown choice 'operaton'.*did you mean operation"),
        ({"options": {"operation": "custom", "function": "os:system"}}, "may call"),
        ({"inputs": ["nothing-*.tif"]}, "no file matches nothing-"),
        ({"dask_address": "tcp://127.0.0.1:1"}, "dask_address is of engine dask"),
    ],
)
def test_bad_parameters_are_said(
    more: dict[str, Any], words: str, scenes: Path, tmp_path: Path, artifacts: Callable[..., dict[str, str]]
) -> None:
    """The run ends as UsageError before anything is done; its page names the batch by its folder."""
    given = {"inputs": [str(scenes)], "into": str(tmp_path / "out"), "options": _OPTIONS} | more
    state = run_batch(**given, return_state=True)
    assert state.name == "UsageError"
    with pytest.raises(UsageError, match=words.partition(".*")[0]) as caught:
        state.result()
    assert words.rpartition(".*")[2] in f"{caught.value.message} {caught.value.hint}"
    assert next(iter(artifacts(state).values())).startswith("# Failed: out is not done (UsageError")


@pytest.mark.slow
def test_on_dask_the_same(scenes: Path, tmp_path: Path) -> None:
    """A cluster on this host: the same pixels, the same reports."""
    into = tmp_path / "out"
    state = _run(scenes, into, engine="dask")
    assert state.is_completed(), state.message
    for number in range(_FILES):
        _is_right(into / f"s{number}.tif", number)
    assert _run(scenes, into, engine="dask").result()["reports"]["reused"] == _FILES


@pytest.mark.slow
def test_a_scheduler_of_somebody_s_own(scenes: Path, tmp_path: Path) -> None:
    """By its address; what no worker has room for is an error and no endless wait, and is done once there is room."""
    import distributed

    async def grow(dask_worker: Any) -> None:
        await dask_worker.set_resources(MEMORY=512 * MIB)

    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            resources={"MEMORY": 64 * MIB},
            memory_limit=None,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        state = _run(scenes, tmp_path / "out", engine="dask", dask_address=cluster.scheduler_address)
        with pytest.raises(BatchFailed) as caught:
            state.result()
        assert caught.value.facts["record"]["reports"]["refused"] == _FILES
        assert "no worker of Dask has more than 64.0 MiB" in caught.value.message
        client.run(grow)
        state = _run(scenes, tmp_path / "out", engine="dask", dask_address=cluster.scheduler_address)
        assert state.is_completed(), state.message


@pytest.fixture
def killing() -> Iterator[Callable[[Callable[[], list[int]], random.Random], None]]:
    """Starts a thread that kills one of the processes that are listed, after a random while."""
    threads: list[threading.Thread] = []

    def begin(listed: Callable[[], list[int]], chance: random.Random) -> None:
        def work() -> None:
            deadline = time.monotonic() + 60
            while not (found := listed()) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 1.5))
            with contextlib.suppress(ProcessLookupError):
                os.kill((listed() or found)[0], signal.SIGKILL)

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join()


def _workers() -> list[int]:
    """Dask's workers that have a child at work."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("lib.memory.child" in " ".join(child.cmdline()) for child in each.children()):
                found.append(each.pid)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_worker_of_dask_that_is_killed(seed: int, scenes: Path, tmp_path: Path, killing: Callable[..., None]) -> None:
    """Whatever became of the run, after a rerun the outputs are complete and right, and no finished file was done twice."""
    import distributed

    into = tmp_path / "out"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=None
    ) as cluster:
        killing(_workers, random.Random(seed))
        _run(scenes, into, engine="dask", dask_address=cluster.scheduler_address)
    finished = {path: path.stat().st_mtime_ns for path in into.glob("*.tif")}
    for path in finished:
        _is_right(path, int(path.stem[1:]))
    summary = run_direct(batch_of("raster", [str(scenes)], str(into), word="parameter", **_OPTIONS))
    assert summary.error is None
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for number in range(_FILES):
        _is_right(into / f"s{number}.tif", number)
    assert find_leftovers(into) == []
