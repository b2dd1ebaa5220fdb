"""Folders of Parquet files as one layer: keys, order, what has to agree, and what is refused, by the name of the file."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest_vector import make_job, parcels, prepared, solid, verified_again

from lib.errors import DataError, DestinationError, SourceError
from lib.probe import probe
from lib.request import vector_job
from lib.vector.predicates.bind import condition_of
from lib.vector.sources import Wish, open_source, parquet, parquet_layer, parquet_reader, parquet_schema


def _points(**columns: Any) -> geopandas.GeoDataFrame:
    return parcels(20)[["n", "geometry"]].assign(**columns)


def _plain(path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "geometry": [b""]}), path)


@pytest.fixture(scope="module")
def frame() -> geopandas.GeoDataFrame:
    """Parcels of three regions."""
    made = solid(parcels(240)).reset_index(drop=True)
    return made.assign(region=[("a", "ö b", "c")[n % 3] for n in made["n"]])


def write_hive(frame: geopandas.GeoDataFrame, folder: Path) -> None:
    """A folder for each region, two files in each, as geopandas and Spark would."""
    for region, part in frame.groupby("region"):
        inner = folder / f"region={str(region).replace(' ', '%20')}"
        inner.mkdir(parents=True)
        rows = part.drop(columns="region").reset_index(drop=True)
        rows.iloc[:30].to_parquet(inner / "part-0.parquet", write_covering_bbox=True)
        rows.iloc[30:].to_parquet(inner / "part-1.parquet", write_covering_bbox=True)
    (folder / "_SUCCESS").touch()
    (folder / ".part.crc").touch()


def test_keys_become_fields(frame: geopandas.GeoDataFrame, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Every row of every file comes once, in the order of paths, with its key; counts and checks are of the whole."""
    source = tmp_path / "parcels"
    write_hive(frame, source)
    wanted = frame.sort_values(["region", "n"]).reset_index(drop=True)
    for name in ("out.gpkg", "out.parquet"):
        done = run_job(source, name, chunk_rows=25)
        found = geopandas.read_parquet(done.output) if name.endswith("parquet") else geopandas.read_file(done.output)
        assert list(found.columns[:4]) == ["n", "name", "value", "region"]
        assert found[["n", "region"]].to_numpy().tolist() == wanted[["n", "region"]].to_numpy().tolist()
        assert found.geometry.geom_equals(wanted.geometry).all()
        result = done.outcome.result
        assert (result["layer"], result["features_read"]) == ("parcels" if name.endswith("gpkg") else "out", len(frame))
        assert (result["files"], result["files_skipped"]) == (6, 0)
        assert all(verified_again(source, done, make_job(source, done.output)).values())
    assert probe(str(source)) == ("vector", "Parquet")
    other = duckdb.read_parquet(f"{source}/**/*.parquet", hive_partitioning=True).order("region, n")
    assert other.project("n, region").fetchall() == list(zip(wanted["n"], wanted["region"], strict=True))


