"""A child is launched, early if it can be, and heard in whatever pieces its words come."""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flows.__main__ as swath
from lib.jobs import DriversJob, Resources
from lib.memory import launch, process
from lib.memory.launch import Child, job_environment, launch_early, take_early
from lib.memory.process import Runner
from lib.units import MIB


@pytest.fixture
def child() -> Iterator[Child]:
    """A child without a job."""
    child = Child("drivers", "x")
    yield child
    child.stop()
    child.close()


@pytest.mark.parametrize("line", [b"garbage", b"[1, 2]", b'"x"', b'{"a": 1}', b'{"event": ', b"\xff"])
def test_what_is_no_event_is_heard_as_words(line: bytes, child: Child) -> None:
    """A user's function may write to any descriptor: that is no event, and no error of ours."""
    (event,) = child._split(line + b"\n")
    assert event == {"event": "stderr", "text": line.decode("utf-8", "replace")}


def test_a_line_of_megabytes_is_put_together_once(child: Child) -> None:
    """16 MiB in pieces of 64 KiB, with a short line before and behind: three events, in the time that one joining takes."""
    line = json.dumps({"event": "a", "text": "z" * 2**24}).encode()
    said = b'{"event": "b"}\n' + line + b'\n{"event": "c"}\n{"eve'
    began = time.process_time()
    events = [event for at in range(0, len(said), 65536) for event in child._split(said[at : at + 65536])]
    assert time.process_time() - began < 2
    assert [event["event"] for event in events] == ["b", "a", "c"]
    assert [event["event"] for event in child._split(b'nt": "d"}\n')] == ["d"]


def test_an_early_child_is_for_the_job_that_it_was_launched_for() -> None:
    """By kind and label; one that was launched for another job is ended."""
    launch_early("drivers", "GTiff")
    child = take_early("drivers", "GTiff")
    assert child is not None
    assert take_early("drivers", "GTiff") is None
    child.close()
    launch_early("drivers", "GTiff")
    launch_early("raster", "a.tif")
    pids = [each.pid for each in launch._early]
    assert take_early("vector", "a.tif") is None
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_job_runs_in_the_child_that_was_launched_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One child, not two: what a job chooses goes down with it."""
    job = DriversJob(names=("GTiff",), resources=Resources(limit_bytes=512 * MIB))
    launch_early("drivers", job.label)
    pid = launch._early[0].pid
    monkeypatch.setattr(process, "Child", None)
    with Runner() as runner:
        assert runner.run(job).status == "completed"
        assert runner._child is not None
        assert runner._child.pid == pid


@pytest.mark.parametrize(
    ("arguments", "guess"),
    [
        (["raster", "in/a.tif", "b.tif", "--threads", "2"], ("raster", "a.tif")),
        (["plan", "vector", "a.gpkg"], ("vector", "a.gpkg")),
        (["drivers", "GTiff", "GPKG", "--json"], ("drivers", "GTiff,GPKG")),
        (["drivers"], ("drivers", "all")),
        (["raster", "--threads", "2", "a.tif", "b.tif"], None),
        (["raster", "a.tif", "b.tif", "--flow"], None),
        (["raster", "a.tif", "--help"], None),
        (["raster"], None),
        (["config"], None),
        ([], None),
    ],
)
def test_the_job_to_come_is_guessed_from_the_command_line(
    arguments: list[str], guess: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the source stands right behind the command; a flow and a help text have no child of their own."""
    launched: list[tuple[str, str]] = []
    monkeypatch.setattr(launch, "launch_early", lambda *given: launched.append(given))
    swath._launch_child(arguments)
    assert launched == ([guess] if guess else [])


def test_temporary_files_go_where_the_jobs_output_is_staged(tmp_path: Path) -> None:
    """GDAL's and Python's; without a staged file to the system's own folder. A cache of few bytes is no number of megabytes."""
    staged = job_environment(Resources(limit_bytes=1, gdal_cache_max_bytes=0, threads=3, threads_max=2), tmp_path)
    assert (staged["CPL_TMPDIR"], staged["TMPDIR"]) == (str(tmp_path), str(tmp_path))
    assert (staged["GDAL_CACHEMAX"], staged["GDAL_NUM_THREADS"]) == ("100000", "2")
    assert job_environment(Resources(limit_bytes=1), None)["CPL_TMPDIR"] == tempfile.gettempdir()
