"""Layers that hold other types of geometries than they declare, as those of ogr2ogr often do: they come out whole."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from conftest_vector import make_job, verified_again

from lib.errors import OutputError
from lib.vector.sources import sqlite as tables

_BOX, _LINE = shapely.box(10, 50, 10.01, 50.01), shapely.LineString([(0, 0), (1, 1)])
_TWO = shapely.MultiPolygon([_BOX, shapely.box(11, 50, 11.1, 50.1)])
_CASES: dict[str, tuple[str, list[Any], str]] = {
    "polygons": ("Polygon", [_BOX, _BOX], "Polygon"),
    "multi among polygons": ("Polygon", [_BOX, None, _TWO], "MultiPolygon"),
    "with Z": ("Polygon Z", [shapely.force_3d(_BOX, 1), shapely.force_3d(_TWO, 2)], "MultiPolygon Z"),
    "multi among lines": ("LineString", [_LINE, shapely.MultiLineString([_LINE, _LINE])], "MultiLineString"),
    "polygons among multi": ("MultiPolygon", [_BOX, _TWO], "MultiPolygon"),
    "multi among points": ("Point", [shapely.Point(1, 2), shapely.MultiPoint([(1, 2), (3, 4)])], "Unknown"),
    "points among polygons": ("Polygon", [_BOX, shapely.Point(1, 2)], "Unknown"),
    "a collection among polygons": ("Polygon", [_TWO, shapely.GeometryCollection([_BOX, _LINE])], "Unknown"),
}


def _layer(path: Path, declared: str, shapes: list[Any]) -> Path:
    values = [None if each is None else shapely.to_wkb(each, flavor="iso") for each in shapes]
    pyogrio.raw.write(
        path, np.array(values, object), [np.arange(len(shapes))], ["n"], driver="GPKG", geometry_type=declared,
        crs="EPSG:4326", SPATIAL_INDEX="NO",
    )  # fmt: skip
    return path


@pytest.mark.filterwarnings("ignore:A geometry of type")
@pytest.mark.parametrize("case", _CASES)
def test_a_flatgeobuf_holds_them_all(case: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Single and multi become multi; of others the layer says no type; a clean layer stays as it is declared."""
    declared, shapes, wanted = _CASES[case]
    source = _layer(tmp_path / "s.gpkg", declared, shapes)
    choices = {"where": "n <> 1"} if None in shapes else {}
    done = run_job(source, "out.fgb", **choices)
    assert all(check.passed for check in done.outcome.checks)
    assert pyogrio.read_info(done.output)["geometry_type"] == wanted
    found = geopandas.read_file(done.output).sort_values("n").geometry.tolist()
    for one, other in zip(found, [each for each in shapes if each is not None], strict=True):
        assert one.equals(other)
        assert one.has_z == other.has_z
        assert one.geom_type == (wanted.partition(" ")[0] if wanted.startswith("Multi") else other.geom_type)
    assert all(verified_again(source, done, make_job(source, done.output, **choices)).values())


@pytest.mark.filterwarnings("ignore:A geometry of type")
def test_a_geopackage_keeps_them_and_says_so(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """What it declares and what it holds stay as they are, in our words."""
    source = _layer(tmp_path / "s.gpkg", "Polygon", [_BOX, _TWO])
    done = run_job(source)
    assert geopandas.read_file(done.output).geom_type.tolist() == ["Polygon", "MultiPolygon"]
    assert pyogrio.read_info(done.output)["geometry_type"] == "Polygon"
    (note,) = done.outcome.warnings
    assert note == "layer s is declared as POLYGON, and has MULTIPOLYGON, too, which is kept"


@pytest.mark.filterwarnings("ignore:A geometry of type")
def test_mixed_heights_are_still_refused(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A FlatGeobuf drops a Z that it does not declare, without a word."""
    source = _layer(tmp_path / "s.gpkg", "Polygon Z", [shapely.force_3d(_BOX, 1), shapely.Point(1, 2)])
    with pytest.raises(OutputError, match="FlatGeobuf cannot hold"):
        run_job(source, "out.fgb")


def test_types_are_those_in_the_table(tmp_path: Path) -> None:
    """By the bytes themselves, behind every kind of envelope, in both byte orders; what is no geometry has none."""
    source = _layer(tmp_path / "s.gpkg", "Unknown", [_BOX] * 9)
    shapes = (shapely.Point(1, 2), _LINE, _BOX, shapely.force_3d(_TWO, 1), shapely.MultiPoint([(1, 2)]))
    several = (*shapes, shapely.MultiLineString(), shapely.GeometryCollection())
    heads = ((0x01, 0), (0x03, 32), (0x05, 48), (0x07, 48), (0x09, 64), (0x11, 0), (0x02, 32))
    with sqlite3.connect(source) as database:
        for fid, ((flags, envelope), shape) in enumerate(zip(heads, several, strict=True), 1):
            wkb = shapely.to_wkb(shape, flavor="iso", byte_order=fid % 2)
            blob = b"GP\0" + bytes([flags]) + b"\0" * (4 + envelope) + wkb
            database.execute("UPDATE s SET geom = ? WHERE fid = ?", (blob, fid))
        database.execute("UPDATE s SET geom = NULL WHERE fid = 8")
        database.execute("UPDATE s SET geom = x'4750' WHERE fid = 9")
    database.close()
    assert tables.types_in(source, "s", "geom") == {1, 2, 3, 4, 5, 6, 7}
    assert tables.types_in(source, "none", "geom") == set()
