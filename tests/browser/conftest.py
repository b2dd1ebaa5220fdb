"""Debian's chromium, headless, on what `make up` starts: server, page, PostgreSQL, deployments and worker."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from playwright.sync_api import Page, expect, sync_playwright
from rasterio.transform import from_origin

from tests.browser.pages import Browser
from tests.servers import Up

_SIZE = {"width": 1400, "height": 900}
_PATIENCE_MS = 30_000  # a page of Prefect's is megabytes of script, and the machine has a job to run
_EDGE = 2744  # half a Sentinel-2 tile of 20 m: some forty windows, so that the picture of memory has a line


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a browser that finds no host but this one."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed: apt-get install chromium"
    expect.set_options(timeout=_PATIENCE_MS)
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox", nowhere])
        yield running.new_page(viewport=_SIZE, color_scheme="light", locale="en-GB", timezone_id="UTC")
        running.close()


@pytest.fixture(scope="module")
def scenes(data: Path) -> Iterator[Path]:
    """The folder of the schedules; in `incoming` a raster, T32UQD.tif, for the time of these tests.

    Three bands of uint16, waves and noise, nodata 0.
    """
    along = np.linspace(0, 12, _EDGE)
    waves = 3000 + 2000 * np.sin(along)[:, None] * np.cos(along)
    pixels = np.clip(waves + np.random.default_rng(7).normal(0, 300, (3, _EDGE, _EDGE)), 1, 10000).astype("uint16")
    with rasterio.open(
        data / "incoming" / "T32UQD.tif", "w", driver="GTiff", width=_EDGE, height=_EDGE, count=3, dtype="uint16",
        nodata=0, tiled=True, blockxsize=512, blockysize=512, crs="EPSG:32632",
        transform=from_origin(600000, 5500000, 20, 20),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    yield data
    for name in ("incoming", "published"):
        for path in (data / name).iterdir():
            path.unlink()


@pytest.fixture(scope="module")
def browser(page: Page, scenes: Path, up: Up) -> Browser:
    """The page, on what `make up` starts: its PostgreSQL takes a click at once, where SQLite may answer that it is locked."""
    return Browser(page, up.url.removesuffix("/api"), up.client)
