"""Make invalid geometries valid, by GEOS: what overlaps itself is merged, and the family stays: polygons polygonal, lines lineal.

By GEOS's "structure" method: rings are what they say, exteriors or holes, so that parts that overlap lose no area, as they do
by its other one. Valid geometries pass unchanged, byte by byte. Single polygons and lines of a typed layer become multi, since
repaired ones may.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import shapely

from lib.errors import DataError
from lib.jobs import VectorJob
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally
from lib.vector.steps.rows import geometries_of, row_words, shapes_of, with_column, without_m
from lib.vector.wkb import values_of

_OBJECT_BYTES = 300
_PER_BATCH_BYTE = 4
# By shapely's type ids: dimension of a family's parts, and what it is where nothing is left of it. None: a collection, any part.
_LINEAL, _POLYGONAL = (1, 2, 5), (3, 6)


def prepare(job: VectorJob, facts: LayerFacts) -> "RepairStep":
    """The step.

    Raises:
        SourceError: there are no geometries.
    """
    del job
    return RepairStep(facts.label, geometries_of(facts, "--repair"))


def _repaired(shape: Any) -> Any:
    """A valid geometry of the same family; an empty one of its own type where nothing is left of it."""
    kind, found = shapely.get_type_id(shape), shapely.make_valid(shape, method="structure", keep_collapsed=False)
    family = next((each for each in (_LINEAL, _POLYGONAL) if kind in each), None)
    if family is None or (not found.is_empty and shapely.get_type_id(found) in family):
        return found
    parts = shapely.get_parts(shapely.get_parts(found))
    mine = parts[np.isin(shapely.get_type_id(parts), family)]
    if not len(mine):
        return shapely.from_wkt(f"{shape.geom_type.replace('LinearRing', 'LineString')} EMPTY")
    return shapely.union_all(mine) if family is _POLYGONAL else shapely.multilinestrings(mine)


@dataclass(frozen=True, slots=True)
class RepairStep(Step):
    """Makes invalid geometries valid.

    Attributes:
        label: the source's base name, for messages.
        column: the geometry column of the batches.
    """

    label: str
    column: str

    name: ClassVar[str] = "repair"
    is_filter: ClassVar[bool] = False
    keeps_geometry: ClassVar[bool] = False

    def layer(self, layer: LayerFacts) -> LayerFacts:
        """Of multi types where single ones may become such."""
        return replace(layer, may_be_multi=True)

    def memory(self, batch_bytes: int, rows: int) -> int:
        """Geometries as WKB, as GEOS has them, and those that are repaired."""
        return _PER_BATCH_BYTE * batch_bytes + rows * _OBJECT_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The batch with valid geometries.

        Raises:
            DataError: a geometry that GEOS does not read, or cannot repair without loss.
        """
        shapes = shapes_of(batch, self.column, self.label, tally)
        invalid = np.flatnonzero(~(shapely.is_valid(shapes) | shapely.is_missing(shapes)))
        if not len(invalid):
            return batch
        for at in invalid.tolist():
            shapes[at] = self._mended(shapes[at], at, tally)
        tally.counts.update(
            features_repaired=len(invalid), repaired_to_empty=int(shapely.is_empty(shapes[invalid]).sum())
        )
        array = batch.column(batch.schema.get_field_index(self.column))
        values = np.array(values_of(array), object)
        values[invalid] = shapely.to_wkb(shapes[invalid], byte_order=1, flavor="iso")
        return with_column(batch, self.column, pa.array(values, array.type))

    def _mended(self, shape: Any, at: int, tally: Tally) -> Any:
        if shape.has_m:
            raise without_m(self.label, tally, at, "is invalid, and not repaired")
        try:
            return _repaired(shape)
        except shapely.GEOSException as error:
            raise DataError(
                f"{self.label}: {row_words(tally, at)} cannot be repaired: {error}", hint="mend or remove it"
            ) from error

    def reference(self, row: Row) -> Row | None:
        """Likewise, of this row alone: GEOS is the judge of what is valid."""
        if row.geometry is None or row.geometry.is_valid:
            return row
        return row._replace(geometry=_repaired(row.geometry))

    def result(self, tally: Tally) -> dict[str, Any]:
        """How many were repaired, and of how many nothing was left."""
        return {key: tally.counts[key] for key in ("features_repaired", "repaired_to_empty")}

    def notes(self, tally: Tally) -> list[str]:
        """Of what became empty."""
        empty = tally.counts["repaired_to_empty"]
        words = f"{self.label}: {empty} features were empty when repaired: they had collapsed to points or lines"
        return [words] if empty else []
