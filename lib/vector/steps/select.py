"""Keep some fields, in the order in which they are named; the geometry and feature ids stay."""

import difflib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lib.errors import UsageError
from lib.jobs import VectorJob
from lib.vector.names import folded
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally

_SHOWN = 20  # of names, in one line


def prepare(job: VectorJob, facts: LayerFacts) -> "SelectStep":
    """The step.

    Raises:
        UsageError: the layer has no such field.
    """
    assert job.select is not None  # noqa: S101 - for mypy: it was asked for
    by_folded = {folded(name): name for name in facts.fields}
    missing = [name for name in job.select if folded(name) not in by_folded]
    if missing:
        near = difflib.get_close_matches(folded(missing[0]), by_folded, 1)
        has = ", ".join(facts.fields[:_SHOWN]) + (", …" if len(facts.fields) > _SHOWN else "")
        raise UsageError(
            f"--select: layer {facts.layer} of {facts.label} has no field {missing[0]!r}",
            hint=f"did you mean {by_folded[near[0]]}?" if near else f"it has {has or 'no fields'}",
        )
    names = tuple(dict.fromkeys(by_folded[folded(name)] for name in job.select))
    return SelectStep(names, frozenset(facts.fields))


@dataclass(frozen=True, slots=True)
class SelectStep(Step):
    """Keeps some fields.

    Attributes:
        fields: those kept, in order.
        known: all fields of the layer; other columns are no fields, and stay.
    """

    fields: tuple[str, ...]
    known: frozenset[str]

    name: ClassVar[str] = "select"
    is_filter: ClassVar[bool] = False

    @property
    def only(self) -> tuple[str, ...] | None:
        """The fields."""
        return self.fields

    def layer(self, layer: LayerFacts) -> LayerFacts:
        """With these fields alone."""
        types = dict(zip(layer.fields, layer.field_types, strict=True))
        fid_column = (
            "" if layer.fid_column in layer.fields else layer.fid_column
        )  # a GeoJSON's field that OGR takes for ids
        kept = tuple(types[name] for name in self.fields)
        return replace(layer, fields=self.fields, field_types=kept, fid_column=fid_column)

    def _columns(self, schema: Any) -> list[str]:
        return [name for name in schema.names if name not in self.known] + list(self.fields)

    def schema(self, schema: Any) -> Any:
        """With these fields alone, behind what is no field."""
        import pyarrow as pa

        return pa.schema([schema.field(name) for name in self._columns(schema)], schema.metadata)

    def memory(self, batch_bytes: int, rows: int) -> int:
        """None: columns are taken as they are."""
        del batch_bytes, rows
        return 0

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The batch with these fields."""
        del tally
        return batch.select(self._columns(batch.schema))

    @property
    def facts(self) -> dict[str, Any]:
        """The fields."""
        return {"select": list(self.fields)}

    def reference(self, row: Row) -> Row | None:
        """The row with these values."""
        return row._replace(values={name: row.values[name] for name in self.fields if name in row.values})
