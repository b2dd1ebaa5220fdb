"""The raster half of driver validation: what rasterio's GDAL has, and a trial of what can be tried."""

import contextlib

import numpy as np
import rasterio
import rasterio._env
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from lib.drivers import DriverFacts, metadata_reader

TRIALS = {
    "GTiff": ".tif",
    "COG": ".tif",
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "GIF": ".gif",
    "JP2OpenJPEG": ".jp2",
    "HFA": ".img",
    "ENVI": ".dat",
    "GPKG": ".gpkg",
    "netCDF": ".nc",
    "Zarr": ".zarr",
}


def known() -> dict[str, DriverFacts]:
    """Every raster driver by short name, as its metadata has it: rasterio's own driver map lacks COG."""
    item = metadata_reader(rasterio._env.__file__)  # noqa: SLF001 - the module that links GDAL
    found: dict[str, DriverFacts] = {}
    with rasterio.Env() as env:
        for name, long_name in env.drivers().items():
            if item(name, "DCAP_RASTER"):
                creates = bool(item(name, "DCAP_CREATE") or item(name, "DCAP_CREATECOPY"))
                # COG declares no open: GTiff opens what it wrote, which its trial shows.
                found[name] = DriverFacts(name, long_name, "raster", bool(item(name, "DCAP_OPEN")), creates)
    return found


def attempt(name: str) -> str:
    """Create 16 x 16 uint8 pixels, reopen and compare.

    Raises:
        ValueError: they came back otherwise.
    """
    # Constant, as lossy codecs (JPEG, WEBP, JPEG 2000) keep that within rounding; WEBP takes 3 or 4 bands.
    bands = 3 if name == "WEBP" else 1
    pixels = np.full((bands, 16, 16), 100, np.uint8)
    grid = rasterio.Affine(0.1, 0, 5, 0, -0.1, 45)
    path = f"/vsimem/swath-drivers/trial{TRIALS[name]}"
    try:
        with rasterio.open(
            path,
            "w",
            driver=name,
            width=16,
            height=16,
            count=bands,
            dtype="uint8",
            crs="EPSG:4326",
            transform=grid,
        ) as dataset:
            dataset.write(pixels)
        with rasterio.open(path) as dataset:
            again, opened_by = dataset.read(indexes=list(range(1, bands + 1))), dataset.driver
    finally:
        with contextlib.suppress(RasterioError, CPLE_BaseError):
            rasterio.shutil.delete(path)
    difference = int(np.abs(again.astype(np.int16) - pixels).max()) if again.shape == pixels.shape else None
    if difference is None or difference > 2:  # noqa: PLR2004 - rounding of a lossy codec
        raise ValueError(f"pixels of shape {pixels.shape} came back as {again.shape}, at most {difference} apart")
    return "created, reopened, equal" + (f" (opened by {opened_by})" if opened_by != name else "")
