"""However a job dies: the right status and exit code, nothing published, nothing left, no process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from rasterio.transform import from_origin

from lib.jobs import RasterJob, Resources
from lib.memory.ledger import admission
from lib.memory.process import Runner, run_job
from lib.operations import Custom
from lib.run import run_published
from lib.units import MIB

ROOT = Path(__file__).resolve().parents[2]
Job = Callable[..., RasterJob]


def _children() -> list[psutil.Process]:
    return [
        each for each in psutil.Process().children(recursive=True) if "lib.memory.child" in " ".join(each.cmdline())
    ]


def _nothing_left(folder: Path) -> None:
    assert not (folder / "out.tif").exists()
    assert [path.name for path in folder.iterdir() if path.name.endswith(".swath")] == []
    assert _children() == []


@pytest.mark.parametrize(
    "fault",
    [
        "numpy_over",
        "wordless_over",
        "native_over",
        "child_over",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("python_over", "numpy_at_once", "mmap_at_once", "gdal_at_once", "gdal_over", "arrow_over")
        ),
    ],
)
def test_memory_over_the_limit_is_exceeded(fault: str, job: Job, tmp_path: Path) -> None:
    """Whoever allocates past the limit, the job is stopped, exit 137, and its peak stays within one look of the limit."""
    report = run_published(job(f"late_{fault}"))
    assert (report.status, report.exit_code) == ("exceeded", 137), report.error
    assert report.memory.cap is not None
    assert "watchdog" in report.memory.cap.mechanism
    assert report.memory.peak_bytes is not None
    # One interval of 20 ms at some GiB/s is what a runaway may take beyond the limit.
    assert report.memory.peak_bytes < (256 + 200) * MIB
    _nothing_left(tmp_path)


@pytest.mark.slow  # the quick ones are in tests/memory/test_process.py
@pytest.mark.parametrize("fault", ["numpy_over", "gdal_at_once", "child_over"])
def test_memory_over_the_limit_in_the_first_chunks_is_refused(fault: str, job: Job, tmp_path: Path) -> None:
    """What passes the limit while it is measured is refused, 137, with what was reached: at least so much is needed."""
    report = run_published(job(fault))
    assert (report.status, report.exit_code) == ("refused", 137), report.error
    assert report.error is not None
    assert report.error.smallest_limit_mb is not None
    assert report.error.smallest_limit_mb > 256
    assert "first chunks" in report.error.message
    assert (report.memory.peak_bytes or 0) < (256 + 200) * MIB
    _nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("segfault", "SIGSEGV"),
        ("exit_127", "exit code 127"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("abort", "SIGABRT"), ("killed", "SIGKILL"))),
    ],
)
def test_a_crash_is_a_failure_named_by_its_signal_and_not_retried(
    fault: str, words: str, job: Job, tmp_path: Path
) -> None:
    """A crash without evidence of memory is exit 1, one attempt only."""
    report = run_published(job(fault, limit_max_bytes=1024 * MIB))
    assert (report.status, report.exit_code) == ("failed", 1)
    assert report.error is not None
    assert report.error.type == "ChildDied"
    assert words in report.error.message
    assert len(report.attempts) == 1
    assert (report.memory.peak_bytes or 0) >= (report.memory.baseline_bytes or 0) > 0
    _nothing_left(tmp_path)


@pytest.mark.slow
def test_a_job_that_passes_its_projection_says_so(job: Job, tmp_path: Path) -> None:
    """What a user's function takes later than in its first chunks is not planned: the report says how much that was."""
    report = run_published(job("late_hold_128_mib", limit_mb=512))
    assert report.status == "completed", report.error
    assert report.plan is not None
    over = (report.memory.peak_bytes or 0) - report.plan["projected_bytes"]
    assert over > 64 * MIB
    assert [each for each in report.warnings if f"margin_mb {-(-over // MIB)} would have covered it" in each]


def test_a_kill_from_outside_is_a_failure(job: Job, tmp_path: Path) -> None:
    """An operator's kill -9 of the child is exit 1, with the signal."""

    def kill(event: dict[str, object]) -> None:
        if event["event"] == "baseline":
            for child in _children():
                child.kill()

    report = run_published(job("stall"), kill)
    assert (report.status, report.exit_code) == ("failed", 1)
    assert report.error is not None
    assert "SIGKILL" in report.error.message
    _nothing_left(tmp_path)


