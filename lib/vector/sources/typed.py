"""A GeoPackage's layer as its geometries are: it may declare polygons and have multipolygons, as ogr2ogr's often do.

For formats that hold in a layer what it declares alone; looked at beforehand, as one pass does not find out in time.
"""

from dataclasses import replace
from pathlib import Path

from lib.vector.sources import sqlite
from lib.vector.sources.facts import LayerFacts

_TYPES = {
    1: "Point", 2: "LineString", 3: "Polygon", 4: "MultiPoint", 5: "MultiLineString", 6: "MultiPolygon",
    7: "GeometryCollection",
    # What chords make of curves.
    8: "LineString", 9: "LineString", 10: "Polygon", 11: "MultiLineString", 12: "MultiPolygon",
}  # fmt: skip


def as_it_is(layer: LayerFacts, source: LayerFacts) -> LayerFacts:
    """The layer, multi where it has single and multi types, of no type where it has others; Z stays as it is declared.

    Args:
        layer: behind all steps.
        source: before them; what a step makes is as declared.
    """
    kind = source.geometry_type or "Unknown"
    is_changed = layer.geometry_type != source.geometry_type or layer.may_be_multi
    if source.driver != "GPKG" or source.geometry_name is None or is_changed or kind.startswith("Unknown"):
        return layer
    found = {
        _TYPES.get(code, "other") for code in sqlite.types_in(Path(source.source), source.layer, source.geometry_name)
    }
    single, _, z = kind.partition(" ")
    single = single.removeprefix("Multi")
    if found <= {kind.partition(" ")[0]}:
        return layer
    if found <= {single, f"Multi{single}"} and single in ("LineString", "Polygon"):
        return replace(layer, may_be_multi=not kind.startswith("Multi"))
    return layer if z else replace(layer, geometry_type="Unknown")