def test_a_key_rules_files_out_that_are_not_opened(
    frame: geopandas.GeoDataFrame, run_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A condition on a key alone needs no footer of the others; the rows that are not read are dropped by the driver."""
    write_hive(frame, tmp_path / "parcels")
    source = open_source(str(tmp_path / "parcels"), None, "parcels", 100)
    seen: list[str] = []
    opened = parquet_schema.opened
    monkeypatch.setattr(parquet, "opened", lambda path, label: (seen.append(label), opened(path, label))[1])
    source.narrowed(Wish(condition=condition_of("region = 'c'", source.facts)))
    assert seen == ["parcels/region=c/part-0.parquet", "parcels/region=c/part-1.parquet"]
    monkeypatch.undo()
    done = run_job(tmp_path / "parcels", where="region = 'ö b' AND n >= 200")
    wanted = frame["n"][(frame["region"] == "ö b") & (frame["n"] >= 200)]
    assert sorted(geopandas.read_file(done.output)["n"]) == sorted(wanted)
    result = done.outcome.result
    assert (result["files_skipped"], result["row_groups_skipped"]) == (5, 5)
    assert result["features_read"] == len(frame) == result["features_kept"] + sum(result["features_dropped"].values())
    nothing = run_job(tmp_path / "parcels", "none.gpkg", where="region = 'x'")
    assert nothing.outcome.result["features_dropped"] == {"driver": len(frame)}
    assert len(geopandas.read_file(nothing.output)) == 0


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "20", "-3"], pa.int64()),
        (["01", "12"], pa.string()),
        (["1", "x"], pa.string()),
        (["1.5", "2"], pa.string()),
        (["9223372036854775808", "1"], pa.string()),
        (["2024-02-29", "2023-01-01"], pa.date32()),
        (["2024-02-30", "2024-01-01"], pa.string()),
        (["1", "__HIVE_DEFAULT_PARTITION__"], pa.int64()),
        (["__HIVE_DEFAULT_PARTITION__"], pa.string()),
        (["a%2Fb", "c%3Dd"], pa.string()),
    ],
)
def test_keys_have_types(values: list[str], kind: Any, tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """Whole numbers and dates where all values are written like that; else text as it is there; Hive's mark is NULL."""
    for at, value in enumerate(values):
        (tmp_path / "in" / f"k={value}").mkdir(parents=True)
        pq.write_table(pa.table({"n": [at]}), tmp_path / "in" / f"k={value}" / "a.parquet")
    found = pq.read_table(run_job(tmp_path / "in", "out.parquet").output)
    assert found["k"].type == kind
    plain = {"a%2Fb": "a/b", "c%3Dd": "c=d", "__HIVE_DEFAULT_PARTITION__": None}
    texts = {at: plain.get(value, value) for at, value in enumerate(values)}
    for n, k in zip(found["n"].to_pylist(), found["k"].to_pylist(), strict=True):
        assert (None if k is None else str(k)) == texts[n]
        assert k is None or type(k) is {pa.int64(): int, pa.date32(): dt.date}.get(kind, str)


def test_a_plain_folder_in_order(tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """Files by their paths, whatever the order in which they were written; columns in another order, texts wide or not."""
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name, table in (
        ("b/0.parquet", {"n": [5], "t": pa.array(["x"]).dictionary_encode()}),
        ("part-2.parquet", {"t": pa.array(["wide"], pa.large_string()), "n": [4]}),
        ("part-10.parquet", {"n": [3, 2], "t": pa.nulls(2)}),
        ("empty.parquet", {"n": pa.array([], pa.int64()), "t": pa.array([], pa.string())}),
        ("a.PARQUET", {"n": [1], "t": ["first"]}),
    ):
        pq.write_table(pa.table(table), tmp_path / "in" / name)
    found = pq.read_table(run_job(tmp_path / "in", "out.parquet").output)
    assert found.to_pydict() == {"n": [1, 5, 3, 2, 4], "t": ["first", "x", None, None, "wide"]}


def test_a_key_that_is_a_column_too(tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """Of both the column is read, as it is what was stored, and that is said."""
    (tmp_path / "in" / "n=7").mkdir(parents=True)
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "in" / "n=7" / "a.parquet")
    done = run_job(tmp_path / "in", "out.parquet", where="n = 2")
    assert pq.read_table(done.output)["n"].to_pylist() == [2]
    assert any("'n' is a column of the files, too" in note for note in done.outcome.warnings)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (_points(x=1).to_parquet, "in: a.parquet has no column 'x', which b.parquet has"),
        (_points()[["geometry"]].to_parquet, "in: b.parquet has no column 'n', which a.parquet has"),
        (_points(n="1").to_parquet, r"in: column 'n' is \w*string in b.parquet, and int64 in a.parquet"),
        (_points().to_crs(3857).to_parquet, "the CRS of b.parquet is EPSG:3857, and that of a.parquet EPSG:4326"),
        (_points().rename_geometry("g").to_parquet, "the geometries are column 'g' of b.parquet, and 'geometry' of a"),
        (_plain, "in: b.parquet has no GeoParquet metadata, so no geometries, and a.parquet has"),
        (lambda path: path.write_bytes(b"PAR1 and no more"), "in/b.parquet is damaged"),
        (lambda path: path.with_name("notes.txt").touch(), "in has other files than Parquet among them: notes.txt"),
        (lambda path: path.with_name("b").symlink_to(path.parent), "lies more than 32 folders deep"),
    ],
)
def test_what_does_not_agree_is_named(
    second: Callable[[Path], Any], said: str, tmp_path: Path, run_job: Callable[..., Any]
) -> None:
    """Which file, which column: schemas, geometries, CRS; other files among them, damaged ones, links that go round."""
    (tmp_path / "in").mkdir()
    _points().to_parquet(tmp_path / "in" / "a.parquet")
    second(tmp_path / "in" / "b.parquet")
    with pytest.raises(SourceError, match=said):
        run_job(tmp_path / "in")


