"""Checks of a raster output: structure, counts, the tile table, decoded blocks, windows recomputed (`recompute.py`).

Each records what it found on the bench; the shell ends the job where one has failed. Which are made when is in `verify.py`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from lib.diagnosis import FULL_HINT
from lib.errors import DataError, OutputError
from lib.jobs import RasterJob
from lib.memory.work import Bench
from lib.raster import gdal, overview_checks, windows
from lib.raster.block import Buffer
from lib.raster.carried import chunk_of
from lib.raster.operations import Operation
from lib.raster.recompute import differences
from lib.raster.sources.dataset import RasterSource
from lib.units import format_bytes

_DECODE_PIXELS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """What is verified.

    Attributes:
        output: the open output.
        source: what it was made of, open, with the bands that the work selected.
        job: the work; None where unknown: structure alone is checked then.
        operation: the work's, for its plain path; None where there is none to compute again.
        expected: what a plan said that the output would be.
        result: the work's result, for its counts; None where unknown.
    """

    output: RasterSource
    source: RasterSource
    job: RasterJob | None
    operation: Operation | None
    expected: dict[str, Any]
    result: dict[str, Any] | None

    @property
    def chunk(self) -> tuple[int, int, int] | None:
        """Height, width and bands of the chunks that the job read, by its plan or its output's own words."""
        if "window" in self.expected and "bands_at_once" in self.expected:
            height, width = self.expected["window"]
            return height, width, self.expected["bands_at_once"]
        return chunk_of(self.output.dataset)


