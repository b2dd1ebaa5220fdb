"""A user's module that takes more and more memory as it is imported: named in jobs, never imported by the tests themselves."""

import time
from typing import Any

HELD = []
while True:
    HELD.append(bytearray(b"x") * (8 * 1024 * 1024))
    time.sleep(0.005)


def unchanged(pixels: Any, valid: Any) -> Any:
    """Hand the pixels back."""
    return pixels
