"""W1 by GDAL 3.13's own C++ (`gdal raster scale`, which clips): `python gdal_scale.py SOURCE DESTINATION lzw|zstd`."""

import sys

from osgeo import gdal


def main(source, destination, codec):
    """Normalise `source`."""
    gdal.UseExceptions()
    options = ["TILED=YES", "BLOCKXSIZE=512", "BLOCKYSIZE=512", f"COMPRESS={codec}", "PREDICTOR=2", "NUM_THREADS=2"]
    if codec == "zstd":
        options.append("ZSTD_LEVEL=1")
    gdal.Run(
        "raster", "scale", input=source, output=destination, output_data_type="Float32", creation_option=options,
        input_min=0, input_max=10_000, output_min=0, output_max=1,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
