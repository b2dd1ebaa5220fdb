"""Row groups that are not read: what is kept is what is kept without that, and what is skipped is counted."""

import datetime as dt
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from conftest_vector import make_job, parcels, prepared, verified_again
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_where import ARROW, POOLS, REALS, ROWS, conditions, moment, nested

from lib.errors import DataError
from lib.vector.predicates.bind import condition_of
from lib.vector.predicates.columns import mask_of
from lib.vector.sources import Wish, open_source
from lib.vector.sources.parquet import ParquetSource

KINDS = ARROW | {"s": pa.timestamp("us", "UTC")}


def opened(path: Path) -> ParquetSource:
    """A source of Parquet."""
    source = open_source(str(path), None, path.name, 10_000)
    assert isinstance(source, ParquetSource)
    return source


def rows_of(source: ParquetSource) -> list[dict[str, Any]]:
    """All rows that it gives."""
    with source.batches(3, 0) as reader:
        return [row for batch in reader for row in batch.to_pylist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for files of one example each."""
    return tmp_path_factory.mktemp("groups")


@settings(max_examples=150, deadline=None)
@given(
    text=st.recursive(conditions(), nested, max_leaves=4),
    rows=st.lists(ROWS, min_size=1, max_size=6),
    size=st.integers(1, 3),
)
@example(text="w < 9223372036854775808", rows=[dict.fromkeys(POOLS) | {"w": 2**63 - 1}], size=1)
@example(text="NOT (r > 1)", rows=[dict.fromkeys(POOLS) | {"r": each} for each in [*REALS, None]], size=9)
@example(text="r <> 1.0", rows=[dict.fromkeys(POOLS) | {"r": each} for each in (1.0, float("nan"))], size=2)
@example(text="NOT (t IS NULL)", rows=[dict.fromkeys(POOLS), dict.fromkeys(POOLS) | {"t": ""}], size=1)
@example(text="s >= DATE('2024-02-29')", rows=[dict.fromkeys(POOLS) | {"s": "2024-02-29T12:00:00Z"}], size=1)
def test_pruned_or_not_the_rows_are_the_same(text: str, rows: list[dict[str, Any]], size: int, folder: Path) -> None:
    """Of any condition and any rows in row groups of any size: no row is skipped that the batch would keep; counts agree."""
    stored = [row | {"s": moment(row["s"]), "n": n} for n, row in enumerate(rows)]
    pq.write_table(
        pa.Table.from_pylist(stored, pa.schema([("n", pa.int64()), *KINDS.items()])),
        folder / "a.parquet",
        row_group_size=size,
    )
    whole = opened(folder / "a.parquet")
    condition = condition_of(text, whole.facts)
    source, _ = whole.narrowed(Wish(condition=condition))

    def kept(of: ParquetSource) -> list[int]:
        with of.batches(4, 0) as reader:
            return [n for batch in reader for n in np.array(batch["n"])[mask_of(condition, batch)].tolist()]

    assert kept(source) == kept(whole)
    if (counted := source.given()) is not None:
        assert counted == (len(rows_of(source)),) * 2
        assert not source.is_whole
    assert source.count() == len(rows)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("n < 20", 2), ("n >= 20 AND n < 30", 1), ("n BETWEEN 15 AND 25", 2), ("n = 55", 1), ("n <> 55", 10), ("NOT n < 90", 1),
        ("n IN (1, 99)", 2), ("n = 1 OR n = 99", 2), ("n = 1000", 0), ("n = 5.5", 1), ("x < 0.05", 1), ("m < 100", 10),
        ("x > 0.5 OR x IS NULL", 5), ("t = 't07'", 1), ("t > 't89'", 1), ("t LIKE 't3%'", 1), ("t LIKE '%3'", 10),
        ("d = DATE('2024-01-15')", 1), ("d < DATE('2024-01-11')", 1), ("s < TIMESTAMP('1970-01-01T00:00:10Z')", 1),
        ("s > DATE('1970-01-02')", 0), ("z < TIMESTAMP('1970-01-01T00:00:10Z')", 1), ("k IS NULL", 5), ("k IS NOT NULL", 5),
        ("k = 1", 5), ("k <> 1", 0), ("NOT (k = 2)", 5), ("b", 5), ("NOT b", 5), ("c = 'c3'", 1), ("l > 't89'", 1),
        ("n + 0 < 5", 10),
    ],
)  # fmt: skip
def test_statistics_rule_row_groups_out(text: str, left: int, ten: Path) -> None:
    """Each operator on numbers, texts, dates and times: only row groups that may have such rows are read."""
    whole = opened(ten)
    condition = condition_of(text, whole.facts)
    source, words = whole.narrowed(Wish(condition=condition))
    assert source.skipped["row_groups"] - source.skipped["row_groups_skipped"] == left
    assert words.startswith(
        "evaluated" if left == 10 else f"pushed: by their statistics {left} of 10 row groups are read"
    )
    with whole.batches(100, 0) as reader:
        wanted = [n for batch in reader for n in np.array(batch["n"])[mask_of(condition, batch)].tolist()]
    assert {row["n"] for row in rows_of(source)} >= set(wanted)


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred rows in ten row groups, of all kinds of columns."""
    n, start = range(100), dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    times = [start + dt.timedelta(seconds=i) for i in n]
    texts = [f"t{i:02}" for i in n]
    columns = {
        "n": pa.array(n, pa.int32()),
        "x": [i / 100 for i in n],
        "m": [float(i) for i in n],
        "t": texts,
        "l": pa.array(texts, pa.large_string()),
        "c": pa.array([f"c{i // 10}" for i in n]).dictionary_encode(),
        "d": [dt.date(2024, 1, 1) + dt.timedelta(i) for i in n],
        "s": pa.array(times, pa.timestamp("ns", "UTC")),
        "z": pa.array([each.replace(tzinfo=None) for each in times], pa.timestamp("ms")),
        "k": [None if i < 50 else 1 for i in n],
        "b": [i < 50 for i in n],
    }
    path = tmp_path_factory.mktemp("ten") / "ten.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=10)
    return path


@pytest.mark.parametrize(
    "text", ["n < 20", "x > 0.9 OR t = 't05'", "k IS NULL", "d >= DATE('2024-03-01')", "c IN ('c1', 'c7')"]
)
def test_duckdb_keeps_the_same(text: str, ten: Path, run_job: Callable[..., Any]) -> None:
    """Counts reconcile with the footer: read is kept and dropped by each; the report says what was skipped."""
    done = run_job(ten, "out.parquet", where=text, chunk_rows=7)
    sql = text.replace("DATE('2024-03-01')", "DATE '2024-03-01'")
    wanted = [n for (n,) in duckdb.from_parquet(str(ten)).filter(sql).order("n").project("n").fetchall()]
    assert pq.read_table(done.output)["n"].to_pylist() == wanted
    result = done.outcome.result
    assert result["features_read"] == 100 == result["features_kept"] + sum(result["features_dropped"].values())
    assert (result["files"], result["row_groups"]) == (1, 10)
    assert result["row_groups_skipped"] * 10 == result["features_dropped"]["driver"] > 0
    assert all(verified_again(ten, done, make_job(ten, done.output, where=text)).values())


def _sorted_parcels() -> geopandas.GeoDataFrame:
    frame = parcels(400)
    return frame.sort_values("n", key=lambda n: frame.geometry.bounds["minx"].fillna(-98)[n]).reset_index(drop=True)


@pytest.mark.parametrize("covering", ["of geopandas", "of swath", "none"])
def test_boxes_rule_row_groups_out(covering: str, tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """By covering columns; the geometries that shapely finds to meet the box are kept, and what is skipped is counted."""
    frame, path = _sorted_parcels(), tmp_path / "a.parquet"
    frame.to_parquet(path, row_group_size=20, write_covering_bbox=covering == "of geopandas")
    if covering == "of swath":
        written = run_job(path, "b.parquet").output
        table = pq.read_table(written).replace_schema_metadata(pq.read_metadata(written).metadata)
        assert table.schema.field("bbox").type.field("xmin").type == pa.float32()
        pq.write_table(table, path, row_group_size=20)
    box = (-97.5, 38.0, -97.2, 39.0)
    done = run_job(path, "out.parquet", bbox=box)
    wanted = frame["n"][frame.intersects(shapely.box(*box))].tolist()
    assert geopandas.read_parquet(done.output)["n"].tolist() == wanted
    result = done.outcome.result
    assert (result["row_groups_skipped"] > 10) == (covering != "none")
    assert result["features_read"] == 400 == result["features_kept"] + sum(result["features_dropped"].values())
    assert all(verified_again(path, done, make_job(path, done.output, bbox=box)).values())


def test_a_files_own_box_and_parquets_own_statistics(tmp_path: Path) -> None:
    """GeoParquet's box of a file, and Parquet's own statistics of geometries, which DuckDB writes, rule out as well."""
    for version, at in itertools.product(("V1", "V2", "BOTH", "NONE"), range(2)):
        (tmp_path / version).mkdir(exist_ok=True)
        shape = "('POINT('||range||' 2)')::GEOMETRY AS geometry"
        rows = duckdb.table_function("range", [at * 4096, at * 4096 + 4096]).project(f"range AS n, {shape}")
        options = f"(FORMAT parquet, GEOPARQUET_VERSION '{version}', ROW_GROUP_SIZE 2048)"
        duckdb.sql(f"COPY rows TO '{tmp_path}/{version}/{at}.parquet' {options}")
        assert len(rows) == 4096
    for version, left in (("V1", 2), ("V2", 1), ("BOTH", 1), ("NONE", 1)):
        whole = opened(tmp_path / version)
        assert (whole.facts.geometry_name, whole.facts.crs, whole.facts.features) == ("geometry", "EPSG:4326", 8192)
        source, words = whole.narrowed(Wish(box=(10.0, 0.0, 20.0, 5.0)))
        assert source.skipped == {"files": 2, "files_skipped": 1, "row_groups": 4, "row_groups_skipped": 4 - left}
        assert (
            words
            == f"pushed: by their statistics {left} of 4 row groups of 1 of 2 files are read, and the batch decides"
        )
        assert {row["n"] for row in rows_of(source)} >= set(range(10, 21))


def test_two_steps_ask_one_after_the_other(tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """What a condition leaves, a box narrows further."""
    frame = _sorted_parcels().assign(k=lambda each: each.index // 20)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=20, write_covering_bbox=True)
    box = (-97.5, 37.0, -96.0, 41.0)
    done = run_job(tmp_path / "a.parquet", "out.gpkg", bbox=box, where="k < 12")
    wanted = frame["n"][frame.intersects(shapely.box(*box)) & (frame["k"] < 12)]
    assert sorted(geopandas.read_file(done.output)["n"]) == sorted(wanted)
    assert set(done.outcome.result["predicates"]) == {"where", "bbox"}
    assert 8 < done.outcome.result["row_groups_skipped"] < 20


def test_boxes_that_say_nothing(tmp_path: Path) -> None:
    """A box across the antimeridian, one that is no number, and columns without statistics rule nothing out."""
    frame = geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(179, 0)], crs=4326)
    frame.to_parquet(tmp_path / "a.parquet")
    for box in ([170, -10, -170, 10], [float("nan")] * 4, ["x"] * 4, [1, 2]):
        table = pq.read_table(tmp_path / "a.parquet")
        geo = json.loads(table.schema.metadata[b"geo"])
        geo["columns"]["geometry"]["bbox"] = box
        table = table.replace_schema_metadata({b"geo": json.dumps(geo).encode()})
        pq.write_table(table, tmp_path / "b.parquet", write_statistics=False)
        whole = opened(tmp_path / "b.parquet")
        assert whole.narrowed(Wish(box=(178.0, -1.0, 180.0, 1.0)))[0] is whole
        assert whole.narrowed(Wish(condition=condition_of("n > 5", whole.facts)))[0] is whole


def test_a_footer_that_counts_other_rows_fails_the_job(
    ten: Path, run_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is another one when it is counted, or that gives fewer rows than it says, is an error that names it."""
    job = make_job(ten, ten.parent / "out.parquet", where="n < 20")
    source = prepared(job)._source
    assert isinstance(source, ParquetSource)
    part = source.parts[0]
    object.__setattr__(part, "rows", 101)
    with pytest.raises(DataError, match=r"ten.parquet has changed while it was read: 100 rows, 101 before"):
        source.count()
    object.__setattr__(part, "read_rows", 21)
    with pytest.raises(DataError, match=r"ten.parquet has 21 rows to read by its footer, but 20 could be read"):
        rows_of(source)
