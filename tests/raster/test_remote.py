"""Sources behind a network: right pixels by few requests; what goes wrong there is one line, and leaves nothing behind."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from lib.errors import DataError, SourceError
from lib.jobs import RasterJob, VerifyJob
from lib.memory.process import run_job
from lib.operations import Expression
from lib.raster import elsewhere
from lib.raster.formats import environment
from lib.run import run_published
from tests.conformance import sources
from tests.conformance.contract import AMPLE_MB, OPERATIONS, at, holds, resources, smallest_by_plan
from tests.range_server import ACCESS_KEY, SECRET_KEY, Served, s3_environment, serving
from tests.raster.conftest import Workshop

RAW = np.random.default_rng(4).integers(1, 9000, (1, 1280, 1280), dtype="uint16")
TILES = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's own credentials; failures are told soon."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    quick = {"GDAL_HTTP_RETRY_DELAY": "0.01", "GDAL_HTTP_LOW_SPEED_TIME": "1", "GDAL_HTTP_MAX_RETRY": "1"}
    for name, value in (quick | {"CPL_AWS_AUTODETECT_EC2": "NO", "AWS_CONFIG_FILE": "/nowhere"}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def folder(write: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder that is served: 100 tiles, and what is beside them."""
    place = tmp_path / "served"
    place.mkdir()
    write(RAW, nodata=7, **TILES).rename(place / "tiles.tif")
    return place


@pytest.fixture
def bucket(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The double of S3 with that folder as its one bucket, and credentials for it."""
    folder.rename(tmp_path / "scenes")
    (tmp_path / "s3").mkdir()
    (tmp_path / "scenes").rename(tmp_path / "s3" / "scenes")
    with serving(tmp_path / "s3", is_s3=True) as served:
        for name, value in s3_environment(served).items():
            monkeypatch.setenv(name, value)
        yield served


def copied(shop: Workshop, source: str, **choices: Any) -> dict[str, str]:
    """Copy a source; its pixels are those of `RAW`, all checks pass. The output's tags."""
    _, outcome = shop.transform(source, **choices)
    assert all(check.passed for check in outcome.checks)
    np.testing.assert_array_equal(shop.output, RAW)
    with rasterio.open(shop.folder / "out.tif") as dataset:
        return dict(dataset.tags())


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_a_url(shop: Workshop, folder: Path, prefix: str) -> None:
    """By its URL or by GDAL's name; the output says which version of the file it is of, and no URL."""
    with serving(folder) as served:
        tags = copied(shop, f"{prefix}{served.url}/tiles.tif")
    stat = (folder / "tiles.tif").stat()
    said = json.loads(tags["SWATH_SOURCE"])
    assert (said["name"], said["bytes"]) == ("tiles.tif", stat.st_size)
    assert said["etag"] == f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    assert said["modified"].endswith("GMT")
    assert "127.0.0.1" not in str(tags)


def test_few_requests(shop: Workshop, folder: Path) -> None:
    """Of a hundred tiles, one GET a row of tiles at most, beside the header, the checks and the names of sidecars; once each."""
    with serving(folder) as served:
        copied(shop, f"{served.url}/tiles.tif", verify="none")
        gets = served.asked("GET", "tiles.tif")
        heads = served.asked("HEAD")
    assert len(gets) <= 12
    assert len(heads) <= 44
    assert sum(each.sent for each in gets) < 1.2 * (folder / "tiles.tif").stat().st_size


def test_holes_stay_holes(shop: Workshop, write: Callable[..., Path], folder: Path) -> None:
    """Of a sparse file on a server, as of a local one."""
    sparse = np.zeros_like(RAW)
    sparse[:, :128] = RAW[:, :128]
    write(sparse, nodata=0, sparse_ok=True, **TILES).rename(folder / "sparse.tif")
    with serving(folder) as served:
        _, outcome = shop.transform(f"{served.url}/sparse.tif", block_size=128)
    assert outcome.result["holes"] == 90
    np.testing.assert_array_equal(shop.output, sparse)


def test_few_requests_of_strips(shop: Workshop, write: Callable[..., Path], folder: Path) -> None:
    """Strips of a row each come by the window."""
    write(RAW, compress="deflate", blockysize=1).rename(folder / "strips.tif")
    with serving(folder) as served:
        copied(shop, f"{served.url}/strips.tif", verify="none")
        assert len(served.asked("GET", "strips.tif")) <= 16


def test_what_lies_beside_a_remote_file_is_seen(shop: Workshop, write: Callable[..., Path], folder: Path) -> None:
    """A mask beside it and an .aux.xml: no folder is listed, and nothing is lost."""
    mask = np.where(RAW[0] > 4000, 255, 0).astype("uint8")
    path = write(RAW, mask=mask, internal_mask=False, **TILES)
    for each in path.parent.glob("in.tif*"):
        each.rename(folder / each.name)
    (folder / "in.tif.aux.xml").write_text("<PAMDataset><Metadata><MDI key='SEEN'>yes</MDI></Metadata></PAMDataset>")
    with serving(folder) as served:
        _, outcome = shop.transform(f"{served.url}/in.tif")
        assert not served.asked("GET", "/?")
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read_masks(1), mask)
        assert dataset.tags()["SEEN"] == "yes"
    assert outcome.result["nodata_pixels"] == np.count_nonzero(mask == 0)


