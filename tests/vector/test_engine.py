"""The kept set against geopandas and Geod, and what the output keeps of the source."""

import datetime as dt
import json
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import pytest
import shapely
from conftest_vector import geod_areas, make_bench, make_job, parcels, prepared, solid, verified
from pyproj import Geod

from lib import provenance
from lib.errors import DataError, FunctionError, MemoryExceeded, OutputError
from lib.jobs import VerifyJob
from lib.run import run_published
from lib.units import MIB
from lib.vector import verify
from lib.vector.ogr import translated
from lib.vector.sources import sqlite
from lib.vector.verify import read_provenance

THRESHOLD = 2500.0
CRSS = {
    "longitude and latitude": "EPSG:4326",
    "UTM": "EPSG:32614",
    "US survey feet": "EPSG:2264",
    "Web Mercator": "EPSG:3857",
    "Clarke 1866": "EPSG:4008",
}


@pytest.fixture(scope="module")
def frames() -> dict[str, geopandas.GeoDataFrame]:
    """The same parcels in every CRS; near North Carolina's plane they are where its feet make sense."""
    return {name: parcels(600, crs=crs) for name, crs in CRSS.items()}


@pytest.mark.parametrize("name", CRSS)
def test_kept_set_equals_geopandas_and_geod(
    name: str, frames: dict[str, geopandas.GeoDataFrame], run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """What is kept is what Geod would keep, whatever the CRS."""
    frame = frames[name]
    source = tmp_path / "source.gpkg"
    frame.to_file(source, layer="parcels", engine="pyogrio", geometry_type="Unknown")
    areas = geod_areas(frame)
    empty = frame.geometry.is_empty | frame.geometry.isna()
    wanted = frame["n"][(areas >= THRESHOLD) & ~empty].tolist()
    done = run_job(source, min_area_sqm=THRESHOLD, chunk_rows=64)
    assert geopandas.read_file(done.output)["n"].tolist() == wanted
    assert 0 < len(wanted) < len(frame)
    result = done.outcome.result
    assert result["area_mode"] == "geodesic"
    assert "on the ellipsoid" in done.plan.facts["area"]
    assert result["features_read"] == len(frame)
    assert result["features_kept"] == len(wanted)
    assert result["features_null_area"] == empty.sum()
    assert result["batches"] == 10


def test_a_bound_that_is_a_feature_s_own_area_is_inclusive(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Minimum and maximum equal to a feature's area by Geod keep it; the next larger number does not."""
    frame = parcels(40)
    source = tmp_path / "source.gpkg"
    frame.to_file(source, geometry_type="Unknown")
    areas = geod_areas(frame)
    row = int(np.nanargmax(areas))
    for low, high, kept in (
        (areas[row], None, 1),
        (np.nextafter(areas[row], np.inf), None, 0),
        (areas[row], areas[row], 1),
    ):
        done = run_job(source, min_area_sqm=low, max_area_sqm=high, overwrite=True)
        assert done.outcome.result["features_kept"] == kept
        assert done.outcome.result["arbitrated"] >= 1
        done.output.unlink()


def test_maximum_keeps_the_small_ones(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """max_area_sqm keeps what is not larger, and drops what has no area."""
    frame = parcels(200)
    frame.to_file(tmp_path / "source.gpkg", geometry_type="Unknown")
    areas = geod_areas(frame)
    done = run_job(tmp_path / "source.gpkg", max_area_sqm=900)
    assert geopandas.read_file(done.output)["n"].tolist() == frame["n"][areas <= 900].tolist()


@pytest.mark.parametrize(
    ("source_name", "output_name"),
    [("a.gpkg", "b.gpkg"), ("a.gpkg", "b.fgb"), ("a.fgb", "b.gpkg"), ("a.shp", "b.gpkg")],
)
def test_formats_and_attributes(
    source_name: str, output_name: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """Every attribute of every kept row is as geopandas reads it from the source, nulls and dates included."""
    frame = parcels(150)
    frame = solid(frame).copy()
    frame["count"] = pd.array([None if n % 3 else n for n in frame["n"]], dtype="Int32")
    frame["name"] = [None if n % 4 == 0 else f"straße {n}" for n in frame["n"]]
    frame["seen"] = [pd.Timestamp(2024, 2, 29) + pd.Timedelta(days=int(n)) for n in frame["n"]]
    frame["flag"] = [bool(n % 2) for n in frame["n"]]
    if source_name.endswith(".shp"):
        frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
        frame = frame.drop(columns=["seen"]).assign(day=[dt.date(2024, 1, 1 + n % 28) for n in frame["n"]])
    source = tmp_path / source_name
    options = {} if source_name.endswith(".shp") else {"layer": "parcels"}
    frame.to_file(source, engine="pyogrio", **options)
    done = run_job(source, output_name, min_area_sqm=THRESHOLD)
    before, after = geopandas.read_file(source), geopandas.read_file(done.output)
    kept = geod_areas(before) >= THRESHOLD
    before = before[kept].sort_values("n").reset_index(drop=True)
    after = after.sort_values("n").reset_index(drop=True)
    pd.testing.assert_frame_equal(before.drop(columns="geometry"), after.drop(columns="geometry"))
    assert shapely.equals(before.geometry.to_numpy(), after.geometry.to_numpy()).all()
    assert before.crs == after.crs
    info = pyogrio.read_info(done.output)
    assert info["layer_name"] == ("a" if source_name.endswith(".shp") else "parcels")
    assert list(info["ogr_types"]) == list(pyogrio.read_info(source)["ogr_types"])
    assert not [check for check in done.outcome.checks if not check.passed]


def test_shapefile_polygons_become_multi(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A Shapefile does not tell polygons from multipolygons; all are multi in the output, as ogr2ogr makes them."""
    frame = solid(parcels(60))
    frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
    frame.to_file(tmp_path / "a.shp")
    done = run_job(tmp_path / "a.shp")
    assert pyogrio.read_info(done.output)["geometry_type"] == "MultiPolygon"
    assert set(geopandas.read_file(done.output).geom_type) == {"MultiPolygon"}


def test_feature_ids_are_kept_from_geopackage_to_geopackage(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A kept row has the feature id, id column and geometry column that it had."""
    frame = parcels(100)
    source = tmp_path / "a.gpkg"
    frame.to_file(source, FID="key", GEOMETRY_NAME="shape", geometry_type="Unknown")
    done = run_job(source, min_area_sqm=THRESHOLD)
    before, after = (pyogrio.read_dataframe(path, fid_as_index=True) for path in (source, done.output))
    assert after["n"].to_dict() == before["n"][geod_areas(before) >= THRESHOLD].to_dict()
    info = pyogrio.read_info(done.output)
    assert (info["fid_column"], info["geometry_name"]) == ("key", "shape")


def test_a_field_named_fid_is_kept_as_a_field(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """An attribute that has the GeoPackage's own name for ids is not taken for one."""
    frame = solid(parcels(20))[["n", "geometry"]].rename(columns={"n": "fid"})
    frame["fid"] = frame["fid"] + 1000
    frame.to_file(tmp_path / "a.geojson")
    done = run_job(tmp_path / "a.geojson")
    assert geopandas.read_file(done.output)["fid"].tolist() == frame["fid"].tolist()


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
def test_none_kept_and_empty_layers_give_valid_empty_outputs(
    name: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """An output with no rows has the source's schema and CRS, and counts 0."""
    solid(parcels(30)).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    parcels(30)[:0].to_file(tmp_path / "empty.gpkg", geometry_type="Polygon")
    for source, read in ((tmp_path / "a.gpkg", len(solid(parcels(30)))), (tmp_path / "empty.gpkg", 0)):
        done = run_job(source, name, min_area_sqm=1e12)
        after = geopandas.read_file(done.output)
        assert (len(after), list(after.columns), after.crs) == (0, ["n", "name", "value", "geometry"], "EPSG:4326")
        assert (done.outcome.result["features_read"], done.outcome.result["features_kept"]) == (read, 0)
        done.output.unlink()


def test_without_an_area_nulls_and_empties_are_kept(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """No predicate, no loss: every row is there, null geometries as null."""
    frame = parcels(60)
    frame.to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg")
    after = geopandas.read_file(done.output)
    assert after["n"].tolist() == frame["n"].tolist()
    assert after.geometry.isna().tolist() == frame.geometry.isna().tolist()
    assert done.outcome.result["area_mode"] is None


def test_flatgeobuf_refuses_nulls_with_a_hint(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """FlatGeobuf cannot hold null geometries: said so, with what to do."""
    parcels(60).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    with pytest.raises(OutputError, match="null") as caught:
        run_job(tmp_path / "a.gpkg", "out.fgb")
    assert ".gpkg" in caught.value.hint


def test_a_table_without_geometries_passes_through(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A layer without geometries is filtered by its function alone."""
    pyogrio.write_dataframe(pd.DataFrame({"a": range(10)}), tmp_path / "t.gpkg", layer="t")
    done = run_job(tmp_path / "t.gpkg", function="vector_functions:odd_rows")
    assert pyogrio.read_dataframe(done.output)["a"].tolist() == [1, 3, 5, 7, 9]


def test_provenance_tells_no_folders(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Where a job ran, and what stood in its paths and URLs, is not published with its output."""
    solid(parcels(30)).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    for name in ("out.gpkg", "out.fgb"):
        output = run_job(tmp_path / "a.gpkg", name, min_area_sqm=10).output
        assert b"SWATH_JOB" in output.read_bytes()
        assert str(tmp_path).encode() not in output.read_bytes()
    secret = make_job(Path("x"), tmp_path / "out.gpkg").model_copy(
        update={"source": "https://user:password@host/folder/a.gpkg?signature=secret"}
    )
    said = "".join(provenance.texts(secret).values())
    assert json.loads(provenance.texts(secret)["SWATH_SOURCE"])["name"] == "a.gpkg"
    assert not [word for word in ("password", "secret", "folder", str(tmp_path)) if word in said]


def test_other_readers_leave_nothing_beside_the_output(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """GDAL copies a GeoPackage dataset's metadata into a sidecar .aux.xml when it is read; a layer's stays where it is."""
    solid(parcels(30)).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    for name in ("out.gpkg", "out.fgb"):
        output = run_job(tmp_path / "a.gpkg", name).output
        assert len(pyogrio.read_dataframe(output)) == len(solid(parcels(30)))
        assert pyogrio.read_info(output)["features"] == len(solid(parcels(30)))
    assert sorted(each.name for each in output.parent.iterdir()) == ["out.fgb", "out.gpkg"]


def test_provenance_of_the_dataset_is_read_too(tmp_path: Path) -> None:
    """GeoPackages written before say it in the dataset's metadata."""
    job = make_job(tmp_path / "a.gpkg", tmp_path / "out.gpkg", min_area_sqm=3)
    solid(parcels(3)).to_file(tmp_path / "out.gpkg", geometry_type="Unknown", dataset_metadata=provenance.texts(job))
    found = read_provenance(tmp_path / "out.gpkg")
    assert found is not None
    assert found["min_area_sqm"] == 3


def test_provenance_is_in_the_output(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Both formats carry the version, the job and the source's identity."""
    solid(parcels(30)).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    for name in ("out.gpkg", "out.fgb"):
        done = run_job(tmp_path / "a.gpkg", name, min_area_sqm=10)
        found = read_provenance(done.output)
        assert found is not None
        assert found["min_area_sqm"] == 10
        assert "resources" not in found
        said = json.loads(pyogrio.read_info(done.output)["layer_metadata"][provenance.SOURCE])
        assert said == {
            "name": "a.gpkg",
            "bytes": (tmp_path / "a.gpkg").stat().st_size,
            "mtime_ns": (tmp_path / "a.gpkg").stat().st_mtime_ns,
        }
    assert read_provenance(tmp_path / "a.gpkg") is None


@pytest.mark.parametrize("function", ["odd_rows", "odd_rows_as_arrow", "odd_rows_as_batch", "odd_rows_as_table"])
def test_a_function_filters_by_mask_or_by_rows(function: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """NumPy and Arrow masks, filtered batches and tables all mean the same rows."""
    parcels(50).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg", function=f"vector_functions:{function}", chunk_rows=16)
    assert geopandas.read_file(done.output)["n"].tolist() == list(range(1, 50, 2))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("raises", "ZeroDivisionError"),
        ("exits", "SystemExit: 3"),
        ("returns_numbers", "int64 of shape"),
        ("returns_too_few", "shape"),
        ("drops_a_column", "columns"),
    ],
)
def test_a_function_that_fails_is_named(function: str, words: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """What the user's function does wrong is a FunctionError that names it."""
    parcels(10).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    with pytest.raises(FunctionError, match=words) as caught:
        run_job(tmp_path / "a.gpkg", function=f"vector_functions:{function}")
    assert f"vector_functions:{function}" in caught.value.message


@pytest.mark.parametrize(("function", "error"), [("exhausts_memory", MemoryError), ("has_no_room", MemoryExceeded)])
def test_a_function_s_memory_error_passes(
    function: str, error: type[Exception], run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """A MemoryError or ENOMEM inside the user's function is one of memory, not of the function."""
    parcels(10).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    with pytest.raises(error):
        run_job(tmp_path / "a.gpkg", function=f"vector_functions:{function}")


def test_nothing_is_left_beside_the_output(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """No journal, lock or temporary index stays in the staging folder."""
    solid(parcels(300)).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    for name in ("out.gpkg", "out.fgb"):
        done = run_job(tmp_path / "a.gpkg", name)
        done_names = sorted(path.name for path in done.output.parent.iterdir())
        assert done_names == [name]
        done.output.unlink()


@pytest.mark.parametrize("chunk_rows", [10_000, 100])
def test_a_corrupt_page_fails(chunk_rows: int, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """OGR's stream ends early on a corrupt GeoPackage page, without an error; here it is one that names the file."""
    source = tmp_path / "corrupt.gpkg"
    frame = parcels(3000)
    frame.to_file(source, layer="parcels", geometry_type="Unknown", SPATIAL_INDEX="NO")
    _damage_middle_page(source)
    with pyogrio.open_arrow(source, use_pyarrow=True) as (_, reader):
        assert 0 < sum(batch.num_rows for batch in reader) < len(frame)
    with pytest.raises(DataError, match=r"corrupt\.gpkg.*damaged"):
        run_job(source, min_area_sqm=1, chunk_rows=chunk_rows)


def test_a_partial_read_never_passes(
    run_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no look beforehand meets the damage, the count beside the pass does."""
    source = tmp_path / "corrupt.gpkg"
    parcels(3000).to_file(source, layer="parcels", geometry_type="Unknown", SPATIAL_INDEX="NO")
    _damage_middle_page(source)
    monkeypatch.setattr("lib.vector.sources.sqlite._look", lambda *_: sqlite._Look(0, 0, 0, None, is_whole=False))
    with pytest.raises(DataError, match=r"corrupt\.gpkg"):
        run_job(source, min_area_sqm=1)


def _damage_middle_page(path: Path) -> None:
    """Overwrite one page in the middle of the file: with this many rows it is a leaf of the layer's table."""
    content = bytearray(path.read_bytes())
    page = int.from_bytes(content[16:18], "big")
    middle = len(content) // 2 // page * page
    content[middle : middle + page] = bytes(255 for _ in range(page))
    path.write_bytes(content)


def test_geometry_bytes_cut_short_are_an_error(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A polygon that ends before its rings do is damage, not a small polygon."""
    import sqlite3

    source = tmp_path / "a.gpkg"
    solid(parcels(20)).to_file(source, layer="p", geometry_type="Unknown", SPATIAL_INDEX="NO")
    with closing(sqlite3.connect(source, isolation_level=None)) as database:
        database.execute("UPDATE p SET geom = CAST(substr(geom, 1, length(geom) - 20) AS BLOB) WHERE n = 3")
    with pytest.raises(DataError, match=r"a\.gpkg"):
        run_job(source, min_area_sqm=1)


def test_events_tell_the_phases(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """The parent hears of the baseline, the batches, and of the patient phases that may take long."""
    parcels(30).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg", chunk_rows=8)
    kinds = [event["event"] for event in done.events]
    assert kinds.index("baseline") < kinds.index("chunk")
    phases = [(event["name"], event["patient"]) for event in done.events if event["event"] == "phase"]
    assert phases == [("close", True), ("verify", True)]
    assert done.plan.chunks == 4 == done.outcome.result["batches"]


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    """A file-size limit that is hit while writing is said to be the output's trouble, and comes as such."""
    import subprocess
    import sys

    solid(parcels(2000)).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    code = (
        "import resource, sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "from conftest_vector import make_bench, make_job, prepared\n"
        "source, output = Path(sys.argv[3]), Path(sys.argv[4])\n"
        "job = make_job(source, output)\n"
        "work = prepared(job)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n    work.run(make_bench(output)[0])\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    here = Path(__file__).parent
    for name in ("out.gpkg", "out.fgb"):
        paths = (here.parents[1], here, tmp_path / "a.gpkg", tmp_path / name)
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False
        )
        assert done.stdout.startswith("OutputError"), done.stderr
        assert "the disk is full or a file-size limit was reached" in done.stdout


def test_the_job_in_the_output_is_json(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """SWATH_JOB is the job as JSON, read back by any tool."""
    parcels(10).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg")
    metadata = pyogrio.read_info(done.output)["layer_metadata"]
    assert json.loads(metadata["SWATH_JOB"])["kind"] == "vector"


def test_plan_is_made_of_its_terms(tmp_path: Path) -> None:
    """A plan's projection is the sum of its terms, and names what it expects of the output."""
    parcels(100).to_file(tmp_path / "a.gpkg", layer="p", geometry_type="Unknown")
    plan = prepared(make_job(tmp_path / "a.gpkg", tmp_path / "b.gpkg", min_area_sqm=1)).look()
    assert sum(plan.terms.values()) == plan.projected_bytes
    assert plan.expected["layer"] == "p"
    assert [name for name, _ in plan.expected["fields"]] == ["n", "name", "value"]
    assert json.loads(json.dumps(plan.to_record()))["batch_rows"] == 10000
    assert make_bench(None)[0].staged is None


def _write_wkb(path: Path, driver: str, shapes: list[Any], geometry_type: str, crs: str | None = "EPSG:4326") -> None:
    """A layer `p` with the field `n`, of just these shapes under just this declared type."""
    wkb = [shapely.to_wkb(shape, flavor="iso", output_dimension=3) for shape in shapes]
    table = pa.table({"n": list(range(len(wkb))), "geom": pa.array(wkb, pa.binary())})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyogrio.write_arrow(
            table, path, layer="p", driver=driver, geometry_name="geom", geometry_type=geometry_type, crs=crs
        )


@pytest.mark.parametrize(
    ("declared", "heights"),
    [("Unknown", (None, 5)), ("Unknown", (5, 6)), ("Polygon Z", (5, None)), ("Polygon", (None, 5))],
)
def test_flatgeobuf_refuses_other_dimensions_than_declared(
    declared: str, heights: tuple[float | None, ...], run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """Z that FlatGeobuf would drop, or a feature that it cannot hold, is one clear error; a GeoPackage keeps both."""
    shapes = [shapely.box(n, 0, n + 1, 1) for n in range(len(heights))]
    shapes = [shape if z is None else shapely.force_3d(shape, z) for shape, z in zip(shapes, heights, strict=True)]
    _write_wkb(tmp_path / "a.gpkg", "GPKG", shapes, declared)
    with pytest.raises(OutputError, match=r"a\.gpkg: layer p is declared") as caught:
        run_job(tmp_path / "a.gpkg", "out.fgb")
    assert caught.value.hint == "write a .gpkg: FlatGeobuf holds one dimension a layer"
    kept = geopandas.read_file(run_job(tmp_path / "a.gpkg").output).geometry
    assert kept.has_z.tolist() == [z is not None for z in heights]


def test_flatgeobuf_keeps_z_that_is_declared(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A layer of Polygon Z that has it throughout comes out with its heights."""
    _write_wkb(tmp_path / "a.gpkg", "GPKG", [shapely.force_3d(shapely.box(0, 0, 1, 1), 7)], "Polygon Z")
    after = geopandas.read_file(run_job(tmp_path / "a.gpkg", "out.fgb").output)
    assert shapely.get_coordinates(after.geometry, include_z=True)[:, 2].tolist() == [7.0] * 5


def _text_sequence(path: Path, separator: str, ending: str) -> list[str]:
    """Five features with text of over a block in all, as a GeoJSON text sequence."""
    lines = [
        json.dumps(
            {
                "type": "Feature",
                "properties": {"n": n, "text": "x" * 99_000},
                "geometry": json.loads(shapely.to_geojson(shapely.box(n, 0, n + 1, 1))),
            }
        )
        for n in range(5)
    ]
    path.write_text("".join(f"{separator}{line}{ending}" for line in lines))
    return lines


@pytest.mark.parametrize(("separator", "ending"), [("", "\n"), ("", "\r\n \n\n"), ("\x1e", "\n"), ("\n", "")])
def test_a_bad_record_of_a_text_sequence_is_not_lost_in_silence(
    separator: str, ending: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """OGR skips a line or record that is no JSON; here the count of records finds it, and finds nothing in a good file."""
    source = tmp_path / "a.geojsonl"
    lines = _text_sequence(source, separator, ending)
    assert run_job(source).outcome.result["features_read"] == 5
    source.write_text(source.read_text().replace(lines[2], lines[2][:-40]))
    assert len(geopandas.read_file(source)) == 4
    with pytest.raises(DataError, match=r"a\.geojsonl: row 3: it is no GeoJSON feature"):
        run_job(source, "second.gpkg")


@pytest.mark.parametrize("output", ["out.gpkg", "out.fgb"])
def test_a_field_that_is_named_as_the_geometry_is_kept(
    output: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """OGR calls an unnamed geometry column wkb_geometry, even where a field has that name: both come out."""
    frame = solid(parcels(30))[["n", "geometry"]].assign(wkb_geometry=[f"own {n}" for n in solid(parcels(30))["n"]])
    frame.to_file(tmp_path / "a.geojson")
    done = run_job(tmp_path / "a.geojson", output, min_area_sqm=THRESHOLD)
    wanted = frame[geod_areas(frame) >= THRESHOLD]
    after = geopandas.read_file(done.output).sort_values("n")
    assert after["wkb_geometry"].tolist() == wanted["wkb_geometry"].tolist()
    assert 0 < len(after) < len(frame)
    assert shapely.equals_exact(after.geometry.to_numpy(), wanted.geometry.to_numpy(), 1e-9).all()
    assert not [check for check in done.outcome.checks if not check.passed]
    job = make_job(tmp_path / "a.geojson", done.output, min_area_sqm=THRESHOLD, chunk_rows=8)
    checks = verified(
        VerifyJob(
            source=job.source,
            output=job.destination,
            work=job,
            expected=done.plan.expected,
            result=done.outcome.result,
            resources=job.resources,
        )
    )
    assert {"decodes", "areas", "membership"} <= set(checks)
    assert all(checks.values())


@pytest.mark.parametrize("choices", [{"where": "name <> 'x'"}, {"name": "out.geojson"}, {"name": "out.shp"}], ids=str)
def test_a_job_in_its_child_does_without_pandas(choices: dict[str, str], tmp_path: Path) -> None:
    """Arrow looks for pandas at its first scalar, or array's values: a second of work, and 35 MiB that stay."""
    parcels(50).assign(share=0.5).to_file(tmp_path / "a.gpkg")
    choices = dict(choices)
    job = make_job(tmp_path / "a.gpkg", tmp_path / choices.pop("name", "out.gpkg"), **choices)
    report = run_published(job)
    assert report.status == "completed"
    assert report.memory.residual_bytes < 20 * MIB
    assert not any("stayed after release" in warning for warning in report.warnings)


def test_no_crs_is_one_line_of_ours(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A source without a CRS is warned of by its name, not in pyogrio's words."""
    _write_wkb(tmp_path / "a.fgb", "FlatGeobuf", [shapely.box(0, 0, 1, 1)], "Polygon", crs=None)
    assert run_job(tmp_path / "a.fgb").outcome.warnings == ("a.fgb has no CRS; the output has none either",)


def test_edges_of_half_the_world_are_warned_of(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A box as wide as the world has no area by Geod, so it is dropped, with a warning; narrower ones are not counted."""
    boxes: list[Any] = [shapely.box(-180, -10, 180, 10), shapely.box(-50, -10, 129, 10), shapely.box(0, 0, 180, 10)]
    boxes.append(shapely.GeometryCollection([shapely.box(-170, 0, 170, 1)]))
    _write_wkb(tmp_path / "a.gpkg", "GPKG", boxes, "Unknown")
    areas = [abs(Geod(ellps="WGS84").geometry_area_perimeter(shape)[0]) for shape in [*boxes[:3], boxes[3].geoms[0]]]
    done = run_job(tmp_path / "a.gpkg", min_area_sqm=1e6)
    assert geopandas.read_file(done.output)["n"].tolist() == [n for n, area in enumerate(areas) if area >= 1e6]
    assert areas[0] < 1
    assert len(done.outcome.warnings) == 1
    assert "a.gpkg: edges of 3 features span 180° or more" in done.outcome.warnings[0]


@pytest.mark.parametrize(
    ("words", "speaks_of_disk"),
    [("Cannot write header : No space left on device", True), ("ICreateFeature: Mismatched geometry type", False)],
)
def test_the_disk_hint_is_for_words_of_io(words: str, speaks_of_disk: bool) -> None:
    """What OGR refuses for another reason than I/O does not send the reader to look for free space."""
    error = translated(pyogrio.errors.DataLayerError(words), "a.gpkg", writing=True)
    assert isinstance(error, OutputError)
    assert ("free space" in str(error.hint)) is speaks_of_disk


def test_the_jobs_own_checks_are_not_measured(
    run_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for rasters, the meter has released, compared and stopped tracing before the output is checked."""
    parcels(50).to_file(tmp_path / "a.gpkg")
    basic, finished = verify.basic, []

    def check(*given: Any) -> None:
        finished.append(given[3].meter.final_bytes is not None and not tracemalloc.is_tracing())
        basic(*given)

    monkeypatch.setattr(verify, "basic", check)
    tracemalloc.start(1)
    done = run_job(tmp_path / "a.gpkg")
    assert finished == [True]
    assert [event["name"] for event in done.events if event["event"] == "phase"][-1] == "verify"
