"""Which functions a flow's parameter may name: those of modules that the setting `function_modules` has; in the terminal any."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib.errors import SettingsError, UsageError
from lib.request import at_terminal, raster_job, vector_job
from lib.settings import load_settings


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small raster."""
    path = tmp_path / "in.tif"
    where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8", **where) as dataset:
        dataset.write(np.ones((1, 9, 9), "uint8"))
    return path


def ask(source: Path, function: str, **more: Any) -> None:
    """For a job of each kind that takes a function."""
    raster_job(str(source), str(source.with_name("out.tif")), operation="custom", function=function, **more)
    vector_job(str(source), str(source.with_name("out.gpkg")), function=function, **more)


@pytest.mark.parametrize(
    ("allowed", "function", "passes"),
    [
        ("", "filters:f", False),
        ("filters", "filters:f", True),
        ("filters", "filters.water:f", True),
        ("filters", "filtersandmore:f", False),
        ("other, our.indices", "our.indices:f", True),
        ("other,our.indices", "our:f", False),
        ("other", "os:system", False),
    ],
)
def test_a_flow_may_name_those_of_the_setting(
    allowed: str, function: str, passes: bool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module, and what is in a package; all else is refused before anything is imported; the terminal names any."""
    monkeypatch.setenv("BATCH_FUNCTION_MODULES", allowed)
    ask(source, function)
    if passes:
        ask(source, function, word="parameter")
        return
    for make, name in ((raster_job, "out.tif"), (vector_job, "out.gpkg")):
        choices = {"operation": "custom"} if make is raster_job else {}
        with pytest.raises(
            UsageError, match=f"function {function}: by the setting function_modules a flow may call"
        ) as caught:
            make(str(source), str(source.with_name(name)), function=function, word="parameter", **choices)
        assert "BATCH_FUNCTION_MODULES" in caught.value.hint
    with at_terminal():
        ask(source, function, word="parameter")


def test_a_flow_s_own_file_of_settings_allows_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parameter config cannot widen it; the file that BATCH_CONFIG names can."""
    monkeypatch.delenv("BATCH_FUNCTION_MODULES")
    file = tmp_path / "swath.yaml"
    file.write_text("function_modules: [filters]\n")
    with pytest.raises(UsageError, match="may call no functions"):
        ask(source, "filters:f", word="parameter", config=str(file))
    monkeypatch.setenv("BATCH_CONFIG", str(file))
    ask(source, "filters:f", word="parameter")


@pytest.mark.parametrize("value", [7, "os.system()", ["a b"], [1], "a..b"])
def test_what_is_no_list_of_modules(value: Any) -> None:
    """Is an error of the setting."""
    with pytest.raises(SettingsError, match="function_modules"):
        load_settings(given={"function_modules": value}, environ={})
