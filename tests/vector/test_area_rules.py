"""The rule for every kind of geometry's area, against pyproj.Geod: seams, poles, holes, parts, Z and M, windings, nothing at all.

The README's table says them; of lengths `test_length.py` has the same.
"""

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
from conftest_vector import make_job, verified_again
from pyproj import Geod, Transformer
from shapely.geometry import MultiPolygon, Polygon, box

from lib.vector.area import areas_of, decide
from lib.vector.method import Bounds, area_method
from lib.vector.recompute import plain_area
from lib.vector.wkb import column_of

WGS84 = Geod(ellps="WGS84")
METHOD = area_method("EPSG:4326", "auto", "x")


def ring(*xy: tuple[float, float]) -> float:
    """The area of one ring by Geod, m²."""
    return abs(float(WGS84.polygon_area_perimeter(*np.array(xy, float).T)[0]))


def around(latitude: float) -> list[tuple[float, float]]:
    """Places along a parallel, all the way round."""
    return [(float(longitude), latitude) for longitude in range(-180, 180, 10)]


_SQUARE = [(10.0, 50.0), (11.0, 50.0), (11.0, 51.0), (10.0, 51.0)]
_HOLE = [(10.2, 50.2), (10.4, 50.2), (10.4, 50.4), (10.2, 50.4)]
_HOLED = ring(*_SQUARE) - ring(*_HOLE)
_SEAM = [(179.5, 0.0), (-179.5, 0.0), (-179.5, 1.0), (179.5, 1.0)]
_CAP = ring(*around(80.0))
_EARTH = 510_065_621_724_089.0  # m², of WGS 84
_ONE = ring((20, 0), (21, 0), (21, 1), (20, 1))
_HALVES = [shapely.box(179.5, 0, 180, 1), shapely.box(-180, 0, -179.5, 1)]
RULES: dict[str, tuple[Any, float | None]] = {
    "a polygon": (Polygon(_SQUARE), ring(*_SQUARE)),
    "wound clockwise": (Polygon(_SQUARE[::-1]), ring(*_SQUARE)),
    "a hole wound the other way": (Polygon(_SQUARE, [_HOLE[::-1]]), _HOLED),
    "a hole wound the same way": (Polygon(_SQUARE, [_HOLE]), _HOLED),
    "a hole, all clockwise": (Polygon(_SQUARE[::-1], [_HOLE[::-1]]), _HOLED),
    "two parts": (MultiPolygon([Polygon(_SQUARE, [_HOLE]), box(20, 0, 21, 1)]), _HOLED + _ONE),
    "two parts over each other": (MultiPolygon([Polygon(_SQUARE)] * 2), 2 * ring(*_SQUARE)),
    "parts of both windings": (MultiPolygon([Polygon(_SQUARE), Polygon(_HOLE[::-1])]), ring(*_SQUARE) + ring(*_HOLE)),
    "across the antimeridian": (Polygon(_SEAM), ring(*_SEAM)),
    "beyond 180°": (box(179.5, 0, 180.5, 1), ring(*_SEAM)),
    "beyond 360°": (box(539.5, 0, 540.5, 1), ring(*_SEAM)),
    "cut at the antimeridian": (MultiPolygon(_HALVES), 2 * ring((0, 0), (0.5, 0), (0.5, 1), (0, 1))),
    "about the north pole": (Polygon(around(80.0)), _CAP),
    "about the south pole": (Polygon([(x, -y) for x, y in around(80.0)[::-1]]), _CAP),
    "to the pole by way of the map's edge": (
        Polygon([*around(80.0), (180.0, 80.0), (180.0, 90.0), (-180.0, 90.0)]), _CAP,
    ),
    "with the pole as a corner": (Polygon([(0, 80), (10, 80), (5, 90)]), ring((0, 80), (10, 80), (5, 90))),
    "more than half the earth": (Polygon(around(-10.0)), _EARTH - ring(*around(-10.0)) if ring(*around(-10.0)) > _EARTH / 2
                                 else ring(*around(-10.0))),
    "with Z": (shapely.force_3d(Polygon(_SQUARE, [_HOLE]), 9_000.0), _HOLED),
    "with M": (shapely.from_wkt("POLYGON M ((10 50 1, 11 50 2, 11 51 3, 10 51 4, 10 50 5))"), ring(*_SQUARE)),
    "with Z and M": (shapely.from_wkt("POLYGON ZM ((10 50 1 9, 11 50 2 9, 11 51 3 9, 10 51 4 9, 10 50 5 9))"), ring(*_SQUARE)),
    "a bow tie": (Polygon([(0, 0), (2, 2), (2, 0), (0, 1)]), ring((0, 0), (2, 2), (2, 0), (0, 1))),
    "without extent": (Polygon([(0, 0), (1, 1), (0, 0)]), 0.0),
    "a collection": (shapely.GeometryCollection([Polygon(_SQUARE), shapely.Point(1, 2)]), ring(*_SQUARE)),
    "an empty part": (shapely.from_wkt("MULTIPOLYGON (EMPTY, ((10 50, 11 50, 11 51, 10 51, 10 50)))"), ring(*_SQUARE)),
    "a point": (shapely.Point(1, 2), 0.0),
    "points": (shapely.MultiPoint([(1, 2), (3, 4)]), 0.0),
    "a line": (shapely.LineString(_SQUARE), 0.0),
    "lines": (shapely.MultiLineString([_SQUARE, _HOLE]), 0.0),
    "an empty polygon": (Polygon(), None),
    "an empty multipolygon": (MultiPolygon(), None),
    "an empty line": (shapely.LineString(), None),
    "an empty multiline": (shapely.MultiLineString(), None),
    "an empty point": (shapely.Point(), None),
    "an empty multipoint": (shapely.MultiPoint(), None),
    "points of which one is empty": (shapely.from_wkt("MULTIPOINT (EMPTY, (1 2))"), 0.0),
    "an empty collection": (shapely.GeometryCollection(), None),
    "a collection of nothing": (shapely.from_wkt("GEOMETRYCOLLECTION (POINT EMPTY, POLYGON EMPTY)"), None),
    "null": (None, None),
    "latitude 91": (Polygon([(0, 89), (10, 89), (5, 91)]), None),
    "not finite": (shapely.from_wkt("POLYGON ((0 0, 1 0, inf 1, 0 0))"), None),
}  # fmt: skip


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("name", RULES)
def test_every_geometry_has_its_rule(name: str, order: int) -> None:
    """The area of each, in both byte orders, by every path; None has none, and is dropped whatever the bounds."""
    geometry, area = RULES[name]
    value = None if geometry is None else shapely.to_wkb(geometry, byte_order=order, output_dimension=4, flavor="iso")
    column = column_of(pa.array([value], pa.binary()))
    (found,) = areas_of(column, METHOD)[0]
    if area is None:
        assert math.isnan(found)
        for bounds in (Bounds(0.0, None), Bounds(None, 1e30)):
            decision = decide(column, METHOD, bounds)
            assert (decision.keep.tolist(), decision.without_area) == ([False], 1)
        return
    far = max(area * 1e-9, 1e-3)
    assert found == pytest.approx(area, abs=far)
    assert decide(column, METHOD, Bounds(max(area - far, 0.0), area + far)).keep.tolist() == [True]
    assert decide(column, METHOD, Bounds(area + far, None)).keep.tolist() == [False]
    assert decide(column, METHOD, Bounds(0.0, None)).without_area == 0
    assert plain_area(geometry, METHOD) == pytest.approx(area, abs=far)


