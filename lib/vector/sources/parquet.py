"""GeoParquet and plain Parquet, read by pyarrow: a file, or a folder of files, batches by row groups.

What a footer says is in `parquet_schema.py`, which files a folder has in `parquet_folder.py`. Row groups in which, by their
statistics (`row_groups.py`), no row can be wished for are not read. One file is open at a time, and no footer is kept.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Self

import pyarrow as pa

from lib.diagnosis import one_line
from lib.errors import DataError, SourceError
from lib.vector.bad_rows import BadRow
from lib.vector.elsewhere import Origin
from lib.vector.encoding import Texts
from lib.vector.names import field_names, folded
from lib.vector.predicates.ranges import Range, may_hold
from lib.vector.predicates.tree import Field
from lib.vector.row_checks import Found, RowChecks
from lib.vector.sources import parquet_folder, row_groups
from lib.vector.sources.facts import Given, InTable, LayerFacts, Place, Sizes, Wish
from lib.vector.sources.ogr import with_crs
from lib.vector.sources.parquet_schema import Table, ogr_type, opened, read_as, table_of

DRIVER = "Parquet"
_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the layer.

    Attributes:
        path: of the file.
        label: what messages call it.
        keys: values of the keys in its folders' names.
        rows: as its footer counts them.
        groups: how many row groups it has.
        read: numbers of those that are read; None: all.
        read_rows: rows in those.
    """

    path: Path
    label: str
    keys: tuple[Any, ...]
    rows: int
    groups: int
    read: tuple[int, ...] | None
    read_rows: int


