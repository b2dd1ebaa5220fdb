"""The rows of a Parquet layer as record batches, file after file, bounded in rows and in decoded bytes."""

from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from lib.diagnosis import one_line
from lib.errors import DataError
from lib.vector.row_checks import Found, RowChecks
from lib.vector.sources.parquet_layer import Layer, Part
from lib.vector.sources.parquet_schema import decoded, opened, read_as

# A batch is gathered from so many: rows that are larger than others show before all of it is decoded.
_PARTS = 4


class Reader:
    """Record batches under the names that fields have here, of types that OGR has, too; file after file.

    Args:
        layer: what the files have in common.
        parts: the files.
        rows: of a batch, at most.
        batch_bytes: of a batch, when there are so many in it, it is full; its last quarter of rows may be beyond.
        columns: the fields that are wanted; None: all.
        checks: done to each batch.
    """

    def __init__(
        self,
        layer: Layer,
        parts: Sequence[Part],
        rows: int,
        batch_bytes: int,
        columns: Sequence[str] | None,
        checks: RowChecks,
    ) -> None:
        self._layer, self._parts, self._checks = layer, parts, checks
        self._rows, self._batch_bytes = rows, batch_bytes
        self._step = max(1, rows // _PARTS)
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
        """Batches of as many quarters of the rows as it takes to be full, across files.

        How large rows are is known when they are decoded: a footer counts what is encoded, and repeated texts are so once.
        """
        held: list[Any] = []
        rows = size = 0
        for piece in chain.from_iterable(self._of(part) for part in self._parts if part.read != ()):
            if held and (rows + piece.num_rows > self._rows or size + piece.nbytes > self._batch_bytes):
                yield self._checked(held)
                held, rows, size = [], 0, 0
            held.append(piece)
            rows, size = rows + piece.num_rows, size + piece.nbytes
            del piece
        if held:
            yield self._checked(held)

    def _checked(self, held: list[Any]) -> Any:
        batch = held[0] if len(held) == 1 else pa.concat_batches(held)
        columns = self._checks.checked(batch.columns, self.schema.names)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _of(self, part: Part) -> Iterator[Any]:
        """A file's rows, by what is decoded at once; where that is too much, less is from the next row group on."""
        given = 0
        with opened(part.path, part.label) as file:
            stored = [name for name in self._wanted if name not in self._layer.keys]
            read = stored or file.schema_arrow.names[:1]  # a table of no columns has rows all the same
            for group in range(part.groups) if part.read is None else part.read:
                batches = file.iter_batches(self._step, row_groups=[group], columns=read, use_threads=False)
                while (batch := _next(batches, part)) is not None:
                    given += batch.num_rows
                    piece, batch = self._piece(batch, part), None
                    if piece.nbytes > self._batch_bytes:
                        self._step = max(1, min(self._step, self._batch_bytes * piece.num_rows // piece.nbytes))
                    if piece.num_rows:
                        yield piece
                    del piece
        if given != part.read_rows:
            raise DataError(
                f"{part.label} has {part.read_rows} rows to read by its footer, but {given} could be read",
                features=part.read_rows,
                features_read=given,
            )

    def _piece(self, batch: Any, part: Part) -> Any:
        columns = []
        for own, kind in zip(self._wanted, self.schema.types, strict=True):
            if own in self._layer.keys:
                value = part.keys[self._layer.keys[own][1]]
                columns.append(pa.repeat(pa.scalar(value, kind), batch.num_rows))
            else:
                columns.append(decoded(batch.column(own), kind))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

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


def _one(batches: list[Any]) -> Any:
    """Several as one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


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