@pytest.mark.parametrize("name", ["s3://scenes/tiles.tif", "/vsis3/scenes/tiles.tif"])
def test_s3(shop: Workshop, bucket: Served, tmp_path: Path, name: str) -> None:
    """Signed with what the environment has, which is in nothing that is written."""
    tags = copied(shop, name)
    assert bucket.asked("GET", "scenes/tiles.tif")
    assert json.loads(tags["SWATH_SOURCE"])["bytes"] == (tmp_path / "s3/scenes/tiles.tif").stat().st_size
    assert ACCESS_KEY not in str(tags)


def test_few_requests_of_s3(shop: Workshop, bucket: Served) -> None:
    """The bucket's folder is listed once, and no sidecar asked for that it has not."""
    copied(shop, "s3://scenes/tiles.tif", verify="none")
    assert len(bucket.asked()) <= 16
    assert len([each for each in bucket.asked() if "delimiter" in each.path]) == 1


@pytest.mark.parametrize(
    ("name", "key", "match", "hint"),
    [
        ("s3://scenes/tiles.tif", "", "tiles.tif cannot be opened: there are no credentials", "AWS_NO_SIGN_REQUEST"),
        ("s3://scenes/tiles.tif", "AKIAOFSOMEONEELSE", "tiles.tif cannot be opened: access is refused", "AWS_PROFILE"),
        ("s3://sciences/tiles.tif", ACCESS_KEY, "its bucket does not exist", "bucket's name"),
        ("s3://scenes/no.tif", ACCESS_KEY, "no such file", "check the name"),
    ],
)
def test_s3_that_does_not_open(
    shop: Workshop, bucket: Served, monkeypatch: pytest.MonkeyPatch, name: str, key: str, match: str, hint: str
) -> None:
    """One line that says why, and what to do; exit code 2."""
    if key:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    else:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(shop, name, match, hint)


def refused(shop: Workshop, name: str, match: str, hint: str) -> None:
    """Planning raises, with exit code 2 and a hint; nothing is there."""
    with pytest.raises(SourceError, match=match) as raised:
        shop.first(shop.job(name))
    assert "\n" not in raised.value.message
    assert hint in raised.value.hint
    assert raised.value.exit_code == 2
    assert SECRET_KEY not in raised.value.message + raised.value.hint
    assert not (shop.folder / "out.tif").exists()


