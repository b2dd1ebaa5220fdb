"""Simplify geometries by a tolerance in metres, each by itself, by GEOS: none becomes invalid, borders between two may part.

In a projected CRS metres are those of its plane. In a geographic one each feature is looked at on a plane of its own: longitudes
shrunk by the ellipsoid's radii at the middle of its latitudes, so that a metre is a metre in both directions there; vertices that
stay have the very coordinates that they had, Z among them.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Geod

from lib.errors import SourceError
from lib.jobs import VectorJob
from lib.vector.crs import is_known, unit_of
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally
from lib.vector.steps.rows import geometries_of, shapes_of, with_column, without_m, wkb_of

_OBJECT_BYTES = 400
_PER_BATCH_BYTE = 6
_LEAST_COSINE = 1e-3  # at a pole a degree of longitude is nothing


def prepare(job: VectorJob, facts: LayerFacts) -> "SimplifyStep":
    """The step.

    Raises:
        SourceError: there are no geometries, or no CRS in which a metre means anything.
    """
    column = geometries_of(facts, "--simplify")
    if not is_known(facts.crs):
        raise SourceError(
            f"{facts.label} has no CRS, so how long a metre is is unknown",
            hint="give it one with --assume-crs, such as EPSG:32633",
        )
    assert job.simplify is not None  # noqa: S101 - for mypy: it was asked for
    crs = CRS.from_user_input(facts.crs)
    if crs.is_geocentric or not crs.axis_info:
        raise SourceError(f"{facts.label}: {crs.name} is no CRS of a plane", hint="reproject it: ogr2ogr -t_srs")
    unit = unit_of(crs, facts.label)
    return SimplifyStep(facts.label, column, job.simplify, unit, crs.get_geod() if crs.is_geographic else None)


@dataclass(frozen=True, slots=True)
class SimplifyStep(Step):
    """Leaves vertices out.

    Attributes:
        label: the source's base name, for messages.
        column: the geometry column of the batches.
        metres: the tolerance.
        unit: what a coordinate unit is in radians (geographic) or metres.
        geod: the ellipsoid of a geographic CRS.
    """

    label: str
    column: str
    metres: float
    unit: float
    geod: Geod | None

    name: ClassVar[str] = "simplify"
    is_filter: ClassVar[bool] = False
    keeps_geometry: ClassVar[bool] = False

    def memory(self, batch_bytes: int, rows: int) -> int:
        """Geometries as WKB, as GEOS has them twice, and their coordinates."""
        return _PER_BATCH_BYTE * batch_bytes + rows * _OBJECT_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The batch with fewer vertices.

        Raises:
            DataError: a geometry that GEOS does not read, or has M, which it would drop.
        """
        shapes = shapes_of(batch, self.column, self.label, tally)
        if (has_m := shapely.has_m(shapes)).any():
            raise without_m(self.label, tally, int(has_m.argmax()), "is not simplified")
        tally.counts["vertices_before"] += int(shapely.get_num_coordinates(shapes).sum())
        shapes = self._simplified(shapes)
        tally.counts["vertices_after"] += int(shapely.get_num_coordinates(shapes).sum())
        return with_column(batch, self.column, wkb_of(shapes, batch.schema.field(self.column).type))

    def _simplified(self, shapes: NDArray[Any]) -> NDArray[Any]:
        """Z of the geometries that GEOS simplifies is the vertex's number, by which it gets back all that it was."""
        whole, of = shapely.get_coordinates(shapes, include_z=True, return_index=True)
        shrunk, tolerances = self._local(shapes)
        numbered = np.column_stack([whole[:, 0] * shrunk[of], whole[:, 1], np.arange(len(whole), dtype=np.float64)])
        flat = shapely.set_coordinates(shapely.force_3d(shapely.force_2d(shapes)), numbered)
        found = shapely.simplify(flat, tolerances)
        kept = shapely.get_coordinates(found, include_z=True)[:, 2].astype(np.int64)
        is_flat = ~shapely.has_z(shapes)
        found[is_flat] = shapely.force_2d(found[is_flat])
        simplified: NDArray[Any] = shapely.set_coordinates(found, whole[kept])
        return simplified

    def _local(self, shapes: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What each feature's x is multiplied by, and the tolerance in units of y, both (rows,)."""
        if self.geod is None:
            return np.ones(len(shapes)), np.full(len(shapes), self.metres / self.unit)
        bounds = np.nan_to_num(shapely.bounds(shapes))
        middle = np.clip((bounds[:, 1] + bounds[:, 3]) / 2 * self.unit, -math.pi / 2, math.pi / 2)
        # Radii of curvature of the prime vertical and of the meridian, N and M (Snyder 1987, 4-20 and 4-18).
        flat = 1 - self.geod.es * np.sin(middle) ** 2
        prime, meridian = self.geod.a / np.sqrt(flat), self.geod.a * (1 - self.geod.es) / flat**1.5
        shrunk = np.maximum(np.cos(middle), _LEAST_COSINE) * prime / meridian
        return shrunk, self.metres / (meridian * self.unit)

    @property
    def facts(self) -> dict[str, Any]:
        """The tolerance, and where it is measured."""
        where = "in the plane of the CRS" if self.geod is None else "at the middle of each feature's latitudes"
        return {"simplify": f"{self.metres:g} m, {where}"}

    def reference(self, row: Row) -> Row | None:
        """Likewise, of this row alone: there is no second opinion on what GEOS leaves out."""
        if row.geometry is None:
            return row
        return row._replace(geometry=self._simplified(np.array([row.geometry], object))[0])

    def result(self, tally: Tally) -> dict[str, Any]:
        """Vertices before and after."""
        return {key: tally.counts[key] for key in ("vertices_before", "vertices_after")}
