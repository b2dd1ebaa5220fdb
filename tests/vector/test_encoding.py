"""Text that is not UTF-8: decoded as declared or as the job says, else an error that names field and row."""

import re
import sqlite3
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
from conftest_vector import make_job, prepared, verified_again
from pydantic import ValidationError
from shapely import box, to_wkb

from lib.errors import DataError, SourceError

_NAMES = ["plain", "Rhône", "Zürich", None]


def _shapefile(folder: Path, language_driver: int, field: str = "name") -> Path:
    """A Shapefile in Latin-1 without .cpg, and with such a language driver id in its table."""
    frame = geopandas.GeoDataFrame({field: _NAMES}, geometry=[box(0, 0, 10, 10)] * len(_NAMES), crs="EPSG:32633")
    pyogrio.write_dataframe(frame, folder / "s.shp", encoding="ISO-8859-1")
    (folder / "s.cpg").unlink()
    table = bytearray((folder / "s.dbf").read_bytes())
    table[29] = language_driver
    (folder / "s.dbf").write_bytes(table)
    return folder / "s.shp"


def _csv(folder: Path) -> Path:
    (folder / "s.csv").write_bytes("id,name\n1,plain\n2,Rhône\n3,Zürich\n".encode("latin-1"))
    return folder / "s.csv"


def _geopackage(folder: Path) -> Path:
    frame = geopandas.GeoDataFrame({"name": _NAMES}, geometry=[box(0, 0, 10, 10)] * len(_NAMES), crs="EPSG:32633")
    pyogrio.write_dataframe(frame, folder / "s.gpkg", layer="s", SPATIAL_INDEX="NO")
    database = sqlite3.connect(folder / "s.gpkg")
    for row, name in enumerate(_NAMES, 1):
        if name:
            database.execute("UPDATE s SET name = CAST(? AS TEXT) WHERE fid = ?", (name.encode("latin-1"), row))
    database.commit()
    database.close()
    return folder / "s.gpkg"


def _geojsonseq(folder: Path) -> Path:
    line = '{"type":"Feature","properties":{"name":"%s"},"geometry":{"type":"Point","coordinates":[1,2]}}\n'
    text = "".join(line % name for name in _NAMES if name)
    (folder / "s.geojsonl").write_bytes(text.encode("latin-1"))
    return folder / "s.geojsonl"


def _geojson(folder: Path) -> Path:
    feature = '{"type":"Feature","properties":{"name":"%s"},"geometry":{"type":"Point","coordinates":[1,2]}}'
    text = ",".join(feature % name for name in _NAMES if name)
    (folder / "s.geojson").write_bytes(f'{{"type":"FeatureCollection","features":[{text}]}}'.encode("latin-1"))
    return folder / "s.geojson"


def _frame() -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame({"name": _NAMES}, geometry=[box(0, 0, 10, 10)] * len(_NAMES), crs="EPSG:32633")


def _mapinfo(folder: Path) -> Path:
    """A table of charset Neutral, which declares nothing."""
    pyogrio.write_dataframe(_frame(), folder / "s.tab", driver="MapInfo File", encoding="ISO-8859-1")
    assert b"Neutral" in (folder / "s.tab").read_bytes()
    return folder / "s.tab"


def _wrong_cpg(folder: Path) -> Path:
    """A Shapefile that declares UTF-8, and is in Latin-1."""
    path = _shapefile(folder, 0)
    path.with_suffix(".cpg").write_text("UTF-8")
    return path


def _parquet(folder: Path) -> Path:
    """GeoParquet whose texts are not what they are declared to be."""
    _frame().to_parquet(folder / "s.parquet")
    table = pq.read_table(folder / "s.parquet")
    raw = pa.array([None if name is None else name.encode("latin-1") for name in _NAMES], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(0, "name", raw), folder / "s.parquet")
    return folder / "s.parquet"


_SOURCES: dict[str, Callable[[Path], Path]] = {
    "Shapefile": lambda folder: _shapefile(folder, 0),
    "CSV": _csv,
    "GeoPackage": _geopackage,
    "GeoJSONSeq": _geojsonseq,
    "GeoJSON": _geojson,
    "MapInfo": _mapinfo,
    "Shapefile with a wrong .cpg": _wrong_cpg,
    "Parquet": _parquet,
}
_OUTPUTS = ("out.gpkg", "out.fgb", "out.parquet", "out.shp", "out.geojson", "out.geojsonl")
_PLACED = [kind for kind in _SOURCES if kind != "CSV"]  # FlatGeobuf holds no tables


