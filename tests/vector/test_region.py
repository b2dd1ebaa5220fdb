"""`--bbox` and `--intersects` against geopandas: which features meet a box or polygons, in whatever CRS, pushed or not."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from conftest_vector import make_job, parcels, prepared, verified_again
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shapely.geometry import box

from lib import provenance, request
from lib.errors import DataError, SourceError, UsageError
from lib.vector.region import Region
from lib.vector.sources import flatgeobuf

BOX = (-98.5, 37.5, -97.7, 38.4)


def _mixed(count: int = 300) -> geopandas.GeoDataFrame:
    """Every type of geometry about the origin, with Z, nulls and empties among them."""
    generator = np.random.default_rng(3)
    shapes: list[Any] = []
    for n in range(count):
        x, y = generator.uniform(-3, 3, 2)
        near = generator.uniform(-1, 1, (5, 2)) + np.array([x, y])
        polygon = shapely.Point(x, y).buffer(generator.uniform(0.05, 3), quad_segs=2)
        kinds = [
            shapely.Point(x, y), shapely.LineString(near), polygon, shapely.MultiPoint(near),
            shapely.MultiLineString([near[:2], near[2:]]), shapely.MultiPolygon([polygon, shapely.box(x + 9, y, x + 10, y + 1)]),
            shapely.GeometryCollection([shapely.Point(near[0]), shapely.LineString(near[1:])]), None, shapely.LineString(),
            shapely.force_3d(shapely.LineString(near), 5), shapely.Point(), polygon.difference(polygon.buffer(-0.02)),
            shapely.Polygon(shapely.box(x - 4, y - 4, x + 4, y + 4).exterior, [shapely.box(x - 3, y - 3, x + 3, y + 3).exterior]),
        ]  # fmt: skip
        shapes.append(kinds[n % len(kinds)])
    return geopandas.GeoDataFrame({"n": range(count)}, geometry=shapes, crs="EPSG:32633")


def _without_crs(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        parcels(5).set_crs(None, allow_override=True).to_file(path, geometry_type="Unknown")


def _meeting(frame: geopandas.GeoDataFrame, region: Any) -> list[int]:
    return sorted(frame["n"][frame.geometry.intersects(region)])


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
def test_a_box_meets_what_geopandas_says(suffix: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Points, lines, polygons, multis, collections, rings about the box, Z; null and empty ones meet nothing."""
    frame = _mixed()
    frame = frame.set_crs(4326, allow_override=True) if suffix == "geojson" else frame
    frame.to_file(tmp_path / f"in.{suffix}")
    done = run_job(tmp_path / f"in.{suffix}", bbox=(-1, -1, 1, 1))
    wanted = _meeting(frame, box(-1, -1, 1, 1))
    assert sorted(geopandas.read_file(done.output)["n"]) == wanted
    assert 20 < len(wanted) < 200
    assert done.outcome.result["features_dropped"] == {"bbox": len(frame) - len(wanted)}
    assert all(
        verified_again(
            tmp_path / f"in.{suffix}", done, make_job(tmp_path / f"in.{suffix}", done.output, bbox=(-1, -1, 1, 1))
        ).values()
    )


