"""Layers in archives: what is in one is found by its name alone, several are listed, and what is lost in one is told."""

import json
import shlex
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
from conftest_vector import make_job, prepared, room
from every_format import frame, names_in, written, zipped

from lib.errors import DataError, SourceError
from lib.jobs import ProfileJob, Resources
from lib.probe import probe
from lib.units import MIB
from lib.vector import profile


def _refused(source: str | Path, **choices: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        prepared(make_job(Path(source), Path(source).parent / "out.gpkg", **choices)).first()
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("form", ["/vsizip/{}/in/a.fgb", "/vsizip/{{{}}}/in/a.fgb", "zip://{}!in/a.fgb", "{}"])
def test_a_zip_by_each_of_its_names(form: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """GDAL's name, a URL, and the archive alone, which has other files in it; nothing is written beside it."""
    archive = zipped(written(tmp_path, "fgb"), inside="in/")
    with zipfile.ZipFile(archive, "a") as into:
        into.writestr("in/readme.txt", "hello")
        into.writestr("__MACOSX/in/._a.fgb", "x")
    before = names_in(tmp_path)
    assert run_job(form.format(archive)).outcome.result["features_kept"] == len(frame())
    assert {name for name in names_in(tmp_path) - before if not name.startswith("staged/")} == set()


def test_a_zip_of_several_lists_them_and_a_layer_chooses(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Each name that the error gives opens as the shell gives it; a layer of a file's name chooses that one."""
    archive = zipped(written(tmp_path, "shp", stem="roads"), "two files.zip")
    zipped(written(tmp_path, "geojson", frame(30), stem="new parcels"), archive.name)
    refused = _refused(archive)
    assert "holds 2 vector datasets" in refused.message
    names = shlex.split(refused.hint.removeprefix("name one of them: "))
    assert [run_job(name, f"{at}.gpkg").outcome.result["features_kept"] for at, name in enumerate(names)] == [120, 30]
    assert run_job(archive, layer="new parcels").outcome.result["features_kept"] == 30
    assert "holds 2" in _refused(archive, layer="parcels").message


def test_zips_without_a_layer(tmp_path: Path) -> None:
    """It says what is in it, or that it is none."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as into:
        into.writestr("in/notes.txt", "x")
    refused = _refused(tmp_path / "a.zip")
    assert "holds no vector dataset" in refused.message
    assert "notes.txt" in refused.hint
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:60])
    assert "no archive that can be read" in _refused(tmp_path / "b.zip").message


def test_profile_and_probe(tmp_path: Path) -> None:
    """The jobs that take rasters and layers tell what is in an archive, and which datasets there are where it holds several."""
    archive = zipped(written(tmp_path, "shp"))
    assert probe(str(archive)) == ("vector", "ESRI Shapefile")
    assert probe(str(zipped(written(tmp_path, "gdb")))).driver == "OpenFileGDB"
    job = ProfileJob(source=str(archive), resources=Resources(limit_bytes=512 * MIB))
    assert profile.prepare(job, room()).first().facts["features"] == len(frame())
    zipped(written(tmp_path, "fgb", stem="b"), archive.name)
    with pytest.raises(SourceError, match="holds 2 vector datasets") as caught:
        probe(str(archive))
    assert "b.fgb" in caught.value.hint


def test_an_output_is_of_the_archive(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Its provenance names the archive and its size."""
    archive = zipped(written(tmp_path, "fgb"))
    done = run_job(archive)
    with sqlite3.connect(done.output) as database:
        (said,) = database.execute("SELECT metadata FROM gpkg_metadata").fetchone()
    assert f'name":"{archive.name}' in json.dumps(said).replace("\\", "").replace("&quot;", '"')
    assert str(archive.stat().st_size) in said


def test_a_database_with_changes_beside_it_is_refused(tmp_path: Path) -> None:
    """A write-ahead log in an archive is read by nobody: rows would be missing."""
    path = written(tmp_path, "gpkg")
    path.with_name("a.gpkg-wal").write_bytes(b"x" * 4096)
    archive = zipped(path)
    with zipfile.ZipFile(archive, "a") as into:
        into.write(path.with_name("a.gpkg-wal"), "a.gpkg-wal")
    assert "write-ahead log a.gpkg-wal" in _refused(archive).message


def test_a_count_of_the_database_that_is_wrong(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """In an archive and outside rows are counted by the table, whatever it says of them elsewhere."""
    path = written(tmp_path, "gpkg")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE gpkg_ogr_contents SET feature_count = 100")
    for at, source in enumerate((path, zipped(path))):
        assert run_job(source, f"{at}.gpkg").outcome.result["features_read"] == len(frame())


_TOLD = r"unpack|can no longer be read|cannot be read to its end|damaged|cut short|row \d+ .*does not decode"


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb", "csv", "shp", "gml"])
@pytest.mark.parametrize("at", [0.6, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.3, 0.9))])
def test_bytes_that_do_not_unpack(suffix: str, at: float, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Wherever they are: one line, and no rows that are made of what was left."""
    path = zipped(written(tmp_path, suffix, frame(3000)))
    content = bytearray(path.read_bytes())
    start = int(len(content) * at)
    content[start : start + 512] = bytes(512)
    path.write_bytes(content)
    shutil.rmtree(tmp_path / f"a.{suffix}", ignore_errors=True)
    with pytest.raises((SourceError, DataError), match=_TOLD) as caught:
        run_job(path, assume_crs="EPSG:4326")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("suffix", ["fgb", "parquet", "shp", "gdb"])
def test_a_byte_that_is_another(suffix: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """It unpacks, and only its checksum is wrong, which a reader that seeks does not see."""
    source = written(tmp_path, suffix, frame(400))
    path = zipped(source, level=0)
    content = bytearray(path.read_bytes())
    files = list(source.rglob("*")) if source.is_dir() else [source]
    largest = max(files, key=lambda each: each.stat().st_size).read_bytes()
    content[content.index(largest[2000:2040]) + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises((SourceError, DataError), match=_TOLD):
        run_job(path)


def test_an_intersecting_file_in_a_zip(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """The polygons of --intersects, too."""
    source = written(tmp_path, "fgb")
    region = zipped(written(tmp_path, "geojson", frame(20), stem="region"))
    wanted = frame()[frame().intersects(frame(20).union_all())]
    found = geopandas.read_file(run_job(source, intersects=str(region)).output)
    assert sorted(found["n"]) == sorted(wanted["n"])