@pytest.mark.parametrize(("kind", "name"), [("CSV", "out.gpkg"), *product(_PLACED, _OUTPUTS)])
def test_what_is_not_declared_is_an_error_or_decoded_as_the_job_says(
    kind: str, name: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """Without a word the field and the row are named; with one, each name comes out, and full verification agrees."""
    source = _SOURCES[kind](tmp_path)
    more = {"to_crs": "EPSG:4326"} if "json" in name and "JSON" not in kind else {}
    with pytest.raises(DataError, match=r"'name' of row 2 is no UTF-8: 'Rh\\xf4ne'") as caught:
        run_job(source, name, **more)
    assert "--encoding" in caught.value.hint
    done = run_job(source, name, encoding="latin-1", **more)
    if name.endswith("parquet"):
        found = geopandas.read_parquet(done.output)["name"]
    else:
        found = pyogrio.read_dataframe(done.output, use_arrow=False, read_geometry=False)["name"]
    wanted = [each for each in _NAMES if each or kind not in ("CSV", "GeoJSON", "GeoJSONSeq")]
    assert sorted(found.fillna("")) == sorted(each or "" for each in wanted)
    if kind == "CSV":
        return
    work = make_job(source, tmp_path / name, encoding="latin-1", **more)
    checks = verified_again(source, done, work)
    assert all(checks.values()), checks


@pytest.mark.parametrize("name", ["out.gpkg", "out.parquet", "out.geojson"])
def test_json_is_text_likewise(name: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A field of JSON whose bytes do not fit is an error, and decoded."""
    source = tmp_path / "s.gpkg"
    shapes = pa.array([to_wkb(box(0, 0, 10, 10))] * 3, pa.binary())
    is_json = pa.field("name", pa.string(), metadata={"ARROW:extension:name": "arrow.json"})
    schema = pa.schema([is_json, pa.field("g", pa.binary())])
    pyogrio.raw.write_arrow(
        pa.table([pa.array(['{"a":"x"}', None, None]), shapes], schema=schema), source, driver="GPKG", geometry_name="g",
        geometry_type="Polygon", crs="EPSG:32633", layer="s", layer_options={"SPATIAL_INDEX": "NO"},
    )  # fmt: skip
    database = sqlite3.connect(source)
    database.execute("UPDATE s SET name = CAST(? AS TEXT) WHERE fid = 2", ('{"a":"Rhône"}'.encode("latin-1"),))
    database.commit()
    database.close()
    assert pyogrio.read_info(source)["ogr_subtypes"][0] == "OFSTJSON"
    more = {"to_crs": "EPSG:4326"} if "json" in name else {}
    with pytest.raises(DataError, match=r"'name' of row 2 is no UTF-8"):
        run_job(source, name, **more)
    done = run_job(source, name, encoding="latin-1", **more)
    assert "Rhône".encode() in done.output.read_bytes() or name.endswith("parquet")


def test_a_declared_encoding_needs_no_word(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A table's language driver id (0x57: Windows ANSI) says enough."""
    done = run_job(_shapefile(tmp_path, 0x57))
    assert pyogrio.read_dataframe(done.output, use_arrow=False)["name"].fillna("").tolist() == [
        each or "" for each in _NAMES
    ]


def test_undeclared_utf8_is_taken_as_it_is(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A table without .cpg whose names and values are UTF-8 keeps both."""
    frame = geopandas.GeoDataFrame({"Höhe": ["Rhône"]}, geometry=[box(0, 0, 10, 10)], crs="EPSG:32633")
    pyogrio.write_dataframe(frame, tmp_path / "u.shp", encoding="UTF-8")
    (tmp_path / "u.cpg").unlink()
    done = run_job(tmp_path / "u.shp")
    assert pyogrio.read_dataframe(done.output, use_arrow=False)["Höhe"].tolist() == ["Rhône"]


def test_field_names_that_are_not_utf8(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """They are refused before any work, and decoded where the job says how."""
    source = _shapefile(tmp_path, 0, "Höhe")
    with pytest.raises(SourceError, match="names of its fields") as caught:
        prepared(make_job(source, tmp_path / "out.gpkg"))
    assert caught.value.exit_code == 2
    done = run_job(source, encoding="ISO-8859-1")
    assert pyogrio.read_dataframe(done.output, use_arrow=False)["Höhe"].fillna("").tolist() == [
        each or "" for each in _NAMES
    ]


def test_an_encoding_that_does_not_fit_is_an_error(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Bytes that are not even what the job says are named, too; a name of no codec is bad usage."""
    with pytest.raises(DataError, match=re.escape("'name' of row 2 is no ascii")):
        run_job(_csv(tmp_path), encoding="ascii")
    with pytest.raises(ValidationError, match="no encoding of text"):
        make_job(tmp_path / "s.csv", tmp_path / "out.gpkg", encoding="klingon")
