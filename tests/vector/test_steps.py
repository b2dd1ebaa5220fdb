"""Steps that change rows: what comes out is what geopandas makes of the whole file, and a verification finds it."""

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from conftest_vector import Done, geod_areas, make_job, parcels, prepared, solid, verified_again
from geopandas.testing import assert_geodataframe_equal
from pydantic import ValidationError

from lib.errors import DataError, SourceError, UsageError
from lib.jobs import VectorJob
from lib.vector import coordinates, ogr

Run = Callable[..., Done]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two hundred parcels with nulls and empties."""
    parcels(200).to_file(tmp_path / "a.gpkg")
    return tmp_path / "a.gpkg"


def _verifies(source: Path, done: Done, **choices: Any) -> bool:
    """Whether a full verification of what a job made passes, and has looked for the rows of the source."""
    checks = verified_again(source, done, make_job(source, done.output, **choices))
    return "membership" in checks and all(checks.values())


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
def test_selected_fields_are_kept_in_their_order(name: str, source: Path, run_job: Run) -> None:
    """Fields come as named, whatever their case, once each; geometries and rows are those of the source."""
    choices = {"select": "value, N,value", "min_area_sqm": 500}
    done = run_job(source, name, chunk_rows=64, **choices)
    found, before = geopandas.read_file(done.output), geopandas.read_file(source)
    assert list(found.columns) == ["value", "n", "geometry"]
    wanted = before[before.n.isin(found.n)][["value", "n", "geometry"]].reset_index(drop=True)
    assert_geodataframe_equal(found.sort_values("n", ignore_index=True), wanted)
    assert 0 < len(found) < len(before)
    assert done.plan.facts["select"] == ["value", "n"]
    assert _verifies(source, done, **choices)


def test_a_field_that_is_not_there_is_refused(source: Path, tmp_path: Path) -> None:
    """With the nearest one there is, else all of them."""
    with pytest.raises(UsageError, match="no field 'nmae'") as caught:
        prepared(make_job(source, tmp_path / "b.gpkg", select="n,nmae"))
    assert caught.value.hint == "did you mean name?"
    with pytest.raises(UsageError, match="no field 'zzz'") as caught:
        prepared(make_job(source, tmp_path / "b.gpkg", select="zzz"))
    assert caught.value.hint == "it has n, name, value"


def test_names_are_read_as_in_a_csv(tmp_path: Path) -> None:
    """A name with a comma is quoted; none at all is an error."""
    assert _job(tmp_path, '"a, b",c').select == ("a, b", "c")
    for empty in ("", "a,,b"):
        with pytest.raises(ValidationError, match="not a list of fields"):
            _job(tmp_path, empty)


def _job(folder: Path, select: str) -> VectorJob:
    return make_job(folder / "a.gpkg", folder / "b.gpkg", select=select)


def test_rows_that_differ_in_a_dropped_field_alone_verify(run_job: Run, tmp_path: Path) -> None:
    """Of two rows that are alike behind the selection one is dropped before: the other is no stranger."""
    frame = parcels(6)
    frame = frame.loc[[0, 0, 1]].assign(n=[1, 2, 3], name="same", value=0.5)
    frame.to_file(tmp_path / "a.gpkg")
    choices = {"function": "vector_functions:odd_rows", "select": "name"}
    done = run_job(tmp_path / "a.gpkg", **choices)
    assert list(geopandas.read_file(done.output).name) == ["same"] * 2
    checks = verified_again(tmp_path / "a.gpkg", done, make_job(tmp_path / "a.gpkg", done.output, **choices))
    assert all(checks.values())


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:32614"])
def test_a_layer_in_another_crs(crs: str, name: str, run_job: Run, tmp_path: Path) -> None:
    """Every vertex is where geopandas puts it; rows are those whose true area is asked for, whatever the new CRS."""
    solid(parcels(200)).to_file(tmp_path / "a.gpkg")
    choices = {"to_crs": crs, "min_area_sqm": 500}
    done = run_job(tmp_path / "a.gpkg", name, chunk_rows=64, **choices)
    found, before = geopandas.read_file(done.output).sort_values("n"), geopandas.read_file(tmp_path / "a.gpkg")
    wanted = before[geod_areas(before) >= 500].to_crs(crs)
    assert found.crs == wanted.crs
    assert list(found.n) == list(wanted.n)
    assert shapely.equals_exact(found.geometry.to_numpy(), wanted.geometry.to_numpy(), 1e-6).all()
    assert done.plan.facts["to_crs"] == crs
    assert _verifies(tmp_path / "a.gpkg", done, **choices)


_SHAPES = [
    "POINT Z (9 50 7)",
    "POINT EMPTY",
    "LINESTRING M (9 50 1, 10 51 2)",
    "POLYGON ZM ((9 50 1 2, 10 50 3 4, 9 51 5 6, 9 50 1 2))",
    "MULTIPOINT (9 50, 10 51)",
    "MULTILINESTRING Z ((9 50 1, 10 51 2), (9 51 3, 10 52 4, 11 53 5))",
    "MULTIPOLYGON (((9 50, 10 50, 9 51, 9 50), (9.1 50.1, 9.2 50.1, 9.1 50.2, 9.1 50.1)), ((1 2, 3 2, 1 4, 1 2)))",
    "GEOMETRYCOLLECTION (POINT (9 50), GEOMETRYCOLLECTION (LINESTRING (9 50, 10 51), MULTIPOINT EMPTY))",
    "MULTIPOLYGON EMPTY",
    None,
]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("options", [{"byte_order": 1, "flavor": "iso"}, {"byte_order": 0}, {"include_srid": True}])
@pytest.mark.parametrize("at_once", [2, 65_536])
def test_vertices_of_every_type_move(
    kind: Any, options: dict[str, Any], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As shapely moves them; Z and M stay; slices of a column and odd encodings are no different."""
    monkeypatch.setattr(coordinates, "_AT_ONCE", at_once)
    shapes = shapely.set_srid(shapely.from_wkt(_SHAPES), 4326)
    array = pa.array(shapely.to_wkb(shapes, **options), kind)

    def move(xy: Any) -> Any:
        return xy * 2 + 1

    def in_text(vertex: re.Match[str]) -> str:
        return f"{float(vertex[1]) * 2 + 1:g} {float(vertex[2]) * 2 + 1:g}"

    wanted = [text and re.sub(r"(?<=[(,])\s*([\d.]+) ([\d.]+)", in_text, text) for text in _SHAPES]
    wanted = list(shapely.to_wkt(shapely.from_wkt(wanted)))
    for first in range(len(shapes)):
        found, failed = coordinates.moved(array[first : first + 4], move)
        assert list(shapely.to_wkt(shapely.from_wkb(found.to_pylist()))) == wanted[first : first + 4]
        assert failed is None
    assert coordinates.moved(array[:0], move)[0].to_pylist() == []