def test_a_stall_is_named_as_such(job: Job, tmp_path: Path) -> None:
    """A hanging function meets the stall deadline: exit 1, ChildStalled, not retried."""
    heard: list[object] = []
    report = run_published(
        job("stall", stall_seconds=1.0, limit_max_bytes=1024 * MIB), lambda event: heard.append(event["event"])
    )
    assert "baseline" in heard, "it must be the function that stalls"
    assert report.error is not None
    assert (report.exit_code, report.error.type, len(report.attempts)) == (1, "ChildStalled", 1)
    _nothing_left(tmp_path)


def test_logging_is_no_progress(job: Job, tmp_path: Path) -> None:
    """A hang that logs twice a second stalls all the same."""
    report = run_published(job("logs_and_hangs", stall_seconds=2.0))
    assert report.error is not None
    assert (report.exit_code, report.error.type) == (1, "ChildStalled")
    _nothing_left(tmp_path)


def test_words_of_a_job_are_no_evidence_in_the_next(job: Job, tmp_path: Path) -> None:
    """A kept child whose last job spoke of memory and went on: the next job's segfault is a segfault."""
    with Runner() as runner:
        first = runner.run(job("speaks_of_memory"), staged=tmp_path / "1.tif")
        assert first.status == "completed", first.error
        second = runner.run(job("segfault"), staged=tmp_path / "2.tif")
    assert second.error is not None
    assert (second.error.type, len(second.attempts)) == ("ChildDied", 1)


def test_a_death_before_the_plan_is_not_judged_by_the_limit(job: Job, tmp_path: Path) -> None:
    """The limit does not hold yet: a kill from outside during start-up is no death of memory, however small the limit."""

    def kill(event: dict[str, object]) -> None:
        if event["event"] == "ready":
            for child in _children():
                child.suspend()
                child.kill()

    report = run_published(job(limit_mb=48), kill)
    assert report.error is not None
    assert (report.exit_code, report.error.type) in {(1, "ChildDied"), (137, "MemoryRefused")}
    _nothing_left(tmp_path)


def test_a_start_up_that_takes_too_long_is_stopped(job: Job, tmp_path: Path) -> None:
    """No plan within startup_seconds: exit 1, stalled, told which setting; the user's own module takes an hour to import."""
    report = run_published(_importing("slow_import", job(startup_seconds=4.0)))
    assert report.error is not None
    assert (report.exit_code, report.error.type, len(report.attempts)) == (1, "ChildStalled", 1)
    assert "startup_seconds" in report.error.hint
    _nothing_left(tmp_path)


