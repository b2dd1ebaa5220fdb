"""A filter by area in DuckDB: `python duck.py SOURCE DESTINATION LEAST geographic`, into GeoParquet.

DuckDB takes geographic coordinates as latitude and longitude: they are turned round for the area, on the ellipsoid.
"""

import sys

import duckdb
import duckdb_ext


def main(source, destination, least, crs):
    """Keep what has `least` square metres on the ellipsoid."""
    assert crs == "geographic", crs
    session = duckdb.connect(config={"extension_directory": duckdb_ext.get_extension_dir()})
    session.load_extension("spatial")
    layer = f"'{source}'" if source.endswith(".parquet") else f"ST_Read('{source}')"
    [*_, (shape, *_)] = (each for each in session.sql(f"DESCRIBE FROM {layer}").fetchall() if each[1] == "GEOMETRY")
    kept = f"FROM {layer} WHERE ST_Area_Spheroid(ST_FlipCoordinates({shape})) >= {least}"
    session.sql(f"COPY ({kept}) TO '{destination}' (FORMAT parquet, COMPRESSION zstd)")


if __name__ == "__main__":
    main(*sys.argv[1:])
