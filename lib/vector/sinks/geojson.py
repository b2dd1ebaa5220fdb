"""GeoJSON as RFC 7946 has it, and GeoJSON text sequences: longitude and latitude on WGS 84, so many decimals, no index.

What is not said in the file OGR finds out from all features: types of fields, the geometries' type.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyarrow as pa

from lib import provenance
from lib.errors import DestinationError, OutputError
from lib.units import MIB
from lib.vector.crs import crs_name, same_crs
from lib.vector.sinks.base import PLAIN, Index, Target, VectorSink
from lib.vector.sinks.values import finite
from lib.vector.sources import LayerFacts
from lib.vector.sources.facts import GEOJSON_ID_BYTES
from lib.vector.wkb import column_of, has_m

_CRS = "EPSG:4326"
# As OGR calls it where there are heights; it reads the same file as either.
_WITH_HEIGHTS = "EPSG:4979"
_COLLECTION = 7  # the last of the types that it has
_OF_JSON = r"(?s)^(\{.*\}|\[.*\])$"
# A tenth of a millimetre at the equator; RFC 7946 finds 6 to be enough for most.
_DECIMALS = 9
_FOUND = ("OFTString", "OFTDate", "OFTDateTime", "OFTTime")


@dataclass(frozen=True, slots=True)
class GeoJSON(VectorSink):
    """A new GeoJSON file."""

    driver: ClassVar[str] = "GeoJSON"
    # The first is what it becomes; the others are what is read of it where all its values happen to look like that.
    becomes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "OFTString": _FOUND,
        "OFTInteger": ("OFTInteger", "OFTString"),
        "OFTInteger64": ("OFTInteger64", "OFTInteger", "OFTString"),
        "OFTReal": ("OFTReal", "OFTString"),
        "OFTDate": ("OFTDate", "OFTString"),
        "OFTTime": ("OFTTime", "OFTString"),
        "OFTDateTime": ("OFTDateTime", "OFTString"),
        "OFTStringList": ("OFTStringList", "OFTString"),
        "OFTIntegerList": ("OFTIntegerList", "OFTString"),
        "OFTInteger64List": ("OFTInteger64List", "OFTIntegerList", "OFTString"),
        "OFTRealList": ("OFTRealList", "OFTString"),
    }
    refuses: ClassVar[Mapping[str, str]] = {"OFTBinary": "its bytes as hexadecimal digits"}
    forgets: ClassVar[tuple[str, ...]] = ("OFSTUUID", "OFSTInt16", "OFSTFloat32")
    own_bytes: ClassVar[int] = 3 * MIB
    # GDAL makes objects of every number: 1139 MiB of a polygon of 30.5 (lib/MEASURED.md, "GeoJSON's objects").
    feature_copies: ClassVar[float] = 40.0
    declares_geometry: ClassVar[bool] = False
    declares_fields: ClassVar[bool] = False
    only_crs: ClassVar[tuple[str, ...]] = (_CRS, _WITH_HEIGHTS)
    keeps_metadata: ClassVar[bool] = False
    decimals: ClassVar[int | None] = _DECIMALS
    turns_rings: ClassVar[bool] = True
    disk_factor: ClassVar[int] = 3

    @classmethod
    def of(cls, facts: LayerFacts, target: Target = PLAIN) -> Self:
        """The sink for a layer.

        Raises:
            DestinationError: it has geometries in another CRS than RFC 7946's, or does not say in which.
        """
        if facts.geometry_type is not None:
            _check_crs(facts, cls.driver)
        options = {
            "RFC7946": "YES",
            "COORDINATE_PRECISION": str(_DECIMALS),
            "WRAPDATELINE": "NO",  # which moves vertices by rules of thumb
            "AUTODETECT_JSON_STRINGS": "NO",
        }
        return cls._of(facts, options, target)

    def index(self, facts: LayerFacts, share: float) -> Index:
        """None; what OGR holds of the features' ids when the output is read again."""
        del share
        return Index(built_bytes=max(facts.features, 0) * GEOJSON_ID_BYTES)

    def check(self, geometries: Any) -> None:
        """Curves, surfaces and M.

        Raises:
            OutputError: there are such.
        """
        column = column_of(geometries)
        for what, wrong in (("M", has_m(column)), ("curves or surfaces", column.types > _COLLECTION)):
            if wrong.any():
                raise OutputError(
                    f"{self.label}: {self.driver} cannot hold {what}, and some of the layer's geometries have such",
                    hint="write a .gpkg",
                )

    def conform(self, batch: Any) -> Any:
        """A batch as it can be written: numbers that are not finite are null."""
        return finite(self, VectorSink.conform(self, batch))

    def lost(self, schema: Any) -> list[str]:
        """What is to be said of fields, and of coordinates."""
        said = f"{self.label}: coordinates are rounded to {_DECIMALS} decimals in {self.driver}"
        return [*VectorSink.lost(self, schema), *([said] if self.geometry_column else [])]

    def options(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """GDAL's layer creation options: provenance goes in as members of the collection."""
        members = {key: text for key, text in metadata.items() if key in provenance.KEYS}
        return {**self.layer_options, "FOREIGN_MEMBERS_COLLECTION": json.dumps(members)}


@dataclass(frozen=True, slots=True)
class GeoJSONSeq(GeoJSON):
    """A new GeoJSON text sequence: a feature a line, or with a record separator before each (.geojsons)."""

    driver: ClassVar[str] = "GeoJSONSeq"
    names_layers: ClassVar[bool] = False
    # A text that reads as JSON is written as that.
    exact: ClassVar[tuple[str, ...]] = ("OFTInteger", "OFTInteger64", "OFTReal")

    @classmethod
    def of(cls, facts: LayerFacts, target: Target = PLAIN) -> Self:
        """The sink for a layer; raises DestinationError likewise."""
        import pyarrow.compute  # noqa: F401 - now, and not amid the work

        if facts.geometry_type is not None:
            _check_crs(facts, cls.driver)
        options = {"COORDINATE_PRECISION": str(_DECIMALS), "RS": "YES" if target.suffix == ".geojsons" else "NO"}
        return cls._of(facts, options, target)

    def conform(self, batch: Any) -> Any:
        """A batch as it can be written: of texts that read as JSON is said what becomes of them."""
        batch = GeoJSON.conform(self, batch)
        for each, column in zip(batch.schema, batch.columns, strict=True):
            if pa.types.is_string(each.type) and each.name not in self.met.json_texts and _has_json(column):
                self.met.json_texts.add(each.name)
                self.note(
                    f"{self.label}: texts of field {each.name!r} that are JSON become objects and lists in {self.driver}; "
                    "a .geojson keeps them as texts"
                )
        return batch

    def index(self, facts: LayerFacts, share: float) -> Index:
        """None."""
        del facts, share
        return Index()

    def options(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """GDAL's layer creation options; there is no place for provenance."""
        del metadata
        return self.layer_options


def _has_json(column: Any) -> bool:
    """Whether a text is one that OGR writes as what it says: it begins and ends as an object or a list, and parses."""
    import pyarrow.compute as pc

    alike = pc.match_substring_regex(column, _OF_JSON)
    return any(_is_json(each) for each in column.filter(alike).to_pylist())


def _is_json(text: str | None) -> bool:
    try:
        json.loads(text or "?")
    except ValueError:
        return False
    return True


def _check_crs(facts: LayerFacts, driver: str) -> None:
    if not facts.crs:
        raise DestinationError(
            f"{facts.label} has no CRS, and {driver} (RFC 7946) is in longitude and latitude on WGS 84",
            hint="say what it is in with --assume-crs, or write a .gpkg",
        )
    if not any(same_crs(facts.crs, each) for each in (_CRS, _WITH_HEIGHTS)):
        raise DestinationError(
            f"{facts.label} is in {crs_name(facts.crs)}, and {driver} (RFC 7946) is in longitude and latitude on WGS 84",
            hint=f"transform it with --to-crs {_CRS}, or write a .gpkg",
        )