def test_a_start_up_that_takes_too_much_is_stopped(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is a plan a fixed ceiling holds, here 200 MiB: exit 137, and said so."""
    monkeypatch.setattr("lib.memory.watch.STARTUP_CEILING_BYTES", 200 * MIB)
    report = run_published(_importing("large_import", job(limit_mb=1024)))
    assert report.error is not None
    assert (report.exit_code, report.error.type) == (137, "MemoryExceeded")
    assert "start-up ceiling" in report.error.message
    assert (report.memory.peak_bytes or 0) < 400 * MIB
    _nothing_left(tmp_path)


def _importing(module: str, job: RasterJob) -> RasterJob:
    return job.model_copy(update={"operation": Custom(function=f"tests.faults.{module}:unchanged")})


@pytest.mark.slow
def test_a_child_is_renewed_after_its_share_of_jobs(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven jobs at three a child are three children, and all complete."""
    monkeypatch.setattr("lib.memory.process._JOBS_PER_CHILD", 3)
    pids: list[int] = []
    with Runner() as runner:
        for number in range(7):
            report = runner.run(
                job(),
                staged=tmp_path / f"{number}.tif",
                on_event=lambda _: pids.extend(each.pid for each in _children()),
            )
            assert report.status == "completed", report.error
    assert len(set(pids)) == 3


def test_the_watchdog_sees_while_a_callback_blocks(job: Job, tmp_path: Path) -> None:
    """A callback that blocks for seconds does not let a runaway's process go past the limit."""

    def block(event: dict[str, object]) -> None:
        if event["event"] == "planned" and event["final"]:
            blocked.wait(3)

    blocked = threading.Event()
    report = run_published(job("late_child_over"), block)
    assert (report.status, report.exit_code) == ("exceeded", 137)
    assert (report.memory.peak_bytes or 0) < (256 + 200) * MIB
    _nothing_left(tmp_path)


def test_the_watchdog_acts_at_the_limit(job: Job) -> None:
    """A job that takes 10 MiB every 50 ms is stopped within three steps of its limit, at one of a few tries."""
    beyond: list[int] = []
    while len(beyond) < 6 and min(beyond, default=256 * MIB) > 30 * MIB:
        report = run_published(job("late_hoard_slowly"))
        assert (report.status, report.exit_code) == ("exceeded", 137)
        beyond += [(attempt.peak_bytes or 0) - 256 * MIB for attempt in report.attempts]
    assert 0 < min(beyond) <= 30 * MIB, beyond


def test_a_child_killed_within_one_chunk_has_named_its_allocators(job: Job, tmp_path: Path) -> None:
    """A runaway within one chunk: the report names the line, and what the memory was made of."""
    report = run_published(job("late_hoard_slowly"))
    assert (report.status, report.exit_code) == ("exceeded", 137)
    assert "functions.py" in report.memory.top_allocators[0].location
    assert report.memory.attribution["numpy_bytes"] > 20 * MIB
    _nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("waits_seconds", "timeout_seconds"), [(0.0, None), pytest.param(16.0, 15.0, marks=pytest.mark.slow)]
)
def test_jobs_under_a_shared_budget_wait_for_each_other(
    waits_seconds: float, timeout_seconds: float | None, job: Job, tmp_path: Path
) -> None:
    """A job waits while another holds the budget, and runs when it is released; its time limit counts from then."""
    folder, events = tmp_path / "ledger", []
    resources = {"host_budget_bytes": 300 * MIB, "ledger_path": folder, "timeout_seconds": timeout_seconds}
    held, released = threading.Event(), threading.Event()

    def hold() -> None:
        with admission(folder, 200 * MIB, 300 * MIB, "holder"):
            held.set()
            released.wait(60)
            time.sleep(waits_seconds)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)

    def hear(event: dict[str, object]) -> None:
        events.append(event["event"])
        if event["event"] == "waiting":
            released.set()

    report = run_published(job(limit_mb=256, **resources), hear)
    holder.join(60)
    assert report.status == "completed", report.error
    assert events[0] == "waiting"
    assert list(folder.glob("*.ticket")) == []


@pytest.mark.slow
def test_the_ladder_ends_at_the_shared_budget(job: Job, tmp_path: Path) -> None:
    """A maximum above the budget is cut to it; the report has every attempt."""
    report = run_published(
        job(
            "numpy_over",
            limit_mb=200,
            limit_max_bytes=400 * MIB,
            host_budget_bytes=250 * MIB,
            ledger_path=tmp_path / "l",
        )
    )
    assert (report.status, report.exit_code) == ("refused", 137)
    assert [attempt.limit_bytes // MIB for attempt in report.attempts] == [200, 200, 250]


def test_a_timeout_ends_the_job(job: Job, tmp_path: Path) -> None:
    """The user's own time limit is exit 1, TimedOut."""
    report = run_published(job("stall", timeout_seconds=3.0))
    assert report.error is not None
    assert (report.exit_code, report.error.type) == (1, "TimedOut")
    _nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raises", "no such class"),
        ("interrupts", "KeyboardInterrupt"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("speaks_and_raises", "out of memory of men"),
                ("exits", "SystemExit: 3"),
                ("raises_weird", "Weird"),
            )
        ),
    ],
)
def test_a_function_that_raises_is_named(fault: str, words: str, job: Job, tmp_path: Path) -> None:
    """The user's own error is exit 1, FunctionError, with its words, whatever it is; one attempt, and no traceback."""
    heard: list[str] = []
    report = run_published(job(fault), lambda event: heard.append(event.get("text", "")))
    assert report.error is not None
    assert (report.exit_code, report.error.type, len(report.attempts)) == (1, "FunctionError", 1)
    assert f"tests.faults.functions:{fault}" in report.error.message
    assert words in report.error.message
    assert "Traceback" not in "".join(heard)
    _nothing_left(tmp_path)


