"""GeoJSON and GeoJSON text sequences written: by geopandas and by the text itself; what they cannot hold is said or refused."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from conftest_vector import geod_areas, make_job, parcels, solid, verified_again

from lib.errors import DestinationError, OutputError
from lib.vector.verify import read_provenance

THRESHOLD = 2500.0
NAMES = ("out.geojson", "out.json", "out.geojsonl", "out.geojsons", "out.ndjson")


@pytest.mark.parametrize("name", NAMES)
def test_kept_features_are_read_by_geopandas(name: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Rows, attributes and geometries, rounded to nine decimals, are those that geopandas and Geod keep; verification agrees."""
    frame = solid(parcels(400)).reset_index(drop=True)
    frame["name"] = [None if n % 4 == 0 else f"straße {n}" for n in frame["n"]]
    frame["flag"] = [bool(n % 2) for n in frame["n"]]
    frame.to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    wanted = geopandas.read_file(tmp_path / "a.gpkg")[geod_areas(frame) >= THRESHOLD].reset_index(drop=True)
    done = run_job(tmp_path / "a.gpkg", name, min_area_sqm=THRESHOLD, chunk_rows=50)
    found = geopandas.read_file(done.output)
    for column in ("n", "name", "value", "flag"):
        assert (
            found[column].astype(object).where(found[column].notna(), None).tolist()
            == wanted[column].astype(object).where(wanted[column].notna(), None).tolist()
        )
    assert found.crs == wanted.crs
    turned = [shapely.normalize(each.geometry.to_numpy()) for each in (found, wanted)]
    assert shapely.equals_exact(*turned, 1e-9).all()
    rings = shapely.get_parts(found.geometry.to_numpy())
    assert all(each.exterior.is_ccw and not any(hole.is_ccw for hole in each.interiors) for each in rings)
    assert any("rounded to 9 decimals" in note for note in done.outcome.warnings)
    assert all(check.passed for check in done.outcome.checks)
    checks = verified_again(
        tmp_path / "a.gpkg", done, make_job(tmp_path / "a.gpkg", done.output, min_area_sqm=THRESHOLD)
    )
    assert checks["membership"]
    assert all(checks.values())


