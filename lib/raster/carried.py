"""What an output takes over from its source beside pixels: georeferencing, tags, colours, scales; and its provenance.

All of it is written before the first pixel, so that a TIFF's directory stands in front of its data. What a TIFF cannot hold (some
CRSs, names of classes) GDAL puts into an `.aux.xml` beside it, which is published with it. What would be false of the output
is not carried, and said (`not_carried`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rasterio.enums import ColorInterp

from lib import provenance
from lib.errors import SourceError
from lib.jobs import RasterJob
from lib.raster import gdal, tags
from lib.raster.faults import writing
from lib.raster.formats import read_tags
from lib.raster.operations.base import Linear, Outputs
from lib.raster.sinks.tiles import EXACT_DTYPES
from lib.raster.sources.dataset import RasterSource
from lib.units import file_label

# A TIFF's tag takes 65,535 numbers, six of each. GDAL would put more into a file beside the output.
_MOST_POINTS = 65_535 // 6
_PALETTE_DTYPES = frozenset({"uint8", "uint16"})  # which a TIFF's colour table is of
_NAMED_TAGS = 4
_LOCAL_CRS = ("LOCAL_CS", "ENGCRS", "ENGINEERINGCRS")
_ROW_BYTES = 100  # of an attribute table as XML, a guess: the probe measures it
WINDOW_TAG = "SWATH_WINDOW"


def check_points(points: int, label: str) -> None:
    """Can an output hold so many ground control points?

    Raises:
        SourceError: it cannot.
    """
    if points > _MOST_POINTS:
        raise SourceError(
            f"{label}: has {points} ground control points, a GeoTIFF holds {_MOST_POINTS}",
            hint="warp it to a grid first (`gdalwarp`), or leave points out",
        )


def carry(source: RasterSource, output: Any, job: RasterJob, outputs: Outputs, chunk: Sequence[int] = ()) -> None:
    """Write to a new output what it takes over from the source, and where it comes from.

    Args:
        source: the source, with the bands in the output's order.
        output: the open output, nothing written yet.
        job: the work.
        outputs: what its operation makes of bands.
        chunk: height and width of the windows that are read, and bands at once, where pixels depend on them (VRT).
    """
    dataset, bands = source.dataset, _continued(source, outputs)
    with writing(job.destination):
        if outputs.nodata is not None and outputs.dtype.name in EXACT_DTYPES:
            gdal.set_nodata_64(output, int(outputs.nodata))
        if not source.grid.points and source.grid.crs == dataset.crs:
            gdal.carry_epoch(dataset, output)
        for number, domain, found, _ in _carried(source, outputs):
            if lines := [line for line in found if not _moves_points(source, line)]:
                gdal.set_texts(output, number, domain, lines)
        state = source.state._asdict() if source.state else None
        said = provenance.texts(job, state, source.files) | ({WINDOW_TAG: ",".join(map(str, chunk))} if chunk else {})
        output.update_tags(**said)
        if source.rpcs:
            output.rpcs = source.rpcs
        names = outputs.new_bands or [
            "" if source.is_untrue(band, "") else dataset.descriptions[band - 1] for band in bands
        ]
        for number, name in enumerate(names, 1):
            if name:
                output.set_band_description(number, name)
        _carry_colours(dataset, output, bands, outputs)
        _carry_scales(dataset, output, bands, outputs)
        _carry_classes(source, output, outputs)


def truths(source: RasterSource, outputs: Outputs) -> tags.Truths:
    """What of the source stays true."""
    same = outputs.line == Linear() and outputs.scale is None
    units = tuple(_keeps_unit(source.dataset, band, outputs) for band in _continued(source, outputs))
    values = outputs.keeps_colours and not outputs.fills
    return tags.Truths(values, same, units, outputs.keeps_colours)


def carried_bytes(source: RasterSource, outputs: Outputs) -> int:
    """Size of the texts and tables that `carry` would write, bytes."""
    found = _carried(source, outputs)
    rows = sum(gdal.attribute_rows(source.dataset, band) for band in source.bands) if outputs.keeps_colours else 0
    return sum(len(line) for each in found for line in each.lines) + rows * _ROW_BYTES


def not_carried(source: RasterSource, outputs: Outputs) -> list[str]:
    """What an output does not keep of its source, in words: what it cannot hold, and what would no longer be true."""
    name, dataset, places = file_label(source.path), source.dataset, _places(source)
    said = []
    if outputs.keeps_colours:
        said += _not_held(name, source, outputs)
    else:
        lost = [what for what, is_there in _of_values(source).items() if is_there]
        if lost:
            said.append(f"{name}: its {', '.join(lost)} would be wrong of the values written: not kept")
    if dataset.crs and dataset.crs.to_wkt().startswith(_LOCAL_CRS):
        said.append(f"{name}: of a local CRS a GeoTIFF keeps name and unit alone")
    if source.grid.points and not dataset.transform.is_identity:
        said.append(
            f"{name}: a GeoTIFF has ground control points or a transform: its transform is not kept beside its points"
        )
    if any(_moves_points(source, line) for line in gdal.texts(dataset, 0, None)):
        said.append(
            f"{name}: AREA_OR_POINT=Point is not kept beside ground control points, which GDAL would move by it"
        )
    dropped = list(dict.fromkeys(key for each in _carried(source, outputs) for key in each.dropped))
    if dropped:
        more = f" and {len(dropped) - _NAMED_TAGS} more" if len(dropped) > _NAMED_TAGS else ""
        said.append(
            f"{name}: tags of the source's values or their layout are not kept: {', '.join(dropped[:_NAMED_TAGS])}{more}"
        )
    lost_units = [
        each.units[band - 1]
        for each, band in places
        if each.units[band - 1] and (outputs.new_bands or not _keeps_unit(each, band, outputs))
    ]
    if gone := _of_bands(source, outputs):
        said.append(f"{name}: its bands' {', '.join(gone)} would be wrong of the values written: not kept")
    if lost_units:
        said.append(
            f"{name}: the unit of changed values is not known: {', '.join(dict.fromkeys(lost_units))} is not kept"
        )
    if headers := tags.unknown_domains(dataset, [band for each, band in places if each is dataset]):
        said.append(f"{name}: the fields of its {', '.join(headers)} header are not kept as tags")
    return said


def _carried(source: RasterSource, outputs: Outputs) -> list[tags.Texts]:
    numbers = (0, *_continued(source, outputs))
    return [
        each._replace(
            lines=[line for line in each.lines if not source.is_untrue(numbers[each.number], tags.name(each, line))]
        )
        for each in tags.carried(source.dataset, numbers[1:], truths(source, outputs))
    ]


def _continued(source: RasterSource, outputs: Outputs) -> tuple[int, ...]:
    """The source's bands that an output's bands are, in their order; none where those are new."""
    return () if outputs.new_bands else source.bands


def _not_held(name: str, source: RasterSource, outputs: Outputs) -> list[str]:
    """What a copy cannot hold."""
    said, dataset, bits = [], source.dataset, 8 * outputs.dtype.itemsize
    found = {dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") for band in source.bands} - {None}
    if found:
        said.append(f"{name}: its pixels have {', '.join(sorted(found))} bits, the output's {bits}: NBITS is not kept")
    if source.is_mixed:
        kinds = ", ".join(dict.fromkeys(source.dtypes))
        said.append(f"{name}: its bands of {kinds} are written as {outputs.dtype}, which holds each of their pixels")
    if _has_palette(dataset, source.bands) and not _keeps_palette(dataset, source.bands, outputs):
        said.append(f"{name}: a GeoTIFF has a colour table of a single band of 8 or 16 bits only: it is not kept")
    if source.validity.alpha_hidden:
        said.append(f"{name}: alpha masks nothing where it stands among these bands: a mask band does so in its place")
    return said


def in_sidecar(output: Path, source: RasterSource, outputs: Outputs) -> list[str]:
    """What stands in a file beside the output, in words; nothing where there is none."""
    beside = output.with_name(f"{output.name}.aux.xml")
    if not beside.exists():
        return []
    named = outputs.keeps_colours and any(gdal.category_names(source.dataset, band) for band in source.bands)
    text = beside.read_bytes()
    what = ["its CRS"] * (b"<SRS" in text) + ["the names of its classes"] * named
    return [
        f"{beside.name} beside {output.name} holds {' and '.join(what) or 'what a GeoTIFF cannot'}: keep both together"
    ]


def _of_values(source: RasterSource) -> dict[str, bool]:
    """What speaks of the values of pixels as they were, in words, and whether the source has it."""
    places = _places(source)
    return {
        "colour table": any(_has_palette(dataset, [band]) for dataset, band in places),
        "names of classes": any(gdal.category_names(dataset, band) for dataset, band in places),
        "attribute table": any(gdal.attribute_rows(dataset, band) for dataset, band in places),
        "colour profile": any("COLOR_PROFILE" in dataset.tag_namespaces() for dataset, _ in places),
    }


def _places(source: RasterSource) -> list[tuple[Any, int]]:
    """The dataset and the number there of each band; a stack's bands are numbered through all of its files."""
    return [(part.dataset, number) for part, number in map(source.part, source.bands)]


