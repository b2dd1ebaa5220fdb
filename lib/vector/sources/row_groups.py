"""What the statistics of a Parquet row group tell: bounds of fields, and a box around its geometries.

Bounds come from the column chunks' statistics, boxes from those of the covering column (geoparquet.org/releases/v1.1.0), else
from Parquet's own of geometries. What is not sure is not known: the row group is read then.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from lib.vector.predicates.ranges import Range
from lib.vector.predicates.tree import Field
from lib.vector.sources.facts import Box

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MICROSECONDS = 10**6
# A box of single floats that was not rounded outwards is off by half of a last digit; a decimal as a double likewise.
_SINGLE, _DOUBLE = 2.0**-23, 2.0**-52
_SIDES = 4


def leaves_of(file: Any) -> dict[str, int]:
    """The place of each leaf column in a row group, by its path; a field's own is its name, as long as it is not nested."""
    every = [file.schema.column(at) for at in range(len(file.schema))]
    flat = {each.path: at for at, each in enumerate(every) if each.name == each.path and not each.max_repetition_level}
    return {each.path: at for at, each in enumerate(every) if not each.max_repetition_level} | flat


def ranges_in(group: Any, leaves: Mapping[str, int], kinds: Mapping[str, Any], field: Field, own: str) -> Range:
    """What a row group's statistics tell of a field.

    Args:
        group: pyarrow's metadata of the row group.
        leaves: the place of each leaf column.
        kinds: Arrow types of the file's columns.
        field: as the condition has it.
        own: its name in the file.
    """
    at = leaves.get(own)
    statistics = group.column(at).statistics if at is not None else None
    is_real = field.kind == "real" and not pa.types.is_decimal(kinds[own])
    if statistics is None:
        return Range(may_be_nan=is_real)
    nulls = statistics.null_count if statistics.has_null_count else None
    has_null, has_value = nulls != 0, nulls is None or nulls < group.num_rows
    low = high = None
    if statistics.has_min_max and has_value:
        try:
            low, high = _bounds(statistics, field, kinds[own])
        except (ArithmeticError, TypeError, ValueError, NotImplementedError, pa.ArrowException):
            low = high = None
    return Range(low, high, has_null, has_value, is_real)


def _bounds(statistics: Any, field: Field, kind: Any) -> tuple[Any, Any]:
    """The least and the largest value, as conditions have such; raises where the file's are none."""
    if field.kind == "timestamp":
        return _moments(statistics, kind)
    low, high = statistics.min, statistics.max
    if field.kind == "real" and pa.types.is_float16(kind):
        raise TypeError(kind)
    if isinstance(low, Decimal):
        below, above = float(low), float(high)
        return below - abs(below) * _DOUBLE, above + abs(above) * _DOUBLE
    wanted: dict[str, Any] = {"integer": int, "real": (int, float), "text": str, "boolean": bool, "date": dt.date}
    if not all(isinstance(each, wanted[field.kind]) and not _is_nan(each) for each in (low, high)) or low > high:
        raise TypeError(field.kind)
    return low, high


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _moments(statistics: Any, kind: Any) -> tuple[Any, Any]:
    """Instants in UTC, to the microsecond outwards."""
    scale, low, high = _PER_SECOND[kind.unit], statistics.min_raw, statistics.max_raw
    if not isinstance(low, int) or low > high:
        raise TypeError(kind)
    below, above = low * _MICROSECONDS // scale, -(-high * _MICROSECONDS // scale)
    return _EPOCH + dt.timedelta(microseconds=below), _EPOCH + dt.timedelta(microseconds=above)


def box_in(group: Any, leaves: Mapping[str, int], sides: Sequence[str], geometry: str) -> Box | None:
    """A box that has all geometries of a row group; None where its statistics tell none.

    Args:
        group: pyarrow's metadata of the row group.
        leaves: the place of each leaf column.
        sides: paths of the covering's xmin, ymin, xmax, ymax; empty where there is none.
        geometry: name of the geometry column.
    """
    if len(sides) == _SIDES and all(side in leaves for side in sides):
        every = [group.column(leaves[side]).statistics for side in sides]
        if all(each is not None and each.has_min_max for each in every):
            is_single = any(each.physical_type == "FLOAT" for each in every)
            return _sure(every[0].min, every[1].min, every[2].max, every[3].max, _SINGLE if is_single else _DOUBLE)
    at = leaves.get(geometry)
    chunk = group.column(at) if at is not None else None
    if chunk is None or not chunk.is_geo_stats_set or (found := chunk.geo_statistics) is None:
        return None
    return _sure(found.xmin, found.ymin, found.xmax, found.ymax, _DOUBLE)


def box_of(said: Any) -> Box | None:
    """The box that GeoParquet's metadata have of a whole file; None where they have none, or one that is no plain box."""
    if not isinstance(said, list) or len(said) not in (4, 6):
        return None
    half = len(said) // 2
    return _sure(said[0], said[1], said[half], said[half + 1], _DOUBLE)


def _sure(left: Any, low: Any, right: Any, high: Any, share: float) -> Box | None:
    """A box with slack; None where a side is no number, or it is one across the antimeridian."""
    sides = (left, low, right, high)
    if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in sides) or left > right or low > high:
        return None
    return (
        left - abs(left) * share, low - abs(low) * share, right + abs(right) * share, high + abs(high) * share,
    )  # fmt: skip


def apart(one: Box, other: Box) -> bool:
    """Whether two boxes have no point in common."""
    return one[0] > other[2] or one[2] < other[0] or one[1] > other[3] or one[3] < other[1]
