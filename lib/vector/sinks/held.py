"""What OGR holds of Arrow's types otherwise: times in a named zone, nulls in lists. What it makes of values is in `values.py`.

Such values come from Parquet alone. OGR itself would write a time in Europe/Berlin as UTC's without a zone, and say nothing.
"""

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

# Zones that OGR knows (ogrlayerarrow.cpp): it takes any other for none.
_KNOWN_ZONE = re.compile(r"(Etc/)?UTC|[+-]\d\d:\d\d")


def held_as(kind: Any) -> Any:
    """The Arrow type that a column is given to OGR as: the same moments in UTC where OGR does not know their zone."""
    is_unknown = pa.types.is_timestamp(kind) and kind.tz is not None and not _KNOWN_ZONE.fullmatch(kind.tz)
    return pa.timestamp(kind.unit, "UTC") if is_unknown else kind


def schema_held(schema: Any) -> Any:
    """An Arrow schema likewise."""
    return pa.schema([each.with_type(held_as(each.type)) for each in schema], schema.metadata)


def said_of(schema: Any) -> str:
    """What is to be said of zones that become UTC; empty where none does."""
    zones = [f"{each.name} ({each.type.tz})" for each in schema if held_as(each.type) != each.type]
    return f"dates with times in a named zone become UTC, the same moments: {', '.join(zones)}" if zones else ""


def held(batch: Any, note: Callable[[str], None]) -> Any:
    """A batch as OGR is given it; `note` is told of values that it does not hold as they are."""
    for at, each in enumerate(batch.schema):
        if (kind := held_as(each.type)) != each.type:
            batch = batch.set_column(at, each.with_type(kind), batch.column(at).view(kind))
        if words := _lost(batch.column(at)):
            note(f"field {each.name!r} has {words}")
    return batch


def _lost(column: Any) -> str:
    """What OGR makes of some of a column's values."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "nulls in its lists, which become 0 or an empty text" if column.flatten().null_count else ""
    return ""
