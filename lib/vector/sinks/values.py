"""Values that a format does not hold as they are: what they become, which is said once a field."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from lib.vector.sinks.base import VectorSink

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Seconds since 1970 of the years 1 to 9999.
_YEARS = -62_135_596_800, 253_402_300_800


def finite(sink: "VectorSink", batch: Any) -> Any:
    """A batch in which numbers that are not finite are null, which is said."""
    for at, each in enumerate(batch.schema):
        if pa.types.is_floating(each.type):
            values = batch.column(at).to_numpy(zero_copy_only=False)
            wrong = ~np.isfinite(values)
            if int(wrong.sum()) > batch.column(at).null_count:
                sink.note(f"{sink.label}: numbers of field {each.name!r} that are not finite are null in {sink.driver}")
                batch = batch.set_column(at, each, pa.array(values, each.type, mask=wrong))
    return batch


def timely(sink: "VectorSink", batch: Any) -> Any:
    """A batch in which dates with times outside the years 1 to 9999 are null; that, and what is rounded, is said."""
    for at, each in enumerate(batch.schema):
        per_second = _PER_SECOND.get(each.type.unit) if pa.types.is_timestamp(each.type) else None
        if per_second is None or not len(batch):
            continue
        column = batch.column(at)
        ticks = np.frombuffer(column.buffers()[1], np.int64, len(column), column.offset * 8)
        known = ticks[known_of(column)]
        if (known % max(1, per_second // 1000)).any():
            sink.note(
                f"{sink.label}: dates with times of field {each.name!r} keep milliseconds at most in {sink.driver}"
            )
        low, high = (bound * per_second for bound in _YEARS)
        if len(known) and not low <= known.min() <= known.max() < high:
            sink.note(
                f"{sink.label}: dates of field {each.name!r} outside the years 1 to 9999 are null in {sink.driver}"
            )
            wrong = ~known_of(column) | (ticks < low) | (ticks >= high)
            batch = batch.set_column(at, each, pa.array(ticks, pa.int64(), mask=wrong).view(each.type))
    return batch


def known_of(column: Any) -> Any:
    """Which values are not null, (rows,) bool; `is_valid` would import `pyarrow.compute`."""
    if not column.null_count:
        return np.ones(len(column), bool)
    bits = np.unpackbits(np.frombuffer(column.buffers()[0], np.uint8), bitorder="little")
    return bits[column.offset : column.offset + len(column)].astype(bool)
