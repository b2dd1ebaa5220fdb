"""A small raster."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin


def write_raster(path: Path) -> Path:
    """512 x 512 uint16 with nodata 0, tiled, EPSG:32633."""
    pixels = np.random.default_rng(5).integers(0, 12000, (1, 512, 512), dtype="uint16")
    with rasterio.open(
        path, "w", driver="GTiff", width=512, height=512, count=1, dtype="uint16", nodata=0, tiled=True,
        blockxsize=256, blockysize=256, crs="EPSG:32633", transform=from_origin(500000, 5000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path
