"""Is the output what it must be? Structure, counts, the tile table, decoded blocks, windows recomputed by a plain path.

The plain path is in `recompute.py`; what a full verification takes, in `verify_plan.py`.
"""

import contextlib
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from lib.errors import DataError, OutputError, SourceError, VerificationFailed
from lib.jobs import RasterJob
from lib.memory.work import Bench
from lib.raster import windows
from lib.raster.decoders import compression_of
from lib.raster.faults import read
from lib.raster.formats import environment, open_source, returning_buffers
from lib.raster.recompute import BASIC_EDGE, SAMPLE_EDGE, alpha_band, differences, is_nodata
from lib.raster.verify_plan import decode_window, plan_full
from lib.units import format_bytes

__all__ = ["basic", "full", "grid", "plan_full"]

_BASIC_WINDOWS, _FULL_WINDOWS = 6, 25


def grid(source: Any) -> dict[str, Any]:
    """CRS, transform and ground control points of an open dataset, JSON-able: what an output shares with its source."""
    points, points_crs = source.gcps
    crs = points_crs if points else source.crs
    placed = not points and not source.transform.is_identity
    return {
        "crs": crs.to_wkt() if crs else None,
        "transform": list(source.transform)[:6] if placed else None,
        "gcps": len(points),
    }


def basic(
    output_path: str,
    source: str,
    job: RasterJob,
    expected: dict[str, Any],
    bench: Bench,
    *,
    result: dict[str, Any] | None = None,
) -> None:
    """Structure, counts, tile table; a few recomputed windows unless `job.verify` is "none".

    Raises:
        VerificationFailed: a check did not pass.
        OutputError: blocks are missing or cut off.
    """
    with environment(), returning_buffers(), _just_written(output_path, bench) as output:
        _structure(output, expected, bench)
        _counts(expected, result, bench)
        _tile_table(output, output_path, bench)
        if job.verify != "none":
            with open_source(source) as opened:
                _recompute(output, opened, job, expected, bench, BASIC_EDGE, _BASIC_WINDOWS)


