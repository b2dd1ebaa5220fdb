"""W1 by gdal_calc of GDAL 3.13, with the settings that were fastest for it: `python gdal_calc.py SOURCE DESTINATION lzw|zstd`."""

import sys

from osgeo import gdal
from osgeo_utils.gdal_calc import Calc


def main(source, destination, codec):
    """Normalise `source`."""
    gdal.UseExceptions()
    options = ["TILED=YES", "BLOCKXSIZE=512", "BLOCKYSIZE=512", f"COMPRESS={codec}", "PREDICTOR=2", "NUM_THREADS=2"]
    if codec == "zstd":
        options.append("ZSTD_LEVEL=1")
    Calc(
        calc="clip(divide(A, float32(10000), dtype=float32), float32(0), float32(1))",
        A=source, outfile=destination, type="Float32", hideNoData=True, creation_options=options, quiet=True,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
