"""W1 as textbooks have it, one thread and chunks of "256 MB" of float32: `python textbook.py SOURCE DESTINATION lzw|zstd`.

A masked array divided by a Python number is float64 on the way, and so are its copies.
"""

import sys

import numpy as np
import rasterio
from rasterio.windows import Window
from rasterio_two_threads import BLOCK, profile_of

CHUNK_BYTES = 256 << 20


def main(source, destination, codec):
    """Normalise `source`."""
    with rasterio.open(source) as dataset:
        profile = profile_of(dataset, codec)
        del profile["num_threads"]
        rows = max(CHUNK_BYTES // (4 * dataset.width) // BLOCK * BLOCK, BLOCK)
        with rasterio.open(destination, "w", **profile) as out:
            for top in range(0, dataset.height, rows):
                window = Window(0, top, dataset.width, min(rows, dataset.height - top))
                pixels = dataset.read(1, window=window, masked=True)
                values = np.ma.clip(pixels.astype("float64") / 10_000.0, 0, 1)
                out.write(values.filled(np.nan).astype("float32"), 1, window=window)


if __name__ == "__main__":
    main(*sys.argv[1:])
