"""Shapefiles written: by geopandas; what they cannot hold is said beforehand or refused; several files are published together."""

import datetime as dt
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from conftest_vector import geod_areas, make_bench, make_job, parcels, prepared, room, solid, verified_again

from lib.errors import DestinationError, DiskRefused, OutputError
from lib.run import run_published
from lib.vector import plan as planning
from lib.vector.ogr import translated
from lib.vector.sinks import shapefile
from lib.vector.sinks.shapefile import Shapefile

THRESHOLD = 2500.0
_BOX = shapely.box(10, 50, 10.01, 50.01)
_LINE = shapely.LineString([(0, 0), (1, 1)])


def _layer(path: Path, shapes: list[Any], geometry_type: str = "Polygon", **columns: Any) -> Path:
    wkb = pa.array([None if each is None else shapely.to_wkb(each, flavor="iso") for each in shapes], pa.binary())
    with warnings.catch_warnings(action="ignore"):
        pyogrio.raw.write_arrow(
            pa.table(columns | {"g": wkb}), path, driver="GPKG", geometry_name="g", geometry_type=geometry_type,
            crs="EPSG:4326", layer="lay",
        )  # fmt: skip
    return path


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32614", "EPSG:2264"])
def test_kept_features_are_read_by_geopandas(crs: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Rows, attributes and geometries are those that geopandas and Geod keep; the full verification agrees."""
    frame = solid(parcels(300, crs=crs)).reset_index(drop=True)
    frame["name"] = [None if n % 4 == 0 else f"straße {n}" for n in frame["n"]]
    frame.to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg", "out.shp", min_area_sqm=THRESHOLD, chunk_rows=50)
    wanted = frame[geod_areas(frame) >= THRESHOLD].reset_index(drop=True)
    found = geopandas.read_file(done.output)
    assert found["n"].tolist() == wanted["n"].tolist()
    assert (
        found["name"].where(found["name"].notna(), None).tolist()
        == wanted["name"].where(wanted["name"].notna(), None).tolist()
    )
    assert shapely.equals(found.geometry.to_numpy(), wanted.geometry.to_numpy()).all()
    assert done.output.with_suffix(".cpg").read_text() == "UTF-8"
    assert all(check.passed for check in done.outcome.checks), done.outcome.checks
    checks = verified_again(
        tmp_path / "a.gpkg", done, make_job(tmp_path / "a.gpkg", done.output, min_area_sqm=THRESHOLD)
    )
    assert checks["membership"]
    assert all(checks.values())


def test_names_are_short_and_distinct() -> None:
    """At most ten bytes, distinct whatever the case; names that fit are kept, letters are not cut in two."""
    sink = object.__new__(Shapefile)
    names = ["averylongfieldname", "averylongfieldnamb", "AVERYLONGF", "short", "ÄÄÄÄÄÄÄÄ", "averylon_1"]
    found = sink.names(names)
    assert found[2:4] == ["AVERYLONGF", "short"]
    assert found[4:] == ["ÄÄÄÄÄ", "averylon_1"]
    assert len({name.lower() for name in found}) == len(names)
    assert max(len(name.encode()) for name in found) <= 10


def test_what_fields_become_is_said_beforehand(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """New names, types that become text, decimals: each in a warning, and true of the file."""
    source = _layer(
        tmp_path / "a.gpkg", [_BOX, None], population_total=pa.array([1, None]), population_town=pa.array([2, 3]),
        seen=pa.array([dt.datetime(2020, 1, 2, 3, 4, 5), None]), day=pa.array([dt.date(2020, 1, 2), None]),  # noqa: DTZ001
        flag=pa.array([True, None]), share=pa.array([0.1, float("inf")]),
        text=pa.array(["", "ä "]),
    )  # fmt: skip
    beforehand = prepared(make_job(source, tmp_path / "out.shp")).first().facts["field_changes"]
    assert "seen (DateTime to String)" in beforehand
    done = run_job(source, "out.shp")
    said = " | ".join(done.outcome.warnings)
    assert "'population_total' is 'population', 'population_town' is 'populati_1'" in said
    assert "seen (DateTime to String)" in said
    assert "15 decimals" in said
    assert "empty texts" in said
    assert "field 'share' that are not finite are null" in said
    assert "though DateTime requested" not in said, "GDAL says it again"
    info = pyogrio.read_info(done.output)
    assert list(info["fields"]) == ["population", "populati_1", "seen", "day", "flag", "share", "text"]
    found = geopandas.read_file(done.output)
    assert found["seen"][0].startswith("2020-01-02T03:04:05")
    assert found["share"].isna().tolist() == [False, True]
    assert found.geometry.isna().tolist() == [False, True]
    assert all(check.passed for check in done.outcome.checks), done.outcome.checks


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pa.array(["x" * 254, "ä" * 128]), "texts of up to 256 bytes"),
        (pa.array([10**18, 1]), "numbers such as 1000000000000000000"),
        (pa.array([-(2**63), 1]), "numbers such as 9223372036854775808"),
        (pa.array([1e300, 1]), "numbers such as 1e.300"),
    ],
    ids=["text", "integer", "negative", "real"],
)
def test_values_that_do_not_fit_are_refused(
    values: Any, words: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """GDAL would cut them short: the field is named."""
    source = _layer(tmp_path / "a.gpkg", [_BOX, _BOX], v=values)
    with pytest.raises(OutputError, match=f"field 'v' has {words}"):
        run_job(source, "out.shp")


@pytest.mark.parametrize(
    ("declared", "shapes", "wanted"),
    [
        ("Unknown", [_BOX, shapely.MultiPolygon([_BOX])], "Polygon"),
        ("MultiPolygon", [_BOX, None], "Polygon"),
        ("Unknown", [_BOX, shapely.force_3d(_BOX, 5)], None),
        ("Polygon Z", [shapely.force_3d(_BOX, 5), None], "Polygon Z"),
        ("Unknown", [None, _LINE, shapely.MultiLineString([_LINE])], "LineString"),
        ("Unknown", [_BOX, _LINE], None),
        ("Polygon", [_BOX, _LINE], None),
        ("Unknown", [shapely.Point(0, 0), shapely.MultiPoint([(0, 0)])], None),
        ("MultiPoint", [shapely.MultiPoint([(0, 0)])], "MultiPoint"),
        ("Unknown", [shapely.from_wkt("POINT M (1 2 3)")], None),
        ("Unknown", [shapely.GeometryCollection([_LINE])], None),
    ],
)
def test_one_family_of_geometries(
    declared: str, shapes: list[Any], wanted: str | None, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """The layer's type, or the first geometry's where it says none, decides; another one is refused, whatever GDAL would do."""
    source = _layer(tmp_path / "a.gpkg", shapes, declared, v=pa.array(range(len(shapes))))
    if wanted is None:
        with pytest.raises(OutputError, match="Shapefile"):
            run_job(source, "out.shp")
        return
    done = run_job(source, "out.shp")
    assert pyogrio.read_info(done.output)["geometry_type"] == wanted
    for one, other in zip(geopandas.read_file(done.output).geometry, shapes, strict=True):
        assert one is other is None or one.equals(other)


def test_collections_and_tables_are_refused_beforehand(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A layer that is declared to have what no Shapefile holds is refused before anything is written."""
    collection = _layer(
        tmp_path / "a.gpkg", [shapely.GeometryCollection([_LINE])], "GeometryCollection", v=pa.array([1])
    )
    pyogrio.raw.write_arrow(pa.table({"v": [1]}), tmp_path / "b.gpkg", driver="GPKG", layer="b")
    for source, words in ((collection, "collections of geometries"), (tmp_path / "b.gpkg", "no geometries")):
        with pytest.raises(DestinationError, match=words):
            run_job(source, "out.shp")


def test_an_index_is_built_unless_there_is_no_room_or_none_is_wanted(
    run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """OGR uses it for a box; its memory is in the plan, and a limit that leaves none goes without, which is said."""
    shapes = [shapely.box(n, 0, n + 1, 1) for n in range(500)]
    source = _layer(tmp_path / "a.gpkg", shapes, v=pa.array(range(500)))
    done = run_job(source, "out.shp")
    assert done.output.with_suffix(".qix").stat().st_size > 1000
    assert geopandas.read_file(done.output, bbox=(10.5, 0, 11.5, 1))["v"].tolist() == [10, 11]
    assert done.plan.terms["index at the end"] >= 0
    assert not run_job(source, "none.shp", no_index=True).output.with_suffix(".qix").exists()
    work = prepared(make_job(source, tmp_path / "out.shp"))
    most, least = (work._sink.index(replace(work._source.facts, features=400_000), share) for share in (1.0, 0.0))
    assert most.built_bytes == 144 * (sum(4**level for level in range(10)) + 4**10) + 400_000 * 32
    assert (least.built_bytes, least.held_bytes) == (0, most.held_bytes)
    work.layouts = [planning.choose(work._task, 0)]
    bench, _ = make_bench(tmp_path / "scarce.shp")
    outcome = work.run(bench)
    assert any("no index (.qix)" in note for note in outcome.warnings)
    assert not (tmp_path / "scarce.qix").exists()


def test_two_gigabytes_are_known_beforehand(tmp_path: Path) -> None:
    """Thirty million features with a text of 80 bytes do not fit: refused by the plan, before anything is written."""
    source = _layer(tmp_path / "a.gpkg", [_BOX], v=pa.array(["x"]))
    work = prepared(make_job(source, tmp_path / "out.shp"), room(disk_free_bytes=2**40))
    sink, facts = work._sink, work._source.facts
    sink.check_size(replace(facts, features=26_000_000))
    with pytest.raises(DiskRefused, match=r"30000000 features take at least 2.* GiB"):
        sink.check_size(replace(facts, features=30_000_000))


@pytest.mark.parametrize(
    "said",
    [
        "Error while writing batch to OGR layer: 2GB file size limit reached for out.dbf",
        # Tried by hand: 39,434 polygons of 54 kB.
        "Error in psSHP->sHooks.FWrite() while writing object of 54456 bytes to .shp file: Success",
    ],
)
def test_two_gigabytes_that_are_reached_are_said_so(said: str) -> None:
    """Where a filter keeps more than was sure beforehand, GDAL ends at 2 GB: the format is named, and what to write instead."""
    found = translated(pyogrio.errors.DataLayerError(said), "a.gpkg", writing=True)
    assert isinstance(found, OutputError)
    assert "has reached the 2 GiB that it can have" in found.message
    assert ".gpkg" in found.hint


def test_a_table_is_stopped_before_2_gb(
    run_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GDAL would write on: a real .dbf of 9.5 million texts of 250 bytes had 2.38 GB (tried by hand)."""
    source = _layer(tmp_path / "a.gpkg", [shapely.Point(0, 0)] * 300, "Point", t=pa.array(["x"] * 300))
    work = {"where": "t = 'x'", "chunk_rows": 20, "no_index": True}
    done = run_job(source, "out.shp", **work)
    size = done.output.with_suffix(".dbf").stat().st_size
    monkeypatch.setattr(shapefile, "_MOST_FILE_BYTES", size)
    assert run_job(source, "fits.shp", **work).outcome.result["features_kept"] == 300
    monkeypatch.setattr(shapefile, "_MOST_FILE_BYTES", size - 200)
    with pytest.raises(OutputError, match="a file of the Shapefile has reached the 2 GiB"):
        run_job(source, "out.shp", **work)


def test_all_files_are_published_and_replaced_together(tmp_path: Path) -> None:
    """Nothing is left of a former Shapefile, nor of a run that was refused; what is in the way of a new one is named."""
    source = _layer(tmp_path / "a.gpkg", [_BOX, None], v=pa.array([1, 2]))
    out = tmp_path / "out.shp"
    assert run_published(make_job(source, out)).status == "completed"
    files = {".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix"}
    assert {each.suffix for each in tmp_path.glob("out.*")} == files
    (tmp_path / "out.sbn").write_bytes(b"of the former")
    _layer(tmp_path / "b.gpkg", [_BOX, _BOX, _BOX], v=pa.array([1, 2, 3]))
    assert run_published(make_job(tmp_path / "b.gpkg", out, overwrite=True)).status == "completed"
    assert {each.suffix for each in tmp_path.glob("out.*")} == files
    assert len(geopandas.read_file(out)) == 3
    mixed = _layer(tmp_path / "c.gpkg", [_BOX, _LINE], "Unknown", v=pa.array([1, 2]))
    assert run_published(make_job(mixed, out, overwrite=True)).status == "failed"
    assert len(geopandas.read_file(out)) == 3
    assert not list(tmp_path.glob(".out*"))
    out.unlink()
    report = run_published(make_job(source, out))
    assert report.error is not None
    assert "in the way" in report.error.message


def test_an_output_of_nothing(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Where nothing is kept there is a Shapefile with its fields."""
    source = _layer(tmp_path / "a.gpkg", [_BOX], "Unknown", v=pa.array([1]))
    done = run_job(source, "out.shp", min_area_sqm=1e12)
    assert len(geopandas.read_file(done.output)) == 0
    assert all(check.passed for check in done.outcome.checks), done.outcome.checks


def test_an_extension_in_capitals(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """GDAL writes small letters; the file has the name that was asked for all the same."""
    source = _layer(tmp_path / "a.gpkg", [_BOX], v=pa.array([1]))
    folder = tmp_path / "staged"
    folder.mkdir()
    bench, _ = make_bench(folder / "OUT.SHP")
    job = make_job(source, tmp_path / "OUT.SHP").model_copy(update={"driver": "ESRI Shapefile"})
    prepared(job).run(bench)
    assert (folder / "OUT.SHP").exists()
    assert np.array_equal(geopandas.read_file(folder / "OUT.SHP")["v"], [1])


def test_a_heavy_batch_that_is_refused_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """What the look at the heaviest batch raises comes out as such: closed early there, GDAL would end in a segfault."""
    texts = ["x" * (5_000_000 if n == 2000 else 5) for n in range(4000)]
    source = _layer(tmp_path / "a.gpkg", [_BOX] * 4000, v=pa.array(texts))
    report = run_published(make_job(source, tmp_path / "out.shp"))
    assert report.error is not None
    assert (
        report.error.message
        == "a.gpkg: field 'v' has texts of up to 5000000 bytes, and a Shapefile holds at most 254 bytes"
    )
