"""Bad rows: an error that names file and row, or skipped, counted and listed; what is torn is an error even so."""

import re
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from conftest_vector import make_job, verified_again

from lib.errors import DataError, SwathError
from lib.run import run_published
from lib.vector.bad_rows import LISTED, BadRow, BadRows
from lib.vector.sources import csv_lines

_FEATURE = '{"type":"Feature","properties":{"n":%d},"geometry":%s}'
_SHAPE = '{"type":"Polygon","coordinates":[[[10,50],[10.01,50],[10.01,50.01],[10,50]]]}'
_NO_SHAPES = {
    "text": '{"type":"Polygon","coordinates":"x"}',
    "shallow": '{"type":"Polygon","coordinates":[[1,2],[3,4]]}',
    "unknown": '{"type":"Blob"}',
}
_ROWS, _BAD = 40, 31
_DAMAGED = "its geometry does not decode"


def _frame() -> geopandas.GeoDataFrame:
    shapes = [shapely.box(10, 50, 10 + n / 1000, 50.01) for n in range(1, _ROWS + 1)]
    return geopandas.GeoDataFrame({"n": range(1, _ROWS + 1)}, geometry=shapes, crs="EPSG:4326")


def _gpkg(folder: Path, body: bytes) -> Path:
    path = folder / "s.gpkg"
    _frame().to_file(path, layer="s", SPATIAL_INDEX="NO")
    database = sqlite3.connect(path)
    database.execute("UPDATE s SET geom = ? WHERE fid = ?", (body, _BAD))
    database.commit()
    database.close()
    return path


