"""gdal_calc of GDAL 3.13, as was fastest for it: `python gdal_calc.py SOURCE DESTINATION lzw|zstd normalise|ndvi`.

Its own nodata handling makes four arrays more a block, and no NaN: a `where` is quicker. It reads block by block.
"""

import sys

from gdal_programs import creation
from osgeo import gdal
from osgeo_utils.gdal_calc import Calc

JOBS = {
    "normalise": "clip(divide(A, float32(10000), dtype=float32), float32(0), float32(1))",
    "ndvi": "divide(subtract(B, A, dtype=float32), add(B, A, dtype=float32))",
}


def main(source, destination, codec, job):
    """Compute from the first band, or the first two."""
    gdal.UseExceptions()
    with gdal.Open(source) as dataset:
        nodata, bands = dataset.GetRasterBand(1).GetNoDataValue(), dataset.RasterCount
    inputs = {"A": source} | ({"B": source, "B_band": 2} if bands > 1 else {})
    calc = JOBS[job] if nodata is None else f"where(A == {nodata:g}, float32(nan), {JOBS[job]})"
    Calc(
        calc=calc, outfile=destination, type="Float32", hideNoData=True, NoDataValue=None if nodata is None else float("nan"),
        creation_options=creation(codec), quiet=True, **inputs,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