@pytest.mark.slow
def test_a_huge_error_of_a_function_is_cut(job: Job, tmp_path: Path) -> None:
    """Five megabytes with an escape sequence: a report of some kilobytes that obeys nothing."""
    report = run_published(job("raises_megabytes"))
    assert report.error is not None
    assert (report.exit_code, report.error.type) == (1, "FunctionError")
    assert len(report.model_dump_json()) < 100_000
    assert "\x1b" not in report.error.message + (report.error.traceback or "-")


def test_a_function_may_print(job: Job, tmp_path: Path) -> None:
    """Standard output of a user's function goes to standard error; the job completes."""
    heard: list[str] = []
    report = run_published(job("prints"), lambda event: heard.append(event.get("text", "")))
    assert report.status == "completed", report.error
    assert any("{not an event}" in text for text in heard)


def test_too_small_a_limit_is_refused_with_one_that_works(job: Job, tmp_path: Path) -> None:
    """Refused beforehand, 137, naming the smallest limit; at that limit the same job completes."""
    report = run_published(job(limit_mb=20))
    assert (report.status, report.exit_code) == ("refused", 137)
    assert report.error is not None
    assert report.error.smallest_limit_mb is not None
    _nothing_left(tmp_path)
    again = run_published(job(limit_mb=report.error.smallest_limit_mb))
    assert again.status == "completed", again.error
    assert (again.memory.peak_bytes or 0) <= report.error.smallest_limit_mb * MIB


@pytest.mark.slow
def test_a_death_of_memory_climbs_the_ladder(job: Job, tmp_path: Path) -> None:
    """Smaller plan under the same cap first, then higher limits up to the maximum; the report lists each attempt."""
    report = run_published(job("numpy_over", limit_mb=200, limit_max_bytes=400 * MIB))
    assert report.status == "refused"
    limits = [attempt.limit_bytes // MIB for attempt in report.attempts]
    assert limits == [200, 200, 300, 400]
    assert {attempt.outcome for attempt in report.attempts} == {"refused"}
    _nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("limit_mb", [200, 250, 400])
def test_a_plan_that_died_is_not_made_again(limit_mb: int, tmp_path: Path) -> None:
    """A function that takes a multiple of its window heals with a smaller one, however far the limit is above the plan."""
    path = tmp_path / "in.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=2048, height=2048, count=1, dtype="uint8", crs="EPSG:32633",
        transform=from_origin(5e5, 5e6, 10, 10), tiled=True, blockxsize=128, blockysize=128,
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, 2048, 2048), "uint8"))
    job = RasterJob(
        source=str(path), destination=str(tmp_path / "out.tif"),
        operation=Custom(function="tests.faults.functions:takes_a_hundred_times"),
        resources=Resources(limit_bytes=limit_mb * MIB),
    )  # fmt: skip
    report = run_published(job)
    assert [each.outcome for each in report.attempts] == ["refused", "completed"], report.error
    assert report.attempts[0].chunk != report.attempts[1].chunk


def test_a_function_cannot_speak_for_the_job(job: Job, tmp_path: Path) -> None:
    """What writes "done" to the job's pipe publishes nothing: no check of the output was told."""
    report = run_published(job("says_done"))
    assert (report.status, report.exit_code) == ("failed", 1)
    _nothing_left(tmp_path)


def test_a_function_may_read_its_input(job: Job) -> None:
    """The job's own pipe is not the function's standard input: that is empty."""
    assert run_published(job("reads_input")).status == "completed"


@pytest.mark.parametrize("moment", ["ready", "planned", "baseline", "phase"])
def test_an_interrupt_leaves_no_child(moment: str, job: Job, tmp_path: Path) -> None:
    """Ctrl-C at any moment ends the child and removes the staging before it passes on."""

    def interrupt(event: dict[str, object]) -> None:
        if event["event"] == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_published(job(), interrupt)
    _nothing_left(tmp_path)


