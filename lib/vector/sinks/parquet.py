"""GeoParquet 1.1: written by pyarrow in row groups of bounded bytes, geometries as WKB, each feature's box beside it.

What the footer says of geometries (their types, their box) is gathered on the way. Layout: geoparquet.org/releases/v1.1.0.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from lib.errors import OutputError
from lib.units import MIB
from lib.vector.sinks.base import NO_INDEX, PLAIN, Index, Target, VectorSink, unused
from lib.vector.sinks.values import known_of
from lib.vector.sources import LayerFacts
from lib.vector.wkb import column_of, has_m

_TYPES = ("", "Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon", "GeometryCollection")
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_BOX_TYPE = pa.struct([pa.field(side, pa.float32()) for side in _SIDES])
# A row group's features are held, in buffers that OGR made larger than they need be, and what it is encoded to.
_HELD = 3.0
_ENCODING_BYTES = 6 * MIB
_LEAST_BYTES, _MOST_BYTES = 2 * MIB, 16 * MIB
_XYZ = 3
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$")


@dataclass(frozen=True, slots=True)
class GeoParquet(VectorSink):
    """A new GeoParquet file; of a layer without geometries a plain Parquet file."""

    driver: ClassVar[str] = "Parquet"
    becomes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    forgets: ClassVar[tuple[str, ...]] = ("OFSTUUID",)
    own_bytes: ClassVar[int] = 12 * MIB
    feature_copies: ClassVar[float] = 4.0
    declares_geometry: ClassVar[bool] = False
    names_layers: ClassVar[bool] = False
    by_ogr: ClassVar[bool] = False

    @classmethod
    def of(cls, facts: LayerFacts, target: Target = PLAIN) -> Self:
        """The sink for a layer, of any kind."""
        import pyarrow.parquet  # noqa: F401 - now, and not amid the work

        box = unused(("bbox", "geometry_bbox", "swath_bbox"), facts)
        sink = cls._of(facts, {"COVERING": box} if target.index else {}, target)
        _projjson(sink.crs)  # now: PROJ is 20 MiB, which at the end would look like a residue
        return sink

    def index(self, facts: LayerFacts, share: float) -> Index:
        """What a row group takes while it is filled and written: all features, where those are less."""
        most = min(_MOST_BYTES, max(_LEAST_BYTES, facts.source_bytes))
        return Index(held_bytes=int(_HELD * max(_LEAST_BYTES, int(most * share))) + _ENCODING_BYTES)

    def check(self, geometries: Any) -> None:
        """Curves, surfaces and M.

        Raises:
            OutputError: there are such.
        """
        column = column_of(geometries)
        for what, wrong in (("M", has_m(column)), ("curves or surfaces", column.types >= len(_TYPES))):
            if wrong.any():
                raise OutputError(
                    f"{self.label}: GeoParquet cannot hold {what}, and some of the layer's geometries have such",
                    hint="write a .gpkg",
                )

    def lost(self, schema: Any) -> list[str]:
        """What is to be said of fields: what zones become, too."""
        dates = [each.name for each in schema if _is_date_text(each)]
        said = [f"{self.label}: dates with times in a zone become UTC: {', '.join(dates)}"] if dates else []
        return VectorSink.lost(self, schema) + said

    def write(
        self, path: Path, schema: Any, batches: Iterable[Any], metadata: dict[str, str], index: Index = NO_INDEX
    ) -> None:
        """Write the batches, as they come, into a new file.

        Raises:
            OutputError: a field has dates with times both with and without a zone.
        """
        most = max(_LEAST_BYTES, int((index.held_bytes - _ENCODING_BYTES) / _HELD))
        groups = _RowGroups(self, path, schema, most)
        try:
            for batch in batches:
                groups.add(batch)
            groups.finish({**self.metadata, **metadata})
        finally:
            groups.close()


@dataclass(slots=True)
class _RowGroups:
    """The file as far as it is written, and the row group that is filled.

    Attributes:
        sink: says which column has the geometries, and whether boxes are written.
        path: the file.
        schema: of the batches.
        most_bytes: a row group is written when it has so many.
        writer: pyarrow's, from the first row group on.
        held: the batches of the row group.
        held_bytes: what they have.
        types: the geometries' types so far, as GeoParquet names them.
        box: around all geometries, (4,) float64.
    """

    sink: GeoParquet
    path: Path
    schema: Any
    most_bytes: int
    writer: Any = None
    held: list[Any] = field(default_factory=list)
    held_bytes: int = 0
    types: set[str] = field(default_factory=set)
    box: Any = None

    @property
    def _covering(self) -> str | None:
        return self.sink.layer_options.get("COVERING") if self.sink.geometry_column else None

    def add(self, batch: Any) -> None:
        """Take a batch in; where the row group is full, write it."""
        columns, names = list(batch.columns), list(batch.schema.names)
        if (name := self.sink.geometry_column) is not None:
            at = names.index(name)
            boxes = self._see(columns[at])
            if self._covering:
                columns.append(_boxes(boxes, known_of(columns[at])))
                names.append(self._covering)
        batch = pa.RecordBatch.from_arrays(columns, names)
        if self.held_bytes + (size := batch.nbytes) > self.most_bytes:
            self._write()
        # One that is larger than a row group is written at once, in several: nothing of it is held behind that.
        rows = max(1, batch.num_rows * self.most_bytes // max(size, 1))
        for at in range(0, batch.num_rows, rows):
            piece = batch if rows >= batch.num_rows else batch.slice(at, rows)
            self.held.append(piece)
            self.held_bytes += piece.nbytes
            if size >= self.most_bytes:
                self._write()
        self.sink.met.gathered_bytes = max(self.sink.met.gathered_bytes, self.held_bytes)

    def _see(self, geometries: Any) -> Any:
        """Remember what types geometries have, and how far they reach; their boxes, (rows, 4) float64."""
        from lib.vector.extent import bounds_of

        column = column_of(geometries)
        for code in np.unique(column.types * np.uint32(8) + column.dimensions.astype(np.uint32)):
            kind, ordinates = divmod(int(code), 8)
            if kind:
                self.types.add(_TYPES[kind] + " Z" * (ordinates == _XYZ))
        boxes = bounds_of(geometries)
        known = boxes[~np.isnan(boxes).any(axis=1)]
        if len(known):
            seen = known if self.box is None else np.vstack([known, self.box])
            self.box = np.concatenate([seen[:, :2].min(axis=0), seen[:, 2:].max(axis=0)])
        return boxes

    def _write(self) -> None:
        if self.writer is None:
            self._open()
        held, self.held, self.held_bytes = self.held, [], 0
        if not held:
            return
        table = pa.Table.from_batches(held)
        arrays = [_as_stored(column, wanted) for column, wanted in zip(table.columns, self.writer.schema, strict=True)]
        self.writer.write_table(pa.table(arrays, schema=self.writer.schema), row_group_size=table.num_rows)

    def _open(self) -> None:
        from pyarrow.parquet import ParquetWriter

        fields = [self._stored(each) for each in self.schema]
        plain = [each.name for each in fields if each.name != self.sink.geometry_column]
        # Measures seldom repeat: as a dictionary they are larger, and take a third more of the time.
        repeating = [each.name for each in fields if each.name in plain and not pa.types.is_floating(each.type)]
        boxes = [f"{self._covering}.{side}" for side in _SIDES] if self._covering else []
        if self._covering:
            fields.append(pa.field(self._covering, _BOX_TYPE))
        self.writer = ParquetWriter(
            self.path,
            pa.schema(fields),
            compression="zstd",
            use_dictionary=repeating,
            write_statistics=[*plain, *boxes],
            write_page_checksum=True,
            store_schema=False,
        )

    def _stored(self, each: Any) -> Any:
        """A field as it is in the file: without OGR's own metadata, and dates with times as such."""
        if not _is_date_text(each):
            is_geometry = each.name == self.sink.geometry_column
            return pa.field(each.name, pa.binary() if is_geometry else each.type)
        columns = (batch.column(each.name) for batch in self.held)
        first = next((value.as_py() for value in chain.from_iterable(columns) if value.is_valid), "Z")
        return pa.field(each.name, pa.timestamp("ms", "UTC" if _ZONE.search(first) else None))

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write what is held, and what the footer says."""
        self._write()
        said = dict(metadata)
        if (name := self.sink.geometry_column) is not None:
            said["geo"] = json.dumps({"version": "1.1.0", "primary_column": name, "columns": {name: self._geometry()}})
        # Readers that have this key take the schema's metadata, and with it `geo`, from nowhere else.
        schema = self.writer.schema.with_metadata(said).serialize().to_pybytes()
        self.writer.add_key_value_metadata(said | {"ARROW:schema": b64encode(schema).decode()})
        self.writer.close()
        self.writer = None

    def _geometry(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self.types),
            "crs": _projjson(self.sink.crs),
        }
        if self.box is not None:
            found["bbox"] = self.box.tolist()
        if self._covering:
            found["covering"] = {"bbox": {side: [self._covering, side] for side in _SIDES}}
        return found

    def close(self) -> None:
        """Let go of the file, whatever has happened."""
        if self.writer is not None:
            self.writer.close()


def _is_date_text(each: Any) -> bool:
    """Whether a field has dates with times, which come from OGR as text."""
    return pa.types.is_string(each.type) and (each.metadata or {}).get(b"GDAL:OGR:type") == b"DateTime"


def _as_stored(column: Any, wanted: Any) -> Any:
    if column.type == wanted.type:
        return column
    try:
        return column.cast(wanted.type)
    except pa.ArrowInvalid as error:
        if not pa.types.is_timestamp(wanted.type):
            raise
        raise OutputError(
            f"field {wanted.name!r} has dates with times both with and without a zone; a Parquet column holds one kind",
            hint=f"write a .gpkg, or text: --cast {wanted.name}=string",
            field=wanted.name,
        ) from error


def _boxes(bounds: Any, known: Any) -> Any:
    """Boxes as a column of single floats, rounded outwards: null where a geometry is, not-a-number where it is empty."""
    low, high = bounds[:, :2].astype(np.float32), bounds[:, 2:].astype(np.float32)
    low = np.where(low > bounds[:, :2], np.nextafter(low, np.float32(-np.inf)), low)
    high = np.where(high < bounds[:, 2:], np.nextafter(high, np.float32(np.inf)), high)
    sides = [pa.array(side) for side in (*low.T, *high.T)]
    # From buffers: with a mask `from_arrays` imports `pyarrow.compute`, 0.1 s.
    mask = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(_BOX_TYPE, len(bounds), [mask], children=sides)


def _projjson(crs: str | None) -> Any:
    if crs is None:
        return None
    from pyproj import CRS

    return CRS.from_user_input(crs).to_json_dict()
