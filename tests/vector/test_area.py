"""Areas: the error bound against Geod, rings against shapely, methods by CRS."""

import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from conftest_vector import geod_areas, parcels
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from lib.errors import SourceError
from lib.vector.area import decide, measure
from lib.vector.coarse import ring_areas
from lib.vector.method import AreaMethod, Bounds, area_method
from lib.vector.recompute import plain_area
from lib.vector.wkb import column_of, find_rings, promote_to_multi, ring_coordinates

WGS84 = AreaMethod("geodesic", math.radians(1), Geod(ellps="WGS84"))
CLARKE = AreaMethod("geodesic", math.radians(1), Geod(ellps="clrk66"))
SPHERE = AreaMethod("geodesic", math.radians(1), Geod(a=6371000, b=6371000))


def _wkb(shapes: list[Any], **options: Any) -> Any:
    return column_of(pa.array(shapely.to_wkb(np.array(shapes, object), **options).tolist(), pa.binary()))


def _geod(shape: Any, geod: Geod) -> float:
    parts = shapely.get_parts(shape)
    return sum(abs(geod.geometry_area_perimeter(shapely.orient_polygons(part))[0]) for part in parts)


@st.composite
def _polygons(draw: st.DrawFn) -> Any:
    """A star-shaped polygon of any size up to some 500 km, anywhere, with or without a hole, wound either way."""
    lon, lat = draw(st.floats(-170, 170)), draw(st.floats(-84, 84))
    size = 10 ** draw(st.floats(-5, 0.6))
    corners = draw(st.integers(3, 24))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))

    def ring(share: float) -> Any:
        angles = (np.arange(corners) + generator.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        radii = size * share * generator.uniform(0.8, 1.0, corners)
        return np.column_stack([lon + radii * np.cos(angles), np.clip(lat + radii * np.sin(angles), -90, 90)])

    holes = [ring(0.2)[:: draw(st.sampled_from([1, -1]))]] if draw(st.booleans()) else []
    return shapely.Polygon(ring(1)[:: draw(st.sampled_from([1, -1]))], holes)


@pytest.mark.parametrize("method", [WGS84, CLARKE, SPHERE], ids=["WGS84", "Clarke 1866", "sphere"])
@settings(max_examples=150)
@given(polygon=_polygons())
def test_the_bound_is_never_below_the_error(method: AreaMethod, polygon: Any) -> None:
    """|approximation - Geod| stays within the bound, for every polygon that the bound is finite for."""
    column = _wkb([polygon])
    areas, errors = measure(column, find_rings(column), method)
    assert method.geod is not None
    assert abs(areas[0] - _geod(polygon, method.geod)) <= errors[0]
    rings = find_rings(column)
    coarse, coarse_errors = ring_areas(column, rings, method)
    area = abs(coarse[~rings.holes]).sum() - abs(coarse[rings.holes]).sum()
    assert abs(area - _geod(polygon, method.geod)) <= coarse_errors.sum()


@settings(max_examples=100)
@given(
    polygons=st.lists(_polygons(), min_size=1, max_size=40), nudge=st.sampled_from([0.0, 1e-12, -1e-12, 1e-7, -1e-7])
)
def test_decisions_near_a_threshold_are_geod_s(polygons: list[Any], nudge: float) -> None:
    """With a threshold at, or a hair beside, a polygon's own area every decision is Geod's."""
    assert WGS84.geod is not None
    areas = np.array([_geod(polygon, WGS84.geod) for polygon in polygons])
    low = float(areas[0] * (1 + nudge))
    decision = decide(_wkb(polygons), WGS84, Bounds(low, None))
    near = np.abs(areas - low) <= 1e-14 * low  # equal up to the order of a sum over holes
    assert ((decision.keep == (areas >= low)) | (near & (np.arange(len(areas)) > 0)) | (near & (nudge != 0))).all()


def test_clear_cases_are_not_arbitrated() -> None:
    """Parcels far from the threshold never reach Geod."""
    boxes = list(shapely.box(np.arange(50) * 0.01, 45, np.arange(50) * 0.01 + 0.001, 45.001))
    decision = decide(_wkb(boxes), WGS84, Bounds(100.0, None))
    assert decision.keep.all()
    assert decision.arbitrated == 0


def test_poles_and_the_antimeridian_are_arbitrated() -> None:
    """A cap around the pole and a box across 180° get Geod's area, which takes the short way round."""
    cap = shapely.Polygon([(lon, -80) for lon in range(-180, 180, 10)])
    box = shapely.Polygon([(179.9, 0), (-179.9, 0), (-179.9, 0.2), (179.9, 0.2)])
    geod = WGS84.geod
    assert geod is not None
    areas = [abs(geod.geometry_area_perimeter(each)[0]) for each in (cap, box)]
    assert areas[1] < 1e9
    for low, kept in ((min(areas) * 0.999, [True, True]), (areas[1] * 1.001, [True, False])):
        decision = decide(_wkb([cap, box]), WGS84, Bounds(low, None))
        assert decision.keep.tolist() == kept
        assert decision.arbitrated >= 1


def test_rings_are_shapely_s() -> None:
    """Rings found in WKB have shapely's coordinates, in every dimension and layout, many rings and few."""
    holes = [shapely.box(x, 0, x + 0.5, 0.5).exterior for x in range(1, 40)]
    shapes = [
        shapely.Polygon(shapely.box(0, -1, 50, 2).exterior, holes),
        shapely.MultiPolygon([shapely.box(n, n, n + 1, n + 1) for n in range(30)]),
        shapely.from_wkt("POLYGON Z ((0 0 5, 1 0 5, 1 1 5, 0 0 5))"),
        None,
        shapely.Polygon(),
        shapely.Point(1, 2),
        *shapely.box(np.arange(60), 0, np.arange(60) + 1, 1),
    ]
    for flavor in ("iso", "extended"):
        column = _wkb(shapes, flavor=flavor, output_dimension=3)
        rings = find_rings(column)
        assert not rings.damaged.any()
        for row, shape in enumerate(shapes):
            mine = rings.rows == row
            found = ring_coordinates(
                column.data, rings.starts[mine], rings.counts[mine], 8 * column.dimensions[rings.rows[mine]]
            )
            polygonal = shape is not None and shape.geom_type != "Point"
            wanted = shapely.get_coordinates(shape) if polygonal else np.zeros((0, 2))
            np.testing.assert_array_equal(found, wanted)
            assert rings.holes[mine].sum() == (39 if row == 0 else 0)


@settings(max_examples=200)
@given(data=st.data())
def test_bytes_cut_short_are_damaged_and_never_read_past(data: st.DataObject) -> None:
    """A polygon's bytes cut anywhere after their header are reported as damaged."""
    whole = shapely.to_wkb(shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]))
    cut = data.draw(st.integers(9, len(whole) - 1))
    copies = data.draw(st.sampled_from([1, 40]))
    column = column_of(pa.array([whole[:cut]] * copies, pa.binary()))
    assert find_rings(column).damaged.all()


