"""What `--where` says, in CQL2 text (OGC 21-065r2): read (`text`), checked against a layer (`bind`), and done in three ways.

`columns` evaluates it on an Arrow batch and decides; `sql` is what a GeoPackage's SQLite may be asked beforehand, never less than
what `columns` keeps; `rows` is the plain path, written apart. All three have SQL's three-valued logic.
"""
