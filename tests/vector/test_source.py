"""Unusable sources: one clear line each; and nothing written beside a usable one."""

import shutil
import sqlite3
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import rasterio
import shapely
from conftest_vector import make_job, parcels, prepared, room, solid
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import DataError, DestinationError, DiskRefused, SourceError
from lib.memory.proc import process_memory
from lib.units import KIB, MIB
from lib.vector import ogr
from lib.vector.sources import LayerFacts, open_source, shapefile
from lib.vector.sources.facts import sizes_of, steps_of
from tests.range_server import serving


def _plan(source: Path, **choices: Any) -> Any:
    return prepared(make_job(source, source.parent / "out.gpkg", **choices)).first()


def read_facts(source: str, layer: str | None, label: str, rows: int) -> LayerFacts:
    """The facts of a layer."""
    return open_source(source, layer, label, rows).facts


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A small GeoPackage with one layer, `p`."""
    solid(parcels(40)).to_file(tmp_path / "a.gpkg", layer="p", geometry_type="Unknown")
    return tmp_path / "a.gpkg"


def test_missing(tmp_path: Path) -> None:
    """A source that is not there."""
    with pytest.raises(SourceError, match="does not exist"):
        _plan(tmp_path / "none.gpkg")


def test_a_raster(tmp_path: Path) -> None:
    """A raster is sent to `swath raster`."""
    transform = rasterio.transform.from_origin(0, 1, 0.1, 0.1)
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        width=8,
        height=8,
        count=1,
        dtype="uint8",
        crs="EPSG:4326",
        transform=transform,
    ) as dataset:
        dataset.write(np.ones((1, 8, 8), np.uint8))
    with pytest.raises(SourceError, match="is a raster") as caught:
        _plan(tmp_path / "a.tif")
    assert "swath raster" in caught.value.hint


def test_text_folder_and_empty_file(tmp_path: Path) -> None:
    """Text, a folder without a dataset and a file of no bytes."""
    (tmp_path / "a.txt").write_text("no features here")
    (tmp_path / "a.gpkg").touch()
    with pytest.raises(SourceError, match="not a vector dataset"):
        _plan(tmp_path / "a.txt")
    with pytest.raises(SourceError, match="folder"):
        _plan(tmp_path)
    with pytest.raises(SourceError, match="empty file"):
        _plan(tmp_path / "a.gpkg")


def test_layers_are_listed(layer: Path) -> None:
    """A layer that is not there, and several with none named, list what there is."""
    with pytest.raises(SourceError, match=r"no layer 'q'; it has p"):
        _plan(layer, layer="q")
    with pytest.raises(SourceError, match="no layer 'P0'") as nearest:
        _plan(layer, layer="P0")
    assert nearest.value.hint == "did you mean 'p'?"
    parcels(3).to_file(layer, layer="second", geometry_type="Unknown")
    with pytest.raises(SourceError, match="has 2 layers: p, second"):
        _plan(layer)
    assert _plan(layer, layer="second").expected["layer"] == "second"


def test_a_layer_with_quotes_in_its_name_is_listed_whole(layer: Path) -> None:
    """Names are as they are typed back."""
    parcels(3).to_file(layer, layer="two x'\"y", geometry_type="Unknown")
    with pytest.raises(SourceError, match="has 2 layers") as refused:
        _plan(layer)
    assert refused.value.layers == ["p", "two x'\"y"]


def test_no_crs(tmp_path: Path) -> None:
    """Without a CRS an area is refused with a hint; a copy is not."""
    table = pa.table({"n": [1], "geom": pa.array([shapely.to_wkb(shapely.box(0, 0, 1, 1))], pa.binary())})
    with pytest.warns(UserWarning, match="crs"):
        pyogrio.write_arrow(
            table, tmp_path / "a.fgb", driver="FlatGeobuf", geometry_name="geom", geometry_type="Polygon"
        )
    with pytest.raises(SourceError, match="has no CRS") as caught:
        _plan(tmp_path / "a.fgb", min_area_sqm=1)
    assert "--assume-crs" in caught.value.hint
    assert _plan(tmp_path / "a.fgb").expected["crs"] is None


def test_an_area_without_geometries(tmp_path: Path) -> None:
    """A table has no areas."""
    pyogrio.write_dataframe(geopandas.pd.DataFrame({"a": [1]}), tmp_path / "t.gpkg", layer="t")
    with pytest.raises(SourceError, match="no geometries"):
        _plan(tmp_path / "t.gpkg", min_area_sqm=1)


def test_a_table_into_flatgeobuf_is_refused_beforehand(tmp_path: Path) -> None:
    """FlatGeobuf needs geometries: said at plan time with what to write instead, as bad usage."""
    pyogrio.write_dataframe(geopandas.pd.DataFrame({"a": [1]}), tmp_path / "t.gpkg", layer="t")
    with pytest.raises(DestinationError, match="layer t has no geometries, and FlatGeobuf needs them") as caught:
        prepared(make_job(tmp_path / "t.gpkg", tmp_path / "o.fgb")).first()
    assert (caught.value.exit_code, caught.value.hint) == (2, "write a .gpkg")


def test_a_full_disk_is_refused_beforehand(layer: Path) -> None:
    """Less than 1 MiB free is hopeless whatever is kept; more may do, as a filter keeps less."""
    job = make_job(layer, layer.parent / "out.gpkg")
    with pytest.raises(
        DiskRefused, match=r"a.gpkg: the output takes at least 1.0 MiB, and its disk has 512.0 KiB free"
    ):
        prepared(job, room(512 * KIB)).first()
    assert prepared(job, room(2 * MIB)).first().disk_bytes > MIB


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.shp"])
def test_a_disk_that_is_too_small_for_all_is_refused_where_all_are_kept(name: str, tmp_path: Path) -> None:
    """Without a filter the geometries must fit; with one, what is kept is not known."""
    frame = solid(parcels(20_000))
    frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
    frame.to_file(tmp_path / name)
    job = make_job(tmp_path / name, tmp_path / "out.gpkg")
    least = frame.geometry.count_coordinates().sum() * 16
    with pytest.raises(DiskRefused, match=rf"{name}: the output takes at least"):
        prepared(job, room(least // 2)).first()
    assert prepared(job.model_copy(update={"min_area_sqm": 1.0}), room(least // 2)).first().batch_rows
    prepared(job, room(2 * least)).first()


def test_unknown_sink(layer: Path) -> None:
    """A driver that vectors are not written with is refused with those that there are."""
    job = make_job(layer, layer.parent / "out.gpkg").model_copy(update={"driver": "KML"})
    with pytest.raises(DestinationError, match="GPKG and FlatGeobuf"):
        prepared(job).first()


@pytest.mark.parametrize("cut", ["a.shp", "a.dbf", "a.fgb"])
def test_files_cut_short(cut: str, tmp_path: Path) -> None:
    """Shapefile parts and FlatGeobuf files that are shorter than they declare; OGR gives nulls or stops without a word."""
    frame = solid(parcels(80))
    frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
    frame.to_file(tmp_path / "a.shp")
    frame.to_file(tmp_path / "a.fgb")
    path = tmp_path / cut
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(SourceError, match="cut short"):
        _plan(tmp_path / ("a.fgb" if cut.endswith("fgb") else "a.shp"))


def test_sizes_are_exact_where_the_format_tells(tmp_path: Path) -> None:
    """FlatGeobuf's and the Shapefile's own indexes give each batch's bytes: never below what Arrow holds."""
    frame = solid(parcels(500))
    frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
    for name in ("a.fgb", "a.shp"):
        frame.to_file(tmp_path / name)
        facts = read_facts(str(tmp_path / name), None, name, 64)
        assert facts.features == len(frame)
        for rows in (64, 16):
            with pyogrio.open_arrow(tmp_path / name, batch_size=rows, use_pyarrow=True) as (_, reader):
                largest = max(batch.nbytes for batch in reader)
            assert largest <= facts.batch_bytes(rows) <= 4 * largest


