"""Vector jobs hold the memory contract, and keep what geopandas and pyproj.Geod keep.

Of common formats the projection is near the peak, and so is the smallest limit that a refusal names. Of odd ones nothing is
asked but what a user needs: never over the limit, the right features, and a smallest limit that does.
"""

import gzip
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest

from lib import jobs
from lib.jobs import ProfileJob, VectorJob, VerifyJob
from lib.memory.process import run_job
from lib.run import run_published
from lib.vector import ogr
from tests.conformance import sources
from tests.conformance.contract import AMPLE_MB, at, close, holds, limits, resources, smallest_by_plan
from tests.range_server import serving

LEAST_SQM = 15_000.0
SINKS = {driver: suffix for suffix, driver in jobs.VECTOR_DRIVERS.items()}
COMMON = ("GPKG", "FlatGeobuf", "ESRI Shapefile", "GeoJSONSeq", "Parquet")
# Every common source into a GeoPackage, and a GeoPackage into every sink.
CASES = list(dict.fromkeys([(each, "GPKG") for each in COMMON] + [("GPKG", each) for each in SINKS]))
CASES.append(("Parquet", "Parquet"))
QUICK = {("GPKG", "GPKG")}


def _job(path: Path, driver: str, **choices: Any) -> VectorJob:
    return VectorJob(
        source=str(path), destination=str(path.parent / f"out{SINKS[driver]}"), driver=driver,
        resources=resources(AMPLE_MB), overwrite=True, **{"min_area_sqm": 100.0} | choices,
    )  # fmt: skip


def _numbers(job: VectorJob) -> Any:
    if job.driver == "Parquet":
        return pq.read_table(job.destination, columns=["number"])["number"].to_numpy()
    with ogr.configured():  # or a GeoJSON's huge feature would be refused
        found = pyogrio.read_dataframe(job.destination, read_geometry=False, columns=["number"])
    return found["number"].to_numpy(int)