def full(
    output_path: str,
    source: str,
    job: RasterJob | None,
    expected: dict[str, Any] | None,
    bench: Bench,
    *,
    result: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that `basic` checks, on more windows, and every block decoded; starts and finishes the meter.

    Args:
        output_path: what is verified.
        source: what it was made of.
        job: the work, None where unknown: structure alone is checked then.
        expected: a plan's `expected`; None: the source's grid.
        bench: takes the checks.
        result: the work's result, for its counts.

    Returns:
        The counts: width, height, bands, windows, nodata_pixels, windows_recomputed.

    Raises:
        VerificationFailed: a check did not pass.
        OutputError: blocks are missing or cut off.
    """
    with environment(), returning_buffers(), open_source(source) as opened, _open_output(output_path, bench) as output:
        expected = expected or {"height": opened.height, "width": opened.width, **grid(opened)}
        _structure(output, expected, bench)
        _counts(expected, result, bench)
        _tile_table(output, output_path, bench)
        found = _decode(output, output_path, bench)
        if result and "nodata_pixels" in result:
            alpha = alpha_band(opened)
            skip = [n for n, band in enumerate(expected.get("bands", []), 1) if band == alpha]
            counted = sum(n for band, n in found.items() if band not in skip)
            said = result["nodata_pixels"]
            _hold(bench, "nodata pixels", counted == said, f"{counted} decoded, {said} written")
        recomputed = 0
        if job is not None and "bands" in expected:
            recomputed = _recompute(output, opened, job, expected, bench, SAMPLE_EDGE, _FULL_WINDOWS)
        shape = {"width": output.width, "height": output.height, "bands": output.count}
    bench.meter.finish()
    return shape | {"nodata_pixels": sum(found.values()), "windows_recomputed": recomputed}


def _hold(bench: Bench, name: str, passed: bool, detail: str) -> None:
    if not bench.check(name, passed, detail).passed:
        _fail(name, detail)


def _fail(name: str, detail: str) -> NoReturn:
    raise VerificationFailed(f"the output failed the check {name!r}: {detail}", check=name)


@contextlib.contextmanager
def _just_written(path: str, bench: Bench) -> Iterator[Any]:
    """Open what this process has written: where that fails, its directory did not reach the disk."""
    with contextlib.ExitStack() as stack:
        try:
            output = stack.enter_context(_open_output(path, bench))
        except VerificationFailed as error:
            raise OutputError(
                f"the disk or a file-size limit cut the output: {error.message}", check="opens", path=path
            ) from error
        yield output


@contextlib.contextmanager
def _open_output(path: str, bench: Bench) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        try:
            output = stack.enter_context(open_source(path))
        except SourceError as error:
            bench.check("opens", False, error.message)
            raise VerificationFailed(f"the output failed the check 'opens': {error.message}", check="opens") from error
        yield output


def _structure(output: Any, expected: dict[str, Any], bench: Bench) -> None:
    """Every expected property that the output can be asked for."""
    block = output.block_shapes[0]
    found = {
        "driver": output.driver,
        "height": output.height,
        "width": output.width,
        "count": output.count,
        "dtype": output.dtypes[0],
        "block_size": block[0] if block[0] == block[1] else list(block),
        "compress": compression_of(output).lower() or "none",
    }
    wrong = [
        f"{name} is {found[name]}, not {expected[name]}"
        for name in found
        if name in expected and found[name] != expected[name]
    ]
    if "nodata" in expected and not _same_number(output.nodata, expected["nodata"]):
        wrong.append(f"nodata is {output.nodata}, not {expected['nodata']}")
    wrong += _grid_differs(grid(output), expected)
    detail = "; ".join(wrong) or f"{output.width} x {output.height}, {output.count} bands of {output.dtypes[0]}"
    _hold(bench, "structure", not wrong, detail)


def _same_number(found: float | None, expected: float | str | None) -> bool:
    if found is None or expected is None:
        return found is None and expected is None
    return found == float(expected) or (math.isnan(found) and math.isnan(float(expected)))


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


def _counts(expected: dict[str, Any], result: dict[str, Any] | None, bench: Bench) -> None:
    if not result or "valid_pixels" not in result or "count" not in expected:
        return
    pixels = expected["height"] * expected["width"] * expected["count"]
    done = result["valid_pixels"] + result["nodata_pixels"]
    _hold(bench, "pixel count", done == pixels, f"{done} pixels written of {pixels}")


def _tile_table(output: Any, path: str, bench: Bench) -> None:
    """Every block must lie inside the file: with encoder threads a full disk raises nothing (FACTS)."""
    if output.driver != "GTiff":
        return
    size = Path(path).stat().st_size
    height, width = output.block_shapes[0]
    missing = blocks = end = 0
    planes = 1 if output.interleaving and output.interleaving.value == "PIXEL" else output.count
    for band in range(1, planes + 1):
        for y in range(windows.steps(output.height, height)):
            for x in range(windows.steps(output.width, width)):
                offset = output.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band)
                length = output.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band)
                blocks += 1
                missing += not (offset and length)
                end = max(end, int(offset or 0) + int(length or 0))
    passed = not missing and end <= size
    detail = f"{blocks} blocks, {missing} missing, the last ends at byte {end} of {size}"
    if not bench.check("tile table", passed, detail).passed:
        raise OutputError(
            f"the disk or a file-size limit cut the output: {detail} ({format_bytes(size)})",
            check="tile table",
            path=path,
        )


def _decode(output: Any, path: str, bench: Bench) -> dict[int, int]:
    """Decode every block, in flat memory; nodata pixels by band."""
    shape, step = (output.height, output.width), decode_window(output.block_shapes[0])
    pixels = min(step[0], shape[0]) * min(step[1], shape[1])
    buffer, invalid = np.zeros(pixels, output.dtypes[0]), np.zeros(pixels, np.bool_)
    counted = dict.fromkeys(output.indexes, 0)
    bench.meter.start(windows.count(shape, step) * output.count)
    for window in windows.windows(shape, step):
        values = buffer[: window.pixels]
        out = values.reshape(window.height, window.width)
        for band in output.indexes:
            try:
                read(partial(output.read, band, out=out, window=window.ranges), path, window)
            except DataError as error:
                bench.check("decodes", False, error.message)
                raise VerificationFailed(
                    f"the output failed the check 'decodes': {error.message}", check="decodes"
                ) from error
            counted[band] += int(np.count_nonzero(is_nodata(values, output.nodata, out=invalid[: window.pixels])))
            bench.meter.chunk()
    _hold(bench, "decodes", True, f"{shape[1]} x {shape[0]} pixels of {output.count} bands")
    return counted


def _recompute(
    output: Any, source: Any, job: RasterJob, expected: dict[str, Any], bench: Bench, edge: int, most: int
) -> int:
    """Hold sampled windows against the source recomputed; how many windows there were."""
    places, wrong = differences(output, source, job, expected["bands"], edge, most)
    _hold(bench, "recomputed windows", not wrong, wrong or f"{len(places)} windows of up to {edge} x {edge} pixels")
    return len(places)
