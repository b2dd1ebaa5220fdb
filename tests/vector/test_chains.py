"""Steps one behind the other: predicates before what changes rows, into every format, as geopandas does it of the whole file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from conftest_vector import Done, geod_areas, make_job, parcels, solid, verified_again

from lib.errors import DataError
from lib.vector.sources import parquet
from lib.vector.sources.ogr import OgrSource

Run = Callable[..., Done]


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb", "out.parquet", "out.geojson", "out.geojsonl", "out.shp"])
def test_predicates_come_before_changes_in_every_format(name: str, run_job: Run, tmp_path: Path) -> None:
    """Conditions and boxes are of the layer as it was; what is left has new fields and another CRS, and verifies."""
    before, source = solid(parcels(200, crs="EPSG:32614")), tmp_path / "a.gpkg"
    before.to_file(source)
    low, high = np.quantile(before.geometry.bounds.minx, [0.3, 0.7])
    box = (float(low), float(before.total_bounds[1]), float(high), float(before.total_bounds[3]))
    choices: dict[str, Any] = {
        "where": "value > 0.3",
        "bbox": box,
        "select": "n",
        "add_area": "sqm",
        "to_crs": "EPSG:4326",
    }
    done = run_job(source, name, chunk_rows=64, **choices)
    found = geopandas.read_parquet(done.output) if name.endswith("parquet") else geopandas.read_file(done.output)
    found = found.sort_values("n", ignore_index=True)
    chosen = before[(before.value > 0.3) & before.intersects(shapely.box(*box))]
    wanted = chosen.to_crs("EPSG:4326").geometry.to_numpy()
    assert [each for each in found.columns if each != found.geometry.name] == ["n", "sqm"]
    assert list(found.n) == list(chosen.n)
    assert 0 < len(found) < len(before)
    assert shapely.hausdorff_distance(found.geometry.to_numpy(), wanted).max() < 1e-8
    np.testing.assert_allclose(found.sqm, geod_areas(chosen), rtol=1e-9)
    assert done.outcome.result["predicates"].keys() == {"where", "bbox"}
    checks = verified_again(source, done, make_job(source, done.output, **choices))
    assert "membership" in checks
    assert all(checks.values())


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "parquet"])
def test_a_conditions_fields_are_read_and_left_out(
    suffix: str, run_job: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A condition over fields that are not selected holds as ever, and no others are read, pushed or not."""
    before, source = solid(parcels(100)), tmp_path / f"a.{suffix}"
    before.to_parquet(source) if suffix == "parquet" else before.to_file(source)
    asked: list[Any] = []
    for kind in (OgrSource, parquet.ParquetSource):
        monkeypatch.setattr(kind, "batches", _noting(kind.batches, asked))
    done = run_job(source, select="name", where="value > 0.5 AND n < 80")
    assert ("name", "n", "value") in asked
    found = geopandas.read_file(done.output)
    assert list(found.columns) == ["name", "geometry"]
    assert set(found.name) == set(before[(before.value > 0.5) & (before.n < 80)].name)


def _noting(batches: Callable[..., Any], asked: list[Any]) -> Callable[..., Any]:
    def noted(*given: Any, **options: Any) -> Any:
        asked.append(options.get("columns"))
        return batches(*given, **options)

    return noted


def test_a_field_named_as_the_geometries_may_be_left_out(run_job: Run, tmp_path: Path) -> None:
    """Because of it the geometries have another name, whether it is read or not."""
    properties = {"wkb_geometry": "text", "b": 1}
    feature = {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Point", "coordinates": [1, 2]},
    }
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    found = geopandas.read_file(run_job(tmp_path / "a.geojson", select="b").output)
    assert list(found.geometry) == [shapely.Point(1, 2)]
    assert list(found.b) == [1]


def test_the_row_that_is_named_is_the_source_s(run_job: Run, tmp_path: Path) -> None:
    """Whatever filters have dropped before it."""
    shapes = [shapely.Point(0, 0)] * 3 + [shapely.Point(0, 91)]
    geopandas.GeoDataFrame({"n": range(4)}, geometry=shapes, crs="EPSG:4326").to_file(tmp_path / "a.geojson")
    for more in ({}, {"where": "n > 1"}, {"where": "n > 0", "max_length_m": 1.0}):
        with pytest.raises(DataError, match=r"a.geojson: row 4 has a vertex that has no place"):
            run_job(tmp_path / "a.geojson", to_crs="EPSG:3395", **more)