def test_a_long_ring_is_measured_in_slices() -> None:
    """A ring longer than the temporaries has the same area as shapely gives it."""
    angles = np.linspace(0, 2 * np.pi, 200_001)[:-1]
    ring = shapely.Polygon(np.column_stack([500_000 + 1000 * np.cos(angles), 4_000_000 + 1000 * np.sin(angles)]))
    column = _wkb([ring, shapely.box(0, 0, 1, 1)])
    areas, errors = measure(column, find_rings(column), AreaMethod("planar", 1.0))
    assert areas[0] == pytest.approx(ring.area, rel=1e-9)
    assert abs(areas[0] - ring.area) <= errors[0]
    assert areas[1] == pytest.approx(1)


def test_slices_of_an_arrow_array_keep_their_offset_and_nulls() -> None:
    """A sliced column with nulls is read from its own place."""
    shapes = [shapely.box(0, 0, n, 1) if n % 3 else None for n in range(1, 31)]
    array = pa.array([None if each is None else shapely.to_wkb(each) for each in shapes], pa.binary())
    column = column_of(array.slice(7, 12))
    areas, _ = measure(column, find_rings(column), AreaMethod("planar", 1.0))
    assert areas.tolist() == [0 if each is None else each.area for each in shapes[7:19]]


def test_collections_and_big_endian_go_by_shapely() -> None:
    """What the fast path does not read has its area all the same."""
    box = shapely.box(0, 0, 2, 3)
    collection = shapely.GeometryCollection([box, shapely.Point(0, 0), shapely.MultiPolygon([shapely.box(5, 5, 6, 6)])])
    values = [shapely.to_wkb(box, byte_order=0), shapely.to_wkb(collection)]
    column = column_of(pa.array(values, pa.binary()))
    planar = AreaMethod("planar", 1.0)
    assert decide(column, planar, Bounds(6.0, 6.0)).keep.tolist() == [True, False]
    assert decide(column, planar, Bounds(7.0, 7.0)).keep.tolist() == [False, True]