def decode_window(block: tuple[int, int]) -> tuple[int, int]:
    """`(height, width)` of what is decoded at a time: whole blocks, about a million pixels."""
    wide = max(1, _DECODE_PIXELS // (block[0] * block[1]))
    return block[0], block[1] * wide


def decode_count(output: RasterSource) -> int:
    """How many such windows an output has, all bands."""
    return windows.count(output.grid.shape, decode_window(output.block)) * len(output.bands)


def structure(subject: Subject, bench: Bench) -> None:
    """Every expected property that the output can be asked for."""
    output, expected = subject.output, subject.expected
    block = output.block
    found = {
        "driver": output.dataset.driver,
        "height": output.grid.shape[0],
        "width": output.grid.shape[1],
        "count": len(output.bands),
        "dtype": output.dtype.name,
        "block_size": block[0] if block[0] == block[1] else list(block),
        "compress": output.compression.lower() or "none",
        "mask": output.validity.has_mask_band,
    }
    wrong = [
        f"{name} is {found[name]}, not {expected[name]}"
        for name in found
        if name in expected and found[name] != expected[name]
    ]
    nodata = gdal.nodatavals(output.dataset)[0]
    if "nodata" in expected and not _same_number(nodata, expected["nodata"]):
        wrong.append(f"nodata is {nodata}, not {expected['nodata']}")
    wrong += _grid_differs(output.grid.describe(), expected)
    detail = "; ".join(wrong) or f"{found['width']} x {found['height']}, {found['count']} bands of {found['dtype']}"
    bench.check("structure", not wrong, detail)


def _same_number(found: float | None, expected: float | str | None) -> bool:
    if found is None or expected is None:
        return found is None and expected is None
    return math.isnan(found) if expected == "nan" else found == expected


def _grid_differs(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    wrong = []
    if "crs" in expected and not _same_crs(found["crs"], expected["crs"]):
        wrong.append(f"the CRS is {_crs_name(found['crs'])}, not {_crs_name(expected['crs'])}")
    if expected.get("transform"):
        same = found["transform"] and np.allclose(found["transform"], expected["transform"], rtol=1e-9, atol=1e-12)
        if not same:
            wrong.append(f"the transform is {found['transform']}, not {expected['transform']}")
    if found["gcps"] != expected.get("gcps", found["gcps"]):
        wrong.append(f"{found['gcps']} ground control points, not {expected['gcps']}")
    return wrong


def _same_crs(found: str | None, expected: str | None) -> bool:
    if not found or not expected:
        return not expected
    try:
        # A GeoTIFF stores keys, not WKT: axis order and names of axes may come back otherwise.
        return bool(CRS.from_wkt(found) == CRS.from_wkt(expected)) or _crs_name(found) == _crs_name(expected)
    except CRSError:
        return found == expected


def _crs_name(wkt: str | None) -> str:
    return wkt.split('"')[1] if wkt and '"' in wkt else "none"


def counts(subject: Subject, bench: Bench) -> None:
    """Pixels done against pixels expected."""
    result, expected = subject.result, subject.expected
    if not result or "valid_pixels" not in result or "count" not in expected:
        return
    pixels = expected["height"] * expected["width"] * expected["count"]
    done = result["valid_pixels"] + result["nodata_pixels"]
    bench.check("pixel count", done == pixels, f"{done} pixels written of {pixels}")


def tile_table(subject: Subject, bench: Bench) -> None:
    """Every block must lie inside the file.

    Raises:
        OutputError: blocks are missing or cut off.
    """
    output, path = subject.output.dataset, subject.output.path
    if output.driver != "GTiff":
        return
    size = Path(path).stat().st_size
    bands = 1 if subject.output.pixel_interleaved else output.count
    levels = [None, *range(len(output.overviews(1)) if "overviews" in subject.expected else 0)]
    extents = [overview_checks.extent(output, bands, level) for level in levels]
    blocks, missing, end = sum(each.blocks for each in extents), sum(each.missing for each in extents), extents[0].end
    known = subject.result or {}
    holes = known.get("holes", missing if "holes" in subject.expected else 0)
    passed = missing == holes and max(each.end for each in extents) <= size
    said = f"{missing} missing" if holes != missing or not holes else f"{holes} holes"
    detail = f"{blocks} blocks, {said}, the last ends at byte {end} of {size}"
    if not bench.check("tile table", passed, detail).passed:
        raise OutputError(
            f"the disk or a file-size limit cut the output: {detail} ({format_bytes(size)})",
            hint=FULL_HINT,
            check="tile table",
            path=path,
        )
    if "overviews" in subject.expected:
        overview_checks.structure(output, subject.expected, extents, bench)


def decodes(subject: Subject, bench: Bench) -> int:
    """Decode every block, in flat memory; how many pixels are nodata."""
    output = subject.output
    shape, step = output.grid.shape, decode_window(output.block)
    buffer, [reader] = Buffer(min(step[0], shape[0]) * min(step[1], shape[1]), output.dtype), output.readers(1)
    nodata = 0
    for window in windows.windows(shape, step):
        for band in output.bands:
            try:
                block = reader.read(window, (band,), 0, buffer.block(window, (band,)))
            except DataError as error:
                bench.check("decodes", passed=False, detail=error.message)
                return nodata
            nodata += 0 if block.all_valid else window.pixels - int(np.count_nonzero(block.valid))
            bench.meter.chunk()
    bench.check("decodes", passed=True, detail=f"{shape[1]} x {shape[0]} pixels of {len(output.bands)} bands")
    if subject.result and "nodata_pixels" in subject.result:
        said = subject.result["nodata_pixels"]
        bench.check("nodata pixels", nodata == said, f"{nodata} decoded, {said} written")
    return nodata


def recomputed(subject: Subject, bench: Bench, edge: int, most: int) -> int:
    """Hold sampled windows against the source recomputed; how many windows there were."""
    if subject.job is None or "bands" not in subject.expected:
        return 0
    places, wrong = differences(subject.output, subject.source, subject.operation, subject.chunk, edge, most)
    if "overviews" in subject.expected:
        overview_checks.recomputed(subject.output.dataset, subject.expected, bench)
    bench.check("recomputed windows", not wrong, wrong or f"{len(places)} windows of up to {edge} x {edge} pixels")
    return len(places)