@pytest.mark.parametrize(
    ("how", "match", "hint"),
    [
        ({"fails": [404, 0, 99]}, r"no such file \(404\)|its server failed", "check"),
        ({"fails": [403, 0, 99]}, "access is refused", "AWS_PROFILE"),
        ({"fails": [500, 0, 99]}, r"its server failed \(500\)", "try again"),
        ({"ranges": False}, "does not give parts of files", "fetch it"),
        pytest.param({"hangs_from": 0}, "does not answer", "GDAL_HTTP_LOW_SPEED_TIME", marks=pytest.mark.slow),
        ({"user": "joe:secret"}, "access is refused", "credentials"),
    ],
)
def test_a_server_that_gives_nothing(shop: Workshop, folder: Path, how: dict[str, Any], match: str, hint: str) -> None:
    """Whatever it answers, or does not: told beforehand in words."""
    with serving(folder, **how) as served:
        refused(shop, f"{served.url}/tiles.tif", match, hint)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("http://127.0.0.1:9/a.tif", "a.tif cannot be opened: its server cannot be reached"),
        ("https://no-such-host.invalid/a.tif", "a.tif cannot be opened: its host is not known"),
    ],
)
def test_no_server(shop: Workshop, name: str, match: str) -> None:
    """A port that nobody listens on, a host that is not there."""
    refused(shop, name, match, "check")


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"fails": [500, 4, 999]}, r"can no longer be read: its server failed \(500\)"),
        ({"fails": [403, 4, 999]}, "can no longer be read: access is refused"),
        pytest.param({"hangs_from": 4}, "can no longer be read: its server does not answer", marks=pytest.mark.slow),
        ({"cut_from": 4}, "answer was cut short"),
    ],
)
def test_a_server_that_fails_under_way(shop: Workshop, folder: Path, how: dict[str, Any], match: str) -> None:
    """The job fails, exit code 1, whatever it has read: no pixel is made up."""
    with serving(folder, **how) as served, pytest.raises(DataError, match=match) as raised:
        shop.transform(f"{served.url}/tiles.tif", resources={"max_chunk_bytes": 2**19})
    assert "\n" not in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("status", [503, *(pytest.param(each, marks=pytest.mark.slow) for each in (500, 429))])
def test_a_server_that_fails_once_is_asked_again(shop: Workshop, folder: Path, status: int) -> None:
    """One bad answer in the middle costs nothing."""
    with serving(folder, fails=[status, 4, 5]) as served:
        copied(shop, f"{served.url}/tiles.tif", resources={"max_chunk_bytes": 2**19})


def test_a_file_that_changes_meanwhile_is_noticed(shop: Workshop, folder: Path) -> None:
    """Half of one file and half of another: its ETag tells."""
    shutil.copy(folder / "tiles.tif", folder / "other.tif")
    with (
        serving(folder, changes_at=[5, "other.tif"]) as served,
        pytest.raises(DataError, match="has changed") as raised,
    ):
        shop.transform(f"{served.url}/tiles.tif", resources={"max_chunk_bytes": 2**19})
    assert raised.value.exit_code == 1


def test_a_later_job_sees_what_is_there_now(shop: Workshop, write: Callable[..., Path], folder: Path) -> None:
    """A process that does one job after another takes nothing of the first one's file for the second's."""
    with serving(folder) as served:
        copied(shop, f"{served.url}/tiles.tif")
        write(RAW[:, ::-1], **TILES).replace(folder / "tiles.tif")
        shop.transform(f"{served.url}/tiles.tif", overwrite=True)
    np.testing.assert_array_equal(shop.output, RAW[:, ::-1])


def test_user_and_password_in_a_url(shop: Workshop, folder: Path) -> None:
    """They open it, and an error does not tell them; nor the token of a query."""
    with serving(folder, user="joe:topsecret") as served:
        copied(shop, f"http://joe:topsecret@{served.address}/tiles.tif?token=abcdef0123")
        with pytest.raises(SourceError, match=r"tiles\.tif") as raised:
            shop.first(shop.job(f"http://joe:wrongpass@{served.address}/tiles.tif?token=abcdef0123"))
    assert "wrongpass" not in raised.value.message
    assert "abcdef0123" not in raised.value.message


def test_the_plan_counts_what_gdal_keeps_of_the_network(shop: Workshop, folder: Path) -> None:
    """A term of its own, which local sources have not; windows are whole rows."""
    with serving(folder) as served:
        plan = shop.first(shop.job(f"{served.url}/tiles.tif"))
    size = (folder / "tiles.tif").stat().st_size
    assert plan.terms["network cache"] == min(elsewhere.CACHE_BYTES, size)
    assert plan.window is not None
    assert plan.window[1] >= RAW.shape[2]
    assert "network cache" not in shop.first(shop.job(folder / "tiles.tif")).terms


