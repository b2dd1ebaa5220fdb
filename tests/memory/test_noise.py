"""What libraries say becomes warnings of the report, and nothing of it is printed raw."""

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import geopandas
import pytest
import shapely

from lib.errors import JobFailed
from lib.jobs import DriversJob, Resources
from lib.memory.noise import heard, note, sift
from lib.memory.record import Record


def test_gdals_lines_are_noted_and_a_users_words_pass() -> None:
    """Of a job that calls a function what is no library's is shown; of another one nothing is."""
    text = "ERROR 1: TIFFReadDirectory:Failed\nmy own words\nWarning 1: tag ignored\nERROR 1: TIFFReadDirectory:Failed"
    noted: list[str] = []
    assert sift(text, noted, calls_function=True) == "my own words"
    assert noted == ["GDAL says: TIFFReadDirectory:Failed", "GDAL says: tag ignored"]
    assert sift(text, [], calls_function=False) == ""


def test_what_differs_in_numbers_or_a_files_name_is_said_once_and_not_without_end() -> None:
    """Libtiff says the same of each tile, once with the file's name before it and once without."""
    noted: list[str] = []
    for text in ("a.tif: tile 1 is short", "tile 2 is short", "a.tif: tile 30 is short", "another"):
        note(text, noted)
    assert noted == ["a.tif: tile 1 is short", "another"]
    for letter in range(100):
        note(f"{chr(1000 + letter)} is odd", noted)
    assert len(noted) == 20


def test_pythons_warnings_and_rasterios_log_are_noted(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A library's by its words, a user's own code's with the place; NumPy's of coordinates that are no numbers is none."""
    (tmp_path / "theirs.py").write_text("import warnings\nwarnings.warn('mine', stacklevel=1)\n")
    noted: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with heard(noted):
            warnings.warn_explicit("a library's", RuntimeWarning, "/x/site-packages/shapely/io.py", 1)
            warnings.warn_explicit(
                "invalid value encountered in from_wkb", RuntimeWarning, "/x/site-packages/shapely/io.py", 1
            )
            exec(compile((tmp_path / "theirs.py").read_text(), str(tmp_path / "theirs.py"), "exec"), {})  # noqa: S102
            logging.getLogger("rasterio._env").warning("%s in %s", "CPLE_AppDefined", "a.tif: tag ignored")
            logging.getLogger("rasterio._err").info("GDAL signalled an error: err_no=%d, msg=%r", 1, "no such tile")
            logging.getLogger("rasterio._env").info("Sharing dataset")
    assert noted == [
        "a library's",
        "theirs.py:2: UserWarning: mine",
        "GDAL says: a.tif: tag ignored",
        "GDAL says: no such tile",
    ]
    assert capfd.readouterr().err == ""
    assert not logging.getLogger("rasterio._env").handlers


def test_what_was_heard_beside_the_child_is_in_the_report_unless_its_error_says_it() -> None:
    """Once, behind the child's own warnings."""
    record = Record(DriversJob(resources=Resources(limit_bytes=1)))
    record.noted += ["GDAL says: tag ignored", "GDAL says: no such tile"]
    assert record.report().warnings == ["GDAL says: tag ignored", "GDAL says: no such tile"]
    record.error = JobFailed("a.tif: no such tile")
    record.noted += ["a leak"]
    assert record.report().warnings == ["GDAL says: tag ignored", "a leak"]


def test_what_is_noted_is_told_at_once() -> None:
    """Once, when it is first heard: a child that is killed later has said it."""
    told: list[str] = []
    with heard([], told.append):
        logging.getLogger("rasterio._env").warning("%s in %s", "CPLE_AppDefined", "a.tif: tag ignored")
        logging.getLogger("rasterio._env").warning("%s in %s", "CPLE_AppDefined", "a.tif: tag ignored")
    assert told == ["GDAL says: a.tif: tag ignored"]
    record = Record(DriversJob(resources=Resources(limit_bytes=1)))
    record.take({"event": "warning", "text": told[0]})
    assert record.report().warnings == told


def test_a_successful_job_writes_nothing_on_stderr(tmp_path: Path) -> None:
    """Beside --json and lines of the log there is none of what NumPy, shapely and GDAL say of coordinates that are no numbers."""
    ring = "[[10,50],[NaN,50],[11,51],[10,50]]"
    feature = f'{{"type":"Feature","properties":{{}},"geometry":{{"type":"Polygon","coordinates":[{ring}]}}}}'
    (tmp_path / "nan.geojson").write_text(f'{{"type":"FeatureCollection","features":[{feature}]}}')
    command = [
        sys.executable,
        "-m",
        "flows",
        "vector",
        str(tmp_path / "nan.geojson"),
        str(tmp_path / "o.gpkg"),
        "--json",
    ]
    done = subprocess.run([*command, "--min-area-sqm", "5"], capture_output=True, text=True, check=True)
    assert "child.said" not in {json.loads(line)["event"] for line in done.stderr.splitlines()}
    assert not any(words in done.stderr for words in ("invalid value", "Warning:", "NaN or"))
    assert geopandas.read_file(tmp_path / "o.gpkg").empty


def test_the_ignored_warning_is_still_what_numpy_says() -> None:
    """The words that are no trouble are those of today's shapely."""
    wkb = shapely.to_wkb(shapely.Point(float("nan"), 1.0), output_dimension=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shapely.from_wkb(wkb)
        shapely.area(shapely.Polygon([(0, 0), (float("nan"), 0), (1, 1)]))
    assert all(str(each.message).startswith("invalid value encountered in ") for each in caught)
