"""The log: each line one JSON object as the schema says, at a human pace, the same words for people; never a secret."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lib.jobs import DriversJob, RasterJob, Resources
from lib.log import Line, append, as_json, wants_json
from lib.reports import Report
from lib.telling import Telling, outcome
from lib.units import MIB

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "lib" / "log.schema.json").read_text(encoding="utf-8"))
_JOB = RasterJob(source="/data/T32UQD.tif", destination="/out/scaled.tif", resources=Resources(limit_bytes=256 * MIB))


def read_log(text: str) -> list[dict[str, Any]]:
    """Lines of a log, each held against the schema."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA, format_checker=jsonschema.FormatChecker())
    return lines


def swath(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the whole program, its stderr a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "flows", *words], cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def _chunks(clock: list[float], seconds: float, count: int) -> list[str]:
    """What is told of so many chunks of so many seconds each."""
    telling = Telling(_JOB, lambda: clock[0])
    list(telling.lines({"event": "baseline", "resident_bytes": MIB, "chunks": count}))
    said = []
    for number in range(1, count + 1):
        clock[0] += seconds
        event = {"event": "chunk", "done": number, "of": count, "resident_bytes": 90 * MIB}
        said += [line.message for line in telling.lines(event)]
    return said


def test_progress_is_at_a_human_pace() -> None:
    """Ten lines of a job of 125 s, none of one of 3 s; of one of an hour one at least every half minute; what is left is told."""
    assert _chunks([0.0], 0.125, 1000) == [
        *(f"{n} of 1,000 chunks ({n // 10}%), 90.0 MiB resident, about {_left(n)} left" for n in range(100, 1000, 100)),
        "1,000 of 1,000 chunks (100%), 90.0 MiB resident",
    ]
    assert _chunks([0.0], 0.003, 1000) == []
    assert 110 <= len(_chunks([0.0], 3.6, 1000)) <= 122


def _left(done: int) -> str:
    seconds = (1000 - done) * 0.125
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s" if seconds >= 60 else f"{seconds:.1f} s"


def test_a_long_chunk_is_told_of_while_it_lasts() -> None:
    """The child says nothing for two minutes: a line every half minute says since when."""
    clock = [0.0]
    telling = Telling(_JOB, lambda: clock[0])
    list(telling.lines({"event": "baseline", "resident_bytes": MIB, "chunks": 4}))
    list(telling.lines({"event": "chunk", "done": 1, "of": 4, "resident_bytes": MIB}))
    said = []
    for _ in range(24):
        clock[0] += 5
        said += [line.message for line in telling.lines({"event": "alive", "resident_bytes": 2 * MIB})]
    assert said[0] == "1 of 4 chunks (25%), 2.0 MiB resident, about 15.0 s left"
    assert [text.rpartition("; ")[2] for text in said[1:]] == [
        f"nothing was done for {time}" for time in ("35.0 s", "1 min 05 s", "1 min 35 s")
    ]


def test_every_event_has_a_line_that_the_schema_knows() -> None:
    """Whatever a child says, its line is valid, in one sentence."""
    plan = {"projected_bytes": MIB, "limit_bytes": 2 * MIB, "window": [512, 512], "chunks": 4, "threads": 1}
    events: list[dict[str, Any]] = [
        {"event": "planned", "plan": plan, "final": True},
        *({"event": "waiting", "for": each, "bytes": MIB, "behind": 3} for each in ("memory", "disk")),
        {"event": "attempt", "number": 2, "fraction": 0.7, "limit_bytes": MIB},
        {"event": "check", "name": "counts", "passed": False, "detail": "3 of 4"},
        {"event": "leak", "bytes_per_chunk": 2.0, "crosses_at_chunk": 9, "lines": [{"location": "a.py:1", "size_bytes": 1}]},
        {"event": "stderr", "text": "one\x1b[31m\none\ntwo https://a:b@h/x"},
        *({"event": name, "resident_bytes": 1, "top": [], "attribution": {}} for name in ("ready", "allocators")),
    ]  # fmt: skip
    telling = Telling(_JOB)
    lines = [line for event in events for line in telling.lines(event)]
    lines += telling.ending(
        Report(status="completed", exit_code=0, job=_JOB.model_dump(mode="json"), warnings=["a leak of 1 B", "w"])
    )
    run = {"id": "1", "name": "brave"}
    told = read_log("\n".join(as_json(line, job=_JOB.model_dump(mode="json"), flow_run=run) for line in lines))
    names = ["job.planned", *["job.waiting"] * 2, "job.attempt", "job.check", "memory.leak-suspected"]
    assert [line["event"] for line in told] == [*names, *["child.said"] * 3, "job.warning", "job.completed"]
    assert told[4]["level"] == "ERROR"
    assert told[8]["message"] == "two https://***@h/x"
    assert told[0]["job"] == {
        "kind": "raster", "label": "T32UQD.tif", "source": "/data/T32UQD.tif", "destination": "/out/scaled.tif",
    }  # fmt: skip