@pytest.mark.parametrize(("signal_number", "moment"), [(signal.SIGINT, "at work"), (signal.SIGTERM, "started")])
def test_the_command_line_says_how_it_was_stopped(
    signal_number: int, moment: str, raster: Path, tmp_path: Path
) -> None:
    """SIGINT is 130 and SIGTERM 143, status cancelled, nothing left behind: as soon as there is a child, and in the work."""
    process = _command(raster, tmp_path)
    _until((tmp_path / ".out.tif.swath" / "out.tif").exists if moment == "at work" else lambda: bool(_child(process)))
    process.send_signal(signal_number)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + signal_number
    assert '"status": "cancelled"' in out
    _nothing_left(tmp_path)


def test_a_parent_killed_with_9_takes_its_child_along_and_the_next_run_sweeps(
    raster: Path, tmp_path: Path, job: Job
) -> None:
    """After kill -9 of the parent: no child, no destination, and a staging folder that the next run clears."""
    process = _command(raster, tmp_path)
    staging = tmp_path / ".out.tif.swath"
    _until((staging / "out.tif").exists)
    children = _family(process.pid)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert not (tmp_path / "out.tif").exists()
    assert staging.exists()
    report = run_published(job())
    assert report.status == "completed", report.error
    assert not staging.exists()


@pytest.mark.parametrize("victim", ["parent", "child"])
def test_what_a_function_started_dies_too(victim: str, raster: Path, tmp_path: Path) -> None:
    """With kill -9 of the parent or the child, no process of the user function stays, forked or executed."""
    process = _command(raster, tmp_path, "child_that_stays")
    _until((tmp_path / "started").exists)
    family = _family(process.pid)
    started = {int(word) for word in (tmp_path / "started").read_text().split()}
    assert started < {each.pid for each in family}
    (process if victim == "parent" else _child(process)[0]).kill()
    process.communicate(timeout=20)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert not (tmp_path / "out.tif").exists()


def test_two_jobs_to_one_destination(raster: Path, tmp_path: Path, job: Job) -> None:
    """The second is refused while the first runs, and nothing of the first is disturbed."""
    process = _command(raster, tmp_path)
    _until((tmp_path / ".out.tif.swath" / "out.tif").exists)
    second = subprocess.run(
        [*_words(raster, tmp_path), "--json"], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert second.returncode == 1
    assert '"DestinationBusy"' in second.stdout
    assert (tmp_path / ".out.tif.swath" / "out.tif").exists()
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_child_takes_many_jobs_in_turn(job: Job, tmp_path: Path) -> None:
    """120 jobs in turn: one child takes them all, and the last leaves it no larger than the tenth."""
    sizes: list[int] = []
    children: set[psutil.Process] = set()
    with Runner() as runner:
        for number in range(120):
            report = runner.run(job(limit_mb=200), staged=tmp_path / f"{number}.tif")
            assert report.status == "completed", report.error
            sizes.append(report.memory.final_bytes or 0)
            children.update(_children())
            (tmp_path / f"{number}.tif").unlink()
    assert len(children) == 1
    assert max(sizes[100:]) - min(sizes[5:15]) < 4 * MIB


def test_a_child_is_gone_when_its_runner_is(job: Job, tmp_path: Path) -> None:
    """run_job leaves no process behind."""
    report = run_job(job(), staged=tmp_path / "staged.tif")
    assert report.status == "completed", report.error
    assert _children() == []


def _words(raster: Path, folder: Path, function: str = "stall") -> list[str]:
    return [
        sys.executable, "-m", "flows", "raster", str(raster), str(folder / "out.tif"), "--operation", "custom",
        # Far from what a child and its forks hold, which share pages that are counted once for each: 0.9 of it would be evidence.
        "--function", f"tests.faults.functions:{function}", "--memory-limit-mb", "1024",
    ]  # fmt: skip


def _command(raster: Path, folder: Path, function: str = "stall") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*_words(raster, folder, function), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=os.environ | {"STARTED": str(folder / "started")},
        # Where the suite itself was started with `&`, its children would ignore SIGINT, as they should.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads hold locks here
    )


def _child(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [each for each in _family(process.pid) if "lib.memory.child" in " ".join(each.cmdline())]


def _family(pid: int) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        try:
            each.cmdline()
        except psutil.Error:
            continue
        found.append(each)
    return found


def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for another process to get somewhere; fails loudly where it does not."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the other process did not get there"
        pause.wait(0.02)
