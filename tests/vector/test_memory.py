"""The memory contract over the registries: every sink and step, from the sources whose projections are to be close.

In capped children: measured <= projected <= limit, the smallest limit that a plan names is enough, and neither is far above.
"""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from lib.jobs import VECTOR_DRIVERS, Resources, VectorJob
from lib.memory.process import run_job
from lib.reports import Report
from lib.run import run_published
from lib.units import MIB, mib
from lib.vector.sinks import SINKS
from lib.vector.steps import STEPS

SOURCES = {"GPKG": "a.gpkg", "FlatGeobuf": "a.fgb", "ESRI Shapefile": "a.shp", "GeoJSONSeq": "a.geojsonl"}
# By step: what asks for it, and what is kept.
ASKED: dict[str, dict[str, Any]] = {
    "": {},
    "where": {"where": "n < 15000 AND NOT (name LIKE '%x') AND n * 2 >= 0"},
    "bbox": {"bbox": (-6.0, 36.0, 28.0, 58.0)},
    "intersects": {"intersects": "region.geojson"},
    "length": {"max_length_m": 1.0},
    "area": {"min_area_sqm": 15_000.0},
    "custom": {"function": "tests.vector.vector_functions:odd_numbers"},
    "repair": {"repair": True},
    "cast": {"cast": "n=string"},
    "select": {"select": "n"},
    "add_area": {"add_area": "sqm"},
    "simplify": {"simplify": 1.0},
    "centroid": {"centroid": True},
    "to_crs": {"to_crs": "EPSG:3857"},
}
QUICK = {("GPKG", "FlatGeobuf", "custom")}
ROWS = 20_000
AMPLE_MB = 2048
# Each step from a GeoPackage to one, each source to one sink: what both take adds up. Every sink, and every source, with the
# limit that a refusal names is in tests/conformance/test_vectors.py.
_STEPS, _SINKS = list(ASKED), list(SINKS)
_EVERY = QUICK | {
    ("FlatGeobuf", "FlatGeobuf", ""),
    *(("GPKG", "GPKG", step) for step in _STEPS),
    *((source, _SINKS[(at + 1) % len(_SINKS)], _STEPS[(at + 2) % len(_STEPS)]) for at, source in enumerate(SOURCES)),
}
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id="-".join(case)) for case in sorted(_EVERY)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty thousand squares of 6 to 200 m in every format."""
    generator = np.random.default_rng(5)
    west, south = generator.uniform(-10, 30, ROWS), generator.uniform(35, 60, ROWS)
    edges = generator.uniform(0.0001, 0.002, ROWS)
    shapes = shapely.orient_polygons(shapely.box(west, south, west + edges, south + edges), exterior_cw=True)
    frame = geopandas.GeoDataFrame({"n": np.arange(ROWS), "name": "parcel"}, geometry=shapes, crs="EPSG:4326")
    where = tmp_path_factory.mktemp("sources")
    for driver, name in SOURCES.items():
        frame.to_file(where / name, driver=driver)
    region = geopandas.GeoDataFrame(geometry=[shapely.Point(10, 47).buffer(9)], crs="EPSG:4326")
    region.to_file(where / str(ASKED["intersects"]["intersects"]))
    return where


def test_nothing_is_left_out() -> None:
    """Every sink has its suffix among the jobs' names, and every step is asked for here."""
    assert set(VECTOR_DRIVERS.values()) == set(SINKS)
    assert set(ASKED) == {"", *STEPS}
    assert all(SINKS[name].driver == name for name in SINKS)


def _job(source: Path, sink: str, step: str, folder: Path, limit_mb: int) -> VectorJob:
    suffix = next(suffix for suffix, driver in VECTOR_DRIVERS.items() if driver == sink)
    resources = Resources(limit_bytes=limit_mb * MIB, threads_max=2)
    asked = {key: str(source.parent / value) if key == "intersects" else value for key, value in ASKED[step].items()}
    return VectorJob(
        source=str(source), destination=str(folder / f"out{suffix}"), driver=sink, overwrite=True, resources=resources,
        **asked,
    )  # fmt: skip


