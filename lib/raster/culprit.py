"""Whose fault it is that pixels cannot be read: of a mosaic the part that is missing, of a file its damage; else not known.

Asked after a failure, by names and words alone: no dataset is opened.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from lib.diagnosis import DAMAGED_HINT, speaks_of_damage
from lib.paths import is_local, is_remote

_START = b"<VRTDataset"
_PARTS = ("SourceFilename", "SourceDataset")
_DEEPEST = 4


def culprit(path: str, words: str) -> tuple[str, str]:
    """What is known of the cause and what to do about it; both empty where nothing is.

    Args:
        path: of the source.
        words: what GDAL said.
    """
    if is_remote(path) and speaks_of_damage(words):  # a short answer cannot be told from a damaged file
        return (
            "its server's answer was cut short, or it is damaged there",
            "run again; if it fails again, fetch the file",
        )
    if not is_local(path):
        return "", ""
    if _is_vrt(Path(path)):
        part = _missing(Path(path), _DEEPEST)
        hint = "bring it back, or build the VRT anew"
        return (f"its part {part} is missing", hint) if part else ("", "")
    return "", DAMAGED_HINT if speaks_of_damage(words) else ""


def _is_vrt(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _START in file.read(1024)
    except OSError:
        return False


def _missing(vrt: Path, depth: int) -> str:
    """The first part, or part of a part, that is not there; empty where all are, or are no files."""
    for name, part in _parts(vrt):
        if not part.exists():
            return name
        if depth and _is_vrt(part) and (deeper := _missing(part, depth - 1)):
            return deeper
    return ""


def _parts(vrt: Path) -> Iterator[tuple[str, Path]]:
    """A VRT's local files, by its names and by their paths; read as a stream, as there may be 100,000."""
    try:
        for _, element in ET.iterparse(vrt):  # noqa: S314 - GDAL has read it as its own; expat bounds what entities grow to
            if element.tag in _PARTS and (name := (element.text or "").strip()):
                is_relative = element.get("relativeToVRT") == "1"
                if is_relative or is_local(name):
                    yield name, vrt.parent / name if is_relative else Path(name)
            if element.tag == "VRTRasterBand" or element.tag.endswith("Source"):
                element.clear()
    except (ET.ParseError, OSError, ValueError):
        return
