"""Batches: the stream from source to sink, filtered on its way, and what was counted of it.

One generator, pulled by the sink; nothing is kept between batches but counts. Which rows are kept is decided by area (`area.py`)
and by the user's function; all must agree.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.errors import DataError, FunctionError, SwathError
from lib.memory.cap import trim
from lib.memory.function import call
from lib.memory.meter import Meter
from lib.vector import ogr
from lib.vector.area import AreaMethod, Bounds, decide
from lib.vector.wkb import CURVES, column_of, is_any_of

__all__ = ["Selection", "Tally", "selected"]


@dataclass(slots=True)
class Tally:
    """What was counted on the way.

    Attributes:
        read: features that came from the source.
        kept: features given to the sink.
        without_area: features without an area (null, empty, not finite), where one was asked for.
        arbitrated: features so near a bound that the exact area had to decide.
        wide: features with an edge of 180° of longitude or more, as far as areas were asked for.
        batches: batches read.
        error: what went wrong in here; the sink's library would hide it.
    """

    read: int = 0
    kept: int = 0
    without_area: int = 0
    arbitrated: int = 0
    wide: int = 0
    batches: int = 0
    error: SwathError | MemoryError | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a batch are kept.

    Attributes:
        label: the source's base name, for messages.
        geometry_column: name of the WKB column; None where there is none.
        method: how areas are measured; None where none is asked for.
        bounds: areas that are kept.
        function: the user's, given each batch; returns a mask or a filtered batch.
        function_name: `module:name`, for messages.
    """

    label: str
    geometry_column: str | None = None
    method: AreaMethod | None = None
    bounds: Bounds = field(default_factory=lambda: Bounds(None, None))
    function: Callable[..., Any] | None = None
    function_name: str = ""

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The rows of one batch that are kept.

        Raises:
            DataError: a curve, or bytes that are no geometry.
            FunctionError: the user's function raised or returned neither a mask nor rows of the batch's schema.
            MemoryExceeded, MemoryError: an allocator refused it memory.
        """
        if self.method is not None and self.geometry_column is not None:
            column = column_of(batch.column(batch.schema.get_field_index(self.geometry_column)))
            self._refuse_curves(column.types)
            decision = decide(column, self.method, self.bounds)
            if decision.damaged:
                raise DataError(
                    f"{self.label}: {decision.damaged} geometries of batch {tally.batches} end before their rings do"
                )
            tally.without_area += decision.without_area
            tally.arbitrated += decision.arbitrated
            tally.wide += decision.wide
            batch = masked(batch, decision.keep)
        return batch if self.function is None or batch.num_rows == 0 else self._by_function(batch)

    def _refuse_curves(self, types: NDArray[np.uint32]) -> None:
        if is_any_of(types, CURVES).any():
            raise DataError(
                f"{self.label} has curve geometries",
                hint="make it linear: ogr2ogr -nlt CONVERT_TO_LINEAR linear.gpkg SOURCE",
            )

    def _by_function(self, batch: Any) -> Any:
        assert self.function is not None  # noqa: S101 - for mypy: the caller looked
        answer = call(self.function, self.function_name, batch)
        if isinstance(answer, pa.Table):
            answer = (
                answer.combine_chunks().to_batches()[0]
                if answer.num_rows
                else batch.schema.empty_table().to_batches()[:1]
            )
            answer = answer or batch.slice(0, 0)
        if isinstance(answer, pa.RecordBatch):
            if not answer.schema.equals(batch.schema):
                raise FunctionError(
                    f"function {self.function_name} returned columns {answer.schema.names}, not {batch.schema.names}",
                    hint="return a boolean mask, or rows of the batch that was given, with its schema",
                )
            return answer
        return masked(batch, self._mask(answer, batch.num_rows))

    def _mask(self, answer: Any, rows: int) -> NDArray[np.bool_]:
        if isinstance(answer, (pa.Array, pa.ChunkedArray)):
            answer = answer.fill_null(False) if pa.types.is_boolean(answer.type) else answer
            answer = answer.to_numpy(zero_copy_only=False) if isinstance(answer, pa.Array) else answer.to_numpy()
        mask = np.asarray(answer)
        if mask.dtype != np.bool_ or mask.shape != (rows,):
            raise FunctionError(
                f"function {self.function_name} returned {mask.dtype} of shape {mask.shape} for {rows} rows",
                hint="return a boolean mask of the batch's length, or a filtered batch",
            )
        return mask


def masked(batch: Any, keep: NDArray[np.bool_]) -> Any:
    """The kept rows; the batch itself where that is all of them."""
    return batch if keep.all() else batch.filter(pa.array(keep))


def selected(
    reader: Any, selection: Selection, conform: Callable[[Any], Any], meter: Meter, tally: Tally, chunks: int
) -> Iterator[Any]:
    """The stream of kept batches; empty ones are left out.

    An exception is kept in the tally before it is raised, because the library that pulls this stream hides it.
    """
    try:
        meter.start(chunks)
        while (batch := _next(reader, selection.label)) is not None:
            tally.batches += 1
            tally.read += batch.num_rows
            kept = selection.apply(batch, tally)
            del batch
            if kept.num_rows:
                tally.kept += kept.num_rows
                yield conform(kept)
            del kept
            meter.chunk()
        trim()  # indexes are planned in the memory that the batches had
        meter.phase("close", patient=True)
    except MemoryError as error:
        tally.error = error
        raise
    except Exception as error:
        tally.error = ogr.translated(error, selection.label, writing=False)
        raise


def _next(reader: Any, label: str) -> Any:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
    except MemoryError:
        raise
    except Exception as error:
        raise ogr.translated(error, label, writing=False) from error
