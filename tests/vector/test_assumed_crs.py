"""A layer without a CRS that is given one."""

import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pyogrio
import pytest
from conftest_vector import make_job, prepared, verified_again
from shapely.geometry import box

from lib.errors import SourceError, UsageError
from lib.vector.verify import read_provenance


def _layer(path: Path, crs: str | None) -> Path:
    frame = geopandas.GeoDataFrame({"n": [1, 2]}, geometry=[box(0, 0, 10, 10), box(0, 0, 90, 90)], crs=crs)
    with warnings.catch_warnings(action="ignore"):
        pyogrio.write_dataframe(frame, path, layer="s")
    return path


@pytest.mark.parametrize("undefined", [None, -1, 0])
@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
def test_it_has_areas_and_the_output_has_it(
    name: str, undefined: int | None, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """Areas are measured in it, the output is in it, the provenance and a warning say so, verification agrees."""
    source = _layer(tmp_path / "s.gpkg", None)
    if undefined is not None:
        database = sqlite3.connect(source)
        database.execute("UPDATE gpkg_geometry_columns SET srs_id = ?", (undefined,))
        database.commit()
        database.close()
    done = run_job(source, name, min_area_sqm=1000.0, assume_crs="epsg:32633")
    assert pyogrio.read_dataframe(done.output)["n"].tolist() == [2]
    assert pyogrio.read_info(done.output)["crs"] == "EPSG:32633"
    assert any("assumed to be in EPSG:32633" in note for note in done.outcome.warnings)
    record = read_provenance(done.output)
    assert record is not None
    assert record["assume_crs"] == "epsg:32633"
    work = make_job(source, tmp_path / name, min_area_sqm=1000.0, assume_crs="epsg:32633")
    checks = verified_again(source, done, work)
    assert all(checks.values()), checks


def test_another_than_the_layer_s_own_is_an_error(tmp_path: Path) -> None:
    """The layer's own CRS is not overridden in silence; the same one may be said again; nonsense is bad usage."""
    source = _layer(tmp_path / "s.gpkg", "EPSG:32633")
    with pytest.raises(SourceError, match="has a CRS, EPSG:32633, and not the assumed EPSG:32632") as caught:
        prepared(make_job(source, tmp_path / "out.gpkg", assume_crs="EPSG:32632"))
    assert caught.value.exit_code == 2
    prepared(make_job(source, tmp_path / "out.gpkg", assume_crs="EPSG:32633"))
    with pytest.raises(UsageError, match="no CRS that PROJ knows"):
        prepared(make_job(source, tmp_path / "out.gpkg", assume_crs="EPSG:999999"))
