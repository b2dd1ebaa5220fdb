"""GeoParquet written and read: by geopandas, DuckDB and the footer; what cannot be held or read is refused in one line."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from conftest_vector import geod_areas, make_job, parcels, prepared, room, solid, verified_again
from geopandas.testing import assert_geodataframe_equal

from lib.errors import DataError, OutputError, SourceError
from lib.units import MIB
from lib.vector import engine
from lib.vector.extent import bounds_of
from lib.vector.sinks import parquet
from lib.vector.sources import open_source
from lib.vector.verify import read_provenance

THRESHOLD = 2500.0


@pytest.fixture(scope="module")
def frame() -> geopandas.GeoDataFrame:
    """Parcels with attributes of several types, nulls among them."""
    made = solid(parcels(400)).reset_index(drop=True)
    made["name"] = [None if n % 4 == 0 else f"straße {n}" for n in made["n"]]
    made["seen"] = pd.to_datetime([f"2024-02-29T12:00:{n % 60:02}.5Z" for n in made["n"]])
    made["flag"] = [bool(n % 2) for n in made["n"]]
    return made


def test_geopandas_and_duckdb_read_what_was_kept(
    frame: geopandas.GeoDataFrame, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """Rows, attributes, geometries and CRS are those that geopandas and Geod keep; the footer says types, box and covering."""
    frame.to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg", "out.parquet", min_area_sqm=THRESHOLD, chunk_rows=50)
    wanted = frame[geod_areas(frame) >= THRESHOLD].reset_index(drop=True)
    found = geopandas.read_parquet(done.output)
    assert_geodataframe_equal(found.rename_geometry("geometry"), wanted, check_dtype=False, check_like=True)
    assert found["seen"].dt.tz is not None
    assert found.crs == wanted.crs
    columns = "n, name, flag, bbox.xmin, bbox.ymax"
    rows = duckdb.from_parquet(str(done.output)).project(columns).order("n").fetchall()
    names = [None if pd.isna(name) else name for name in wanted["name"]]
    assert [row[:3] for row in rows] == list(zip(wanted["n"], names, wanted["flag"], strict=True))
    bounds = wanted.bounds
    assert all(
        row[3] <= west and row[4] >= north for row, west, north in zip(rows, bounds.minx, bounds.maxy, strict=True)
    )
    geo = json.loads(pq.read_metadata(done.output).metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert geo["version"] == "1.1.0"
    assert (column["encoding"], column["geometry_types"]) == ("WKB", sorted(found.geom_type.unique()))
    assert column["bbox"] == wanted.total_bounds.tolist()
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert all(check.passed for check in done.outcome.checks)
    assert (read_provenance(done.output) or {})["min_area_sqm"] == THRESHOLD
    job = make_job(tmp_path / "a.gpkg", done.output, min_area_sqm=THRESHOLD)
    checks = verified_again(tmp_path / "a.gpkg", done, job)
    assert checks["membership"]
    assert all(checks.values())


def test_a_geoparquet_file_is_a_source(
    frame: geopandas.GeoDataFrame, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """What geopandas wrote is filtered as from a GeoPackage, into each format, in row groups smaller than batches and larger."""
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=70, write_covering_bbox=True)
    wanted = frame["n"][geod_areas(frame) >= THRESHOLD].tolist()
    for name, rows in (("b.gpkg", 50), ("b.fgb", 1000), ("b.parquet", 64)):
        done = run_job(tmp_path / "a.parquet", name, min_area_sqm=THRESHOLD, chunk_rows=rows)
        read = geopandas.read_parquet if name.endswith("parquet") else geopandas.read_file
        found = read(done.output)
        assert sorted(found["n"]) == wanted
        assert [each for each in found if each != found.geometry.name] == ["n", "name", "value", "seen", "flag"]
        assert found["seen"].dt.tz is not None
        assert done.outcome.result["features_read"] == len(frame)
        job = make_job(tmp_path / "a.parquet", done.output, min_area_sqm=THRESHOLD)
        assert all(verified_again(tmp_path / "a.parquet", done, job).values())


def test_arrow_types_of_a_source(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Types that OGR has are kept from Parquet to Parquet; dictionaries are read; structs are left out, and said."""
    day = dt.datetime(2020, 1, 2, 3, 4, 5, 678901)  # noqa: DTZ001 - a Parquet file has such, too
    columns = {
        "u8": pa.array([1, None], pa.uint8()),
        "i16": pa.array([-1, None], pa.int16()), "u64": pa.array([2**63, None], pa.uint64()),
        "f": pa.array([0.5, None], pa.float32()), "text": pa.array(["ä", None]), "big": pa.array(["ä", None], pa.large_string()),
        "coded": pa.array(["a", None]).dictionary_encode(), "when": pa.array([day, None], pa.timestamp("us")),
        "utc": pa.array([day, None], pa.timestamp("us", "UTC")), "day": pa.array([day.date(), None]),
        "clock": pa.array([day.time(), None], pa.time64("us")), "raw": pa.array([b"\0", None]), "many": pa.array([[1, 2], None]),
        "none": pa.nulls(2), "money": pa.array([1, None]).cast(pa.decimal128(30, 2)),
        "json": pa.array(['{"a": 1}', None]).cast(pa.json_()),
        "nested": pa.array([{"a": 1}, None]),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    done = run_job(tmp_path / "a.parquet", "out.parquet")
    found = pq.read_table(done.output)
    for name, column in columns.items():
        if name in ("nested", "coded", "none", "money"):
            continue
        assert found[name].type == column.type, name
        assert found[name].to_pylist() == column.to_pylist(), name
    assert found["coded"].to_pylist() == ["a", None]
    assert found["money"].to_pylist() == [1.0, None]
    assert "nested" not in found.column_names
    assert any("nested (struct<a: int64>)" in note for note in done.outcome.warnings)
    info = pyogrio.read_info(run_job(tmp_path / "a.parquet", "out.gpkg").output)
    types = dict(zip(info["fields"], zip(info["ogr_types"], info["ogr_subtypes"], strict=True), strict=True))
    assert types["when"][0] == types["utc"][0] == "OFTDateTime"
    assert types["json"] == ("OFTString", "OFSTJSON")
    assert types["i16"] == ("OFTInteger", "OFSTInt16")


def test_row_groups_are_bounded_in_bytes(
    run_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are gathered until a row group has its bytes, and no further, whatever rows a batch has."""
    monkeypatch.setattr(parquet, "_MOST_BYTES", 40_000)
    monkeypatch.setattr(parquet, "_LEAST_BYTES", 40_000)
    parcels(2000).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg", "out.parquet", chunk_rows=32)
    footer = pq.read_metadata(done.output)
    sizes = [footer.row_group(at).total_byte_size for at in range(footer.num_row_groups)]
    assert len(sizes) > 5
    assert max(sizes) < 60_000
    assert footer.num_rows == 2000
    assert done.plan.terms["index while writing"] == 3 * 40_000 + 6 * MIB


@pytest.mark.parametrize(
    ("zone", "wanted"), [("", None), ("Z", "UTC"), ("+05:30", "UTC")], ids=["without", "UTC", "another"]
)
def test_dates_with_times(zone: str, wanted: str | None, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Without a zone they stay without one; in a zone they are the same instants in UTC, which is said."""
    texts = [None, f"2020-01-02T03:04:05.678{zone}"]
    _write_dates(tmp_path / "a.gpkg", texts)
    done = run_job(tmp_path / "a.gpkg", "out.parquet")
    found = pq.read_table(done.output)["v"]
    assert found.type == pa.timestamp("ms", wanted)
    assert found.to_pylist()[1] == dt.datetime.fromisoformat(str(texts[1]))
    assert any("become UTC: v" in note for note in done.outcome.warnings)


def test_dates_both_with_and_without_a_zone_are_refused(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A Parquet column holds one kind: the field is named."""
    _write_dates(tmp_path / "a.gpkg", ["2020-01-02T03:04:05Z", "2020-01-02T03:04:05"])
    with pytest.raises(OutputError, match="field 'v' has dates with times both with and without a zone"):
        run_job(tmp_path / "a.gpkg", "out.parquet")


def _write_dates(path: Path, texts: list[str | None]) -> None:
    field = pa.field("v", pa.string(), metadata={"GDAL:OGR:type": "DateTime"})
    table = pa.table([pa.array(texts)], schema=pa.schema([field]))
    pyogrio.raw.write_arrow(table, path, driver="GPKG", layer="a")


def test_what_is_no_layer_is_refused(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A damaged footer, other encodings, another layer's name, and bytes that are no UTF-8, each in one line."""
    good = tmp_path / "a.parquet"
    parcels(20).to_parquet(good)
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:500])
    with pytest.raises(SourceError, match=r"cut.parquet is damaged"):
        run_job(tmp_path / "cut.parquet")
    with pytest.raises(SourceError, match="has no layer 'other'; it has a"):
        open_source(str(good), "other", "a.parquet", 10)
    geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)]).to_parquet(
        tmp_path / "native.parquet", geometry_encoding="geoarrow"
    )
    with pytest.raises(SourceError, match="encoded as point, and not as WKB"):
        run_job(tmp_path / "native.parquet")
    text = pa.array([b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"v": text}), tmp_path / "text.parquet", store_schema=False)
    with pytest.raises(DataError, match="field 'v' of row 1 is no UTF-8"):
        run_job(tmp_path / "text.parquet")


