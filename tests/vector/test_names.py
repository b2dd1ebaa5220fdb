"""Names of fields: what no format can hold side by side is renamed, and said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyogrio
import pytest
from conftest_vector import make_job, verified_again

from lib.vector.names import field_names

_RING = [[10, 50], [10.01, 50], [10.01, 50.01], [10, 50]]


def _geojson(path: Path, properties: dict[str, Any]) -> Path:
    feature = {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [_RING]},
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
@pytest.mark.parametrize(
    ("properties", "names"),
    [
        ({"Type": "upper", "type": "lower", "TYPE": "all"}, ["Type", "type2", "TYPE3"]),
        ({"a": 1, "A": 2, "a2": 3}, ["a", "A3", "a2"]),
        ({"": "nameless", "field": 5}, ["field2", "field"]),
        ({"OGC_FID": 77, "fid": 8}, ["OGC_FID2", "fid"]),
        ({"é": 1, "É": 2}, ["é", "É"]),
        ({"fid": "x", "geom": "y", "geometry": "z", "ogc_id": 1}, ["fid", "geom", "geometry", "ogc_id"]),
    ],
)
def test_every_value_comes_out_under_a_name_of_its_own(
    properties: dict[str, Any], names: list[str], name: str, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """Fields that differ in case only, have no name, or are called as OGR calls ids: all values stay, renames are told."""
    source = _geojson(tmp_path / "source.geojson", properties)
    done = run_job(source, name, min_area_sqm=1.0)
    columns, _, _, values = pyogrio.raw.read(done.output)
    assert list(columns["fields"]) == names
    assert [value[0] for value in values] == list(properties.values())
    told = " ".join(done.outcome.warnings)
    for old, new in zip(properties, names, strict=True):
        assert (f"{old!r} is {new!r}" in told) == (old != new)
    work = make_job(source, tmp_path / name, min_area_sqm=1.0)
    checks = verified_again(source, done, work)
    assert checks["membership"]
    assert all(checks.values()), checks


def test_a_table_that_names_a_column_twice(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A CSV's second column of a name keeps its values under a number."""
    (tmp_path / "twice.csv").write_text("id,a,a,A,\n1,2,3,4,5\n")
    done = run_job(tmp_path / "twice.csv")
    (row,) = pyogrio.read_dataframe(done.output, read_geometry=False).to_dict("records")
    assert row == {"id": "1", "a": "2", "a2": "3", "A3": "4", "field_5": "5"}
    assert any("'a' is 'a2'" in note for note in done.outcome.warnings)


def test_many_renames_are_one_line() -> None:
    """Names stay distinct however many there are of one."""
    names = field_names({"fields": ["x"] * 300 + ["X2"]})
    assert len({name.lower() for name in names}) == 301
    assert names[0] == "x"
