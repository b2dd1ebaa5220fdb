"""What libraries say beside their results: Python's warnings in the child, lines on its standard error in the parent.

Neither is shown raw: what may matter is a warning of the report, once. What a user's function prints passes. What a child that
died had said last is evidence, and kept elsewhere (`launch.py`).
"""

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MOST = 20
_ROOT = Path(__file__).resolve().parents[2]
# GDAL's own handler prints so in threads and callbacks that no binding listens to.
_OF_GDAL = re.compile(r"(?:ERROR|FAILURE|Warning) \d+: (.*)")
# NumPy's, of coordinates that are no numbers: what becomes of such geometries the steps say.
_NO_TROUBLE = "invalid value encountered in "


def note(text: str, into: list[str]) -> None:
    """One more text, once each, as far as they are not too many."""
    if text and text not in into and len(into) < _MOST:
        into.append(text)


def sift(text: str, noted: list[str], *, calls_function: bool) -> str:
    """What of a text on standard error is to be shown: a user's own words. GDAL's messages are noted.

    Args:
        text: some lines.
        noted: where messages go.
        calls_function: whether a user's function runs in the child; else all lines are libraries'.
    """
    shown = []
    for line in text.splitlines():
        if said := _OF_GDAL.match(line):
            note(f"GDAL says: {said[1].strip()}", noted)
        elif calls_function:
            shown.append(line)
    return "\n".join(shown)


@contextlib.contextmanager
def warnings_into(noted: list[str]) -> Iterator[None]:
    """Note Python's warnings instead of printing them; those of a user's own code with their place."""

    def take(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        text = " ".join(str(message).split())
        if not any(each in filename for each in ("site-packages", sys.prefix, str(_ROOT))):
            note(f"{Path(filename).name}:{lineno}: {category.__name__}: {text}", noted)
        elif not text.startswith(_NO_TROUBLE):
            note(text, noted)

    before = warnings.showwarning
    warnings.showwarning = take  # type: ignore[assignment] # it needs neither the file nor the line
    try:
        yield
    finally:
        warnings.showwarning = before
