"""A batch from its plans to its summary: one failure stops nothing, a rerun does what is missing, the disk is asked before."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from lib.batch import planning
from lib.batch.finished import Finished
from lib.batch.naming import REPORTS, TABLE
from lib.batch.planning import Foreseen
from lib.batch.request import Batch
from lib.batch.run import phases, run_batch
from lib.batch.summary import Reports, Summary, reports_in, row_of
from lib.errors import DestinationBusy, DestinationError, DiskRefused, HostLimitError, SettingsError, UsageError
from lib.jobs import RasterJob
from lib.memory.ledger import entries
from lib.units import MIB
from tests.batch.conftest import is_normalised, write_tile

Made = Callable[..., Batch]
Tiles = Callable[..., list[Path]]


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of the test's own."""
    monkeypatch.setenv("BATCH_LEDGER_PATH", str(tmp_path / "ledger"))
    return tmp_path / "ledger"


def _reports(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / REPORTS).read_text(encoding="utf-8").splitlines()]


def _nothing_left(tmp_path: Path, ledger: Path) -> None:
    assert list((tmp_path / "out").rglob(".*.swath")) == []
    assert entries(ledger) == []


def test_one_broken_file_among_25_stops_no_other(batch: Made, tiles: Tiles, tmp_path: Path, ledger: Path) -> None:
    """Exit 1, 24 done; the broken one is named with its reason; mended, a rerun does it alone, and `--force` all again."""
    files = tiles(25)
    files[7].write_bytes(files[7].read_bytes()[:150])
    heard: list[dict[str, Any]] = []
    summary = run_batch(batch(tmp_path / "in", verify="full"), on_event=heard.append)
    assert (summary.exit_code, dict(summary.counts)) == (1, {"completed": 24, "failed": 1})
    record = summary.to_record()
    assert (record["status"], record["exit_code"], record["error"]["type"]) == ("failed", 1, "BatchFailed")
    assert f"1 of 25 files are not done: {files[7]}: " in record["error"]["message"]
    assert [row["source"] for row in record["failed"]] == [str(files[7])]
    assert len(record["slowest"]) == len(record["heaviest"]) == 5
    for source in files[:7] + files[8:]:
        assert is_normalised(source, tmp_path / "out" / source.name)
    assert not (tmp_path / "out" / "t07.tif").exists()
    assert sorted(each["at"] for each in heard if each["event"] == "planned") == list(range(25))
    assert sorted(each["number"] for each in heard if each["event"] == "file") == list(range(1, 26))
    _files_agree(tmp_path / "out", files, record)
    _nothing_left(tmp_path, ledger)

    write_tile(files[7], seed=7)
    made = {path: path.stat().st_ino for path in (tmp_path / "out").glob("*.tif")}
    again = run_batch(batch(tmp_path / "in", verify="full"))
    assert (again.exit_code, dict(again.counts)) == (0, {"reused": 24, "completed": 1})
    assert {path: path.stat().st_ino for path in made} == made
    assert is_normalised(files[7], tmp_path / "out" / "t07.tif")
    assert [each["status"] for each in _reports(tmp_path / "out")].count("reused") == 24

    (tmp_path / "out" / "t03.tif").write_bytes(b"altered")
    (tmp_path / "out" / "t04.tif").unlink()
    third = run_batch(batch(tmp_path / "in", verify="full"))
    assert (third.exit_code, dict(third.counts)) == (0, {"reused": 23, "completed": 2})
    assert is_normalised(files[3], tmp_path / "out" / "t03.tif")


