"""The flow `demo` on stand-ins for its sample data: the real ones come from a package index."""

import json
from pathlib import Path
from typing import Any

import geopandas
import pytest
import rasterio
import shapely
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import FlowRunSort
from rasterio.transform import from_origin

from flows import demo as module
from flows.demo import run_demo

pytestmark = [pytest.mark.slow, pytest.mark.flow, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raster of 12000 x 12000 uint8, 137 MiB decoded and 549 MiB as float32, and squares of 1 and of 2 degrees."""
    climate, patches = tmp_path / "climate.tif", tmp_path / "patches.gpkg"
    with rasterio.open(
        climate, "w", driver="GTiff", width=12000, height=12000, count=1, dtype="uint8", nodata=0, compress="deflate",
        blockysize=1, sparse_ok=True, crs="EPSG:4326", transform=from_origin(-180, 60, 0.01, 0.01),
    ):  # fmt: skip
        pass
    squares = [shapely.box(x, 0, x + edge, edge) for x in range(0, 20, 4) for edge in (0.5, 2)]
    geopandas.GeoDataFrame({"class": 1}, geometry=squares, crs="EPSG:4326", index=range(10)).to_file(patches)
    monkeypatch.setattr(module, "get_samples", lambda _: {"climate": str(climate), "patches": str(patches)})
    return tmp_path


def test_the_demo_ends_with_one_table(samples: Path, task_runs, artifacts, capsys: pytest.CaptureFixture[str]) -> None:
    """Both jobs are verified within the limit, the same raster read whole is stopped at it, and the outputs are named.

    In the API both are flow runs of their own below the demo's, and the table is an artifact.
    """
    record: dict[str, Any] = run_demo(folder=str(samples), memory_limit_mb=256)
    assert record["exit_code"] == 0, record["error"]
    windows, batches, whole = record["reports"]
    for report in (windows, batches):
        assert report["verification"]["passed"]
        assert report["memory"]["peak_bytes"] <= report["plan"]["projected_bytes"] <= 256 << 20
    assert batches["result"]["features_kept"] == 5  # 0.5 degrees squared is 3,100 km², 2 degrees squared 49,000 km²
    assert (whole["status"], whole["exit_code"], whole["output"]) == ("refused", 137, None)  # in its first chunk
    outputs = [samples / "climate_normalised.tif", samples / "large_patches.gpkg"]
    assert record["outputs"] == [str(path) for path in outputs]
    assert all(path.exists() for path in outputs)
    with get_client(sync_client=True) as client:
        run, *_ = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["demo"])), sort=FlowRunSort.START_TIME_DESC, limit=1
        )
    assert task_runs(run.id) == {
        "transform-raster-0": "Completed",
        "filter-vector-0": "Completed",
        "Read whole climate.tif": "MemoryRefused",
    }
    assert (
        {"demo", "raster-climate"} <= set(artifacts(run.id)) <= {"demo", "raster-climate", "raster-climate-allocators"}
    )
    assert [row["limit"] for row in json.loads(artifacts(run.id)["demo"])] == ["256.0 MiB"] * 3
    shown = capsys.readouterr().out
    assert sum("256.0 MiB" in line for line in shown.splitlines() if line.startswith("│")) == 3
    assert "stopped at its limit, exit 137" in shown
    assert all(f"wrote {path}" in shown for path in outputs)


def test_a_demo_without_samples_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the sample data cannot be had, the record carries the error and stderr says what to do."""
    (tmp_path / "file").write_text("no folder")
    record = run_demo(folder=str(tmp_path / "file" / "below"))
    assert record["exit_code"] != 0
    assert record["error"]["message"].startswith("samples: ")
    assert "swath: failed: samples: " in capsys.readouterr().err
