"""What an output takes over from its source beside pixels: georeferencing, tags, colours, scales; and its provenance.

All of it is written before the first pixel, so that a TIFF's directory stands in front of its data. What would be stale
in the output is not carried: statistics, colour tables, structure, and units of values that the operation has changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rasterio.enums import ColorInterp

from lib import provenance
from lib.errors import SourceError
from lib.jobs import RasterJob
from lib.raster.faults import writing
from lib.raster.formats import read_tags
from lib.raster.operations.base import Linear, Outputs
from lib.raster.sources.dataset import RasterSource

# Written by GDAL itself from other things, or true of the source's file only.
_OWN_NAMESPACES = frozenset(
    {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "TIFF", "COLOR_PROFILE", "OVR"}
)
# NODATA_VALUES would mask the output by the source's values; TIFFTAG_MINSAMPLEVALUE is a statistic.
_STALE_TAGS = (
    "STATISTICS_",
    "NODATA_VALUES",
    "TIFFTAG_MINSAMPLEVALUE",
    "TIFFTAG_MAXSAMPLEVALUE",
    "SWATH_",
    "SourceColorInterp",
)
# A TIFF's tag takes 65,535 numbers, six of each. GDAL would put more into a file beside the output.
_MOST_POINTS = 65_535 // 6


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


def carry(source: RasterSource, output: Any, job: RasterJob, outputs: Outputs) -> None:
    """Write to a new output what it takes over from the source, and where it comes from.

    Args:
        source: the source, with the bands in the output's order.
        output: the open output, nothing written yet.
        job: the work.
        outputs: what its operation makes of bands.
    """
    dataset, bands = source.dataset, source.bands
    with writing(job.destination):
        _carry_tags(dataset, output, bands)
        output.update_tags(**provenance.texts(job))
        if dataset.rpcs:
            output.rpcs = dataset.rpcs
        for number, band in enumerate(bands, 1):
            if dataset.descriptions[band - 1]:
                output.set_band_description(number, dataset.descriptions[band - 1])
        _carry_colours(dataset, output, bands, outputs)
        _carry_scales(dataset, output, bands, outputs)


def _carry_tags(source: Any, output: Any, bands: Sequence[int]) -> None:
    for number, namespace, tags in _tags(source, bands):
        output.update_tags(number, ns=namespace, **tags)


def _tags(source: Any, bands: Sequence[int]) -> Iterator[tuple[int, str | None, dict[str, str]]]:
    """What is carried, by the output's band number (0: the dataset) and namespace."""
    for number, band in enumerate([0, *bands]):
        for namespace in [None, *_plain(source.tag_namespaces(band))]:
            tags = _fresh(source.tags(band, ns=namespace) if namespace else source.tags(band))
            if tags:
                yield number, namespace, tags


def not_carried(source: RasterSource, outputs: Outputs) -> list[str]:
    """What a copy does not keep of its source, in words; of other operations' results it would not be true."""
    bits = {source.dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") for band in source.bands} - {None}
    if not bits or not outputs.keeps_colours:
        return []
    name = Path(source.path).name
    return [
        f"{name}: its pixels have {', '.join(sorted(bits))} bits, the output's {8 * outputs.dtype.itemsize}: NBITS is not kept"
    ]


def carried_bytes(source: Any, bands: Sequence[int]) -> int:
    """Size of the tags that `carry` would write, bytes."""
    return sum(len(text.encode()) for _, _, tags in _tags(source, bands) for each in tags.items() for text in each)


def _plain(namespaces: Sequence[str]) -> list[str]:
    return [name for name in namespaces if name and name not in _OWN_NAMESPACES and ":" not in name]


def _fresh(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(_STALE_TAGS)}


def _carry_colours(source: Any, output: Any, bands: Sequence[int], outputs: Outputs) -> None:
    wanted = [source.colorinterp[band - 1] for band in bands]
    if (
        outputs.keeps_colours and len(bands) == 1 and wanted[0] == ColorInterp.palette
    ):  # a TIFF holds one table, of one band
        output.write_colormap(1, source.colormap(bands[0]))
    else:  # indexes into a colour table are plain values once they are transformed
        wanted = [ColorInterp.gray if each == ColorInterp.palette else each for each in wanted]
    if tuple(wanted) != tuple(output.colorinterp):
        output.colorinterp = wanted


def _carry_scales(source: Any, output: Any, bands: Sequence[int], outputs: Outputs) -> None:
    scales, offsets, units = [], [], []
    for band in bands:
        line = Linear() if source.colorinterp[band - 1] == ColorInterp.alpha else outputs.line
        scale, offset = source.scales[band - 1], source.offsets[band - 1]
        scaled = (scale, offset) != (1.0, 0.0)
        kept = line is not None and (scaled or line == Linear())
        units.append(source.units[band - 1] if kept else None)
        scales.append(scale / line.factor if line and scaled else 1.0)
        offsets.append(offset - line.shift * scale / line.factor if line and scaled else 0.0)
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
