"""Adding to a GeoPackage: rows or a layer, to a copy that is published whole; and outputs without an index."""

import shutil
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from conftest_vector import make_job, parcels, prepared, room, solid
from pydantic import ValidationError

from lib.errors import DestinationError, DiskRefused, OutputError, SourceError
from lib.jobs import Resources, VectorJob, VerifyJob
from lib.request import vector_job
from lib.run import run_published
from lib.vector import verify
from lib.vector.sinks import existing
from lib.vector.verify import read_provenance

LEAST = 5000.0


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A GeoPackage with parcels and with another layer."""
    path = tmp_path / "target.gpkg"
    solid(parcels(60)).to_file(path, layer="parcels", geometry_type="MultiPolygon")
    geopandas.GeoDataFrame({"k": [1, 2]}, geometry=[shapely.Point(0, 0)] * 2, crs="EPSG:4326").to_file(
        path, layer="wells"
    )
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """More parcels, in a layer of the same name."""
    path = tmp_path / "more.gpkg"
    solid(parcels(90, seed=8)).to_file(path, layer="parcels", geometry_type="MultiPolygon")
    return path


@pytest.mark.parametrize("verify", ["basic", "full"])
def test_rows_are_added_to_the_layer_of_that_name(verify: str, source: Path, target: Path) -> None:
    """What was there stays, what is kept comes behind it; counts of all layers are checked."""
    before = geopandas.read_file(target, layer="parcels")
    report = run_published(make_job(source, target, append=True, min_area_sqm=LEAST, verify=verify))
    assert report.status == "completed", report.error
    after = geopandas.read_file(target, layer="parcels")
    assert report.result["features_before"] == len(before)
    assert len(after) == len(before) + report.result["features_kept"] > len(before)
    assert after[: len(before)].equals(before)
    assert set(after["n"][len(before) :]) < set(range(90))
    assert len(geopandas.read_file(target, layer="wells")) == 2
    names = {each.name for each in report.verification.checks if each.passed}
    assert {"count", "other layers"} <= names
    assert "membership" in names or verify == "basic"
    with closing(sqlite3.connect(target)) as database:
        indexed = database.execute("SELECT COUNT(*) FROM rtree_parcels_geom").fetchone()[0]
    assert indexed == len(after)
    assert read_provenance(target) is None
    assert not [each for each in target.parent.iterdir() if each.name.startswith((".target", "target.gpkg-"))]


@pytest.mark.parametrize(("name", "choices"), [("parcels.shp", {}), ("parcels.gpkg", {"repair": True})])
def test_what_becomes_multi_is_added_to_what_it_made(
    name: str, choices: dict[str, Any], run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """A layer that is declared of polygons is written as multipolygons, and may be so again."""
    frame = parcels(30)
    frame[frame.geom_type == "Polygon"].to_file(tmp_path / name)
    first = run_job(tmp_path / name, "new.gpkg", **choices)
    shutil.copy(first.output, tmp_path / "target.gpkg")
    again = run_job(tmp_path / name, "target.gpkg", append=True, **choices)
    assert again.outcome.result["features_before"] == first.outcome.result["features_kept"] > 0
    assert all(check.passed for check in again.outcome.checks)


def test_a_layer_of_another_name_is_added(source: Path, target: Path, tmp_path: Path) -> None:
    """The file has one layer more; where there is no file yet, there is one then."""
    geopandas.read_file(source).to_crs(32614).to_file(tmp_path / "other.gpkg", layer="fields", geometry_type="Unknown")
    report = run_published(make_job(tmp_path / "other.gpkg", target, append=True))
    assert report.status == "completed", report.error
    assert {name for name, _ in pyogrio.list_layers(target)} == {"parcels", "wells", "fields"}
    assert len(geopandas.read_file(target, layer="fields")) == report.result["features_kept"]
    new = run_published(make_job(source, tmp_path / "new.gpkg", append=True))
    assert new.status == "completed", new.error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="value"), "value is missing in more.gpkg"),
        (lambda frame: frame.assign(extra=1), "extra is only in more.gpkg"),
        (lambda frame: frame.assign(value="x"), "value is OFTReal, not OFTString"),
        (lambda frame: frame.to_crs(32614), "its CRS is EPSG:4326, not EPSG:32614"),
        (lambda frame: frame.set_geometry(frame.centroid), "its geometries are MultiPolygon, not Point"),
    ],
)
def test_a_layer_that_is_otherwise_is_refused(
    change: Callable[[Any], Any], words: str, target: Path, tmp_path: Path
) -> None:
    """Fields, types, CRS and geometries have to agree: what does not is named, and the file stays as it was."""
    with warnings.catch_warnings(action="ignore"):
        frame = change(solid(parcels(20)))
        kind = "Point" if (frame.geom_type == "Point").all() else "MultiPolygon"
        frame.to_file(tmp_path / "more.gpkg", layer="parcels", geometry_type=kind)
    before = target.read_bytes()
    report = run_published(make_job(tmp_path / "more.gpkg", target, append=True))
    assert report.exit_code == 2
    assert report.error is not None
    assert f"layer parcels of target.gpkg cannot be added to: {words}" in report.error.message
    assert target.read_bytes() == before


def test_a_file_that_changes_meanwhile_is_left_alone(
    source: Path, target: Path, run_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that another program wrote after the copy was made would be lost: nothing is published."""
    copied = existing.copied

    def meddled(path: Path, to: Path) -> Any:
        found = copied(path, to)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE theirs (x)")
        return found

    monkeypatch.setattr("lib.vector.sinks.gpkg.copied", meddled)
    with pytest.raises(OutputError, match=r"target\.gpkg was changed by another program"):
        run_job(source, target.name, append=True)


