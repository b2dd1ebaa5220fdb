"""Files whose names a library would interpret: each is read and written literally, and no other file is touched."""

import contextlib
import os
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from lib import request
from lib.errors import DestinationError, SourceError, SwathError
from lib.memory.process import Runner
from lib.paths import for_gdal, is_local, is_local_output, without_escapes
from lib.publish import staging
from lib.reports import Report
from lib.run import published

ROOT = Path(__file__).resolve().parents[1]
# Stems; a suffix is added. Some are folders, too.
NAMES = (
    "out!precious",
    "!first",
    "a%41b",
    "per%20cent",
    "100%",
    "%zz%2F",
    "a#b",
    "a?b",
    "a;b",
    "a:b",
    "a|b",
    "a&b=c",
    "it's",
    'say "so"',
    "two  words ",
    " led",
    "-dash",
    "--overwrite",
    "two\nlines",
    "tab\tbed",
    "Größe 地",
    "e\u0301",
    "[bold]x[0]",
    "{b}",
    "$HOME",
    "~",
    "*",
    "a,b",
    "back\\slash",
    "<VRTDataset x",
    "scene-2024-01-01T10:30:00",
    "vsizip",
    "vsimem",
    "NETCDF:x",
    "GPKG:x",
    "PG:x",
    "GTIFF_DIR:1:x",
    "GTIFF_RAW:x",
    "GEOJSON:x",
    "CSV:x",
    "zip:x",
    "s3:x",
    "file:x",
    "http:x",
    "zip+s3:x",
    "x.zip",
    "x.tif.aux",
    "vsizip/x",
    "zip:/x.zip!x",
    "GPKG:x/y",
    "a!b/c",
    "a%41b/c",
    "a;b?c#d/e",
)
ALL_AT_ONCE = "GPKG:zip+s3:a!b%41c%20;d?e#f|g&h'i\"j -k\nl\u00fc[bold]{m}.zip"

FORMATS = {
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".shp": "ESRI Shapefile",
    ".sqlite": "SQLite",
    ".geojson": "GeoJSON",
    ".gml": "GML",
    ".tab": "MapInfo File",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with plain names, by other programs than ours: each of one value, 7, and decoys of 99."""
    folder = tmp_path_factory.mktemp("plain")
    for name, value in (("real", 7), ("decoy", 99)):
        with rasterio.open(
            folder / f"{name}.tif",
            "w",
            driver="GTiff",
            width=32,
            height=16,
            count=1,
            dtype="uint8",
            crs="EPSG:32633",
            transform=from_origin(5e5, 5e6, 10, 10),
        ) as dataset:
            dataset.write(np.full((1, 16, 32), value, np.uint8))
        geometry = shapely.to_wkb(np.array([shapely.box(0, 0, 10, 10)] * 2, dtype=object))
        for suffix, driver in FORMATS.items():
            pyogrio.raw.write(
                folder / f"{name}{suffix}",
                geometry=geometry,
                field_data=[np.array([value, value], np.int64)],
                fields=np.array(["v"], dtype=object),
                geometry_type="Polygon",
                crs="EPSG:32633",
                driver=driver,
                layer="parcels" if driver in ("GPKG", "SQLite") else None,
            )
    return folder


def misread(name: str) -> set[str]:
    """What a name becomes where something in it is interpreted: parts at the characters that split, decoded, without a prefix."""
    found = {
        urllib.parse.unquote(name),
        name.strip(),
        name.replace("\n", "").replace("\t", ""),
        name.replace("\\", "/"),
    }
    for mark in "!?;#|&:":
        before, _, after = name.partition(mark)
        found |= {before, after, name.rpartition(mark)[2], after.lstrip("/")}
    found |= {each.rpartition("/")[2] for each in found}
    return {each for each in found if each not in {"", name, ".", ".."} and not each.startswith("/")}


def lay(plain: Path, folder: Path, stem: str, suffixes: tuple[str, str]) -> tuple[str, str]:
    """A source of an odd name in a folder among decoys, at whatever its name and its destination's may be taken for."""
    source, destination = (stem + suffix for suffix in suffixes)
    for name, suffix in zip((source, destination), suffixes, strict=True):
        for decoy in misread(name):
            with contextlib.suppress(OSError):  # a folder of that name is as good
                (folder / decoy).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(plain / f"decoy{suffix[:5].replace('.tiff', '.tif')}", folder / decoy)
    path = folder / source
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    for part in plain.glob("real.*") if suffixes[0] in (".shp", ".tab") else (plain / f"real{suffixes[0]}",):
        shutil.copy(part, path.with_name(path.name.removesuffix(suffixes[0]) + part.suffix))
    (folder / destination).unlink(missing_ok=True)
    return source, destination


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files below a folder, hidden ones too: what is in them, and when they were written."""
    files = (Path(where, name) for where, _, names in os.walk(folder) for name in names)
    return {str(each.relative_to(folder)): (each.read_bytes(), each.stat().st_mtime_ns) for each in files}


def value_in(path: Path, scratch: Path) -> list[int]:
    """The values in an output, read from a copy with a plain name by a library alone."""
    copy = scratch / f"copy{path.suffix}"
    shutil.copy(path, copy)
    if path.suffix.startswith(".tif"):
        with rasterio.open(copy) as dataset:
            return np.unique(dataset.read()).tolist()
    meta, _, _, columns = pyogrio.raw.read(copy)
    return sorted(set(columns[list(meta["fields"]).index("v")].tolist()))


class Swath:
    """Runs jobs of flat choices in children that are kept, a child a kind."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._runners = {
            kind: stack.enter_context(Runner()) for kind in ("raster", "vector", "verify", "profile", "drivers")
        }

    def done(self, job: Any, **options: Any) -> Report:
        """A job's report; it must end well."""
        report = self._runners[job.kind].run(job, **options)
        assert report.ok, report.error
        return report

    def made(self, job: Any) -> Report:
        """A job that writes, published."""
        with staging(Path(job.destination), overwrite=job.overwrite) as staged:
            report = published(self.done(job, staged=staged.path), staged)
        assert report.ok, report.error
        return report


