"""Text that is not UTF-8: decoded as declared or as the job says, else an error that names field and row."""

import re
import sqlite3
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import geopandas
import pyogrio
import pytest
from conftest_vector import make_job, prepared, verified_again
from pydantic import ValidationError
from shapely.geometry import box

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


_SOURCES: dict[str, Callable[[Path], Path]] = {
    "Shapefile": lambda folder: _shapefile(folder, 0),
    "CSV": _csv,
    "GeoPackage": _geopackage,
    "GeoJSONSeq": _geojsonseq,
}
_PLACED = [kind for kind in _SOURCES if kind != "CSV"]  # FlatGeobuf holds no tables


@pytest.mark.parametrize(("kind", "name"), [("CSV", "out.gpkg"), *product(_PLACED, ("out.gpkg", "out.fgb"))])
def test_what_is_not_declared_is_an_error_or_decoded_as_the_job_says(
    kind: str, name: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """Without a word the field and the row are named; with one, each name comes out, and full verification agrees."""
    source = _SOURCES[kind](tmp_path)
    with pytest.raises(DataError, match=r"'name' of row 2 is no UTF-8: 'Rh\\xf4ne'") as caught:
        run_job(source, name)
    assert "--encoding" in caught.value.hint
    done = run_job(source, name, encoding="latin-1")
    found = pyogrio.read_dataframe(done.output, use_arrow=False, read_geometry=False)["name"]
    wanted = [each for each in _NAMES if each or kind in ("Shapefile", "GeoPackage")]
    assert sorted(found.fillna("")) == sorted(each or "" for each in wanted)
    if kind == "CSV":
        return
    work = make_job(source, tmp_path / name, encoding="latin-1")
    checks = verified_again(source, done, work)
    assert all(checks.values()), checks


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
