"""W1 as someone would write it who knows rasterio well: two readers that compute, one ordered writer, encoder threads.

`python rasterio_two_threads.py SOURCE DESTINATION lzw|zstd`. Each reader has a dataset handle and two sets of buffers of its
own; windows are whole output blocks, and of sources in strips whole rows; nothing is allocated in the loop.
"""

import queue
import sys
import threading

import numpy as np
import rasterio
from rasterio.windows import Window

READERS, DEPTH, BLOCK = 2, 2, 512
CHUNK_BYTES = 4 << 20


def windows_of(dataset):
    """Windows in the order in which they are written, of whole output blocks."""
    in_strips = dataset.block_shapes[0][1] == dataset.width
    width = dataset.width if in_strips else CHUNK_BYTES // (BLOCK * 4)
    return [
        Window(left, top, min(width, dataset.width - left), min(BLOCK, dataset.height - top))
        for top in range(0, dataset.height, BLOCK)
        for left in range(0, dataset.width, width)
    ]


def compute(raw, values, nodata, holes):
    """Normalised pixels; nodata becomes NaN."""
    np.divide(raw, np.float32(10_000), out=values, dtype=np.float32)
    np.clip(values, np.float32(0), np.float32(1), out=values)
    if nodata is not None:
        np.equal(raw, raw.dtype.type(nodata), out=holes)
        np.copyto(values, np.float32(np.nan), where=holes)


def profile_of(dataset, codec):
    """What the output is created with."""
    level = {"zstd_level": 1} if codec == "zstd" else {}
    return level | {
        "driver": "GTiff", "width": dataset.width, "height": dataset.height, "count": 1, "dtype": "float32",
        "crs": dataset.crs, "transform": dataset.transform, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
        "compress": codec, "predictor": 2, "num_threads": 2, "bigtiff": "IF_SAFER",
        "nodata": None if dataset.nodata is None else np.nan,
    }  # fmt: skip


def reader(source, windows, free, ready):
    """Read and compute this reader's windows, in order; an exception goes to the writer."""
    try:
        with rasterio.open(source) as dataset:
            for window in windows:
                buffers = free.get()
                shape = (window.height, window.width)
                raw, values, holes = (buffer[: window.height * window.width].reshape(shape) for buffer in buffers)
                dataset.read(1, window=window, out=raw)
                compute(raw, values, dataset.nodata, holes)
                ready.put((window, values, buffers))
    except BaseException as error:  # noqa: BLE001
        ready.put(error)


def main(source, destination, codec):
    """Normalise `source`."""
    with rasterio.open(source) as dataset:
        windows = windows_of(dataset)
        dtype = dataset.dtypes[0]
        strip_bytes = int(1.3 * BLOCK * dataset.width * np.dtype(dtype).itemsize)
        profile = profile_of(dataset, codec)
    largest = max(window.height * window.width for window in windows)
    with rasterio.Env(GDAL_CACHEMAX=2 * strip_bytes), rasterio.open(destination, "w", **profile) as out:
        lanes = []
        for n in range(READERS):
            free, ready = queue.SimpleQueue(), queue.SimpleQueue()
            for _ in range(DEPTH):
                free.put((np.empty(largest, dtype), np.empty(largest, "float32"), np.empty(largest, bool)))
            threading.Thread(target=reader, args=(source, windows[n::READERS], free, ready), daemon=True).start()
            lanes.append((free, ready))
        for n in range(len(windows)):
            free, ready = lanes[n % READERS]
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            window, values, buffers = item
            out.write(values[None], [1], window=window)
            free.put(buffers)


if __name__ == "__main__":
    main(*sys.argv[1:])