def test_edges_of_the_box_are_in_it(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A point on the edge or the corner meets the box, one beside it does not; a box may be a point."""
    places = [(1, 0.5), (1, 1), (np.nextafter(1, 2), 0.5), (0.5, 0.5), (0, 0)]
    frame = geopandas.GeoDataFrame({"n": range(5)}, geometry=list(map(shapely.Point, places)), crs=4326)
    frame.to_file(tmp_path / "in.gpkg")
    kept = geopandas.read_file(run_job(tmp_path / "in.gpkg", bbox=(0, 0, 1, 1)).output)["n"].tolist()
    assert kept == [0, 1, 3, 4]
    assert geopandas.read_file(run_job(tmp_path / "in.gpkg", "b.gpkg", bbox=(1, 1, 1, 1)).output)["n"].tolist() == [1]


@pytest.mark.parametrize("suffix", ["gpkg", "fgb"])
@pytest.mark.parametrize("share", ["small", "large"])
def test_the_index_is_asked_where_it_pays(suffix: str, share: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A small box is pushed into the spatial index, a large one evaluated; the rows are the same, and all are accounted for."""
    frame = parcels(1500).dropna(subset="geometry")
    frame = frame[~frame.geometry.is_empty]
    area = BOX if share == "small" else (-99, 37, -96.1, 39.9)
    frame.to_file(tmp_path / f"in.{suffix}", geometry_type="Unknown")
    done = run_job(tmp_path / f"in.{suffix}", bbox=area, chunk_rows=200)
    wanted = _meeting(frame, box(*area))
    result = done.outcome.result
    assert sorted(geopandas.read_file(done.output)["n"]) == wanted
    assert result["features_read"] == len(frame) == result["features_kept"] + sum(result["features_dropped"].values())
    assert result["predicates"]["bbox"].startswith(
        "pushed: the index has" if share == "small" else "evaluated: the box has"
    )
    assert ("driver" in result["features_dropped"]) == (share == "small")
    job = make_job(tmp_path / f"in.{suffix}", done.output, bbox=area)
    assert all(verified_again(tmp_path / f"in.{suffix}", done, job).values())


def test_an_index_that_lacks_a_geometry_is_not_asked(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Rows that another program added past the index are found, by looking at all."""
    import sqlite3
    from contextlib import closing

    frame = parcels(400)
    frame.to_file(tmp_path / "in.gpkg", layer="a", geometry_type="Unknown")
    assert run_job(tmp_path / "in.gpkg", bbox=BOX).outcome.result["predicates"]["bbox"].startswith("pushed")
    with closing(sqlite3.connect(tmp_path / "in.gpkg")) as database, database:
        database.execute("DELETE FROM rtree_a_geom WHERE id < 200")
    done = run_job(tmp_path / "in.gpkg", "b.gpkg", bbox=BOX)
    assert (
        done.outcome.result["predicates"]["bbox"]
        == "evaluated: the layer has no spatial index, or one that lacks geometries"
    )
    assert sorted(geopandas.read_file(done.output)["n"]) == _meeting(frame, box(*BOX))


def test_condition_and_box_are_pushed_together(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Both are asked of the GeoPackage at once, and what it drops is counted once."""
    frame = parcels(1500)
    frame.to_file(tmp_path / "in.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "in.gpkg", bbox=BOX, where="value < 0.5", min_area_sqm=1000)
    wanted = frame[(frame["value"] < 0.5) & frame.geometry.intersects(box(*BOX))]
    result = done.outcome.result
    assert result["features_read"] == 1500 == result["features_kept"] + sum(result["features_dropped"].values())
    assert result["features_dropped"]["driver"] >= 1500 - len(wanted) - 5
    assert set(geopandas.read_file(done.output)["n"]) < set(wanted["n"])
    assert [way[:6] for way in result["predicates"].values()] == ["pushed", "pushed"]


def test_a_flatgeobuf_that_gives_fewer_than_its_index_fails(
    run_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least what lies within the box, by the index, has to come."""
    frame = parcels(600).dropna(subset="geometry")
    frame[~frame.geometry.is_empty].to_file(tmp_path / "in.fgb", geometry_type="Unknown")
    counted = flatgeobuf.in_box
    monkeypatch.setattr(flatgeobuf, "in_box", lambda *args: tuple(each + 1000 for each in counted(*args) or ()))
    monkeypatch.setattr("lib.vector.sources.pushing._MOST_SHARE", {"FlatGeobuf": 9.0})
    with pytest.raises(DataError, match="features that it was asked for"):
        run_job(tmp_path / "in.fgb", bbox=BOX)


@pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:4326", "EPSG:3857"])
def test_a_box_of_another_crs_is_a_polygon(crs: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Its edges are straight in its own CRS: cut into short ones and reprojected, as geopandas does it."""
    frame = parcels(1200, crs="EPSG:5070")
    frame.to_file(tmp_path / "in.gpkg", geometry_type="Unknown")
    bounds = geopandas.GeoSeries([box(*BOX)], crs=4326).to_crs(crs).total_bounds
    fine = geopandas.GeoSeries([box(*bounds)], crs=crs).segmentize(max(bounds[2:] - bounds[:2]) / 256).to_crs(frame.crs)
    wanted = _meeting(frame, fine[0])
    done = run_job(tmp_path / "in.gpkg", bbox=tuple(bounds), bbox_crs=crs)
    assert sorted(geopandas.read_file(done.output)["n"]) == wanted
    assert len(wanted) > 50
    envelope = _meeting(frame, box(*fine.total_bounds))
    assert len(wanted) < len(envelope)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"bbox": (37.5, -98.5, 38.4, -97.7)}, "-98.5 to -97.7 are no latitudes"),
        ({"bbox": (400, 37, 401, 38)}, "400 to 401 are no longitudes"),
        ({"bbox": (4e6, 5e5, 4.2e6, 6e5), "bbox_crs": "EPSG:32614"}, "would not with x and y swapped"),
        ({"bbox": BOX, "bbox_crs": "EPSG:99999"}, "--bbox-crs: 'EPSG:99999' is no CRS"),
        ({"bbox": (-9e9, -9e9, 9e9, 9e9), "bbox_crs": "EPSG:32614"}, "has no place in the layer's CRS"),
        ({"bbox": (1e5, 4e6, 9e5, 4.1e6), "bbox_crs": "EPSG:32601"}, "lies across the antimeridian"),
        ({"bbox": (-1e5, -1e5, 1e5, 1e5), "bbox_crs": "EPSG:3413"}, "around a pole"),
    ],
)
def test_a_box_that_has_no_place_is_refused(choices: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Swapped axes, no CRS, nowhere, across the antimeridian, about a pole: one line each, and what to do."""
    parcels(5).to_file(tmp_path / "in.gpkg", geometry_type="Unknown")
    with pytest.raises(UsageError) as caught:
        prepared(make_job(tmp_path / "in.gpkg", tmp_path / "out.gpkg", **choices))
    assert said in str(caught.value)
    assert caught.value.hint


def test_a_region_that_nothing_meets_is_said(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Axes that are swapped where both orders are places, above all."""
    frame = geopandas.GeoDataFrame(geometry=[box(10, 50, 11, 51)], crs=4326)
    frame.to_file(tmp_path / "in.gpkg")
    geopandas.GeoDataFrame(geometry=[box(30, 50, 31, 51)], crs=4326).to_file(tmp_path / "far.gpkg")
    for name, choices, said in (
        ("a.gpkg", {"bbox": (50, 10, 51, 11)}, "nothing meets --bbox 50,10,51,11 in EPSG:4326: x (longitude, easting)"),
        ("b.gpkg", {"intersects": str(tmp_path / "far.gpkg")}, "nothing meets --intersects 1 polygons of far.gpkg"),
        ("c.gpkg", {"bbox": (10, 50, 11, 51)}, ""),
    ):
        done = run_job(tmp_path / "in.gpkg", name, **choices)
        notes = [note for note in done.outcome.warnings if "nothing meets" in note]
        assert len(notes) == bool(said)
        assert all(said in note for note in notes)
        assert done.outcome.result["features_kept"] == (not said)


def test_a_box_of_another_crs_needs_the_layers(tmp_path: Path) -> None:
    """A layer without a CRS takes a box in its own coordinates alone."""
    _without_crs(tmp_path / "in.gpkg")
    prepared(make_job(tmp_path / "in.gpkg", tmp_path / "out.gpkg", bbox=BOX))
    with pytest.raises(UsageError, match="has no CRS itself"):
        prepared(make_job(tmp_path / "in.gpkg", tmp_path / "out.gpkg", bbox=BOX, bbox_crs="EPSG:4326"))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"bbox": "2,1,1,2"}, "each minimum below its maximum"),
        ({"bbox": "170,-10,-170,10"}, "across the antimeridian"),
        ({"bbox": "1,2,3"}, "is no box"),
        ({"bbox": "0,0,nan,1"}, "finite"),
        ({"bbox_crs": "EPSG:4326"}, "bbox_crs is of a bbox"),
    ],
)
def test_a_box_that_is_none(choices: dict[str, Any], said: str) -> None:
    """A minimum above its maximum is an error, across the antimeridian too, where it is two boxes."""
    with pytest.raises(ValidationError, match=said):
        make_job(Path("a.gpkg"), Path("b.gpkg"), **choices)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32614"])
