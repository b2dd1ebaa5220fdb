"""The counter-example of the demo: a whole raster in one array, as most scripts have it.

A function for the operation `custom`, run in a capped child like any other: it reads the file that the environment variable
SWATH_WHOLE_SOURCE names, whatever window it is given.
"""

import os
from typing import Any


def read_whole(pixels: Any, valid: Any) -> Any:
    """Read all bands of the whole raster as float32, divide, and hand back the window unchanged.

    Args:
        pixels: `(bands, height, width)` float32, the first window.
        valid: `(bands, height, width)` bool.

    Raises:
        MemoryError: under any limit that is worth the name.
    """
    import numpy as np
    import rasterio

    with rasterio.open(os.environ["SWATH_WHOLE_SOURCE"]) as dataset:
        whole = dataset.read().astype("float32")
    whole /= np.float32(whole.max())
    return np.where(valid, pixels, pixels)