@pytest.mark.slow
def test_in_a_child_of_its_own(bucket: Served, tmp_path: Path) -> None:
    """Its environment reaches the capped child, and no report; the output is verified against the bucket, by its metadata."""
    source, out = "s3://scenes/tiles.tif", tmp_path / "out.tif"
    report = run_published(RasterJob(source=source, destination=str(out), resources=resources(AMPLE_MB)))
    assert report.status == "completed", report.error
    verified = run_job(VerifyJob(source=source, output=str(out), resources=resources(AMPLE_MB)))
    assert verified.verification is not None
    assert (verified.status, verified.verification.passed) == ("completed", True), verified.error
    assert len(verified.verification.checks) >= 4
    said = json.dumps([report.to_record(), verified.to_record()]) + report.model_dump_json()
    assert ACCESS_KEY not in said
    assert SECRET_KEY not in said
    assert bucket.asked("GET", "tiles.tif")


@pytest.mark.slow
def test_a_report_has_no_password(folder: Path, tmp_path: Path) -> None:
    """Neither where the job is done, nor where its source is not there."""
    with serving(folder, user="joe:topsecret") as served:
        for name in ("tiles.tif", "no.tif"):
            source = f"http://joe:topsecret@{served.address}/{name}?token=abcdef0123"
            job = RasterJob(source=source, destination=str(tmp_path / f"{name}.tif"), resources=resources(AMPLE_MB))
            report = run_published(job)
            assert report.exit_code == (0 if name == "tiles.tif" else 2), report.error
            said = json.dumps(report.to_record())
            assert "topsecret" not in said
            assert "abcdef0123" not in said
    with rasterio.open(tmp_path / "tiles.tif.tif") as dataset:
        assert "topsecret" not in str(dataset.tags())


def test_an_expression_of_a_remote_and_a_local_one(shop: Workshop, folder: Path) -> None:
    """Each source is what it is; the output verifies."""
    with serving(folder) as served:
        operation = Expression(expr="b1 + o.b1", sources=(f"o={folder / 'tiles.tif'}",))
        _, outcome = shop.transform(f"{served.url}/tiles.tif", operation=operation)
    assert all(check.passed for check in outcome.checks)
    np.testing.assert_array_equal(shop.output[RAW != 7], 2 * RAW[RAW != 7])


@pytest.mark.slow
def test_a_remote_vrt(shop: Workshop, folder: Path) -> None:
    """Its parts, relative to it, are fetched from there."""
    with rasterio.open(folder / "tiles.tif") as dataset, rasterio.Env():
        rasterio.shutil.copy(dataset, folder / "mosaic.vrt", driver="VRT")
    with serving(folder) as served:
        copied(shop, f"{served.url}/mosaic.vrt")
        assert served.asked("GET", "tiles.tif")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "operation"),
    [(sources.tiled, "copy"), (sources.tiled, "focal"), (sources.striped, "focal"), (sources.striped, "warp")],
)
def test_the_memory_contract(made: Callable[[Path, str], Path], operation: str, folder: Path, tmp_path: Path) -> None:
    """At the smallest limit that its plan names, and with ample memory: measured <= projected <= limit."""
    with serving(folder) as served:
        job = RasterJob(
            source=f"{served.url}/{made(folder, 'uint16').name}", destination=str(tmp_path / "out.tif"),
            operation=OPERATIONS[operation], resources=resources(AMPLE_MB), overwrite=True,
        )  # fmt: skip
        for limit_mb in (smallest_by_plan(job), AMPLE_MB):
            report = run_published(at(job, limit_mb))
            shown = holds(report, limit_mb)
            assert report.plan is not None
            assert (report.memory.peak_bytes or 0) <= report.plan["projected_bytes"], shown
            assert report.plan["projected_bytes"] <= 1.5 * (report.memory.peak_bytes or 0), shown
