"""The files of a mosaic: which they are, whether they are of one kind and on one grid of pixels, and where each of them lies."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from lib.errors import SourceError
from lib.folders import rasters_in
from lib.paths import is_local
from lib.probe import VECTOR_SUFFIXES
from lib.raster import elsewhere, gdal, tags
from lib.raster.faults import in_header
from lib.raster.formats import open_dataset, open_source
from lib.raster.sources.dataset import RasterSource, described
from lib.raster.validity import Validity
from lib.raster.windows import Window

# Of a pixel: what coordinates that went through text, or through another program, may be off, over a whole side.
_ALIKE = 0.01
_LONGEST = 2**31 - 1  # of GDAL's rasters
_MOST_HEAVY = 8  # as many as a reader holds open


class Part(NamedTuple):
    """A file of a mosaic.

    Attributes:
        path: as it is opened.
        place: on the mosaic's grid.
        validity: how its nodata is told.
        state: what a server says of it; None where it is not remote.
    """

    path: str
    place: Window
    validity: Validity
    state: elsewhere.State | None


@dataclass(slots=True)
class Gathered:
    """What was seen of all files.

    Attributes:
        first: the first one, open.
        parts: all, the uppermost last; their places are relative to the first one until `settle`.
        untrue: `(band, key)` of the first one's tags that are not the same in all; of the dataset for 0.
        heavy: `(bytes of a block, place)` of the heaviest.
    """

    first: RasterSource
    parts: list[Part] = field(default_factory=list)
    untrue: set[tuple[int, str]] = field(default_factory=set)
    heavy: list[tuple[int, Window]] = field(default_factory=list)
    block: tuple[int, int] = (1, 1)
    block_bytes: int = 0
    source_bytes: int = 0
    pixel_interleaved: bool = False
    has_holes: bool = False
    in_parallel: bool = True

    def settle(self, path: str) -> tuple[int, int, int, int]:
        """Make the uppermost row and the leftmost column of all 0.

        Returns:
            How far down and across from the first's they were, height and width of all.

        Raises:
            SourceError: these are more than GDAL counts.
        """
        places = [part.place for part in self.parts]
        top, left = min(each.top for each in places), min(each.left for each in places)
        bottom = max(each.top + each.height for each in places)
        right = max(each.left + each.width for each in places)
        if max(bottom - top, right - left) > _LONGEST:
            raise SourceError(
                f"the rasters of {path} lie too far apart: {right - left} x {bottom - top} pixels",
                hint="check where they lie",
                path=path,
            )
        self.parts = [part._replace(place=_moved(part.place, -top, -left)) for part in self.parts]
        self.heavy = [(size, _moved(place, -top, -left)) for size, place in self.heavy]
        return top, left, bottom - top, right - left


def files_of(path: str, more: Sequence[str] = ()) -> tuple[str, ...]:
    """The files of a source and of what lies over it, the uppermost last; a source that is one dataset is the only one.

    A folder that GDAL opens (Zarr, an ESRI grid) is that dataset; another one is its rasters.

    Raises:
        SourceError: a folder without any.
    """
    return tuple(file for each in (path, *more) for file in _files(each))


def _files(path: str) -> list[str]:
    if not (is_local(path) and Path(path).is_dir()):
        return [path]
    try:
        with open_source(path):
            return [path]
    except SourceError as error:
        if Path(path).suffix.lower() in VECTOR_SUFFIXES:
            raise
        if found := rasters_in(path):
            return found
        raise SourceError(
            f"{path} is a folder in which there are no rasters",
            hint="name a raster, or a folder of them: their suffixes tell (.tif, .jp2, .vrt, …), subfolders are not looked into",
            path=path,
        ) from error


def gather(files: Sequence[str], bands: Sequence[int] | None) -> Gathered:
    """Open each file in turn; the first one stays open.

    Raises:
        SourceError: one cannot be opened, has no grid, is of another kind or lies between the pixels of the first.
        DataError: one is truncated.
    """
    gathered, kind = None, _Kind({}, None, (0, 0), [])
    try:
        for path in files:
            dataset = open_dataset(path)
            source = None
            try:
                if gathered is None:
                    source = described(dataset, path, bands)
                    gathered, kind = Gathered(source), _kind_of(path, dataset, source)
                its = _kind_of(path, dataset, gathered.first)
                row, column = _place(path, files[0], its, kind)
                gathered.untrue |= _untrue(kind, its)
                _add(gathered, source or described(dataset, path, bands), row, column)
            finally:
                if gathered is None or dataset is not gathered.first.dataset:
                    dataset.close()
    except BaseException:
        if gathered is not None:
            gathered.first.close()
        raise
    if gathered is None:
        raise TypeError("a mosaic needs a file")
    return gathered


class _Kind(NamedTuple):
    """What must be alike in all files, in words; and tags, which need not be."""

    facts: dict[str, Any]
    transform: Any
    shape: tuple[int, int]
    texts: list[tuple[int, dict[str, str]]]


@in_header
def _kind_of(path: str, dataset: Any, first: RasterSource) -> _Kind:
    if dataset.gcps[0] or dataset.transform.is_identity:
        raise SourceError(
            f"{path} has no grid: a mosaic needs to know where its pixels lie",
            hint="name one raster as source, or georeference them first",
            path=path,
        )
    palettes = [
        dataset.colormap(band) for band, each in enumerate(dataset.colorinterp, 1) if each == ColorInterp.palette
    ]
    facts = {
        "CRS": dataset.crs or None,
        "number of bands": dataset.count,
        "dtype": dataset.dtypes,
        "nodata value": tuple(map(repr, gdal.nodatavals(dataset))),
        "alpha band": ColorInterp.alpha in dataset.colorinterp,
        "scale": dataset.scales,
        "offset": dataset.offsets,
        "unit": tuple(each or "" for each in dataset.units),
        "colour table": palettes,
    }
    known = range(min(dataset.count, first.dataset.count) + 1)
    numbers = [0, *(band for band in first.bands if band in known)]
    return _Kind(facts, dataset.transform, dataset.shape, [(band, _tags(dataset, band)) for band in numbers])


def _tags(dataset: Any, band: int) -> dict[str, str]:
    """A band's, or the dataset's for 0; a band's description by the name ""."""
    described = {"": dataset.descriptions[band - 1] or ""} if band else {}
    return dict(dataset.tags(band)) | tags.others(dataset, band) | described


