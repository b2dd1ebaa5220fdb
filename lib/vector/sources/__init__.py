"""Sources: what a layer is, how large its features are as far as a bounded look tells, and its batches.

A kind of reader is a module here, and a line in `open_source`; what a format's own files tell beside OGR is a module here, and a
line in `ogr.FORMATS`.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from lib.errors import SourceError
from lib.jobs import VectorJob
from lib.paths import is_local
from lib.vector.bad_rows import BadRow
from lib.vector.sources.facts import Box, Given, InTable, LayerFacts, Place, Sizes, Wish

if TYPE_CHECKING:
    from lib.vector.elsewhere import Origin

__all__ = ["Box", "Given", "LayerFacts", "Place", "Sizes", "VectorSource", "Wish", "given_by", "open_source"]


class VectorSource(Protocol):
    """A layer to read: opened once, streamed as often as is asked."""

    @property
    def facts(self) -> LayerFacts:
        """What is known of it."""

    @property
    def origin(self) -> "Origin":
        """Where it comes from."""

    def count(self) -> int | None:
        """All features by another way than the stream's, after the pass or beside it, or None; raises DataError."""

    def in_table(self) -> InTable | None:
        """What the source has and the stream does not show, likewise."""

    def narrowed(self, wish: Wish) -> tuple[Self, str]:
        """The source that gives what is wished for, and perhaps more, where it can be asked; and how or why not."""

    @property
    def is_whole(self) -> bool:
        """Whether it gives all rows of the layer, since it is asked for no fewer."""

    def given(self) -> tuple[int, int] | None:
        """How many features it has to give at least and at most, of what it is asked for; None where that is all.

        By another way than the stream's, after the pass or beside it; raises DataError.
        """

    def left_out(self) -> Iterator[BadRow]:
        """The rows that the driver leaves out by itself because they are bad, as far as is known; after the pass."""

    @property
    def skipped(self) -> dict[str, int]:
        """What a result says of files and their parts that are not read, by its keys."""

    def batches(
        self, rows: int, batch_bytes: int, *, fids: bool = False, columns: Sequence[str] | None = None
    ) -> AbstractContextManager[Any]:
        """The layer as a reader of Arrow record batches of at most so many rows, and bytes where the driver keeps that."""

    def at(self, place: Place, rows: int, batch_bytes: int) -> AbstractContextManager[Iterator[Any]]:
        """The batches about a place, which are read to their end."""


def open_source(source: str, layer: str | None, label: str, rows: int, given: Given | None = None) -> VectorSource:
    """The layer, to be read in batches of at most so many rows.

    Raises:
        SourceError: it is missing, or no layer that can be streamed, or not what is given.
    """
    from lib.vector import elsewhere
    from lib.vector.sources.ogr import OgrSource
    from lib.vector.sources.opening import check_files
    from lib.vector.sources.parquet import ParquetSource, is_parquet

    path = Path(source)
    if is_local(source):
        check_files(path, label)
    if path.is_dir() and next(path.iterdir(), None) is None:
        raise SourceError(f"{label} is an empty folder", hint="name a file, or a folder of Parquet files")
    origin = elsewhere.origin_of(source, layer)
    if is_parquet(origin.file):
        return ParquetSource.opened(origin, layer, label, given or Given())
    return OgrSource.opened(origin, layer, label, rows, given or Given())


def given_by(job: VectorJob) -> Given:
    """What a job says of its source."""
    return Given(job.encoding, job.assume_crs, skips_bad=job.skip_bad)