def test_points_and_lines_have_no_extent() -> None:
    """A line's area is 0: kept by a maximum or a minimum of 0, not above."""
    column = _wkb([shapely.LineString([(0, 0), (1, 1)]), shapely.Point(0, 0)])
    assert decide(column, WGS84, Bounds(0.0, None)).keep.all()
    assert not decide(column, WGS84, Bounds(1e-9, None)).keep.any()


def test_promotion_is_shapely_s_multi() -> None:
    """Singles are wrapped, multis and nulls left, Z kept."""
    shapes = [shapely.box(0, 0, 1, 1), shapely.MultiPolygon([shapely.box(0, 0, 1, 1)]), None]
    z = shapely.from_wkt("POLYGON Z ((0 0 5, 1 0 5, 1 1 5, 0 0 5))")
    array = pa.array(
        [None if each is None else shapely.to_wkb(each, flavor="iso") for each in [*shapes, z]], pa.binary()
    )
    found = shapely.from_wkb(promote_to_multi(array).to_pylist())
    assert [None if each is None else each.geom_type for each in found] == [
        "MultiPolygon",
        "MultiPolygon",
        None,
        "MultiPolygon",
    ]
    assert found[0].equals(shapes[0])
    assert shapely.get_coordinates(found[3], include_z=True)[0].tolist() == [0, 0, 5]
    (code,) = struct.unpack_from("<I", promote_to_multi(array)[3].as_py(), 1)
    assert code == 1006


@pytest.mark.parametrize(
    ("crs", "wanted", "mode", "unit"),
    [
        ("EPSG:4326", "auto", "geodesic", math.radians(1)),
        ("EPSG:32614", "auto", "geodesic", math.radians(1)),
        ("EPSG:6933", "auto", "geodesic", math.radians(1)),
        ("EPSG:4807", "auto", "geodesic", math.pi / 200),
        ("EPSG:27572", "auto", "geodesic", math.pi / 200),
        ("EPSG:32614+5773", "auto", "geodesic", math.radians(1)),
        ("EPSG:32614", "planar", "planar", 1.0),
        ("EPSG:2264", "planar", "planar", 1200 / 3937),
        ("EPSG:32614+5773", "planar", "planar", 1.0),
    ],
)
def test_methods(crs: str, wanted: Any, mode: str, unit: float) -> None:
    """`auto` is on the ellipsoid whatever the CRS, by the unit of its degrees; `planar` by the CRS's linear unit."""
    method = area_method(crs, wanted, "a.gpkg")
    assert (method.mode, method.unit) == (mode, pytest.approx(unit))


