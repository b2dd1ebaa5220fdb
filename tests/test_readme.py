"""The README's commands and snippets do what it says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin
from shapely.geometry import box

from flows.flags import flag_table
from lib.settings import Settings, load_settings
from tests.raster.matrix import as_markdown

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the README speaks of."""
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", width=300, height=300, count=1, dtype="uint16", crs="EPSG:32633",
        transform=from_origin(500000, 5000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((1, 300, 300), 5000, dtype="uint16"))
    (function,) = [block for block in _blocks("python") if "def relief" in block]
    (tmp_path / "relief.py").write_text(function)
    (function,) = [block for block in _blocks("python") if "def compact" in block]
    (tmp_path / "compact.py").write_text(function)
    squares = [box(n * 500, 0, n * 500 + 40 * (n + 1), 100) for n in range(10)]
    gpd.GeoDataFrame({"n": range(10)}, geometry=squares, crs="EPSG:32633").to_file(tmp_path / "parcels.gpkg")
    (tmp_path / "scenes" / "north").mkdir(parents=True)
    for name in ("a.tif", "north/b.tif"):
        shutil.copyfile(tmp_path / "scene.tif", tmp_path / "scenes" / name)
    (tmp_path / "layers.csv").write_text("source,min_area_sqm\nparcels.gpkg,\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_the_commands_run(folder: Path) -> None:
    """Each `swath` line of the README ends with exit code 0, in the order in which it stands there."""
    lines = [line for block in _blocks("sh") for line in block.splitlines() if line.startswith("swath ")]
    assert len(lines) >= 12
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        run = subprocess.run(
            [sys.executable, "-m", "flows", *words], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert run.returncode == 0, f"{line}\n{run.stdout}\n{run.stderr}"
    with rasterio.open(folder / "relief.tif") as dataset:
        assert (dataset.dtypes, dataset.read().min(), dataset.read().max()) == (("uint8",), 128, 128)
    compact = gpd.read_file(folder / "compact.gpkg")
    assert list(compact.n) == list(range(7))
    assert compact.compactness.between(0.6, 0.79).all()  # a square's is pi / 4


@pytest.mark.flow
def test_the_flow_snippet_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prefect_api: None
) -> None:
    """The Python snippet prints a peak in bytes and True."""
    monkeypatch.chdir(folder)
    (snippet,) = [block for block in _blocks("python") if "transform_raster" in block]
    exec(compile(snippet, "README.md", "exec"), {})  # noqa: S102 - that is what the test is for
    peak, passed = capsys.readouterr().out.split()[-2:]
    assert int(peak) > 2**20
    assert passed == "True"


def test_the_settings_snippet_is_accepted(tmp_path: Path) -> None:
    """The YAML snippet loads, and every key in it is a setting."""
    (snippet,) = _blocks("yaml")
    path = tmp_path / "swath.yaml"
    path.write_text(snippet)
    layers = load_settings(path, environ={})
    assert set(yaml.safe_load(snippet)) <= set(Settings.model_fields)
    assert layers.settings.memory_limit_mb == 1024


def test_the_table_of_flags_is_the_models_own() -> None:
    """Between its two marks the README has what `flag_table` makes of the knobs: paste that where this fails."""
    (table,) = re.findall(r"<!-- flags: .*? -->\n\n(.*?)\n\n<!-- end of flags -->", README, re.DOTALL)
    assert table == flag_table()


def test_the_table_of_what_a_raster_keeps_is_the_tests_own() -> None:
    """Between its two marks the README has what `as_markdown` makes of the matrix that is tested: paste that where this fails."""
    (table,) = re.findall(r"<!-- matrix: .*? -->\n\n(.*?)\n\n<!-- end of matrix -->", README, re.DOTALL)
    assert table == as_markdown()


def test_the_make_targets_exist() -> None:
    """The two commands of the first screen are targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in _blocks("sh")[0].splitlines():
        target = line.split()[1]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