def test_m_is_refused(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """GeoParquet 1.1 has no M: refused in one line, where Z is kept."""
    for wkt, passes in (("LINESTRING M (10 50 1, 11 51 2)", False), ("LINESTRING Z (10 50 1, 11 51 2)", True)):
        wkb = shapely.to_wkb(shapely.from_wkt(wkt), flavor="iso")
        pyogrio.raw.write(
            tmp_path / "a.gpkg", np.array([wkb], object), [], [], geometry_type="Unknown", crs="EPSG:4326", layer="a"
        )
        if passes:
            done = run_job(tmp_path / "a.gpkg", "out.parquet")
            assert geopandas.read_parquet(done.output).geometry[0].wkt == wkt
        else:
            with pytest.raises(OutputError, match="GeoParquet cannot hold M"):
                run_job(tmp_path / "a.gpkg", "out.parquet")


def test_boxes_are_shapely_s() -> None:
    """Of every type, with holes, Z and M, of null and empty geometries."""
    shapes = [
        shapely.Point(1, 2), shapely.Point(), None, shapely.LineString([(0, 5, 1), (3, -1, 2)]), shapely.box(1, 2, 3, 4),
        shapely.Polygon([(0, 0), (9, 0), (9, 9)], [[(5, 1), (6, 1), (6, 2)]]), shapely.MultiPoint([(0, 1), (5, -7)]),
        shapely.MultiLineString([[(0, 0), (1, 1)], [(9, 9), (8, 7)]]), shapely.Polygon(), shapely.from_wkt("POINT M (1 2 3)"),
        shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(-5, 8, -4, 9)]), shapely.LineString(),
        shapely.GeometryCollection([shapely.Point(3, 3), shapely.box(0, 0, 1, 1)]),
    ]  # fmt: skip
    wkb = pa.array([None if each is None else shapely.to_wkb(each, flavor="iso") for each in shapes], pa.binary())
    assert np.array_equal(bounds_of(wkb), shapely.bounds(shapes), equal_nan=True)
    assert np.array_equal(bounds_of(wkb[3:]), shapely.bounds(shapes[3:]), equal_nan=True)


