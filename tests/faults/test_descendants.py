"""What a user's function starts is of the job: it counts, it ends with it, and it does not speak for it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lib.jobs import RasterJob
from lib.memory.process import Runner
from lib.run import run_published
from lib.units import MIB

Job = Callable[..., RasterJob]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a function notes the processes that it has started."""
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    return tmp_path / "started"


def _children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "lib.memory.child" in " ".join(each.cmdline())]


def _alive(started: Path) -> list[int]:
    noted = [int(word) for word in started.read_text().split()]
    assert noted
    return [pid for pid in noted if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def _dying_or_gone(started: Path) -> bool:
    """Whether what was noted ends: a process that was killed has no environment to be known by before it is a zombie."""
    deadline = time.monotonic() + 5
    while _alive(started):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_daemons_count_and_are_ended_with_the_job(job: Job, started: Path) -> None:
    """Processes that have left session and parent hold memory: the watchdog sees it, and none is left."""
    report = run_published(job("late_daemons_over", limit_mb=300))
    assert (report.status, report.exit_code) == ("exceeded", 137), report.error
    assert report.error is not None
    assert "watchdog" in report.error.message
    assert not started.exists() or _alive(started) == []
    assert (report.memory.peak_bytes or 0) > 300 * MIB


def test_a_job_that_is_done_leaves_no_daemon(job: Job, started: Path, tmp_path: Path) -> None:
    """The job completes, what its function had left is ended before the child is, and that child is not kept."""
    with Runner() as runner:
        report = runner.run(job("daemon_left", limit_mb=400), staged=tmp_path / "staged.tif")
        assert report.status == "completed", report.error
        assert _alive(started) == []
        assert _children() == []


@pytest.mark.parametrize("path", [os.environ["PATH"], "/nowhere"], ids=["with grep", "without"])
def test_a_child_that_died_leaves_no_daemon(
    path: str, job: Job, started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the child itself was killed nobody adopts them: they are known by their mark, with or without grep."""
    monkeypatch.setenv("PATH", path)

    def kill(event: dict[str, object]) -> None:
        if event["event"] == "baseline":
            deadline = time.monotonic() + 30
            while not started.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for child in _children():
                child.kill()

    report = run_published(
        job("child_that_stays", limit_mb=1024), kill
    )  # far from what they hold: no evidence of memory
    assert report.error is not None
    assert (report.exit_code, report.error.type) == (1, "ChildDied"), report.error
    assert report.seconds.total < 30, "what it had forked holds its pipe: its death must be seen all the same"
    assert _dying_or_gone(started)


def test_a_fork_that_comes_back_does_not_speak_for_the_job(job: Job) -> None:
    """An exception in a fork of the function is not the job's: the job completes."""
    report = run_published(job("fork_that_comes_back", limit_mb=400))
    assert report.status == "completed", report.error


def test_a_fork_of_a_fork_keeps_its_files(job: Job) -> None:
    """The guard's pipe is closed once: by the second fork its number may be that of a user's file."""
    report = run_published(job("forks_with_files", limit_mb=600))
    assert report.status == "completed", report.error


def test_a_thread_that_does_not_end_does_not_keep_the_child(job: Job, tmp_path: Path) -> None:
    """The child leaves at the end of its jobs, whatever still runs in it."""
    runner = Runner()
    assert runner.run(job("thread_that_stays"), staged=tmp_path / "staged.tif").status == "completed"
    began = time.monotonic()
    runner.close()
    assert time.monotonic() - began < 5