def _of_bands(source: RasterSource, outputs: Outputs) -> list[str]:
    """What bands of the source say of themselves and those of the output do not, in words; units are named apart."""
    places = _places(source)
    scaled = any((each.scales[band - 1], each.offsets[band - 1]) != (1.0, 0.0) for each, band in places)
    is_adjusted = outputs.scale is not None or (outputs.line is not None and not outputs.new_bands)
    found = ["scale and offset"] * (scaled and not is_adjusted)
    if outputs.new_bands:
        found += ["descriptions"] * any(each.descriptions[band - 1] for each, band in places)
        found += ["tags"] * any(each.tags(band) for each, band in places)
    return found


def _moves_points(source: RasterSource, line: bytes) -> bool:
    """Whether GDAL would read ground control points elsewhere for a tag: of pixels that are points it adds half a pixel twice."""
    return bool(source.grid.points) and line == b"AREA_OR_POINT=Point"


def _has_palette(dataset: Any, bands: Sequence[int]) -> bool:
    return any(dataset.colorinterp[band - 1] == ColorInterp.palette for band in bands)


def _keeps_palette(dataset: Any, bands: Sequence[int], outputs: Outputs) -> bool:
    """Whether a TIFF can hold it: one table, of one band."""
    held = outputs.keeps_colours and len(bands) == 1 and outputs.dtype.name in _PALETTE_DTYPES
    return held and _has_palette(dataset, bands)


