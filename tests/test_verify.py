"""Verification and profiling as jobs of their own: raster or vector is found out, and so is what wrote the output."""

from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from lib.jobs import ProfileJob, RasterJob, Resources, VectorJob, VerifyJob
from lib.memory.process import Runner
from lib.operations import Normalise
from lib.reports import Report
from lib.run import run_published
from lib.units import MIB

RESOURCES = Resources(limit_bytes=512 * MIB)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """One child for each kind of job in turn."""
    with Runner() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raster and a layer, and what the default work made of each."""
    folder = tmp_path_factory.mktemp("verify")
    pixels = np.random.default_rng(1).integers(0, 12000, (2, 300, 400)).astype(np.uint16)
    with rasterio.open(
        folder / "in.tif",
        "w",
        driver="GTiff",
        width=400,
        height=300,
        count=2,
        dtype="uint16",
        nodata=0,
        crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as dataset:
        dataset.write(pixels)
    squares = [shapely.box(x * 1000, 0, x * 1000 + 10 * x, 10 * x) for x in range(1, 60)]
    geopandas.GeoDataFrame({"n": range(1, 60)}, geometry=squares, crs="EPSG:32633").to_file(folder / "in.gpkg")
    raster = RasterJob(
        source=str(folder / "in.tif"), destination=str(folder / "out.tif"), operation=Normalise(), resources=RESOURCES
    )
    vector = VectorJob(
        source=str(folder / "in.gpkg"), destination=str(folder / "out.gpkg"), min_area_sqm=1e5, resources=RESOURCES
    )
    for job in (raster, vector):
        report = run_published(job)
        assert report.ok, report.error
    return folder


def _verify(runner: Runner, source: Path, output: Path, **choices: object) -> Report:
    return runner.run(VerifyJob(source=str(source), output=str(output), resources=RESOURCES, **choices))  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["basic", "full"])
@pytest.mark.parametrize("suffix", ["tif", "gpkg"])
def test_an_output_is_verified_by_what_it_says_of_itself(runner: Runner, folder: Path, suffix: str, level: str) -> None:
    """Without a report at hand the job comes from the output's metadata, and is recomputed, without a warning."""
    report = _verify(runner, folder / f"in.{suffix}", folder / f"out.{suffix}", level=level)
    assert report.exit_code == 0, report.error
    assert report.warnings == []
    assert report.verification is not None
    assert report.verification.passed
    names = {check.name for check in report.verification.checks}
    assert names & {"recomputed windows", "areas"}, names
    assert ("decodes" in names) == (level == "full")


def test_a_changed_pixel_value_fails_the_check_that_sees_it(runner: Runner, folder: Path, tmp_path: Path) -> None:
    """Pixels that are not what the source gives are a failed verification, exit 1, named after its check."""
    changed = tmp_path / "changed.tif"
    changed.write_bytes((folder / "out.tif").read_bytes())
    with rasterio.open(changed, "r+") as dataset:
        dataset.write(dataset.read(2) / np.float32(2), 2)
    report = _verify(runner, folder / "in.tif", changed)
    assert (report.status, report.exit_code) == ("failed", 1)
    assert report.error is not None
    assert report.error.type == "VerificationFailed"
    assert report.error.facts["check"] == "recomputed windows"
    assert report.verification is not None
    assert not report.verification.passed


def test_a_feature_that_should_not_be_there_fails(runner: Runner, folder: Path, tmp_path: Path) -> None:
    """A layer that says it was filtered, and holds what the filter drops, is a failed verification."""
    forged = tmp_path / "forged.gpkg"
    forged.write_bytes((folder / "out.gpkg").read_bytes())
    import pyogrio

    layer = pyogrio.list_layers(forged)[0][0]
    small = geopandas.GeoDataFrame({"n": [0]}, geometry=[shapely.box(0, 0, 10, 10)], crs="EPSG:32633")
    pyogrio.write_dataframe(small, forged, layer=layer, append=True)
    report = _verify(runner, folder / "in.gpkg", forged)
    assert report.exit_code == 1, report.verification
    assert report.error is not None
    assert report.error.type == "VerificationFailed"
    assert report.error.facts["check"] in {"areas", "membership"}


@pytest.mark.parametrize("suffix", ["tif", "gpkg"])
def test_an_output_that_says_nothing_is_checked_for_structure_alone(runner: Runner, folder: Path, suffix: str) -> None:
    """The sources were written by others: the job completes, recomputes nothing, and says so."""
    source = folder / f"in.{suffix}"
    report = _verify(runner, source, source)
    assert report.exit_code == 0, report.error
    assert any("does not say how it was made: structure alone" in each for each in report.warnings)
    assert report.verification is not None
    assert not {check.name for check in report.verification.checks} & {"recomputed windows", "areas", "membership"}


def test_another_source_than_the_output_names_is_said(runner: Runner, folder: Path, tmp_path: Path) -> None:
    """The same pixels under another name verify, with a warning that names both."""
    other = tmp_path / "renamed.tif"
    other.write_bytes((folder / "in.tif").read_bytes())
    report = _verify(runner, other, folder / "out.tif")
    assert report.exit_code == 0, report.error
    assert report.warnings == ["out.tif says that it was made of in.tif, not of renamed.tif"]


def test_what_is_missing_or_no_dataset_is_an_error_of_input(runner: Runner, folder: Path, tmp_path: Path) -> None:
    """A missing output, source, a folder and a text file: exit 2, with the path."""
    text = tmp_path / "notes.txt"
    text.write_text("no pixels\n")
    source, output = folder / "in.tif", folder / "out.tif"
    for pair, named in (
        ((source, tmp_path / "none.tif"), tmp_path / "none.tif"),
        ((tmp_path / "none.tif", output), tmp_path / "none.tif"),
        ((source, tmp_path), tmp_path),
        ((source, text), text),
    ):
        report = _verify(runner, *pair)
        assert report.exit_code == 2, (pair, report.error)
        assert report.error is not None
        assert str(named) in report.error.message


@pytest.mark.parametrize(("name", "kind"), [("in.tif", "raster"), ("in.gpkg", "vector")])
def test_a_profile_finds_out_what_it_reads(runner: Runner, folder: Path, name: str, kind: str) -> None:
    """Raster or vector is found by opening; the profile stays inside its projection and suggests a limit."""
    report = runner.run(ProfileJob(source=str(folder / name), resources=RESOURCES))
    assert report.status == "completed", report.error
    assert report.result["kind"] == kind
    assert report.plan is not None
    assert report.memory.peak_bytes is not None
    assert report.memory.peak_bytes <= report.plan["projected_bytes"]
    assert report.result["suggested_limit_mb"] * MIB >= report.memory.peak_bytes


def test_a_profile_of_no_dataset_is_an_error_of_input(runner: Runner, tmp_path: Path) -> None:
    """A text file, a folder, a missing file: exit 2, one line with the path."""
    text = tmp_path / "notes.txt"
    text.write_text("no pixels\n")
    for path in (text, tmp_path, tmp_path / "none.gpkg"):
        report = runner.run(ProfileJob(source=str(path), resources=RESOURCES))
        assert report.exit_code == 2, path
        assert report.error is not None
        assert report.error.type == "SourceError"
        assert str(path) in report.error.message