def _holds(report: Report, limit_mb: int, *, is_near: bool = True) -> None:
    assert report.status == "completed", report.error
    assert report.plan is not None
    peak, projected = report.memory.peak_bytes or 0, report.plan["projected_bytes"]
    shown = f"peak {peak / MIB:.1f}, projected {projected / MIB:.1f}, limit {limit_mb} MiB; {report.plan['terms']}"
    assert peak <= projected <= limit_mb * MIB, shown
    assert not is_near or projected - peak <= max(peak // 4, 32 * MIB), shown
    assert sum(report.plan["terms"].values()) == projected
    assert len(report.attempts) == 1


@pytest.mark.parametrize(("source", "sink", "step"), CASES)
def test_measured_within_projected_within_limit(
    source: str, sink: str, step: str, folder: Path, tmp_path: Path
) -> None:
    """With ample memory and at the smallest limit that a plan names."""
    planned = run_job(_job(folder / SOURCES[source], sink, step, tmp_path, AMPLE_MB), plan_only=True)
    assert planned.plan is not None, planned.error
    smallest_mb = mib(planned.plan["smallest_limit_bytes"])
    for limit_mb in (smallest_mb, AMPLE_MB):
        job = _job(folder / SOURCES[source], sink, step, tmp_path, limit_mb)
        report = run_published(job)
        _holds(report, limit_mb)
        if limit_mb == smallest_mb:
            peak = report.memory.peak_bytes or 0
            assert smallest_mb * MIB - peak <= max(peak // 4, 32 * MIB)
        read = geopandas.read_parquet if sink == "Parquet" else geopandas.read_file
        kept = read(job.destination, columns=["n"] if sink != "Parquet" else None)
        assert len(kept) == report.result["features_kept"]
        if step == "custom":
            assert sorted(kept["n"]) == list(range(1, ROWS, 2))


@pytest.mark.parametrize(
    "sink",
    [
        pytest.param(sink, marks=() if sink == "GPKG" else pytest.mark.slow)
        for sink in SINKS
        if sink != "ESRI Shapefile"
    ],
)
def test_a_heavy_batch_in_the_middle_is_looked_at_first(sink: str, tmp_path: Path) -> None:
    """Of eight texts of 5 MB one after the other, far from the first batch, the projection knows before they come."""
    frame = geopandas.GeoDataFrame(
        {"n": range(4000), "text": ["x" * (5_000_000 if 2000 <= n < 2008 else 5) for n in range(4000)]},
        geometry=shapely.box(np.arange(4000) / 100, 0, np.arange(4000) / 100 + 0.01, 0.01), crs="EPSG:4326",
    )  # fmt: skip
    frame.to_file(tmp_path / "heavy.gpkg")
    is_near = "GeoJSON" not in sink  # which is planned for vertices, and a text takes a tenth of their memory
    _holds(run_published(_job(tmp_path / "heavy.gpkg", sink, "", tmp_path, AMPLE_MB)), AMPLE_MB, is_near=is_near)


@pytest.mark.parametrize("step", ["area", pytest.param("where", marks=pytest.mark.slow)])
def test_the_child_imports_no_dataframes(
    step: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither geopandas nor pandas comes into the child of a filter, nor shapely where nothing is recomputed."""
    seen = tmp_path / "modules"
    monkeypatch.setenv("SWATH_TEST_MODULES", str(seen))
    job = _job(folder / "a.gpkg", "GPKG", step, tmp_path, AMPLE_MB)
    asked = {"verify": "none", "function": "tests.vector.vector_functions:lists_modules"}
    report = run_published(job.model_copy(update=asked))
    assert report.status == "completed", report.error
    modules = set(seen.read_text().split())
    assert {"pyogrio", "pyarrow"} <= modules
    assert not {"geopandas", "pandas", "shapely"} & modules
