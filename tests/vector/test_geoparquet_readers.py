"""What others make of our GeoParquet files: geopandas, DuckDB, and a validator of the specification's own rules."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import geopandas
import geoparquet_validator
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from conftest_vector import parcels, solid

from lib.vector.sinks import parquet

BOX = (-98.0, 38.0, -97.0, 39.0)


class Case(NamedTuple):
    """A layer: its shapes, its CRS, and what is asked of its output."""

    shapes: Any
    crs: str | None = "EPSG:4326"
    choices: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


def _lines() -> Any:
    return [shapely.LineString([(n, 50, n), (n + 1, 51, 5)]) for n in range(40)]


CASES = {
    "parcels": Case(parcels(300).geometry.to_numpy()),
    "parcels, filtered": Case(parcels(300).geometry.to_numpy(), choices={"min_area_sqm": 2500.0}),
    "projected": Case(parcels(60, crs="EPSG:32614").geometry.to_numpy(), "EPSG:32614"),
    "to another CRS": Case(solid(parcels(60)).geometry.to_numpy(), choices={"to_crs": "EPSG:3857"}),
    "no CRS": Case([shapely.Point(n, n) for n in range(9)], None),
    "points": Case([shapely.Point(n, 50) for n in range(40)]),
    "lines with Z": Case(_lines()),
    "several types": Case([shapely.Point(1, 2), shapely.MultiPoint([(1, 2), (3, 4)]), *_lines()[:3]]),
    "without boxes": Case(parcels(60).geometry.to_numpy(), choices={"no_index": True}),
    "no rows": Case(solid(parcels(20)).geometry.to_numpy(), choices={"min_area_sqm": 1e12}),
}


@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, "gpkg") for name in CASES), ("parcels", "parquet"), ("no CRS", "parquet")]
)
def test_others_read_what_was_written(
    name: str, suffix: str, run_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rule of GeoParquet 1.1 is broken; geopandas, DuckDB and Arrow have the same rows, geometries, CRS and metadata."""
    monkeypatch.setattr(parquet, "_MOST_BYTES", 4000)
    monkeypatch.setattr(parquet, "_LEAST_BYTES", 4000)
    case = CASES[name]
    frame = geopandas.GeoDataFrame({"n": np.arange(len(case.shapes))}, geometry=case.shapes, crs=case.crs)
    source = tmp_path / f"a.{suffix}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        frame.to_parquet(source) if suffix == "parquet" else frame.to_file(source, geometry_type="Unknown")
    done = run_job(source, "out.parquet", chunk_rows=32, **case.choices)

    report = geoparquet_validator.check(str(done.output))
    # Whether neighbours lie near each other is the source's business.
    about = [each for each in report["outcomes"] if "/distribution/" not in each["id"]]
    assert not [each for each in about if each["status"] == "fail"]
    covering = {each["status"] for each in about if "/covering/" in each["id"]}
    assert covering == ({"pass"} if not case.choices.get("no_index") else {"skip"})
    assert report["version"] == "1.1.0"
    assert b"geo" in pq.read_table(done.output).schema.metadata

    found = geopandas.read_parquet(done.output)
    wanted = geopandas.read_parquet(source) if suffix == "parquet" else geopandas.read_file(source)
    wanted = wanted[wanted["n"].isin(found["n"])]
    wanted = wanted.to_crs(found.crs) if case.crs else wanted
    away = 1e-6 if "to_crs" in case.choices else 0
    assert all(_same(*each, away) for each in zip(found.geometry, wanted.geometry, strict=True))
    assert len(found) == done.outcome.result["features_kept"]
    assert found.crs == (case.choices.get("to_crs") or case.crs)
    rows = duckdb.from_parquet(str(done.output)).order("n")
    kind = str(rows.types[rows.columns.index(found.geometry.name)])
    assert kind.startswith("GEOMETRY")
    assert str(found.crs.to_epsg() if found.crs else "GEOMETRY") in kind
    texts = rows.project(f"n, {found.geometry.name}::VARCHAR").fetchall()
    assert [n for n, _ in texts] == found["n"].tolist()
    assert all(
        _same(text and shapely.from_wkt(text), shape) for (_, text), shape in zip(texts, found.geometry, strict=True)
    )


def _same(one: Any, other: Any, away: float = 0) -> bool:
    if one is None or other is None:
        return one is other
    return one.equals_exact(other, away) or (one.is_empty and other.is_empty)


def test_boxes_are_for_filtering(run_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters of geopandas and DuckDB by the boxes miss nothing that meets one, and rule row groups out."""
    monkeypatch.setattr(parquet, "_MOST_BYTES", 4000)
    monkeypatch.setattr(parquet, "_LEAST_BYTES", 4000)
    frame = solid(parcels(600))
    frame = frame.iloc[np.argsort(frame.bounds["minx"].to_numpy())].reset_index(drop=True)
    frame.to_file(tmp_path / "a.gpkg", geometry_type="Unknown")
    output = run_job(tmp_path / "a.gpkg", "out.parquet", chunk_rows=32).output
    wanted = set(frame["n"][frame.intersects(shapely.box(*BOX))])
    assert set(geopandas.read_parquet(output, bbox=BOX)["n"]) >= wanted
    meets = f"bbox.xmin <= {BOX[2]} AND bbox.xmax >= {BOX[0]} AND bbox.ymin <= {BOX[3]} AND bbox.ymax >= {BOX[1]}"
    found = {n for (n,) in duckdb.from_parquet(str(output)).filter(meets).project("n").fetchall()}
    bounds = frame.bounds
    near = (bounds.minx < BOX[2] + 1e-4) & (bounds.maxx > BOX[0] - 1e-4)
    near &= (bounds.miny < BOX[3] + 1e-4) & (bounds.maxy > BOX[1] - 1e-4)
    assert wanted <= found <= set(frame["n"][near])
    footer = pq.read_metadata(output)
    at = next(n for n in range(footer.num_columns) if footer.schema.column(n).path == "bbox.xmin")
    lows = [footer.row_group(group).column(at).statistics.min for group in range(footer.num_row_groups)]
    assert len(lows) > 5
    assert sum(low <= BOX[2] for low in lows) < len(lows)
