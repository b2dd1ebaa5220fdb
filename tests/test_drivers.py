"""Driver validation, through the capped child: looked up, tried, and an error where a named one cannot."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import lib.drivers
import lib.raster.drivers
import lib.vector.drivers
from lib.drivers import DriverFacts
from lib.jobs import DriversJob, Resources
from lib.memory.process import Runner
from lib.reports import Report
from lib.units import MIB

RESOURCES = Resources(limit_bytes=400 * MIB)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """One child for the module's jobs: it takes them in turn."""
    with Runner() as made:
        yield made


def _run(runner: Runner, **job: Any) -> Report:
    return runner.run(DriversJob(resources=RESOURCES, **job))


def _by_name(report: Report) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in report.result["drivers"]}


def test_named_drivers_are_tried(runner: Runner) -> None:
    """A raster's, a vector's and a driver of both kinds are created with, reopened and compared."""
    report = _run(runner, names=("GTiff", "COG", "FlatGeobuf", "GPKG"))
    assert report.status == "completed", report.error
    found = _by_name(report)
    assert {name: each["kind"] for name, each in found.items()} == {
        "GTiff": "raster",
        "COG": "raster",
        "FlatGeobuf": "vector",
        "GPKG": "both",
    }
    assert all(each["reads"] and each["creates"] and each["tested"] for each in found.values()), found


def test_names_are_taken_short_or_long_in_any_case(runner: Runner) -> None:
    """GDAL's short and long names, whatever their case, in the order asked for."""
    report = _run(runner, names=("geopackage", "gtiff", "GeoJSON sequence", "cloud OPTIMIZED geotiff generator"))
    assert [each["name"] for each in report.result["drivers"]] == ["GPKG", "GTiff", "GeoJSONSeq", "COG"]


def test_without_names_the_common_drivers_are_told(runner: Runner) -> None:
    """All common drivers are there; what only reads is not said to create; the job stays inside its projection."""
    report = _run(runner)
    assert report.exit_code == 0, report.error
    found = _by_name(report)
    assert {"GTiff", "COG", "PNG", "GPKG", "FlatGeobuf", "ESRI Shapefile", "GeoJSON", "OSM"} <= set(found)
    assert (found["OSM"]["reads"], found["OSM"]["creates"], found["OSM"]["tested"]) == (True, False, False)
    failed = {name: each["detail"] for name, each in found.items() if "failed" in each["detail"]}
    assert set(failed) <= {"netCDF"}, failed  # rasterio does not let it write
    assert report.plan is not None
    assert report.memory.peak_bytes is not None
    assert report.memory.peak_bytes <= report.plan["projected_bytes"] <= 1.5 * report.memory.peak_bytes
    assert report.warnings == []


def test_a_driver_that_is_not_there_fails_with_the_nearest(runner: Runner) -> None:
    """Exit 1, all that cannot are listed, the hint names what was meant, and the others' facts are not lost."""
    report = _run(runner, names=("GTif", "GPKG", "Shapefile"))
    assert (report.status, report.exit_code) == ("failed", 1)
    assert report.error is not None
    assert "GTif is not in this build" in report.error.message
    assert "Shapefile is not in this build" in report.error.message
    assert "GPKG is" not in report.error.message
    assert report.error.hint is not None
    assert "GTiff" in report.error.hint
    assert "ESRI Shapefile" in report.error.hint
    assert [each["name"] for each in report.error.facts["drivers"]] == ["GPKG"]


def test_a_driver_that_must_create_and_only_reads_fails(runner: Runner) -> None:
    """Opening is not enough where an output is to be created."""
    report = _run(runner, names=("OSM",), create=("OSM",))
    assert report.exit_code == 1
    assert report.error is not None
    assert "OSM cannot create" in report.error.message
    assert _run(runner, names=("OSM",)).exit_code == 0


def test_the_sources_own_driver_must_open_it(runner: Runner, tmp_path: Path) -> None:
    """The driver that opens the source is told; a text file, a folder and a missing file are errors of input."""
    raster = tmp_path / "in.tif"
    with rasterio.open(
        raster,
        "w",
        driver="GTiff",
        width=4,
        height=4,
        count=1,
        dtype="uint8",
        crs="EPSG:4326",
        transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as dataset:
        dataset.write(np.ones((1, 4, 4), np.uint8))
    vector = tmp_path / "in.geojson"
    vector.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, '
        '"geometry": {"type": "Point", "coordinates": [1, 2]}}]}'
    )
    for path, driver, kind in ((raster, "GTiff", "raster"), (vector, "GeoJSON", "vector")):
        report = _run(runner, source=str(path), names=("GTiff",), create=("GTiff",))
        assert report.result["source"] == {"path": str(path), "driver": driver, "kind": kind}, report.error
    text = tmp_path / "notes.txt"
    text.write_text("no pixels\n")
    (tmp_path / "empty").mkdir()
    for path in (text, tmp_path / "empty", tmp_path / "none.tif"):
        report = _run(runner, source=str(path))
        assert report.exit_code == 2, path
        assert report.error is not None
        assert report.error.type == "SourceError"
        assert str(path) in report.error.message
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "in.geojson", "in.tif", "notes.txt"]


def test_too_small_a_limit_is_refused_with_one_that_does() -> None:
    """The smallest limit that the refusal names is accepted."""
    with Runner() as runner:
        refused = runner.run(DriversJob(names=("GTiff",), resources=Resources(limit_bytes=64 * MIB)))
        assert (refused.status, refused.exit_code) == ("refused", 137)
        assert refused.error is not None
        assert refused.error.smallest_limit_mb is not None
        limit = refused.error.smallest_limit_mb * MIB
        again = runner.run(DriversJob(names=("GTiff",), resources=Resources(limit_bytes=limit)))
        assert again.status == "completed", again.error


def test_a_driver_that_fails_its_trial_does_not_create(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the look-up says is not believed where creating, reopening or comparing goes wrong."""

    def fail(name: str) -> str:
        raise ValueError(f"{name} came back\n as something else")

    monkeypatch.setattr(lib.vector.drivers, "attempt", fail)
    halves = {"raster": lib.raster.drivers, "vector": lib.vector.drivers}
    facts = lib.drivers._tried(lib.drivers.DriverFacts("GPKG", "GeoPackage", "both", reads=True, creates=True), halves)
    assert (facts.reads, facts.creates, facts.tested) == (True, False, False)
    assert "vector: its trial failed: GPKG came back as something else" in facts.detail
    assert "raster: created, reopened, equal" in facts.detail


@pytest.mark.parametrize(
    ("name", "creates", "writes"),
    [
        ("GTiff", True, True),
        ("GPKG", True, True),
        ("FlatGeobuf", True, True),
        ("PNG", True, True),
        ("GIF", True, False),
        ("GTiff", False, False),
    ],
)
def test_what_the_build_creates_is_not_what_swath_writes(name: str, creates: bool, writes: bool) -> None:
    """A GIF can be created by this build, and no job has one as its output."""
    assert DriverFacts(name, name, kind="raster", reads=True, creates=creates).swath_writes is writes
