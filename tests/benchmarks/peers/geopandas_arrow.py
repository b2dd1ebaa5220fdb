"""A filter by area in geopandas with Arrow: `python geopandas_arrow.py SOURCE DESTINATION LEAST geographic|projected`."""

import sys

import geopandas


def main(source, destination, least, crs):
    """Keep what has `least` square metres in an equal-area projection."""
    frame = geopandas.read_file(source, use_arrow=True)
    shapes = frame.geometry.to_crs(6933) if crs == "geographic" else frame.geometry
    frame[shapes.area >= float(least)].to_file(destination, driver="GPKG", use_arrow=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
