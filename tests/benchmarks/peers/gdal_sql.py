"""A filter by area in GDAL 3.13, GeoPackage's own SQL: `python gdal_sql.py SOURCE DESTINATION LEAST geographic|projected`."""

import sys

from osgeo import gdal


def main(source, destination, least, crs):
    """Keep what has `least` square metres in an equal-area projection."""
    gdal.UseExceptions()
    with gdal.OpenEx(source) as dataset:
        layer = dataset.GetLayer(0)
        name, shape = layer.GetName(), layer.GetGeometryColumn()
    area = f'ST_Area(ST_Transform("{shape}", 6933))' if crs == "geographic" else f'ST_Area("{shape}")'
    kept = f'SELECT * FROM "{name}" WHERE {area} >= {least}'  # noqa: S608
    gdal.VectorTranslate(destination, source, format="GPKG", SQLStatement=kept, layerName=name)


if __name__ == "__main__":
    main(*sys.argv[1:])