def test_a_cap_has_the_area_that_a_closed_form_has() -> None:
    """Of a parallel with many vertices, north of 80°: by the authalic latitude, not by Geod."""
    places = [(float(longitude), 80.0) for longitude in np.linspace(-180, 180, 3600, endpoint=False)]
    a, e = 6378137.0, math.sqrt(0.0066943799901413165)

    def q(sine: float) -> float:
        return (1 - e * e) * (sine / (1 - e * e * sine * sine) - math.log((1 - e * sine) / (1 + e * sine)) / (2 * e))

    cap = math.pi * a * a * (q(1.0) - q(math.sin(math.radians(80))))
    column = column_of(pa.array([shapely.to_wkb(Polygon(places))], pa.binary()))
    assert areas_of(column, METHOD)[0][0] == pytest.approx(cap, rel=1e-6)


def test_rings_that_are_not_closed_are_closed() -> None:
    """As Geod does; a ring of two vertices has no extent."""
    for places, area in ((_SQUARE, ring(*_SQUARE)), (_SQUARE[:2], 0.0)):
        body = struct.pack(f"<BIII{2 * len(places)}d", 1, 3, 1, len(places), *np.array(places).ravel())
        column = column_of(pa.array([body], pa.binary()))
        assert areas_of(column, METHOD)[0][0] == pytest.approx(area, abs=1e-3)


def _polar(geometry: Any) -> Any:
    """On a map about the north pole, where neither the pole nor the antimeridian is a seam."""
    move = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True)
    return shapely.transform(geometry, lambda xy: np.column_stack(move.transform(*xy.T)))


@pytest.mark.parametrize("polar", [False, True])
def test_a_job_keeps_what_the_rules_say(polar: bool, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """All of them in one layer, in degrees, and the northern ones about the pole; the output verifies."""
    rules = {
        name: rule for name, rule in RULES.items()
        if not polar or (rule[0] is not None and not rule[0].is_empty and rule[1] is not None and rule[0].bounds[1] >= 45)
    }  # fmt: skip
    low, high = 1e8, 1e13
    shapes = [_polar(shape) if polar else shape for shape, _ in rules.values()]
    wkb = [None if shape is None else shapely.force_2d(shape) for shape in shapes]
    frame = geopandas.GeoDataFrame({"name": list(rules)}, geometry=wkb, crs="EPSG:3413" if polar else "EPSG:4326")
    frame.to_file(tmp_path / "s.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "s.gpkg", min_area_sqm=low, max_area_sqm=high, chunk_rows=7)
    wanted = [name for name, (_, area) in rules.items() if area is not None and low <= area <= high]
    assert geopandas.read_file(done.output)["name"].tolist() == wanted
    assert len(wanted) > 7
    assert done.outcome.result["features_null_area"] == sum(area is None for _, area in rules.values())
    job = make_job(tmp_path / "s.gpkg", done.output, min_area_sqm=low, max_area_sqm=high)
    checks = verified_again(tmp_path / "s.gpkg", done, job)
    assert all(checks.values()), checks
