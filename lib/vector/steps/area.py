"""Keep features by their area on the ground."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from lib.errors import DataError, SourceError
from lib.jobs import VectorJob
from lib.units import MIB
from lib.vector.area import decide
from lib.vector.exact import NotReadError
from lib.vector.method import AreaMethod, Bounds, area_method
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally, UndecidedError, keep
from lib.vector.steps.rows import row_words
from lib.vector.wkb import LINEAR_HINT, NOT_LINEAR, SURFACES, Column, column_of, is_any_of

# Temporaries of `VERTICES_AT_ONCE` vertices; offsets, types, rings and sums of each row.
_BLOCK_BYTES = 4 * MIB
_ROW_BYTES = 400
_SURFACE_HINT = "make polygons of it: ogr2ogr -nlt MULTIPOLYGON polygons.gpkg SOURCE"


def prepare(job: VectorJob, facts: LayerFacts) -> "AreaStep":
    """The step.

    Raises:
        SourceError: there are no geometries, or no CRS in which an area means anything.
    """
    column, method = method_of(job, facts)
    return AreaStep(facts.label, column, method, Bounds(job.min_area_sqm, job.max_area_sqm))


def method_of(job: VectorJob, facts: LayerFacts) -> tuple[str, AreaMethod]:
    """The geometry column, and how areas are measured.

    Raises:
        SourceError: there are no geometries, or no CRS in which an area means anything.
    """
    if facts.geometry_name is None:
        raise SourceError(
            f"{facts.label}: layer {facts.layer} has no geometries, so no areas", hint="leave the area out"
        )
    return facts.geometry_name, area_method(facts.crs, job.area, facts.label)


def damaged(label: str, number: int, tally: Tally) -> DataError:
    """What is said of geometries that end before their rings do."""
    return DataError(f"{label}: {number} geometries of batch {tally.batches} end before their rings do")


@contextmanager
def measurable(column: Column, label: str, tally: Tally, what: str) -> Iterator[None]:
    """While areas or lengths of a column are measured.

    Raises:
        DataError: a curve or a surface, by itself or inside another.
    """
    is_other = is_any_of(column.types, tuple(NOT_LINEAR | SURFACES))
    if is_other.any():
        at = int(is_other.argmax())
        raise _refused((NOT_LINEAR | SURFACES)[int(column.types[at])], at, label, tally, what)
    try:
        yield
    except NotReadError as error:
        raise _refused("GeometryCollection with curves or surfaces", error.row, label, tally, what) from error


def _refused(kind: str, at: int, label: str, tally: Tally, what: str) -> DataError:
    """What is not measured here: its type, and its row where that is known."""
    row = tally.number(at)
    hint = LINEAR_HINT if kind in NOT_LINEAR.values() or what == "length" else _SURFACE_HINT
    return DataError(f"{label}: {row_words(tally, at)} is a {kind}, whose {what} is not measured", hint=hint, row=row)


@dataclass(frozen=True, slots=True)
class AreaStep(Step):
    """Keeps the features whose areas are within bounds.

    Attributes:
        label: the source's base name, for messages.
        column: the geometry column of the batches.
        method: how areas are measured.
        bounds: areas that are kept.
    """

    label: str
    column: str
    method: AreaMethod
    bounds: Bounds

    name: ClassVar[str] = "area"

    def memory(self, batch_bytes: int, rows: int) -> int:
        """A block of vertices, and of each row its place."""
        return min(_BLOCK_BYTES, 8 * batch_bytes) + rows * _ROW_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The rows whose area is within the bounds.

        Raises:
            DataError: a curve or a surface, or bytes that are no geometry.
        """
        column = column_of(batch.column(batch.schema.get_field_index(self.column)))
        with measurable(column, self.label, tally, "area"):
            decision = decide(column, self.method, self.bounds)
        if decision.damaged:
            raise damaged(self.label, decision.damaged, tally)
        tally.counts.update(
            features_null_area=decision.without_area,
            arbitrated=decision.arbitrated,
            wide=decision.wide,
            outside=decision.outside,
        )
        return keep(batch, decision.keep, tally)

    @property
    def facts(self) -> dict[str, Any]:
        """How areas are measured."""
        return {"area": self.method.words}

    def reference(self, row: Row) -> Row | None:
        """By the area of the plain path; undecided where the order of a sum would decide."""
        from lib.vector.recompute import near, plain_area

        area = plain_area(row.geometry, self.method)
        if near(area, self.bounds):
            raise UndecidedError
        return row if self.bounds.holds(area) else None

    def result(self, tally: Tally) -> dict[str, Any]:
        """How areas were measured, and how many had none or were close."""
        counted = {key: tally.counts[key] for key in ("features_null_area", "arbitrated")}
        return counted | {"area_mode": self.method.mode}

    def notes(self, tally: Tally) -> list[str]:
        """Of areas that are others than may be thought, and of features that have none."""
        notes = [self.method.note] if self.method.note else []
        if tally.counts["wide"]:
            notes.append(
                f"{self.label}: edges of {tally.counts['wide']} features span 180° or more of longitude: "
                "their geodesic area is that of the other side, the short way around"
            )
        if tally.counts["outside"]:
            notes.append(
                f"{self.label}: {tally.counts['outside']} features lie where their CRS knows no longitude and latitude: "
                "they have no area, and were dropped"
            )
        return notes
