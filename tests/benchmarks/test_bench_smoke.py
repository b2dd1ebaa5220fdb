"""The benchmarks run: results are compared, numbers are written. Not that anything is fast."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from rasterio.transform import from_origin

from tests.benchmarks.compare import rasters, vectors
from tests.benchmarks.entries import ENTRIES, Tolerance
from tests.benchmarks.scenes import parcels
from tests.benchmarks.workers import Times, simulated

ROOT = Path(__file__).resolve().parents[2]
RATIOS = ("w1-lzw", "v1")


def _bench(results: Path, *arguments: str) -> tuple[int, str, list[dict]]:
    command = [sys.executable, "-m", "tests.benchmarks.bench", "--size", "small", "--rounds", "1", "--results", results]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.returncode, done.stdout, json.loads((results / "small.json").read_text())["rows"]


@pytest.mark.slow
def test_peers_are_measured_or_said_to_be_missing(tmp_path: Path) -> None:
    """Every peer of two entries has a row: compared and timed where it is installed, else missing by name."""
    # Of what this venv has itself: rasterio's scripts and the readers; the peers' own venv is built by `make bench` alone.
    _, printed, rows = _bench(tmp_path, "--peers", sys.executable, "--only", *RATIOS)
    expected = {(entry.name, peer.name) for entry in ENTRIES if entry.name in RATIOS for peer in entry.peers}
    assert {(row["entry"], row["peer"]) for row in rows} == expected
    timed = {row["peer"]: row for row in rows if row["status"] == "measured"}
    installed = {"codec's limit, all cores", "two-thread rasterio script", "textbook loop"}
    assert installed | {"only reading, Arrow", "geopandas, Arrow"} <= set(timed)
    for row in timed.values():
        assert row["value"] > 0, row
        assert min(row["seconds"]) > 0, row
        assert min(row["peaks_mib"]) > 10, row
        assert any(
            words in row["detail"] for words in ("same to the bit", "parcels", "features read", "bytes encoded")
        ), row
    for row in rows:
        if row["status"] == "MISSING":
            assert f"MISSING: {row['entry']}, {row['peer']}" in printed, printed


@pytest.mark.slow
def test_what_has_no_peer_is_told_in_its_own_units(tmp_path: Path) -> None:
    """Planning has rows with a goal, and the parts that a report tells; swath against itself has ratios; a queue is simulated."""
    _, _, rows = _bench(tmp_path, "--only", "planning", "itself")
    assert all(row["status"] == "measured" for row in rows), rows
    assert {row["entry"] for row in rows if row["goal"]} == {"planning", "itself"}
    assert any("seconds.startup" in row["peer"] for row in rows)
    command = [sys.executable, "-m", "tests.benchmarks.workers", tmp_path / "small" / "scene.tif"]
    queue = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert 0 < queue["probed"] <= queue["chunks"]
    assert all(seconds > 0 for seconds in queue["parts"].values()), queue
    assert queue["seconds"]["4"] <= queue["seconds"]["1"]


def test_a_queue_is_bounded_by_its_workers_or_by_its_writer() -> None:
    """Equal chunks take their number ÷ workers; with a slow writer its sum and the first chunk; the probe is by one alone."""
    assert simulated([Times(1, 1, 2, 0)] * 8, 1, 0) == 32
    assert simulated([Times(1, 1, 2, 0)] * 8, 4, 0) == 8
    assert simulated([Times(1, 1, 2, 0)] * 8, 4, 4) == 16 + 4
    assert simulated([Times(0, 0, 1, 3)] * 8, 4, 0) == 1 + 8 * 3


@pytest.mark.slow
def test_results_that_differ_do_not_count(tmp_path: Path) -> None:
    """The comparison sees one changed pixel, one that is valid in one alone, another codec, and one parcel less."""
    where = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "float32"}
    where |= {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    pixels = np.arange(4096, dtype="float32").reshape(1, 64, 64)
    changed = pixels.copy()
    changed[0, 40, 3] = np.nextafter(changed[0, 40, 3], np.float32(0))
    holed = pixels.copy()
    holed[0, 40, 3] = np.nan
    for name, values, codec in (
        ("a", pixels, "lzw"),
        ("b", pixels, "lzw"),
        ("c", changed, "lzw"),
        ("d", pixels, "zstd"),
        ("e", holed, "lzw"),
    ):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **where, compress=codec) as dataset:
            dataset.write(values)
    verdicts = {name: rasters(tmp_path / "a.tif", tmp_path / f"{name}.tif") for name in "bcde"}
    equal = {name: verdict[0] for name, verdict in verdicts.items()}
    assert equal == {"b": True, "c": False, "d": False, "e": False}, verdicts
    assert rasters(tmp_path / "a.tif", tmp_path / "c.tif", Tolerance(relative=1e-6))[0]
    assert not rasters(tmp_path / "a.tif", tmp_path / "e.tif", Tolerance(absolute=9000))[0]
    assert rasters(tmp_path / "a.tif", tmp_path / "e.tif", Tolerance(share=1e-3))[0]

    parcels(tmp_path / "all.gpkg", 50, "GPKG")
    frame = pyogrio.read_dataframe(tmp_path / "all.gpkg")
    pyogrio.write_dataframe(frame.iloc[::-1], tmp_path / "turned.gpkg")
    pyogrio.write_dataframe(frame.iloc[1:], tmp_path / "less.gpkg")
    assert vectors(tmp_path / "all.gpkg", tmp_path / "turned.gpkg", 5000)[0]
    equal, detail = vectors(tmp_path / "all.gpkg", tmp_path / "less.gpkg", 5000)
    assert not equal, detail


@pytest.mark.slow
def test_batches_are_measured(tmp_path: Path) -> None:
    """Each entry of `batches.py` says its numbers, of a few files."""
    words = ["mixed", "small", "rows", "--files", "3", "--rows", "9", "--folder", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.batches", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "mixed: 3 rasters in",
        "of the budget, ",
        "ms beyond the work",
        "rerun: 3 finished files",
        "rows: 9 planned",
    ):
        assert said in done.stdout