def _place(path: str, beside: str, its: _Kind, first: _Kind) -> tuple[int, int]:
    """Row and column of a file among the first one's pixels.

    Raises:
        SourceError: it is of another kind, or lies between them.
    """
    if how := _differs(first, its):
        raise SourceError(
            f"{path} makes no mosaic with {Path(beside).name}: {how}",
            hint="leave it out, or bring it there first: `swath raster SRC DST --operation warp`, --dtype, --nodata, --bands",
            path=path,
        )
    column, row = ~first.transform @ (its.transform.c, its.transform.f)
    return round(row), round(column)


def _differs(first: _Kind, its: _Kind) -> str:
    for what, wanted in first.facts.items():
        if its.facts[what] != wanted:
            if what == "colour table":
                return "its colour table is another"
            return f"its {what} is {_in_words(its.facts[what])}, not {_in_words(wanted)}"
    one, other = first.transform, its.transform
    stretched = max(abs(one[i] - other[i]) for i in (0, 1, 3, 4)) * max(*first.shape, *its.shape)
    if stretched > _ALIKE * max(abs(one.a), abs(one.b)):
        turned = " and turned otherwise" if (one.b, one.d) != (other.b, other.d) else ""
        return f"its pixels are {other.a:.10g} x {-other.e:.10g}{turned}, not {one.a:.10g} x {-one.e:.10g}"
    off = max(abs(each - round(each)) for each in ~one @ (other.c, other.f))
    return f"its pixels lie {off:.3g} of a pixel beside the others'" if off > _ALIKE else ""


def _in_words(value: Any) -> str:
    if isinstance(value, tuple):
        different = list(dict.fromkeys(value))
        value = different[0] if len(different) == 1 else ", ".join(map(str, value))
    if isinstance(value, bool):
        return "there" if value else "not there"
    return value.to_string()[:60] if isinstance(value, CRS) else str(value or "none").replace("None", "none")


def _untrue(first: _Kind, its: _Kind) -> set[tuple[int, str]]:
    """Tags of the first that are not another's."""
    both = zip(first.texts, its.texts, strict=True)
    return {(band, key) for (band, texts), (_, own) in both for key, value in texts.items() if own.get(key) != value}


def _add(gathered: Gathered, source: RasterSource, row: int, column: int) -> None:
    place = Window(row, column, *source.grid.shape)
    known = next((part.validity for part in gathered.parts[-1:] if part.validity == source.validity), source.validity)
    gathered.parts.append(Part(source.path, place, known, source.state))
    if source.block[0] * source.block[1] > gathered.block[0] * gathered.block[1]:
        gathered.block = source.block
    gathered.block_bytes = max(gathered.block_bytes, source.block_bytes)
    gathered.source_bytes += source.source_bytes
    gathered.pixel_interleaved |= source.pixel_interleaved
    gathered.in_parallel &= source.reads_in_parallel
    gathered.has_holes |= source.has_holes
    inside = next(iter(source.heaviest()), Window(0, 0, 1, 1))
    heapq.heappush(gathered.heavy, (source.block_bytes, _moved(inside, row, column)))
    if len(gathered.heavy) > _MOST_HEAVY:
        heapq.heappop(gathered.heavy)


def _moved(place: Window, down: int, across: int) -> Window:
    return place._replace(top=place.top + down, left=place.left + across)
