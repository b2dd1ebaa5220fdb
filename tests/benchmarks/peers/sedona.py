"""A filter by area in SedonaDB: `python sedona.py SOURCE DESTINATION LEAST geographic|projected`.

Its own `to_pyogrio` takes seconds more on two cores, waiting for one thread after another; a table written by pyogrio does not.
"""

import sys

import pyogrio
import sedonadb


def main(source, destination, least, crs):
    """Keep what has `least` square metres in an equal-area projection."""
    session = sedonadb.connect()
    layer = session.read_parquet(source) if source.endswith(".parquet") else session.read_pyogrio(source)
    layer.to_view("parcels")
    shape = next(name for name in ("wkb_geometry", "geom", "geometry") if name in layer.columns)
    area = f"ST_Area(ST_Transform({shape}, 'EPSG:6933'))" if crs == "geographic" else f"ST_Area({shape})"
    kept = session.sql(f"SELECT * FROM parcels WHERE {area} >= {least}")  # noqa: S608
    if destination.endswith(".parquet"):
        kept.to_parquet(destination)
        return
    crs = "EPSG:4326" if crs == "geographic" else "EPSG:3035"
    table = kept.to_arrow_table()
    pyogrio.write_arrow(table, destination, driver="GPKG", geometry_name=shape, geometry_type="Polygon", crs=crs)


if __name__ == "__main__":
    main(*sys.argv[1:])
