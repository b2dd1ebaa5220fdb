"""Keep features whose geometry meets a box, given in the layer's CRS or in another one."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyproj
import shapely

from lib.errors import UsageError
from lib.jobs import VectorJob
from lib.vector.crs import crs_name, normal_crs
from lib.vector.region import Region, moved
from lib.vector.sources import Box, LayerFacts
from lib.vector.steps.region import RegionStep, geometry_column, known_crs

# Latitudes and longitudes, in degrees, of the CRSs of which all places are known.
_MOST_LATITUDE = 90.0
_MOST_LONGITUDE = 360.0  # some layers count from 0 to 360
# Of what a CRS is made for, as much again on every side: boxes are drawn generously.
_AROUND = 1.0


def prepare(job: VectorJob, facts: LayerFacts) -> "BoxStep":
    """The step.

    Raises:
        SourceError: there are no geometries.
        UsageError: the box's CRS is none, the box has no place there or in the layer's, or its axes are swapped.
    """
    assert job.bbox is not None  # noqa: S101 - for mypy: it was asked for
    column, box, words = geometry_column(facts, "--bbox"), job.bbox, ",".join(f"{each:.15g}" for each in job.bbox)
    crs = facts.crs
    if job.bbox_crs is not None:
        try:
            crs = normal_crs(job.bbox_crs)
        except ValueError as error:
            raise UsageError(f"--bbox-crs: {error}", hint="name one such as EPSG:4326") from error
    if crs:
        _check_order(box, pyproj.CRS.from_user_input(crs))
    polygons: Any = np.array([shapely.box(*box)])
    if job.bbox_crs is not None and crs:
        polygons = moved(polygons, crs, known_crs(facts, "--bbox-crs"), f"--bbox {words}")
    return BoxStep(facts.label, column, Region.of(polygons), f"{words} in {crs_name(crs)}")


@dataclass(frozen=True, slots=True)
class BoxStep(RegionStep):
    """Keeps the rows whose geometry meets the box."""

    name: ClassVar[str] = "bbox"


def _check_order(box: Box, crs: Any) -> None:
    """That x comes before y, as far as the box tells: latitudes end at 90, and a CRS is made for a part of the world."""
    left, low, right, high = box
    swapped = low, left, high, right
    words = ",".join(f"{each:.15g}" for each in swapped)
    if crs.is_geographic:
        degrees = np.degrees(crs.axis_info[0].unit_conversion_factor)
        if max(abs(low), abs(high)) * degrees > _MOST_LATITUDE:
            raise UsageError(
                f"--bbox: {low:.15g} to {high:.15g} are no latitudes", hint=f"x (longitude) comes first: {words}"
            )
        if max(abs(left), abs(right)) * degrees > _MOST_LONGITUDE:
            raise UsageError(
                f"--bbox: {left:.15g} to {right:.15g} are no longitudes",
                hint="a box is in the CRS of the layer, here in degrees, or in that which --bbox-crs names",
            )
    if (area := crs.area_of_use) is None:
        return
    around = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform_bounds(*area.bounds)
    if np.isfinite(around).all() and not _meet(box, around) and _meet(swapped, around):
        raise UsageError(
            f"--bbox lies far from where {crs.name} is used, and would not with x and y swapped",
            hint=f"x (easting, longitude) comes first: {words}",
        )


def _meet(box: Box, around: Box) -> bool:
    left, low, right, high = around
    wide, tall = (right - left) * _AROUND, (high - low) * _AROUND
    return box[2] >= left - wide and box[0] <= right + wide and box[3] >= low - tall and box[1] <= high + tall
