"""Keep features of which a condition over their attributes is true."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lib.jobs import VectorJob
from lib.vector.predicates import columns
from lib.vector.predicates.bind import condition_of
from lib.vector.predicates.rows import UnlikeError, holds
from lib.vector.predicates.tree import Condition, fields_of
from lib.vector.sources import LayerFacts, VectorSource, Wish
from lib.vector.steps import Row, Step, Tally, UndecidedError, keep

# Columns as wide ones, masks and looked-up values of each row.
_ROW_BYTES = 64


def prepare(job: VectorJob, facts: LayerFacts) -> "WhereStep":
    """The step.

    Raises:
        UsageError: the text does not parse, or says nothing of this layer.
    """
    assert job.where is not None  # noqa: S101 - for mypy: it was asked for
    return WhereStep(facts.label, job.where, condition_of(job.where, facts))


@dataclass(frozen=True, slots=True)
class WhereStep(Step):
    """Keeps the rows of which the condition is true; those of which it is false or unknown are dropped.

    Attributes:
        label: the source's base name, for messages.
        text: the condition as it was written.
        condition: what it says.
    """

    label: str
    text: str
    condition: Condition

    name: ClassVar[str] = "where"
    needs_values: ClassVar[bool] = True

    @property
    def looks_at(self) -> frozenset[str] | None:
        """The fields of the condition."""
        return frozenset(field.name for field in fields_of(self.condition))

    def push(self, source: VectorSource) -> tuple[VectorSource, str]:
        """Asks for what the source's driver can tell of it."""
        return source.narrowed(Wish(condition=self.condition))

    def memory(self, batch_bytes: int, rows: int) -> int:
        """A column or two as others, and masks."""
        return batch_bytes + rows * _ROW_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The rows that meet the condition."""
        return keep(batch, columns.mask_of(self.condition, batch), tally) if batch.num_rows else batch

    @property
    def facts(self) -> dict[str, Any]:
        """The condition."""
        return {"where": self.text}

    def reference(self, row: Row) -> Row | None:
        """By Python; undecided where an output has other fields, or other types, than the source."""
        try:
            return row if holds(self.condition, row.values) else None
        except UnlikeError as error:
            raise UndecidedError from error
