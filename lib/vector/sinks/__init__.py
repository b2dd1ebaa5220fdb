"""Sinks: formats that are written, one module each. Adding one is its module, its line here and its suffix in `lib/jobs.py`."""

from lib.errors import DestinationError
from lib.vector.sinks.base import VectorSink
from lib.vector.sinks.flatgeobuf import FlatGeobuf
from lib.vector.sinks.gpkg import GeoPackage
from lib.vector.sources import LayerFacts

__all__ = ["SINKS", "VectorSink", "sink_for"]

SINKS: dict[str, type[VectorSink]] = {"GPKG": GeoPackage, "FlatGeobuf": FlatGeobuf}


def sink_for(driver: str, facts: LayerFacts) -> VectorSink:
    """The sink for a layer.

    Raises:
        DestinationError: there is none, or it cannot hold such a layer.
    """
    if driver not in SINKS:
        raise DestinationError(
            f"vectors cannot be written as {driver}; they can as {' and '.join(SINKS)}",
            hint="name a .gpkg or .fgb file",
        )
    return SINKS[driver].of(facts)
