"""Coded value domains, of which OGR's Arrow stream makes dictionaries: codes stay as they are."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pyogrio
import pytest
from conftest_vector import make_job, verified
from shapely.geometry import box

from lib.jobs import VerifyJob


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    """Three parcels whose `use` is bound to a list of codes that lacks 99; `height` to a range."""
    path = tmp_path / "coded.gpkg"
    frame = geopandas.GeoDataFrame(
        {"use": [10, 99, None], "height": [1, 2, 3], "free": [7, 8, 9]},
        geometry=[box(0, 0, 10, 10)] * 3,
        crs="EPSG:32633",
    )
    pyogrio.write_dataframe(frame.astype({"use": "Int32", "height": "int32"}), path, layer="p")
    database = sqlite3.connect(path)
    database.executescript("""
        CREATE TABLE gpkg_data_columns(table_name TEXT, column_name TEXT, name TEXT, title TEXT, description TEXT,
            mime_type TEXT, constraint_name TEXT);
        CREATE TABLE gpkg_data_column_constraints(constraint_name TEXT, constraint_type TEXT, value TEXT, min NUMERIC,
            min_is_inclusive BOOLEAN, max NUMERIC, max_is_inclusive BOOLEAN, description TEXT);
        INSERT INTO gpkg_data_columns VALUES
            ('p', 'use', NULL, NULL, 'what grows', NULL, 'uses'), ('p', 'height', NULL, NULL, NULL, NULL, 'heights');
        INSERT INTO gpkg_data_column_constraints VALUES ('uses', 'enum', '10', NULL, NULL, NULL, NULL, 'forest'),
            ('heights', 'range', NULL, 0, 1, 50, 1, NULL);
    """)
    database.close()
    return path


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
@pytest.mark.parametrize("verify", ["none", "basic"])
def test_codes_stay_codes(coded: Path, name: str, verify: Any, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Integers come out as they are, one that is not in the domain among them; that the domains do not is said."""
    done = run_job(coded, name, min_area_sqm=1.0, verify=verify)
    found = pyogrio.read_dataframe(done.output, use_arrow=False, sql=None)
    wanted = pyogrio.read_dataframe(coded, use_arrow=False)
    for field in ("use", "height", "free"):
        assert found[field].fillna(-1).sort_values().tolist() == wanted[field].fillna(-1).sort_values().tolist()
    assert any("use, height" in note for note in done.outcome.warnings)
    work = make_job(coded, tmp_path / name, min_area_sqm=1.0)
    checks = verified(
        VerifyJob(
            source=str(coded), output=str(done.output), work=work, expected=done.plan.expected, resources=work.resources
        )
    )
    assert all(checks.values()), checks
