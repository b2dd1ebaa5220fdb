"""Keep features whose geometry meets a polygon of a small file, in whatever CRS that is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyogrio.raw
import shapely

from lib.diagnosis import one_line
from lib.errors import SourceError
from lib.jobs import VectorJob
from lib.paths import is_local
from lib.units import MIB, format_bytes
from lib.vector import elsewhere, ogr
from lib.vector.region import Region, moved
from lib.vector.sources import LayerFacts
from lib.vector.steps.region import RegionStep, geometry_column, known_crs

_MOST_BYTES = 32 * MIB
_POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


def prepare(job: VectorJob, facts: LayerFacts) -> "IntersectsStep":
    """The step.

    Raises:
        SourceError: there are no geometries; the file cannot be read, is large, has several layers, or no polygons.
        UsageError: one of both has no CRS, or the polygons no place in the layer's.
    """
    assert job.intersects is not None  # noqa: S101 - for mypy: it was asked for
    column, path = geometry_column(facts, "--intersects"), job.intersects
    polygons, crs = _polygons(path)
    what = f"--intersects {path}"
    if crs is None and facts.crs:
        raise SourceError(
            f"{what} has no CRS, so that it cannot be laid over {facts.label}", hint="give it one: ogr2ogr -a_srs"
        )
    if crs is not None:
        polygons = moved(polygons, crs, known_crs(facts, "--intersects"), what)
    return IntersectsStep(facts.label, column, Region.of(polygons), f"{len(polygons)} polygons of {Path(path).name}")


@dataclass(frozen=True, slots=True)
class IntersectsStep(RegionStep):
    """Keeps the rows whose geometry meets a polygon of the file."""

    name: ClassVar[str] = "intersects"


def _polygons(path: str) -> tuple[Any, str | None]:
    """The polygons of a file, flat, (polygons,) objects; and its CRS."""
    if is_local(path) and not Path(path).exists():
        raise SourceError(
            f"--intersects {path} does not exist",
            hint="check the path; to verify an output, be beside the file, or name the run's report with --report",
        )
    name = elsewhere.named(path)
    size = _bytes(Path(name)) if is_local(name) else elsewhere.size(name)
    if size > _MOST_BYTES:
        raise SourceError(
            f"--intersects {path} is {format_bytes(size)} large: polygons of at most {format_bytes(_MOST_BYTES)} are read",
            hint="write those that are needed, or simpler ones, to a file of their own (`swath vector`)",
        )
    try:
        info, notes = ogr.read_info(name)
        with ogr.configured(), ogr.collected(notes), ogr.opening(name) as (opened, options):
            _, _, found, _ = pyogrio.raw.read(opened, columns=[], **options)
        shapes = shapely.from_wkb(found) if found is not None else np.array([])
    except MemoryError:
        raise
    except Exception as error:
        reason, hint = elsewhere.trouble(path)
        raise SourceError(
            f"--intersects {path} cannot be read: {reason or one_line(error)}", hint=hint or "check it with `ogrinfo`"
        ) from error
    if any(note.startswith("More than one layer") for note in notes):
        raise SourceError(
            f"--intersects {path} has several layers", hint="write the one that is meant to a file of its own"
        )
    parts = shapely.get_parts(shapely.force_2d(shapes[~shapely.is_missing(shapes) & ~shapely.is_empty(shapes)]))
    polygons = parts[np.isin(shapely.get_type_id(parts), _POLYGONS)]
    if not len(polygons):
        raise SourceError(f"--intersects {path} holds no polygons", hint="name a file that does")
    return polygons, info["crs"]


def _bytes(file: Path) -> int:
    if file.is_file():
        return file.stat().st_size
    return sum(each.stat().st_size for each in file.rglob("*") if each.is_file())
