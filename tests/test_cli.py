"""The terminal: one clear line for each bad input, its exit code, one JSON object, nothing left behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from rasterio.transform import from_origin
from shapely.geometry import box

from flows import cli, terminal
from lib.memory.proc import started_with
from lib.reports import MemoryRecord, Report
from lib.units import MIB

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., tuple[int, dict[str, Any], str]]
NORMALISE = ("--operation", "normalise")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command with --json in a folder of its own; its exit code, its JSON, and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, dict[str, Any], str]:
        monkeypatch.setattr("sys.argv", ["swath", *words, "--json"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(captured.out), captured.err

    return call


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """600 x 700 uint16 with nodata 0."""
    path = tmp_path / "scene.tif"
    pixels = np.random.default_rng(3).integers(0, 12000, (1, 600, 700), dtype="uint16")
    with rasterio.open(
        path, "w", driver="GTiff", width=700, height=600, count=1, dtype="uint16", nodata=0, crs="EPSG:32633",
        transform=from_origin(500000, 5000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


@pytest.fixture
def parcels(tmp_path: Path) -> Path:
    """Sixty squares of 10 m to 600 m in UTM, layer `parcels`."""
    path = tmp_path / "parcels.gpkg"
    squares = [
        box(500000 + 1000 * n, 5000000, 500000 + 1000 * n + 10 * (n + 1), 5000000 + 10 * (n + 1)) for n in range(60)
    ]
    gpd.GeoDataFrame({"number": range(60)}, geometry=squares, crs="EPSG:32633").to_file(path, layer="parcels")
    return path


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "out")))


def test_a_raster_job_completes_with_one_report(run: Run, scene: Path, tmp_path: Path) -> None:
    """The report has every fixed key, its measured peak is within the projection and the limit, and the file is there."""
    code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE, "--memory-limit-mb", "256")
    assert (code, report["status"]) == (0, "completed"), report["error"]
    assert report["memory"]["peak_bytes"] <= report["plan"]["projected_bytes"] <= report["memory"]["cap"]["bytes"]
    assert report["output"] == {
        "path": str(tmp_path / "out.tif"),
        "bytes": (tmp_path / "out.tif").stat().st_size,
        "driver": "GTiff",
    }
    assert report["verification"]["passed"]
    keys = {
        "status",
        "exit_code",
        "error",
        "job",
        "plan",
        "memory",
        "result",
        "output",
        "verification",
        "attempts",
        "seconds",
    }
    assert keys <= set(report)
    assert set(report["seconds"]) == {"total", "startup", "work", "verify"}
    assert _left(tmp_path) == ["out.tif"]


def test_a_vector_job_completes(run: Run, parcels: Path, tmp_path: Path) -> None:
    """Squares of at least 5,000 m² are those with an edge of 80 m and more: 53 of 60."""
    code, report, _ = run("vector", "parcels.gpkg", "out.gpkg", "--min-area-sqm", "5000")
    assert (code, report["status"]) == (0, "completed"), report["error"]
    assert report["result"]["features_read"] == 60
    assert report["result"]["features_kept"] == 53
    assert _left(tmp_path) == ["out.gpkg"]
    assert len(gpd.read_file(tmp_path / "out.gpkg")) == 53


@pytest.mark.slow
def test_full_verification_on_request(run: Run, scene: Path, tmp_path: Path) -> None:
    """`--verify full` makes its checks in a child of its own before the output is published."""
    code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE, "--verify", "full")
    assert (code, report["verification"]["level"]) == (0, "full"), report["error"]
    assert report["seconds"]["verify"] > 0


@pytest.mark.slow
def test_verify_on_its_own_reads_what_the_output_says_of_itself(run: Run, scene: Path, tmp_path: Path) -> None:
    """`swath verify` passes on our output by its own provenance, and fails when a pixel has been changed."""
    run("raster", "scene.tif", "out.tif", *NORMALISE)
    code, report, _ = run("verify", "scene.tif", "out.tif")
    assert (code, report["verification"]["passed"]) == (0, True), report["error"]
    with rasterio.open(tmp_path / "out.tif", "r+") as dataset:
        pixels = dataset.read(1)
        dataset.write(np.where(np.isnan(pixels), np.nan, 1 - pixels), 1)
    code, report, _ = run("verify", "scene.tif", "out.tif")
    assert (code, report["error"]["type"]) == (1, "VerificationFailed")


def test_profile_suggests_a_limit(run: Run, scene: Path, parcels: Path) -> None:
    """Both kinds of source are profiled; the suggestion is above the measured peak."""
    for source in ("scene.tif", "parcels.gpkg"):
        code, report, _ = run("profile", source)
        assert code == 0, report["error"]
        assert report["result"]["suggested_limit_mb"] * 2**20 >= 1.2 * report["memory"]["peak_bytes"]


def test_plan_writes_nothing(run: Run, scene: Path, parcels: Path, tmp_path: Path) -> None:
    """A plan's terms sum to its projection, and no file appears."""
    before = sorted(path.name for path in tmp_path.iterdir())
    for words in (
        ("plan", "raster", "scene.tif", *NORMALISE),
        ("plan", "vector", "parcels.gpkg", "--min-area-sqm", "1"),
    ):
        code, report, _ = run(*words)
        assert (code, report["status"]) == (0, "planned"), report["error"]
        assert sum(report["plan"]["terms"].values()) == report["plan"]["projected_bytes"]
        assert report["plan"]["disk_free_bytes"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_config_names_origins(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value is shown with the layer that it came from."""
    (tmp_path / "swath.yaml").write_text("chunk_rows: 77\nmemory_limit_mb: 100\n")
    monkeypatch.setenv("GDAL_CACHEMAX", "64")
    code, shown, _ = run("config", "--config", "swath.yaml", "--memory-limit-mb", "300")
    assert code == 0
    settings = {key: (each["value"], each["origin"].split()[0]) for key, each in shown["settings"].items()}
    assert settings["memory_limit_mb"] == (300, "flag")
    assert settings["chunk_rows"] == (77, "file")
    assert settings["gdal_cachemax"] == (64, "environment")
    assert settings["drift_threshold_mb"] == (100, "default")


def test_a_history_that_cannot_be_used_is_a_warning(
    run: Run, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corrupt history file costs a warning, never the job; a sound one shows what was projected and measured."""
    monkeypatch.setenv("BATCH_HISTORY_PATH", str(tmp_path / "bad.sqlite"))
    (tmp_path / "bad.sqlite").write_text("no database" * 500)
    code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE)
    assert code == 0, report["error"]
    assert any("history_path" in warning for warning in report["warnings"])
    code, shown, _ = run("profile", "--history")
    assert (code, shown["history"]) == (0, [])
    assert "cannot be read" in shown["warnings"][0]
    monkeypatch.setenv("BATCH_HISTORY_PATH", "off")
    assert run("profile", "--history")[1]["warnings"] == ["history_path is off"]
    monkeypatch.setenv("BATCH_HISTORY_PATH", str(tmp_path / "good.sqlite"))
    _, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE, "--overwrite")
    code, shown, _ = run("profile", "--history")
    (past,) = shown["history"]
    assert shown["warnings"] == []
    assert (code, past["kind"], past["operation"], past["dtype"]) == (0, "raster", "normalise", "uint16")
    assert past["projected_bytes"] == report["plan"]["projected_bytes"]
    assert past["measured_bytes"] == report["memory"]["peak_bytes"]


