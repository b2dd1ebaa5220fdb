"""GDAL 3.13's own programs, by its Python bindings: `python gdal_programs.py SOURCE DESTINATION lzw|zstd JOB`.

They have all cores: for reading and writing tiles by GDAL_NUM_THREADS, for encoding, overviews and warping by their options.
"""

import sys

from osgeo import gdal

CORES = "ALL_CPUS"


def creation(codec):
    """Creation options of a GeoTIFF."""
    options = [
        "TILED=YES",
        "BLOCKXSIZE=512",
        "BLOCKYSIZE=512",
        f"COMPRESS={codec}",
        "PREDICTOR=2",
        f"NUM_THREADS={CORES}",
    ]
    return options + (["ZSTD_LEVEL=1"] if codec == "zstd" else [])


def cog(codec):
    """Creation options of a COG."""
    level = ["LEVEL=1"] if codec == "zstd" else []
    more = ["PREDICTOR=STANDARD", "OVERVIEW_RESAMPLING=AVERAGE", "STATISTICS=NO", f"NUM_THREADS={CORES}"]
    return [f"COMPRESS={codec}", "BLOCKSIZE=512", *more, *level]


def scale(source, destination, **more):
    """Normalise, clipped; nodata stays 0, which a valid pixel is not."""
    gdal.Run(
        "raster", "scale", input=source, output=destination, output_data_type="Float32",
        input_min=0, input_max=10_000, output_min=0, output_max=1, **more,
    )  # fmt: skip


JOBS = {
    "scale": lambda source, out, codec: scale(source, out, creation_option=creation(codec)),
    "cog": lambda source, out, codec: gdal.Translate(out, source, format="COG", creationOptions=cog(codec)),
    "cog-scale": lambda source, out, codec: scale(source, out, output_format="COG", creation_option=cog(codec)),
    "warp": lambda source, out, codec: gdal.Warp(
        out, source, dstSRS="EPSG:3857", resampleAlg="bilinear", multithread=True, warpMemoryLimit=256 << 20,
        warpOptions=[f"NUM_THREADS={CORES}"], creationOptions=creation(codec),
    ),
    "hillshade": lambda source, out, codec: gdal.DEMProcessing(
        out, source, "hillshade", creationOptions=creation(codec)
    ),
}  # fmt: skip


def main(source, destination, codec, job):
    """Do one of the jobs."""
    gdal.UseExceptions()
    gdal.SetConfigOption("GDAL_NUM_THREADS", CORES)
    JOBS[job](source, destination, codec)


if __name__ == "__main__":
    main(*sys.argv[1:])
