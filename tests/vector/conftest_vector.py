"""Layers to filter, and a bench to filter them at, in this process; memory is measured in children only (tests/conformance)."""

import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pytest
import shapely

from lib.jobs import VECTOR_DRIVERS, Resources, VectorJob, VerifyJob
from lib.memory.meter import Meter
from lib.memory.work import Bench, Room
from lib.reports import Outcome, Plan
from lib.units import MIB
from lib.vector import engine, verify

AMPLE_BYTES = 4096 * MIB


class Done(NamedTuple):
    """A job that ran: its plan, its outcome, the file it wrote, the events it sent."""

    plan: Plan
    outcome: Outcome
    output: Path
    events: list[dict[str, Any]]


def make_job(source: Path, destination: Path, **choices: Any) -> VectorJob:
    """A vector job with ample memory; the driver by the destination's extension."""
    rows = choices.pop("chunk_rows", 10000)
    resources = Resources(limit_bytes=AMPLE_BYTES, chunk_rows=rows, drift_threshold_bytes=AMPLE_BYTES)
    driver = VECTOR_DRIVERS.get(destination.suffix, "GPKG")
    return VectorJob(source=str(source), destination=str(destination), driver=driver, resources=resources, **choices)


def make_bench(
    staged: Path | None, settle: Callable[[Plan], None] = lambda _: None
) -> tuple[Bench, list[dict[str, Any]]]:
    """A bench in this process, and the list that its events go to; `settle` takes the final plan."""
    events: list[dict[str, Any]] = []
    gc.freeze()  # as a child does: the meter's collections need not walk all that pytest holds
    meter = Meter(events.append, drift_threshold_bytes=AMPLE_BYTES, residual_tolerance_bytes=AMPLE_BYTES)
    return Bench(staged, meter, events.append, settle), events


def room(disk_free_bytes: int | None = None) -> Room:
    """Ample room above a fixed baseline."""
    return Room(AMPLE_BYTES, AMPLE_BYTES, 120 * MIB, disk_free_bytes)


def prepared(job: VectorJob, within: Room | None = None) -> engine.VectorWork:
    """A job's work, within ample room."""
    return engine.prepare(job, within or room())


def verified(job: VerifyJob) -> dict[str, bool]:
    """Whether each check of a full verification passed, by name."""
    bench, _ = make_bench(None)
    verify.prepare(job, room()).run(bench)
    return {check.name: check.passed for check in bench.checks}


def verified_again(source: Path, done: Done, work: VectorJob) -> dict[str, bool]:
    """Likewise of what a job made of a source; `work` is that job."""
    output, expected = str(done.output), done.plan.expected
    return verified(
        VerifyJob(source=str(source), output=output, work=work, expected=expected, resources=work.resources)
    )


@pytest.fixture
def run_job(tmp_path: Path) -> Callable[..., Done]:
    """Plan and run a vector job in this process."""

    def run(source: Path, name: str = "out.gpkg", **choices: Any) -> Done:
        folder = tmp_path / "staged"
        folder.mkdir(exist_ok=True)
        output = folder / name
        job = make_job(source, tmp_path / name, **choices)
        plans: list[Plan] = []
        bench, events = make_bench(output, plans.append)
        outcome = prepared(job).run(bench)
        return Done(*plans, outcome, output, events)

    return run


def parcels(count: int, *, crs: str = "EPSG:4326", seed: int = 7) -> geopandas.GeoDataFrame:
    """Generated parcels of 50 to 20,000 m² in Kansas, with holes of both windings, multipolygons, nulls and empties.

    `n` counts them; every 11th is null, every 13th empty, every 5th has a hole, every 7th is a pair.
    """
    return _parcels(count, seed).copy().to_crs(crs)


@cache
def _parcels(count: int, seed: int) -> geopandas.GeoDataFrame:
    generator = np.random.default_rng(seed)
    shapes: list[Any] = []
    for n in range(count):
        lon, lat = generator.uniform(-99, -96), generator.uniform(37, 40)
        size = float(np.exp(generator.uniform(np.log(7), np.log(140))))
        ring = _ring(generator, lon, lat, size / 111_000)
        hole = _ring(generator, lon, lat, size / 111_000 * 0.3)
        if n % 11 == 10:
            shapes.append(None)
        elif n % 13 == 12:
            shapes.append(shapely.Polygon())
        elif n % 5 == 4:
            shapes.append(shapely.Polygon(ring, [hole if n % 2 else hole[::-1]]))
        elif n % 7 == 6:
            other = _ring(generator, lon + 0.01, lat, size / 111_000)
            shapes.append(shapely.MultiPolygon([shapely.Polygon(ring), shapely.Polygon(other[::-1])]))
        else:
            shapes.append(shapely.Polygon(ring if n % 2 else ring[::-1]))
    return geopandas.GeoDataFrame(
        {
            "n": np.arange(count),
            "name": [f"parcel {n} ä" for n in range(count)],
            "value": generator.uniform(0, 1, count),
        },
        geometry=shapes,
        crs="EPSG:4326",
    )


def solid(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The rows that have a geometry which is not empty."""
    return frame[~(frame.geometry.is_empty | frame.geometry.isna())]


def _ring(generator: np.random.Generator, lon: float, lat: float, size: float) -> Any:
    angles = np.arange(8) * np.pi / 4 + generator.uniform(-0.2, 0.2, 8)  # so that the middle is inside
    radii = size * generator.uniform(0.7, 1.3, 8)
    return np.column_stack([lon + radii * np.cos(angles), lat + radii * np.sin(angles)])


def geod_areas(frame: geopandas.GeoDataFrame) -> Any:
    """True areas by pyproj.Geod, polygon by polygon on oriented rings; not-a-number for null and empty geometries."""
    base = frame.crs.geodetic_crs
    geod, plain = base.get_geod(), frame.to_crs(base).geometry
    areas = np.full(len(frame), np.nan)
    for row, geometry in enumerate(plain):
        if geometry is not None and not geometry.is_empty:
            parts = shapely.get_parts(geometry)
            areas[row] = sum(abs(geod.geometry_area_perimeter(shapely.orient_polygons(part))[0]) for part in parts)
    return areas
