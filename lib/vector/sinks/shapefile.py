"""Shapefile: short names, few types, one family of geometries, 2 GB a file; what that does to a layer is said beforehand.

A .shp with .shx, .dbf, .prj, .cpg and an index (.qix) beside it; text is UTF-8. What a layer says of itself has no place.
"""

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from lib.errors import DestinationError, DiskRefused, OutputError
from lib.units import MIB, format_bytes
from lib.vector.names import folded
from lib.vector.sinks.base import NO_INDEX, PLAIN, TEXT_LISTS, Index, Target, VectorSink
from lib.vector.sinks.values import finite
from lib.vector.sources import LayerFacts
from lib.vector.wkb import column_of, has_m

_NAME_BYTES, _TEXT_BYTES = 10, 254
_MOST_INTEGER, _MOST_REAL = 10**18, 1e22  # of 18 digits; of what 24 characters hold
_MOST_FILE_BYTES = 2**31 - 1
# Places of a record in memory, .shx: four bytes each for where it is and how long, in a table that grows by a third.
_PLACE_BYTES = 12
# What GDAL gives a field in the table, at least, and the least that a shape takes in the .shp (ESRI's description, 1998).
_WIDTHS = {"OFTInteger": 9, "OFTInteger64": 18, "OFTReal": 24, "OFTDate": 8}
_TEXT_WIDTH, _SHAPE_BYTES = 80, 28
_FAMILIES = {1: "Point", 2: "LineString", 3: "Polygon", 4: "MultiPoint", 5: "LineString", 6: "Polygon"}
_SAME_FILES = (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix")
# lib/MEASURED.md, "A Shapefile's index": GDAL's quadtree has so many levels, its nodes come by fours.
_NODE_BYTES, _ID_BYTES, _LEVELS = 144, 32, 11
_XY, _XYZ = 2, 3


@dataclass(frozen=True, slots=True)
class Shapefile(VectorSink):
    """A new Shapefile.

    Its geometry type is None where the layer does not say one: then the first geometry does.
    """

    driver: ClassVar[str] = "ESRI Shapefile"
    becomes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "OFTInteger": ("OFTInteger", "OFTInteger64"),
        "OFTInteger64": ("OFTInteger64", "OFTInteger"),
        "OFTDateTime": ("OFTString",),
        "OFTTime": ("OFTString",),
    } | TEXT_LISTS
    refuses: ClassVar[Mapping[str, str]] = {"OFTBinary": "its bytes as hexadecimal digits"}
    forgets: ClassVar[tuple[str, ...]] = ("OFSTJSON", "OFSTUUID", "OFSTInt16", "OFSTFloat32")
    own_bytes: ClassVar[int] = 3 * MIB
    feature_copies: ClassVar[float] = 5.0
    names_layers: ClassVar[bool] = False
    declares_geometry: ClassVar[bool] = False
    keeps_metadata: ClassVar[bool] = False
    is_esri: ClassVar[bool] = True
    turns_rings: ClassVar[bool] = True
    exact: ClassVar[tuple[str, ...]] = ("OFTInteger", "OFTInteger64")
    disk_factor: ClassVar[int] = 3

    @classmethod
    def of(cls, facts: LayerFacts, target: Target = PLAIN) -> Self:
        """The sink for a layer.

        Raises:
            DestinationError: one without geometries, or whose geometries are collections.
        """
        import pyarrow.compute  # noqa: F401 - now, and not amid the work

        declared = facts.geometry_type
        if declared is None or declared.startswith("GeometryCollection"):
            what = "no geometries" if declared is None else "collections of geometries"
            raise DestinationError(
                f"{facts.label}: layer {facts.layer} has {what}, which a Shapefile cannot hold", hint="write a .gpkg"
            )
        kind, _, z = declared.partition(" ")
        family = None if kind == "Unknown" else f"{kind if kind == 'MultiPoint' else kind.removeprefix('Multi')}"
        options = {"ENCODING": "UTF-8", "2GB_LIMIT": "YES", "SPATIAL_INDEX": "YES" if target.index else "NO"}
        sink = cls._of(facts, options, target)
        return replace(sink, promotes=False, geometry_type=family and f"{family} {z}".strip())

    def index(self, facts: LayerFacts, share: float) -> Index:
        """The records' places, which are held until the end; then the quadtree, where the limit leaves room for it."""
        features = max(facts.features, 0)
        nodes = sum(min(4**level, 4 * features) for level in range(_LEVELS))
        tree = nodes * _NODE_BYTES + features * _ID_BYTES
        is_built = share > 0 and self.layer_options["SPATIAL_INDEX"] == "YES"
        return Index(features * _PLACE_BYTES, max(tree, 1) if is_built else 0)

    def names(self, fields: Sequence[str]) -> list[str]:
        """Names of at most 10 bytes, no two alike whatever their case; those that fit stay."""
        taken = {folded(name) for name in fields if len(name.encode()) <= _NAME_BYTES}
        found = []
        for name in fields:
            new, number = name, 0
            while len(new.encode()) > _NAME_BYTES or (new != name and folded(new) in taken):
                ending = f"_{number}" if number else ""
                new = name.encode()[: _NAME_BYTES - len(ending)].decode(errors="ignore") + ending
                number += 1
            taken.add(folded(new))
            found.append(new)
        return found

    def check_size(self, facts: LayerFacts) -> None:
        """Whether all features fit into files of 2 GB.

        Raises:
            DiskRefused: they do not.
        """
        types = (typed.partition(":")[0] for typed in facts.field_types)
        record = 1 + sum(_WIDTHS.get(self.becomes.get(kind, (kind,))[0], _TEXT_WIDTH) for kind in types)
        least = max(facts.features, 0) * max(record, _SHAPE_BYTES)
        if least > _MOST_FILE_BYTES:
            raise DiskRefused(
                f"{facts.label}: {facts.features} features take at least {format_bytes(least)} in one file of a Shapefile, "
                "which holds 2 GiB",
                hint="write a .gpkg, .fgb or .parquet",
                needed_bytes=least,
            )

    def lost(self, schema: Any) -> list[str]:
        """What is to be said of fields: their names, too, and what becomes of numbers and text."""
        notes, names = VectorSink.lost(self, schema), list(schema.names)
        fields = [name for name in names if name != self.geometry_column]
        pairs = [(old, new) for old, new in zip(fields, self.names(fields), strict=True) if old != new]
        if pairs:
            words = ", ".join(f"{old!r} is {new!r}" for old, new in pairs)
            notes.append(f"{self.label}: names of fields have at most 10 bytes in a Shapefile: {words}")
        if any(pa.types.is_floating(each.type) for each in schema):
            notes.append(f"{self.label}: numbers have at most 15 decimals in a Shapefile")
        if any(pa.types.is_string(each.type) for each in schema):
            notes.append(
                f"{self.label}: empty texts and geometries are null in a Shapefile, spaces at a text's end are not kept"
            )
        return notes

    def check(self, geometries: Any) -> None:
        """One family, with or without Z.

        Raises:
            OutputError: there are others, or M.
        """
        column = column_of(geometries)
        known = column.types > 0
        wanted = self.geometry_type or self._first(column)
        if wanted is None:
            return
        codes = [code for code, family in _FAMILIES.items() if family == wanted.partition(" ")[0]]
        ordinates = _XYZ if wanted.endswith(" Z") else _XY
        wrong = known & (~np.isin(column.types, codes) | (column.dimensions != ordinates) | has_m(column))
        if wrong.any():
            raise OutputError(
                f"{self.label}: a Shapefile holds one type of geometry, here {wanted}, and {int(wrong.sum())} of the features at "
                "hand have another, or Z or M where it has none",
                hint="write a .gpkg",
            )

    def _first(self, column: Any) -> str | None:
        """The type of the first geometry that was met, by which a layer that says none is written."""
        if self.met.first is None and (known := np.flatnonzero(column.types)).size:
            at = int(known[0])
            family = _FAMILIES.get(int(column.types[at]))
            if family is None:
                raise OutputError(f"{self.label}: a Shapefile cannot hold collections or curves", hint="write a .gpkg")
            self.met.first = family + " Z" * bool(column.dimensions[at] == _XYZ)
        return self.met.first

    def conform(self, batch: Any) -> Any:
        """A batch as it can be written.

        Raises:
            OutputError: geometries of another family; numbers and texts that are too long.
        """
        batch = finite(self, VectorSink.conform(self, batch))
        for at, each in enumerate(batch.schema):
            if each.name != self.geometry_column:
                self._check_values(each, batch.column(at))
        self._check_table(batch)
        fields = [name for name in batch.schema.names if name != self.geometry_column]
        new = dict(zip(fields, self.names(fields), strict=True))
        return batch.rename_columns([new.get(name, name) for name in batch.schema.names])

    def _check_table(self, batch: Any) -> None:
        """GDAL ends a .shp at 2 GB, and writes a .dbf beyond, which few programs read."""
        self.met.rows += batch.num_rows
        fields = [each for each in batch.schema if each.name != self.geometry_column]
        widths = [_width(each.type, self.met.longest.get(each.name, 0)) for each in fields]
        if self.met.rows * (1 + sum(widths)) > _MOST_FILE_BYTES:
            raise _too_large(self.label)

    def _check_values(self, each: Any, column: Any) -> None:
        import pyarrow.compute as pc

        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if is_text:
            longest = pc.max(pc.binary_length(column)).as_py() or 0
            self.met.longest[each.name] = max(self.met.longest.get(each.name, 0), longest)
            if longest > _TEXT_BYTES:
                self._refuse(each.name, f"texts of up to {longest} bytes", f"{_TEXT_BYTES} bytes")
        elif pa.types.is_int64(column.type) or pa.types.is_floating(column.type):
            ends = pc.min_max(column).as_py()
            largest = max((abs(end) for end in ends.values() if end is not None), default=0)
            if pa.types.is_int64(column.type) and largest >= _MOST_INTEGER:
                self._refuse(each.name, f"numbers such as {largest}", "18 digits", as_text=True)
            if largest >= _MOST_REAL:
                self._refuse(each.name, f"numbers such as {largest}", "24 characters", as_text=True)

    def _refuse(self, name: str, has: str, most: str, *, as_text: bool = False) -> None:
        raise OutputError(
            f"{self.label}: field {name!r} has {has}, and a Shapefile holds at most {most}",
            hint=f"write a .gpkg{f', or text: --cast {name}=string' if as_text else ''}",
            field=name,
        )

    def write(
        self, path: Path, schema: Any, batches: Iterable[Any], metadata: dict[str, str], index: Index = NO_INDEX
    ) -> None:
        """Write the batches, as they come, into new files; the type of a layer that says none is that of the first."""
        coming = iter(batches)
        held = list(next(([batch] for batch in coming), []))
        fields = [name for name in schema.names if name != self.geometry_column]
        new = dict(zip(fields, self.names(fields), strict=True))
        schema = pa.schema([each.with_name(new.get(each.name, each.name)) for each in schema])
        options = self.layer_options
        if not index.built_bytes and options["SPATIAL_INDEX"] == "YES":
            options = options | {"SPATIAL_INDEX": "NO"}
            self.note(f"{self.label}: the Shapefile has no index (.qix): the memory limit leaves no room to build one")
        typed = replace(self, geometry_type=self.geometry_type or self.met.first or "Polygon", layer_options=options)
        # GDAL writes lower-case extensions, and takes a backslash for a folder's end.
        written = path.with_name(path.stem.replace("\\", "_") + ".shp")
        VectorSink.write(typed, written, schema, _again(held, coming), metadata, index)
        if any(
            part.stat().st_size > _MOST_FILE_BYTES for part in written.parent.glob(f"{glob.escape(written.stem)}.*")
        ):
            raise _too_large(self.label)
        for extension in _SAME_FILES:
            named = path if extension == ".shp" else path.with_name(path.stem + extension)
            if (part := written.with_suffix(extension)) != named and part.exists():
                part.rename(named)


def _width(kind: Any, longest: int) -> int:
    """What a field takes in a record of the table, at least, bytes."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return max(_TEXT_WIDTH, longest)
    if pa.types.is_boolean(kind):
        return 1
    if pa.types.is_integer(kind):
        return _WIDTHS["OFTInteger64" if kind.bit_width > 32 else "OFTInteger"]  # noqa: PLR2004 - bits
    return _WIDTHS["OFTReal"] if pa.types.is_floating(kind) else _WIDTHS["OFTDate"]


def _too_large(label: str) -> OutputError:
    return OutputError(
        f"writing the output of {label} failed: a file of the Shapefile has reached the 2 GiB that it can have",
        hint="write a .gpkg, .fgb or .parquet",
    )


def _again(held: list[Any], coming: Iterable[Any]) -> Iterable[Any]:
    """What is held, which is let go of when it is taken, and what is coming."""
    while held:
        yield held.pop()
    yield from coming
