"""GeoParquet and plain Parquet, read by pyarrow: a file, or a folder of files, batches by row groups.

Which files a folder has is in `parquet_folder.py`, what they have in common in `parquet_layer.py`, their rows come by
`parquet_reader.py`. Row groups in which, by their statistics (`row_groups.py`), no row can be wished for are not read. One file
is open at a time, and no footer is kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from lib.errors import DataError, SourceError
from lib.units import MIB
from lib.vector.bad_rows import BadRow
from lib.vector.elsewhere import Origin
from lib.vector.encoding import Texts
from lib.vector.names import field_names
from lib.vector.predicates.ranges import Range, may_hold
from lib.vector.predicates.tree import Field
from lib.vector.row_checks import RowChecks
from lib.vector.sources import parquet_folder, row_groups
from lib.vector.sources.facts import Given, InTable, LayerFacts, Place, Wish
from lib.vector.sources.ogr import with_crs
from lib.vector.sources.parquet_layer import Layer, Part, layer_of
from lib.vector.sources.parquet_reader import Reader
from lib.vector.sources.parquet_schema import DRIVER, opened, table_of

_MAGIC = b"PAR1"
# Of a batch that nothing plans.
_BATCH_BYTES = 16 * MIB


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
    return layer_of(path, label)[0].info


@contextmanager
def open_batches(path: Path, label: str, rows: int, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """A file as a reader of Arrow record batches of at most so many rows, of these fields; geometries beside them."""
    layer, parts = layer_of(path, label)
    checks = RowChecks(Texts(label, DRIVER, None), layer.info["geometry_name"])
    with closing(Reader(layer, parts, rows, _BATCH_BYTES, columns, checks)) as reader:
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
        found, parts = layer_of(origin.file, label, samples=True)
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
        """The layer as a reader of batches of at most so many rows, and of about so many bytes."""
        del fids
        texts = Texts(self.facts.label, DRIVER, self.encoding, is_numbered=self.is_whole, skips=self.skips)
        checks = RowChecks(texts, self.layer.info["geometry_name"], self.skips)
        most = self.facts.at_most(rows)
        with closing(Reader(self.layer, self.parts, most, batch_bytes or _BATCH_BYTES, columns, checks)) as reader:
            yield reader
        self.origin.check_unchanged()

    @contextmanager
    def at(self, place: Place, rows: int, batch_bytes: int) -> Iterator[Iterator[Any]]:
        """The batch at a place, by number of row."""
        with self.batches(rows, batch_bytes) as reader:
            yield islice(reader, place.row // rows, place.row // rows + 1)