def test_folders_that_are_no_layer(tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """An empty one, one without Parquet files, keys that differ, and a destination inside."""
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError, match="in is an empty folder"):
        run_job(tmp_path / "in")
    (tmp_path / "in" / "_SUCCESS").touch()
    with pytest.raises(SourceError, match="in is a folder and no vector dataset") as refused:
        run_job(tmp_path / "in")
    assert "a folder of Parquet files" in refused.value.hint
    for name in ("a=1/b=2/x.parquet", "a=1/c=3/x.parquet"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        _points().to_parquet(tmp_path / "in" / name)
    with pytest.raises(
        SourceError, match=r"a=1/c=3/x.parquet lies in folders of 'a', 'c', a=1/b=2/x.parquet in those of 'a', 'b'"
    ):
        run_job(tmp_path / "in")
    with pytest.raises(DestinationError, match="lies in the folder that is the source"):
        vector_job(str(tmp_path / "in"), str(tmp_path / "in" / "a=1" / "out.parquet"))


@pytest.mark.parametrize("has_checksums", [False, True])
def test_damage_in_one_of_many_files(has_checksums: bool, tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """A page that does not decode, or has another checksum than it should, is an error that names its file."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        path = tmp_path / "in" / f"{name}.parquet"
        parcels(2000).to_parquet(path, compression="zstd", write_page_checksum=has_checksums, use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    # Without a checksum a byte of a page may be another one and nobody sees it.
    first, length = (100, 1) if has_checksums else (len(damaged) // 2, 4000)
    damaged[first : first + length] = bytes(each ^ 1 for each in damaged[first : first + length])
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"in/b.parquet cannot be read to its end"):
        run_job(tmp_path / "in")


def test_footers_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many files one is open at a time, at opening, at reading and at counting."""
    (tmp_path / "in").mkdir()
    for at in range(20):
        pq.write_table(pa.table({"n": [at]}), tmp_path / "in" / f"{at:02}.parquet")
    opened, now, most = parquet_schema.opened, [0], [0]

    class Counted:
        def __init__(self, *of: Any) -> None:
            self._inner = opened(*of)

        def __enter__(self) -> Any:
            now[0] += 1
            most[0] = max(most[0], now[0])
            return self._inner.__enter__()

        def __exit__(self, *how: object) -> None:
            now[0] -= 1
            self._inner.__exit__(*how)

    for module in (parquet, parquet_layer, parquet_reader):
        monkeypatch.setattr(module, "opened", Counted)
    source = prepared(make_job(tmp_path / "in", tmp_path / "out.parquet", where="n > 4"))._source
    with source.batches(10, 0) as reader:
        assert [n for batch in reader for n in batch["n"].to_pylist()] == list(range(5, 20))
    assert source.count() == 20
    assert source.given() == (15, 15)
    assert (now, most) == ([0], [1])


def test_the_crs_of_many_files_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROJ takes 40 ms for each: 2,000 files took 95 s to open."""
    for n in range(8):
        _points().to_parquet(tmp_path / f"{n}.parquet")
    asked: list[str] = []
    normal = parquet_schema.normal_crs
    monkeypatch.setattr(parquet_schema, "normal_crs", lambda text: (asked.append(text), normal(text))[1])
    parquet_schema._normal_crs.cache_clear()
    assert open_source(str(tmp_path), None, "many", 10).facts.crs == "EPSG:4326"
    assert len(asked) == 1


def test_what_folders_hide(tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """A Parquet file that is passed over by its name is told; marks of those who write such folders are not; names are UTF-8."""
    (tmp_path / "in" / "_delta_log").mkdir(parents=True)
    for name in ("_SUCCESS", "_metadata", ".x.crc"):
        (tmp_path / "in" / name).touch()
    _points().to_parquet(tmp_path / "in" / "a.parquet")
    assert not run_job(tmp_path / "in").outcome.warnings
    _points().to_parquet(tmp_path / "in" / "_b.parquet")
    assert run_job(tmp_path / "in").outcome.warnings == (
        "in: passed over, as names that begin with _ or . are: _b.parquet",
    )
    (tmp_path / "in" / "k=%FF").mkdir()
    (tmp_path / "in" / "a.parquet").rename(tmp_path / "in" / "k=%FF" / "a.parquet")
    with pytest.raises(SourceError, match="the name of a folder in k=%FF is no UTF-8"):
        run_job(tmp_path / "in")


def test_an_empty_file_says_nothing_of_types(tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """Spark leaves files without rows: the layer has the type that the others' geometries have."""
    points = geopandas.GeoDataFrame({"n": [1]}, geometry=geopandas.points_from_xy([1], [2]), crs=4326)
    for name, rows in (("a", points[:0]), ("b", points), ("c", points[:0])):
        (tmp_path / "in").mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / "in" / f"{name}.parquet")
    assert open_source(str(tmp_path / "in"), None, "in", 10).facts.geometry_type == "Point"
    assert len(geopandas.read_file(run_job(tmp_path / "in").output)) == 1


def test_small_files_share_batches(tmp_path: Path) -> None:
    """Rows of several files come in one batch, in order, each with its own key."""
    for n in range(40):
        (tmp_path / f"many/k={n % 4}").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": [n, n + 1000]}), tmp_path / f"many/k={n % 4}/{n:02}.parquet")
    source = open_source(str(tmp_path / "many"), None, "many", 64)
    with source.batches(64, 0) as reader:
        batches = list(reader)
    assert [batch.num_rows for batch in batches] == [64, 16]
    rows = pa.Table.from_batches(batches).to_pylist()
    assert [row["k"] for row in rows] == [k for k in range(4) for _ in range(20)]
    assert [row["n"] for row in rows] == [n + more for k in range(4) for n in range(k, 40, 4) for more in (0, 1000)]
