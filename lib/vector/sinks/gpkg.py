"""GeoPackage: keeps feature ids from one to the next, as `ogr2ogr` does; its R-tree is built in bounded memory at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from lib.units import MIB
from lib.vector.sinks.base import PLAIN, TEXT_LISTS, Index, Target, VectorSink, unused
from lib.vector.sources import LayerFacts

# lib/MEASURED.md, "GeoPackage's R-tree": bytes an entry; more memory than the most makes it no faster.
_ENTRY_BYTES = 36
_NOT_FIRST = "`~!@#$%^&*()+-={}|[]\\:\";'<>?,./"  # of a layer's name, by ogrgeopackagedatasource.cpp
_LEAST_BYTES, _MOST_BYTES = 5 * MIB, 48 * MIB


@dataclass(frozen=True, slots=True)
class GeoPackage(VectorSink):
    """A layer of a new GeoPackage."""

    driver: ClassVar[str] = "GPKG"
    becomes: ClassVar[Mapping[str, tuple[str, ...]]] = {"OFTTime": ("OFTString",)} | TEXT_LISTS
    forgets: ClassVar[tuple[str, ...]] = ("OFSTUUID",)
    own_bytes: ClassVar[int] = 10 * MIB
    feature_copies: ClassVar[float] = 3.5

    @classmethod
    def of(cls, facts: LayerFacts, target: Target = PLAIN) -> Self:
        """The sink for a layer, of any kind."""
        is_own = facts.driver == cls.driver
        keeps_fids = is_own and bool(facts.fid_column)
        fid = facts.fid_column if keeps_fids else unused(("fid", "ogc_fid", "swath_fid"), facts)
        options = {"FID": fid}
        if facts.geometry_type:
            own_name = facts.geometry_name if is_own else None
            options["GEOMETRY_NAME"] = own_name or unused(("geom", "geometry", "wkb_geometry"), facts)
        # GDAL refuses a name that begins so, which a Shapefile's may.
        layer = facts.layer.lstrip(_NOT_FIRST) or "layer"
        return replace(cls._of(facts, options, target, keeps_fids=keeps_fids), layer=layer)

    def index(self, facts: LayerFacts, share: float) -> Index:
        """The R-tree, which GDAL builds in no more memory than it is told; none where there are no geometries."""
        if not facts.geometry_name:
            return Index()
        wanted = min(max(facts.features, 0) * _ENTRY_BYTES, _MOST_BYTES)
        return Index(built_bytes=max(min(wanted, _LEAST_BYTES), int(wanted * share)))

    def check(self, geometries: Any) -> None:
        """It holds all."""

    def config(self, index: Index) -> dict[str, str]:
        """The R-tree is built behind the pass: beside it, in a thread, it takes 34 MiB more, whatever its limit."""
        return {
            "OGR_GPKG_ALLOW_THREADED_RTREE": "NO",
            "OGR_GPKG_MAX_RAM_USAGE_RTREE": str(max(index.built_bytes, _LEAST_BYTES)),
        }
