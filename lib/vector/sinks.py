"""Sinks: what a GeoPackage or FlatGeobuf layer is to look like, and the one call that writes it from a stream of batches.

A sink keeps the layer's name, geometry type, CRS and fields as the source has them. Feature ids are kept from GeoPackage to
GeoPackage, as `ogr2ogr` does; FlatGeobuf numbers features itself. Geometries of Shapefiles, which do not tell polygons from
multipolygons, become multi, as `ogr2ogr` makes them. Spatial indexes are built.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyogrio

from lib.errors import DestinationError, OutputError
from lib.vector import ogr
from lib.vector.facts import LayerFacts
from lib.vector.wkb import column_of, promote_to_multi

__all__ = ["DRIVERS", "Sink", "sink_for"]

DRIVERS = ("GPKG", "FlatGeobuf")
_WRITTEN_TYPES = (
    "Unknown",
    "Point",
    "LineString",
    "Polygon",
    "MultiPoint",
    "MultiLineString",
    "MultiPolygon",
    "GeometryCollection",
)


@dataclass(frozen=True, slots=True)
class Sink:
    """An output layer.

    Attributes:
        label: the source's base name, for messages.
        driver: "GPKG" or "FlatGeobuf".
        layer: its name.
        geometry_type: what it declares; None where there are no geometries.
        geometry_column: the geometry column of the batches.
        geometry_name: the geometry column of the output.
        fid_column: the feature id column of the output, GPKG only.
        keeps_fids: whether the batches carry the source's feature ids in that column.
        promotes: whether single geometries become multi.
        crs: `EPSG:…` or WKT.
    """

    label: str
    driver: str
    layer: str
    geometry_type: str | None
    geometry_column: str | None
    geometry_name: str
    fid_column: str
    keeps_fids: bool
    promotes: bool
    crs: str | None

    def conform(self, batch: Any) -> Any:
        """A batch as the sink can hold it.

        Raises:
            OutputError: FlatGeobuf and null geometries, or other dimensions than the layer's.
        """
        if self.geometry_column is None:
            return batch
        at = batch.schema.get_field_index(self.geometry_column)
        geometries = batch.column(at)
        if self.driver == "FlatGeobuf" and geometries.null_count:
            raise OutputError(
                f"FlatGeobuf cannot hold null geometries, and layer {self.layer} has some",
                hint="write a .gpkg, or ask for --min-area-sqm, which drops them",
            )
        if self.driver == "FlatGeobuf":
            self._check_dimensions(geometries)
        if not self.promotes:
            return batch
        return batch.set_column(at, batch.schema.field(at), promote_to_multi(geometries))

    def _check_dimensions(self, geometries: Any) -> None:
        """Ordinates as the layer declares them: of "Unknown" layers FlatGeobuf drops Z without a word, others it refuses."""
        column = column_of(geometries)
        declared = 3 if (self.geometry_type or "").endswith(" Z") else 2
        known = column.types > 0
        wrong = int((column.dimensions[known] != declared).sum())
        if wrong:
            has = "no Z" if declared == 2 else "Z"  # noqa: PLR2004 - X and Y
            raise OutputError(
                f"{self.label}: layer {self.layer} is declared {self.geometry_type}, with {has}, but {wrong} of its features "
                "have other dimensions, which FlatGeobuf cannot hold",
                hint="write a .gpkg: FlatGeobuf holds one dimension a layer",
            )

    def write(self, path: Path, schema: Any, batches: Iterable[Any], metadata: dict[str, str]) -> None:
        """Write the batches, as they come, into a new file."""
        layer_options: dict[str, str] = {}
        if self.driver == "GPKG":
            layer_options |= {"FID": self.fid_column}
            if self.geometry_type:
                layer_options |= {"GEOMETRY_NAME": self.geometry_name}
        geometry = (
            {"geometry_name": self.geometry_column, "geometry_type": self.geometry_type} if self.geometry_type else {}
        )
        pyogrio.raw.write_arrow(
            pa.RecordBatchReader.from_batches(schema, batches),
            path,
            layer=self.layer,
            driver=self.driver,
            crs=self.crs,
            layer_options=layer_options,
            layer_metadata=metadata,  # of a GeoPackage's dataset, readers copy it into a sidecar .aux.xml
            **geometry,
        )


def sink_for(driver: str, facts: LayerFacts) -> Sink:
    """The sink for a layer.

    Raises:
        DestinationError: no such sink, or FlatGeobuf for a layer without geometries.
    """
    if driver not in DRIVERS:
        raise DestinationError(
            f"vectors cannot be written as {driver}; they can as {' and '.join(DRIVERS)}",
            hint="name a .gpkg or .fgb file",
        )
    if driver == "FlatGeobuf" and facts.geometry_type is None:
        raise DestinationError(
            f"{facts.label}: layer {facts.layer} has no geometries, and FlatGeobuf needs them", hint="write a .gpkg"
        )
    fields = {name.lower() for name in facts.fields}
    keeps_fids = driver == "GPKG" and facts.driver == "GPKG" and bool(facts.fid_column)
    promotes = facts.driver == "ESRI Shapefile" and (facts.geometry_type or "").startswith(("Polygon", "LineString"))
    own_name = facts.geometry_name if facts.driver == "GPKG" else None
    return Sink(
        label=facts.label,
        driver=driver,
        layer=facts.layer,
        geometry_type=f"Multi{facts.geometry_type}" if promotes else _declared(facts.geometry_type),
        geometry_column=facts.geometry_name,
        geometry_name=own_name or _unused(("geom", "geometry", "wkb_geometry"), fields),
        fid_column=facts.fid_column if keeps_fids else _unused(("fid", "ogc_fid", "swath_fid"), fields),
        keeps_fids=keeps_fids,
        promotes=promotes,
        crs=facts.crs,
    )


def _declared(geometry_type: str | None) -> str | None:
    """What pyogrio can declare; other types are written as they are, under "Unknown"."""
    if geometry_type is None or geometry_type.removesuffix(" Z") in _WRITTEN_TYPES:
        return geometry_type
    return "Unknown"


def _unused(names: tuple[str, ...], fields: set[str]) -> str:
    return next((name for name in names if name not in fields), names[-1] + "_")


def read_info_of(path: Path, layer: str | None = None) -> dict[str, Any]:
    """An output's description, its features counted where the header has no number (an empty FlatGeobuf)."""
    info, _ = ogr.read_info(str(path), layer, count=True)
    return info
