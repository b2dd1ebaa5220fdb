"""Small real inputs, and what the Prefect API knows of a flow run."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import State
from rasterio.transform import from_origin

_PATIENCE_SECONDS = 30


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """1200 x 1000 uint16 with nodata 0, tiled, EPSG:32633."""
    path = tmp_path / "small.tif"
    pixels = np.random.default_rng(3).integers(0, 12000, (1, 1200, 1000), dtype="uint16")
    with rasterio.open(
        path, "w", driver="GTiff", width=1000, height=1200, count=1, dtype="uint16", nodata=0, tiled=True,
        blockxsize=256, blockysize=256, crs="EPSG:32633", transform=from_origin(500000, 5000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


@pytest.fixture
def parcels(tmp_path: Path) -> Path:
    """A thousand squares in EPSG:32633 whose edges run from 1 to 100 metres, ten of each."""
    path = tmp_path / "parcels.gpkg"
    edges = np.repeat(np.arange(1, 101), 10)
    east = 400000 + 200.0 * np.arange(1000)
    squares = shapely.box(east, 5000000.0, east + edges, 5000000.0 + edges)
    geopandas.GeoDataFrame({"edge": edges}, geometry=squares, crs="EPSG:32633").to_file(path, layer="parcels")
    return path


@pytest.fixture
def task_runs() -> Callable[[State[Any] | UUID], dict[str, str]]:
    """Task runs of a flow run, name → state name, by start. They reach the API as events: ask until all have ended."""

    def ask(run: State[Any] | UUID) -> dict[str, str]:
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[_id(run)]))
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with get_client(sync_client=True) as client:
            while True:
                found = client.read_task_runs(flow_run_filter=of_run)
                if found and all(run.state and run.state.is_final() for run in found):
                    break
                assert time.monotonic() < deadline, f"task runs have not ended in the API: {found}"
        found.sort(key=lambda run: run.start_time or run.expected_start_time)
        return {run.name: run.state_name for run in found}

    return ask


@pytest.fixture
def artifacts() -> Callable[[State[Any] | UUID], dict[str, Any]]:
    """Artifacts of a flow run: key without its hash → data."""

    def ask(run: State[Any] | UUID) -> dict[str, Any]:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[_id(run)]))
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(artifact_filter=of_run)
            return {re.sub(r"-[0-9a-f]{6}(?=$|-allocators$)", "", str(each.key)): each.data for each in found}

    return ask


def _id(run: State[Any] | UUID) -> UUID | None:
    return run if isinstance(run, UUID) else run.state_details.flow_run_id
