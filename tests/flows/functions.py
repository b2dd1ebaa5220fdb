"""Functions for the operation `custom`, imported in the capped child."""

import time


def hoard(pixels, valid):
    """Hold far more than any limit of these tests."""
    import numpy as np

    held = [np.ones(64 << 20, dtype="uint8") for _ in range(64)]
    return pixels * len(held)


def linger(pixels, valid):
    """Take a minute for each window, as a slow job does."""
    time.sleep(60)
    return pixels
