"""W1 by rioxarray and dask: `python rioxarray_dask.py SOURCE DESTINATION lzw|zstd`.

Its writer opens the file anew for each chunk, so that ZSTD_LEVEL is lost after the first: the output is smaller, and slower.
"""

import os
import sys
import threading

os.environ["GDAL_NUM_THREADS"] = "2"

import numpy as np
import rioxarray


def main(source, destination, codec):
    """Normalise `source`."""
    options = {"zstd_level": 1} if codec == "zstd" else {}
    with rioxarray.open_rasterio(source, chunks={"x": 2048, "y": 2048}, lock=False) as pixels:
        values = (pixels.astype("float32") / np.float32(10_000)).clip(np.float32(0), np.float32(1))
        values.rio.to_raster(
            destination, tiled=True, blockxsize=512, blockysize=512, compress=codec, predictor=2, dtype="float32",
            lock=threading.Lock(), **options,
        )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
