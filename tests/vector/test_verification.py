"""What verification sees: rows lost, doubled, changed, and outputs of another shape."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely
from conftest_vector import AMPLE_BYTES, make_bench, make_job, parcels, room, solid, verified

from lib.jobs import ProfileJob, Resources, VerifyJob
from lib.reports import Plan
from lib.units import MIB
from lib.vector import profile, recompute, verify
from lib.vector.steps import Row


@pytest.fixture(params=["a.gpkg", "a.fgb", "a.shp"])
def filtered(request: pytest.FixtureRequest, run_job: Callable[..., Any], tmp_path: Path) -> tuple[Path, Any]:
    """A source in each format and a job that filtered it into a GeoPackage without an index."""
    frame = solid(parcels(300))
    frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
    source = tmp_path / request.param
    frame.to_file(source)
    return source, run_job(source, min_area_sqm=1500, chunk_rows=64)


def _full(source: Path, done: Any, **choices: Any) -> dict[str, bool]:
    work = make_job(source, done.output, min_area_sqm=1500, chunk_rows=64, **choices)
    job = VerifyJob(
        source=work.source,
        output=work.destination,
        work=work,
        expected=done.plan.expected,
        result=done.outcome.result,
        resources=work.resources,
    )
    return verified(job)


def _change(output: Path, statement: str) -> None:
    with sqlite3.connect(output) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{trigger}"')
        (table,) = database.execute("SELECT table_name FROM gpkg_contents").fetchone()
        database.execute(statement.format(table=table))
    database.close()


def test_a_good_output_passes_everything(filtered: tuple[Path, Any]) -> None:
    """All checks pass, among them the decoding of all rows and the membership of sampled source rows."""
    checks = _full(*filtered)
    assert all(checks.values())
    assert {"opens", "driver", "layer", "geometry type", "fields", "field types", "CRS", "count"} <= set(checks)
    assert {"decodes", "areas", "membership"} <= set(checks)


def test_rows_replaced_by_small_ones_are_seen(filtered: tuple[Path, Any]) -> None:
    """A row that does not satisfy the predicate fails both the area check and membership."""
    source, done = filtered
    small = shapely.to_wkb(shapely.box(-98, 38, -97.9999, 38.0001), byte_order=1).hex()
    header = "4750000100000000"  # GeoPackage binary: magic, version 0, little-endian without envelope, srs_id
    _change(done.output, "UPDATE {table} SET geom = x'" + header + small + "' WHERE n % 2 = 0")  # noqa: S608 - our own table
    checks = _full(source, done)
    assert not checks["areas"]
    assert not checks["membership"]


def test_attributes_mixed_up_are_seen(filtered: tuple[Path, Any]) -> None:
    """Rows whose attributes belong to another geometry are missing from the output."""
    source, done = filtered
    _change(done.output, "UPDATE {table} SET n = n + 1")
    checks = _full(source, done)
    assert checks["areas"]
    assert not checks["membership"]


def test_a_lost_row_is_seen(filtered: tuple[Path, Any]) -> None:
    """A row fewer fails the count and membership."""
    source, done = filtered
    _change(done.output, "DELETE FROM {table} WHERE n = (SELECT MIN(n) FROM {table})")
    _change(done.output, "UPDATE gpkg_ogr_contents SET feature_count = (SELECT COUNT(*) FROM {table})")
    checks = _full(source, done)
    assert not checks["count"]
    assert not checks["membership"]


def test_verify_none_recomputes_nothing(filtered: tuple[Path, Any]) -> None:
    """Structure and counts are never skipped; recomputation is."""
    checks = _full(*filtered, verify="none")
    assert all(checks.values())
    assert "count" in checks
    assert "areas" not in checks


def test_an_output_that_does_not_open(tmp_path: Path) -> None:
    """A file that is no dataset fails the first check."""
    (tmp_path / "out.gpkg").write_bytes(b"nothing")
    bench, events = make_bench(None)
    verify.basic(str(tmp_path / "out.gpkg"), {}, {}, bench, ())
    assert [(check.name, check.passed) for check in bench.checks] == [("opens", False)]
    assert events[0]["event"] == "check"


def test_the_plan_of_a_full_verification(filtered: tuple[Path, Any]) -> None:
    """Both layers are looked at; it fits its room and reads batches of bounded rows."""
    source, done = filtered
    job = VerifyJob(source=str(source), output=str(done.output), resources=Resources(limit_bytes=AMPLE_BYTES))
    plan = verify.prepare(job, room()).look()
    assert sum(plan.terms.values()) == plan.projected_bytes
    assert plan.batch_rows is not None
    assert plan.batch_rows <= 4096


def test_profile_reads_a_sample_and_suggests(filtered: tuple[Path, Any]) -> None:
    """A profile reads the batches asked for and suggests no less than the planner would project."""
    source, done = filtered
    resources = Resources(limit_bytes=AMPLE_BYTES, chunk_rows=32, drift_threshold_bytes=AMPLE_BYTES)
    job = ProfileJob(source=str(source), sample_chunks=3, resources=resources)
    plans: list[Plan] = []
    bench, _ = make_bench(None, plans.append)
    result = profile.prepare(job, room()).run(bench).result
    assert (result["batches_read"], result["features_read"]) == (3, 96)
    assert result["features"] == done.outcome.result["features_read"]
    assert result["suggested_chunk_rows"] == 32
    assert result["suggested_limit_mb"] * MIB >= plans[0].projected_bytes
    assert result["bytes_per_row"] > 50
    assert result["kind"] == "vector"


def test_sampled_geometries_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large ones only so many are kept, the first among them however large; what is not kept is not claimed."""
    monkeypatch.setattr(recompute, "_KEPT_BYTES", 100_000)
    discs = [shapely.Point(n, 0).buffer(0.1, quad_segs=250) for n in range(10)]  # 1,001 vertices: 24 kB
    digests = [bytes([n]) for n in range(10)]
    members = recompute.Membership(by_geometry=True)
    members.add(digests, [Row({}, disc) for disc in discs], ())
    assert members.rows == members.missing == 4
    members.see(digests, discs)
    assert members.missing == 0
    alone = recompute.Membership(by_geometry=True)
    monkeypatch.setattr(recompute, "_KEPT_BYTES", 1_000)
    alone.add(digests, [Row({}, disc) for disc in discs], ())
    assert alone.rows == alone.missing == 1
