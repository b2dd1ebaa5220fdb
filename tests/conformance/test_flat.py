"""Flat memory, whatever the size: mosaics of 16 and 64 times a raster's pixels peak within a tenth of the raster itself."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from lib.jobs import RasterJob, Resources
from lib.run import run_published
from lib.units import MIB

EDGE = 2560


def _tile(path: Path) -> Path:
    rows, columns = np.mgrid[0:EDGE, 0:EDGE]
    pixels = (4000 + 3000 * np.sin(rows / 300) + 2000 * np.cos(columns / 250)).astype("uint16")
    with rasterio.open(
        path, "w", driver="GTiff", width=EDGE, height=EDGE, count=1, dtype="uint16", nodata=0, crs="EPSG:32633", tiled=True,
        blockxsize=512, blockysize=512, compress="lzw", transform=from_origin(500000, 5000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(pixels[None])
    return path


def _mosaic(tile: Path, times: int) -> Path:
    """A VRT of `times` x `times` copies of a tile."""
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{tile.name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{EDGE}" ySize="{EDGE}"/>'
        f'<DstRect xOff="{column * EDGE}" yOff="{row * EDGE}" xSize="{EDGE}" ySize="{EDGE}"/></SimpleSource>'
        for row in range(times)
        for column in range(times)
    )
    path = tile.with_name(f"mosaic{times * times}.vrt")
    path.write_text(
        f'<VRTDataset rasterXSize="{EDGE * times}" rasterYSize="{EDGE * times}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="UInt16" band="1"><NoDataValue>0</NoDataValue>{sources}</VRTRasterBand></VRTDataset>'
    )
    return path


@pytest.mark.slow
def test_a_mosaic_of_64_times_the_pixels_peaks_within_a_tenth(tmp_path: Path) -> None:
    """2560², and mosaics of 16 and 64 times its pixels, under the same limit of 256 MiB."""
    tile = _tile(tmp_path / "tile.tif")
    peaks = []
    for source in (tile, _mosaic(tile, 4), _mosaic(tile, 8)):
        out = tmp_path / "out.tif"
        report = run_published(
            RasterJob(
                source=str(source), destination=str(out), overwrite=True,
                resources=Resources(limit_bytes=256 * MIB, threads_max=2),
            )
        )  # fmt: skip
        assert report.status == "completed", report.error
        with rasterio.open(source) as read, rasterio.open(out) as written:
            assert written.shape == read.shape
        peaks.append(report.memory.peak_bytes or 0)
    assert max(peaks) <= 1.1 * min(peaks), [round(peak / MIB, 1) for peak in peaks]
