"""Layers behind a network: the rows of the file by few requests; what goes wrong there is one line, and no rows are missing."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import pytest
from conftest_vector import make_bench, make_job, prepared
from every_format import frame, names_in, of_csv, written, zipped

from lib.errors import DataError, SourceError
from lib.jobs import Resources, VectorJob, VerifyJob
from lib.memory.process import run_job as run_in_child
from lib.run import run_published
from lib.units import MIB
from tests.range_server import ACCESS_KEY, SECRET_KEY, Served, s3_environment, serving

_ROWS = 1500
_KINDS = ("csv", "fgb", "parquet", "gpkg", "shp", "geojson", "geojsonl", "gml", "kml")
_QUICK = ("parquet",)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's own credentials; failures are told soon."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    quick = {"GDAL_HTTP_RETRY_DELAY": "0.01", "GDAL_HTTP_LOW_SPEED_TIME": "1", "GDAL_HTTP_MAX_RETRY": "0"}
    for name, value in (quick | {"CPL_AWS_AUTODETECT_EC2": "NO", "AWS_CONFIG_FILE": "/nowhere"}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is served: a layer of some 100 blocks of GDAL's in each format."""
    place = tmp_path_factory.mktemp("served")
    for suffix in _KINDS:
        written(place, suffix, frame(_ROWS))
    zipped(place / "a.fgb", "a.zip")
    return place


