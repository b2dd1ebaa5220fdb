"""Functions for the operation `custom`, imported in the capped child."""

import os
import sys
import time
from pathlib import Path


def hoard(pixels, valid):
    """Hold far more than any limit of these tests."""
    import numpy as np

    held = [np.ones(64 << 20, dtype="uint8") for _ in range(64)]
    return pixels * len(held)


_windows = []


def hoard_late(pixels, valid):
    """Hoard from the thirtieth window on, long after the plan is final."""
    _windows.append(pixels.shape)
    return pixels if len(_windows) < 30 else hoard(pixels, valid)


def linger(pixels, valid):
    """Take a minute for each window, as a slow job does."""
    time.sleep(60)
    return pixels


def fail_while_flagged(pixels, valid):
    """Fail for as long as there is a file `flag` in Prefect's home."""
    if _is_flagged():
        raise RuntimeError("not yet")
    return pixels


def linger_in_verification(pixels, valid):
    """Take a minute for each window that is recomputed, likewise."""
    if "verify" in sys.argv and _is_flagged():
        time.sleep(60)
    return pixels


def _is_flagged():
    return (Path(os.environ["PREFECT_HOME"]) / "flag").exists()