@pytest.fixture(scope="module")
def swath() -> Iterator[Swath]:
    """One for all names."""
    with contextlib.ExitStack() as stack:
        yield Swath(stack)


def check_every_command(
    swath: Swath, plain: Path, folder: Path, stem: str, kind: str, suffixes: tuple[str, str]
) -> None:
    """An odd name through every command, as source and as destination; the destination is all that changes."""
    source, destination = lay(plain, folder, stem, suffixes)
    scratch = folder.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    before = snapshot(folder)
    make: Callable[..., Any] = {"raster": request.raster_job, "vector": request.vector_job}[kind]
    job = make(source, destination)
    swath.done(job, plan_only=True)
    assert snapshot(folder) == before
    report = swath.made(job)
    assert report.output is not None
    assert report.output.path == str(folder / destination)
    assert value_in(folder / destination, scratch) == [7]
    after = snapshot(folder)
    assert {name: seen for name, seen in after.items() if name != destination} == before
    verified = swath.done(request.verify_job(source, destination, level="full"))
    assert verified.verification is not None
    assert len(verified.verification.checks) > 3  # against what the output's metadata says of its job
    swath.done(request.profile_job(source))
    seen = swath.done(request.drivers_job(source=str(folder / source)))
    assert seen.result["source"]["kind"] == kind
    assert snapshot(folder) == after
    assert [
        each
        for each in (*report.warnings, *verified.warnings)
        if not each.startswith("the peak of") and "is called" not in each and "ids are not kept" not in each
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("stem", [*NAMES, ALL_AT_ONCE])
def test_odd_names_are_taken_literally(
    swath: Swath, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str
) -> None:
    """Each odd name through every command, among decoys; rasters, and vectors of one more format in turn."""
    others = [each for each in FORMATS if each != ".gpkg"]
    at = [*NAMES, ALL_AT_ONCE].index(stem)
    turns = others if stem == ALL_AT_ONCE else [others[at % len(others)]]
    ways = ((".tif", ".tiff"), (".gpkg", ".fgb"), *((each, ".gpkg") for each in turns))
    for number, suffixes in enumerate(ways):
        folder = tmp_path / str(number) / "here"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        kind = "raster" if ".tif" in suffixes else "vector"
        check_every_command(swath, plain, folder, stem, kind, suffixes)


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("scene.tif", True),
        ("/data/scene.tif", True),
        ("a:b.tif", True),
        ("scene-2024-01-01T10:30:00.gpkg", True),
        ("vsizip/scene.tif", True),
        ("https://example.org/scene.tif", False),
        ("s3://bucket/scene.tif", False),
        ("/vsizip/scene.zip/scene.tif", False),
        ('NETCDF:"a.nc":b', False),
        ("PG:dbname=parcels", False),
        ("vrt://a.tif?bands=1", False),
    ],
)
def test_what_is_local(name: str, local: bool) -> None:
    """URLs, GDAL's virtual files and datasets with a prefix are not local; a plain path is, a colon in it or not."""
    assert is_local(name) is local


