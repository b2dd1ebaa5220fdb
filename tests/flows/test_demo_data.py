"""What `make demo` published, against oracles over the whole of its real data; `.ci/run` runs the demo before this."""

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from shapely import orient_polygons

DEMO = Path(__file__).resolve().parents[2] / ".demo"
LEAST_SQM = 10_000e6
PATCHES = 275_973
SCALE = np.float32(30)

pytestmark = pytest.mark.slow


def _made(name: str) -> Path:
    path = DEMO / name
    assert path.exists(), f"{path} is missing: run `make demo` first"
    return path


def test_the_large_patches_are_those_that_geod_finds() -> None:
    """Every patch of the layer, by pyproj.Geod on the layer's own ellipsoid: the same are kept, attribute by attribute."""
    frame = pyogrio.read_dataframe(_made("land_cover_patches.gpkg"))
    assert len(frame) == PATCHES
    geod = frame.crs.get_geod()
    shapes = orient_polygons(frame.geometry.to_numpy())
    areas = np.array([abs(geod.geometry_area_perimeter(shape)[0]) for shape in shapes])
    expected = frame[areas >= LEAST_SQM]
    kept = pyogrio.read_dataframe(_made("large_patches.gpkg"))
    assert len(kept) == len(expected)
    assert sorted(kept.geometry.to_wkb()) == sorted(expected.geometry.to_wkb())


def test_the_climate_raster_is_what_numpy_makes_of_it() -> None:
    """All 933 million pixels, by strips: clip(pixel / 30, 0, 1) where the source has a class."""
    of_class = np.clip(np.arange(256, dtype="uint8") / SCALE, 0, 1)
    made_path = _made("climate_normalised.tif")
    with rasterio.open(_made("KG_simplified_uint8.tif")) as source, rasterio.open(made_path) as made:
        assert made.shape == source.shape
        for top in range(0, source.height, 600):
            window = ((top, min(top + 600, source.height)), (0, source.width))
            invalid = source.read_masks(1, window=window) == 0
            assert np.array_equal(made.read_masks(1, window=window) == 0, invalid), window
            is_equal = made.read(1, window=window) == of_class[source.read(1, window=window)]
            assert np.all(is_equal | invalid), window
