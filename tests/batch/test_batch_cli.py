"""`swath batch` as it is typed: exit codes, one JSON object, tables for people, a line of the log for each file."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import cli
from lib.batch.naming import REPORTS
from lib.errors import BatchFailed
from tests.batch.conftest import is_normalised, write_tile
from tests.test_log import read_log, swath

NORMALISE = ("--operation", "normalise", "--memory-limit-mb", "256")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in a folder of its own; its exit code, and what it said on stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_LEDGER_PATH", str(tmp_path / "ledger"))

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["swath", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_a_batch_its_rerun_and_its_plan(run: Run, tmp_path: Path) -> None:
    """The plan writes nothing, the batch does all, the rerun nothing, and says so; the plan then has nothing to do."""
    for number in range(2):
        write_tile(tmp_path / "in" / f"t{number}.tif", seed=number)
    words = ("batch", "raster", "in/*.tif", "--into", "out", *NORMALISE)
    code, out, _ = run(*words, "--plan", "--json")
    plan = json.loads(out)
    assert (code, plan["status"], plan["error"]) == (0, "planned", None)
    assert plan["reports"] == {"planned": 2, "reused": 0, "refused": 0, "failed": 0, "files": 2}
    first = plan["plans"][0]
    assert first["source"] == "in/t0.tif"
    assert first["output"] == str(tmp_path / "out" / "t0.tif")
    assert 0 < first["disk_bytes"] < first["projected_bytes"] <= plan["memory"]["limit_bytes"] == 256 * 2**20
    assert plan["at_once"] >= 1
    assert {each.name for each in tmp_path.iterdir()} <= {"in", "ledger"}

    code, out, err = run(*words)
    assert code == 0
    assert "files     2: 2 completed" in out
    assert f"reports   {tmp_path / 'out' / REPORTS}" in out
    assert "heaviest  in/t" in out
    assert [line["event"] for line in read_log(err)] == ["file.completed"] * 2
    assert is_normalised(tmp_path / "in" / "t0.tif", tmp_path / "out" / "t0.tif")

    code, out, err = run(*words, "--json")
    record = json.loads(out)
    assert (code, record["status"], record["exit_code"], record["error"]) == (0, "completed", 0, None)
    assert (record["reports"]["files"], record["reports"]["reused"]) == (2, 2)
    assert record["seconds"]["planning"] <= record["seconds"]["total"]
    assert [line["event"] for line in read_log(err)] == ["file.reused"] * 2

    code, out, _ = run(*words, "--plan")
    assert code == 0
    assert "0 to do, 2 done before, 0 refused, 0 unusable" in out


def test_a_plan_says_that_the_disk_is_too_small(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the batch would, with the figures."""
    write_tile(tmp_path / "in" / "t.tif")
    words = ("batch", "raster", "in", "--into", "out", *NORMALISE, "--plan")
    monkeypatch.setattr("lib.batch.planning.os.statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096))
    code, out, _ = run(*words, "--host-budget-mb", "256", "--json")
    plan = json.loads(out)
    assert (code, plan["status"], plan["error"]["type"], plan["at_once"]) == (
        1,
        "refused",
        "DiskRefused",
        plan["at_once"],
    )
    assert "4.0 KiB are free there" in plan["error"]["message"]
    code, _, err = run(*words)
    assert code == 1
    assert "4.0 KiB are free there" in err


def test_a_flow_is_given_the_config_and_settings(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a command with --flow no choice is lost, and those that cannot be used are said as flags."""
    from flows import run_batch as module

    write_tile(tmp_path / "in" / "t.tif")
    (tmp_path / "c.yaml").write_text("stall_seconds: 100")
    given: dict[str, Any] = {}

    def flow(**parameters: Any) -> Any:
        given.update(parameters)
        raise BatchFailed("enough", record={"exit_code": 7})

    monkeypatch.setattr("flows.batches.choose_server", lambda: None)
    monkeypatch.setattr("flows.terminal.leave_to_flow", lambda: None)
    monkeypatch.setattr(module.run_batch, "with_options", lambda **_: flow)
    words = ("batch", "raster", "in", "--into", "out", "--flow", "--json", "--config", "c.yaml")
    assert run(*words, *NORMALISE)[0] == 7
    assert given["options"] == {"operation": "normalise", "config": "c.yaml"}
    assert (given["memory_limit_mb"], given["into"], "force" in given) == (256, "out", False)
    code, out, _ = run(*words, "--memory-limit-mb", "2GB")
    assert (code, json.loads(out)["error"]["message"][:22]) == (2, "flag --memory-limit-mb")


def test_an_api_that_is_away_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other commands with --flow say it, by the same code."""
    from flows import run_batch as module

    def flow(**_: Any) -> Any:
        raise RuntimeError("Failed to reach API at http://127.0.0.1:9/api/.\nCheck it.")

    write_tile(tmp_path / "in" / "t.tif")
    monkeypatch.setattr("flows.batches.choose_server", lambda: None)
    monkeypatch.setattr("flows.terminal.leave_to_flow", lambda: None)
    monkeypatch.setattr(module.run_batch, "with_options", lambda **_: flow)
    words = ("batch", "raster", "in", "--into", "out", "--flow", *NORMALISE)
    code, out, err = run(*words, "--json")
    error = json.loads(out)["error"]
    assert (code, error["type"]) == (1, "SwathError")
    assert error["message"].startswith("the Prefect API in PREFECT_API_URL does not answer: Failed to reach API")
    assert "unset PREFECT_API_URL" in error["hint"]
    code, out, err = run(*words)
    assert (code, out, len(err.strip().splitlines())) == (1, "", 1), err


def test_a_plan_says_what_is_refused_and_unusable(run: Run, tmp_path: Path) -> None:
    """First of all, with reasons; exit 1; the outputs of others are planned."""
    write_tile(tmp_path / "in" / "good.tif")
    (tmp_path / "in" / "bad.tif").write_bytes(b"no raster")
    code, out, _ = run("batch", "raster", "in", "--into", "out", *NORMALISE, "--plan", "--json")
    plan = json.loads(out)
    assert (code, plan["status"], plan["error"]["type"]) == (1, "failed", "BatchFailed")
    assert {row["source"]: row["status"] for row in plan["plans"]} == {"in/good.tif": "planned", "in/bad.tif": "failed"}
    assert "1 of 2 files cannot be done" in plan["error"]["message"]
    code, out, _ = run("batch", "raster", "in", "--into", "out", *NORMALISE, "--plan")
    assert code == 1
    assert out.index("in/bad.tif") < out.index("in/good.tif")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("raster", "nowhere/*.tif", "--into", "out"), "no file matches nowhere/*.tif"),
        (("raster", "empty", "--into", "out"), "folder empty has no file of .tif"),
        (("raster", "--into", "out"), "a batch needs files"),
        (("raster", "a.tif"), "--into"),
        (("raster", "a.tif", "--into", "."), "output"),
        (("raster", "a.tif", "a.tif", "--into", "out"), "appears twice"),
        (("raster", "**/*.tif", "--into", "out"), "would be found by **/*.tif the next time"),
        (("raster", "a.tif", "--into", "out", "--template", "{steam}.tif"), "has no field {steam}"),
        (("raster", "list.csv", "--into", "out"), "manifest list.csv: unknown column 'scail'"),
        (("vector", "a.tif", "--into", "out", "--template", "{stem}.xyz"), "no driver for extension '.xyz'"),
        (("rastr", "a.tif", "--into", "out"), "rastr"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """With what was looked for, or what is wrong where; nothing is written."""
    write_tile(tmp_path / "a.tif")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("source,scail\na.tif,1\n", encoding="utf-8")
    before = {each.name for each in tmp_path.iterdir()}
    code, out, _ = run("batch", *words, "--json")
    record: dict[str, Any] = json.loads(out)
    assert (code, record["exit_code"]) == (2, 2)
    assert said in record["error"]["message"]
    assert "\n" not in record["error"]["message"]
    assert {each.name for each in tmp_path.iterdir()} - {"ledger"} == before


def test_layers_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A manifest of two layers, whole program: a GeoPackage and a Shapefile; done again, both are there already."""
    import geopandas as gpd
    import pyogrio
    from shapely.geometry import box

    layer = gpd.GeoDataFrame({"n": range(20)}, geometry=[box(i, 0, i + 1, 1) for i in range(20)], crs="EPSG:3035")
    layer.to_file(tmp_path / "a.gpkg")
    layer.to_file(tmp_path / "b.fgb")
    (tmp_path / "list.jsonl").write_text(
        '{"source": "a.gpkg", "where": "n < 5"}\n{"source": "b.fgb", "destination": "sub/b.shp"}\n', encoding="utf-8"
    )
    words = ("batch", "vector", "list.jsonl", "--into", "out", "--json")
    there = {"BATCH_LEDGER_PATH": str(tmp_path / "ledger")}
    ended = swath(*words, cwd=tmp_path, **there)
    assert (ended.returncode, json.loads(ended.stdout)["reports"]["completed"]) == (0, 2), ended.stdout
    assert pyogrio.read_info(tmp_path / "out" / "a.gpkg")["features"] == 5
    assert pyogrio.read_info(tmp_path / "out" / "sub" / "b.shp")["features"] == 20
    assert json.loads(swath(*words, cwd=tmp_path, **there).stdout)["reports"]["reused"] == 2
    (tmp_path / "out" / "sub" / "b.dbf").unlink()
    again = json.loads(swath(*words, cwd=tmp_path, **there).stdout)["reports"]
    assert (again["reused"], again["completed"]) == (1, 1)


def test_an_interrupt_does_not_say_that_nothing_was_published(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch, files that were done are there."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    write_tile(tmp_path / "in" / "t.tif")
    monkeypatch.setattr("lib.batch.run.run_batch", interrupted)
    code, _, err = run("batch", "raster", "in", "--into", "out", *NORMALISE)
    assert code == 130
    assert "interrupted; files that were done are published, nothing of the others" in err
