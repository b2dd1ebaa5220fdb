"""What libraries say beside their results: Python's warnings and rasterio's log in the child, its standard error in the parent.

Neither is shown raw: what may matter is a warning of the report, once. What a user's function prints passes. What a child that
died had said last is evidence, and kept elsewhere (`launch.py`).
"""

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_MOST = 20
GDAL = "GDAL says: "
_ROOT = Path(__file__).resolve().parents[2]
# GDAL's own handler prints so in threads and callbacks that no binding listens to.
_OF_GDAL = re.compile(r"(?:ERROR|FAILURE|Warning) \d+: (.*)")
# rasterio's log: what GDAL warns of, and its errors behind which the call went on.
_LOGS = ("rasterio._env", "rasterio._err")
_LOGGED = re.compile(r"GDAL signalled an error: err_no=\d+, msg=[\"'](.*)[\"']|CPLE_\w+ in (.*)", re.DOTALL)
# A file that GDAL looks for before it is made, or beside another; where one is missed, rasterio raises.
_LOOKED_FOR = "No such file or directory"
# NumPy's, of coordinates that are no numbers: what becomes of such geometries the steps say. GDAL's, of what is asked otherwise
# (nodata of 64 bits), of a surface that is passed on, and of a file or a CRS that nobody knows, which are errors of ours by then.
_NO_TROUBLE = (
    "invalid value encountered in ",
    "GetNoDataValue() returns an approximate value",
    "Registering non-standard gpkg_geom_",
    "PROJ: internal_proj_create_from_database: crs not found",
)
_NOT_KNOWN = "not recognized as being in a supported file format"


def note(text: str, into: list[str]) -> None:
    """One more text, as far as they are not too many; of those that differ in numbers or a file's name before them, the first."""
    if text.removeprefix(GDAL).startswith(_NO_TROUBLE) or _NOT_KNOWN in text:
        return
    kind, kinds = _kind(text), [_kind(each) for each in into]
    if text and len(into) < _MOST and not any(kind.endswith(each) or each.endswith(kind) for each in kinds):
        into.append(text)


def _kind(text: str) -> str:
    return re.sub(r"\d+", "0", text.removeprefix(GDAL))


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
            note(GDAL + said[1].strip(), noted)
        elif calls_function:
            shown.append(line)
    return "\n".join(shown)


@contextlib.contextmanager
def heard(noted: list[str], tell: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Note Python's warnings instead of printing them, those of a user's own code with their place; and what rasterio logs.

    Args:
        noted: where they go.
        tell: called at once with each that was noted.
    """

    def new(text: str) -> None:
        before = len(noted)
        note(text, noted)
        for each in noted[before:]:
            tell(each)

    def take(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        text = " ".join(str(message).split())
        if not any(each in filename for each in ("site-packages", sys.prefix, str(_ROOT))):
            new(f"{Path(filename).name}:{lineno}: {category.__name__}: {text}")
        else:
            new(text)

    before, log = warnings.showwarning, _Log(new)
    loggers = [logging.getLogger(name) for name in _LOGS]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(log)
    warnings.showwarning = take  # type: ignore[assignment] # it needs neither the file nor the line
    try:
        yield
    finally:
        warnings.showwarning = before
        for logger in loggers:
            logger.removeHandler(log)


class _Log(logging.Handler):
    """Notes what GDAL said, as rasterio logs it."""

    def __init__(self, new: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._new = new

    def emit(self, record: logging.LogRecord) -> None:
        """Take one message; others than GDAL's are rasterio's own business."""
        said = _LOGGED.fullmatch(record.getMessage())
        if said and not said[0].rstrip("\"'").endswith(_LOOKED_FOR):
            self._new(GDAL + " ".join((said[1] or said[2]).split()))
