"""What gdalinfo says of a source and of its copy, key by key; every difference that is allowed has a name and a reason here."""

import fnmatch
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.raster import matrix
from tests.raster.conftest import Workshop

ALLOWED = {
    "description": "another file",
    "files/*": "another file",
    "files": "another file",
    "driver*": "another format",
    "metadata/DERIVED_SUBDATASETS/*": "names of the file",
    "metadata/IMAGE_STRUCTURE/*": "codec and layout are the output's own",
    "bands/*/metadata/IMAGE_STRUCTURE/*": "codec and layout are the output's own",
    "bands/*/block": "the output's own tiles",
    "bands/*/overviews/*": "made anew where they are asked for",
    "metadata//SWATH_*": "provenance",
    "stac/*": "made by gdalinfo of all the rest",
    "metadata//AREA_OR_POINT": "a TIFF says Area where nothing was said",
    "gcps/gcpList/*/id": "a TIFF's points have no names",
    "metadata/json:*": "gdalinfo before 3.9 does not show a TIFF's (the matrix reads them)",
    "rat/*": "gdalinfo before 3.11 does not look for it inside a TIFF (the matrix reads it)",
    "bands/0/colorTable/*": "a TIFF's has 256 entries: black beyond the source's",
    "metadata/ENVI/*": "a header's fields, which the report names",
}
# Where both sides have these values, it is GDAL's own doing, and gdal_translate's outputs have the same.
ALLOWED_VALUES = {
    "bands/0/colorInterpretation": ("Undefined", "Gray"),  # a TIFF cannot leave its first band undefined
    "bands/0/unit": (None, "metre"),  # GDAL shows the vertical CRS's for a band without any
}
CORPUS = [
    *(("VRT", kind) for kind in matrix.KINDS),
    ("GTiff", "numbers"), ("GTiff", "colours"), ("COG", "masked"), ("PNG", "colours"), ("JPEG", "masked"), ("netCDF", "numbers"),
    ("HFA", "classes"), ("ENVI", "numbers"),
]  # fmt: skip


def gdalinfo(path: Path) -> dict[str, Any]:
    """Everything that gdalinfo says, by its place in the answer."""
    run = subprocess.run(["gdalinfo", "-json", "-mdd", "all", str(path)], capture_output=True, text=True, check=True)
    return dict(_flat(json.loads(run.stdout), ""))


def _flat(said: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(said, dict):
        for key, value in said.items():
            yield from _flat(value, f"{place}/{key}")
    elif isinstance(said, list) and any(isinstance(each, dict | list) for each in said):
        for number, value in enumerate(said):
            yield from _flat(value, f"{place}/{number}")
    else:
        yield place.removeprefix("/"), said


def _same(place: str, before: Any, after: Any) -> bool:
    if before == after or ALLOWED_VALUES.get(place) == (before, after):
        return True
    if (
        place.endswith("coordinateSystem/wkt") and before and after
    ):  # an ensemble's members, and names of axes, are the reader's
        return bool(before.split('"')[1] == after.split('"')[1])
    return any(fnmatch.fnmatchcase(place, pattern) for pattern in ALLOWED)


@pytest.mark.parametrize(("driver", "kind"), CORPUS)
def test_a_copy_says_what_its_source_says(shop: Workshop, driver: str, kind: str) -> None:
    """Nothing but what is listed above differs."""
    source = matrix.make(shop.folder, kind, driver)
    assert source is not None
    shop.transform(source)
    before, after = gdalinfo(source), gdalinfo(shop.folder / "out.tif")
    places = sorted({*before, *after})
    differ = {place: (before.get(place), after.get(place)) for place in places}
    wrong = {place: both for place, both in differ.items() if not _same(place, *both)}
    assert not wrong


def test_gdal_translate_differs_likewise(tmp_path: Path) -> None:
    """What is called GDAL's own doing is: its own copy shows the same."""
    source = matrix.make(tmp_path, "masked", "VRT")
    subprocess.run(["gdal_translate", "-q", str(source), str(tmp_path / "translated.tif")], check=True)
    before, after = gdalinfo(tmp_path / "all.vrt"), gdalinfo(tmp_path / "translated.tif")
    assert before["bands/0/colorInterpretation"] == "Undefined"
    assert after["bands/0/colorInterpretation"] == "Gray"