def test_what_cannot_be_added_to_is_refused(source: Path, target: Path, tmp_path: Path) -> None:
    """Other formats, a file that is no GeoPackage, one that is open with changes, and overwrite besides."""
    resources = Resources(limit_bytes=2**30)
    with pytest.raises(ValidationError, match="append adds to the destination, which overwrite would replace"):
        VectorJob(source="a", destination="b.gpkg", append=True, overwrite=True, resources=resources)
    with pytest.raises(ValidationError, match=r"append is for a GeoPackage \(.gpkg\)"):
        VectorJob(source="a", destination="b.fgb", driver="FlatGeobuf", append=True, resources=resources)
    (tmp_path / "text.gpkg").write_text("no database, whatever its name says" * 100)
    with pytest.raises(DestinationError, match=r"text\.gpkg is no GeoPackage that can be added to"):
        prepared(make_job(source, tmp_path / "text.gpkg", append=True))
    (tmp_path / "target.gpkg-wal").write_bytes(b"changes")
    with pytest.raises(DestinationError, match="has a log beside it"):
        vector_job(str(source), str(target), append=True)


def test_the_copy_is_in_the_plan(source: Path, target: Path) -> None:
    """Disk for the whole file is planned, and a disk without room for it is refused."""
    plain = prepared(make_job(source, target.with_name("new.gpkg")))
    work = prepared(make_job(source, target, append=True))
    assert work.first().disk_bytes == plain.first().disk_bytes + target.stat().st_size
    with pytest.raises(DiskRefused):
        prepared(make_job(source, target, append=True), room(disk_free_bytes=target.stat().st_size)).first()


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb", "out.parquet", "out.geojson", "out.shp"])
def test_without_an_index(name: str, source: Path, run_job: Callable[..., Any]) -> None:
    """The same features come out, in the source's order, without an index and without its memory in the plan."""
    done = run_job(source, name, no_index=True, min_area_sqm=LEAST)
    terms = done.plan.terms
    wanted = geopandas.read_file(run_job(source, "all.gpkg", min_area_sqm=LEAST).output)["n"].tolist()
    read = geopandas.read_parquet if name.endswith("parquet") else geopandas.read_file
    assert read(done.output)["n"].tolist() == wanted
    if name == "out.gpkg":
        assert terms["index at the end"] == 0
        with closing(sqlite3.connect(done.output)) as database:
            assert not database.execute("SELECT 1 FROM sqlite_master WHERE name LIKE 'rtree%'").fetchall()
    if name == "out.fgb":
        assert terms["index while writing"] == terms["index at the end"] == 0
        assert not pyogrio.read_info(done.output)["capabilities"]["fast_spatial_filter"]
    if name == "out.parquet":
        assert pq.read_schema(done.output).names == ["n", "name", "value", "geom"]
    shutil.rmtree(done.output.parent)


def test_of_several_layers_verification_asks_for_a_report(source: Path, target: Path) -> None:
    """`swath verify` has no --layer: which one it is, the report says."""
    report = run_published(make_job(source, target, append=True, min_area_sqm=LEAST))
    assert report.result is not None
    assert len(pyogrio.list_layers(target)) > 1
    with pytest.raises(SourceError, match="has 2 layers") as caught:
        verify.prepare(
            VerifyJob(source=str(source), output=str(target), resources=Resources(limit_bytes=2**31)), room()
        )
    assert "--report" in caught.value.hint