def test_an_empty_output_is_a_layer(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Where nothing is kept the file has its fields, its CRS and no rows, and passes its checks."""
    parcels(50).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg", "out.parquet", min_area_sqm=1e12)
    found = geopandas.read_parquet(done.output)
    assert (len(found), list(found)[:3], found.crs.to_epsg()) == (0, ["n", "name", "value"], 4326)
    assert all(check.passed for check in done.outcome.checks)


def test_memory_of_a_row_group_is_in_the_plan(tmp_path: Path) -> None:
    """A scarce limit makes row groups smaller: never below 2 MiB, never above 16."""
    parcels(50).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    job = make_job(tmp_path / "a.gpkg", tmp_path / "out.parquet")
    work = engine.prepare(job, room())
    assert work.first().terms["index while writing"] == 12 * MIB
    facts = prepared(job)._source.facts
    sink = work._sink
    assert sink.index(replace(facts, source_bytes=10**9), 1.0).held_bytes == 54 * MIB
    assert sink.index(replace(facts, source_bytes=10**9), 0.0).held_bytes == 12 * MIB


def test_batches_are_bounded_by_what_is_decoded(tmp_path: Path) -> None:
    """Repeated texts, which a footer counts once, are known by a look at first rows; where rows grow, batches have fewer."""
    texts = ["a" * 20_000, "b" * 20_000, "c" * 20_000, "d"]
    columns = {"n": range(4000), "text": [texts[n % 3] if n >= 2000 else texts[3] for n in range(4000)]}
    pq.write_table(pa.table(columns), tmp_path / "late.parquet", row_group_size=1000)
    pq.write_table(pa.table(columns).slice(2000), tmp_path / "early.parquet")
    early = open_source(str(tmp_path / "early.parquet"), None, "early.parquet", 1000)
    assert 20_000 < early.facts.sizes.mean_bytes < 20_100
    late = open_source(str(tmp_path / "late.parquet"), None, "late.parquet", 1000)
    with late.batches(1000, 4 * MIB) as reader:
        batches = list(reader)
    assert pa.Table.from_batches(batches).to_pydict() == {name: list(each) for name, each in columns.items()}
    sizes = [(batch.num_rows, batch.nbytes) for batch in batches]
    assert sizes[:2] == [(1000, 1000 * 13)] * 2
    # The first quarter of the first large row group shows it: what follows that row group is within its bytes.
    assert max(size for _, size in sizes) < 5.1 * MIB
    assert max(size for _, size in sizes[-5:]) <= 4 * MIB
    assert [column.num_chunks for column in pa.Table.from_batches(batches).columns] == [len(batches)] * 2


def test_what_other_formats_do_not_hold_of_a_column(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Decimals, UUIDs and nested columns are told in the plan; what a GeoPackage rounds or cannot hold, once a field."""
    instant = pa.array([1_577_934_245_678_901, None, 253_402_300_800_000_000], pa.int64())
    columns = {
        "n": pa.array([1, 2, 3]), "us": instant.view(pa.timestamp("us", "Europe/Berlin")),
        "ms": pa.array([1, None, 2], pa.timestamp("ms")), "u64": pa.array([1, None, 2**63], pa.uint64()),
        "money": pa.array([1, None, 2]).cast(pa.decimal128(30, 2)), "id": pa.array([b"0" * 16] * 3, pa.uuid()),
        "view": pa.array(["a long text that is no inline one", None, "b"], pa.string_view()),
        "deep": pa.array([{"a": {"b": 1}}, None, None]),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    kept = run_job(tmp_path / "a.parquet", "out.parquet")
    assert kept.plan.facts["notes"] == list(kept.outcome.warnings) == [
        "a.parquet: columns of types that are not read: deep (struct<a: struct<b: int64>>)",
        "a.parquet: columns are read as another type: money (decimal128(30, 2) as double), id (extension<arrow.uuid> as binary)",
    ]  # fmt: skip
    found = pq.read_table(kept.output)
    for name in ("us", "ms", "u64"):
        assert found[name].combine_chunks() == columns[name]
    assert found["view"].to_pylist() == columns["view"].to_pylist()
    done = run_job(tmp_path / "a.parquet", "out.gpkg")
    for words in (
        "dates with times of field 'us' keep milliseconds at most in GPKG",
        "dates of field 'us' outside the years 1 to 9999 are null in GPKG",
        "whole numbers become floating point in GPKG: u64 (64 bits without a sign)",
    ):
        assert sum(words in each for each in done.outcome.warnings) == 1, words
    assert not any("'ms'" in each for each in done.outcome.warnings)
    table = pyogrio.raw.read_arrow(done.output)[1]
    whens = [each and each.timestamp() for each in table["us"].to_pylist()]
    assert whens == [1_577_934_245.679, None, None]
    assert table["u64"].to_pylist() == [1.0, None, 2.0**63]


def test_what_metadata_say_of_geometries_and_is_not_kept(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A second column of geometries comes as bytes; spherical edges and an epoch are told."""
    frame = parcels(20)
    frame["middle"] = geopandas.GeoSeries([shapely.Point(n, 2) for n in range(20)], crs=4326)
    frame.to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    geo["columns"]["geometry"] |= {"edges": "spherical", "epoch": 2021.47}
    pq.write_table(table.replace_schema_metadata({b"geo": json.dumps(geo).encode()}), tmp_path / "b.parquet")
    assert not run_job(tmp_path / "a.parquet", "x.parquet", select="n").plan.facts["notes"][1:]
    done = run_job(tmp_path / "b.parquet", "out.parquet")
    begins = (
        "further columns of geometries are read as bytes: middle",
        "its edges are said",
        "the epoch of its coordinates, 2021.47,",
    )
    notes = [each.partition(": ")[2] for each in done.plan.facts["notes"]]
    assert [note.startswith(words) for note, words in zip(notes, begins, strict=True)] == [True] * 3
    assert pq.read_table(done.output)["middle"].to_pylist() == table["middle"].to_pylist()