@pytest.fixture
def bucket(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The double of S3 with that folder as its one bucket, and credentials for it."""
    (tmp_path / "s3").mkdir()
    (tmp_path / "s3" / "layers").symlink_to(folder)
    with serving(tmp_path / "s3", is_s3=True) as served:
        for name, value in s3_environment(served).items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.mark.parametrize("form", ["{}/a.fgb", "/vsicurl/{}/a.fgb", "{}/a.zip", "zip+{}/a.zip!a.fgb"])
def test_a_url(form: str, folder: Path, run_job: Callable[..., Any]) -> None:
    """By its URL or by GDAL's name, or out of an archive there; the output says which version it is of, and no URL."""
    with serving(folder) as served:
        done = run_job(form.format(served.url))
    assert done.outcome.result["features_kept"] == _ROWS
    content = done.output.read_bytes()
    stat = (folder / ("a.zip" if "zip" in form else "a.fgb")).stat()
    assert f"{stat.st_mtime_ns:x}-{stat.st_size:x}".encode() in content
    assert b"127.0.0.1" not in content


def test_few_requests_of_a_box(folder: Path, run_job: Callable[..., Any]) -> None:
    """Of a FlatGeobuf with an index only what the box meets is fetched, and nothing else is looked for beside it."""
    with serving(folder) as served:
        done = run_job(f"{served.url}/a.fgb", bbox=(-98, 38, -97.9, 38.1))
        asked = served.asked("GET")
    assert done.outcome.result["predicates"]["bbox"].startswith("pushed")
    assert {each.path for each in asked} == {"/a.fgb"}
    assert sum(each.sent for each in asked) < (folder / "a.fgb").stat().st_size
    wanted = frame(_ROWS).cx[-98:-97.9, 38:38.1]
    assert sorted(geopandas.read_file(done.output)["n"]) == sorted(wanted["n"])


@pytest.mark.parametrize("name", ["s3://layers/a.gpkg", "/vsis3/layers/a.shp", "zip+s3://layers/a.zip!a.fgb"])
def test_s3(name: str, bucket: Served, run_job: Callable[..., Any]) -> None:
    """Signed with what the environment has, which is in nothing that is written."""
    done = run_job(name)
    assert done.outcome.result["features_kept"] == _ROWS
    assert bucket.asked("GET", "layers/a.")
    assert ACCESS_KEY.encode() not in done.output.read_bytes()


def _refused(source: str, match: str, hint: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        prepared(make_job(Path("x"), Path("/nowhere/out.gpkg")).model_copy(update={"source": source}))
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
    assert SECRET_KEY not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("name", "key", "match", "hint"),
    [
        ("s3://layers/a.gpkg", "", "a.gpkg cannot be opened: there are no credentials", "AWS_NO_SIGN_REQUEST"),
        ("s3://layers/a.gpkg", "AKIAOFSOMEONEELSE", "a.gpkg cannot be opened: access is refused", "AWS_PROFILE"),
        ("s3://lairs/a.gpkg", ACCESS_KEY, "its bucket does not exist", "bucket's name"),
        ("s3://layers/no.gpkg", ACCESS_KEY, "no such file", "check the name"),
    ],
)
def test_s3_that_does_not_open(
    bucket: Served, monkeypatch: pytest.MonkeyPatch, name: str, key: str, match: str, hint: str
) -> None:
    """One line that says why, and what to do; exit code 2."""
    assert bucket.address
    if key:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    else:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    _refused(name, match, hint)


@pytest.mark.parametrize(
    "name", ["a.gpkg", *(pytest.param(each, marks=pytest.mark.slow) for each in ("a.csv", "a.zip"))]
)
@pytest.mark.parametrize(
    ("how", "match", "hint"),
    [
        ({"fails": [404, 0, 9999]}, r"no such file \(404\)|its server failed", "check"),
        ({"fails": [403, 0, 9999]}, "access is refused", "AWS_PROFILE"),
        ({"fails": [500, 0, 9999]}, r"its server failed \(500\)", "try again"),
        ({"ranges": False}, "does not give parts of files|holds no vector dataset", "fetch it"),
        ({"user": "joe:secret"}, "access is refused", "credentials"),
    ],
)
def test_a_server_that_gives_nothing(name: str, folder: Path, how: dict[str, Any], match: str, hint: str) -> None:
    """Whatever it answers: told beforehand in words."""
    with serving(folder, **how) as served:
        _refused(f"{served.url}/{name}", match, hint)


def test_no_server_and_no_file_of_gdals() -> None:
    """A port that nobody listens on; a name of a database, which is none of GDAL's virtual files."""
    _refused("http://127.0.0.1:9/a.gpkg", "a.gpkg cannot be opened: its server cannot be reached", "check host")
    _refused("PG:dbname=x", "is no file", "fetch it")


def _gets(folder: Path, name: str, run_job: Callable[..., Any]) -> int:
    """Requests of a job that is well."""
    with serving(folder) as served:
        run_job(f"{served.url}/{name}", "well.gpkg", chunk_rows=256, verify="none", **of_csv(name))
        return len(served.asked("GET"))


@pytest.mark.parametrize(
    "name", [pytest.param(f"a.{each}", marks=() if each in _QUICK else pytest.mark.slow) for each in (*_KINDS, "zip")]
)
@pytest.mark.filterwarnings(
    "ignore:HTTP response code:RuntimeWarning"
)  # what GDAL says of it, which no caller hears as an error
def test_a_server_that_fails_under_way(name: str, folder: Path, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Bodies that end early and bad answers, from any request on: the job fails, or has all rows."""
    gets = _gets(folder, name, run_job)
    outcomes: list[str] = []
    for at in {gets // 2, gets - 2}:
        for how in ({"cut_from": at}, {"fails": [500, at, 9999]}):
            job = make_job(tmp_path / name, tmp_path / f"{at}.gpkg", chunk_rows=256, verify="none", **of_csv(name))
            with serving(folder, **how) as served:
                job = job.model_copy(update={"source": f"{served.url}/{name}"})
                try:
                    found = prepared(job).run(make_bench(tmp_path / f"{at}.gpkg")[0]).result["features_read"]
                    outcomes.append("" if found == _ROWS else f"{found} rows without an error: {how}")
                except (SourceError, DataError) as error:
                    outcomes.append("failed" if "\n" not in error.message and error.hint else repr(error))
    assert set(outcomes) <= {"", "failed"}
    assert outcomes.count("failed") >= 2


@pytest.mark.parametrize(
    "name", ["a.zip", *(pytest.param(f"a.{each}", marks=pytest.mark.slow) for each in ("fgb", "csv", "parquet"))]
)
def test_a_file_that_changes_meanwhile_is_noticed(
    name: str, folder: Path, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """Half of one file and half of another: its ETag tells."""
    place = tmp_path / "served"
    shutil.copytree(folder, place)
    shutil.copy(place / name, place / "other")
    with (
        serving(place, changes_at=[_gets(folder, name, run_job) // 2, "other"]) as served,
        pytest.raises(DataError, match="has changed") as raised,
    ):
        run_job(f"{served.url}/{name}", chunk_rows=256, **of_csv(name))
    assert raised.value.exit_code == 1


def test_a_later_job_sees_what_is_there_now(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A process that does one job after another takes nothing of the first one's file for the second's."""
    place = tmp_path / "served"
    place.mkdir()
    written(place, "fgb")
    with serving(place) as served:
        for rows in (120, 70):
            written(place, "fgb", frame(rows))
            assert run_job(f"{served.url}/a.fgb", f"{rows}.gpkg").outcome.result["features_kept"] == rows


def test_a_shapefile_is_read_with_its_table_or_not_at_all(
    folder: Path, tmp_path: Path, run_job: Callable[..., Any]
) -> None:
    """Where the server has no table, as on a disk without one; where it does not give it, OGR would leave the fields out."""
    place = tmp_path / "served"
    place.mkdir()
    for end in (".shp", ".shx", ".prj", ".cpg"):
        shutil.copy(folder / f"a{end}", place)
    with serving(place) as served:
        assert run_job(f"{served.url}/a.shp").outcome.result["features_kept"] == _ROWS
    shutil.copy(folder / "a.dbf", place)
    with serving(place, fails_for=".dbf") as served:
        _refused(
            f"{served.url}/a.shp", r"a.shp cannot be opened: of its part .dbf, its server failed \(500\)", "try again"
        )


@pytest.mark.slow
def test_in_a_child_of_its_own(bucket: Served, tmp_path: Path) -> None:
    """Its environment reaches the capped child, and no report; the output is verified against the bucket, by its metadata."""
    source, out = "s3://layers/a.gpkg", tmp_path / "out.gpkg"
    resources = Resources(limit_bytes=1024 * MIB)
    report = run_published(VectorJob(source=source, destination=str(out), min_area_sqm=8000.0, resources=resources))
    assert report.status == "completed", report.error
    verified = run_in_child(VerifyJob(source=source, output=str(out), resources=resources))
    assert verified.verification is not None
    assert (verified.status, verified.verification.passed) == ("completed", True), verified.error
    said = json.dumps([report.to_record(), verified.to_record()]) + report.model_dump_json()
    assert ACCESS_KEY not in said
    assert SECRET_KEY not in said
    assert bucket.asked("GET", "a.gpkg")


@pytest.mark.slow
def test_a_failure_leaves_no_output(folder: Path, tmp_path: Path) -> None:
    """A server that stops: exit code 1, one line without its password, nothing is published."""
    with serving(folder, cut_from=30, user="joe:topsecret") as served:
        source = f"http://joe:topsecret@{served.address}/a.shp?token=abcdef0123"
        report = run_published(
            VectorJob(source=source, destination=str(tmp_path / "o.gpkg"), resources=Resources(limit_bytes=1024 * MIB))
        )
    assert report.exit_code in (1, 2)
    said = json.dumps(report.to_record())
    assert "topsecret" not in said
    assert "abcdef0123" not in said
    assert names_in(tmp_path) == set()
