"""Lengths of lines against pyproj.Geod: bounds, every kind of geometry, the antimeridian, the poles, other CRSs."""

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from conftest_vector import make_job, prepared, verified_again
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pyproj import CRS, Geod, Transformer

from lib.errors import DataError, SourceError
from lib.vector import runs
from lib.vector.length import decide, measure
from lib.vector.method import Bounds, area_method
from lib.vector.recompute import plain_length
from lib.vector.runs import LINEAR, find_runs
from lib.vector.steps import Tally
from lib.vector.wkb import column_of

WGS84 = Geod(ellps="WGS84")
METHOD = area_method("EPSG:4326", "auto", "x", "lengths")


def true_length(geometry: Any) -> float:
    """By Geod, of lines alone; not-a-number for null and empty geometries."""
    if geometry is None or geometry.is_empty:
        return math.nan
    if geometry.geom_type in ("MultiLineString", "GeometryCollection"):
        return math.fsum(true_length(part) for part in geometry.geoms if not part.is_empty)
    return float(WGS84.geometry_length(geometry)) if geometry.geom_type == "LineString" else 0.0


def walks(count: int, seed: int = 5) -> list[Any]:
    """Lines of 2 to 40 vertices and metres to hundreds of kilometres, all over the world, multi ones among them, some with Z."""
    generator = np.random.default_rng(seed)
    found = []
    for n in range(count):
        start = generator.uniform((-180, -85), (180, 85))
        steps = generator.normal(0, 10 ** generator.uniform(-5, -0.5), (int(generator.integers(1, 40)), 2))
        line = shapely.LineString(np.vstack([start, start + steps.cumsum(0)]).clip((-180, -90), (180, 90)))
        line = shapely.MultiLineString([line, line.reverse()]) if n % 5 == 4 else line
        found.append(shapely.force_3d(line, 7.0) if n % 3 == 2 else line)
    return found


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_kept_are_those_that_geod_keeps(crs: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """True lengths decide, whatever the CRS; null and empty ones are dropped and counted; the result is verified again."""
    shapes = [*walks(400), None, shapely.LineString()]
    frame = geopandas.GeoDataFrame({"n": range(len(shapes))}, geometry=shapes, crs=4326)
    there = frame.to_crs(crs)
    there.to_file(tmp_path / "in.gpkg", geometry_type="Unknown")
    lengths = np.array(list(map(true_length, there.to_crs(4326).geometry)))
    done = run_job(tmp_path / "in.gpkg", min_length_m=1_000, max_length_m=200_000, chunk_rows=64)
    wanted = frame["n"][(lengths >= 1_000) & (lengths <= 200_000)].tolist()
    assert geopandas.read_file(done.output)["n"].tolist() == wanted
    assert 50 < len(wanted) < 350
    assert done.outcome.result["features_null_length"] == 2
    assert done.outcome.result["features_dropped"] == {"length": len(shapes) - len(wanted)}
    assert "on the ellipsoid" in done.plan.facts["length"]
    job = make_job(tmp_path / "in.gpkg", done.output, min_length_m=1_000, max_length_m=200_000)
    assert all(verified_again(tmp_path / "in.gpkg", done, job).values())


def test_a_bound_that_is_a_line_s_own_length_keeps_it(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Bounds are inclusive to the last bit of Geod's sum; the next number above is not reached."""
    line = shapely.LineString([(10, 50), (10.001, 50.0005)])
    frame = geopandas.GeoDataFrame(geometry=[line], crs=4326)
    frame.to_file(tmp_path / "in.gpkg")
    own = true_length(line)
    for name, choices, kept in (
        ("a.gpkg", {"min_length_m": own, "max_length_m": own}, 1),
        ("b.gpkg", {"min_length_m": np.nextafter(own, np.inf)}, 0),
        ("c.gpkg", {"max_length_m": np.nextafter(own, 0)}, 0),
    ):
        assert run_job(tmp_path / "in.gpkg", name, **choices).outcome.result["features_kept"] == kept


OTHERS = {
    "a polygon": (shapely.box(0, 0, 1, 1), 0.0),
    "a polygon with a hole": (
        shapely.Polygon(shapely.box(0, 0, 1, 1).exterior, [shapely.box(0.2, 0.2, 0.4, 0.4).exterior]),
        0.0,
    ),
    "a multipolygon": (shapely.MultiPolygon([shapely.box(0, 0, 1, 1)]), 0.0),
    "a point": (shapely.Point(1, 2), 0.0),
    "a multipoint": (shapely.MultiPoint([(1, 2), (3, 4)]), 0.0),
    "a collection of a line and a polygon": (
        shapely.GeometryCollection([shapely.LineString([(0, 0), (0, 1)]), shapely.box(0, 0, 1, 1)]),
        110_574.3885577987,
    ),
    "a line of one place": (shapely.LineString([(5, 5), (5, 5)]), 0.0),
    "a line there and back": (shapely.LineString([(0, 0), (0, 1), (0, 0)]), 2 * 110_574.3885577987),
    "across the antimeridian": (shapely.LineString([(179, 0), (-179, 0)]), 222_638.98158654713),
    "beyond the antimeridian": (shapely.LineString([(179, 0), (181, 0)]), 222_638.98158654713),
    "over the pole": (shapely.LineString([(0, 89), (180, 89)]), 2 * 111_693.8649233),
    "to the pole": (shapely.LineString([(30, 89), (77, 90)]), 111_693.8649233),
    "half around the world": (shapely.LineString([(0, 0), (180, 0)]), 20_003_931.4586),
    "with Z and M": (shapely.from_wkt("LINESTRING ZM (0 0 0 0, 0 1 9999 5)"), 110_574.3885577987),
    "a multiline with an empty part": (shapely.from_wkt("MULTILINESTRING (EMPTY, (0 0, 0 1))"), 110_574.3885577987),
    "an empty line": (shapely.LineString(), None),
    "an empty multiline": (shapely.MultiLineString(), None),
    "an empty collection": (shapely.GeometryCollection(), None),
    "an empty point": (shapely.Point(), None),
    "an empty polygon": (shapely.Polygon(), None),
    "points of which one is empty": (shapely.from_wkt("MULTIPOINT (EMPTY, (1 2))"), 0.0),
    "null": (None, None),
    "latitude 91": (shapely.LineString([(0, 91), (0, 80)]), None),
    "infinite": (shapely.from_wkt("LINESTRING (0 0, inf 0)"), None),
}


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("name", OTHERS)
def test_every_geometry_has_its_rule(name: str, order: int) -> None:
    """The length of each, in both byte orders; None has none, and is dropped whatever the bounds."""
    geometry, length = OTHERS[name]
    value = None if geometry is None else shapely.to_wkb(geometry, byte_order=order, output_dimension=4)
    column = column_of(pa.array([value], pa.binary()))
    if length is None:
        decision = decide(column, METHOD, Bounds(0.0, None))
        assert (decision.keep.tolist(), decision.without_length) == ([False], 1)
        return
    assert decide(column, METHOD, Bounds(length - 1e-3, length + 1e-3)).keep.tolist() == [True]
    assert decide(column, METHOD, Bounds(length + 1e-3, None)).keep.tolist() == [False]
    assert decide(column, METHOD, Bounds(0.0, None)).without_length == 0
    assert plain_length(geometry, METHOD) == pytest.approx(length, abs=1e-3)


DEGREES = st.tuples(st.floats(-180, 180), st.floats(-90, 90))
STEPS = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(DEGREES, STEPS, st.sampled_from([1e-7, 1e-4, 1e-2, 1.0, 60.0]))
def test_what_is_measured_is_off_by_no_more_than_its_bound(
    start: tuple[float, float], steps: list[tuple[float, float]], scale: float
) -> None:
    """The middle-latitude formula is within its own bound of Geod, near the poles too."""
    xy = np.vstack([start, np.array(start) + np.cumsum(np.array(steps) * scale, 0)])
    xy[:, 1] = xy[:, 1].clip(-90, 90)
    column = column_of(pa.array([shapely.to_wkb(shapely.LineString(xy))], pa.binary()))
    lengths, errors = measure(column, find_runs(column, LINEAR), METHOD)
    assert abs(lengths[0] - WGS84.line_length(*xy.T)) <= errors[0]


def test_a_long_line_is_taken_in_pieces() -> None:
    """A line of more vertices than are looked at together, among others, has its length and its envelope, with Z too."""
    generator = np.random.default_rng(1)
    long = shapely.LineString(np.cumsum(generator.uniform(-1e-3, 1e-3, (100_000, 2)), 0) + np.array([10, 50]))
    shapes = [shapely.LineString([(0, 0), (1, 1)]), shapely.force_3d(long, 1.0), shapely.MultiLineString([long, long])]
    column = column_of(pa.array([shapely.to_wkb(each) for each in shapes], pa.binary()))
    for row, geometry in enumerate(shapes):
        own = true_length(geometry)
        found = decide(column, METHOD, Bounds(own * (1 - 1e-11), own * (1 + 1e-11)))
        assert found.keep.tolist() == [at == row for at in range(3)]
    assert runs.envelopes(column, runs.find_runs(column)).T.tolist() == shapely.bounds(shapes).tolist()


def test_few_lines_need_the_arbiter() -> None:
    """Of short edges the formula decides all but what is within millimetres of a bound."""
    column = column_of(pa.array([shapely.to_wkb(each) for each in walks(1000)], pa.binary()))
    assert decide(column, METHOD, Bounds(5_000.0, None)).arbitrated < 10


def test_a_plane_without_an_ellipsoid(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """There lengths are those in the plane, in metres, and that is said."""
    crs = 'LOCAL_CS["site",UNIT["foot",0.3048],AXIS["X",EAST],AXIS["Y",NORTH]]'
    lines = [shapely.LineString([(0, 0), (300, 400)]), shapely.LineString([(0, 0), (3, 4)])]
    geopandas.GeoDataFrame({"n": [0, 1]}, geometry=lines, crs=CRS.from_wkt(crs)).to_file(tmp_path / "in.gpkg")
    done = run_job(tmp_path / "in.gpkg", min_length_m=152.4, max_length_m=152.4)
    assert geopandas.read_file(done.output)["n"].tolist() == [0]
    assert any("lengths are those in its plane" in each for each in done.outcome.warnings)


def test_a_layer_of_polygons_is_told_that_they_have_none(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """As in PostGIS a polygon's length is 0: nothing is kept by a minimum, and a warning says why."""
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "in.gpkg")
    done = run_job(tmp_path / "in.gpkg", min_length_m=1)
    assert done.outcome.result["features_kept"] == 0
    assert any("lengths are of lines alone" in each for each in done.outcome.warnings)


def test_where_a_projection_knows_no_place(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A line that cannot be unprojected has no length; it is dropped, counted, and told of."""
    lines = [shapely.LineString([(5e5, 5e6), (5e5, 5.001e6)]), shapely.LineString([(1e30, 1e30), (2e30, 1e30)])]
    geopandas.GeoDataFrame({"n": [0, 1]}, geometry=lines, crs="EPSG:32633").to_file(tmp_path / "in.gpkg")
    done = run_job(tmp_path / "in.gpkg", min_length_m=0)
    assert geopandas.read_file(done.output)["n"].tolist() == [0]
    assert any("they have no length" in each for each in done.outcome.warnings)
    x, y = Transformer.from_crs(32633, 4326, always_xy=True).transform(*np.array(lines[0].coords).T)
    assert WGS84.line_length(x, y) == pytest.approx(1000, rel=1e-3)


def test_what_has_no_length_is_refused(tmp_path: Path) -> None:
    """Curves, bytes that end too early, a layer without a CRS, and bounds the wrong way around."""
    curve = struct.pack("<BII", 1, 8, 3) + struct.pack("<6d", 0, 0, 1, 1, 2, 0)
    inner = struct.pack("<BII", 1, 7, 1) + curve
    line = shapely.to_wkb(shapely.MultiLineString([[(0, 0), (1, 1)], [(2, 2), (3, 3)]]))
    geopandas.GeoDataFrame({"n": [0]}, geometry=[shapely.LineString([(0, 0), (1, 1)])], crs=4326).to_file(
        tmp_path / "in.gpkg"
    )
    (step,) = prepared(make_job(tmp_path / "in.gpkg", tmp_path / "out.gpkg", min_length_m=1))._steps
    for value, said in (
        (curve, "CircularString"),
        (inner, "GeometryCollection with curves"),
        (line[:-8], "end before their vertices"),
    ):
        with pytest.raises(DataError, match=said):
            step.apply(pa.record_batch({"geom": pa.array([value], pa.binary())}), Tally())
    (tmp_path / "bare.geojson").write_text('{"type": "FeatureCollection", "crs": null, "features": []}')
    (tmp_path / "bare.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match="so no lengths"):
        prepared(make_job(tmp_path / "bare.csv", tmp_path / "out.gpkg", min_length_m=1))
    with pytest.raises(SourceError, match="its lengths are unknown"):
        area_method(None, "auto", "x", "lengths")
    with pytest.raises(ValidationError, match="is above max_length_m"):
        make_job(Path("a.gpkg"), Path("b.gpkg"), min_length_m=2, max_length_m=1)