@pytest.mark.parametrize("name", ["NETCDF:x.tif", "PG:foo.gpkg", "zip:a.tif", "GTIFF_DIR:1:a.tif", "https:x"])
def test_what_exists_under_the_literal_name_is_that_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of such a name is local, and as an output it is in any case."""
    monkeypatch.chdir(tmp_path)
    assert not is_local(name)
    assert is_local_output(name)
    Path(name).touch()
    assert is_local(name)
    assert for_gdal(name) == str(tmp_path / name)


def test_outputs_elsewhere_are_refused(tmp_path: Path) -> None:
    """A URL or a virtual file is not written to."""
    for name in ("s3://bucket/x.tif", "/vsimem/x.tif", "/vsizip/x.zip/x.tif"):
        with pytest.raises(DestinationError, match="is not a local path"):
            request.raster_job(str(tmp_path), name)


def test_a_local_folder_that_begins_as_a_virtual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL is given another name for a file below a real `/vsi…` than for a virtual file."""
    assert for_gdal("/vsizip/a.tif") == "/vsizip/a.tif"
    monkeypatch.setattr(os.path, "lexists", lambda _: True)
    assert for_gdal("/vsizip/a.tif") == "/./vsizip/a.tif"
    assert for_gdal(Path("/vsimem/new.tif")) == "/./vsimem/new.tif"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL takes UTF-8 only: of a source or a destination with other bytes it is said beforehand."""
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9.tif")
    Path(name).touch()
    Path("a.tif").touch()
    with pytest.raises(SourceError, match="not UTF-8"):
        request.raster_job(name, "b.tif")
    with pytest.raises(DestinationError, match="not UTF-8"):
        request.raster_job("a.tif", os.fsdecode(b"\xe9.tif"))


def test_a_name_too_long_to_stage_is_what_the_hint_says(tmp_path: Path) -> None:
    """The staging folder's name is longer than the destination's: that is the culprit, not the folder."""
    with pytest.raises(SwathError) as raised, staging(tmp_path / f"{'x' * 246}.tif", overwrite=False):
        pass
    assert raised.value.hint == "choose a shorter name"


def test_names_without_per_cents_need_no_other(tmp_path: Path) -> None:
    """Only what a URI would decode gets a descriptor's name, which is closed behind it."""
    with without_escapes("/a/b?c#d.gpkg") as name:
        assert name == "/a/b?c#d.gpkg"
    (tmp_path / "a%41.gpkg").write_bytes(b"real")
    with without_escapes(str(tmp_path / "a%41.gpkg")) as name:
        assert name is not None
        assert "%" not in name
        assert Path(name).read_bytes() == b"real"
    assert not Path(name).exists()


def test_a_leading_dash_is_a_name_behind_two_dashes(plain: Path, tmp_path: Path) -> None:
    """The shell's way to name such a file holds; a destination with `!` overwrites nothing that it does not name."""
    shutil.copy(plain / "real.gpkg", tmp_path / "-a!b.gpkg")
    shutil.copy(plain / "decoy.gpkg", tmp_path / "b.gpkg")
    before = snapshot(tmp_path)
    command = [sys.executable, "-m", "flows", "vector", "--json", "--", "-a!b.gpkg", "--out!b.gpkg"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert b'"WARNING"' not in done.stderr
    assert value_in(tmp_path / "--out!b.gpkg", tmp_path) == [7]
    after = snapshot(tmp_path)
    assert {name: seen for name, seen in after.items() if name not in ("--out!b.gpkg", "copy.gpkg")} == before
