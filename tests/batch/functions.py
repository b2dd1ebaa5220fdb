"""A user's function that needs more for some files than their headers say."""

from typing import Any


def hungry_where_large(pixels: Any, valid: Any) -> Any:
    """Hold 160 MiB beside a window of a large raster; pixels stay as they are."""
    import numpy as np

    if pixels.shape[-1] > 200:
        np.ones(160 * 2**20, dtype="uint8")
    return pixels


def sleepy(pixels: Any, valid: Any) -> Any:
    """Sleep for a minute."""
    import time

    time.sleep(60)
    return pixels