def _carry_classes(source: RasterSource, output: Any, outputs: Outputs) -> None:
    """Names of classes and attribute tables."""
    if not outputs.keeps_colours:
        return
    for number, band in enumerate(source.bands, 1):
        if names := gdal.category_names(source.dataset, band):
            gdal.set_category_names(output, number, names)
        if gdal.attribute_rows(source.dataset, band):
            gdal.carry_attribute_table(source.dataset, band, output, number)


def _carry_colours(source: Any, output: Any, bands: Sequence[int], outputs: Outputs) -> None:
    wanted = [source.colorinterp[band - 1] for band in bands]
    if _keeps_palette(source, bands, outputs):
        output.write_colormap(1, source.colormap(bands[0]))
    else:  # indexes into a colour table are plain values once they are transformed
        wanted = [ColorInterp.gray if each == ColorInterp.palette else each for each in wanted]
    if wanted and tuple(wanted) != tuple(output.colorinterp):
        output.colorinterp = wanted


def _line(source: Any, band: int, line: Linear | None) -> Linear | None:
    """How a band's values follow from the source's: alpha is carried as it is."""
    return Linear() if source.colorinterp[band - 1] == ColorInterp.alpha else line


def _keeps_unit(source: Any, band: int, outputs: Outputs) -> bool:
    """Whether what the output's pixels stand for is in the unit of what the source's do."""
    scaled = (source.scales[band - 1], source.offsets[band - 1]) != (1.0, 0.0)
    line = _line(source, band, outputs.line)
    if outputs.scale is not None:  # they stand for results, whatever the source's own scale
        return line == Linear() and (outputs.unscaled or not scaled)
    return line is not None and (scaled or line == Linear())


def _carry_scales(source: Any, output: Any, bands: Sequence[int], outputs: Outputs) -> None:
    scales, offsets, units = [], [], []
    for band in bands:
        line = _line(source, band, outputs.line)
        scale, offset = source.scales[band - 1], source.offsets[band - 1]
        scaled = (scale, offset) != (1.0, 0.0)
        units.append(source.units[band - 1] if _keeps_unit(source, band, outputs) else None)
        scales.append(scale / line.factor if line and scaled else 1.0)
        offsets.append(offset - line.shift * scale / line.factor if line and scaled else 0.0)
    if outputs.scale is not None:
        scales, offsets = ([each] * output.count for each in (outputs.scale.factor, outputs.scale.shift))
    if any(scale != 1.0 for scale in scales) or any(offset != 0.0 for offset in offsets):
        output.scales, output.offsets = scales, offsets
    if any(units):
        output.units = [unit or "" for unit in units]


def read_provenance(path: str | Path) -> dict[str, Any] | None:
    """The work that wrote a raster, as a `RasterJob` record without resources; None where it does not say.

    `source` is its base name only, `destination` is `path`.
    """
    record = provenance.job_in(read_tags(path), "raster")
    return None if record is None else record | {"destination": str(path)}


def chunk_of(output: Any) -> tuple[int, int, int] | None:
    """Height, width and bands of the chunks that an output was made by, where it says so."""
    try:
        height, width, bands = map(int, output.tags().get(WINDOW_TAG, "").split(","))
    except ValueError:
        return None
    return height, width, bands
