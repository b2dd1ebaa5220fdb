"""Source format by what a raster can carry: each cell of the README's table is kept, dropped and said, or not there."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.raster import matrix
from tests.raster.conftest import Workshop


@pytest.mark.parametrize("kind", matrix.KINDS)
@pytest.mark.parametrize("column", matrix.COLUMNS)
def test_each_cell(shop: Workshop, column: str, kind: str) -> None:
    """What the table says of a thing is so; what a source does not have is a dash."""
    changed = column == matrix.CHANGED
    source = matrix.make(shop.folder, kind, "GTiff" if changed else column)
    cells = {name: matrix.TABLE[name][column] for name in matrix.KINDS[kind]}
    if source is None:
        assert set(cells.values()) == {matrix.NONE}
        return
    before = matrix.carried(source, kind)
    operation = {"name": "rescale", "multiply": 2} if changed else {"name": "copy"}
    _, outcome = shop.transform(source, operation=operation)
    output = shop.folder / "out.tif"
    after, alone = matrix.carried(output, kind), matrix.carried(_alone(output), kind)
    said = " ".join(outcome.warnings)
    for name, cell in cells.items():
        assert _is_so(name, cell, before[name], after[name], alone[name], said), (
            name,
            cell,
            before[name],
            after[name],
            said,
        )
    if matrix.AS_NAN in cells.values():
        _nodata_is_nan(source, output)


def _alone(output: Path) -> Path:
    """A copy of the output without what stands beside it."""
    (output.parent / "alone").mkdir()
    return Path(shutil.copy(output, output.parent / "alone" / output.name))


def _is_so(name: str, cell: str, before: Any, after: Any, alone: Any, said: str) -> bool:
    match cell:
        case matrix.NONE:
            return not before
        case matrix.KEPT:
            return bool(before) and before == after == alone
        case matrix.BESIDE:
            return bool(before) and before == after != alone and "out.tif.aux.xml beside out.tif holds" in said
        case matrix.ADJUSTED:
            (scales, offsets), (scale, offset) = after, before
            return scales == tuple(each / 2 for each in scale) and offsets == offset
        case matrix.SAID:
            return bool(before) and not after and name in said
    return cell == matrix.AS_NAN and bool(before)


def _nodata_is_nan(source: Path, output: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(source) as before, rasterio.open(output) as after:
            np.testing.assert_array_equal(np.isnan(after.read(1)), before.read_masks(1) == 0)
            np.testing.assert_array_equal(after.read_masks(1), before.read_masks(1))
