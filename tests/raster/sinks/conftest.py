"""Files written by our tiles, and by GDAL's own encoder."""

import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.dtypes import check_dtype
from rasterio.errors import NotGeoreferencedWarning

from lib.raster.formats import environment
from lib.raster.sinks import tiles
from lib.raster.sinks.encode import CODECS, PREDICTORS, Encoding, TileEncoder

LEVELS = {"deflate": 6, "zstd": 1}
_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_OTHERS = ("float16", "float32", "float64", "complex64", "complex128")
DTYPES = tuple(dtype for dtype in (*_INTEGERS, *_OTHERS) if check_dtype(dtype))  # float16 came with rasterio 1.5


def every_encoding(block: int) -> list[Encoding]:
    """All that can be written, for each codec, dtype and predictor."""
    found = []
    for compress, dtype, predictor in itertools.product(CODECS, DTYPES, PREDICTORS):
        try:
            found.append(Encoding(compress, np.dtype(dtype), block, predictor, LEVELS.get(compress)))
        except ValueError:
            continue
    return found


def pixels(shape: tuple[int, int, int], dtype: Any, seed: int = 0) -> np.ndarray:
    """Noise on a slope, `(bands, height, width)`: differences wrap around in small integers, floats have NaN and infinity."""
    draw = np.random.default_rng(seed)
    values = draw.normal(0, 60, shape).cumsum(axis=-1)
    if np.dtype(dtype).kind in "fc":
        values[draw.random(shape) < 0.01] = np.nan
        values[draw.random(shape) < 0.01] = -np.inf
        return values.astype(dtype)
    return values.astype(np.int64).astype(dtype)


@dataclass
class Press:
    """Writes files of a folder in both ways."""

    folder: Path
    profile: dict[str, Any] = field(default_factory=dict)

    def create(self, shape: tuple[int, int, int], encoding: Encoding, **choices: Any) -> tiles.Writer:
        """A writer of `ours.tif`, `(bands, height, width)`."""
        profile = self.profile | {"count": shape[0], "height": shape[1], "width": shape[2]}
        choices = {"describe": lambda dataset: dataset.update_tags(made="here")} | choices
        with environment():
            return tiles.create(self.folder / "ours.tif", profile=profile, encoding=encoding, **choices)

    def ours(
        self,
        values: np.ndarray,
        encoding: Encoding,
        mask: np.ndarray | None = None,
        sparse: Callable[[np.ndarray], bool] | None = None,
        **choices: Any,
    ) -> Path:
        """All tiles of `(bands, height, width)` in an order that is drawn, sparse where asked for."""
        encoder, block = TileEncoder(encoding), encoding.block
        bands, height, width = values.shape
        places = list(itertools.product(range(bands), range(-(-height // block)), range(-(-width // block))))
        random.Random(0).shuffle(places)
        with self.create(values.shape, encoding, mask=mask is not None, **choices) as writer:
            for band, row, column in places:
                part = slice(row * block, (row + 1) * block), slice(column * block, (column + 1) * block)
                tile = values[band][part]
                writer.append(band, row, column, None if sparse and sparse(tile) else encoder.encode(tile))
                if mask is not None and band == 0:
                    writer.append_mask(row, column, encoder.encode_mask(mask[part]))
        return self.folder / "ours.tif"

    def gdals(self, values: np.ndarray, encoding: Encoding, mask: np.ndarray | None = None, **options: Any) -> Path:
        """The same by GDAL's encoder."""
        path = self.folder / "gdals.tif"
        bands, height, width = values.shape
        whole = self.profile | {"count": bands, "height": height, "width": width, "dtype": values.dtype}
        with (
            environment(),
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", driver="GTiff", **whole, **encoding.options, **options) as dataset,
        ):
            dataset.update_tags(made="here")
            dataset.write(values)
            if mask is not None:
                dataset.write_mask(mask)
        return path


@pytest.fixture
def press(tmp_path: Path) -> Press:
    """A press in a folder of its own; whatever GDAL warns of while its files are read is an error."""
    return Press(tmp_path)


@pytest.fixture(autouse=True)
def _gdal_is_content(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """GDAL's warnings come as log records of rasterio."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
    said = [record.getMessage() for record in caplog.records if record.name.startswith("rasterio")]
    assert not said
