"""Make fields of another type: each value as it is, or its row is bad."""

import difflib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lib.errors import UsageError
from lib.jobs import VectorJob
from lib.vector.bad_rows import BadRow
from lib.vector.casts import OGR_TYPES, caster, is_known, kind_of, plain_values
from lib.vector.names import folded
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally, keep

_SHOWN = 40  # characters of a value
_DATE_TEXT = {"GDAL:OGR:type": "DateTime"}  # as OGR marks dates with times that come as text
_VALUE_BYTES = 120
_ARROW: dict[str, Any] = {
    "boolean": pa.bool_(), "integer": pa.int32(), "integer64": pa.int64(), "real": pa.float64(), "string": pa.string(),
    "json": pa.string(), "date": pa.date32(), "time": pa.time32("ms"), "datetime": pa.string(), "binary": pa.binary(),
}  # fmt: skip


def prepare(job: VectorJob, facts: LayerFacts) -> "CastStep":
    """The step.

    Raises:
        UsageError: the layer has no such field, or it cannot become such a type.
    """
    by_folded = {folded(name): name for name in facts.fields}
    types = dict(zip(facts.fields, facts.field_types, strict=True))
    found: dict[str, str] = {}
    for pair in job.cast:
        asked, _, wanted = pair.rpartition("=")
        if (name := by_folded.get(folded(asked))) is None:
            near = difflib.get_close_matches(folded(asked), by_folded, 1)
            hint = f"did you mean {by_folded[near[0]]}?" if near else f"it has {', '.join(facts.fields) or 'no fields'}"
            raise UsageError(f"--cast: layer {facts.layer} of {facts.label} has no field {asked!r}", hint=hint)
        kind = kind_of(types[name])
        if kind is None or not is_known(kind, wanted):
            raise UsageError(
                f"--cast: field {name!r} of {facts.label} is {_shown(types[name])}, of which no {wanted} can be made",
                hint="cast it to string",
            )
        found[name] = wanted
    return CastStep(found)


def _shown(typed: str) -> str:
    return typed.replace("OFT", "").replace("OFST", "").replace(":", " ")


@dataclass(frozen=True, slots=True)
class CastStep(Step):
    """Makes fields of another type.

    Attributes:
        wanted: the types by field.
    """

    wanted: dict[str, str]

    name: ClassVar[str] = "cast"
    is_filter: ClassVar[bool] = False
    keeps_values: ClassVar[bool] = False

    @property
    def looks_at(self) -> frozenset[str]:
        """The fields."""
        return frozenset(self.wanted)

    def layer(self, layer: LayerFacts) -> LayerFacts:
        """With these types."""
        pairs = zip(layer.fields, layer.field_types, strict=True)
        types = [OGR_TYPES[self.wanted[name]] if name in self.wanted else typed for name, typed in pairs]
        return replace(layer, field_types=tuple(types))

    def schema(self, schema: Any) -> Any:
        """With these types."""
        return pa.schema([self._field(each) for each in schema], schema.metadata)

    def _field(self, each: Any) -> Any:
        wanted = self.wanted.get(each.name)
        if wanted is None:
            return each
        if wanted == "json":
            return pa.field(each.name, pa.json_(pa.string()))
        return pa.field(each.name, _ARROW[wanted], metadata=_DATE_TEXT if wanted == "datetime" else None)

    def memory(self, batch_bytes: int, rows: int) -> int:
        """Values as Python's objects, of one field at a time, and as Arrow's."""
        return 3 * batch_bytes + rows * _VALUE_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The batch with these fields, of the rows that fit.

        Raises:
            DataError: a value does not fit, and bad rows are not to be skipped.
        """
        columns, bad = list(batch.columns), dict[int, str]()
        schema = self.schema(batch.schema)
        for at, each in enumerate(batch.schema):
            if wanted := self.wanted.get(each.name):
                columns[at] = _cast(columns[at], wanted, each.name, bad)
        tally.bad.add(BadRow(tally.number(at), tally.fid(at), bad[at]) for at in sorted(bad))
        made = pa.RecordBatch.from_arrays(columns, schema=schema)
        if not bad:
            return made
        mask = np.ones(batch.num_rows, bool)
        mask[list(bad)] = False
        return keep(made, mask, tally)

    @property
    def facts(self) -> dict[str, Any]:
        """The fields and their types."""
        return {"cast": dict(self.wanted)}

    def reference(self, row: Row) -> Row | None:
        """The row with these values; none where one does not fit."""
        values = dict(row.values)
        for name, wanted in self.wanted.items():
            try:
                values[name] = None if values[name] is None else caster(wanted)(values[name])
            except (ValueError, OverflowError):
                return None
        return row._replace(values=values)


def _cast(column: Any, wanted: str, name: str, bad: dict[int, str]) -> Any:
    """A column of another type; places of rows whose values do not fit go into `bad`, and are null."""
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    cast, values = caster(wanted), column.to_pylist() if pa.types.is_uint64(column.type) else plain_values(column)
    for at, value in enumerate(values):
        if value is not None:
            try:
                values[at] = cast(value)
            except (ValueError, OverflowError):
                values[at] = None
                said = repr(value)
                said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
                bad.setdefault(at, f"{said} of field {name!r} is no {wanted}, or not exactly")
    found = pa.array(values, _ARROW[wanted])
    return pa.json_(pa.string()).wrap_array(found) if wanted == "json" else found
