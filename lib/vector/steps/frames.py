"""A user's function that is given each batch as a GeoDataFrame, because it says so (`function.frame = True`), and returns one.

Integers and booleans are pandas' nullable ones, so that none becomes a float; text is `str`, the rest of Arrow's types. It may
drop rows, change values and geometries, and add the fields that it declares (`function.fields = {"name": "float64"}`);
`function.geometry_type` is what geometries become.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa

from lib.errors import FunctionError, UsageError
from lib.memory.function import call
from lib.units import MIB
from lib.vector.crs import crs_name
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally, UndecidedError
from lib.vector.steps.rows import OGR_TYPES, shapes_of, with_field, wkb_of

_ALIASES = ("bool", "int32", "int64", "float32", "float64", "string")
_TYPES = ("Unknown", "Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon")
# Before a function is measured: what pandas and GEOS bring in at their first use; WKB, GEOS's objects and WKB again.
_LIBRARIES_BYTES, _PER_BATCH_BYTE = 24 * MIB, 6


def frame_step(function: Callable[..., Any], name: str, facts: LayerFacts) -> "FrameStep":
    """The step.

    Raises:
        UsageError: the function declares what cannot be.
    """
    declared = getattr(function, "fields", {})
    wrong = (
        [kind for kind in declared.values() if kind not in _ALIASES] if isinstance(declared, Mapping) else [declared]
    )
    if wrong:
        raise UsageError(
            f"function {name} declares a field of type {wrong[0]!r}", hint=f"types of fields are {', '.join(_ALIASES)}"
        )
    becomes = getattr(function, "geometry_type", None)
    if becomes is not None and (becomes not in _TYPES or facts.geometry_name is None):
        raise UsageError(
            f"function {name} declares geometries of type {becomes!r}",
            hint=f"types of a layer with geometries are {', '.join(_TYPES)}",
        )
    fields = {each: pa.type_for_alias(kind) for each, kind in declared.items()}
    step = FrameStep(function, name, facts, fields, becomes or facts.geometry_type)
    step.layer(facts)
    return step


@dataclass(frozen=True, slots=True)
class FrameStep(Step):
    """What a function makes of frames.

    Attributes:
        function: the user's.
        function_name: `module:name`, for messages.
        facts_before: the layer that it is given.
        fields: those that it adds, with Arrow's types.
        geometry_type: of the layer behind it; None without geometries.
    """

    function: Callable[..., Any]
    function_name: str
    facts_before: LayerFacts
    fields: Mapping[str, Any]
    geometry_type: str | None

    name: ClassVar[str] = "custom"
    is_filter: ClassVar[bool] = False
    keeps_geometry: ClassVar[bool] = False
    is_decided: ClassVar[bool] = False

    def layer(self, layer: LayerFacts) -> LayerFacts:
        """With its fields; without feature ids, which a frame's index may lose."""
        for name, kind in self.fields.items():
            layer = with_field(layer, name, OGR_TYPES[str(kind)], f"function {self.function_name}")
        return replace(layer, geometry_type=self.geometry_type, fid_column="")

    def schema(self, schema: Any) -> Any:
        """With its fields."""
        for name, kind in self.fields.items():
            schema = schema.append(pa.field(name, kind))
        return schema

    def memory(self, batch_bytes: int, rows: int) -> int:
        """A function's memory is measured, not known."""
        del rows
        return _LIBRARIES_BYTES + _PER_BATCH_BYTE * batch_bytes

    def apply(self, batch: Any, tally: Tally) -> Any:
        """What the function makes of a batch.

        Raises:
            DataError: a geometry that GEOS does not read.
            FunctionError: it raised, or returned another frame than it declares.
        """
        schema = self.schema(batch.schema)
        if batch.num_rows == 0:
            return pa.RecordBatch.from_pylist([], schema=schema)
        answer = call(self.function, self.function_name, self._frame(batch, tally))
        if not isinstance(answer, pd.DataFrame):
            raise self._refused(f"returned {type(answer).__name__}, not a frame")
        if len(answer) > batch.num_rows:
            raise self._refused(
                f"returned {len(answer)} rows for {batch.num_rows}: rows are kept or dropped, not added"
            )
        if missing := [name for name in schema.names if name not in answer.columns]:
            raise self._refused(f"returned no column {', '.join(missing)}", "to keep fewer fields, use --select")
        if more := [str(name) for name in answer.columns if name not in schema.names]:
            raise self._refused(f"returned columns that it does not declare: {', '.join(more)}", "set its `fields`")
        columns = [self._column(answer[field.name], field) for field in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _frame(self, batch: Any, tally: Tally) -> Any:
        """A batch as a frame, with the layer's CRS."""
        before = self.facts_before
        columns: dict[str, Any] = {
            name: _as_pandas(batch.column(at))
            for at, name in enumerate(batch.schema.names)
            if name != before.geometry_name
        }
        if before.geometry_name is None:
            return pd.DataFrame(columns)
        shapes = shapes_of(batch, before.geometry_name, before.label, tally)
        columns[before.geometry_name] = geopandas.array.GeometryArray(shapes, crs=before.crs)
        return geopandas.GeoDataFrame(columns, geometry=before.geometry_name)

    def _column(self, series: Any, field: Any) -> Any:
        """A column of the answer as Arrow has it, without loss."""
        if field.name == self.facts_before.geometry_name:
            return wkb_of(self._checked(series), field.type)
        values = series.array
        try:
            if hasattr(values, "__arrow_array__"):
                found = pa.array(values)
                found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
                return found.cast(field.type)
            return pa.array(series.to_numpy(), field.type, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise self._refused(f"returned values in {field.name} that are no {field.type}: {error}") from error

    def _checked(self, series: Any) -> Any:
        """The geometries of an answer, of the type and in the CRS that the layer has."""
        if not isinstance(series.array, geopandas.array.GeometryArray):
            raise self._refused(f"returned {series.dtype} in {series.name}, not geometries")
        wanted = geopandas.GeoSeries([], crs=self.facts_before.crs).crs
        if series.crs != wanted:
            words = f"returned geometries in another CRS than {crs_name(self.facts_before.crs)}"
            raise self._refused(words, "transform them with --to-crs")
        shapes = series.to_numpy()
        declared = (self.geometry_type or "Unknown").split()[0]
        allowed = {declared, f"Multi{declared}"} if self.layer(self.facts_before).is_multi_unsure else {declared}
        found = {each.geom_type for each in shapes if each is not None}
        if declared in _TYPES[1:] and (other := sorted(found - allowed)):
            raise self._refused(
                f"returned a {other[0]} in a layer of {declared}",
                'declare it: its `geometry_type`, or "Unknown" for several',
            )
        return shapes

    def _refused(
        self, words: str, hint: str = "return the frame that was given, rows dropped and columns changed"
    ) -> Any:
        return FunctionError(f"function {self.function_name} {words}", hint=hint)

    @property
    def facts(self) -> dict[str, Any]:
        """Its name."""
        return {"function": self.function_name}

    def reference(self, row: Row) -> Row | None:
        """Not known here."""
        del row
        raise UndecidedError

    def notes(self, tally: Tally) -> list[str]:
        """Of feature ids."""
        del tally
        before = self.facts_before
        has_fids = bool(before.fid_column) and before.fid_column not in before.fields
        return [f"{before.label}: feature ids are not kept, as the function works on frames"] if has_fids else []


def _as_pandas(array: Any) -> Any:
    """An Arrow array as pandas' own, in a type that holds every value and null; not by Arrow, which looks for pandas once."""
    kind = array.type
    if pa.types.is_integer(kind):
        return pd.api.types.pandas_dtype(str(kind).replace("int", "Int").replace("u", "U")).__from_arrow__(array)
    if pa.types.is_boolean(kind):
        return pd.BooleanDtype().__from_arrow__(array)
    if pa.types.is_floating(kind):
        return array.to_numpy(zero_copy_only=False)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pd.StringDtype(na_value=np.nan).__from_arrow__(array)
    return pd.arrays.ArrowExtensionArray(pa.chunked_array([array]))