@pytest.mark.parametrize("name", ["a.geojson", "a.geojsonl", "rs.geojsonl", "a.csv", "a.gpkg", "a.sqlite", "a.fgb"])
def test_the_largest_features_are_found(name: str, tmp_path: Path) -> None:
    """How large and where: a batch that is read there has the long text, wherever blocks of the file end."""
    ring = shapely.Point(0, 0).buffer(1, quad_segs=20_000)
    frame = geopandas.GeoDataFrame(
        {"t": ["a", 'line\n"break" ' * 100_000, "b", "9" * 3_500_000, "c"] + ["d"] * 20},
        geometry=[ring, *(shapely.box(n, 0, n + 1, 1) for n in range(24))],
        crs="EPSG:4326",
    )
    path = tmp_path / name
    drivers = {"geojson": "GeoJSON", "geojsonl": "GeoJSONSeq", "csv": "CSV", "sqlite": "SQLite"}
    options = {"RS": "YES"} if name.startswith("rs") else {"GEOMETRY": "AS_WKT"} if name.endswith("csv") else {}
    frame.to_file(path, driver=drivers.get(name.partition(".")[2]), **options)
    text = max(map(len, frame["t"]))
    source = open_source(str(path), None, path.name, 2)
    assert 0.999 * text <= source.facts.sizes.largest_bytes <= 2.5 * text
    place = source.facts.place(2)
    assert place is not None
    with source.at(place, 2, source.facts.batch_bytes(2)) as reader:
        found = [value for batch in reader for value in batch.column("t").to_pylist()]
    assert frame["t"][3 if name != "a.fgb" else frame["t"].str.len().argmax()] in found
    assert len(found) <= 3


