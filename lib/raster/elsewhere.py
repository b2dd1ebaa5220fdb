"""Rasters that are no local files: rasterio's GDAL, asked as `lib/elsewhere.py` does, and how sidecars are found."""

from collections.abc import Sequence
from typing import Any

from rasterio import _base

from lib.elsewhere import CACHE_BYTES, Gdal, State, cache_bytes, switches
from lib.paths import for_gdal, is_remote

__all__ = ["CACHE_BYTES", "State", "cache_bytes", "check_unchanged", "forget", "note_opened", "only_one_inside",
           "opening_switches", "refusal", "size", "state", "switches", "trouble"]  # fmt: skip

_OF_OTHERS = (".msk", ".ovr", ".aux.xml")
_RASTER = 2


def _mains(names: Sequence[str]) -> list[str]:
    return [each for each in names if not each.lower().endswith(_OF_OTHERS)]


_GDAL = Gdal(_base.__file__, _RASTER, "raster", _mains)
check_unchanged, only_one_inside, refusal = _GDAL.check_unchanged, _GDAL.only_one_inside, _GDAL.refusal
size, state, trouble = _GDAL.size, _GDAL.state, _GDAL.trouble
_alone: set[str] = set()


def forget(path: str) -> None:
    """Let nothing that was fetched of a remote source before, for another job, be taken for what it is now."""
    _alone.discard(path)
    _GDAL.forget(path)


def opening_switches(path: str) -> dict[str, str]:
    """Options for opening a source: how sidecars (masks, RPCs, .aux.xml) of a remote one are found, which EMPTY_DIR would lose.

    A bucket is listed: one request, which GDAL bounds to a thousand names. A web server's page of a folder has no bound: there
    GDAL asks for 40 names, one by one, but only once: where nothing is beside the file, it is told so from then on.
    """
    if not is_remote(path):
        return {}
    by_name = "TRUE" if "/vsicurl" in for_gdal(path) else "FALSE"
    return {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if path in _alone else by_name}


def note_opened(path: str, dataset: Any) -> None:
    """Remember of a remote source that nothing lies beside it; its mask GDAL would only look for when that is read."""
    if is_remote(path) and path not in _alone and len(dataset.files) == 1 and not _GDAL.size(f"{dataset.files[0]}.msk"):
        _alone.add(path)