def test_odd_text_is_one_valid_line() -> None:
    """Line breaks, control characters and names that are not UTF-8 do not break the log."""
    line = as_json(Line("INFO", "log", "a\nb\x00\udcff", {"n": float("inf"), "path": Path("x\udcff")}))
    assert "\n" not in line
    assert line.encode("utf-8")
    assert json.loads(line)["message"].startswith("a b")


def test_the_end_says_what_was_published() -> None:
    """Where, how large, how long, in what memory, in one line; a failure says what to do."""
    report = Report.model_validate({
        "status": "completed", "exit_code": 0, "job": _JOB.model_dump(mode="json"), "seconds": {"total": 11.2},
        "memory": {"peak_bytes": 131 * MIB, "cap": {"mechanism": "watchdog", "bytes": 256 * MIB}},
        "output": {"path": "/out/scaled.tif", "bytes": 12 * MIB, "driver": "GTiff"},
    })  # fmt: skip
    line = outcome(report)
    assert (
        line.message == "published /out/scaled.tif: 12.0 MiB (GTiff) in 11.2 s, peak 131.0 MiB of a limit of 256.0 MiB"
    )
    assert line.fields["bytes"] == 12 * MIB


def test_a_job_writes_json_where_stderr_is_no_terminal(tmp_path: Path) -> None:
    """Whole program: every line of stderr is valid, the plan comes first and the end last; stdout is as it was."""
    done = swath("drivers", "GTiff", cwd=tmp_path)
    lines = read_log(done.stderr)
    assert (done.returncode, lines[-1]["event"], lines[-1]["fields"]["exit_code"]) == (0, "job.completed", 0)
    assert lines[0]["job"]["kind"] == "drivers"
    assert "drivers" in done.stdout
    assert "{" not in done.stdout


def test_an_error_is_a_line_whose_message_is_the_error(tmp_path: Path) -> None:
    """What a person would read is in the message; exit code, type and hint are fields; the file of the log has it, too."""
    log = tmp_path / "swath.jsonl"
    done = swath("raster", "missing.tif", "out.tif", cwd=tmp_path, BATCH_LOG_PATH=str(log))
    (line,) = read_log(done.stderr)
    assert done.returncode == 2
    assert line["message"].startswith("swath: failed: ")
    assert "missing.tif" in line["message"]
    assert (line["level"], line["event"], line["fields"]["type"]) == ("ERROR", "job.failed", "SourceError")
    assert read_log(log.read_text()) == [line]
    swath("raster", "--nonsense", cwd=tmp_path, BATCH_LOG_PATH=str(log))
    assert len(read_log(log.read_text())) == 2
    done = swath("raster", "missing.tif", "out.tif", "--log-format", "text", cwd=tmp_path)
    assert done.stderr.startswith("swath: failed: ")


def test_the_log_file_has_json_beside_sentences(tmp_path: Path) -> None:
    """Where stderr is asked to be text, the file of `log_path` has the lines as JSON, of one job after another."""
    log = tmp_path / "swath.jsonl"
    for _ in range(2):
        done = swath("drivers", "GTiff", "--log-format", "text", cwd=tmp_path, BATCH_LOG_PATH=str(log))
        assert "{" not in done.stderr
    assert [line["event"] for line in read_log(log.read_text())].count("job.completed") == 2


@pytest.mark.parametrize(("asked", "is_json"), [("auto", False), ("json", True)])
def test_on_a_terminal_lines_are_sentences_unless_asked(asked: str, is_json: bool, tmp_path: Path) -> None:
    """Before a terminal a person sits; JSON comes there only when asked for."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "flows", "raster", "missing.tif", "out.tif", "--log-format", asked], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=theirs, stdout=subprocess.DEVNULL, check=False, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert said.startswith("{") is is_json
    assert re.search(r"missing\.tif does not exist", said)


def test_a_log_file_that_cannot_be_written_costs_no_job(tmp_path: Path) -> None:
    """A missing folder or a folder in its place loses the line and raises nothing."""
    append(tmp_path / "no" / "such" / "log", "x")
    append(tmp_path, "x")
    append(Path("/dev/full"), "x")


def test_a_stream_decides_for_auto() -> None:
    """JSON where it is no terminal."""
    with Path(os.devnull).open("w") as nothing:
        assert (wants_json("auto", nothing), wants_json("text", nothing), wants_json("json", nothing)) == (
            True,
            False,
            True,
        )


def test_a_user_s_words_come_once_and_in_order() -> None:
    """Libtiff says the same for each block that it cannot write; other words come through."""
    telling = Telling(DriversJob(resources=Resources(limit_bytes=1)))
    texts = ("File too large.\nFile too large.", "File too large.", "other", "File too large.")
    said = [line.message for text in texts for line in telling.lines({"event": "stderr", "text": text})]
    assert said == ["File too large.", "other", "File too large."]
