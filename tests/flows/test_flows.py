"""Whole flows on a Prefect test server: their tasks, artifacts, names of states, and what they return."""

import re
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId

from flows.filter_vector import filter_vector
from flows.profile_memory import profile_memory
from flows.transform_raster import transform_raster
from flows.verify_output import verify_output
from lib.errors import MemoryExceeded
from lib.publish import find_leftovers
from lib.reports import Report
from lib.units import MIB
from tasks.states import report_of
from tests.range_server import ACCESS_KEY, SECRET_KEY, s3_environment, serving

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_api")]

_STEPS = ["Validate drivers for {driver}", "Profile {source}", "{work} {source}", "Verify {made}", "Publish {made}"]


def _steps(work: str, driver: str, source: str, made: str) -> list[str]:
    return [step.format(work=work, driver=driver, source=source, made=made) for step in _STEPS]


def test_transform_raster_makes_its_steps_and_publishes(raster, tmp_path, task_runs, artifacts) -> None:
    """Five tasks in order, one page and one table of them all; pixels equal whole-array numpy; the report is whole."""
    destination = tmp_path / "out.tif"
    state = transform_raster(
        str(raster), str(destination), operation="normalise", scale=12000, memory_limit_mb=512, return_state=True
    )
    report = report_of(state)
    assert state.is_completed(), state.message
    assert list(task_runs(state)) == _steps("Transform", "GTiff", "small.tif", "out.tif")
    assert set(task_runs(state).values()) == {"Completed"}
    pages = artifacts(state)
    assert set(pages) == {"raster-small", "raster-small-allocators"}
    assert pages["raster-small"].startswith("# Completed: out.tif is published\n")
    assert all(
        f"| {step} | completed |" in pages["raster-small"]
        for step in ("validate drivers", "profile", "transform", "verify")
    )
    assert report.output
    assert (report.output.path, report.output.bytes) == (str(destination), destination.stat().st_size)
    assert report.verification
    assert (report.verification.level, report.verification.passed) == ("full", True)
    assert report.memory.peak_bytes
    assert report.memory.peak_bytes <= report.plan["projected_bytes"] <= 512 * MIB
    with rasterio.open(raster) as source, rasterio.open(destination) as written:
        pixels = source.read().astype("float32")
        expected = np.where(pixels == 0, np.nan, np.clip(pixels / np.float32(12000), 0, 1))
        found = written.read(masked=True).filled(np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_transform_raster_of_a_bucket(raster, tmp_path, artifacts, monkeypatch) -> None:
    """All of its tasks read from the double of S3; no credential is in a page or in what the flow returns."""
    (tmp_path / "s3" / "scenes").mkdir(parents=True)
    raster.rename(tmp_path / "s3" / "scenes" / "small.tif")
    with serving(tmp_path / "s3", is_s3=True) as served:
        for name, value in s3_environment(served).items():
            monkeypatch.setenv(name, value)
        destination = str(tmp_path / "out.tif")
        state = transform_raster("s3://scenes/small.tif", destination, memory_limit_mb=512, return_state=True)
    report = report_of(state)
    assert state.is_completed(), state.message
    assert report.verification
    assert (report.verification.level, report.verification.passed) == ("full", True)
    said = str(artifacts(state)) + report.model_dump_json()
    assert ACCESS_KEY not in said
    assert SECRET_KEY not in said


@pytest.mark.slow
def test_transform_raster_takes_folders(raster, tmp_path) -> None:
    """A folder is a source, and one of an expression, through all steps; the output names all files, and is made anew."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    with rasterio.open(raster) as source:
        pixels, profile = source.read(), source.profile
        for row, column in ((0, 0), (0, 500), (600, 0), (600, 500)):
            place = source.transform @ rasterio.Affine.translation(column, row)
            more = {"height": 600, "width": 500, "transform": place}
            with rasterio.open(folder / f"t{row}-{column}.tif", "w", **profile | more) as tile:
                tile.write(pixels[:, row : row + 600, column : column + 500])
    destination = tmp_path / "out.tif"
    given = {"operation": "expression", "expr": "b1 + other.b1", "sources": [f"other={folder}"], "memory_limit_mb": 512}
    state = transform_raster(str(folder), str(destination), **given, return_state=True)
    report = report_of(state)
    assert state.is_completed(), state.message
    assert report.verification
    assert report.verification.passed
    assert len(report.plan["facts"]["files"]) == 8
    with rasterio.open(destination) as written:
        found, tags = written.read(masked=True), written.tags()
    wanted = np.ma.masked_equal(pixels, 0).astype("float32") * 2
    np.testing.assert_array_equal(found.filled(-1), wanted.filled(-1))
    assert tags["SWATH_SOURCE"].count("t600-500.tif") == 2
    state = transform_raster(str(folder), str(destination), **given, overwrite=True, profile=False, return_state=True)
    assert state.is_completed(), state.message


def test_filter_vector_makes_its_steps_and_counts(parcels, tmp_path, task_runs, artifacts) -> None:
    """Five tasks in order, one page; the kept set equals geopandas' planar areas in a metric CRS."""
    destination = tmp_path / "large.gpkg"
    state = filter_vector(str(parcels), str(destination), min_area_sqm=2500, memory_limit_mb=512, return_state=True)
    report = report_of(state)
    assert state.is_completed(), state.message
    assert list(task_runs(state)) == _steps("Filter", "GPKG", "parcels.gpkg", "large.gpkg")
    assert set(artifacts(state)) == {"vector-parcels", "vector-parcels-allocators"}
    source = geopandas.read_file(parcels)
    expected = source[source.area >= 2500]
    written = geopandas.read_file(destination)
    assert sorted(written["edge"]) == sorted(expected["edge"])
    assert (report.result["features_read"], report.result["features_kept"]) == (1000, len(expected))


@pytest.mark.slow
def test_steps_that_are_not_wanted_are_left_out(raster, tmp_path, task_runs) -> None:
    """Without a profile and with basic verification three tasks remain, and the report says basic.

    The API knows the run by what it does, and run and tasks by kind and operation.
    """
    state = transform_raster(
        str(raster),
        str(tmp_path / "out.tif"),
        operation="normalise",
        profile=False,
        verify="basic",
        memory_limit_mb=512,
        return_state=True,
    )
    assert list(task_runs(state)) == ["Validate drivers for GTiff", "Transform small.tif", "Publish out.tif"]
    report = report_of(state)
    assert report.verification
    assert report.verification.level == "basic"
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    assert run.name == "normalise small.tif → out.tif"
    assert {frozenset(each.tags) for each in (run, *tasks)} == {frozenset({"raster", "normalise"})}


def test_too_small_a_limit_is_refused_with_the_one_that_would_do(raster, tmp_path, artifacts) -> None:
    """The run ends MemoryRefused, exit 137, naming the smallest limit for all its steps; nothing is left behind."""
    destination = tmp_path / "out.tif"
    state = transform_raster(
        str(raster), str(destination), operation="normalise", memory_limit_mb=40, return_state=True
    )
    assert (state.type.value, state.name) == ("FAILED", "MemoryRefused")
    assert state.message.startswith("exit 137: ")
    report = report_of(state)
    assert (report.status, report.exit_code) == ("refused", 137)
    smallest = report.error.smallest_limit_mb
    assert smallest > 40
    assert f"raise memory_limit_mb to {smallest} MiB" in state.message
    assert f"at least {smallest} MiB" in state.message
    assert f"**Smallest limit for this job:** `memory_limit_mb` {smallest} (MiB)" in artifacts(state)["raster-small"]
    _assert_nothing_left(destination)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raster", "vector"])
def test_the_smallest_limit_that_is_named_is_the_same_on_the_next_try_and_enough(
    kind: str, request: pytest.FixtureRequest, tmp_path
) -> None:
    """However the steps differ: refused by another step at a larger limit, it is one number again, the only one in the message.

    With it the run completes, its verification in full included.
    """
    flow, source, name, given = {
        "raster": (transform_raster, "raster", "out.tif", {"operation": "normalise"}),
        "vector": (filter_vector, "parcels", "out.gpkg", {"min_area_sqm": 2500}),
    }[kind]
    paths = (str(request.getfixturevalue(source)), str(tmp_path / name))
    named = 0
    for limit in (40, None):
        granted = limit or named * 9 // 10
        state = flow(*paths, **given, memory_limit_mb=granted, return_state=True)
        assert state.name == "MemoryRefused"
        smallest = report_of(state).error.smallest_limit_mb
        assert set(re.findall(r"(\d+) MiB", state.message)) == {str(smallest), str(granted)}
        assert named in {0, smallest}
        named = smallest
    state = flow(*paths, **given, memory_limit_mb=named, return_state=True)
    assert state.is_completed(), state.message


def test_going_over_the_limit_is_a_named_failure_with_artifacts(raster, tmp_path, task_runs, artifacts) -> None:
    """A function that hoards is stopped: task and flow end MemoryExceeded, exit 137, artifacts tell of it, nothing is left."""
    destination = tmp_path / "out.tif"
    state = transform_raster(
        str(raster),
        str(destination),
        operation="custom",
        function="tests.flows.functions:hoard_late",
        max_chunk_mb=1,
        block_size=64,
        memory_limit_mb=300,
        profile=False,
        return_state=True,
    )
    assert (state.type.value, state.name) == ("FAILED", "MemoryExceeded")
    assert state.message.startswith("exit 137: small.tif")
    assert task_runs(state) == {"Validate drivers for GTiff": "Completed", "Transform small.tif": "MemoryExceeded"}
    assert artifacts(state)["raster-small"].startswith(
        "# Exceeded: out.tif is not published (MemoryExceeded, exit 137)\n"
    )
    assert "data:image/svg+xml" in artifacts(state)["raster-small"]
    assert "raster-small-allocators" in artifacts(state)
    assert report_of(state).attempts
    _assert_nothing_left(destination)


@pytest.mark.slow
def test_a_plain_call_raises_the_error_with_the_report(raster, tmp_path) -> None:
    """Called as a function, a flow that failed raises the error itself, and the report is on it."""
    with pytest.raises(MemoryExceeded) as raised:
        transform_raster(
            str(raster),
            str(tmp_path / "out.tif"),
            operation="custom",
            function="tests.flows.functions:hoard_late",
            max_chunk_mb=1,
            block_size=64,
            memory_limit_mb=300,
            profile=False,
        )
    assert isinstance(raised.value.report, Report)
    assert raised.value.report.exit_code == 137


@pytest.mark.parametrize(
    ("changes", "name", "says"),
    [
        ({"source": "missing.tif"}, "SourceError", "missing.tif does not exist"),
        ({"memory_limit_mb": -3}, "SettingsError", "parameter memory_limit_mb"),
        ({"operation": "normalise", "scale": 0}, "UsageError", "scale must not be 0"),
        ({"operation": "rescale", "scale": 5}, "UsageError", "scale belongs to operation normalise, not to rescale"),
        ({"scale": 5}, "UsageError", "write operation normalise, or leave scale at its default of 10000"),
    ],
)
def test_bad_input_ends_under_its_errors_name(raster, tmp_path, changes, name, says, artifacts) -> None:
    """Bad input fails before any task, exit 2, with one line, a page of its own, and no destination."""
    destination = tmp_path / "out.tif"
    state = transform_raster(**{"source": str(raster), "destination": str(destination)} | changes, return_state=True)
    assert (state.type.value, state.name) == ("FAILED", name)
    assert state.message.startswith("exit 2: ")
    assert says in state.message
    ((key, page),) = artifacts(state).items()
    assert key == ("raster-missing" if "source" in changes else "raster-small")
    assert page.startswith(f"# Failed: out.tif is not published ({name}, exit 2)")
    assert says in page
    _assert_nothing_left(destination)


@pytest.mark.slow
def test_a_night_without_its_source_is_in_the_sources_history(raster, tmp_path) -> None:
    """What ends before there is a job has the artifact's key of the runs that got further."""
    wanted = {"destination": str(tmp_path / "out.tif"), "operation": "normalise", "profile": False, "verify": "basic"}
    assert transform_raster(str(raster), **wanted).ok
    raster.rename(tmp_path / "elsewhere.tif")
    state = transform_raster(str(raster), **wanted, return_state=True)
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        (page,) = client.read_artifacts(artifact_filter=of_run)
    assert "source " in state.message
    assert "## Last runs" in page.data
    assert "Compared with the last run that completed" in page.description


@pytest.mark.slow
def test_profile_memory_suggests_a_limit(raster, task_runs, artifacts) -> None:
    """One task, its artifacts, and a suggested limit in the result."""
    state = profile_memory(str(raster), sample_chunks=4, memory_limit_mb=512, return_state=True)
    assert state.is_completed(), state.message
    assert task_runs(state) == {"Profile small.tif": "Completed"}
    assert set(artifacts(state)) == {"profile-small", "profile-small-allocators"}
    assert report_of(state).result["suggested_limit_mb"] > 0


@pytest.mark.slow
def test_verify_output_finds_a_changed_pixel(raster, tmp_path, task_runs, artifacts) -> None:
    """An output that was tampered with fails as VerificationFailed; its artifact shows the check that failed."""
    destination = tmp_path / "out.tif"
    transform_raster(str(raster), str(destination), operation="normalise", profile=False, verify="basic")
    assert verify_output(str(raster), str(destination), memory_limit_mb=512).verification.passed
    with rasterio.open(destination, "r+") as dataset:
        dataset.write(dataset.read(1) * 0 + 0.123, 1)
    state = verify_output(str(raster), str(destination), memory_limit_mb=512, return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "VerificationFailed")
    assert task_runs(state) == {"Verify out.tif": "VerificationFailed"}
    assert "| **no** |" in artifacts(state)["verify-small"]


def _assert_nothing_left(destination: Path) -> None:
    assert not destination.exists()
    assert find_leftovers(destination.parent) == []