def _shapefile(folder: Path, at: int, number: int) -> Path:
    """One record has another number at a place behind its header."""
    path = folder / "s.shp"
    _frame().to_file(path)
    content = bytearray(path.read_bytes())
    start = 100 + (_BAD - 1) * ((len(content) - 100) // _ROWS) + 8
    content[start + at : start + at + 4] = struct.pack("<i", number)
    path.write_bytes(content)
    return path


def _json(folder: Path, kind: str, bad: str, *, without: int = 0) -> Path:
    """Features of which one is another, and one has no geometry."""
    lines = [_FEATURE % (n, "null" if n == without else _SHAPE) for n in range(1, _ROWS + 1)]
    lines[_BAD - 1] = bad
    path = folder / f"s.{kind}"
    text = '{"type":"FeatureCollection","features":[\n' + ",\n".join(lines) + "\n]}"
    path.write_text(text if kind == "geojson" else "\n".join(lines) + "\n")
    return path


def _csv(folder: Path) -> Path:
    lines = [f'{n},"POLYGON((10 50,10.01 50,10.01 50.01,10 50))"' for n in range(1, _ROWS + 1)]
    lines[_BAD - 1] = f'{_BAD},"POLYGON((10 50"'
    path = folder / "s.csv"
    path.write_text("n,WKT\n" + "\n".join(lines) + "\n")
    return path


def _parquet(folder: Path) -> Path:
    """GeoParquet whose geometry's bytes are cut."""
    path = folder / "s.parquet"
    _frame().to_parquet(path)
    table = pq.read_table(path)
    values = table["geometry"].to_pylist()
    values[_BAD - 1] = values[_BAD - 1][:-8]
    pq.write_table(table.set_column(1, table.schema.field(1), pa.array(values, pa.binary())), path)
    return path


_HEADER = b"GP\0\1" + struct.pack("<i", 4326)
_SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "gpkg, cut": (lambda folder: _gpkg(folder, _HEADER + struct.pack("<BIII", 1, 3, 1, 5) + b"\0" * 20), _DAMAGED),
    "gpkg, no header": (lambda folder: _gpkg(folder, b"garbage!"), _DAMAGED),
    "gpkg, no such type": (lambda folder: _gpkg(folder, _HEADER + struct.pack("<BII", 1, 99, 1)), _DAMAGED),
    "gpkg, cut line": (lambda folder: _gpkg(folder, _HEADER + struct.pack("<BII", 1, 2, 5) + b"\0" * 20), _DAMAGED),
    "shp, parts": (lambda folder: _shapefile(folder, 36, 99_999_999), _DAMAGED),
    "shp, type": (lambda folder: _shapefile(folder, 0, 77), _DAMAGED),
    "parquet, cut": (_parquet, _DAMAGED),
    "csv": (_csv, _DAMAGED),
    "geojsonl, line": (lambda folder: _json(folder, "geojsonl", '{"type":"Feature", "prop'), "no GeoJSON feature"),
    "geojsonl, object": (lambda folder: _json(folder, "geojsonl", '{"n": 31}'), "no GeoJSON feature"),
    **{
        f"{kind}, {name}": (lambda folder, kind=kind, bad=bad: _json(folder, kind, _FEATURE % (_BAD, bad)), _DAMAGED)
        for kind in ("geojson", "geojsonl")
        for name, bad in _NO_SHAPES.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", _SOURCES)
def test_a_bad_row_is_an_error_or_skipped_and_listed(kind: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Without a word one line names file and row, exit 1; with it the other rows come out, and the counts add up."""
    make, reason = _SOURCES[kind]
    source = make(tmp_path)
    more = {"assume_crs": "EPSG:4326"} if kind == "csv" else {}
    where = {"where": "n <> '5'" if kind == "csv" else "n <> 5"}
    with pytest.raises(DataError, match=rf"^s\.\w+: row {_BAD}\b.*{reason}") as caught:
        run_job(source, chunk_rows=8, **more)
    assert caught.value.exit_code == 1
    assert "--skip-bad" in caught.value.hint
    done = run_job(source, "skipped.gpkg", chunk_rows=8, skip_bad=True, **where, **more)
    result = done.outcome.result
    assert result["features_bad"] == 1
    (listed,) = result["bad_rows"]
    assert (listed["row"] or listed["fid"]) == _BAD  # of rows that the driver is asked for the number is not known
    assert reason in result["bad_rows"][0]["reason"]
    assert (result["features_read"], result["features_kept"]) == (_ROWS, _ROWS - 2)
    assert sum(result["features_dropped"].values()) == 1
    found = geopandas.read_file(done.output)["n"].astype(int).tolist()
    assert found == [n for n in range(1, _ROWS + 1) if n not in (5, _BAD)]
    assert any(re.search(rf"1 bad rows were skipped: .*{_BAD}", note) for note in done.outcome.warnings)
    work = make_job(source, done.output, skip_bad=True, **where, **more)
    checks = verified_again(source, done, work)
    assert all(checks.values()), checks
    assert checks["membership"]


@pytest.mark.parametrize("kind", ["geojson", "geojsonl"])
def test_features_without_a_geometry_are_not_bad(kind: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Null in the text is null in the output, beside one that does not decode, and in every block of a long text."""
    source = _json(tmp_path, kind, _FEATURE % (_BAD, _SHAPE), without=7)
    assert run_job(source).outcome.result["features_bad"] == 0
    _json(tmp_path, kind, _FEATURE % (_BAD, _NO_SHAPES["text"]), without=7)
    result = run_job(source, "other.gpkg", skip_bad=True).outcome.result
    assert [each["row"] for each in result["bad_rows"]] == [_BAD]
    long = _SHAPE.replace("[[[10,50]", "[[[10,50]" + ",[10.005,50]" * 30_000)
    source.write_text(source.read_text().replace(_SHAPE, long, 2))
    result = run_job(source, "long.gpkg", skip_bad=True).outcome.result
    assert [each["row"] for each in result["bad_rows"]] == [_BAD]


def test_empty_shapes_of_a_shapefile_are_not_bad(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Records of type null and polygons of no parts are features without a geometry."""
    frame = _frame()
    frame.loc[[3, 4], "geometry"] = [None, shapely.Polygon()]
    frame.to_file(tmp_path / "s.shp")
    done = run_job(tmp_path / "s.shp")
    assert done.outcome.result["features_bad"] == 0
    assert geopandas.read_file(done.output).geometry.isna().sum() == 2


def test_text_is_skipped_likewise(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Rows whose bytes are no UTF-8 are named with field and bytes."""
    _frame().assign(t="plain").to_file(tmp_path / "s.gpkg", layer="s", SPATIAL_INDEX="NO")
    database = sqlite3.connect(tmp_path / "s.gpkg")
    database.execute("UPDATE s SET t = CAST(? AS TEXT) WHERE fid > ?", ("Rhône".encode("latin-1"), _ROWS - 30))
    database.commit()
    database.close()
    result = run_job(tmp_path / "s.gpkg", skip_bad=True, chunk_rows=8).outcome.result
    assert (result["features_bad"], len(result["bad_rows"]), result["features_kept"]) == (30, LISTED, 10)
    assert result["bad_rows"][0] == {"row": 11, "fid": 11, "reason": r"field 't' is no UTF-8: 'Rh\xf4ne'"}


def _torn_table(path: Path) -> Path:
    _frame().assign(t="x" * 4000).to_file(path, layer="s", SPATIAL_INDEX="NO")
    content = bytearray(path.read_bytes())
    database = sqlite3.connect(path)
    (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 's'").fetchone()
    size = database.execute("PRAGMA page_size").fetchone()[0]
    database.close()
    pages = range(root * size, len(content), size)
    leaf = next(page for page in reversed(pages) if content[page] == 0x0D and b"xxxx" in content[page : page + size])
    content[leaf] = 0xFF
    path.write_bytes(content)
    return path


def _cut(path: Path) -> Path:
    _frame().to_file(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: _torn_table(folder / "s.gpkg"),
        lambda folder: _cut(folder / "s.shp"),
        lambda folder: _cut(folder / "s.fgb"),
        lambda folder: _cut(folder / "s.geojson"),
    ],
    ids=["page", "shp", "fgb", "geojson"],
)
@pytest.mark.parametrize("skips", [False, True])
def test_what_is_torn_is_an_error_even_so(make: Callable[[Path], Path], skips: bool, tmp_path: Path) -> None:
    """What comes behind the place is not known: nothing is published, whatever is to be skipped."""
    source = make(tmp_path)
    report = run_published(make_job(source, tmp_path / "out.gpkg", skip_bad=skips))
    assert report.error is not None
    assert re.match(r"s\.\w+", report.error.message)
    assert "\n" not in report.error.message
    assert report.exit_code in (1, 2)
    assert not (tmp_path / "out.gpkg").exists()


@pytest.mark.parametrize("at", [0, 40, 79])
def test_a_damaged_page_is_between_two_features(at: int, tmp_path: Path) -> None:
    """Those that can be read on either side are named, and that it is not skipped."""
    source = tmp_path / "s.gpkg"
    frame = geopandas.GeoDataFrame({"n": range(1, 401), "t": "y" * 600}, geometry=[shapely.Point(1, 2)] * 400, crs=4326)
    frame.to_file(source, layer="s", SPATIAL_INDEX="NO")
    content, size = bytearray(source.read_bytes()), 4096
    leaves = [page for page in range(0, len(content), size)
              if content[page] == 0x0D and b"yyyy" in content[page : page + size]]  # fmt: skip
    page = (leaves[:1] + leaves[40:41] + leaves[-1:])[[0, 40, 79].index(at)]
    content[page] = 0xFF
    source.write_bytes(content)
    report = run_published(make_job(source, tmp_path / "out.gpkg", skip_bad=True))
    assert report.error is not None
    words = {0: "before the feature of id", 40: "between the features of id", 79: "behind the feature of id"}[at]
    assert f"s.gpkg: layer s is damaged {words}" in report.error.message
    named = [int(each) for each in re.findall(r"\d+", report.error.message.partition(" id ")[2])]
    steps = {0: (-1,), 40: (1, -1), 79: (1,)}[at]
    database = sqlite3.connect(source)
    for number, step in zip(named, steps, strict=True):
        assert database.execute("SELECT n FROM s WHERE fid = ?", (number,)).fetchone() == (number,)
        with pytest.raises(sqlite3.DatabaseError):
            database.execute("SELECT n FROM s WHERE fid = ?", (number + 2 * step,)).fetchone()  # SQLite reads one ahead
    database.close()
    assert "--skip-bad skips no damaged pages" in report.error.hint


def test_bad_rows_are_shown_in_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal lists them, and says how many more there are."""
    from flows.terminal import show_report

    source = _json(tmp_path, "geojsonl", '{"n": 31}')
    report = run_published(make_job(source, tmp_path / "out.gpkg", skip_bad=True))
    assert report.status == "completed"
    show_report(report)
    assert f"row {_BAD}: it is no GeoJSON feature" in capsys.readouterr().out


def test_only_the_first_are_kept() -> None:
    """A source of bad rows alone takes no memory for them."""
    found = BadRows("s", skips=True)
    found.add(BadRow(row, None, "is bad") for row in range(1000))
    assert (found.count, len(found.listed)) == (1000, LISTED)
    assert found.notes == ["s: 1000 bad rows were skipped: row 0: is bad, and 999 more"]
    with pytest.raises(SwathError, match="s: row 3: is bad"):
        BadRows("s").add([BadRow(3, None, "is bad")])


@pytest.mark.parametrize(
    ("text", "bad", "kept"),
    [
        ("n,b\n1,2\n3,4,5\n6,7\n", (2, "more values"), ["1", "6"]),
        ("n;b\r\n1;2\r\n\r\n3;4;5\r\n6;7\r\n", (2, "more values"), ["1", "6"]),
        ('n,b\n1,"x\n,y"\n3,"4,5",6\n6,7', (2, "more values"), ["1", "6"]),
        ('n,b\n1,2\n\n3,4\n"5,6\n7,8\n', (3, "quotes are not closed"), ["1", "3"]),
        ("n,b\n1,2,\n3\n\n4,5,,\n", None, ["1", "3", "4"]),
        ('n\tb\n1\t"a""b"\n"2"\t"x,y;z"\n', None, ["1", "2"]),
        ("1,2\n3,4\n5,6,7\n", (3, "more values"), ["1", "3"]),
    ],
)
@pytest.mark.parametrize("block_bytes", [16, 2**18])
def test_lines_of_a_csv(
    text: str, bad: tuple[int, str] | None, kept: list[str], block_bytes: int, run_job: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Values beyond the fields, and all behind a quote that is not closed, OGR drops; fewer values, or empty ones, are none."""
    monkeypatch.setattr(csv_lines, "_BLOCK_BYTES", block_bytes)
    source = tmp_path / "s.csv"
    source.write_text(text, newline="")
    if bad is None:
        result = run_job(source).outcome.result
        assert (result["features_bad"], result["features_kept"]) == (0, len(kept))
        return
    with pytest.raises(DataError, match=f"s.csv: row {bad[0]}: it.* {bad[1]}"):
        run_job(source)
    done = run_job(source, "other.gpkg", skip_bad=True)
    assert [each["row"] for each in done.outcome.result["bad_rows"]] == [bad[0]]
    assert geopandas.read_file(done.output).iloc[:, 0].tolist() == kept
