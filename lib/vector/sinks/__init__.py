"""Sinks: formats that are written, one module each. Adding one is its module, its line here and its suffix in `lib/jobs.py`."""

from pathlib import Path

from lib.errors import DestinationError
from lib.jobs import VECTOR_DRIVERS, VectorJob
from lib.vector.sinks.base import PLAIN, Target, VectorSink
from lib.vector.sinks.flatgeobuf import FlatGeobuf
from lib.vector.sinks.geojson import GeoJSON, GeoJSONSeq
from lib.vector.sinks.gpkg import GeoPackage
from lib.vector.sinks.parquet import GeoParquet
from lib.vector.sinks.shapefile import Shapefile
from lib.vector.sources import LayerFacts

__all__ = ["SINKS", "Target", "VectorSink", "sink_for", "target_of"]

SINKS: dict[str, type[VectorSink]] = {
    sink.driver: sink for sink in (GeoPackage, FlatGeobuf, GeoParquet, GeoJSON, GeoJSONSeq, Shapefile)
}


def target_of(job: VectorJob) -> Target:
    """What a job wants of its output."""
    path = Path(job.destination)
    return Target(path.stem, path.suffix.lower(), not job.no_index, path if job.append and path.exists() else None)


def sink_for(driver: str, facts: LayerFacts, target: Target = PLAIN) -> VectorSink:
    """The sink for a layer.

    Raises:
        DestinationError: there is none, or it cannot hold such a layer.
    """
    if driver not in SINKS:
        raise DestinationError(
            f"vectors cannot be written as {driver}; they can as {' and '.join(SINKS)}",
            hint=f"name a file that ends in {', '.join(VECTOR_DRIVERS)}",
        )
    return SINKS[driver].of(facts, target)
