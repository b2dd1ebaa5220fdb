"""rioxarray and dask: `python rioxarray_dask.py SOURCE DESTINATION lzw|zstd normalise|ndvi|focal`.

rioxarray's own writer opens the file anew for each chunk, and loses ZSTD_LEVEL after the first: so
chunks are stored into one open file.
"""

import os
import sys
import threading

os.environ["GDAL_NUM_THREADS"] = "2"

import dask.array
import numpy as np
import rasterio
import rioxarray
from rasterio_two_threads import profile_of

CHUNK, SIZE = 2048, 15


class Band:
    """The only band of a file that is written, as dask stores into it."""

    def __init__(self, file):
        """Remember `file`."""
        self.file = file

    def __setitem__(self, place, values):
        """Write one chunk."""
        rows, columns = place[-2:]
        self.file.write(values, 1, window=((rows.start, rows.stop), (columns.start, columns.stop)))


def normalise(bands, nodata):
    """W1."""
    values = (bands[0].astype("float32") / np.float32(10_000)).clip(np.float32(0), np.float32(1))
    return values if nodata is None else dask.array.where(bands[0] == nodata, np.float32(np.nan), values)


def ndvi(bands, nodata):
    """W2."""
    red, near = (band.astype("float32") for band in bands)
    values = (near - red) / (near + red)
    return values if nodata is None else dask.array.where(bands[0] == nodata, np.float32(np.nan), values)


def focal(bands, nodata):
    """W3: means of the valid pixels of 15 x 15."""
    from scipy.ndimage import uniform_filter

    def mean(pixels):
        # Beyond the raster's edge is a value of its own, which no pixel of uint16 in float32 has.
        valid = pixels >= 0 if nodata is None else (pixels >= 0) & (pixels != nodata)
        sums = uniform_filter(np.where(valid, pixels, np.float32(0)), SIZE, mode="constant")
        if valid.all():
            return sums
        shares = uniform_filter(valid.astype("float32"), SIZE, mode="constant")
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(valid, sums / shares, np.float32(np.nan))

    depth = SIZE // 2
    return bands[0].astype("float32").map_overlap(mean, depth=depth, boundary=-1, dtype="float32")


JOBS = {"normalise": normalise, "ndvi": ndvi, "focal": focal}


def main(source, destination, codec, job):
    """Compute `job` of `source`."""
    with rasterio.open(source) as dataset:
        profile, nodata = profile_of(dataset, codec), dataset.nodata
    with rioxarray.open_rasterio(source, chunks={"x": CHUNK, "y": CHUNK}, lock=False) as pixels:
        values = JOBS[job](list(pixels.data), None if nodata is None else pixels.dtype.type(nodata))
        with rasterio.open(destination, "w", **profile) as out:
            dask.array.store(values, Band(out), lock=threading.Lock())


if __name__ == "__main__":
    main(*sys.argv[1:])
