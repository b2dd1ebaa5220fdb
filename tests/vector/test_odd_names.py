"""Names that pyogrio, GDAL or SQLite would interpret, in this process; every command and format is in tests/test_paths.py."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import pyogrio
import pytest
from conftest_vector import parcels, solid

from lib.probe import probe
from lib.vector import ogr

ODD = "GPKG:zip+s3:a!b%41c%20;d?e#f|g&h'i\"j -k\nlü[bold]{m}"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A GeoPackage of an odd name in an odd folder, beside one that its name may be taken for."""
    folder = tmp_path / "50%25!x;y?z"
    folder.mkdir()
    solid(parcels(30)).to_file(tmp_path / "plain.gpkg", layer="p", geometry_type="Unknown")
    solid(parcels(9)).to_file(tmp_path / "other.gpkg", layer="p", geometry_type="Unknown")
    shutil.copy(tmp_path / "plain.gpkg", folder / f"{ODD}.gpkg")
    for taken in (
        "b%41c%20",
        "bAc ;d?e#f|g&h'i\"j -k\nlü[bold]{m}.gpkg",
        "b%41c%20;d",
        f"{ODD}.gpkg".replace("%41", "A"),
    ):
        shutil.copy(tmp_path / "other.gpkg", folder / taken)
    return folder / f"{ODD}.gpkg"


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb"])
def test_odd_names_are_taken_literally(odd: Path, run_job: Callable[..., Any], suffix: str) -> None:
    """The source is the file of that name, and the output is written under its own, alone."""
    before = {path.name: path.read_bytes() for path in odd.parent.iterdir()}
    done = run_job(odd, f"{ODD}{suffix}")
    assert all(check.passed for check in done.outcome.checks)
    assert [path.name for path in done.output.parent.iterdir()] == [done.output.name]
    copy = shutil.copy(done.output, odd.parent.parent / f"copy{suffix}")
    assert len(pyogrio.read_dataframe(copy)) == len(solid(parcels(30)))
    assert {path.name: path.read_bytes() for path in odd.parent.iterdir()} == before
    assert all("feature ids are not kept" in warning for warning in done.outcome.warnings)


def test_a_name_with_per_cents_and_wal_leaves_nothing_beside_it(odd: Path) -> None:
    """A database in WAL mode is opened as immutable by a name without escapes: no -wal or -shm comes, and no warning."""
    with closing(sqlite3.connect(odd)) as database:
        assert database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    before = sorted(odd.parent.iterdir())
    info, notes = ogr.read_info(str(odd))
    assert info["features"] == len(solid(parcels(30)))
    assert not notes
    assert sorted(odd.parent.iterdir()) == before


def test_what_fails_has_its_own_name(odd: Path) -> None:
    """Where another name stands for the file's, errors do not show it."""

    def fail() -> None:
        with ogr.opening(str(odd)) as (name, _):
            assert name != str(odd)
            raise RuntimeError(f"{name} cannot be opened")

    with pytest.raises(RuntimeError, match="b%41c%20"):
        fail()


def test_a_users_own_pyogrio_parses_as_ever(odd: Path, tmp_path: Path) -> None:
    """Only our names are literal: an archive's member is found by a function that asks for it so."""
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "other.gpkg")
    assert len(pyogrio.read_dataframe(f"zip://{tmp_path}/packed.zip!other.gpkg")) == len(solid(parcels(9)))
    assert len(pyogrio.read_dataframe(f"{tmp_path}/packed.zip!other.gpkg")) == len(solid(parcels(9)))


def test_it_is_probed_by_its_own_name(odd: Path) -> None:
    """`profile`, `verify` and `drivers` find out what it is."""
    assert probe(str(odd)) == ("vector", "GPKG")


def test_a_layer_name_that_no_geopackage_may_have_is_changed_and_said(
    tmp_path: Path, run_job: Callable[..., Any]
) -> None:
    """A Shapefile's layer is named as its file; GDAL refuses a GeoPackage's that begins with a special character."""
    solid(parcels(9)).to_file(tmp_path / "-(a).shp", geometry_type="Polygon")
    done = run_job(tmp_path / "-(a).shp")
    assert pyogrio.list_layers(done.output)[:, 0].tolist() == ["a)"]
    assert done.outcome.warnings == ("-(a).shp: layer '-(a)' is called 'a)' in the output",)
    assert geopandas.read_file(done.output)["n"].tolist() == solid(parcels(9))["n"].tolist()


def test_columns_that_ogr_does_not_know_are_named(tmp_path: Path, run_job: Callable[..., Any]) -> None:
    """PostgreSQL's own types in a GeoPackage are no columns to OGR: which are lost is said, once and by name."""
    source = tmp_path / "pg.gpkg"
    solid(parcels(9)).to_file(source, layer="p", geometry_type="Unknown")
    with closing(sqlite3.connect(source)) as database, database:
        database.execute("ALTER TABLE p ADD COLUMN owner character varying(256)")
        database.execute("ALTER TABLE p ADD COLUMN price double precision")
    done = run_job(source)
    assert done.outcome.warnings == (
        "columns of types that OGR does not know are not read: owner (character varying(256)), price (double precision)",
    )
