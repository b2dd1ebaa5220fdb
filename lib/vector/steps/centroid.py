"""A point instead of each geometry: its centroid in the plane of the layer's CRS, by GEOS. Null stays null, empty stays empty."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import shapely

from lib.jobs import VectorJob
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally
from lib.vector.steps.rows import geometries_of, shapes_of, with_column, wkb_of

_OBJECT_BYTES = 300  # of GEOS, and WKB as Python's bytes
_PER_BATCH_BYTE = 3


def prepare(job: VectorJob, facts: LayerFacts) -> "CentroidStep":
    """The step.

    Raises:
        SourceError: there are no geometries.
    """
    del job
    return CentroidStep(facts.label, geometries_of(facts, "--centroid"))


@dataclass(frozen=True, slots=True)
class CentroidStep(Step):
    """Makes points of geometries.

    Attributes:
        label: the source's base name, for messages.
        column: the geometry column of the batches.
    """

    label: str
    column: str

    name: ClassVar[str] = "centroid"
    is_filter: ClassVar[bool] = False
    keeps_geometry: ClassVar[bool] = False

    def layer(self, layer: LayerFacts) -> LayerFacts:
        """Of points, without Z and M."""
        return replace(layer, geometry_type="Point", may_be_multi=False)

    def memory(self, batch_bytes: int, rows: int) -> int:
        """Geometries as WKB, as GEOS has them, and points."""
        return _PER_BATCH_BYTE * batch_bytes + rows * _OBJECT_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The batch with points.

        Raises:
            DataError: a geometry that GEOS does not read.
        """
        points = shapely.centroid(shapes_of(batch, self.column, self.label, tally))
        return with_column(batch, self.column, wkb_of(points, batch.schema.field(self.column).type))

    def reference(self, row: Row) -> Row | None:
        """Likewise: there is no second opinion on it."""
        return row._replace(geometry=None if row.geometry is None else row.geometry.centroid)
