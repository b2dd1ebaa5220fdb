"""The plan of a vector job: a pure function of the layer's facts, the job's choices and the memory left.

What grows is bounded by configuration and counted: a batch's bytes (exactly, from the Shapefile's or FlatGeobuf's own
index; by OGR's limit in a GeoPackage), the GeoPackage's R-tree while it is built, FlatGeobuf's index and buffer. The
indexes must be planned for all features, because how many are kept is not known beforehand. The constants were measured
in fresh children (pyogrio 0.13.0 with GDAL 3.12.4, pyarrow 26, x86-64).
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from lib.errors import DiskRefused, MemoryRefused
from lib.memory.work import BASELINE_SPREAD_BYTES
from lib.units import MIB, format_bytes, mib
from lib.vector.facts import LayerFacts

__all__ = [
    "MEASURED_DRIVERS",
    "RTREE_LEAST_BYTES",
    "VectorPlan",
    "batch_bytes_of",
    "check_disk",
    "disk_bytes",
    "fit",
    "lower_by",
]

# Pages of GDAL, SQLite, PROJ and Arrow that the first batch touches, and their caches (2 MiB a SQLite connection).
_SOURCE_BYTES = {
    "GPKG": 7 * MIB,
    "FlatGeobuf": 4 * MIB,
    "SQLite": 6 * MIB,
    "ESRI Shapefile": 5 * MIB,
    "GeoJSON": 5 * MIB,
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
_HELD_SOURCE_MOST_BYTES = 200 * MIB
_SINK_BYTES = {"GPKG": 9 * MIB, "FlatGeobuf": 2 * MIB, "": 0}
_INTERPRETER_BYTES = 5 * MIB
# Area: temporaries of 32768 vertices at a time, and offsets, types, rings and sums of each row.
_AREA_BLOCK_BYTES = 4 * MIB
_AREA_FACTOR = (
    8  # 128 bytes of temporaries a vertex (96 measured in degrees, 112 where projected), of which a batch has 16
)
_AREA_ROW_BYTES = 220
# Arrow's buffers grow by doubling; the sink holds its own copy of a geometry while it writes it.
_BATCH_FACTOR = 1.5
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
# Rows enough to have this much in a batch, by their mean, make it as fast as more do (30,000 rows of 14 kB took 7.0 s in
# batches of 8 MiB and 8.1 s in batches of 133 MiB). Not by the largest batch: a few huge geometries would make all small.
_ENOUGH_BATCH_BYTES = 16 * MIB
_UNKNOWN_MEAN_BYTES = 1024
_MOST_OF_IT = 0.9
# Formats that pack coordinates: 31 MiB of file geodatabase became 94 MiB of GeoPackage.
_PACKED = {"OpenFileGDB": 4}


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """What was chosen.

    Attributes:
        rows: rows of a batch, at most.
        batch_bytes: bytes of a batch, at most, as far as is known.
        rtree_bytes: memory for the GeoPackage's R-tree.
        terms: bytes by name; their sum is the projection.
        smallest_bytes: the least that any plan for this layer projects.
    """

    rows: int
    batch_bytes: int
    rtree_bytes: int
    terms: dict[str, int]
    smallest_bytes: int = 0

    @property
    def projected_bytes(self) -> int:
        """The projected peak."""
        return sum(self.terms.values())


def fit(
    facts: LayerFacts,
    *,
    sink: str,
    measures_area: bool,
    baseline_bytes: int,
    budget_bytes: int,
    most_rows: int,
    most_batch_bytes: int | None = None,
    rows_fixed: bool = False,
    margin_bytes: int = 0,
    batch_factor: float = _BATCH_FACTOR,
    area_factor: float = _AREA_FACTOR,
    extra: dict[str, int] | None = None,
    most_batches: int | None = None,
) -> VectorPlan:
    """The fastest plan within the budget: the most rows that make it faster, then the largest R-tree.

    Args:
        facts: of the layer.
        sink: the output's driver; empty where nothing is written.
        measures_area: whether areas are asked for.
        baseline_bytes: resident size now.
        budget_bytes: what the projection must not exceed.
        most_rows: upper bound of a batch's rows.
        most_batch_bytes: upper bound of a batch's bytes, where one is set.
        rows_fixed: whether `most_rows` was asked for, so that fewer will not do.
        margin_bytes: the host's own margin.
        batch_factor: resident bytes for each byte of a batch as it is read.
        area_factor: temporaries of areas for each byte of a batch, up to a block of vertices.
        extra: further terms, bytes by name, the same for every plan.
        most_batches: batches that are read, where not all are.

    Raises:
        MemoryRefused: with the smallest budget that would do.
    """

    def project(rows: int, rtree_share: float) -> VectorPlan:
        plan = _project(
            facts,
            rows,
            rtree_share,
            sink,
            measures_area,
            baseline_bytes,
            margin_bytes,
            batch_factor,
            area_factor,
            most_batches,
        )
        return replace(plan, terms=plan.terms | (extra or {}))

    candidates = [most_rows] if rows_fixed else _rows_worth_trying(facts, most_rows)
    if most_batch_bytes is not None:
        within = [rows for rows in candidates if batch_bytes_of(facts, rows) <= most_batch_bytes]
        if not within:
            fixed = f" of chunk_rows {most_rows} rows" if rows_fixed else ""
            smallest_batch = batch_bytes_of(facts, candidates[-1])
            raise MemoryRefused(
                f"{facts.label}: max_chunk_mb allows {format_bytes(most_batch_bytes)} for a batch{fixed}, the smallest takes "
                f"{format_bytes(smallest_batch)}",
                hint=f"set max_chunk_mb to {mib(smallest_batch)} or more",
                smallest_chunk_bytes=smallest_batch,
            )
        candidates = within
    # Not always the fewest rows: a FlatGeobuf's index comes into the memory that the batches had.
    smallest = min(project(rows, 0.0).projected_bytes for rows in candidates) + BASELINE_SPREAD_BYTES
    for rows in candidates:
        for share in (1.0, 0.75, 0.5, 0.25, 0.0):
            plan = project(rows, share)
            if plan.projected_bytes <= budget_bytes:
                return replace(plan, smallest_bytes=smallest)
    raise MemoryRefused(
        f"{facts.label}: {format_bytes(budget_bytes)} is not enough to stream it: "
        f"{format_bytes(smallest)} is the least",
        hint=f"raise the memory limit to {mib(smallest)} MiB",
        smallest_limit_bytes=smallest,
    )


def _rows_worth_trying(facts: LayerFacts, most_rows: int) -> list[int]:
    """The most rows, half of them and so on down to one; without those that make batches larger than is any faster."""
    halves = [max(1, most_rows >> shift) for shift in range(most_rows.bit_length())]
    mean = facts.sizes.mean_bytes or _UNKNOWN_MEAN_BYTES
    return [rows for rows in halves if rows * mean <= _ENOUGH_BATCH_BYTES] or halves[-1:]


def _project(
    facts: LayerFacts,
    rows: int,
    rtree_share: float,
    sink: str,
    measures_area: bool,
    baseline_bytes: int,
    margin_bytes: int,
    batch_factor: float,
    area_factor: float,
    most_batches: int | None,
) -> VectorPlan:
    batch = batch_bytes_of(facts, rows)
    features = max(facts.count, 0)
    largest = facts.sizes.largest_bytes or min(_MOST_LARGEST_UNKNOWN, facts.source_bytes)
    rtree = _rtree_bytes(features, rtree_share) if sink == "GPKG" and facts.geometry_name else 0
    terms = {
        "baseline": baseline_bytes,
        "source driver": _SOURCE_BYTES.get(
            facts.driver, _OTHER_SOURCE_BYTES + min(2 * facts.source_bytes, _HELD_SOURCE_MOST_BYTES)
        ),
        "batch": int(batch * batch_factor),
        "largest geometry": int(largest * _largest_factor(facts, sink)),
        "largest attributes": int(facts.sizes.attributes_bytes * _attributes_factor(facts, sink)),
        "interpreter growth": _INTERPRETER_BYTES,
        "margin": margin_bytes,
    }
    if measures_area:
        terms["coordinates"] = (
            min(_AREA_BLOCK_BYTES, 8 * facts.source_bytes, int(area_factor * batch))
            + min(rows, max(features, 1)) * _AREA_ROW_BYTES
        )
    if sink:
        terms["kept batch"] = int(batch * (_PROMOTED_FACTOR if facts.driver == "ESRI Shapefile" else _KEPT_FACTOR))
        terms["sink driver"] = _SINK_BYTES[sink]
    # Indexes are built when the last batch is gone, in the memory that it had.
    freed = terms["batch"] + terms.get("kept batch", 0) + terms.get("coordinates", 0)
    later = freed + terms.get("sink driver", 0)
    if index := _source_index_bytes(facts, min(features, (most_batches or features) * rows), later):
        terms["source index"] = index
    if rtree:
        terms["GPKG R-tree"] = max(0, rtree - freed)
    if sink == "FlatGeobuf":
        terms["FlatGeobuf items"] = features * _FGB_ITEM_BYTES
        # Where a batch's bytes are not known they are a bound, twice the mean: half of them is sure to be free.
        free = freed - (0 if facts.sizes.runs else (terms["batch"] + terms["kept batch"]) // 2)
        terms["FlatGeobuf index"] = max(0, _flatgeobuf_index_bytes(facts, features) - free)
    return VectorPlan(rows, batch, rtree, terms)


def _source_index_bytes(facts: LayerFacts, features_read: int, later_bytes: int) -> int:
    """What the source's driver holds of each feature; `later_bytes` come into what opening a Shapefile has freed."""
    if facts.driver == "GeoJSON":
        return features_read * _GEOJSON_ID_BYTES
    places = facts.count * _SHAPEFILE_PLACE_BYTES if facts.driver == "ESRI Shapefile" else 0
    return places + max(0, places - later_bytes)


