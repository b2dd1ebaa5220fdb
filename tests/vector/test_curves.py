"""Curves become chords as they are read: as GDAL makes them, said, within the tolerance that is stated."""

import math
import sqlite3
import struct
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyogrio
import pytest
import shapely
from conftest_vector import make_job, verified_again

from lib.jobs import Resources, VectorJob
from lib.run import run_job as run_child
from lib.run import run_published
from lib.units import MIB, mib
from lib.vector import gdal
from lib.vector.row_checks import CHORD_SHARE, STEP_DEGREES
from lib.vector.whole import curved, damaged
from lib.vector.wkb import column_of

RADIUS = 50.0
_CIRCLE = struct.pack("<BII10d", 1, 8, 5, 0, 0, 50, 50, 100, 0, 50, -50, 0, 0)
_DISC = struct.pack("<BII", 1, 10, 1) + _CIRCLE
_COMPOUND = struct.pack("<BII", 1, 9, 2) + struct.pack("<BII6d", 1, 8, 3, 0, 0, 1, 1, 2, 0)
_COMPOUND += struct.pack("<BII4d", 1, 2, 2, 2, 0, 3, 5)
_CLOSED = struct.pack("<BII", 1, 9, 2) + struct.pack("<BII6d", 1, 8, 3, 0, 0, 5, 5, 10, 0)
_CLOSED += struct.pack("<BII4d", 1, 2, 2, 10, 0, 0, 0)
_TRIANGLE = struct.pack("<BIII8d", 1, 3, 1, 4, 20, 20, 21, 20, 21, 21, 20, 20)
_SURFACES = struct.pack("<BII", 1, 12, 2) + struct.pack("<BII", 1, 10, 1) + _CLOSED + _TRIANGLE
_KINDS = {
    "CURVEPOLYGON": (_DISC, "Polygon"),
    "CIRCULARSTRING": (_CIRCLE, "LineString"),
    "COMPOUNDCURVE": (_COMPOUND, "LineString"),
    "MULTISURFACE": (_SURFACES, "MultiPolygon"),
    "MULTICURVE": (struct.pack("<BII", 1, 11, 1) + _COMPOUND, "MultiLineString"),
    "GEOMETRYCOLLECTION": (struct.pack("<BII", 1, 7, 1) + _DISC, "GeometryCollection"),
}
_LIKE = {"LineString": shapely.LineString([(0, 0), (1, 1)]), "Polygon": shapely.box(0, 0, 10, 10)}


def _layer(path: Path, wkb: bytes, declared: str, plain: str) -> Path:
    """Twenty plain features, the 13th of which is a curve."""
    single = _LIKE.get(plain.removeprefix("Multi"), shapely.box(0, 0, 10, 10))
    makers = {"MultiPolygon": shapely.MultiPolygon, "MultiLineString": shapely.MultiLineString}
    shape = makers[plain]([single]) if plain in makers else single
    shape = shapely.GeometryCollection([single]) if plain == "GeometryCollection" else shape
    frame = geopandas.GeoDataFrame({"n": range(1, 21)}, geometry=[shape] * 20, crs="EPSG:32633")
    pyogrio.write_dataframe(frame, path, layer="s", SPATIAL_INDEX="NO")
    database = sqlite3.connect(path)
    database.execute("UPDATE s SET geom = ? WHERE fid = 13", (b"GP\0\1" + struct.pack("<i", 32633) + wkb,))
    database.execute("UPDATE gpkg_geometry_columns SET geometry_type_name = ?", (declared,))
    database.execute("PRAGMA writable_schema = ON")
    old = f'"geom" {plain.upper()}'
    database.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?)", (old, f'"geom" {declared}'))
    database.commit()
    database.close()
    return path


@pytest.mark.parametrize(
    ("wkb", "digest"),
    [
        (_DISC, "fd9cea9aee987f690f76aecb0b376b16"),
        (_COMPOUND, "3754bc448c9eb8d3eaeb9d56d96ecde0"),
        (_SURFACES, "494fdf8f319a715571bfda5ed7c4c6de"),
    ],
)
def test_chords_are_those_of_gdal(wkb: bytes, digest: str) -> None:
    """Byte by byte what the Python bindings of GDAL 3.13.3 give for GetLinearGeometry, which made these digests."""
    assert md5(gdal.linear(wkb, STEP_DEGREES) or b"", usedforsecurity=False).hexdigest() == digest


# No Shapefile holds collections.
_OUTPUTS = ("out.gpkg", "out.fgb", "out.parquet", "out.shp")
_WRITTEN = [
    (kind, output) for kind in _KINDS for output in _OUTPUTS if (kind, output) != ("GEOMETRYCOLLECTION", "out.shp")
]


