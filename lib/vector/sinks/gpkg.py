"""GeoPackage: keeps feature ids from one to the next, as `ogr2ogr` does; its R-tree is built in bounded memory, behind or beside.

What is added to an existing file goes into a copy of it, made page by page under SQLite's own lock.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from lib import provenance
from lib.errors import OutputError
from lib.units import MIB
from lib.vector import ogr
from lib.vector.sinks.base import NO_INDEX, PLAIN, TEXT_LISTS, Index, Target, VectorSink, unused
from lib.vector.sinks.existing import Existing, copied, looked_at, marks
from lib.vector.sources import LayerFacts

# lib/MEASURED.md, "GeoPackage's R-tree": bytes an entry; more memory than the most makes it no faster.
_ENTRY_BYTES = 36
_NOT_FIRST = "`~!@#$%^&*()+-={}|[]\\:\";'<>?,./"  # of a layer's name, by ogrgeopackagedatasource.cpp
_LEAST_BYTES, _MOST_BYTES = 5 * MIB, 48 * MIB
# lib/MEASURED.md, "An R-tree beside the pass": features from which on it is worth a thread, SQLite's pages then, and its own.
_BESIDE_FEATURES = 300_000
_CACHE_MIB, _THREAD_BYTES = 10, 4 * MIB


def most_index_bytes(facts: LayerFacts) -> int:
    """What an R-tree of all features takes at most, bytes."""
    return min(max(facts.features, 0) * _ENTRY_BYTES, _MOST_BYTES)


@dataclass(frozen=True, slots=True)
class GeoPackage(VectorSink):
    """A layer of a new GeoPackage, or of a copy of an existing one.

    Attributes:
        existing: what is added to; None for a new file.
    """

    existing: Existing | None = None

    driver: ClassVar[str] = "GPKG"
    becomes: ClassVar[Mapping[str, tuple[str, ...]]] = {"OFTTime": ("OFTString",)} | TEXT_LISTS
    forgets: ClassVar[tuple[str, ...]] = ("OFSTUUID",)
    own_bytes: ClassVar[int] = 10 * MIB
    feature_copies: ClassVar[float] = 3.5

    @classmethod
    def of(cls, facts: LayerFacts, target: Target = PLAIN) -> Self:
        """The sink for a layer, of any kind.

        Raises:
            DestinationError: it is added to a layer that is otherwise.
        """
        is_own = facts.driver == cls.driver
        keeps_fids = is_own and bool(facts.fid_column)
        fid = facts.fid_column if keeps_fids else unused(("fid", "ogc_fid", "swath_fid"), facts)
        options = {"FID": fid}
        if facts.geometry_type:
            own_name = facts.geometry_name if is_own else None
            options["GEOMETRY_NAME"] = own_name or unused(("geom", "geometry", "wkb_geometry"), facts)
        # GDAL refuses a name that begins so, which a Shapefile's may.
        layer = facts.layer.lstrip(_NOT_FIRST) or "layer"
        if not target.index:
            options["SPATIAL_INDEX"] = "NO"
        existing = looked_at(target.append_to, layer, facts, cls.becomes) if target.append_to else None
        is_added_to = existing is not None and existing.layer is not None
        sink = cls._of(facts, options, target, keeps_fids=keeps_fids and not is_added_to)
        return replace(sink, layer=(existing and existing.layer) or layer, existing=existing)

    def index(self, facts: LayerFacts, share: float) -> Index:
        """The R-tree, which GDAL builds in no more memory than it is told; none where there are no geometries."""
        if not facts.geometry_name or self.layer_options.get("SPATIAL_INDEX") == "NO":
            return Index()
        wanted = most_index_bytes(facts)
        return Index(built_bytes=max(min(wanted, _LEAST_BYTES), int(wanted * share)))

    def check(self, geometries: Any) -> None:
        """It holds all."""

    def index_beside(self, facts: LayerFacts) -> Index | None:
        """The R-tree of all features, held while they are written, and more of SQLite's pages than the 2 MiB that it has else."""
        if facts.features < _BESIDE_FEATURES or self.existing or not self.index(facts, 1.0).built_bytes:
            return None
        return Index(facts.features * _ENTRY_BYTES + _CACHE_MIB * MIB + _THREAD_BYTES, is_beside=True)

    def config(self, index: Index) -> dict[str, str]:
        """The R-tree is built behind the pass or beside it, in no more memory; what is beyond SQLite inserts one by one."""
        return {
            "OGR_GPKG_ALLOW_THREADED_RTREE": "YES" if index.is_beside else "NO",
            "OGR_GPKG_MAX_RAM_USAGE_RTREE": str(max(index.built_bytes, index.held_bytes, _LEAST_BYTES)),
        }

    @property
    def copied_bytes(self) -> int:
        """Size of the file that is added to."""
        return self.existing.size_bytes if self.existing else 0

    @property
    def adds_rows(self) -> bool:
        """Whether the layer exists already."""
        return self.existing is not None and self.existing.layer is not None

    @property
    def features_before(self) -> int:
        """Rows of the layer that is added to."""
        return self.existing.features if self.existing else 0

    @property
    def layers_beside(self) -> dict[str, int]:
        """Rows of the other layers of the file that is added to."""
        return self.existing.others if self.existing else {}

    def fields(self, layer: LayerFacts) -> list[list[str]]:
        """Names and types of fields: those that there are in a layer that is added to."""
        return self.existing.fields if self.existing and self.adds_rows else VectorSink.fields(self, layer)

    def write(
        self, path: Path, schema: Any, batches: Iterable[Any], metadata: dict[str, str], index: Index = NO_INDEX
    ) -> None:
        """Write the batches, as they come, into a new file, or into a copy of the existing one.

        Raises:
            OutputError: the existing file was changed meanwhile.
        """
        if self.existing is None:
            # Only here: the source's own pages are read once, in their order.
            with ogr.configured(OGR_SQLITE_CACHE=str(_CACHE_MIB)) if index.is_beside else nullcontext():
                VectorSink.write(self, path, schema, batches, metadata, index)
            return
        before = copied(self.existing.path, path)
        sink = self
        if self.adds_rows:  # rows of two jobs: neither made them all
            metadata = dict.fromkeys(provenance.KEYS, "")
            sink = replace(self, metadata=self.existing.metadata)
        VectorSink.write(sink, path, schema, batches, metadata, index)
        if marks(self.existing.path) != before:
            raise OutputError(
                f"{self.existing.path.name} was changed by another program while it was added to: nothing is published",
                hint="run again when that program has ended",
            )
