"""What a vector job's peak is made of: bytes by name, for one batch size. Pure; the numbers in it were measured.

What grows is bounded by configuration and counted: a batch's bytes (exactly, from the Shapefile's or FlatGeobuf's own
index; by OGR's limit in a GeoPackage), the GeoPackage's R-tree while it is built, FlatGeobuf's index and buffer. The
indexes must be planned for all features, because how many are kept is not known beforehand. The constants were measured
in fresh children (pyogrio 0.13.0 with GDAL 3.12.4, pyarrow 26, x86-64).
"""

from lib.units import KIB, MIB
from lib.vector.facts import LayerFacts

__all__ = [
    "AREA_FACTOR",
    "BATCH_FACTOR",
    "COLUMN_BYTES",
    "MEASURED_DRIVERS",
    "RTREE_LEAST_BYTES",
    "UNKNOWN_MEAN_BYTES",
    "batch_bytes_of",
    "rtree_bytes",
    "terms",
]

# A column's descriptions in OGR, Arrow and pyogrio, for each layer that is open: from layer to layer 2.9 to 3.2 KiB a column were
# measured in tables of one row and 1,500 to 5,000 columns.
COLUMN_BYTES = 3 * KIB // 2
# Pages of GDAL, SQLite, PROJ and Arrow that the first batch touches, and their caches (2 MiB a SQLite connection). They hold for
# libraries that are in the page cache as small folios (10 MiB of file-backed pages are mapped after the imports, GPKG to GPKG);
# just after an install, when the kernel maps more of them along with the imports, it is 3.
_SOURCE_BYTES = {
    "GPKG": 7 * MIB,
    "FlatGeobuf": 4 * MIB,
    "SQLite": 6 * MIB,
    "ESRI Shapefile": 5 * MIB,
    "GeoJSON": 4 * MIB,
    "GeoJSONSeq": 3 * MIB,
    "CSV": 5 * MIB,
}
# A Shapefile's places and lengths (GDAL's shpopen.c): 8 bytes a feature, and its index as it is in the file when it is opened: 16
# of 1 and 4 million features.
_SHAPEFILE_PLACE_BYTES = 8
# A GeoJSON's ids of the features that were read, so that none comes twice: 46 to 52 of 1.1 million.
_GEOJSON_ID_BYTES = 52
MEASURED_DRIVERS = frozenset(_SOURCE_BYTES)
_OTHER_SOURCE_BYTES = 12 * MIB
# Other drivers may hold the whole source. GeoJSON does not: 72 MB of it, 200,000 features, took 34 MiB in all.
_HELD_SOURCE_FACTOR, _HELD_SOURCE_MOST_BYTES = 2, 200 * MIB
# These hold all of it as objects, whatever its size: ESRIJSON of 14 and 42 MB took 20.7 and 19.8 times that, KML of 28 and 103 MB
# 8.5 and 6.3 times.
_WHOLE_SOURCE_FACTOR = {"ESRIJSON": 22, "TopoJSON": 22, "KML": 9, "LIBKML": 9}
_SINK_BYTES = {"GPKG": 15 * MIB // 2, "FlatGeobuf": 2 * MIB, "": 0}
_INTERPRETER_BYTES = 5 * MIB
# Area: temporaries of 32768 vertices at a time, and offsets, types, rings and sums of each row.
_AREA_BLOCK_BYTES = 4 * MIB
AREA_FACTOR = (
    8  # 128 bytes of temporaries a vertex (96 measured in degrees, 112 where projected), of which a batch has 16
)
_AREA_ROW_BYTES = 220
# Arrow's buffers grow by doubling; the sink holds its own copy of a geometry while it writes it.
BATCH_FACTOR = 1.5
_KEPT_FACTOR = 1.2
_PROMOTED_FACTOR = 2.4
# Of the largest geometry, beside its places in the two batches: OGR's feature, the sink's blob (SQLite) or buffers
# (FlatGeobuf's builder grows by doubling), what the source's driver holds; in one run of six half of it more was measured, a
# coordinate of each vertex, and both sinks leave room for that. The area's arbiter holds three while none of the
# sink's are there.
_SOURCE_LARGEST_FACTOR = {
    "GPKG": 0.0,
    "SQLite": 1.5,
    "ESRI Shapefile": 1.75,
    # A vertex of 24 bytes is JSON objects of 570, whatever its digits.
    "GeoJSON": 21.0,
    "GeoJSONSeq": 21.0,
    # The line, the text of 35 bytes a vertex, and what is parsed of it.
    "CSV": 5.25,
}
_OTHER_SOURCE_LARGEST_FACTOR = 1.25
# After smaller ones in a batch its buffer doubles, and the driver keeps the one before it.
_NOT_ALONE_LARGEST_FACTOR = 2.0
_SINK_LARGEST_FACTOR = {"GPKG": 1.5, "FlatGeobuf": 2.75, "": 1.5}
# Of the largest attributes, beside their places in the two batches (2.7 times them). A text of 3 to 40 MB took up to 3.8 times
# its size from GPKG to GPKG, 4.1 from FlatGeobuf, 5.0 from SQLite, 5.1 to 5.7 from texts, and one more into FlatGeobuf; of one
# plan up to one time less, by what malloc had free.
_SOURCE_ATTRIBUTES_FACTOR = {"GPKG": 0.75, "FlatGeobuf": 1.0, "SQLite": 2.0, "GeoJSON": 2.9, "GeoJSONSeq": 2.25}
_OTHER_SOURCE_ATTRIBUTES_FACTOR = 2.5
_SINK_ATTRIBUTES_FACTOR = {"GPKG": 0.5, "FlatGeobuf": 1.5, "": 0.5}
# Where the source is large enough to have several such rows, one after the other: eight texts of 30 MB in a hundred rows took so
# much more, from one run to the next 0.8 to 1.8 times one from GPKG, 3.4 to 4.2 times from SQLite.
_SEVERAL_ATTRIBUTES_FACTOR = {"FlatGeobuf": 0.0, "SQLite": 4.5}
_OTHER_SEVERAL_ATTRIBUTES_FACTOR = 1.85
_MOST_LARGEST_UNKNOWN = 2 * MIB
# GPKG's R-tree, built in memory: bytes an entry; more memory than this makes it no faster.
_RTREE_ENTRY_BYTES = 36
_RTREE_MOST_BYTES = 48 * MIB
RTREE_LEAST_BYTES = 5 * MIB
# FlatGeobuf (GDAL's ogrflatgeobuflayer.cpp): an item for each feature while writing; at the end the tree's nodes, then a buffer
# of at most 100 MiB and a place for each feature in it. Measured with 1.0, 2.2 and 4.3 million features, all kept.
_FGB_ITEM_BYTES = 56
_FGB_NODE_BYTES, _FGB_KEPT_NODE_BYTES = 45, 40
_FGB_BUFFER_MOST_BYTES = 100 * MIB
_FGB_PLACE_BYTES = 32
_FGB_SMALLER = 0.75
# A feature's tables, beside what a Shapefile has of it: 52 with a point, 64 with a parcel, less the blanks of its attributes.
_FGB_ADDED_BYTES = 40
_FGB_EXACT_PLACE_BYTES = 24  # where sizes are exact
_MALLOC_MAPS_BYTES = 32 * MIB  # malloc maps what is larger by itself, and returns it (M_MMAP_THRESHOLD)
_LEAST_BATCH_BYTES = 256 * 1024
UNKNOWN_MEAN_BYTES = 1024


def terms(
    facts: LayerFacts,
    rows: int,
    rtree_share: float,
    *,
    sink: str,
    measures_area: bool,
    baseline_bytes: int,
    margin_bytes: int,
    batch_factor: float,
    area_factor: float,
    most_batches: int | None,
) -> dict[str, int]:
    """The projected peak by name, bytes; it is the sum of these. Arguments as `plan.fit` has them."""
    batch = batch_bytes_of(facts, rows)
    features = max(facts.count, 0)
    largest = facts.sizes.largest_bytes or min(_MOST_LARGEST_UNKNOWN, facts.source_bytes)
    made = {
        "baseline": baseline_bytes,
        "source driver": _source_driver_bytes(facts),
        "batch": int(batch * batch_factor),
        "largest geometry": int(largest * _largest_factor(facts, sink)),
        "largest attributes": int(facts.sizes.attributes_bytes * _attributes_factor(facts, sink)),
        "columns": len(facts.fields) * COLUMN_BYTES * (2 if sink else 1),
        "interpreter growth": _INTERPRETER_BYTES,
        "margin": margin_bytes,
    }
    if measures_area:
        at_once = facts.at_most(rows)
        geometries = min(batch, at_once * facts.sizes.largest_bytes) if facts.sizes.largest_bytes else batch
        made["coordinates"] = (
            min(_AREA_BLOCK_BYTES, 8 * facts.source_bytes, int(area_factor * geometries)) + at_once * _AREA_ROW_BYTES
        )
    if sink:
        made["kept batch"] = int(batch * (_PROMOTED_FACTOR if facts.driver == "ESRI Shapefile" else _KEPT_FACTOR))
        made["sink driver"] = _SINK_BYTES[sink]
    # Indexes are built when the last batch is gone, in the memory that it had.
    freed = made["batch"] + made.get("kept batch", 0) + made.get("coordinates", 0)
    later = freed + made.get("sink driver", 0)
    if index := _source_index_bytes(facts, min(features, (most_batches or features) * rows), later):
        made["source index"] = index
    if rtree := rtree_bytes(facts, sink, rtree_share):
        made["GPKG R-tree"] = max(0, rtree - freed)
    if sink == "FlatGeobuf":
        made["FlatGeobuf items"] = features * _FGB_ITEM_BYTES
        # Where a batch's bytes are not known they are a bound, twice the mean: half of them is sure to be free.
        free = freed - (0 if facts.sizes.runs else (made["batch"] + made["kept batch"]) // 2)
        made["FlatGeobuf index"] = max(0, _flatgeobuf_index_bytes(facts, features) - free)
    return made


def _source_driver_bytes(facts: LayerFacts) -> int:
    """What the driver takes for itself, and of the source where it holds that."""
    if (known := _SOURCE_BYTES.get(facts.driver)) is not None:
        return known
    if (factor := _WHOLE_SOURCE_FACTOR.get(facts.driver)) is not None:
        return _OTHER_SOURCE_BYTES + factor * facts.source_bytes
    return _OTHER_SOURCE_BYTES + min(_HELD_SOURCE_FACTOR * facts.source_bytes, _HELD_SOURCE_MOST_BYTES)


def _source_index_bytes(facts: LayerFacts, features_read: int, later_bytes: int) -> int:
    """What the source's driver holds of each feature; `later_bytes` come into what opening a Shapefile has freed."""
    if facts.driver == "GeoJSON":
        return features_read * _GEOJSON_ID_BYTES
    if facts.driver != "ESRI Shapefile":
        return 0
    places = max(facts.features, facts.count, 0) * _SHAPEFILE_PLACE_BYTES  # of records that are marked as deleted, too
    return places + max(0, places - later_bytes)


def _largest_factor(facts: LayerFacts, sink: str) -> float:
    of_source = _SOURCE_LARGEST_FACTOR.get(facts.driver, _OTHER_SOURCE_LARGEST_FACTOR)
    return of_source + _SINK_LARGEST_FACTOR[sink] + (_NOT_ALONE_LARGEST_FACTOR if facts.count != 1 else 0)


def _attributes_factor(facts: LayerFacts, sink: str) -> float:
    of_source = _SOURCE_ATTRIBUTES_FACTOR.get(facts.driver, _OTHER_SOURCE_ATTRIBUTES_FACTOR)
    several = 0.0
    # Of a view that computes them the file has none.
    if not facts.sizes.attributes_bytes <= facts.source_bytes < 2 * facts.sizes.attributes_bytes:
        several = _SEVERAL_ATTRIBUTES_FACTOR.get(facts.driver, _OTHER_SEVERAL_ATTRIBUTES_FACTOR)
    return of_source + several + _SINK_ATTRIBUTES_FACTOR[sink]


def _flatgeobuf_index_bytes(facts: LayerFacts, features: int) -> int:
    """What closing takes beside the items."""
    sizes, is_shapefile = facts.sizes, facts.driver == "ESRI Shapefile"
    if is_shapefile:
        written = (sizes.mean_bytes + _FGB_ADDED_BYTES) * features
    else:
        written = (
            sizes.total_bytes if facts.driver == "FlatGeobuf" else sizes.mean_bytes * features
        ) or facts.source_bytes
    buffer = min(_FGB_BUFFER_MOST_BYTES, written)
    if is_shapefile or facts.driver == "FlatGeobuf":
        smaller, place_bytes = sizes.total_bytes + features * _FGB_ADDED_BYTES * is_shapefile, _FGB_EXACT_PLACE_BYTES
    else:
        # The mean is of the source, its index included: more features go into the buffer than by it.
        smaller, place_bytes = int(_FGB_SMALLER * written), _FGB_PLACE_BYTES
    places = min(features, features * buffer // max(smaller, 1)) * place_bytes
    # A small tree comes from malloc's heap and most of it stays there when it is freed; behind a Shapefile it does not.
    tree = features * _FGB_NODE_BYTES
    kept_tree = features * _FGB_KEPT_NODE_BYTES if tree < _MALLOC_MAPS_BYTES and not is_shapefile else 0
    return max(tree, buffer + max(places, kept_tree))


def rtree_bytes(facts: LayerFacts, sink: str, share: float) -> int:
    """Memory for the GeoPackage's R-tree, of which a share of what is wanted is given; 0 where none is built."""
    if sink != "GPKG" or not facts.geometry_name:
        return 0
    wanted = min(max(facts.count, 0) * _RTREE_ENTRY_BYTES, _RTREE_MOST_BYTES)
    return max(min(wanted, RTREE_LEAST_BYTES), int(wanted * share))


def batch_bytes_of(facts: LayerFacts, rows: int) -> int:
    """Bytes of a batch of so many rows: exact where the format tells; else twice the mean, which OGR is told not to exceed.

    Never more than all features have.
    """
    for known_rows, known_bytes in facts.sizes.runs:
        if known_rows == rows:
            return known_bytes
    if facts.count == 0:
        return 0
    mean = facts.sizes.mean_bytes or UNKNOWN_MEAN_BYTES
    largest = facts.sizes.feature_bytes
    planned = max(2 * rows * mean, largest + _LEAST_BATCH_BYTES)
    return planned if facts.count < 0 else min(planned, max(facts.count * mean, largest))