def _files_agree(out: Path, files: list[Path], record: dict[str, Any]) -> None:
    """The JSON lines have whole reports, the CSV a row of each, both of all files."""
    reports = _reports(out)
    assert sorted(each["number"] for each in reports) == list(range(1, 26))
    done = next(each for each in reports if each["status"] == "completed")
    assert done["verification"]["passed"]
    assert done["plan"]["projected_bytes"] >= done["memory"]["peak_bytes"]
    with (out / TABLE).open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert {row["source"] for row in rows} == {str(each) for each in files}
    failed = next(row for row in rows if row["status"] == "failed")
    assert (failed["number"], failed["exit_code"]) == ("8", "2")
    assert failed["message"]
    whole = next(row for row in rows if row["status"] == "completed")
    assert int(whole["peak_bytes"]) <= int(whole["projected_bytes"]) <= int(whole["limit_bytes"])
    assert record["reports"] == {
        "files": 25, "completed": 24, "failed": 1, "jsonl": str(out / REPORTS), "csv": str(out / TABLE),
    }  # fmt: skip
    assert record["memory"]["budget_bytes"] > 0
    json.dumps(record)


@pytest.mark.slow
def test_a_changed_choice_or_source_is_done_again_and_force_all(batch: Made, tiles: Tiles, tmp_path: Path) -> None:
    """By its own outputs of before a batch is not stopped, though it replaces nothing else."""
    files = tiles(2)
    assert run_batch(batch(*files)).counts == {"completed": 2}
    assert run_batch(batch(*files, scale=5000)).counts == {"completed": 2}
    assert is_normalised(files[0], tmp_path / "out" / "t00.tif", scale=5000)
    write_tile(files[0], seed=9)
    assert run_batch(batch(*files, scale=5000)).counts == {"completed": 1, "reused": 1}
    assert is_normalised(files[0], tmp_path / "out" / "t00.tif", scale=5000)
    assert run_batch(batch(*files, scale=5000, force=True)).counts == {"completed": 2}


@pytest.mark.slow
def test_somebody_elses_file_is_not_replaced(batch: Made, tiles: Tiles, tmp_path: Path) -> None:
    """That file alone fails, but with `overwrite`."""
    files = tiles(2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "t01.tif").write_bytes(b"a map of mine")
    summary = run_batch(batch(*files))
    assert summary.counts == {"completed": 1, "failed": 1}
    assert "t01.tif exists" in summary.failed[0]["message"]
    assert (tmp_path / "out" / "t01.tif").read_bytes() == b"a map of mine"
    assert run_batch(batch(*files, overwrite=True)).counts == {"reused": 1, "completed": 1}