def test_a_crs_without_an_ellipsoid_is_planar_and_says_so() -> None:
    """A site's own grid has areas in its plane; geodesic ones are refused."""
    local = 'ENGCRS["Site",EDATUM["Peg 1"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["foot",0.3048]]'
    method = area_method(local, "auto", "a.gpkg")
    assert (method.mode, method.unit) == ("planar", 0.3048)
    assert "Site" in method.note
    with pytest.raises(SourceError, match="no ellipsoid"):
        area_method(local, "geodesic", "a.gpkg")


# A place and how far about it: conformal, equal-area and neither; metres and feet; far from where they are meant for; by poles.
_PLACES = {
    "EPSG:32633": (1_500_000, 5_000_000, 300_000),
    "EPSG:3031": (0, 0, 2_500_000),
    "EPSG:3413": (500_000, -3_500_000, 500_000),
    "ESRI:102004": (0, 2_500_000, 500_000),
    "EPSG:3034": (3_000_000, 4_500_000, 1_000_000),
    "EPSG:3035": (4_000_000, 3_000_000, 1_000_000),
    "ESRI:54030": (1_000_000, 6_000_000, 2_000_000),
    "EPSG:3857": (1_000_000, 8_000_000, 1_000_000),
    "EPSG:2264": (2_000_000, 600_000, 500_000),
    "EPSG:5514": (-600_000, -1_100_000, 100_000),
    "EPSG:27572": (600_000, 2_200_000, 300_000),
    "ESRI:53009": (1_000_000, 3_000_000, 6_000_000),
    "EPSG:32633+5773": (500_000, 5_000_000, 100_000),
}


@pytest.mark.parametrize("crs", _PLACES)
def test_areas_in_a_projection_are_those_on_the_ellipsoid(crs: str) -> None:
    """Rings of 3 m to 30 km are, within their bounds, as Geod has them from their unprojected vertices."""
    method = area_method(crs, "auto", "a.gpkg")
    x, y, reach = _PLACES[crs]
    generator = np.random.default_rng(7)
    sizes = 10 ** generator.uniform(0.5, 4.5, 400)
    shapes = [_star(generator, x + reach * east, y + reach * north, size) for east, north, size in
              zip(generator.uniform(-1, 1, 400), generator.uniform(-1, 1, 400), sizes, strict=True)]  # fmt: skip
    areas, errors = ring_areas(column := _wkb(shapes), find_rings(column), method)
    base = CRS(crs).geodetic_crs
    assert base is not None
    degrees = Transformer.from_crs(CRS(crs), base, always_xy=True)
    grads = base.axis_info[0].unit_conversion_factor
    true = [_geod(shapely.transform(each, lambda xy: np.degrees(np.column_stack(degrees.transform(*xy.T)) * grads)),
                  base.get_geod()) for each in shapes]  # fmt: skip
    is_known = np.isfinite(errors)
    assert (np.abs(np.abs(areas) - true)[is_known] <= errors[is_known]).all()
    # By the poles, and beyond where a projection ends, nothing is known.
    assert is_known.mean() > (0.1 if crs in ("EPSG:3031", "ESRI:53009") else 0.7)
    parcels = is_known & (sizes < 100)
    assert (errors[parcels] < 0.05 * np.array(true)[parcels]).all()
    low = float(np.median(true))
    assert (decide(column, method, Bounds(low, None)).keep == (np.array(true) >= low)).all()