@given(st.lists(st.integers(0, 5000), max_size=300), st.integers(1, 64), st.integers(1, 50))
def test_batches_are_the_largest_of_their_rows(sizes: list[int], rows: int, block: int) -> None:
    """From each feature's size: the largest batch of so many rows, of a quarter of them and so on, and where it begins."""
    blocks = [np.array(sizes[at : at + block], np.int64) for at in range(0, len(sizes), block)]
    found = sizes_of(iter(blocks), rows, 8)
    assert found.count == len(sizes)
    assert found.largest_bytes == max((size + 8 for size in sizes), default=0)
    assert found.total_bytes == sum(sizes)
    steps = [step for step, _, _ in found.runs]
    assert steps == steps_of(rows)
    for step, most, first in found.runs:
        batches = {at: sum(sizes[at : at + step]) + 8 * len(sizes[at : at + step]) for at in range(0, len(sizes), step)}
        assert most == max(batches.values(), default=0)
        assert not batches or batches[first] == most


def test_a_folder_of_shapefiles_is_planned_by_its_layer(tmp_path: Path) -> None:
    """By the layer's own index and size, whatever else is in the folder."""
    for name, count in (("a", 40), ("b", 400)):
        frame = solid(parcels(count))
        frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
        frame.to_file(tmp_path / f"{name}.shp")
    in_folder, alone = (read_facts(str(source), "a", "a", 8) for source in (tmp_path, tmp_path / "a.shp"))
    assert (in_folder.sizes, in_folder.source_bytes) == (alone.sizes, alone.source_bytes)


def test_a_long_line_of_a_csv_loses_nothing(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """OGR ends a CSV at a line of more than 10 MB, without an error; rows behind it must not be missing."""
    frame = geopandas.GeoDataFrame(
        {"t": ["a", "b" * 11_000_000, "c"]}, geometry=[shapely.box(0, 0, 1, 1)] * 3, crs="EPSG:4326"
    )
    frame.to_file(tmp_path / "a.csv", driver="CSV", GEOMETRY="AS_WKT")
    assert run_job(tmp_path / "a.csv").outcome.result["features_kept"] == 3


def test_a_large_table_is_counted_in_little_memory(tmp_path: Path) -> None:
    """A table of 400 MB is read in blocks: pages of a mapped file would count as the job's."""
    rows, record_bytes = 1_000_000, 400
    with (tmp_path / "wide.dbf").open("wb") as file:
        file.write(struct.pack("<B3xIHH20x", 3, rows, 32, record_bytes))
        for deleted in (0, 70_000, rows - 1):
            file.seek(32 + deleted * record_bytes)
            file.write(b"*")
        file.truncate(32 + rows * record_bytes)
    before = process_memory().resident_bytes
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM is the size now (proc(5))
    assert shapefile.count(tmp_path / "wide.shp", "wide", "wide.shp") == rows - 3
    assert process_memory().peak_bytes - before < 4 * MIB


def test_any_part_of_a_shapefile_is_planned_as_the_whole(tmp_path: Path) -> None:
    """OGR opens it by its .dbf or .shx, too."""
    parcels(300).to_file(tmp_path / "a.shp")
    whole = read_facts(str(tmp_path / "a.shp"), None, "a", 100)
    for suffix in (".dbf", ".shx"):
        part = read_facts(str(tmp_path / f"a{suffix}"), None, "a", 100)
        assert (part.sizes, part.source_bytes) == (whole.sizes, whole.source_bytes)


def test_features_that_no_header_counts_are_counted(tmp_path: Path) -> None:
    """A GML does not say how many it has, and an index is planned by them."""
    parcels(300).to_file(tmp_path / "a.gml", driver="GML")
    assert read_facts(str(tmp_path / "a.gml"), None, "a.gml", 100).features == 300


def test_a_vrt_is_refused(tmp_path: Path) -> None:
    """What its sources hold is not known."""
    parcels(3).to_file(tmp_path / "a.shp")
    source = '<SrcDataSource relativeToVRT="1">a.shp</SrcDataSource>'
    (tmp_path / "a.vrt").write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="a">{source}</OGRVRTLayer></OGRVRTDataSource>'
    )
    with pytest.raises(SourceError, match="is a VRT"):
        read_facts(str(tmp_path / "a.vrt"), None, "a.vrt", 100)


