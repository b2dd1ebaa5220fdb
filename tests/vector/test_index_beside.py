"""A GeoPackage's R-tree that GDAL's thread builds while features are written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyogrio
import pytest
from conftest_vector import make_bench, make_job, parcels, prepared, room, solid

from lib.jobs import VectorJob
from lib.units import MIB
from lib.vector import engine
from lib.vector.sinks import gpkg


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A layer that is taken for a large one by us, and by GDAL."""
    monkeypatch.setattr(gpkg, "_BESIDE_FEATURES", 200)
    pyogrio.set_gdal_config_options({"OGR_GPKG_THREADED_RTREE_AT_FIRST_FEATURE": "YES"})
    source = tmp_path / "source.gpkg"
    solid(parcels(600)).to_file(source, layer="parcels")
    yield source
    pyogrio.set_gdal_config_options({"OGR_GPKG_THREADED_RTREE_AT_FIRST_FEATURE": None})


def _job(source: Path, destination: Path, least_sqm: float | None = None) -> VectorJob:
    job = make_job(source, destination, min_area_sqm=least_sqm, chunk_rows=64)
    return job.model_copy(update={"resources": job.resources.model_copy(update={"threads_max": 2})})


@pytest.mark.parametrize(("least_sqm", "is_beside"), [(None, True), (100, True), (15_000, False)])
def test_where_many_are_kept(large: Path, tmp_path: Path, least_sqm: float | None, *, is_beside: bool) -> None:
    """It is built beside the pass where the first rows say that it is large, and has every feature either way."""
    output = tmp_path / "out.gpkg"
    work = prepared(_job(large, tmp_path / "named.gpkg", least_sqm))
    kept = work.run(make_bench(output)[0]).result["features_kept"]
    assert work.layouts[0].index.is_beside == is_beside
    with closing(sqlite3.connect(output)) as database:
        indexed = {fid for (fid,) in database.execute("SELECT id FROM rtree_parcels_geom")}
        assert indexed == {fid for (fid,) in database.execute("SELECT fid FROM parcels")}
    assert len(indexed) == kept
    assert [each.name for each in tmp_path.iterdir() if "rtree" in each.name] == []


def test_not_without_the_memory(large: Path, tmp_path: Path) -> None:
    """Where the budget has no room for all features' entries, it is built behind the pass."""
    work = prepared(_job(large, tmp_path / "named.gpkg"))
    assert work.layouts[0].is_ahead
    scarce = replace(room(), budget_bytes=room().baseline_bytes + 40 * MIB)
    scarce_work = engine.prepare(_job(large, tmp_path / "named.gpkg"), scarce)
    for each, is_beside in ((work, True), (scarce_work, False)):
        each._index_beside()
        assert each.layouts[0].index.is_beside == is_beside