def _star(generator: np.random.Generator, x: float, y: float, size: float) -> Any:
    corners = int(generator.integers(3, 9))
    angles = (np.arange(corners) + generator.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    radii = size * generator.uniform(0.3, 1, corners)
    return shapely.Polygon(np.column_stack([x + radii * np.cos(angles), y + radii * np.sin(angles)]))


def test_a_far_outlier_does_not_slow_the_others() -> None:
    """One feature at the plane's origin and one at 1e300: the others are decided by plane areas all the same."""
    method = area_method("EPSG:32633", "auto", "a.gpkg")
    squares = [shapely.box(x, 5e6, x + 50, 5e6 + 50) for x in range(400_000, 450_000, 100)]
    strays = [shapely.box(0, 0, 50, 50), shapely.box(1e300, 0, 2e300, 1)]
    decision = decide(_wkb(squares + strays), method, Bounds(1000.0, 3000.0))
    assert decision.keep.tolist() == [True] * len(squares) + [True, False]
    assert decision.outside == 1
    column = _wkb(squares + strays)
    assert np.isfinite(ring_areas(column, find_rings(column), method)[1][:-2]).all()


@pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:3857", "EPSG:2264", "EPSG:5070"])
def test_parcels_in_a_projection_and_in_degrees_are_kept_alike(crs: str) -> None:
    """The same parcels, with a threshold at the median: what is kept in degrees is kept in the projection."""
    frame = parcels(400)
    areas = geod_areas(frame)
    low = float(np.nanmedian(areas)) * (1 + 1e-6)
    kept = [
        decide(_wkb(list(each.geometry)), area_method(name, "auto", "a.gpkg"), Bounds(low, None)).keep
        for name, each in (("EPSG:4326", frame), (crs, frame.to_crs(crs)))
    ]
    assert (kept[0] == kept[1]).all()
    assert (kept[0] == (areas >= low)).all()


def test_a_rotated_pole_is_unrotated() -> None:
    """Coordinates of a derived geographic CRS are not longitude and latitude: areas are those of the places themselves."""
    rotated = CRS("+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +ellps=GRS80 +type=crs")
    square = shapely.box(1, 25, 1.01, 25.01)
    base = rotated.geodetic_crs
    assert base is not None
    places = Transformer.from_crs(rotated, base, always_xy=True)
    true = _geod(shapely.transform(square, lambda xy: np.column_stack(places.transform(*xy.T))), base.get_geod())
    method = area_method(rotated.to_wkt(), "auto", "a.gpkg")
    assert decide(_wkb([square]), method, Bounds(true * 0.999999, true * 1.000001)).keep.all()


def test_a_method_that_has_no_meaning_is_refused() -> None:
    """No CRS, planar degrees and geocentric coordinates are errors that say what to do."""
    with pytest.raises(SourceError, match=r"a\.gpkg has no CRS") as caught:
        area_method(None, "auto", "a.gpkg")
    assert "--assume-crs" in caught.value.hint
    with pytest.raises(SourceError, match="degrees"):
        area_method("EPSG:4326", "planar", "a.gpkg")
    with pytest.raises(SourceError, match="no meaning"):
        area_method("EPSG:4978", "auto", "a.gpkg")
    assert CRS("EPSG:3857").is_projected


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_the_plain_path_is_pyproj_s_own(crs: str) -> None:
    """Areas ring by ring are those of `Geod.geometry_area_perimeter` on oriented polygons, holes, parts and Z included."""
    one = shapely.box(10, 50, 11, 51).difference(shapely.MultiPolygon([shapely.box(10.1, 50.1, 10.2, 50.3),
                                                                       shapely.box(10.5, 50.5, 10.9, 50.6)]))  # fmt: skip
    several = shapely.MultiPolygon([one, shapely.box(12, 50, 12.5, 50.5)])
    geod = Geod(ellps="WGS84")
    to_crs = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    method = area_method(crs, "geodesic", "a")
    for shape in (
        one,
        several,
        shapely.reverse(one),
        shapely.force_3d(one, 7.0),
        shapely.GeometryCollection([several]),
    ):
        parts = list(shapely.get_parts(shapely.force_2d(shape).buffer(0)))
        true = sum(abs(geod.geometry_area_perimeter(shapely.orient_polygons(part))[0]) for part in parts)
        there = shapely.transform(shape, to_crs.transform, interleaved=False) if crs != "EPSG:4326" else shape
        assert plain_area(there, method) == pytest.approx(true, rel=1e-9)