def test_a_vertex_without_a_place_fails_the_job(run_job: Run, tmp_path: Path) -> None:
    """The row is named: a pole is nowhere in Mercator."""
    shapes = [shapely.Point(0, 0)] * 5 + [shapely.Point(0, 90), shapely.Point(0, 91)]
    geopandas.GeoDataFrame({"n": range(7)}, geometry=shapes, crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    with pytest.raises(DataError, match=r"a.gpkg: row [67] has a vertex that has no place in EPSG:3395"):
        run_job(tmp_path / "a.gpkg", to_crs="EPSG:3395", chunk_rows=3)


@pytest.mark.parametrize("cut", [1, 9, 17])
def test_wkb_that_ends_early_is_damaged(cut: int) -> None:
    """Whatever the type; its row is named."""
    for text in (each for each in _SHAPES if each and "EMPTY" not in each):
        whole = shapely.to_wkb(shapely.from_wkt(text), byte_order=1, flavor="iso")
        with pytest.raises(coordinates.DamagedError) as caught:
            coordinates.moved(pa.array([whole, whole[:-cut], whole]), lambda xy: xy)
        assert caught.value.row == 1


@pytest.mark.parametrize(
    ("crs", "wanted", "error", "words"),
    [
        (None, "EPSG:3857", SourceError, "no CRS to transform from"),
        ("EPSG:4326", "EPSG:99999", UsageError, "--to-crs: 'EPSG:99999' is no CRS"),
        ("EPSG:4326", "EPSG:4978", UsageError, "no CRS of x and y"),
    ],
)
def test_a_crs_that_cannot_be_is_refused(
    crs: str | None, wanted: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    """From none, to none, to one that is no map's."""
    geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    if crs is None:
        with sqlite3.connect(tmp_path / "a.gpkg") as database:
            database.execute("UPDATE gpkg_geometry_columns SET srs_id = 0")
            database.execute("UPDATE gpkg_contents SET srs_id = 0")
        database.close()
    with pytest.raises(error, match=words):
        prepared(make_job(tmp_path / "a.gpkg", tmp_path / "b.gpkg", to_crs=wanted))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32614"])
def test_areas_are_added_as_geod_has_them(crs: str, run_job: Run, tmp_path: Path) -> None:
    """To a billionth; null where there is no geometry, and what they were before the layer is in another CRS."""
    source = tmp_path / "a.gpkg"
    parcels(200, crs=crs).to_file(source)
    choices = {"add_area": "sqm", "to_crs": "EPSG:3857", "select": "n"}
    done = run_job(source, chunk_rows=64, **choices)
    found, before = geopandas.read_file(done.output), geopandas.read_file(source)
    assert list(found.columns) == ["n", "sqm", "geometry"]
    np.testing.assert_allclose(found.sqm, geod_areas(before), rtol=1e-9)
    assert found.sqm.isna().sum() == (before.geometry.isna() | before.geometry.is_empty).sum() > 0
    assert done.outcome.result["area_mode"] == "geodesic"
    assert _verifies(source, done, **choices)


def test_planar_areas_are_added(run_job: Run, tmp_path: Path) -> None:
    """By the shoelace in the CRS's plane; lines and points have none to speak of."""
    shapes = [shapely.box(0, 0, 10, 20), shapely.Point(1, 2), shapely.LineString([(0, 0), (5, 5)]), None]
    geopandas.GeoDataFrame({"n": range(4)}, geometry=shapes, crs="EPSG:32633").to_file(tmp_path / "a.gpkg")
    done = run_job(tmp_path / "a.gpkg", add_area="sqm", area="planar")
    np.testing.assert_array_equal(geopandas.read_file(done.output).sqm, [200, 0, 0, np.nan])


@pytest.mark.parametrize("name", ["N", "geom", "FID"])
def test_a_name_that_is_taken_is_refused(name: str, source: Path, tmp_path: Path) -> None:
    """By a field, the geometries or the feature ids, whatever the case."""
    with pytest.raises(UsageError, match=f"--add-area: layer a of a.gpkg has a column '{name}' already"):
        prepared(make_job(source, tmp_path / "b.gpkg", add_area=name))


def test_rows_without_attributes_are_found_by_place(run_job: Run, tmp_path: Path) -> None:
    """Thousands that differ in their geometries alone verify; where none is where it should be, that is seen."""
    points = shapely.points(np.random.default_rng(7).uniform(10, 11, (3000, 2)))
    shapes = [*points, *points[:20], shapely.Point(), None, None]
    source = tmp_path / "a.gpkg"
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:4326").to_file(source)
    done = run_job(source, to_crs="EPSG:32632")
    assert _verifies(source, done, to_crs="EPSG:32632")
    work = make_job(source, done.output, to_crs="EPSG:32633")
    assert not verified_again(source, done, work)["membership"]


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "shp", "geojson"])
def test_other_fields_are_not_read(suffix: str, run_job: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing looks at them; a function does."""
    asked: list[Any] = []
    opened = ogr.open_batches

    def seen(*given: Any, **options: Any) -> Any:
        asked.append(options.get("columns"))
        return opened(*given, **options)

    source = tmp_path / f"a.{suffix}"
    solid(parcels(50)).to_file(source)
    monkeypatch.setattr(ogr, "open_batches", seen)
    done = run_job(source, select="value,n", min_area_sqm=500)
    assert ("value", "n") in asked
    assert list(geopandas.read_file(done.output).columns) == ["value", "n", "geometry"]
    asked.clear()
    run_job(source, "by.gpkg", select="name", function="vector_functions:odd_rows")
    assert set(asked) == {None}


def test_fields_that_are_renamed_are_selected_by_their_new_names(run_job: Run, tmp_path: Path) -> None:
    """Two whose names differ in case only: the second has a number, whatever else is read."""
    features = [
        {"type": "Feature", "properties": {"a": 1, "A": 2}, "geometry": {"type": "Point", "coordinates": [1, 2]}}
    ]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    done = run_job(tmp_path / "a.geojson", select="A2")
    assert list(geopandas.read_file(done.output).A2) == [2]
