"""Add a field of each feature's area on the ground, m²: by `pyproj.Geod`, or in the plane, as `--area` says; null where none."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lib.jobs import VectorJob
from lib.units import MIB
from lib.vector.area import areas_of
from lib.vector.method import AreaMethod
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally
from lib.vector.steps.area import damaged, measurable, method_of
from lib.vector.steps.rows import with_field
from lib.vector.wkb import column_of

_BLOCK_BYTES, _ROW_BYTES = 4 * MIB, 400


def prepare(job: VectorJob, facts: LayerFacts) -> "AddAreaStep":
    """The step.

    Raises:
        SourceError: there are no geometries, or no CRS in which an area means anything.
        UsageError: the layer has such a column already.
    """
    assert job.add_area is not None  # noqa: S101 - for mypy: it was asked for
    column, method = method_of(job, facts)
    with_field(facts, job.add_area, "OFTReal", "--add-area")
    return AddAreaStep(facts.label, column, method, job.add_area)


@dataclass(frozen=True, slots=True)
class AddAreaStep(Step):
    """Adds a field of areas.

    Attributes:
        label: the source's base name, for messages.
        column: the geometry column of the batches.
        method: how areas are measured.
        added: the field's name.
    """

    label: str
    column: str
    method: AreaMethod
    added: str

    name: ClassVar[str] = "add_area"
    is_filter: ClassVar[bool] = False

    def layer(self, layer: LayerFacts) -> LayerFacts:
        """With one field more."""
        return with_field(layer, self.added, "OFTReal", "--add-area")

    def schema(self, schema: Any) -> Any:
        """With one column more, of float64."""
        import pyarrow as pa

        return schema.append(pa.field(self.added, pa.float64()))

    def memory(self, batch_bytes: int, rows: int) -> int:
        """A block of vertices, and of each row its place."""
        return min(_BLOCK_BYTES, 8 * batch_bytes) + rows * _ROW_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The batch with its areas.

        Raises:
            DataError: a curve or a surface, or bytes that are no geometry.
        """
        import pyarrow as pa

        column = column_of(batch.column(batch.schema.get_field_index(self.column)))
        with measurable(column, self.label, tally, "area"):
            areas, broken = areas_of(column, self.method)
        if broken:
            raise damaged(self.label, broken, tally)
        array = pa.array(areas, pa.float64(), mask=np.isnan(areas))
        return pa.RecordBatch.from_arrays([*batch.columns, array], schema=self.schema(batch.schema))

    @property
    def facts(self) -> dict[str, Any]:
        """How areas are measured."""
        return {"add_area": self.added, "area": self.method.words}

    def reference(self, row: Row) -> Row | None:
        """With the area of the plain path."""
        from lib.vector.recompute import plain_area

        return row._replace(values={**row.values, self.added: plain_area(row.geometry, self.method)})

    def result(self, tally: Tally) -> dict[str, Any]:
        """How areas were measured."""
        del tally
        return {"area_mode": self.method.mode}

    def notes(self, tally: Tally) -> list[str]:
        """Of areas that are others than may be thought."""
        del tally
        return [self.method.note] if self.method.note else []