@pytest.mark.parametrize(("kind", "output"), _WRITTEN)
def test_they_are_linear_in_every_output_and_said(
    kind: str, output: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """The layer has its linear type; the rest is as it was; how many and how exactly is said; full verification agrees."""
    wkb, plain = _KINDS[kind]
    source = _layer(tmp_path / "s.gpkg", wkb, kind, plain)
    done = run_job(source, output)
    assert done.outcome.result["features_linearised"] == 1
    said = next(note for note in done.outcome.warnings if "chords" in note)
    assert "curves of 1 features" in said
    assert "4 degrees" in said
    frame = geopandas.read_parquet(done.output) if output.endswith("parquet") else geopandas.read_file(done.output)
    found = frame.sort_values("n").geometry.iloc[12]
    assert len(frame) == 20
    wanted = shapely.from_wkb(gdal.linear(wkb, STEP_DEGREES))
    assert found.equals(wanted) if plain != "GeometryCollection" else found.normalize() == wanted.normalize()
    if output == "out.gpkg":
        assert pyogrio.read_info(done.output)["geometry_type"] == plain
    checks = verified_again(source, done, make_job(source, tmp_path / output))
    assert checks["membership"]
    assert all(checks.values()), checks


def test_areas_are_right_within_the_tolerance(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A disc's area, by the filter in its plane, is that of its chords, and nearer to the true one than the tolerance says."""
    source = _layer(tmp_path / "s.gpkg", _DISC, "CURVEPOLYGON", "Polygon")
    true, chords = math.pi * RADIUS**2, 45 * RADIUS**2 * math.sin(math.radians(STEP_DEGREES))
    assert 0 < 1 - chords / true < 2 * CHORD_SHARE
    for low, kept in ((chords * (1 - 1e-9), 1), (chords * (1 + 1e-9), 0)):
        done = run_job(source, f"{kept}.gpkg", min_area_sqm=low, area="planar")
        assert done.outcome.result["features_kept"] == kept
    done = run_job(source, "added.gpkg", add_area="sqm", area="planar")
    assert geopandas.read_file(done.output)["sqm"][12] == pytest.approx(chords, rel=1e-9)


def test_no_vertex_is_farther_from_its_arc_than_is_said() -> None:
    """The middle of each chord, as a share of the radius."""
    disc = shapely.from_wkb(gdal.linear(_DISC, STEP_DEGREES))
    xy = shapely.get_coordinates(disc)
    middles = (xy[1:] + xy[:-1]) / 2
    far = RADIUS - ((middles - (50, 0)) ** 2).sum(axis=1) ** 0.5
    assert far.max() <= CHORD_SHARE * RADIUS


def test_which_bytes_are_whole_and_which_are_curves() -> None:
    """Geometries of every type, whole and cut anywhere: what shapely reads or GDAL does, and nothing else."""
    shapes = [
        shapely.Point(1, 2), shapely.LineString([(0, 0), (1, 1), (2, 0)]), shapely.box(0, 0, 1, 1),
        shapely.box(0, 0, 9, 9).difference(shapely.box(1, 1, 2, 2)), shapely.MultiPoint([(0, 0), (1, 1)]),
        shapely.MultiLineString([[(0, 0), (1, 1)]]), shapely.MultiLineString([[(0, 0), (1, 1)], [(5, 5), (6, 6), (7, 7)]]),
        shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]),
        shapely.GeometryCollection([shapely.Point(0, 0), shapely.box(0, 0, 1, 1)]), shapely.Point(), shapely.Polygon(),
        shapely.force_3d(shapely.box(0, 0, 1, 1), 3), shapely.GeometryCollection(),
    ]  # fmt: skip
    whole = [shapely.to_wkb(each, flavor="iso") for each in shapes]
    whole += [
        shapely.to_wkb(shapes[2], byte_order=0),
        shapely.to_wkb(shapely.set_srid(shapes[2], 4326), include_srid=True),
    ]
    whole += [wkb for wkb, _ in _KINDS.values()]
    cut = [wkb[:size] for wkb in whole for size in range(1, len(wkb), 7)] + [whole[-1][:-1], b"\1\x63\0\0\0\0\0\0\0"]
    column = column_of(pa.array([*whole, None, *cut], pa.binary()))
    assert damaged(column).tolist() == [False] * (len(whole) + 1) + [True] * len(cut)
    start = len(whole) - len(_KINDS)
    assert [row for row in curved(column) if row < len(whole)] == list(range(start, len(whole)))


@pytest.mark.slow
def test_the_limit_that_is_named_does_for_chords(tmp_path: Path) -> None:
    """A layer of circles is planned as what it becomes, sixteen times as large: the smallest limit by the header is enough."""
    source, rows = tmp_path / "s.gpkg", 60_000
    frame = geopandas.GeoDataFrame({"n": range(rows)}, geometry=[shapely.box(0, 0, 10, 10)] * rows, crs="EPSG:32633")
    pyogrio.write_dataframe(frame, source, layer="s", SPATIAL_INDEX="NO")
    database = sqlite3.connect(source)
    database.execute("UPDATE s SET geom = ?", (b"GP\0\1" + struct.pack("<i", 32633) + _DISC,))
    database.execute("UPDATE gpkg_geometry_columns SET geometry_type_name = 'CURVEPOLYGON'")
    database.commit()
    database.close()

    def job(limit_bytes: int) -> VectorJob:
        output = str(tmp_path / "out.gpkg")
        resources = Resources(limit_bytes=limit_bytes, threads_max=2)
        return VectorJob(source=str(source), destination=output, driver="GPKG", overwrite=True, resources=resources)

    planned = run_child(job(4096 * MIB), plan_only=True)
    assert planned.plan is not None
    limit_bytes = mib(planned.plan["smallest_limit_bytes"]) * MIB
    report = run_published(job(limit_bytes))
    assert report.status == "completed", report.error
    assert report.plan is not None
    assert (report.memory.peak_bytes or 0) <= report.plan["projected_bytes"] <= limit_bytes
    assert len(report.attempts) == 1
