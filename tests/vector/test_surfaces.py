"""Surfaces, which GEOS does not read: passed through as they are, and refused by name where an area is asked for."""

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pyogrio
import pytest
from conftest_vector import make_job, prepared, verified_again
from shapely.geometry import MultiPolygon, box

from lib.errors import DataError, SourceError

_RING = struct.pack("<I8d", 4, 0, 0, 100, 0, 0, 100, 0, 0)
_TRIANGLE = struct.pack("<BII", 1, 17, 1) + _RING
_SURFACE = struct.pack("<BII", 1, 15, 1) + struct.pack("<BII", 1, 3, 1) + _RING
_ODD = {
    "Triangle": _TRIANGLE,
    "TIN": struct.pack("<BII", 1, 16, 1) + _TRIANGLE,
    "PolyhedralSurface": _SURFACE,
    "GeometryCollection with": struct.pack("<BII", 1, 7, 1) + _TRIANGLE,
}


def _layer(path: Path, wkb: bytes, declared: str = "GEOMETRY") -> Path:
    """Forty squares, the 31st of which is something else, under a type that allows it or not."""
    frame = geopandas.GeoDataFrame(
        {"n": range(1, 41)}, geometry=[MultiPolygon([box(0, 0, 10, 10)])] * 40, crs="EPSG:32633"
    )
    written = "Unknown" if declared == "GEOMETRY" else "MultiPolygon"
    pyogrio.write_dataframe(frame, path, layer="s", geometry_type=written, SPATIAL_INDEX="NO")
    database = sqlite3.connect(path)
    database.execute("UPDATE s SET geom = ? WHERE fid = 31", (b"GP\0\1" + struct.pack("<i", 32633) + wkb,))
    database.execute("UPDATE gpkg_geometry_columns SET geometry_type_name = ?", (declared,))
    database.commit()
    database.close()
    return path


@pytest.mark.parametrize("declared", ["GEOMETRY", "MULTIPOLYGON"])
@pytest.mark.parametrize("kind", _ODD)
def test_an_area_is_refused_by_type_and_row(
    kind: str, declared: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """One line that says what and where, across batches."""
    source = _layer(tmp_path / "s.gpkg", _ODD[kind], declared)
    with pytest.raises(DataError, match=f"row 31 is a {kind}") as caught:
        run_job(source, min_area_sqm=1.0, chunk_rows=8)
    assert "-nlt" in caught.value.hint


@pytest.mark.parametrize("kind", _ODD)
def test_they_pass_through_unchanged(kind: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Without an area asked for each geometry comes out byte by byte, and full verification agrees."""
    source = _layer(tmp_path / "s.gpkg", _ODD[kind])
    done = run_job(source)
    database = sqlite3.connect(done.output)
    (blob,) = database.execute("SELECT geom FROM s WHERE fid = 31").fetchone()
    database.close()
    assert blob.endswith(_ODD[kind])
    work = make_job(source, tmp_path / "out.gpkg")
    checks = verified_again(source, done, work)
    assert all(checks.values()), checks
    assert "membership" in checks


@pytest.mark.parametrize("declared", ["TIN", "TRIANGLE", "POLYHEDRALSURFACE"])
def test_a_layer_that_declares_them_is_refused_before_any_work(declared: str, tmp_path: Path) -> None:
    """Where the header tells, nothing is read."""
    source = _layer(tmp_path / "s.gpkg", _TRIANGLE, declared)
    with pytest.raises(SourceError, match="is declared") as caught:
        prepared(make_job(source, tmp_path / "out.gpkg"))
    assert caught.value.exit_code == 2
