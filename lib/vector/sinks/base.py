"""What all sinks have: how a layer looks in the output, and the one call that writes it from a stream of batches.

A sink keeps the layer's name, geometry type, CRS and fields as the source has them. Geometries of sources that do not tell
polygons from multipolygons become multi, as `ogr2ogr` makes them. Spatial indexes are built.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import pyarrow as pa
import pyogrio

from lib import provenance
from lib.errors import DestinationError
from lib.paths import while_written
from lib.units import MIB
from lib.vector import ogr
from lib.vector.sinks.held import held, said_of, schema_held
from lib.vector.sinks.values import timely
from lib.vector.sources import LayerFacts
from lib.vector.wkb import promote_to_multi

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
# Lists become texts in formats that have none.
TEXT_LISTS: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("OFTStringList", "OFTIntegerList", "OFTInteger64List", "OFTRealList"), ("OFTString",)
)
# Formats that pack coordinates: 31 MiB of file geodatabase became 94 MiB of GeoPackage.
_PACKED = {"OpenFileGDB": 4}
_ROW_BYTES = 150


class Index(NamedTuple):
    """What an index or a row group takes, bytes: while features are written, and at the end in the memory that batches had.

    `is_beside`: it is built while features are written, by a thread.
    """

    held_bytes: int = 0
    built_bytes: int = 0
    is_beside: bool = False


NO_INDEX = Index()


@dataclass(slots=True)
class Met:
    """What a sink has met so far.

    Attributes:
        notes: what is to be said.
        gathered_bytes: the most that it has gathered before it wrote: what its index takes is partly measured by then.
        first: the type of the first geometry, where the layer does not say one.
        json_texts: fields of texts that were found to be JSON.
        rows: that went by.
        longest: the longest text of a field, bytes.
    """

    notes: list[str] = field(default_factory=list)
    gathered_bytes: int = 0
    first: str | None = None
    json_texts: set[str] = field(default_factory=set)
    rows: int = 0
    longest: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """What a job wants of its output.

    Attributes:
        name: the file's name without its extension, which is the layer's where a format has no other.
        suffix: the file's extension, with its dot, in lower case.
        index: whether there is to be a spatial index.
        append_to: the existing file that is added to.
    """

    name: str = "layer"
    suffix: str = ""
    index: bool = True
    append_to: Path | None = None


PLAIN = Target()


@dataclass(frozen=True, slots=True)
class VectorSink(ABC):
    """An output layer.

    Attributes:
        label: the source's base name, for messages.
        layer: its name.
        geometry_type: what it declares; None where there are no geometries.
        geometry_column: the geometry column of the batches; None where there is none.
        crs: `EPSG:…` or WKT.
        promotes: whether single geometries become multi.
        keeps_fids: whether the batches carry the source's feature ids.
        layer_options: GDAL's layer creation options.
        metadata: what the source's layer says of itself.
        has_fids: whether the source has feature ids of its own.
        changes: fields that become another type here, in words.
        met: what was met on the way.
    """

    label: str
    layer: str
    geometry_type: str | None
    geometry_column: str | None
    crs: str | None
    promotes: bool
    keeps_fids: bool
    layer_options: dict[str, str]
    metadata: Mapping[str, str]
    has_fids: bool
    changes: tuple[str, ...]
    met: Met = field(default_factory=Met, kw_only=True)

    driver: ClassVar[str]
    # Types of fields that it cannot keep, and what each may become.
    becomes: ClassVar[Mapping[str, tuple[str, ...]]]
    # Types of fields that it cannot hold at all, and what of them a cast to string makes.
    refuses: ClassVar[Mapping[str, str]] = {}
    # Subtypes that it does not keep.
    forgets: ClassVar[tuple[str, ...]]
    # Pages and buffers of its own, as far as a plan that writes nothing must know them; a job measures them.
    own_bytes: ClassVar[int]
    # What it holds of a large feature while it is written, as multiples of that.
    feature_copies: ClassVar[float]
    # What the output takes on disk, beside the source's size: 2 where features are written twice.
    disk_factor: ClassVar[int] = 1
    # Whether a layer has a name of its own, and says which type its geometries have and, where it is empty, its fields.
    names_layers: ClassVar[bool] = True
    declares_geometry: ClassVar[bool] = True
    declares_fields: ClassVar[bool] = True
    keeps_metadata: ClassVar[bool] = True
    # The names of the one CRS that it is in; empty where it says in which.
    only_crs: ClassVar[tuple[str, ...]] = ()
    # Whether its CRS is as ESRI words it.
    is_esri: ClassVar[bool] = False
    # Decimals that coordinates are rounded to; None where they are kept. Whether rings come back turned round, parts moved.
    decimals: ClassVar[int | None] = None
    turns_rings: ClassVar[bool] = False
    # Whether a layer that declares a type of geometries holds no others.
    needs_declared: ClassVar[bool] = False
    # Whether OGR writes it.
    by_ogr: ClassVar[bool] = True
    # Types of fields whose values come back as they were.
    exact: ClassVar[tuple[str, ...]] = ("OFTInteger", "OFTInteger64", "OFTReal", "OFTString")

    @classmethod
    @abstractmethod
    def of(cls, facts: LayerFacts, target: Target = PLAIN) -> Self:
        """The sink for a layer; raises DestinationError where it cannot hold such a one."""

    @classmethod
    def _of(cls, facts: LayerFacts, layer_options: dict[str, str], target: Target, *, keeps_fids: bool = False) -> Self:
        cls._check_types(facts)
        promotes = cls.promotes_of(facts)
        if promotes:
            import pyarrow.compute  # noqa: F401 - now, and not amid the work
        return cls(
            label=facts.label,
            layer=facts.layer if cls.names_layers else target.name,
            geometry_type=facts.written_type if promotes else _declared(facts.geometry_type),
            geometry_column=facts.geometry_name,
            crs=facts.crs,
            promotes=promotes,
            keeps_fids=keeps_fids,
            layer_options=layer_options,
            metadata={key: text for key, text in facts.metadata.items() if key not in provenance.KEYS},
            # Of a GeoJSON OGR names a field of numbers that it takes for ids.
            has_fids=(bool(facts.fid_column) and facts.fid_column not in facts.fields) or facts.has_ids,
            changes=tuple(cls._changes(facts)),
        )

    @classmethod
    def promotes_of(cls, facts: LayerFacts) -> bool:
        """Whether single geometries of a layer become multi."""
        return facts.is_multi_unsure

    @classmethod
    def _check_types(cls, facts: LayerFacts) -> None:
        for name, typed in zip(facts.fields, facts.field_types, strict=True):
            if (made := cls.refuses.get(typed.partition(":")[0])) is not None:
                raise DestinationError(
                    f"{facts.label}: field {name!r} is {typed.removeprefix('OFT')}, which {cls.driver} cannot hold",
                    hint=f"--cast {name}=string writes {made}; --select leaves it out; a .gpkg holds it",
                    field=name,
                )

    @classmethod
    def _changes(cls, facts: LayerFacts) -> Iterator[str]:
        for name, typed in zip(facts.fields, facts.field_types, strict=True):
            kind, _, subtype = typed.partition(":")
            new = cls.becomes.get(kind, (kind,))[0]
            if new != kind or subtype in cls.forgets:
                yield f"{name} ({typed.replace('OFT', '').replace('OFST', '').replace(':', ' ')} to {new.removeprefix('OFT')})"

    @abstractmethod
    def index(self, facts: LayerFacts, share: float) -> Index:
        """What its index takes; where its size is a choice, such a share of what makes it faster."""

    def index_beside(self, facts: LayerFacts) -> Index | None:
        """What its index takes where a thread builds it beside the pass; None where that is not worth it or cannot be."""
        del facts
        return None

    def config(self, index: Index) -> dict[str, str]:
        """GDAL's configuration for such an index."""
        del index
        return {}

    def disk(self, facts: LayerFacts) -> int:
        """Upper estimate of the output, bytes."""
        return self.disk_factor * (
            facts.source_bytes * _PACKED.get(facts.driver, 1) + max(facts.features, 0) * _ROW_BYTES + MIB
        )

    @abstractmethod
    def check(self, geometries: Any) -> None:
        """Raises OutputError where an Arrow WKB array has what the format cannot hold."""

    def conform(self, batch: Any) -> Any:
        """A batch as the sink can hold it.

        Raises:
            OutputError: it has what the format cannot hold.
        """
        if self.by_ogr:
            batch = held(batch, lambda words: self.note(f"{self.label}: {words} in {self.driver}"))
            batch = timely(self, batch)
        if self.geometry_column is None:
            return batch
        at = batch.schema.get_field_index(self.geometry_column)
        if self.promotes:
            batch = batch.set_column(at, batch.schema.field(at), promote_to_multi(batch.column(at)))
        self.check(batch.column(at))
        return batch

    def lost(self, schema: Any) -> list[str]:
        """What is to be said of fields of an Arrow schema that lose something here."""
        fields, notes = ogr.domains(schema), []
        if fields:
            words = f"{self.label}: values of {', '.join(fields)} are kept, the domains that list or bound them are not"
            notes.append(words)
        if self.changes:
            notes.append(f"{self.label}: fields change their type in {self.driver}: {', '.join(self.changes)}")
        if self.by_ogr and (zones := said_of(schema)):
            notes.append(f"{self.label}: {zones}")
        unsigned = [each.name for each in schema if _of_list(each.type) == pa.uint64()]
        if unsigned and self.by_ogr:
            words = f"{', '.join(unsigned)} (64 bits without a sign): exact up to 2^53 only"
            notes.append(f"{self.label}: whole numbers become floating point in {self.driver}: {words}")
        if self.has_fids and not self.keeps_fids:
            notes.append(f"{self.label}: feature ids are not kept, {self.driver} numbers features anew")
        if self.metadata and not self.keeps_metadata:
            words = ", ".join(self.metadata)
            notes.append(f"{self.label}: what the layer says of itself is not kept in {self.driver}: {words}")
        return notes

    @property
    def copied_bytes(self) -> int:
        """What of another file is copied into the output first."""
        return 0

    @property
    def adds_rows(self) -> bool:
        """Whether the layer exists already."""
        return False

    @property
    def features_before(self) -> int:
        """Features that the layer has beforehand."""
        return 0

    @property
    def layers_beside(self) -> dict[str, int]:
        """Features of the output's other layers, by name, which stay as they are."""
        return {}

    def fields(self, layer: LayerFacts) -> list[list[str]]:
        """Names and types of the output's fields, as far as the layer has such types."""
        return [list(pair) for pair in zip(self.names(layer.fields), layer.field_types, strict=True)]

    def names(self, fields: Sequence[str]) -> list[str]:
        """What fields are called in the output."""
        return list(fields)

    def check_size(self, facts: LayerFacts) -> None:  # noqa: B027 - most have no bound
        """Whether all features fit into the format; raises DiskRefused where they do not."""

    def note(self, words: str) -> None:
        """Have something said of what was met on the way, once."""
        if words not in self.met.notes:
            self.met.notes.append(words)

    def options(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """GDAL's layer creation options for an output that says this of itself."""
        del metadata
        return self.layer_options

    def write(
        self, path: Path, schema: Any, batches: Iterable[Any], metadata: dict[str, str], index: Index = NO_INDEX
    ) -> None:
        """Write the batches, as they come, into a new file; with an index that takes so much."""
        del index
        geometry = (
            {"geometry_name": self.geometry_column, "geometry_type": self.geometry_type} if self.geometry_type else {}
        )
        with while_written(path) as written:
            pyogrio.raw.write_arrow(
                pa.RecordBatchReader.from_batches(schema_held(schema), batches),
                ogr.literal(written),
                layer=self.layer,
                driver=self.driver,
                crs=self.crs,
                layer_options=self.options(metadata),
                append=self.adds_rows,
                # Of a GeoPackage's dataset, readers copy it into a sidecar .aux.xml.
                layer_metadata={**self.metadata, **metadata} if self.keeps_metadata else None,
                **geometry,
            )


def _of_list(kind: Any) -> Any:
    return kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind


def _declared(geometry_type: str | None) -> str | None:
    """What pyogrio can declare; other types are written as they are, under "Unknown"."""
    if geometry_type is None or geometry_type.removesuffix(" Z") in _WRITTEN_TYPES:
        return geometry_type
    return "Unknown"


def unused(names: tuple[str, ...], facts: LayerFacts) -> str:
    """The first name that no field of the layer has, whatever its case."""
    fields = {name.lower() for name in facts.fields}
    numbered = (f"{names[-1]}{number}" for number in count(2))
    return next(name for name in chain(names, numbered) if name not in fields)
