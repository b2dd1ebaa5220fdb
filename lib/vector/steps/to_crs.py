"""Transform geometries to another CRS: every vertex by PROJ, x and y alone; edges between them are straight again there.

Nothing is cut at the antimeridian or clipped to where the CRS is good. A vertex that PROJ does not transform fails the job.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.transformer import TransformerGroup

from lib.errors import DataError, SourceError, UsageError
from lib.jobs import VectorJob
from lib.units import MIB
from lib.vector.coordinates import CurveError, DamagedError, moved
from lib.vector.crs import crs_name, is_known, normal_crs, way_between
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally
from lib.vector.steps.rows import geometries_of, row_words, with_column
from lib.vector.wkb import LINEAR_HINT

# Runs, positions and coordinates of a block of vertices; offsets and runs of each row.
_BLOCK_BYTES, _ROW_BYTES = 8 * MIB, 150


def prepare(job: VectorJob, facts: LayerFacts) -> "ToCrsStep":
    """The step.

    Raises:
        SourceError: there are no geometries, or no CRS to transform from.
        UsageError: no such CRS, or none for maps.
    """
    assert job.to_crs is not None  # noqa: S101 - for mypy: it was asked for
    try:
        wanted = normal_crs(job.to_crs)
    except ValueError as error:
        raise UsageError(f"--to-crs: {error}", hint="name one that PROJ knows, such as EPSG:32633") from error
    column = geometries_of(facts, "--to-crs")
    if not is_known(facts.crs):
        raise SourceError(
            f"{facts.label} has no CRS to transform from", hint="give it one with --assume-crs, such as EPSG:32633"
        )
    before, after = CRS.from_user_input(facts.crs), CRS.from_user_input(wanted)
    if after.is_geocentric or after.is_vertical:
        raise UsageError(f"--to-crs: {after.name} is no CRS of x and y", hint="name one such as EPSG:32633")
    transformer = way_between(before, after, facts.label)
    return ToCrsStep(facts.label, column, wanted, transformer, _note(before, after, facts.label))


def _note(before: CRS, after: CRS, label: str) -> str:
    """What PROJ could do better than it can here."""
    group = TransformerGroup(before, after, always_xy=True)
    words = f"{label}: PROJ has no better transformation to {after.name} here than"
    if group.best_available or not group.unavailable_operations:
        if group.transformers and group.transformers[0].description.startswith("Ballpark"):
            return f"{words} a ballpark one, which may be off by hundreds of metres"
        return ""
    best = group.unavailable_operations[0]
    grids = ", ".join(grid.short_name for grid in best.grids if not grid.available)
    got = group.transformers[0].accuracy if group.transformers else -1
    of_ours = f"one of {got:g} m" if got >= 0 else "one of unknown accuracy"
    of_best = f", of {best.accuracy:g} m" if best.accuracy >= 0 else ""
    return f"{words} {of_ours}: for the best{of_best}, its grid {grids} is missing (projsync fetches it)"


@dataclass(frozen=True, slots=True)
class ToCrsStep(Step):
    """Transforms geometries.

    Attributes:
        label: the source's base name, for messages.
        column: the geometry column of the batches.
        crs: that of what comes out, `EPSG:…` or WKT.
        transformer: PROJ's.
        note: what is to be said of it; empty where nothing is.
    """

    label: str
    column: str
    crs: str
    transformer: Transformer
    note: str

    name: ClassVar[str] = "to_crs"
    is_filter: ClassVar[bool] = False
    keeps_geometry: ClassVar[bool] = False

    def layer(self, layer: LayerFacts) -> LayerFacts:
        """In the other CRS."""
        return replace(layer, crs=self.crs, is_crs_assumed=False)

    def schema(self, schema: Any) -> Any:
        """Without the old CRS, which Arrow's extension type bears in its metadata."""
        at = schema.get_field_index(self.column)
        return schema.set(at, _without_crs(schema.field(at)))

    def memory(self, batch_bytes: int, rows: int) -> int:
        """A copy of the geometries, and a block of vertices."""
        return batch_bytes + min(_BLOCK_BYTES, 8 * batch_bytes) + rows * _ROW_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The batch with other coordinates.

        Raises:
            DataError: a curve, bytes that are no geometry, or a vertex that the CRS has no place for.
        """
        array = batch.column(batch.schema.get_field_index(self.column))
        try:
            array, failed = moved(array, self._move)
        except CurveError as error:
            raise self._refused(tally, error.row, "has a curve, which is none in another CRS") from error
        except DamagedError as error:
            raise self._refused(tally, error.row, "ends before its vertices do") from error
        if failed is not None:
            raise self._refused(tally, failed, f"has a vertex that has no place in {crs_name(self.crs)}")
        return with_column(batch, self.column, array, _without_crs)

    def _move(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(self.transformer.transform(xy[:, 0], xy[:, 1]))

    def _refused(self, tally: Tally, row: int, words: str) -> DataError:
        other = "drop such features, mend them, or choose a CRS that holds them"
        hint = LINEAR_HINT if "curve" in words else other
        return DataError(f"{self.label}: {row_words(tally, row)} {words}", hint=hint)

    @property
    def facts(self) -> dict[str, Any]:
        """The CRS."""
        return {"to_crs": crs_name(self.crs)}

    def reference(self, row: Row) -> Row | None:
        """By shapely, which walks the vertices itself."""
        import shapely

        if row.geometry is None:
            return row
        return row._replace(geometry=shapely.transform(row.geometry, self._move))

    def notes(self, tally: Tally) -> list[str]:
        """Of a transformation that could be better."""
        del tally
        return [self.note] if self.note else []


def _without_crs(field: Any) -> Any:
    kept = {key: text for key, text in (field.metadata or {}).items() if key != b"ARROW:extension:metadata"}
    return field.with_metadata(kept)