def test_a_file_that_appears_while_one_is_done_is_not_replaced(
    batch: Made, tiles: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the note and the publication: neither by this run nor by the next, whose note is no claim to it."""
    files, output = tiles(1), tmp_path / "out" / "t00.tif"
    note = Finished.note

    def appears(self: Finished, *rest: Any) -> None:
        note(self, *rest)
        output.write_bytes(b"a map of mine")

    with monkeypatch.context() as patched:
        patched.setattr(Finished, "note", appears)
        assert "appeared while the job ran" in run_batch(batch(*files)).failed[0]["message"]
    assert "t00.tif exists" in run_batch(batch(*files)).failed[0]["message"]
    assert output.read_bytes() == b"a map of mine"
    output.unlink()
    assert run_batch(batch(*files)).counts == {"completed": 1}
    output.write_bytes(b"damaged")
    assert run_batch(batch(*files)).counts == {"completed": 1}, "what was ours is made again"


def test_rows_have_choices_of_their_own(batch: Made, tiles: Tiles, tmp_path: Path) -> None:
    """Each file by its row; a row whose choices do not go together fails alone, with its line."""
    tiles(3)
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "source,destination,scale,operation,cog\n"
        "in/t00.tif,x/zero.tif,5000,,\nin/t01.tif,,,,true\nin/t02.tif,,5000,copy,\n",
        encoding="utf-8",
    )
    summary = run_batch(batch(manifest))
    assert summary.counts == {"completed": 2, "failed": 1}
    assert is_normalised(tmp_path / "in" / "t00.tif", tmp_path / "out" / "x" / "zero.tif", scale=5000)
    assert is_normalised(tmp_path / "in" / "t01.tif", tmp_path / "out" / "t01.tif")
    assert summary.failed[0]["message"].startswith("manifest list.csv, line 4: --scale belongs to operation normalise")
    assert run_batch(batch(manifest)).counts == {"reused": 2, "failed": 1}


@pytest.mark.slow
def test_fail_fast_stops_at_the_first_that_fails(batch: Made, tiles: Tiles, tmp_path: Path, ledger: Path) -> None:
    """Of an unusable header nothing is begun; of a block that does not decode what is under way is ended, and no more begun."""
    files = tiles(6, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    whole = files[1].read_bytes()
    files[1].write_bytes(b"no raster")
    summary = run_batch(batch(*files), fail_fast=True)
    assert summary.counts["failed"] == 1
    assert summary.counts["completed"] == 0
    assert summary.counts["not started"] >= 4
    torn = bytearray(whole)
    torn[len(torn) // 2 : len(torn) // 2 + 2000] = bytes(2000)
    files[1].write_bytes(torn)
    summary = run_batch(batch(*files), fail_fast=True)
    assert summary.counts["failed"] == 1
    assert summary.counts["not started"] >= 1
    assert summary.exit_code == 1
    _nothing_left(tmp_path, ledger)
    write_tile(files[1], seed=1)
    assert run_batch(batch(*files), fail_fast=True).exit_code == 0
    for each in files:
        assert is_normalised(each, tmp_path / "out" / each.name)


def test_a_disk_that_cannot_hold_all_is_refused_before(
    batch: Made, tiles: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is needed and what is free; nothing is begun. What is done already needs no more room."""
    files = tiles(3)
    real = os.statvfs

    def small(path: Any) -> Any:
        return SimpleNamespace(f_bavail=20, f_frsize=4096) if str(path) == str(tmp_path / "out") else real(path)

    monkeypatch.setattr(planning.os, "statvfs", small)
    with pytest.raises(DiskRefused) as raised:
        run_batch(batch(*files))
    assert "3 outputs in" in raised.value.message
    assert "80.0 KiB are free there" in raised.value.message
    assert raised.value.needed_bytes > 3 * 4 * 96 * 112
    assert (raised.value.free_bytes, raised.value.exit_code) == (81920, 1)
    assert list((tmp_path / "out").glob("*.tif")) == []
    monkeypatch.undo()
    assert run_batch(batch(*files)).exit_code == 0
    monkeypatch.setattr(planning.os, "statvfs", small)
    assert run_batch(batch(*files)).counts == {"reused": 3}


def test_what_is_larger_than_the_budget_is_refused_at_once(batch: Made, tiles: Tiles, tmp_path: Path) -> None:
    """It would wait for ever: a file by its plan, the others are done; a limit above the budget before anything."""
    [small] = tiles(1)
    large = write_tile(tmp_path / "in" / "large.tif", height=64, width=1_000_000, blockysize=64, compress="deflate")
    choices = {"memory_limit_mb": 160, "host_budget_mb": 160, "operation": "focal", "statistic": "mean", "size": 61}
    summary = run_batch(batch(large, small, **choices))
    assert summary.counts == {"refused": 1, "completed": 1}
    assert "large.tif: needs a limit of at least" in summary.failed[0]["message"]
    with pytest.raises(HostLimitError, match="above the 100"):
        batch(small, memory_limit_mb=500, host_budget_mb=100)


def test_the_limit_may_climb_to_the_highest(batch: Made, tiles: Tiles) -> None:
    """What a file may have in the end is `memory_limit_max_mb`, where that is given, and no more than the budget."""
    files = tiles(1)
    base = batch(*files, memory_limit_mb=100, memory_limit_max_mb=300).job(0)
    assert base.resources.limit_bytes == 300 * MIB
    held = batch(*files, memory_limit_mb=100, memory_limit_max_mb=300, host_budget_mb=200).job(0)
    assert held.resources.limit_bytes == held.resources.limit_max_bytes == 200 * MIB
    assert held.resources.threads == 1


@pytest.mark.slow
def test_a_file_that_cannot_be_written_fails_alone(
    batch: Made, tiles: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of outputs without rights for one; a note that the disk refuses."""
    files = tiles(2)
    note = Finished.note

    def refuses(self: Finished, output: Path, *rest: Any) -> None:
        if output.name == "t00.tif":
            raise OSError(28, "No space left on device")
        note(self, output, *rest)

    monkeypatch.setattr(Finished, "note", refuses)
    summary = run_batch(batch(*files))
    assert summary.counts == {"completed": 1, "failed": 1}
    assert "No space left" in summary.failed[0]["message"]
    assert not (tmp_path / "out" / "t00.tif").exists()


class _Full:
    """A file on a disk that has room for so many bytes more."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self.room, self._file = room, file
        self.fileno, self.truncate = file.fileno, file.truncate

    def write(self, data: bytes) -> int:
        taken = data[: self.room]
        if not taken:
            raise OSError(28, "No space left on device")
        self.room -= len(taken)
        return self._file.write(taken)


def test_a_disk_too_full_for_the_reports_stops_no_batch(batch: Made, tiles: Tiles, tmp_path: Path) -> None:
    """A line is there whole or not at all, at once and in both files; what has none is counted, and makes the batch an error."""
    made, summary = batch(*tiles(3)), Summary(tmp_path, 3)
    rows = [row_of(made, at, None) for at in range(3)]
    paths = tmp_path / REPORTS, tmp_path / TABLE
    with paths[0].open("ab", buffering=0) as lines, paths[1].open("ab", buffering=0) as table:
        disk: Any = _Full(lines, 10**6)
        reports = Reports(disk, table)
        for row, room in zip(rows, (10**6, 30, 10**6), strict=True):
            disk.room = room
            summary.add(row, is_reported=reports.add(row, None))
        assert [json.loads(line)["number"] for line in paths[0].read_text().splitlines()] == [1, 3]
        assert [row["number"] for row in csv.DictReader(paths[1].read_text().splitlines())] == ["1", "2", "3"]
    summary.conclude(1.0)
    assert (summary.exit_code, summary.counts) == (1, {"reused": 3})
    assert summary.error is not None
    assert summary.error.message == f"all files are done, and reports of 1 could not be written to {tmp_path}"
    summary.files = 4
    assert summary.error.hint.startswith(f"{tmp_path / REPORTS} has all reports but 1; ")


def test_two_batches_into_one_folder_are_one_too_many(batch: Made, tiles: Tiles, tmp_path: Path) -> None:
    """The second is refused at once; the first's reports stay."""
    files = tiles(1)
    made = batch(*files)
    with reports_in(tmp_path / "out"), pytest.raises(DestinationBusy, match="another batch writes to"):
        run_batch(made)
    assert run_batch(made).exit_code == 0


@pytest.mark.parametrize(
    ("choices", "error", "words"),
    [
        ({"template": "{nope}.tif"}, UsageError, "has no field {nope}"),
        ({"template": "{stem}"}, UsageError, "no driver for extension"),
        ({"into": "in"}, DestinationError, "is a source|would be found"),
        ({"into": "file"}, DestinationError, "is no folder"),
        ({"operation": "sharpen"}, UsageError, "unknown operation"),
        ({"memory_limit_mb": "2GB"}, SettingsError, "write 2048"),
    ],
)
def test_a_choice_that_cannot_be_is_told_before(
    batch: Made, tiles: Tiles, tmp_path: Path, choices: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Exit 2, and no folder is made for it."""
    tiles(2)
    (tmp_path / "file").touch()
    with pytest.raises(error, match=words):
        batch(tmp_path / "in", **choices)
    assert not (tmp_path / "out").exists()


def test_a_plan_looks_at_outputs_where_they_will_be(batch: Made, tiles: Tiles, tmp_path: Path) -> None:
    """Without the folder, a source of the same name beside it is in nobody's way, and nothing is made."""
    [source] = tiles(1, folder=".")
    made = batch(source, makes_folders=False)
    assert isinstance(made.job(0), RasterJob)
    [found] = list(planning.foresee_all(made))
    assert (found.report, found.is_done) == (None, False)
    assert found.limit_bytes > 0
    assert not (tmp_path / "out").exists()


def test_a_summary_keeps_the_slowest_and_the_heaviest(tmp_path: Path) -> None:
    """Five of each, and no more than twenty that failed, of however many."""
    summary = Summary(tmp_path, 1000)
    for number in range(1000):
        status = "failed" if number % 4 == 0 else "completed"
        row = {"status": status, "seconds": number % 100, "peak_bytes": number, "source": str(number), "message": "m"}
        summary.add(row)
    assert [row["seconds"] for row in summary.slowest] == [99] * 5
    assert [row["peak_bytes"] for row in summary.heaviest] == [999, 998, 997, 995, 994]
    assert len(summary.failed) == 20
    assert summary.exit_code == 1
    assert "250 of 1000 files are not done: 0: m" in summary.to_record()["error"]["message"]


def test_credentials_of_a_url_are_in_no_table(batch: Made, tmp_path: Path) -> None:
    """Sources are told without their passwords, in all that is kept and heard."""
    heard: list[dict[str, Any]] = []
    summary = run_batch(batch("https://me:hunter2@127.0.0.1:9/a.tif"), on_event=heard.append)
    assert summary.exit_code == 1
    texts = [(tmp_path / "out" / name).read_text(encoding="utf-8") for name in (REPORTS, TABLE)]
    assert "hunter2" not in "".join([*texts, json.dumps(heard), json.dumps(summary.to_record())])


def test_a_file_that_needs_more_than_foreseen_climbs(
    batch: Made, tiles: Tiles, tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header does not say what a user's function holds: it ends, waits for a larger share, and is done in the budget."""
    tiles(3)
    large = write_tile(tmp_path / "in" / "t01.tif", height=300, width=300)
    monkeypatch.setattr("lib.batch.run._SAMPLE_SECONDS", 0.02)
    summary = run_batch(
        batch(
            tmp_path / "in", operation="custom", function="tests.batch.functions:hungry_where_large",
            memory_limit_mb=340, host_budget_mb=360,
        )
    )  # fmt: skip
    assert summary.counts == {"completed": 3}
    attempts = {each["source"]: each["attempts"] for each in _reports(tmp_path / "out")}
    limits = [each["limit_bytes"] for each in attempts[str(large)]]
    assert limits[0] < 200 * MIB < 240 * MIB < limits[-1] <= 340 * MIB
    assert all(len(each) == 1 for source, each in attempts.items() if source != str(large))
    held = [admitted for _, admitted, _ in summary.samples]
    assert max(held) <= 360 * MIB
    assert max(resident for _, _, resident in summary.samples) <= 360 * MIB
    assert entries(ledger) == []


def test_as_many_files_at_once_as_fit(
    batch: Made, tiles: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of which one fits alone, then those of which several do, never more than there are cores; large outputs first."""
    tiles(6)
    monkeypatch.setattr("lib.batch.run.cores", lambda: 4)
    made = batch(tmp_path / "in", host_budget_mb=400)
    sizes = [(257, 1), (121, 2), (250, 3), (60, 4), (100, 5), (130, 6)]
    todo = [Foreseen(at, limit * MIB, disk * MIB) for at, (limit, disk) in enumerate(sizes)]
    found = [(count, [each.at for each in files]) for count, files in phases(made, todo)]
    assert found == [(1, [2, 0]), (3, [5, 1]), (4, [4, 3])]
    assert phases(made, []) == []