@dataclass(frozen=True, slots=True)
class Layer:
    """What the files have in common.

    Attributes:
        table: of all of them.
        names: the fields' names here, by their own.
        keys: Arrow types of the keys in folders' names that are fields, and their places among each part's keys.
        info: a description with the keys that pyogrio's has of a layer.
        sizes: of the features.
    """

    table: Table
    names: dict[str, str]
    keys: dict[str, tuple[Any, int]]
    info: dict[str, Any]
    sizes: Sizes

    @property
    def own(self) -> dict[str, str]:
        """The fields' own names, by those that they have here."""
        return {name: own for own, name in self.names.items()}


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does, or a folder has such files."""
    try:
        if path.is_dir():
            return parquet_folder.holds_parquet(path)
        with path.open("rb") as file:
            return file.read(4) == _MAGIC
    except (OSError, DataError):  # the latter of a server: who opens it is told
        return False


def read_info(path: Path, label: str) -> dict[str, Any]:
    """The description of a file or a folder, with the keys that pyogrio's has of a layer.

    Raises:
        SourceError: it is damaged, or has what is not read.
    """
    return _layer(path, label)[0].info


@contextmanager
def open_batches(path: Path, label: str, rows: int, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """A file as a reader of Arrow record batches of at most so many rows, of these fields; geometries beside them."""
    layer, parts = _layer(path, label)
    checks = RowChecks(Texts(label, DRIVER, None), layer.info["geometry_name"])
    with closing(_Reader(layer, parts, rows, columns, checks)) as reader:
        yield reader


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file, or a folder of them, as a layer.

    Attributes:
        facts: of the layer.
        layer: what its files have in common.
        parts: the files, in order.
        origin: where they come from.
        encoding: of text that is no UTF-8.
        skips: whether bad rows are left out.
    """

    facts: LayerFacts
    layer: Layer
    parts: tuple[Part, ...]
    origin: Origin
    encoding: str | None = None
    skips: bool = False

    @classmethod
    def opened(cls, origin: Origin, layer: str | None, label: str, given: Given) -> Self:
        """The layer, by the footers.

        Raises:
            SourceError: one is damaged, they differ, have another layer than the named one, or what is not read.
        """
        found, parts = _layer(origin.file, label)
        info = found.info
        if layer is not None and layer != info["layer_name"]:
            raise SourceError(
                f"{label} has no layer {layer!r}; it has {info['layer_name']}",
                hint="leave --layer out: a Parquet file has one",
            )
        subtypes = ("" if each == "OFSTNone" else f":{each}" for each in info["ogr_subtypes"])
        facts = LayerFacts(
            source=origin.name,
            label=label,
            driver=DRIVER,
            layer=info["layer_name"],
            fields=tuple(field_names(info)),
            field_types=tuple(kind + sub for kind, sub in zip(info["ogr_types"], subtypes, strict=True)),
            geometry_type=info["geometry_type"],
            geometry_name=info["geometry_name"],
            fid_column="",
            crs=info["crs"],
            features=info["features"],
            source_bytes=sum(part.path.stat().st_size for part in parts),
            sizes=found.sizes,
            notes=tuple(info["notes"]),
            metadata=info["layer_metadata"],
        )
        return cls(with_crs(facts, given.crs), found, parts, origin, given.encoding, given.skips_bad)

    def count(self) -> int | None:
        """Rows by the footers, which are read again.

        Raises:
            DataError: a file has another number of them by now.
        """
        self.origin.check_whole(self.facts.label)
        return sum(self._counted(part)[0] for part in self.parts)

    def _counted(self, part: Part) -> tuple[int, int]:
        """Rows of a file, and of its row groups that are read."""
        with opened(part.path, part.label) as file:
            footer = file.metadata
            if (footer.num_rows, footer.num_row_groups) != (part.rows, part.groups):
                raise DataError(
                    f"{part.label} has changed while it was read: {footer.num_rows} rows, {part.rows} before"
                )
            read = range(part.groups) if part.read is None else part.read
            return footer.num_rows, sum(footer.row_group(at).num_rows for at in read)

    def in_table(self) -> InTable | None:
        """Nothing that is not shown."""
        return None

    @property
    def skipped(self) -> dict[str, int]:
        """How many files and row groups there are, and how many of them are not read."""
        read = [part.groups if part.read is None else len(part.read) for part in self.parts]
        groups = sum(part.groups for part in self.parts)
        idle = sum(part.read == () for part in self.parts)
        return {
            "files": len(self.parts),
            "files_skipped": idle,
            "row_groups": groups,
            "row_groups_skipped": groups - sum(read),
        }

    def narrowed(self, wish: Wish) -> tuple[Self, str]:
        """The source without the row groups in which nothing can be wished for; and how many are left."""
        parts = tuple(self._narrowed(part, wish) for part in self.parts)
        found = replace(self, parts=parts)
        before, after = self.skipped, found.skipped
        if before == after:
            return self, "evaluated: the statistics of no row group rule it out"
        left = after["row_groups"] - after["row_groups_skipped"]
        files = f" of {after['files'] - after['files_skipped']} of {after['files']} files" if len(parts) > 1 else ""
        words = f"pushed: by their statistics {left} of {after['row_groups']} row groups{files} are read, and the batch decides"
        return found, words

    def _narrowed(self, part: Part, wish: Wish) -> Part:
        if part.read == () or (wish.condition and not may_hold(wish.condition, lambda field: self._key(part, field))):
            return replace(part, read=(), read_rows=0)
        with opened(part.path, part.label) as file:
            footer, leaves = file.metadata, row_groups.leaves_of(file)
            kinds = {each.name: each.type for each in file.schema_arrow}
            table = table_of(file, part.label) if wish.box else None
            own = self.layer.own
            every = range(part.groups) if part.read is None else part.read

            def may_have(group: Any) -> bool:
                if wish.condition is not None:
                    return may_hold(
                        wish.condition,
                        lambda field: (
                            self._key(part, field)
                            if own[field.name] in self.layer.keys
                            else row_groups.ranges_in(group, leaves, kinds, field, own[field.name])
                        ),
                    )
                geometry = table.geometry if table else None
                if geometry is None or wish.box is None:
                    return True
                boxes = (geometry.box, row_groups.box_in(group, leaves, geometry.sides, geometry.name))
                return not any(box and row_groups.apart(box, wish.box) for box in boxes)

            rows = {at: group.num_rows for at in every if may_have(group := footer.row_group(at))}
        if len(rows) == part.groups:
            return part
        return replace(part, read=tuple(rows), read_rows=sum(rows.values()))

    def _key(self, part: Part, field: Field) -> Range:
        """What is known of a field by the folders' names."""
        own = self.layer.own[field.name]
        if own not in self.layer.keys:
            return Range(may_be_nan=True)
        value = part.keys[self.layer.keys[own][1]]
        return Range(value, value, has_null=value is None, has_value=value is not None)

    @property
    def is_whole(self) -> bool:
        """Whether all row groups are read."""
        return all(part.read is None for part in self.parts)

    def given(self) -> tuple[int, int] | None:
        """Rows of the row groups that are read, by the footers; None where that is all."""
        if self.is_whole:
            return None
        rows = sum(self._counted(part)[1] for part in self.parts)
        return rows, rows

    def left_out(self) -> Iterator[BadRow]:
        """None."""
        yield from ()

    @contextmanager
    def batches(
        self, rows: int, batch_bytes: int, *, fids: bool = False, columns: Sequence[str] | None = None
    ) -> Iterator[Any]:
        """The layer as a reader of batches of at most so many rows."""
        del fids, batch_bytes
        texts = Texts(self.facts.label, DRIVER, self.encoding, is_numbered=self.is_whole, skips=self.skips)
        checks = RowChecks(texts, self.layer.info["geometry_name"], self.skips)
        with closing(_Reader(self.layer, self.parts, self.facts.at_most(rows), columns, checks)) as reader:
            yield reader
        self.origin.check_unchanged()

    @contextmanager
    def at(self, place: Place, rows: int, batch_bytes: int) -> Iterator[Iterator[Any]]:
        """The batch at a place, by number of row."""
        with self.batches(rows, batch_bytes) as reader:
            yield islice(reader, place.row // rows, place.row // rows + 1)


def _layer(path: Path, label: str) -> tuple[Layer, tuple[Part, ...]]:
    """A file, or all files of a folder, each footer looked at once.

    Raises:
        SourceError: a file is damaged, or has what is not read; they differ; a folder has other files among them.
    """
    is_folder = path.is_dir()
    paths = parquet_folder.files_in(path, label) if is_folder else [path]
    keys, values = parquet_folder.keys_of(path, paths, label) if is_folder else ({}, [()])
    parts: list[Part] = []
    table: Table | None = None
    first, mean, total = PurePosixPath(), 0, 0
    for each, its_keys in zip(paths, values, strict=True):
        name = PurePosixPath(each.relative_to(path)) if is_folder else PurePosixPath(each.name)
        part_label = f"{label}/{name}" if is_folder else label
        with opened(each, part_label) as file:
            found, footer = table_of(file, part_label), file.metadata
            sizes = [
                (group.total_byte_size, group.num_rows) for group in map(footer.row_group, range(footer.num_row_groups))
            ]
            parts.append(Part(each, part_label, its_keys, found.rows, footer.num_row_groups, None, found.rows))
        mean = max([mean, *(size // rows + 1 for size, rows in sizes if rows)])
        total += sum(size for size, _ in sizes)
        if table is None:
            table, first = found, name
        else:
            table = parquet_folder.merged(table, found, first, name, label)
    assert table is not None  # noqa: S101 - for mypy: there is a file
    own = {folded(name) for name in (*table.columns, *table.unread)}
    used = {name: (kind, at) for at, (name, kind) in enumerate(keys.items()) if folded(name) not in own}
    if table.geometry and any(folded(name) == folded(table.geometry.name) for name in keys):
        raise SourceError(
            f"{label}: its folders' names have a key {table.geometry.name!r}, which is the geometries' column"
        )
    notes = [
        f"{label}: {name!r} is a column of the files, too, which is read, and not what folders' names say"
        for name in keys
        if name not in used
    ]
    kinds = table.columns | {name: kind for name, (kind, _) in used.items()}  # type: ignore[operator]
    info = _info(path, table, kinds, notes, label)
    names = dict(zip(info["fields"], field_names(info), strict=True))
    return Layer(table, names, used, info, Sizes(mean, total_bytes=total, count=table.rows)), tuple(parts)


def _info(path: Path, table: Table, kinds: dict[str, Any], notes: list[str], label: str) -> dict[str, Any]:
    unread = ", ".join(f"{name} ({kind})" for name, kind in table.unread.items())
    types = [ogr_type(kind) or "" for kind in kinds.values()]
    geometry = table.geometry
    if decimals := ", ".join(f"{name} ({kind})" for name, kind in kinds.items() if pa.types.is_decimal(kind)):
        notes = [*notes, f"{label}: decimals are read as 64-bit floating point, of 15 digits: {decimals}"]
    return {
        "driver": DRIVER,
        "layer_name": path.name if path.is_dir() else path.stem,
        "fields": list(kinds),
        "ogr_types": [typed.partition(":")[0] for typed in types],
        "ogr_subtypes": [typed.partition(":")[2] or "OFSTNone" for typed in types],
        "encoding": "UTF-8",
        "geometry_type": (next(iter(geometry.types)) if len(geometry.types) == 1 else "Unknown") if geometry else None,
        "geometry_name": geometry.name if geometry else None,
        "fid_column": "",
        "crs": geometry.crs if geometry else None,
        "features": table.rows,
        "layer_metadata": dict(table.metadata),
        "dataset_metadata": None,
        "notes": [f"{label}: columns of types that are not read: {unread}"] * bool(unread) + notes,
    }


class _Reader:
    """Record batches under the names that fields have here, of types that OGR has, too; file after file."""

    def __init__(
        self, layer: Layer, parts: Sequence[Part], rows: int, columns: Sequence[str] | None, checks: RowChecks
    ) -> None:
        self._layer, self._parts, self._rows, self._checks = layer, parts, rows, checks
        wanted = {own: name for own, name in layer.names.items() if columns is None or name in columns}
        kinds = dict(layer.table.columns) | {name: kind for name, (kind, _) in layer.keys.items()}
        fields = [pa.field(name, read_as(kinds[own])) for own, name in wanted.items()]
        if (geometry := layer.table.geometry) is not None:
            wanted[geometry.name] = geometry.name
            fields.append(pa.field(geometry.name, geometry.kind, metadata={"ARROW:extension:name": "geoarrow.wkb"}))
        self._wanted = list(wanted)
        self.schema = pa.schema(fields)
        self._batches = self._all()

    def _all(self) -> Generator[Any]:
        for part in self._parts:
            if part.read != ():
                yield from self._of(part)

    def _of(self, part: Part) -> Iterator[Any]:
        stored = [name for name in self._wanted if name not in self._layer.keys]
        given = 0
        with opened(part.path, part.label) as file:
            # A table of no columns has rows all the same.
            read = stored or file.schema_arrow.names[:1]
            batches = file.iter_batches(self._rows, row_groups=part.read, columns=read, use_threads=False)
            while (batch := _next(batches, part)) is not None:
                if not batch.num_rows:
                    continue
                given += batch.num_rows
                columns = [
                    self._column(batch, part, own, kind)
                    for own, kind in zip(self._wanted, self.schema.types, strict=True)
                ]
                columns = self._checks.checked(columns, self.schema.names)
                yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
        if given != part.read_rows:
            raise DataError(
                f"{part.label} has {part.read_rows} rows to read by its footer, but {given} could be read",
                features=part.read_rows,
                features_read=given,
            )

    def _column(self, batch: Any, part: Part, own: str, kind: Any) -> Any:
        if own in self._layer.keys:
            value = part.keys[self._layer.keys[own][1]]
            return pa.repeat(pa.scalar(value, kind), batch.num_rows)
        return _read(batch.column(own), kind)

    def read_next_batch(self) -> Any:
        """The next batch; StopIteration after the last."""
        return next(self._batches)

    @property
    def found(self) -> Found:
        """What was found in the latest batch."""
        return self._checks.found

    def close(self) -> None:
        """Let go of the file that is open."""
        self._batches.close()

    def __iter__(self) -> Iterator[Any]:
        """All batches that are left."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        return self.read_next_batch()


def _next(batches: Iterator[Any], part: Part) -> Any:
    """The next batch of a file, None behind the last; raises DataError, which names the file."""
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        raise DataError(
            f"{part.label} cannot be read to its end: {one_line(error)}", hint="fetch or export it again"
        ) from error


def _read(column: Any, kind: Any) -> Any:
    if column.type == kind:
        return column
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(column)
    return column.dictionary_decode().cast(kind) if pa.types.is_dictionary(column.type) else column.cast(kind)