def _largest_factor(facts: LayerFacts, sink: str) -> float:
    of_source = _SOURCE_LARGEST_FACTOR.get(facts.driver, _OTHER_SOURCE_LARGEST_FACTOR)
    return of_source + _SINK_LARGEST_FACTOR[sink] + (_NOT_ALONE_LARGEST_FACTOR if facts.count != 1 else 0)


def _attributes_factor(facts: LayerFacts, sink: str) -> float:
    of_source = _SOURCE_ATTRIBUTES_FACTOR.get(facts.driver, _OTHER_SOURCE_ATTRIBUTES_FACTOR)
    return of_source + _SINK_ATTRIBUTES_FACTOR[sink]


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


def _rtree_bytes(features: int, share: float) -> int:
    wanted = min(features * _RTREE_ENTRY_BYTES, _RTREE_MOST_BYTES)
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
    mean = facts.sizes.mean_bytes or _UNKNOWN_MEAN_BYTES
    largest = facts.sizes.feature_bytes
    planned = max(2 * rows * mean, largest + _LEAST_BATCH_BYTES)
    return planned if facts.count < 0 else min(planned, max(facts.count * mean, largest))


def lower_by(facts: LayerFacts, chosen: VectorPlan, **asked: Any) -> str:
    """The one setting that would lower the peak most, and by how much: what `fit` chooses with it set; empty below 1 MiB.

    Args:
        facts: of the layer.
        chosen: the plan.
        asked: what `fit` was asked for it, without its budget.
    """
    budget = {"budget_bytes": chosen.projected_bytes}
    knobs: dict[str, dict[str, Any]] = {
        f"chunk_rows {rows}": {"most_rows": rows, "rows_fixed": True}
        for rows in (chosen.rows >> shift for shift in range(1, chosen.rows.bit_length()))
    }
    if asked["sink"] == "FlatGeobuf":
        knobs["writing a .gpkg"] = {"sink": "GPKG"}
    if asked["margin_bytes"]:
        knobs["margin_mb 0"] = {"margin_bytes": 0}
    saves: dict[str, int] = {}
    for knob, change in knobs.items():
        with suppress(MemoryRefused):
            saves[knob] = chosen.projected_bytes - fit(facts, **(asked | budget | change)).projected_bytes
    worth = max(
        MIB, int(max(saves.values(), default=0) * _MOST_OF_IT)
    )  # the most rows that save about as much as one row does
    found = next((knob for knob, saved in saves.items() if saved >= worth), "")
    return f"{found} saves {format_bytes(saves[found])}" if found else ""


def disk_bytes(facts: LayerFacts, sink: str) -> int:
    """Upper estimate of the output, bytes; FlatGeobuf writes its features twice."""
    needed = facts.source_bytes * _PACKED.get(facts.driver, 1) + max(facts.count, 0) * 150 + MIB
    return needed * (2 if sink == "FlatGeobuf" else 1)


def check_disk(facts: LayerFacts, sink: str, free_bytes: int | None, *, keeps_all: bool) -> None:
    """Refuse a job whose output cannot fit into what is free on its disk, where that is known.

    Where all features are kept, their geometries must fit; what a filter keeps is not known, and no output is under 1 MiB.

    Raises:
        DiskRefused: less is free.
    """
    least = max(MIB, facts.sizes.total_bytes * (2 if sink == "FlatGeobuf" else 1) if keeps_all else 0)
    if free_bytes is not None and free_bytes < least:
        raise DiskRefused(
            f"{facts.label}: the output takes at least {format_bytes(least)}, and its disk has {format_bytes(free_bytes)} free",
            free_bytes=free_bytes,
            needed_bytes=least,
        )
