"""A layer by its file's name, described and read without being planned for: what checks of outputs need. OGR's, or pyarrow's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.vector import elsewhere, ogr
from lib.vector.sources import parquet


def read_info(source: str, layer: str | None = None, *, count: bool = False) -> dict[str, Any]:
    """A layer's description, with pyogrio's keys; raises what the library raises.

    Args:
        source: the dataset.
        layer: its name; None for the first one.
        count: walk all features where the format does not keep their number.
    """
    name = elsewhere.named(source, layer)
    path = elsewhere.file_of(name)
    if parquet.is_parquet(path):
        return parquet.read_info(path, path.name)
    return ogr.read_info(name, layer, count=count)[0]


@contextmanager
def open_batches(
    source: str, layer: str | None, rows: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[dict[str, Any], Any]]:
    """A description of what is read, and a reader of batches of at most so many rows, of these columns where they are named."""
    path = Path(source)  # an output, which is local
    if parquet.is_parquet(path):
        with parquet.open_batches(path, path.name, rows, columns) as reader:
            yield parquet.read_info(path, path.name), reader
        return
    with (
        ogr.configured(OGR_GPKG_NUM_THREADS="1"),
        ogr.open_batches(source, layer, rows, columns=columns) as (meta, reader),
    ):
        yield meta, reader