def test_polygons_of_a_file(crs: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Features that meet one of several polygons, with a hole, in another CRS, are those of geopandas; lines do not count."""
    frame = parcels(1200)
    frame.to_file(tmp_path / "in.gpkg", geometry_type="Unknown")
    ring = shapely.Point(-97.5, 38.5).buffer(0.8).difference(shapely.Point(-97.5, 38.5).buffer(0.4))
    shapes = [ring, shapely.MultiPolygon([box(-99, 37, -98.7, 37.4), box(-96.5, 39, -96.2, 39.6)]), None]
    region = geopandas.GeoDataFrame(geometry=shapes, crs=4326).segmentize(0.01)
    lines = geopandas.GeoDataFrame(geometry=[shapely.LineString([(-99, 37), (-96, 40)])], crs=4326)
    region = geopandas.GeoDataFrame(geometry=[*region.geometry, *lines.geometry], crs=4326).to_crs(crs)
    region.to_file(tmp_path / "region.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "in.gpkg", intersects=str(tmp_path / "region.gpkg"))
    there = region.geometry[:2].to_crs(4326).union_all()
    wanted = _meeting(frame, there)
    assert sorted(geopandas.read_file(done.output)["n"]) == wanted
    assert 50 < len(wanted) < 600
    assert done.plan.facts["intersects"] == "3 polygons of region.gpkg"
    job = make_job(tmp_path / "in.gpkg", done.output, intersects=str(tmp_path / "region.gpkg"))
    assert all(verified_again(tmp_path / "in.gpkg", done, job).values())


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child may be elsewhere; an output says the file's name alone; a missing one is told of before a child starts."""
    monkeypatch.chdir(tmp_path)
    parcels(5).to_file(tmp_path / "in.gpkg", geometry_type="Unknown")
    job = request.vector_job("in.gpkg", "out.gpkg", intersects="in.gpkg")
    assert job.intersects == str(tmp_path / "in.gpkg")
    assert '"intersects":"in.gpkg"' in provenance.texts(job)[provenance.JOB]
    with pytest.raises(SourceError, match=r"intersects none\.gpkg does not exist"):
        request.vector_job("in.gpkg", "out.gpkg", intersects="none.gpkg")


def test_a_file_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, no vector file, without polygons, without a CRS, too large: one line that names the file."""
    parcels(5).to_file(tmp_path / "in.gpkg", geometry_type="Unknown")
    (tmp_path / "text.gpkg").write_text("no layer")
    points = geopandas.GeoDataFrame(geometry=[shapely.Point(1, 2)], crs=4326)
    points.to_file(tmp_path / "points.gpkg")
    _without_crs(tmp_path / "bare.gpkg")
    parcels(5).to_file(tmp_path / "two.gpkg", layer="a", geometry_type="Unknown")
    parcels(5).to_file(tmp_path / "two.gpkg", layer="b", geometry_type="Unknown")
    for name, said in {
        "none.gpkg": "does not exist", "text.gpkg": "cannot be read", "points.gpkg": "holds no polygons",
        "bare.gpkg": "has no CRS", "two.gpkg": "has several layers",
    }.items():  # fmt: skip
        with pytest.raises(SourceError, match=said) as caught:
            prepared(make_job(tmp_path / "in.gpkg", tmp_path / "out.gpkg", intersects=str(tmp_path / name)))
        assert name in str(caught.value)
    monkeypatch.setattr("lib.vector.steps.intersects._MOST_BYTES", 1000)
    with pytest.raises(SourceError, match="polygons of at most"):
        prepared(make_job(tmp_path / "in.gpkg", tmp_path / "out.gpkg", intersects=str(tmp_path / "in.gpkg")))


COORDINATES = st.integers(-3, 3).map(float)
PLACES = st.tuples(COORDINATES, COORDINATES)
LINES = st.lists(PLACES, min_size=2, max_size=5)
SHAPES = st.one_of(
    PLACES.map(shapely.Point),
    LINES.map(shapely.LineString),
    st.lists(PLACES, min_size=1, max_size=4).map(shapely.MultiPoint),
    st.lists(LINES, min_size=1, max_size=3).map(shapely.MultiLineString),
    st.lists(PLACES, min_size=3, max_size=6).map(lambda some: shapely.MultiPoint(some).convex_hull),
    st.sampled_from([None, shapely.Point(), shapely.Polygon(), shapely.MultiLineString()]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(SHAPES, max_size=6), PLACES, PLACES, st.booleans(), st.sampled_from([0, 1]))
def test_envelopes_and_geos_agree_with_geos_alone(
    shapes: list[Any], one: tuple[float, float], other: tuple[float, float], is_triangle: bool, order: int
) -> None:
    """Whatever the geometries, the region and the byte order: what envelopes decide is what `shapely.intersects` says."""
    (left, right), (low, high) = (sorted(pair) for pair in zip(one, other, strict=True))
    region = (
        shapely.Polygon([(left, low), (right + 1, low), (left, high + 1)])
        if is_triangle
        else box(left, low, right, high)
    )
    values = [None if each is None else shapely.to_wkb(each, byte_order=order) for each in shapes]
    found = Region.of(np.array([region])).meets(pa.array(values, pa.binary()), "x")
    assert found.tolist() == [each is not None and bool(shapely.intersects(region, each)) for each in shapes]


def test_geometries_that_geos_does_not_read_are_named() -> None:
    """A curve near the region is an error with what to do; so are bytes that end too early."""
    region = Region.of(np.array([box(0, 0, 1, 1)]))
    curve = struct.pack("<BII", 1, 8, 3) + struct.pack("<6d", 0, 0, 1, 1, 2, 0)
    with pytest.raises(DataError, match="CircularString") as caught:
        region.meets(pa.array([curve]), "x.gpkg")
    assert "CONVERT_TO_LINEAR" in caught.value.hint
    line = shapely.to_wkb(shapely.LineString([(0, 0), (1, 1)]))
    with pytest.raises(DataError, match="1 geometries end before their vertices do"):
        region.meets(pa.array([line, line[:-3]]), "x.gpkg")
