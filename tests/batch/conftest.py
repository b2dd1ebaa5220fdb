"""Small rasters and layers, and a batch of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib.batch.request import Batch, batch_of

NORMALISE = {"operation": "normalise"}


def write_tile(path: Path, *, seed: int = 0, height: int = 96, width: int = 112, **options: Any) -> Path:
    """`(1, height, width)` uint16 with nodata 0."""
    pixels = np.random.default_rng(seed).integers(0, 12000, (1, height, width), dtype="uint16")
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint16", nodata=0, crs="EPSG:32633",
        transform=from_origin(500000, 5000000, 10, 10), **options,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def is_normalised(source: Path, output: Path, *, scale: float = 10000) -> bool:
    """Whether an output is all of it, as NumPy has it, with nodata where the source has."""
    with rasterio.open(source) as before, rasterio.open(output) as made:
        pixels, mask = before.read(), before.read_masks()
        expected = np.clip(pixels.astype("float32") / np.float32(scale), 0, 1)
        return bool(
            np.array_equal(made.read()[mask > 0], expected[mask > 0])
            and np.array_equal(made.read_masks() > 0, mask > 0)
        )


@pytest.fixture
def tiles(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes so many rasters into a folder of the test's, `in` by default."""

    def written(count: int, folder: str = "in", **options: Any) -> list[Path]:
        return [write_tile(tmp_path / folder / f"t{n:02}.tif", seed=n, **options) for n in range(count)]

    return written


@pytest.fixture
def batch(tmp_path: Path) -> Callable[..., Batch]:
    """A batch of rasters into the test's folder `out`, normalised."""

    def made(*inputs: str | Path, into: str = "out", **choices: Any) -> Batch:
        choices = NORMALISE | {"memory_limit_mb": 256} | choices
        return batch_of("raster", [str(each) for each in inputs], str(tmp_path / into), **choices)

    return made
