"""What a folder of rasters holds, by names alone. No GIS library."""

import os
from pathlib import Path

# Whose names say that they are rasters: one that does not open is an error, and no file that is passed over.
_NAMES = "asc bil dem dt0 dt1 dt2 gtiff hgt img j2k jp2 jpeg jpg ntf png rst tif tiff vrt"
_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())


def rasters_in(folder: str | Path) -> list[str]:
    """The rasters of a folder, by their suffixes and in the order of their names; none of its subfolders, none that is hidden."""
    with os.scandir(folder) as entries:
        found = [
            each.name
            for each in entries
            if Path(each.name).suffix.lower() in _SUFFIXES and not each.name.startswith(".") and each.is_file()
        ]
    return [str(Path(folder) / name) for name in sorted(found)]