def _kept(job: VectorJob) -> set[int]:
    return set(_numbers(job).tolist())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A source by its name in `LARGE_FEATURES`, made once for all sinks."""
    return cache(lambda shape: sources.LARGE_FEATURES[shape](tmp_path_factory.mktemp(shape)))


def _holds_at_its_smallest(job: VectorJob) -> None:
    limit_mb = smallest_by_plan(job)
    holds(run_published(at(job, limit_mb)), limit_mb)


@pytest.mark.parametrize(
    ("source", "sink"),
    [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow, id="-".join(each)) for each in CASES],
)
def test_a_common_layer(source: str, sink: str, tmp_path: Path) -> None:
    """Refused below the smallest limit, naming it; at it and with ample memory, measured <= projected <= limit, and near."""
    path = sources.vector(tmp_path, source)
    job = _job(path, sink, min_area_sqm=LEAST_SQM)
    asked = limits(job)
    for limit_mb in (asked.smallest, asked.ample):
        close(run_published(at(job, limit_mb)), limit_mb, smallest=limit_mb == asked.smallest)
        assert _kept(job) == sources.kept_by_geod(path, LEAST_SQM)


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {"to_crs": "EPSG:3857", "select": "number", "add_area": "sqm"},  # each by itself in tests/vector/test_memory.py
        {"function": "compactness:compact"},
    ],
    ids="-".join,
)
def test_steps(choices: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that change rows hold the contract at the smallest limit and with ample memory, and lose no row."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compactness.py").write_text(
        "def compact(frame):\n"
        "    frame['length'] = frame.geometry.length.to_numpy()\n"
        "    return frame\n"
        "compact.frame, compact.fields = True, {'length': 'float64'}\n"
    )
    path = sources.vector(tmp_path, "GPKG")
    job = _job(path, "GPKG", min_area_sqm=None, **choices)
    # What a function holds is known when it has been called, which no refusal by the header alone does.
    smallest = smallest_by_plan(job) if job.function else limits(job).smallest
    for limit_mb in (smallest, AMPLE_MB):
        holds(run_published(at(job, limit_mb)), limit_mb)
        assert pyogrio.read_info(job.destination)["features"] == pyogrio.read_info(path)["features"]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["GeoJSON", "SQLite"])
def test_an_odd_layer(source: str, tmp_path: Path) -> None:
    """At the smallest limit that its plan names it completes, never over the limit, and right."""
    path = sources.vector(tmp_path, source)
    job = _job(path, "GPKG", min_area_sqm=LEAST_SQM)
    _holds_at_its_smallest(job)
    assert _kept(job) == sources.kept_by_geod(path, LEAST_SQM)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip GPKG", "gz FlatGeobuf", "http GPKG", "http ESRI Shapefile", "gz GeoJSON"])
def test_a_layer_that_is_packed_or_on_a_server(form: str, tmp_path: Path) -> None:
    """At the smallest limit that its plan names and with ample memory: never over the limit, and right."""
    kind, _, driver = form.partition(" ")
    path = sources.vector(tmp_path, driver)
    wanted = sources.kept_by_geod(path, LEAST_SQM)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, path.name)
    elif kind == "gz":
        (tmp_path / "a.gz").write_bytes(gzip.compress(path.read_bytes()))
    with serving(tmp_path) as served:
        job = _job(path, "GPKG", min_area_sqm=LEAST_SQM)
        source = f"{served.url}/{path.name}" if kind == "http" else str(tmp_path / f"a.{kind}")
        job = job.model_copy(update={"source": source})
        for limit_mb in (smallest_by_plan(job), AMPLE_MB):
            holds(run_published(at(job, limit_mb)), limit_mb)
            assert _kept(job) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "http"])
def test_a_large_feature_that_is_packed_or_on_a_server(form: str, tmp_path: Path) -> None:
    """One row among many is large, and nothing but reading tells: the job is right, or out of memory, never over its limit."""
    path = sources.skewed(tmp_path, "GPKG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.name)
    with serving(tmp_path) as served:
        source = f"{served.url}/{path.name}" if form == "http" else str(tmp_path / "a.zip")
        job = _job(path, "GPKG").model_copy(update={"source": source})
        report = run_published(at(job, AMPLE_MB))
        holds(report, AMPLE_MB)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "sink"),
    # A Shapefile's texts end at 254 bytes; Parquet as a source has its own ways with memory, whatever the sink.
    # One worker of pytest-xdist for a shape: made, and measured by geod, once.
    [
        pytest.param(shape, sink, marks=pytest.mark.xdist_group(shape))
        for shape, sinks in {
            "huge": tuple(each for each in SINKS if "GeoJSON" not in each),
            "huge-as-text": tuple(each for each in SINKS if "GeoJSON" in each),
            "huge-parquet": ("GPKG", "Parquet"),
            "repeated": ("GPKG", "Parquet"),
            "wide": tuple(each for each in SINKS if each != "ESRI Shapefile"),
        }.items()
        for sink in sinks
    ],
)
def test_large_features(shape: str, sink: str, large: Callable[[str], Path]) -> None:
    """Wide rows and huge polygons are kept within the smallest limit."""
    path = large(shape)
    job = _job(path, sink)
    _holds_at_its_smallest(job)
    assert _kept(job) == sources.kept_by_geod(path, 100.0)


@pytest.mark.parametrize(
    ("rows", "chunk_rows"),
    [(1, None), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 10_000_000), (40, None)))],
)
def test_many_columns(rows: int, chunk_rows: int | None, tmp_path: Path) -> None:
    """A few rows of 1,500 columns complete at the smallest limit, whatever a batch may have."""
    job = _job(sources.columns(tmp_path, "GPKG", rows), "GPKG", min_area_sqm=0.0)
    asked = {"chunk_rows": chunk_rows, "chunk_rows_fixed": True} if chunk_rows else {}
    job = job.model_copy(update={"resources": resources(AMPLE_MB, **asked)})
    _holds_at_its_smallest(job)
    after = pyogrio.read_info(job.destination)
    assert (after["features"], len(after["fields"])) == (rows, 1_499)


@pytest.mark.slow
@pytest.mark.parametrize("source", sources.SKEWED)
def test_skewed_rows(source: str, tmp_path: Path) -> None:
    """One string of 9 MB among short ones is kept within the smallest limit; a CSV has no CRS, hence no areas."""
    job = _job(sources.skewed(tmp_path, source), "GPKG", min_area_sqm=None if source == "CSV" else 100.0)
    _holds_at_its_smallest(job)
    after = pyogrio.read_dataframe(job.destination, read_geometry=False)
    assert set(after["number"].astype(int)) == set(range(sources.SKEWED_ROWS))
    assert after["name"].str.len().max() == 9_000_000


@pytest.mark.slow
@pytest.mark.parametrize("source", ["GPKG", "SQLite"])
def test_several_long_texts(source: str, tmp_path: Path) -> None:
    """Eight rows of 20 MB, one after the other, among a hundred are within the smallest limit."""
    path, frame = tmp_path / Path(sources.VECTORS[source]).name, sources._frame(100)
    frame["name"] = ["x" * (20_000_000 if 40 <= number < 48 else 5) for number in range(100)]
    frame.to_file(path, driver=source)
    job = _job(path, "GPKG", min_area_sqm=None)
    _holds_at_its_smallest(job)
    assert pyogrio.read_info(job.destination)["features"] == 100


@pytest.mark.slow
def test_a_driver_that_holds_its_source(tmp_path: Path) -> None:
    """KML is held whole as objects."""
    path = tmp_path / "in.kml"
    sources._frame(20_000).to_file(path, driver="KML")
    job = _job(path, "GPKG", min_area_sqm=None)
    _holds_at_its_smallest(job)
    assert pyogrio.read_info(job.destination)["features"] == 20_000


@pytest.mark.slow
@pytest.mark.xdist_group("many")
@pytest.mark.parametrize("sink", ["GPKG", "FlatGeobuf", "Parquet"])  # what the others hold does not grow with features
def test_many_features(sink: str, large: Callable[[str], Path]) -> None:
    """A million features, all kept: the indexes of the sink are within the smallest limit, and no feature is lost."""
    job = _job(large("many"), sink, min_area_sqm=0.0)
    _holds_at_its_smallest(job)
    assert np.array_equal(np.sort(_numbers(job)), np.arange(sources.MANY))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["GPKG", "ESRI Shapefile"])
def test_verify_and_profile_a_layer(source: str, tmp_path: Path) -> None:
    """Both hold the contract at their smallest limits, below which they are refused, and with ample memory; and are near."""
    work = _job(sources.vector(tmp_path, source), "GPKG", min_area_sqm=LEAST_SQM)
    done = run_published(work)
    assert done.plan is not None, done.error
    check = VerifyJob(
        source=work.source, output=work.destination, work=work, expected=done.plan["expected"], result=done.result,
        resources=work.resources,
    )  # fmt: skip
    for job in (check, ProfileJob(source=work.source, resources=work.resources)):
        asked = limits(job)
        for limit_mb in (asked.smallest, asked.ample):
            close(run_job(at(job, limit_mb)), limit_mb, smallest=limit_mb == asked.smallest)
