"""The codec's limit of W1: `python codec_limit.py SOURCE lzw|zstd` prints the seconds that all cores need at least.

Each core has a thread, which decodes by GDAL, computes, and encodes by GDAL into memory, one row of tiles after another;
nothing is ordered, shared or written. The seconds are the threads' processor time ÷ cores: no start-up, no waiting.
"""

import json
import os
import sys
import threading
import time

import numpy as np
import rasterio
from rasterio.io import MemoryFile
from rasterio.windows import Window
from rasterio_two_threads import BLOCK, compute, profile_of, windows_of


def work(source, profile, rows, spent):
    """Decode, compute and encode this thread's rows of tiles."""
    began, encoded = time.thread_time(), 0
    with rasterio.open(source) as dataset:
        for windows in rows:
            height = windows[0].height
            with MemoryFile() as memory:
                with memory.open(**profile | {"height": height}) as out:
                    for window in windows:
                        raw = dataset.read(1, window=window)
                        values = np.empty(raw.shape, "float32")
                        compute(raw, values, dataset.nodata, np.empty(raw.shape, bool))
                        out.write(values, 1, window=Window(window.col_off, 0, window.width, height))
                encoded += len(memory.getbuffer())
    spent.append((time.thread_time() - began, encoded))


def main(source, codec):
    """Measure, and print as JSON."""
    cores = len(os.sched_getaffinity(0))
    with rasterio.open(source) as dataset:
        windows, profile = windows_of(dataset), profile_of(dataset, codec)
        strip_bytes = int(1.3 * BLOCK * dataset.width * np.dtype(dataset.dtypes[0]).itemsize)
    rows = [[each for each in windows if each.row_off == top] for top in sorted({each.row_off for each in windows})]
    del profile["num_threads"]
    spent = []
    with rasterio.Env(GDAL_CACHEMAX=2 * strip_bytes):
        threads = [threading.Thread(target=work, args=(source, profile, rows[n::cores], spent)) for n in range(cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(json.dumps({"seconds": sum(each[0] for each in spent) / cores, "bytes": sum(each[1] for each in spent)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
