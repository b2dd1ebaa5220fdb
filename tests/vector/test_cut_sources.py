"""Files that end early, or have a page of other bytes: one line that says where, no output, never fewer rows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_vector import make_bench, make_job, prepared
from every_format import FORMATS, frame, of_csv, written

from lib.errors import SwathError

# Where: a byte, a row, a line, a number of features or of records, or the part of the dataset.
_WHERE = r"\d+|a\.(dbf|shx)|footer|malformed|\.gdbtablx?"
_PARTS = {"shp": ("a.shp", "a.dbf", "a.shx"), "gdb": ("gdbtable", "gdbtablx")}


def _fails(source: Path, staged: Path) -> SwathError:
    job = make_job(source, staged, chunk_rows=256, **of_csv(source))
    bench, _ = make_bench(staged)
    with pytest.raises(SwathError) as caught:
        prepared(job).run(bench)
    assert caught.value.exit_code in (1, 2)
    assert "\n" not in caught.value.message
    assert "/opt/" not in caught.value.message
    return caught.value


def _part(source: Path, name: str) -> Path:
    """A file of the dataset: of a .gdb the largest with that suffix, which is the layer's, and what belongs to it."""
    if not source.is_dir():
        return source.with_name(name)
    table = max(source.glob("*.gdbtable"), key=lambda each: each.stat().st_size)
    return table.with_suffix(f".{name}")


@pytest.mark.parametrize("at", [0.1, 0.5, 0.97])
@pytest.mark.parametrize(
    ("suffix", "name"), [(suffix, name) for suffix in FORMATS for name in _PARTS.get(suffix, (f"a.{suffix}",))]
)
def test_a_file_that_ends_early(suffix: str, name: str, at: float, tmp_path: Path) -> None:
    """Any of its parts, near its beginning, in the middle and near its end."""
    source = written(tmp_path, suffix, frame(1000))
    part = _part(source, name)
    content = part.read_bytes()
    part.write_bytes(content[: int(len(content) * at)])
    error = _fails(source, tmp_path / "out.gpkg")
    assert re.search(_WHERE, error.message.replace("a.gpkg", "")), error.message
    assert source.name in error.message


@pytest.mark.parametrize("suffix", [*FORMATS])
@pytest.mark.parametrize("at", [0.4, 0.7])
def test_a_page_of_other_bytes(suffix: str, at: float, tmp_path: Path) -> None:
    """An error, or a value that is another one: all rows are there."""
    source = written(tmp_path, suffix, frame(1000))
    part = _part(source, _PARTS.get(suffix, (f"a.{suffix}",))[0])
    content = bytearray(part.read_bytes())
    start = int(len(content) * at) // 4096 * 4096
    content[start : start + 4096] = np.random.default_rng(3).bytes(4096)
    part.write_bytes(content)
    job = make_job(source, tmp_path / "out.gpkg", chunk_rows=256, **of_csv(source))
    try:
        found = prepared(job).run(make_bench(tmp_path / "out.gpkg")[0]).result["features_read"]
    except SwathError as error:
        found, said = 1000, (error.exit_code, error.message)
    else:
        said = (1, "")
    assert found == 1000
    assert said[0] in (1, 2)
    assert "\n" not in said[1]


def test_the_last_line_of_a_csv(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """It ends in a value before the last: OGR would read the others as null. A line end may be missing."""
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n1,2,3\n4,5,6")
    assert run_job(path).outcome.result["features_kept"] == 2
    path.write_text("a,b,c\n1,2,3\n4,5")
    error = _fails(path, tmp_path / "out.gpkg")
    assert error.message.startswith("t.csv: row 2: the file ends in it")
    assert run_job(path, "skipped.gpkg", skip_bad=True).outcome.result["features_kept"] == 1


@pytest.mark.parametrize("separator", ["\n", "\x1e"])
def test_the_last_feature_of_a_text_sequence(separator: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """It is not whole: OGR may give it all the same, with what its buffer had. A line end may be missing."""
    record = '{"type":"Feature","properties":{"n":1},"geometry":null}'
    path = tmp_path / "s.geojsonl"
    text = separator.join(["", *[record] * 3]) if separator == "\x1e" else separator.join([record] * 3)
    path.write_text(text)
    assert run_job(path).outcome.result["features_kept"] == 3
    path.write_text(text[:-20])
    assert "its last feature, at byte" in _fails(path, tmp_path / "out.gpkg").message
