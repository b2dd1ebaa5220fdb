"""CRSs that do not say enough: none at all, GeoPackage's two undefined ones, units that nobody knows, a site's own grid."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from conftest_vector import make_job, prepared

from lib.errors import SourceError, UsageError

_UNKNOWN = 'ENGCRS["Plan",EDATUM[""],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["unknown",0]]'
_SITE = 'ENGCRS["Site",EDATUM["Peg"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["foot",0.3048]]'
_NEEDS: dict[str, dict[str, Any]] = {
    "area": {"min_area_sqm": 1},
    "add": {"add_area": "sqm"},
    "length": {"min_length_m": 1},
    "simplify": {"simplify": 1},
    "to-crs": {"to_crs": "EPSG:3857"},
    "bbox-crs": {"bbox": (0, 0, 9, 9), "bbox_crs": "EPSG:4326"},
}


def _layer(path: Path, crs: str | int | None) -> Path:
    """A layer in a CRS, or with a number of GeoPackage's."""
    pyogrio.raw.write(
        path, np.array([shapely.to_wkb(shapely.box(0, 0, 9, 9))], object), [np.arange(1)], ["n"], driver="GPKG",
        geometry_type="Polygon", crs="EPSG:4326" if isinstance(crs, int) or crs is None else crs,
    )  # fmt: skip
    if isinstance(crs, int):
        with sqlite3.connect(path) as database:
            database.execute("UPDATE gpkg_geometry_columns SET srs_id = ?", (crs,))
            database.execute("UPDATE gpkg_contents SET srs_id = ?", (crs,))
        database.close()
    return path


@pytest.mark.parametrize("need", _NEEDS)
@pytest.mark.parametrize(
    ("crs", "said"),
    [(0, "has no CRS"), (-1, "has no CRS"), (_UNKNOWN, "unit of its CRS .* is unknown|PROJ knows no way")],
    ids=["undefined geographic", "undefined Cartesian", "unknown unit"],
)
def test_what_needs_metres_or_a_place_is_refused(need: str, crs: str | int, said: str, tmp_path: Path) -> None:
    """One line, exit 2, before anything is read; no area is computed by a unit of 0."""
    source = _layer(tmp_path / "in.gpkg", crs)
    with pytest.raises((SourceError, UsageError), match=said) as caught:
        prepared(make_job(source, tmp_path / "out.gpkg", **_NEEDS[need]))
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize("need", ["to-crs", "bbox-crs"])
def test_a_site_s_grid_has_no_place_on_earth(need: str, tmp_path: Path) -> None:
    """From there PROJ knows no way, which is said in our words."""
    source = _layer(tmp_path / "in.gpkg", _SITE)
    with pytest.raises(SourceError, match="PROJ knows no way from"):
        prepared(make_job(source, tmp_path / "out.gpkg", **_NEEDS[need]))


@pytest.mark.parametrize("crs", [0, -1, _UNKNOWN, _SITE], ids=["geographic", "Cartesian", "unknown unit", "site"])
def test_what_needs_neither_is_done(crs: str | int, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A box in the layer's own coordinates, a condition; the output has the same CRS."""
    source = _layer(tmp_path / "in.gpkg", crs)
    done = run_job(source, bbox=(1, 1, 2, 2), where="n = 0")
    assert done.outcome.result["features_kept"] == 1
    assert pyogrio.read_info(done.output)["crs"] == pyogrio.read_info(source)["crs"]
