"""Functions on GeoDataFrames: what they make of batches is what geopandas makes of the whole file, as they declare."""

from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import pytest
import shapely
from conftest_vector import Done, make_job, parcels, prepared, solid, verified_again

from lib.errors import FunctionError, UsageError

Run = Callable[..., Done]


def test_a_frame_is_filtered_changed_and_gets_fields(run_job: Run, tmp_path: Path) -> None:
    """As by the same steps on the whole file; the row counts say what was dropped."""
    frame = solid(parcels(100))
    frame.to_file(tmp_path / "a.gpkg")
    frame = geopandas.read_file(tmp_path / "a.gpkg")
    done = run_job(tmp_path / "a.gpkg", function="vector_functions:odd_frame", chunk_rows=16)
    found, wanted = geopandas.read_file(done.output), frame[frame.n % 2 == 1]
    assert list(found.columns) == ["n", "name", "value", "double", "perimeter", "geometry"]
    assert list(found.name) == [name.upper() for name in wanted.name]
    assert list(found.double) == list(wanted.n * 2)
    np.testing.assert_allclose(found.perimeter, shapely.length(wanted.geometry.to_numpy()))
    assert shapely.equals_exact(found.geometry.to_numpy(), wanted.geometry.scale(0.5, 0.5).to_numpy(), 1e-12).all()
    result = done.outcome.result
    assert result["features_dropped"] == {"custom": result["features_read"] - result["features_kept"]}
    assert "feature ids are not kept, as the function works on frames" in " ".join(done.outcome.warnings)
    work = make_job(tmp_path / "a.gpkg", done.output, function="vector_functions:odd_frame")
    assert all(verified_again(tmp_path / "a.gpkg", done, work).values())


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
def test_a_frame_loses_nothing(name: str, run_job: Run, tmp_path: Path) -> None:
    """Large integers beside nulls, booleans, text and its absence, bytes, dates: through pandas and back they are the same."""
    table = {
        "n": pa.array([2**60 + 1, None, 3]),
        "small": pa.array([1, None, 3], pa.int16()),
        "is": pa.array([True, None, False]),
        "real": pa.array([0.1, None, -0.0]),
        "name": pa.array(["Zürich", None, ""]),
        "bytes": pa.array([b"\x00\xff", None, b""], pa.binary()),
        "day": pa.array([pd.Timestamp("2020-01-02 03:04:05.678"), None, None], pa.timestamp("ms")),
    }
    shapes = pa.array(shapely.to_wkb([shapely.box(10, 50, 11, 51)] * 3), pa.binary())
    pyogrio.raw.write_arrow(
        pa.table(table | {"g": shapes}), tmp_path / "a.gpkg", driver="GPKG", geometry_name="g",
        geometry_type="Polygon", crs="EPSG:4326",
    )  # fmt: skip
    done = run_job(tmp_path / "a.gpkg", name, function="vector_functions:same_frame")
    columns = list(table)
    plain = run_job(tmp_path / "a.gpkg", f"plain{name}")
    _, before = pyogrio.raw.read_arrow(plain.output, columns=columns, read_geometry=False)
    _, after = pyogrio.raw.read_arrow(done.output, columns=columns, read_geometry=False)
    assert after.sort_by("n").to_pylist() == before.sort_by("n").to_pylist()


def test_a_frame_without_geometries_is_pandas(run_job: Run, tmp_path: Path) -> None:
    """A table is given as a DataFrame."""
    pyogrio.write_dataframe(pd.DataFrame({"n": [1, 2]}), tmp_path / "a.gpkg")
    done = run_job(tmp_path / "a.gpkg", function="vector_functions:same_frame")
    assert list(pyogrio.read_dataframe(done.output).n) == [1, 2]


def test_geometries_become_what_is_declared(run_job: Run, tmp_path: Path) -> None:
    """A layer of points, transformed afterwards as any other."""
    solid(parcels(20)).to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    done = run_job(tmp_path / "a.gpkg", function="vector_functions:points", to_crs="EPSG:3857")
    assert pyogrio.read_info(done.output)["geometry_type"] == "Point"
    assert geopandas.read_file(done.output).crs == "EPSG:3857"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("frame_mask", "returned Series, not a frame"),
        ("frame_twice", "returned .* rows for .*: rows are kept or dropped, not added"),
        ("frame_less", "returned no column name"),
        ("frame_more", "columns that it does not declare: more"),
        ("frame_text", "returned values in n that are no int64"),
        ("frame_fraction", "returned values in n that are no int64"),
        ("frame_crs", "returned geometries in another CRS than EPSG:4326"),
        ("frame_points", "returned a Point in a layer of Polygon"),
    ],
)
def test_a_frame_that_is_not_as_declared_is_refused(function: str, words: str, run_job: Run, tmp_path: Path) -> None:
    """By the function's name, with what is wrong."""
    shapes = [shapely.box(n, 0, n + 1, 1) for n in range(20)]
    frame = geopandas.GeoDataFrame({"n": range(20), "name": "a"}, geometry=shapes, crs="EPSG:4326")
    frame.to_file(tmp_path / "a.gpkg")
    with pytest.raises(FunctionError, match=words) as caught:
        run_job(tmp_path / "a.gpkg", function=f"vector_functions:{function}")
    assert f"vector_functions:{function}" in caught.value.message


@pytest.mark.parametrize("function", ["declares_a_list", "declares_a_curve"])
def test_what_cannot_be_declared_is_refused(function: str, tmp_path: Path) -> None:
    """Before anything is read."""
    parcels(3).to_file(tmp_path / "a.gpkg")
    with pytest.raises(UsageError, match=f"function vector_functions:{function} declares"):
        prepared(make_job(tmp_path / "a.gpkg", tmp_path / "b.gpkg", function=f"vector_functions:{function}"))
