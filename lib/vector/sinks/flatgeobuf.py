"""FlatGeobuf: numbers features itself, in the order of its index; holds no null geometries and one dimension a layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from lib.errors import DestinationError, OutputError
from lib.units import MIB
from lib.vector.sinks.base import PLAIN, TEXT_LISTS, Index, Target, VectorSink
from lib.vector.sources import LayerFacts
from lib.vector.wkb import column_of

# GDAL's ogrflatgeobuflayer.cpp: an item for each feature while writing; at the end the tree's nodes, then a buffer of at most
# 100 MiB and a place for each feature in it, which comes from what the tree leaves in malloc's heap or beside it.
_ITEM_BYTES, _NODE_BYTES, _PLACE_BYTES = 56, 45, 32
_CODES = {"Point": 1, "LineString": 2, "Polygon": 3, "MultiPoint": 4, "MultiLineString": 5, "MultiPolygon": 6}
_BUFFER_MOST_BYTES = 100 * MIB
_MALLOC_MAPS_BYTES = 4 * MIB  # malloc maps what is larger by itself, and returns it


@dataclass(frozen=True, slots=True)
class FlatGeobuf(VectorSink):
    """A new FlatGeobuf."""

    driver: ClassVar[str] = "FlatGeobuf"
    becomes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "OFTDate": ("OFTDateTime", "OFTString"),
        "OFTTime": ("OFTString", "OFTDateTime"),
    } | TEXT_LISTS
    forgets: ClassVar[tuple[str, ...]] = ("OFSTJSON", "OFSTUUID")
    own_bytes: ClassVar[int] = 3 * MIB
    feature_copies: ClassVar[float] = 3.0
    disk_factor: ClassVar[int] = 2
    needs_declared: ClassVar[bool] = True

    @classmethod
    def of(cls, facts: LayerFacts, target: Target = PLAIN) -> Self:
        """The sink for a layer.

        Raises:
            DestinationError: a layer without geometries.
        """
        if facts.geometry_type is None:
            raise DestinationError(
                f"{facts.label}: layer {facts.layer} has no geometries, and FlatGeobuf needs them",
                hint="write a .gpkg",
            )
        return cls._of(facts, {} if target.index else {"SPATIAL_INDEX": "NO"}, target)

    @classmethod
    def promotes_of(cls, facts: LayerFacts) -> bool:
        """Those of a layer that is declared multi, too: GeoPackages may have single ones in such a one, and this may not."""
        kind = (facts.geometry_type or "").partition(" ")[0]
        return facts.is_multi_unsure or kind in ("MultiPolygon", "MultiLineString")

    def index(self, facts: LayerFacts, share: float) -> Index:
        """Items of all features, as how many are kept is not known beforehand, and at the end the tree over them."""
        del share
        if self.layer_options:
            return Index()
        features = max(facts.features, 0)
        tree = features * _NODE_BYTES
        kept_tree = tree if tree < _MALLOC_MAPS_BYTES else 0
        buffer = min(_BUFFER_MOST_BYTES, facts.source_bytes)
        return Index(features * _ITEM_BYTES, max(tree, buffer + max(features * _PLACE_BYTES, kept_tree)))

    def check(self, geometries: Any) -> None:
        """Null geometries; types and ordinates as declared: of "Unknown" layers it drops Z without a word, others it refuses.

        Raises:
            OutputError: there are such.
        """
        if geometries.null_count:
            raise OutputError(
                f"FlatGeobuf cannot hold null geometries, and layer {self.layer} has some",
                hint="write a .gpkg, or ask for --min-area-sqm, which drops them",
            )
        column = column_of(geometries)
        kind = (self.geometry_type or "Unknown").partition(" ")[0]
        others = int(((column.types > 0) & (column.types != _CODES.get(kind, 0))).sum()) if kind in _CODES else 0
        if others:
            multi = ", or --repair, which makes single ones multi" if kind in ("Polygon", "LineString") else ""
            raise OutputError(
                f"{self.label}: layer {self.layer} is declared {self.geometry_type}, but {others} of its features at hand have "
                "other types of geometry, which FlatGeobuf cannot hold",
                hint=f"write a .gpkg{multi}",
            )
        declared = 3 if (self.geometry_type or "").endswith(" Z") else 2
        wrong = int((column.dimensions[column.types > 0] != declared).sum())
        if wrong:
            has = "no Z" if declared == 2 else "Z"  # noqa: PLR2004 - X and Y
            raise OutputError(
                f"{self.label}: layer {self.layer} is declared {self.geometry_type}, with {has}, but {wrong} of its features "
                "have other dimensions, which FlatGeobuf cannot hold",
                hint="write a .gpkg: FlatGeobuf holds one dimension a layer",
            )
