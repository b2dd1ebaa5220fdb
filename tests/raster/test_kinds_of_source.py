"""Sources of every layout and of the formats that people have, small: what comes out has their pixels and lies where they lie."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy as rasterio_copy

from lib.errors import SourceError
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
DRAW = np.random.default_rng(8)
BYTES = DRAW.integers(0, 255, (1, 130, 201), dtype="uint8")
NORTH = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)
TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64}
GTIFFS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "BigTIFF": (BYTES, TILES | {"bigtiff": "yes"}),
    "one tile": (BYTES, {"tiled": True, "blockxsize": 256, "blockysize": 256}),
    "one strip": (BYTES, {"blockysize": 130, "compress": "deflate"}),
    "strips of a row": (BYTES, {"blockysize": 1, "compress": "lzw"}),
    "300 bands": (DRAW.integers(0, 255, (300, 40, 30), dtype="uint8"), {"interleave": "band"}),
    "300 bands a pixel": (DRAW.integers(0, 255, (300, 40, 70), dtype="uint8"), TILES | {"interleave": "pixel"}),
    "one pixel": (BYTES[:, :1, :1], {}),
    "one row": (BYTES[:, :1], {}),
    "one column": (BYTES[:, :, :1], {"blockysize": 1}),
    "17 x 33": (BYTES[:, :17, :33], {"tiled": True, "blockxsize": 16, "blockysize": 16}),
    "south-up": (BYTES, TILES | {"transform": rasterio.Affine(10, 0, 5e5, 0, 10, 5e6)}),
    "rotated": (BYTES, TILES | {"transform": NORTH * rasterio.Affine.rotation(30)}),
}


def is_copied(shop: Workshop, source: Path | str) -> None:
    """A copy has the pixels, the grid and the CRS that rasterio reads of the source; its checks pass."""
    _, outcome = shop.transform(source)
    assert all(check.passed for check in outcome.checks)
    with rasterio.open(source) as given, rasterio.open(shop.folder / "out.tif") as made:
        np.testing.assert_array_equal(made.read(), given.read())
        np.testing.assert_array_equal(made.read_masks(), given.read_masks())
        assert made.transform.almost_equals(given.transform)
        assert made.crs == given.crs


@pytest.mark.parametrize(
    "kind", [pytest.param(each, marks=pytest.mark.slow) if each == "300 bands a pixel" else each for each in GTIFFS]
)
def test_a_geotiff(shop: Workshop, write: Write, kind: str) -> None:
    """Every layout, count of bands, size and way to lie."""
    pixels, options = GTIFFS[kind]
    path = write(pixels, placed=False, **{"crs": "EPSG:32633", "transform": NORTH} | options)
    is_copied(shop, path)
    assert (path.read_bytes()[2] == 43) == (kind == "BigTIFF")


@pytest.mark.parametrize(
    ("driver", "name", "options"),
    [
        ("VRT", "in.vrt", {}),
        ("PNG", "in.png", {}),
        ("JPEG", "in.jpg", {"QUALITY": "90"}),
        ("JP2OpenJPEG", "in.jp2", {"QUALITY": "100", "REVERSIBLE": "YES"}),
        ("netCDF", "in.nc", {"FORMAT": "NC4"}),
        ("Zarr", "in.zarr", {}),
        ("HFA", "in.img", {}),
    ],
)
def test_another_format(shop: Workshop, write: Write, driver: str, name: str, options: dict[str, str]) -> None:
    """Whatever GDAL reads, a JP2's and a Zarr's pixels among it."""
    rasterio_copy(write(BYTES), shop.folder / name, driver=driver, **options)
    is_copied(shop, shop.folder / name)


def test_a_zarr_of_two_arrays_names_them(shop: Workshop, write: Write) -> None:
    """A container without bands of its own: each name in the error opens as the shell gives it."""
    group = shop.folder / "my scenes.zarr"
    for array in ("DEM", "SLOPE"):
        options = {"APPEND_SUBDATASET": "YES"} if array == "SLOPE" else {}
        rasterio_copy(write(BYTES), group, driver="Zarr", ARRAY_NAME=array, **options)
    with pytest.raises(SourceError, match="has no bands of its own") as raised:
        shop.transform(group)
    names = shlex.split(raised.value.hint.removeprefix("name one of what it holds: "))
    assert [each.rpartition(":")[2] for each in names] == ["/DEM", "/SLOPE"]
    for each in names:
        is_copied(shop, each)
        (shop.folder / "out.tif").unlink()