def test_clean_lists_and_removes_dead_leftovers(run: Run, tmp_path: Path) -> None:
    """A staging folder without a living owner is removed, and said."""
    (tmp_path / ".x.tif.swath").mkdir()
    (tmp_path / ".x.tif.swath" / "x.tif").write_bytes(b"half")
    (tmp_path / ".x.tif.swath" / "owner").write_text(json.dumps({"host": socket.gethostname(), "pid": 1}))
    (tmp_path / ".notours.swath").mkdir()
    (tmp_path / ".notours.swath" / "keep").write_bytes(b"somebody else's")
    code, shown, _ = run("clean", ".")
    assert code == 0
    assert [each["removed"] for each in shown["leftovers"]] == [True]
    assert not (tmp_path / ".x.tif.swath").exists()
    assert (tmp_path / ".notours.swath" / "keep").exists()


def _bad_inputs(folder: Path) -> None:
    (folder / "text.tif").write_text("this is no raster\n" * 10)
    (folder / "text.gpkg").write_text("this is no vector\n" * 10)
    (folder / "folder").mkdir()
    (folder / "exists.tif").write_bytes(b"precious")
    (folder / "broken.yaml").write_text("memory_limit_mb: [1\n")
    (folder / "unknown.yaml").write_text("memory_limt_mb: 1\n")
    (folder / "negative.yaml").write_text("memory_limit_mb: -1\n")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("raster missing.tif out.tif --operation normalise", 2, "missing.tif"),
        ("raster folder out.tif --operation normalise", 2, "folder"),
        ("raster text.tif out.tif --operation normalise", 2, "text.tif"),
        ("raster parcels.gpkg out.tif --operation normalise", 2, "swath vector"),
        ("vector scene.tif out.gpkg", 2, "swath raster"),
        ("vector text.gpkg out.gpkg", 2, "text.gpkg"),
        ("vector missing.gpkg out.gpkg", 2, "missing.gpkg"),
        ("raster scene.tif exists.tif", 2, "--overwrite"),
        ("raster scene.tif scene.tif --overwrite", 2, "source itself"),
        ("raster scene.tif nowhere/out.tif", 2, "nowhere"),
        ("raster scene.tif /proc/out.tif", 2, "/proc"),
        ("raster scene.tif out.xyz", 2, ".xyz"),
        ("vector parcels.gpkg out.dxf", 2, ".dxf"),
        ("raster scene.tif out.tif --memory-limit-mb 12 --operation normalise", 137, "12 MiB"),
        ("vector parcels.gpkg out.gpkg --memory-limit-mb 12", 137, "12 MiB"),
        ("raster scene.tif out.tif --memory-limit-mb 0", 2, "memory_limit_mb"),
        ("raster scene.tif out.tif --memory-limit-mb -5", 2, "memory_limit_mb"),
        ("raster scene.tif out.tif --memory-limit-mb lots", 2, "memory_limit_mb"),
        ("raster scene.tif out.tif --memory-limit-mb 2GB", 2, "write 2048"),
        ("raster scene.tif out.tif --memory-limit-mb 99999999", 2, "this host"),
        ("raster scene.tif out.tif --threads 0", 2, "threads"),
        ("raster scene.tif out.tif --block-size 16384 --memory-limit-mb 256 --operation normalise", 137, "block_size"),
        ("raster scene.tif out.tif --config broken.yaml", 2, "broken.yaml"),
        ("raster scene.tif out.tif --config none.yaml", 2, "none.yaml"),
        ("raster scene.tif out.tif --config unknown.yaml", 2, "did you mean memory_limit_mb"),
        ("raster scene.tif out.tif --config negative.yaml", 2, "negative.yaml"),
        ("raster scene.tif out.tif --bands 2 --operation normalise", 2, "band"),
        ("raster scene.tif out.tif --multiply 2", 2, "--operation rescale --multiply 2"),
        ("raster scene.tif out.tif --scale 10000", 2, "--operation normalise --scale 10000"),
        ("raster scene.tif out.tif --scale 10000 --flow", 2, "--operation normalise --scale 10000"),
        ("raster scene.tif out.tif --add -1.5", 2, "--operation rescale --add -1.5"),
        ("raster scene.tif out.tif --clip -1 2", 2, "--operation normalise --clip -1 2"),
        ("raster scene.tif out.tif --function a.b:c", 2, "--operation custom --function a.b:c"),
        ("raster scene.tif out.tif --operation rescale --scale 5", 2, "--scale belongs to operation normalise, not to rescale"),
        ("raster scene.tif out.tif --operation custom", 2, "function"),
        ("raster scene.tif out.tif --bands 1,x", 2, "4,3,2"),
        ("raster scene.tif out.tif --nodata much", 2, "--nodata: 'much' is no number, and not nan"),
        ("raster scene.tif out.tif --creation-option FOO=1", 2, "--creation-option: 'FOO=1' is none of BIGTIFF"),
        ("raster scene.tif out.tif --creation-option QUALITY=90", 2, "creation option QUALITY is of JPEG"),
        ("raster scene.tif out.png --cog", 2, "--cog is of a GeoTIFF, and the destination is a PNG"),
        ("raster scene.tif out.jpg --compress zstd", 2, "--compress is of a GeoTIFF, and the destination is a JPEG"),
        ("raster scene.tif out.png --level 10", 2, "a PNG has levels 1 to 9"),
        ("raster scene.tif out.jpg --level 3", 2, "creation option QUALITY=90"),
        ("raster scene.tif out.png --operation normalise", 2, "--dtype uint8"),
        ("raster scene.tif out.tif --operation warp --to-crs EPSG:999999", 2, "EPSG:999999 is no CRS that PROJ knows"),
        ("raster scene.tif out.tif --scale 0 --operation normalise", 2, "scale"),
        ("raster scene.tif out.tif --operation custom --function nowhere:f", 2, "nowhere"),
        ("raster scene.tif out.tif --bogus 1", 2, "bogus"),
        ("raster scene.tif", 2, "DESTINATION"),
        ("vector parcels.gpkg out.gpkg --layer other", 2, "parcels"),
        ("vector two.gpkg out.gpkg", 2, "roads"),
        ("vector parcels.gpkg out.gpkg --min-area-sqm -3", 2, "--min-area-sqm: "),
        ("drivers NoSuchDriver", 1, "NoSuchDriver"),
        ("profile missing.tif", 2, "missing.tif"),
        ("verify scene.tif none.tif", 2, "none.tif"),
        ("clean nowhere", 2, "nowhere"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(
    words: str, code: int, says: str, run: Run, scene: Path, parcels: Path, tmp_path: Path
) -> None:
    """The exit code, one line with the file or setting, a hint; the folder is as it was."""
    _bad_inputs(tmp_path)
    for layer in ("roads", "rivers"):
        gpd.read_file(parcels).to_file(tmp_path / "two.gpkg", layer=layer)
    before = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    ended, report, _ = run(*words.split())
    assert ended == code, report
    assert report["exit_code"] == code
    line = report["error"]["message"] + "; " + report["error"]["hint"]
    assert says in line
    assert "\n" not in line
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == before


def test_the_smallest_limit_works_when_typed_back(run: Run, scene: Path) -> None:
    """What a refusal names is accepted, for the same job."""
    _, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE, "--memory-limit-mb", "12")
    smallest = report["error"]["smallest_limit_mb"]
    code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE, "--memory-limit-mb", str(smallest))
    assert code == 0, report["error"]