def test_texts_that_are_json_are_said(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A text sequence has them as objects and lists, with a warning that names the field once; a GeoJSON as texts."""
    texts = ['{"a":1}', "[1,2]", "[no]", "{", "", None, "plain"]
    frame = geopandas.GeoDataFrame({"v": texts, "w": ["[x]"] * 7}, geometry=[shapely.Point(0, 0)] * 7, crs="EPSG:4326")
    frame.to_file(tmp_path / "a.gpkg")
    done = run_job(tmp_path / "a.gpkg", "out.geojsonl", chunk_rows=1)
    said = [note for note in done.outcome.warnings if "that are JSON become" in note]
    assert len(said) == 1
    assert "'v'" in said[0]
    found = [json.loads(line)["properties"]["v"] for line in done.output.read_text().splitlines()]
    assert found == [{"a": 1}, [1, 2], *texts[2:]]
    done = run_job(tmp_path / "a.gpkg", "out.geojson")
    assert not [note for note in done.outcome.warnings if "that are JSON" in note]
    assert [each["properties"]["v"] for each in json.loads(done.output.read_text())["features"]] == texts


def test_verification_sees_a_row_that_is_missing_or_moved(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """One feature taken out of the output, or moved by a metre, fails the full verification."""
    parcels(60).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg", "out.geojson", min_area_sqm=THRESHOLD)
    job = make_job(tmp_path / "a.gpkg", done.output, min_area_sqm=THRESHOLD)
    whole = json.loads(done.output.read_text())
    one, *others = whole["features"]
    done.output.write_text(json.dumps(whole | {"features": others}))
    assert not verified_again(tmp_path / "a.gpkg", done, job)["membership"]
    moved = json.loads(json.dumps(one).replace(str(one["geometry"]["coordinates"][0][0][0]), "-97.5"))
    done.output.write_text(json.dumps(whole | {"features": [*others, moved]}))
    assert not verified_again(tmp_path / "a.gpkg", done, job)["membership"]


def test_a_collection_says_how_it_was_made(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Provenance is a member of the collection; a text sequence has no place for it."""
    parcels(20).to_file(tmp_path / "a.gpkg", geometry_type="Unknown", layer="fields")
    done = run_job(tmp_path / "a.gpkg", "out.geojson", min_area_sqm=THRESHOLD)
    assert (read_provenance(done.output) or {})["min_area_sqm"] == THRESHOLD
    assert json.loads(done.output.read_text())["name"] == "fields"
    assert read_provenance(run_job(tmp_path / "a.gpkg", "out.geojsonl", min_area_sqm=THRESHOLD).output) is None


@pytest.mark.parametrize(
    ("crs", "words", "hint"),
    [("EPSG:32614", "is in EPSG:32614", "--to-crs EPSG:4326"), (None, "has no CRS", "--assume-crs")],
)
def test_another_crs_is_refused_beforehand(
    crs: str | None, words: str, hint: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """RFC 7946 is in longitude and latitude: what to do is said before anything is written."""
    with warnings.catch_warnings(action="ignore"):
        geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=crs).to_file(tmp_path / "a.gpkg")
    for name in ("out.geojson", "out.geojsonl"):
        with pytest.raises(DestinationError, match=words) as raised:
            run_job(tmp_path / "a.gpkg", name)
        assert hint in (raised.value.hint or "")
        assert not (tmp_path / "staged" / name).exists()


@pytest.mark.parametrize("name", ["out.geojson", "out.geojsonl"])
def test_an_output_of_nothing_or_one(name: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Where nothing is kept, or one feature, the checks pass all the same."""
    parcels(40).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    largest = float(np.nanmax(geod_areas(parcels(40))))
    for least, kept in ((1e12, 0), (largest, 1)):
        done = run_job(tmp_path / "a.gpkg", name, min_area_sqm=least)
        assert done.outcome.result["features_kept"] == kept
        assert all(check.passed for check in done.outcome.checks), done.outcome.checks
        job = make_job(tmp_path / "a.gpkg", done.output, min_area_sqm=least)
        checks = verified_again(tmp_path / "a.gpkg", done, job)
        assert all(checks.values()), checks
        done.output.unlink()


@pytest.mark.parametrize("name", ["out.geojson", "out.geojsonl"])
def test_numbers_that_are_not_finite_are_null_and_said(name: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """JSON has none: the field is named."""
    wkb = np.array([shapely.to_wkb(shapely.box(0, 0, 1, 1))] * 3, object)
    pyogrio.raw.write(
        tmp_path / "a.fgb", wkb, [np.array([1.5, np.inf, -np.inf])], ["v"], driver="FlatGeobuf",
        geometry_type="Polygon", crs="EPSG:4326",
    )  # fmt: skip
    done = run_job(tmp_path / "a.fgb", name)
    features = [json.loads(line.rstrip(",")) for line in done.output.read_text().splitlines() if '"Feature"' in line]
    assert sorted(str(each["properties"]["v"]) for each in features) == ["1.5", "None", "None"]
    assert any("numbers of field 'v' that are not finite are null" in note for note in done.outcome.warnings)


def test_m_is_refused(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """GeoJSON has no M."""
    wkb = shapely.to_wkb(shapely.from_wkt("POINT M (10 50 1)"), flavor="iso")
    pyogrio.raw.write(tmp_path / "a.gpkg", np.array([wkb], object), [], [], geometry_type="Unknown", crs="EPSG:4326")
    with pytest.raises(OutputError, match="GeoJSON cannot hold M"):
        run_job(tmp_path / "a.gpkg", "out.geojson")


@pytest.mark.parametrize("name", ["out.geojson", "out.geojsonl", "out.shp"])
def test_rings_that_cross_themselves_are_verified(name: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """The format turns them, or not: they are the same rings."""
    bow = shapely.from_wkt("POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))")
    shapes = [bow, shapely.reverse(bow), shapely.MultiPolygon([bow, shapely.box(5, 5, 6, 6)])]
    source = tmp_path / "a.gpkg"
    geopandas.GeoDataFrame({"n": range(3)}, geometry=shapes, crs="EPSG:4326").to_file(source, geometry_type="Unknown")
    done = run_job(source, name)
    checks = verified_again(source, done, make_job(source, done.output))
    assert all(checks.values()), checks
