"""Values of types that OGR has not: none is shifted or cut off without a word, and the output verifies."""

import datetime as dt
import decimal
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from conftest_vector import make_job, verified_again

from lib.errors import OutputError

SINKS = ["out.gpkg", "out.fgb", "out.geojson", "out.geojsonl", "out.shp"]
_GEO = {"version": "1.1.0", "primary_column": "g", "columns": {"g": {"encoding": "WKB", "geometry_types": ["Point"]}}}
_TIMES = [
    "2024-02-29T12:00:00Z",
    "2024-02-29T14:00:00+02:00",
    "2024-02-29T12:00:00.123-05:00",
    None,
    "2024-02-29T12:00:00+05:30",
]


def _parquet(path: Path, **columns: Any) -> Path:
    rows = len(next(iter(columns.values())))
    points = pa.array([shapely.to_wkb(shapely.Point(n, n)) for n in range(rows)])
    table = pa.table({"n": pa.array(range(rows)), **columns, "g": points})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(_GEO)}), path)
    return path


def _geojson(path: Path, times: list[str | None]) -> Path:
    shape = {"type": "Point", "coordinates": [1, 2]}
    features = [
        {"type": "Feature", "properties": {"n": n, "t": t}, "geometry": shape, "id": n} for n, t in enumerate(times)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def _values(path: Path, name: str) -> list[Any]:
    """By pyogrio's other reader, in the source's order."""
    with warnings.catch_warnings(action="ignore"):  # of a GeoPackage's times that are not UTC's
        meta, _, _, columns = pyogrio.raw.read(path, datetime_as_string=True)
    by_name = dict(zip(meta["fields"], columns, strict=True))
    return [by_name[name][at] for at in by_name["n"].argsort()]


def _verified(source: Path, done: Any) -> bool:
    return all(verified_again(source, done, make_job(source, done.output)).values())


@pytest.mark.parametrize("sink", SINKS)
def test_a_named_zone_becomes_utc_and_is_said(sink: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """The same moments, in winter and summer time, with a zone; others' own zones are kept."""
    moments = [dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC), dt.datetime(2024, 7, 2, 3, 4, 5, tzinfo=dt.UTC), None]
    kinds = {zone: pa.timestamp("us", zone) for zone in ("Europe/Berlin", "UTC", "+05:30")}
    columns = {f"t{at}": pa.array(moments, kind) for at, kind in enumerate(kinds.values())}
    source = _parquet(tmp_path / "s.parquet", **columns)
    done = run_job(source, sink)
    for name in columns:
        found = [None if each is None else dt.datetime.fromisoformat(str(each)) for each in _values(done.output, name)]
        assert found == moments
    assert any("become UTC, the same moments: t0 (Europe/Berlin)" in note for note in done.outcome.warnings)
    assert _verified(source, done)


@pytest.mark.parametrize("sink", SINKS)
def test_zones_of_one_column_may_differ(sink: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Each value keeps its own zone, one without a zone among them."""
    source = _geojson(tmp_path / "s.geojson", [*_TIMES, "2024-02-29T12:00:00"])
    done = run_job(source, sink)
    assert _values(done.output, "t") == [*_TIMES, "2024-02-29T12:00:00"]
    assert _verified(source, done)


def test_zones_of_one_column_in_parquet(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """They become UTC, the same moments; with times without a zone beside them they are refused, and may be cast to text."""
    done = run_job(_geojson(tmp_path / "s.geojson", _TIMES), "out.parquet")
    wanted = [None if each is None else dt.datetime.fromisoformat(each) for each in _TIMES]
    assert pq.read_table(done.output)["t"].to_pylist() == wanted
    assert any("become UTC: t" in note for note in done.outcome.warnings)
    for mixed in ([*_TIMES, "2024-02-29T12:00:00"], ["2024-02-29T12:00:00", *_TIMES]):
        source = _geojson(tmp_path / "m.geojson", mixed)
        with pytest.raises(OutputError, match="field 't' has dates with times both with and without a zone") as caught:
            run_job(source, "mixed.parquet")
        assert "--cast t=string" in caught.value.hint
        assert pq.read_table(run_job(source, "cast.parquet", cast="t=string").output)["t"].to_pylist() == mixed


_FIELDS: dict[str, tuple[Any, str]] = {
    "below a millisecond": (pa.array([1_000, 1_500, None], pa.timestamp("us")), "keep milliseconds at most"),
    "nanoseconds": (pa.array([1_000_000, 1_500_001, None], pa.timestamp("ns", "UTC")), "keep milliseconds at most"),
    "unsigned": (pa.array([2**63 + 1, 1, None], pa.uint64()), "exact up to 2^53 only"),
    "null numbers in lists": (pa.array([[1, None], [], None], pa.list_(pa.int64())), "nulls in its lists"),
    "null texts in lists": (pa.array([["a", None], [], None]), "nulls in its lists"),
    "decimals": (pa.array([decimal.Decimal("1.10"), None, None], pa.decimal128(20, 2)), "are read as another type"),
}  # fmt: skip


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("what", _FIELDS)
def test_what_is_lost_of_values_is_said(what: str, sink: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """By field; where no value of such a type loses anything, nothing is said."""
    column, words = _FIELDS[what]
    source = _parquet(tmp_path / "s.parquet", v=column)
    done = run_job(source, sink)
    assert any(words in note and ("'v'" in note or "v (" in note) for note in done.outcome.warnings)
    assert _verified(source, done)
    if what not in {"decimals", "unsigned"}:  # of those it is said beforehand, whatever the values are
        row = 1 if "list" in what else 0
        plain = _parquet(tmp_path / "p.parquet", v=pa.array([None, column[row].as_py(), None], column.type))
        assert not any(words in note for note in run_job(plain, f"plain-{sink}").outcome.warnings)


def test_parquet_keeps_them(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """From Parquet to Parquet nothing is lost but a decimal's digits, and that is said."""
    columns = {f"v{at}": column for at, (column, _) in enumerate(_FIELDS.values())}
    source = _parquet(tmp_path / "s.parquet", **columns)
    done = run_job(source, "out.parquet")
    found = pq.read_table(done.output)
    for at, (what, (column, _)) in enumerate(_FIELDS.items()):
        assert found[f"v{at}"].to_pylist() == ([1.1, None, None] if what == "decimals" else column.to_pylist())
    assert [note for note in done.outcome.warnings if "v" in note] == [
        "s.parquet: columns are read as another type: v5 (decimal128(20, 2) as double)"
    ]
    assert _verified(source, done)
