"""Keep features by the length of their lines on the ground."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lib.errors import DataError, SourceError
from lib.jobs import VectorJob
from lib.units import MIB
from lib.vector.length import decide
from lib.vector.method import AreaMethod, Bounds, area_method
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally, UndecidedError, keep
from lib.vector.steps.area import measurable
from lib.vector.wkb import column_of

# Temporaries of a part's vertices; runs, lengths and errors of each row.
_BLOCK_BYTES = 6 * MIB
_ROW_BYTES = 300


def prepare(job: VectorJob, facts: LayerFacts) -> "LengthStep":
    """The step.

    Raises:
        SourceError: there are no geometries, or no CRS in which a length means anything.
    """
    if facts.geometry_name is None:
        raise SourceError(
            f"{facts.label}: layer {facts.layer} has no geometries, so no lengths", hint="leave the length out"
        )
    method = area_method(facts.crs, "auto", facts.label, "lengths")
    kind = facts.geometry_type or ""
    note = (
        f"{facts.label}: the length of a {kind.lower()} is 0: lengths are of lines alone" if _has_no_lines(kind) else ""
    )
    return LengthStep(facts.label, facts.geometry_name, method, Bounds(job.min_length_m, job.max_length_m), note)


def _has_no_lines(kind: str) -> bool:
    return any(each in kind for each in ("Polygon", "Point"))


@dataclass(frozen=True, slots=True)
class LengthStep(Step):
    """Keeps the features whose lengths are within bounds; null and empty ones have none, and are dropped.

    Attributes:
        label: the source's base name, for messages.
        column: the geometry column of the batches.
        method: how lengths are measured.
        bounds: lengths that are kept, m.
        note: what is to be said of the layer.
    """

    label: str
    column: str
    method: AreaMethod
    bounds: Bounds
    note: str = ""

    name: ClassVar[str] = "length"

    def memory(self, batch_bytes: int, rows: int) -> int:
        """A part's vertices, and of each row its place."""
        return min(_BLOCK_BYTES, 12 * batch_bytes) + rows * _ROW_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The rows whose length is within the bounds.

        Raises:
            DataError: a curve or a surface, or bytes that are no geometry.
        """
        column = column_of(batch.column(batch.schema.get_field_index(self.column)))
        with measurable(column, self.label, tally, "length"):
            decision = decide(column, self.method, self.bounds)
        if decision.damaged:
            raise DataError(
                f"{self.label}: {decision.damaged} geometries of batch {tally.batches} end before their vertices do"
            )
        tally.counts.update(features_null_length=decision.without_length, lengths_outside=decision.outside)
        return keep(batch, decision.keep, tally)

    @property
    def facts(self) -> dict[str, Any]:
        """How lengths are measured."""
        return {"length": self.method.words}

    def reference(self, row: Row) -> Row | None:
        """By the length of the plain path; undecided where the order of a sum would decide."""
        from lib.vector.recompute import near, plain_length

        length = plain_length(row.geometry, self.method)
        if near(length, self.bounds):
            raise UndecidedError
        return row if self.bounds.holds(length) else None

    def result(self, tally: Tally) -> dict[str, Any]:
        """How many had no length."""
        return {"features_null_length": tally.counts["features_null_length"]}

    def notes(self, tally: Tally) -> list[str]:
        """Of layers without lines, and of features that have no length."""
        notes = [self.note] if self.note else []
        if self.method.note:
            notes.append(self.method.note)
        if tally.counts["lengths_outside"]:
            notes.append(
                f"{self.label}: {tally.counts['lengths_outside']} features lie where their CRS knows no longitude and latitude: "
                "they have no length, and were dropped"
            )
        return notes
