"""Steps that change rows: what comes out is what geopandas makes of the whole file, and a verification finds it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
from conftest_vector import Done, make_job, parcels, prepared, verified_again
from geopandas.testing import assert_geodataframe_equal
from pydantic import ValidationError

from lib.errors import UsageError
from lib.jobs import VectorJob

Run = Callable[..., Done]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two hundred parcels with nulls and empties."""
    parcels(200).to_file(tmp_path / "a.gpkg")
    return tmp_path / "a.gpkg"


def _verifies(source: Path, done: Done, **choices: Any) -> bool:
    """Whether a full verification of what a job made passes, and has looked for the rows of the source."""
    checks = verified_again(source, done, make_job(source, done.output, **choices))
    return "membership" in checks and all(checks.values())


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
def test_selected_fields_are_kept_in_their_order(name: str, source: Path, run_job: Run) -> None:
    """Fields come as named, whatever their case, once each; geometries and rows are those of the source."""
    choices = {"select": "value, N,value", "min_area_sqm": 500}
    done = run_job(source, name, chunk_rows=64, **choices)
    found, before = geopandas.read_file(done.output), geopandas.read_file(source)
    assert list(found.columns) == ["value", "n", "geometry"]
    wanted = before[before.n.isin(found.n)][["value", "n", "geometry"]].reset_index(drop=True)
    assert_geodataframe_equal(found.sort_values("n", ignore_index=True), wanted)
    assert 0 < len(found) < len(before)
    assert done.plan.facts["select"] == ["value", "n"]
    assert _verifies(source, done, **choices)


def test_a_field_that_is_not_there_is_refused(source: Path, tmp_path: Path) -> None:
    """With the nearest one there is, else all of them."""
    with pytest.raises(UsageError, match="no field 'nmae'") as caught:
        prepared(make_job(source, tmp_path / "b.gpkg", select="n,nmae"))
    assert caught.value.hint == "did you mean name?"
    with pytest.raises(UsageError, match="no field 'zzz'") as caught:
        prepared(make_job(source, tmp_path / "b.gpkg", select="zzz"))
    assert caught.value.hint == "it has n, name, value"


def test_names_are_read_as_in_a_csv(tmp_path: Path) -> None:
    """A name with a comma is quoted; none at all is an error."""
    assert _job(tmp_path, '"a, b",c').select == ("a, b", "c")
    for empty in ("", "a,,b"):
        with pytest.raises(ValidationError, match="not a list of fields"):
            _job(tmp_path, empty)


def _job(folder: Path, select: str) -> VectorJob:
    return make_job(folder / "a.gpkg", folder / "b.gpkg", select=select)


def test_rows_that_differ_in_a_dropped_field_alone_verify(run_job: Run, tmp_path: Path) -> None:
    """Of two rows that are alike behind the selection one is dropped before: the other is no stranger."""
    frame = parcels(6)
    frame = frame.loc[[0, 0, 1]].assign(n=[1, 2, 3], name="same", value=0.5)
    frame.to_file(tmp_path / "a.gpkg")
    choices = {"function": "vector_functions:odd_rows", "select": "name"}
    done = run_job(tmp_path / "a.gpkg", **choices)
    assert list(geopandas.read_file(done.output).name) == ["same"] * 2
    checks = verified_again(tmp_path / "a.gpkg", done, make_job(tmp_path / "a.gpkg", done.output, **choices))
    assert all(checks.values())
