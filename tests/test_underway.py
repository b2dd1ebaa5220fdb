"""What a killed job leaves to tell of it: the next run says it, `swath clean` lists it, and no odd file there hurts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib.jobs import RasterJob, Resources
from lib.publish import find_leftovers, staging
from lib.reports import Report
from lib.underway import NAME, RUN, Notes, unfinished
from lib.units import MIB
from tests.test_log import read_log, swath

ROOT = Path(__file__).resolve().parents[1]
_JOB = RasterJob(source="/data/a.tif?x", destination="/out/b.tif", resources=Resources(limit_bytes=256 * MIB))
_PLANNED = {"event": "planned", "plan": {"projected_bytes": 99 * MIB}, "final": True}


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / ".b.tif.swath"
    folder.mkdir()
    (folder / "owner").write_text(json.dumps({"host": socket.gethostname(), "pid": 4_000_000, "boot": "x"}))
    return folder


def test_a_note_says_what_ran_how_far_and_in_what_memory(tmp_path: Path) -> None:
    """Job, flow run, chunks, peak, limit and owner come back from the folder, and stand in one sentence with units."""
    folder = _folder(tmp_path)
    token = RUN.set({"id": "0f3c", "name": "brave-otter"})
    notes = Notes(folder, _JOB)
    RUN.reset(token)
    for event in (
        _PLANNED,
        {"event": "chunk", "done": 40, "of": 100, "resident_bytes": 80 * MIB},
        {"event": "phase", "name": "close"},
    ):
        notes.hear(event)
    (leftover,) = find_leftovers(tmp_path)
    job = leftover.job
    assert job is not None
    assert (job.kind, job.label, job.run_name, job.done, job.of) == ("raster", "a.tif?x", "brave-otter", 40, 100)
    assert (job.peak_bytes, job.limit_bytes, job.projected_bytes) == (80 * MIB, 256 * MIB, 99 * MIB)
    assert job.heard is not None
    assert abs(job.heard - time.time()) < 60
    assert "raster job of a.tif?x in flow run brave-otter (0f3c), begun 20" in job.words
    assert "after 40 of 100 chunks, closing its output, peak 80.0 MiB of a limit of 256.0 MiB, pid 4000000" in job.words


@pytest.mark.parametrize(
    ("status", "code", "said"), [("completed", 0, "done and not yet published"), ("failed", 1, None)]
)
def test_a_job_that_came_to_its_end_was_not_interrupted(
    status: Any, code: int, said: str | None, tmp_path: Path
) -> None:
    """A failed one's folder may be kept for another try; a kill between work and publication is told as that."""
    folder = _folder(tmp_path)
    Notes(folder, _JOB).end(Report(status=status, exit_code=code))
    (leftover,) = find_leftovers(tmp_path)
    assert (leftover.job and leftover.job.state) == said


def test_a_note_is_written_at_a_modest_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand chunks at once are not a thousand writes."""
    written = []
    monkeypatch.setattr(
        Notes, "_write", lambda self: (written.append(1), setattr(self, "_written_at", time.monotonic()))
    )
    notes = Notes(tmp_path, _JOB)
    for number in range(1000):
        notes.hear({"event": "chunk", "done": number, "of": 1000, "resident_bytes": MIB})
    assert len(written) <= 3


def test_a_disk_that_refuses_costs_the_note_only(tmp_path: Path) -> None:
    """A folder that is gone, or a folder in the note's place."""
    notes = Notes(tmp_path / "gone", _JOB)
    notes.end(Report(status="completed", exit_code=0))
    (tmp_path / NAME).mkdir()
    Notes(tmp_path, _JOB).hear(_PLANNED)


def _odd(path: Path, kind: str) -> None:
    match kind:
        case "torn":
            path.write_text('{"kind": "raster", "lab')
        case "nothing":
            path.touch()
        case "list":
            path.write_text("[1, 2]")
        case "deep":
            path.write_text("[" * 60_000)
        case "binary":
            path.write_bytes(bytes(range(256)))
        case "strange":
            odd: dict[str, Any] = {
                "kind": 7,
                "label": ["x"],
                "began": -1,
                "heard": 1e300,
                "done": True,
                "peak_bytes": "9",
            }
            path.write_text(json.dumps(odd | {"run": "me", "state": "\x1b[2J", "limit_bytes": 10**30}))
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("kind", ["torn", "nothing", "list", "deep", "binary", "strange", "folder", "fifo", "link"])
def test_an_odd_note_does_not_hurt(kind: str, tmp_path: Path) -> None:
    """It tells as much as can be read, is swept like anything else there, and the next run has the folder."""
    folder = _folder(tmp_path)
    _odd(folder / NAME, kind)
    (leftover,) = find_leftovers(tmp_path)
    assert leftover.job is not None
    assert "\x1b" not in leftover.job.words
    with staging(tmp_path / "b.tif", overwrite=False) as staged:
        assert staged.unfinished is not None
        assert "pid 4000000" in staged.unfinished.words
        assert [path.name for path in folder.iterdir()] == ["owner"]


def test_a_folder_that_nobody_owned_tells_nothing(tmp_path: Path) -> None:
    """A fresh staging folder is no interrupted run."""
    with staging(tmp_path / "b.tif", overwrite=False) as staged:
        assert staged.unfinished is None
    assert unfinished(tmp_path, {}) is None


def test_a_killed_job_is_told_by_clean_and_by_the_next_run(tmp_path: Path) -> None:
    """The whole program killed with -9 in mid-work: `clean` lists what it was, the next run's log and report say it, once."""
    (tmp_path / "slowly.py").write_text(
        "import pathlib, time\ndef f(pixels, valid):\n    pathlib.Path('began').touch()\n    time.sleep(600)\n"
    )
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        width=64,
        height=64,
        count=1,
        dtype="uint8",
        transform=from_origin(9, 9, 1, 1),
    ) as dataset:
        dataset.write(np.ones((1, 64, 64), "uint8"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = ("raster", "a.tif", "b.tif", "--operation", "custom", "--function", "slowly:f")
    killed = subprocess.Popen(
        [sys.executable, "-m", "flows", *words], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    listed = json.loads(swath("clean", ".", "--dry-run", "--json", cwd=tmp_path).stdout)["leftovers"]
    assert [(each["job"]["kind"], each["job"]["label"], each["job"]["pid"]) for each in listed] == [
        ("raster", "a.tif", killed.pid)
    ]
    assert "raster job of a.tif" in " ".join(swath("clean", ".", "--dry-run", cwd=tmp_path).stdout.split())
    done = swath("raster", "a.tif", "b.tif", "--json", cwd=tmp_path)
    (warning,) = json.loads(done.stdout)["warnings"]
    assert f"pid {killed.pid}" in warning
    lines = read_log(done.stderr)
    assert [line["level"] for line in lines if line["message"] == warning] == ["WARNING"]
    assert lines[0]["event"] == "run.interrupted"
    assert lines[0]["fields"]["limit_bytes"] > 0
