"""What a VRT's own XML says of how its sources are read: their scale, how they are resampled. Their blocks are in `blocks.py`.

Read as a stream, so that a mosaic of a hundred thousand files is not held as a tree.
"""

import io
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NO_RECIPE", "Recipe", "read_recipe"]

_FLOAT32 = 4
_WIDE = frozenset({"Int32", "UInt32", "Int64", "UInt64", "Float64"})


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a VRT reads its sources.

    Attributes:
        warped: it warps.
        scale: source pixels to one of its own, the most of any source.
        averaged: the same of sources that GDAL averages itself: it reads all of them that a window covers, as float32
            (`<AveragedSource>`, and a `<SimpleSource>` whose resampling begins with "aver").
        computed_bytes: a pixel of a `<ComplexSource>` while it is computed.
        resampled_itemsize: of sources that are resampled otherwise; 0 where none is.
        unplaced: some source has no rectangle: it covers all.
    """

    warped: bool = False
    scale: float = 1.0
    averaged: float = 0.0
    computed_bytes: int = 0
    resampled_itemsize: int = 0
    unplaced: bool = False


NO_RECIPE = Recipe()


def read_recipe(dataset: Any) -> Recipe:
    """The recipe of an open VRT; an empty one where its XML cannot be read again."""
    try:
        if Path(dataset.name).is_file():
            with Path(dataset.name).open("rb") as file:
                return _parse(file)
        # rasterio parts the text at its first "=".
        text = "".join(f"{key}={value}" for key, value in dataset.tags(ns="xml:VRT").items())
        return _parse(io.BytesIO(text.encode()))
    except (ET.ParseError, ValueError, OSError):
        return NO_RECIPE


def _parse(file: Any) -> Recipe:
    found: dict[str, Any] = {}
    itemsize = _FLOAT32
    # GDAL has read this file as its own XML before; expat bounds what entities may grow to.
    for event, element in ET.iterparse(file, events=("start", "end")):  # noqa: S314
        if event == "start":
            if element.tag == "VRTDataset":
                found["warped"] = element.get("subClass") == "VRTWarpedDataset"
            elif element.tag == "VRTRasterBand":
                itemsize = 8 if element.get("dataType") in _WIDE else _FLOAT32
        elif element.tag.endswith("Source"):
            for name, value in _of_source(element, itemsize).items():
                found[name] = max(found.get(name, value), value)
            element.clear()
    return Recipe(**found)


def _of_source(element: ET.Element, itemsize: int) -> dict[str, Any]:
    """What one source says, as fields of a recipe."""
    inside, outside = element.find("SrcRect"), element.find("DstRect")
    resampling = element.get("resampling", "nearest").lower()
    averaged = element.tag == "AveragedSource" or (element.tag == "SimpleSource" and resampling.startswith("aver"))
    said: dict[str, Any] = {"computed_bytes": itemsize if element.tag == "ComplexSource" else 0}
    if inside is None or outside is None:
        return said | {"unplaced": True, "averaged": float(averaged)}
    across, down = (float(inside.get(name, 0)) / float(outside.get(name, 0) or 1) for name in ("xSize", "ySize"))
    scale = max(1.0, across) * max(1.0, down)
    resampled = resampling != "nearest" and not averaged and (across, down) != (1.0, 1.0)
    return said | {
        "scale": scale,
        "averaged": scale * averaged,
        "resampled_itemsize": itemsize * resampled,
    }