def test_an_empty_table_beside_a_shapefile(tmp_path: Path) -> None:
    """One line, no traceback."""
    parcels(3).to_file(tmp_path / "a.shp")
    (tmp_path / "a.dbf").write_bytes(b"")
    with pytest.raises(SourceError, match=r"table a\.dbf is shorter than a header"):
        read_facts(str(tmp_path / "a.shp"), None, "a.shp", 100)


def test_deleted_shapefile_records_are_not_counted(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Records marked as deleted are neither read nor missed."""
    frame = solid(parcels(60))
    frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
    frame.to_file(tmp_path / "a.shp")
    table = bytearray((tmp_path / "a.dbf").read_bytes())
    header, record = int.from_bytes(table[8:10], "little"), int.from_bytes(table[10:12], "little")
    table[header + 5 * record] = ord("*")
    (tmp_path / "a.dbf").write_bytes(table)
    assert run_job(tmp_path / "a.shp").outcome.result["features_read"] == len(frame) - 1


@pytest.mark.parametrize(("name", "words"), [("a.gpkg", "to the bytes, too"), ("a.fgb", "OGR's own bound loses rows")])
def test_the_plan_says_by_which_way_it_reads(name: str, words: str, tmp_path: Path) -> None:
    """And why: OGR's bound in bytes is asked for where it loses nothing."""
    parcels(5).iloc[:3].to_file(tmp_path / name, geometry_type="Unknown")
    assert words in prepared(make_job(tmp_path / name, tmp_path / "out.gpkg")).look().facts["reading"]


@pytest.mark.parametrize(
    "name", ["a.gpkg", "a.fgb", "a.shp", "a.geojson", "a.gml", "a.kml", "a.csv", "a.tab", "a.sqlite"]
)
def test_nothing_appears_beside_the_source(name: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """No .gfs, .aux.xml, -wal or -shm is written beside a source, and its bytes and times stay."""
    folder = tmp_path / "sources"
    folder.mkdir()
    frame = solid(parcels(40))
    frame.geometry = shapely.orient_polygons(frame.geometry.to_numpy(), exterior_cw=True)
    if name.endswith("gml"):
        frame = frame.drop(columns=["name"])
    drivers = {".gml": "GML", ".kml": "KML", ".csv": "CSV", ".tab": "MapInfo File", ".sqlite": "SQLite"}
    options = {"GEOMETRY": "AS_WKT"} if name.endswith("csv") else {}
    frame.to_file(folder / name, driver=drivers.get(Path(name).suffix), **options)
    for extra in (folder / "a.xsd", folder / "a.gfs"):
        extra.unlink(missing_ok=True)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    done = run_job(folder / name, min_area_sqm=100, assume_crs="EPSG:4326" if name.endswith("csv") else None)
    assert done.outcome.result["features_read"] == len(frame)
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def test_a_geopackage_in_wal_mode(layer: Path, run_job: Callable[..., Any]) -> None:
    """Closed in WAL mode: read as it is. Left open by another program: read with its log, which stays that program's."""
    with closing(sqlite3.connect(layer)) as database:
        database.execute("PRAGMA journal_mode=WAL")
    count = len(solid(parcels(40)))
    assert run_job(layer).outcome.result["features_read"] == count
    assert not list(layer.parent.glob("a.gpkg-*"))
    code = (
        "import sqlite3, sys\nd = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "d.execute(\"UPDATE gpkg_contents SET description = 'edited'\")\nprint('open', flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(layer)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        log = layer.with_name("a.gpkg-wal")
        assert log.stat().st_size > 0
        assert run_job(layer, "second.gpkg").outcome.result["features_read"] == count
        assert log.stat().st_size > 0
        abandoned = layer.parent / "abandoned.gpkg"
        shutil.copy(layer, abandoned)
        shutil.copy(log, layer.parent / "abandoned.gpkg-wal")
    finally:
        holder.communicate()
    with pytest.raises(SourceError, match="write-ahead log"):
        _plan(abandoned)


def test_a_text_in_a_column_of_numbers_is_seen(layer: Path) -> None:
    """SQLite keeps what it is given whatever a column is declared to hold: 20 MB in an INTEGER count as attributes."""
    with _plain(layer) as database:
        database.execute("ALTER TABLE p ADD COLUMN whole INTEGER")
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{trigger}"')
        database.execute("UPDATE p SET whole = ? WHERE fid = 7", ("x" * 20_000_000,))
    assert read_facts(str(layer), None, "a.gpkg", 1000).sizes.largest_bytes >= 20_000_000


def test_what_a_view_computes_is_in_its_mean(layer: Path) -> None:
    """A view that makes 1 MB of text for each row has rows of 1 MB, though the file is small."""
    with closing(sqlite3.connect(layer)) as database, database:
        database.execute("CREATE VIEW v AS SELECT fid, geom, hex(zeroblob(500000)) AS made FROM p")
        database.execute("INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) "
                         "SELECT 'v', 'features', 'v', srs_id FROM gpkg_contents WHERE table_name = 'p'")  # fmt: skip
        database.execute("INSERT INTO gpkg_geometry_columns SELECT 'v', column_name, geometry_type_name, srs_id, z, m "
                         "FROM gpkg_geometry_columns WHERE table_name = 'p'")  # fmt: skip
    sizes = read_facts(str(layer), "v", "a.gpkg", 1000).sizes
    assert sizes.largest_bytes >= 1_000_000
    assert sizes.mean_bytes >= 1_000_000


def test_columns_that_ogr_leaves_out_are_named(layer: Path, run_job: Callable[..., Any]) -> None:
    """Types that other databases have and GeoPackage has not: one line of ours, with the columns' names."""
    database = sqlite3.connect(layer)
    database.execute('ALTER TABLE p ADD COLUMN owner "character varying(256)"')
    database.execute('ALTER TABLE p ADD COLUMN price "numeric(10,2)"')
    database.commit()
    database.close()
    with warnings.catch_warnings(action="ignore"):
        notes = run_job(layer).outcome.warnings
    (note,) = (note for note in notes if "owner" in note)
    assert "owner (character varying(256)), price (numeric(10,2))" in note
    assert not any("geometry column" in each or "Field format" in each for each in notes)


@contextmanager
def _plain(layer: Path) -> Iterator[sqlite3.Connection]:
    """A GeoPackage for SQLite alone: its triggers, which call functions of OGR's, are gone."""
    with closing(sqlite3.connect(layer)) as database, database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{trigger}"')
        yield database


def test_a_geometry_that_does_not_decode_is_not_passed_over(layer: Path, run_job: Callable[..., Any]) -> None:
    """OGR reads such a blob as no geometry, without a word; rows that have none pass."""
    with _plain(layer) as database:
        database.execute("UPDATE p SET geom = NULL WHERE fid = 3")
    run_job(layer)
    with _plain(layer) as database:
        database.execute("UPDATE p SET geom = x'4750000100000000' WHERE fid IN (5, 7)")
    with pytest.raises(DataError, match=r"row 5 \(feature id 5\): its geometry does not decode"):
        run_job(layer)


def test_text_among_numbers_is_told(layer: Path, run_job: Callable[..., Any]) -> None:
    """SQLite keeps it in a column of integers, and OGR reads it as 0."""
    with _plain(layer) as database:
        database.execute("ALTER TABLE p ADD COLUMN height INTEGER")
        database.execute("UPDATE p SET height = fid")
        database.execute("UPDATE p SET height = 'unknown' WHERE fid IN (6, 9)")
    told = [note for note in run_job(layer).outcome.warnings if "text among its numbers" in note]
    assert len(told) == 1
    assert "'height'" in told[0]
    assert "row 6 first" in told[0]


def test_names_elsewhere_are_gdals_own(tmp_path: Path) -> None:
    """OGR opens a layer behind a URL, in a zip, or in a zip behind one, by the names that rasters have."""
    (tmp_path / "p.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"v": 1}, "geometry": null}]}'
    )
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(tmp_path / "p.geojson", "p.geojson")
    with serving(tmp_path) as served:
        for name in ("{url}/p.geojson", "zip+{url}/p.zip!p.geojson", "zip://{folder}/p.zip!p.geojson"):
            info, _ = ogr.read_info(name.format(url=served.url, folder=tmp_path))
            assert (info["driver"], info["features"]) == ("GeoJSON", 1)