def test_an_empty_layer_is_a_valid_empty_output(run: Run, parcels: Path, tmp_path: Path) -> None:
    """Nothing in, nothing out: count 0, exit 0, a layer with the same columns."""
    gpd.read_file(parcels).iloc[:0].to_file(tmp_path / "empty.gpkg", layer="parcels")
    code, report, _ = run("vector", "empty.gpkg", "out.gpkg", "--min-area-sqm", "1")
    assert code == 0, report["error"]
    assert report["result"]["features_kept"] == 0
    assert list(gpd.read_file(tmp_path / "out.gpkg").columns) == ["number", "geometry"]


def test_a_truncated_raster_fails(run: Run, scene: Path, tmp_path: Path) -> None:
    """Half a file is never a partial output."""
    (tmp_path / "half.tif").write_bytes(scene.read_bytes()[: scene.stat().st_size // 2])
    code, report, _ = run("raster", "half.tif", "out.tif", *NORMALISE)
    assert code in {1, 2}
    assert "half.tif" in report["error"]["message"]
    assert _left(tmp_path) == []


def test_a_corrupt_page_fails(run: Run, tmp_path: Path) -> None:
    """A GeoPackage with a destroyed page is never a partial output."""
    squares = [box(n, 0, n + 0.5, 0.5) for n in range(20000)]
    path = tmp_path / "damaged.gpkg"
    gpd.GeoDataFrame({"name": ["parcel"] * 20000}, geometry=squares, crs="EPSG:32633").to_file(path, layer="p")
    with sqlite3.connect(path) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'p'").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    page = root + 200
    content[page * size : (page + 1) * size] = b"\xff" * size
    path.write_bytes(content)
    code, report, _ = run("vector", "damaged.gpkg", "out.gpkg", "--min-area-sqm", "0.01")
    assert code == 1, report
    assert report["error"]["type"] == "DataError"
    assert "damaged.gpkg" in report["error"]["message"]
    assert _left(tmp_path) == []


def test_a_report_that_is_none_of_ours_is_an_error(run: Run, scene: Path, tmp_path: Path) -> None:
    """`--report` with a JSON object of another shape: exit 2, one line."""
    run("raster", "scene.tif", "out.tif", *NORMALISE)
    (tmp_path / "odd.json").write_text('{"job": 5}')
    code, report, _ = run("verify", "scene.tif", "out.tif", "--report", "odd.json")
    assert (code, report["error"]["type"]) == (2, "UsageError")


def test_the_unexpected_is_one_json_object_too(run: Run, monkeypatch: pytest.MonkeyPatch, scene: Path) -> None:
    """Whatever goes wrong in here: exit 1, one object; the traceback is in it with --debug only."""

    def broken(*_: object, **_given: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(cli, "run_published", broken)
    code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE)
    assert (code, report["status"]) == (1, "failed")
    assert "a defect" in report["error"]["message"]
    assert report["job"]["kind"] == "raster"
    assert "traceback" not in report["error"]
    assert "a defect" in run("raster", "scene.tif", "out.tif", "--debug")[1]["error"]["traceback"]


def test_a_child_s_traceback_is_shown_with_debug_only(run: Run, scene: Path) -> None:
    """An error of the capped child, as JSON."""
    words = ("raster", "scene.tif", "out.tif", "--operation", "custom", "--function", "json:dumps")
    assert "Traceback (most" not in json.dumps(run(*words)[1])
    assert "Traceback (most recent call last)" in run(*words, "--debug")[1]["error"]["traceback"]


def test_a_dangling_link_is_a_destination_that_exists(run: Run, scene: Path, tmp_path: Path) -> None:
    """It is said beforehand, not after the work."""
    (tmp_path / "out.tif").symlink_to(tmp_path / "nowhere.tif")
    code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE)
    assert (code, report["plan"]) == (2, None)
    assert "--overwrite" in report["error"]["hint"]


def test_a_replaced_files_sidecars_go_with_it(run: Run, scene: Path, tmp_path: Path) -> None:
    """A mask and statistics of the former file do not speak of the new one; a warning names them."""
    run("raster", "scene.tif", "out.tif", *NORMALISE)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        before = dataset.read(masked=True)
    (tmp_path / "out.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>0.5</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE, "--overwrite")
    assert code == 0, report["error"]
    assert any("out.tif.aux.xml" in warning for warning in report["warnings"])
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.isnan(dataset.nodata)
        np.testing.assert_array_equal(dataset.read(masked=True).mask, before.mask)


def test_a_database_with_a_live_log_is_not_replaced(run: Run, parcels: Path, tmp_path: Path) -> None:
    """SQLite would replay the old log into the new file: exit 2, naming the log, the file as it was."""
    (tmp_path / "out.gpkg").write_bytes(parcels.read_bytes())
    connection = sqlite3.connect(tmp_path / "out.gpkg")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE other (a)")
    connection.commit()
    code, report, _ = run("vector", "parcels.gpkg", "out.gpkg", "--overwrite")
    assert code == 2
    assert "out.gpkg-wal" in report["error"]["message"]
    assert connection.execute("SELECT COUNT(*) FROM parcels").fetchone() == (60,)
    connection.close()


def test_a_full_disk_is_refused_and_leaves_nothing(run: Run, scene: Path, tmp_path: Path) -> None:
    """Not a byte free at the destination: refused, exit 1, no staging folder left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=False).returncode:
        pytest.skip("NOT RUN: a small tmpfs cannot be mounted here (needs root)")
    try:
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        code, report, _ = run("raster", "scene.tif", "disk/out.tif", *NORMALISE)
        assert (code, report["status"]) == (1, "refused")
        assert [path.name for path in disk.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.flow
@pytest.mark.slow
def test_the_same_words_run_as_a_flow(run: Run, scene: Path, parcels: Path, tmp_path: Path, prefect_api: None) -> None:
    """`--flow` takes every command's defaults, verifies fully, and prints the same report."""
    code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE, "--flow")
    assert (code, report["verification"]["level"]) == (0, "full"), report["error"]
    code, report, _ = run("vector", "parcels.gpkg", "out.gpkg", "--min-area-sqm", "5000", "--flow")
    assert (code, report["result"]["features_kept"]) == (0, 53), report["error"]
    code, report, _ = run("raster", "missing.tif", "out2.tif", "--flow")
    assert (code, report["error"]["type"]) == (2, "SourceError")
    code, report, _ = run("verify", "scene.tif", "out.tif", "--flow")
    assert (code, report["verification"]["passed"]) == (0, True), report["error"]
    code, report, _ = run("profile", "parcels.gpkg", "--chunks", "3", "--flow")
    assert (code, report["job"]["sample_chunks"]) == (0, 3), report["error"]


@pytest.mark.flow
@pytest.mark.slow
def test_a_flow_that_is_interrupted_is_cancelled(
    run: Run, scene: Path, prefect_api: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's state is Cancelled, as the report's status: Prefect itself would call it Crashed."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.transform_raster.make", interrupted)
    code, report, _ = run("raster", "scene.tif", "interrupted.tif", "--flow")
    assert (code, report["status"]) == (130, "cancelled")
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
    assert runs[0].parameters["destination"] == "interrupted.tif"
    assert runs[0].state_name == "Cancelled"


@pytest.mark.parametrize(
    "words",
    [
        "raster scene.tif out.tif --memory-limit-mb 2GB",
        "raster scene.tif out.tif --memory-limit-max-mb much",
        "raster scene.tif out.tif --threads 0",
        "raster scene.tif out.tif --max-chunk-mb 1.5",
        "raster scene.tif out.tif --timeout nan",
        "vector parcels.gpkg out.gpkg --chunk-rows ten",
        "verify scene.tif out.tif --memory-limit-mb 2GB",
        "profile scene.tif --threads 0",
    ],
)
def test_a_bad_size_names_its_flag_with_a_flow_too(run: Run, words: str) -> None:
    """Before any flow is run: the same error as without --flow, exit 2."""
    code, report, _ = run(*words.split(), "--flow")
    flag = words.split()[-2]
    assert (code, report["error"]["type"]) == (2, "SettingsError")
    assert report["error"]["message"].startswith(f"flag {flag}: ")


def test_an_api_that_is_away_is_one_line(run: Run, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--flow` with a server that does not answer: told so, and what to do."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        code, report, _ = run("raster", "scene.tif", "out.tif", *NORMALISE, "--flow")
    assert code == 1
    assert "PREFECT_API_URL does not answer" in report["error"]["message"]
    assert "unset PREFECT_API_URL" in report["error"]["hint"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_during_the_imports_is_heard(number: int, code: int, tmp_path: Path) -> None:
    """As soon as it can hear signals, before anything is imported: the right code, one JSON object, one line of the log."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "drivers", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509 - it may be ignored here
    )  # fmt: skip
    status = Path(f"/proc/{process.pid}/status")
    deadline = time.monotonic() + 20
    while not int(status.read_text().split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1:
        assert time.monotonic() < deadline
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert json.loads(out)["status"] == "cancelled"
    assert json.loads(err)["event"] == "job.cancelled"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("raster", "scene.tif", "out.tif", *NORMALISE), 0),
        (("raster", "--operation", "normalise", "scene.tif", "out.tif"), 0),
        (("raster", "missing.tif", "out.tif"), 2),
        (("raster", "scene.tif", "out.tif", "--scale", "2"), 2),
    ],
)
def test_a_child_that_was_started_early_is_used_or_gone(
    words: tuple[str, ...], code: int, scene: Path, tmp_path: Path
) -> None:
    """The whole program: the child that imports beside it does the job; after a usage error it does not stay."""
    ended = subprocess.run(
        [sys.executable, "-m", "flows", *words], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SWATH_TEST_OF": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    deadline = time.monotonic() + 20
    while started_with(
        "SWATH_TEST_OF", str(tmp_path)
    ):  # killed as its parent ends: gone as soon as somebody has reaped it
        assert time.monotonic() < deadline


def test_an_error_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without --json: nothing on stdout, one line on stderr, no traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["swath", "raster", "missing.tif", "out.tif"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert json.loads(captured.err)["message"].startswith("swath: failed: ")


def test_negative_values_are_values(run: Run, scene: Path) -> None:
    """A value may begin with a minus sign."""
    code, report, _ = run(
        "raster", "scene.tif", "out.tif", "--operation", "rescale", "--multiply", "-2", "--add", "-1.5"
    )
    assert code == 0, report["error"]
    assert report["job"]["operation"] == {"name": "rescale", "multiply": -2.0, "add": -1.5, "unscale": False}


def test_the_summary_says_what_memory_was_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    """One line: the largest holders, the unexplained share, and of which size; a leak has a line of its own."""
    attribution = {
        "resident_bytes": 100 * MIB,
        "numpy_bytes": 60 * MIB,
        "tracing_bytes": 0,
        "unexplained_bytes": 5 * MIB,
    }
    leak = {"bytes_per_chunk": 262144.0, "crosses_at_chunk": 173, "lines": []}
    memory = MemoryRecord(attribution=attribution, leak=leak)
    terminal.show_report(Report(status="completed", exit_code=0, memory=memory))
    shown = " ".join(capsys.readouterr().out.split())
    assert "made of numpy 60.0 MiB, unexplained 5.0 MiB (5%), of 100.0 MiB seen" in shown
    assert "leak 256.0 KiB per chunk, past the drift threshold at chunk 173" in shown
