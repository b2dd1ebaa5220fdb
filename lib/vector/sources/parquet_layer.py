"""What the files of a Parquet layer have in common: fields, keys in folders' names, rows and row groups, sizes of rows.

Each footer is looked at once, and none is kept. What a single footer says is in `parquet_schema.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from lib.errors import SourceError
from lib.vector.names import field_names, folded
from lib.vector.sources import parquet_folder
from lib.vector.sources.facts import Sizes
from lib.vector.sources.parquet_schema import DRIVER, Table, decoded, ogr_type, opened, read_as, table_of

# Rows that are decoded beforehand: what a footer counts is what is encoded, and repeated values are so once.
_SAMPLED_ROWS = 256


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


def layer_of(path: Path, label: str, *, samples: bool = False) -> tuple[Layer, tuple[Part, ...]]:
    """A file, or all files of a folder, each footer looked at once.

    Raises:
        SourceError: a file is damaged, or has what is not read; they differ; a folder has other files among them.
    """
    is_folder = path.is_dir()
    paths, passed = parquet_folder.files_in(path, label) if is_folder else ([path], [])
    keys, values = parquet_folder.keys_of(path, paths, label) if is_folder else ({}, [()])
    table, parts, sizes = _footers(path, list(zip(paths, values, strict=True)), label, samples=samples)
    own = {folded(name) for name in (*table.columns, *table.unread)}
    used = {name: (kind, at) for at, (name, kind) in enumerate(keys.items()) if folded(name) not in own}
    if table.geometry and any(folded(name) == folded(table.geometry.name) for name in keys):
        raise SourceError(
            f"{label}: its folders' names have a key {table.geometry.name!r}, which is the geometries' column",
            hint="rename the folders",
        )
    notes = passed + [f"{label}: {words}" for words in table.notes]
    notes += [
        f"{label}: {name!r} is a column of the files, too, which is read, and not what folders' names say"
        for name in keys
        if name not in used
    ]
    kinds = table.columns | {name: kind for name, (kind, _) in used.items()}  # type: ignore[operator]
    info = _info(path, table, kinds, notes, label)
    names = dict(zip(info["fields"], field_names(info), strict=True))
    return Layer(table, names, used, info, sizes), parts


def _footers(
    path: Path, files: Sequence[tuple[Path, tuple[Any, ...]]], label: str, *, samples: bool
) -> tuple[Table, tuple[Part, ...], Sizes]:
    """What the footers of files say, which are given with the values of their keys."""
    parts: list[Part] = []
    table: Table | None = None
    first, mean, total, largest = PurePosixPath(), 0, 0, 0
    for each, its_keys in files:
        name = PurePosixPath(each.relative_to(path)) if each != path else PurePosixPath(each.name)
        part_label = f"{label}/{name}" if each != path else label
        with opened(each, part_label) as file:
            found, footer = table_of(file, part_label), file.metadata
            groups = [
                (group.total_byte_size, group.num_rows) for group in map(footer.row_group, range(footer.num_row_groups))
            ]
            if samples and not largest and groups:
                sample, largest = _sampled(file, found)
                mean = max(mean, sample)
            parts.append(Part(each, part_label, its_keys, found.rows, footer.num_row_groups, None, found.rows))
        mean = max([mean, *(size // rows + 1 for size, rows in groups if rows)])
        total += sum(size for size, _ in groups)
        if table is None:
            table, first = found, name
        else:
            table = parquet_folder.merged(table, found, first, name, label)
    assert table is not None  # noqa: S101 - for mypy: there is a file
    return table, tuple(parts), Sizes(mean, largest, total, table.rows)


def _sampled(file: Any, table: Table) -> tuple[int, int]:
    """Mean and most bytes of a decoded row among a file's first; 0 where they cannot be read, which reading says."""
    kinds = {name: read_as(kind) for name, kind in table.columns.items()}
    if table.geometry is not None:
        kinds[table.geometry.name] = table.geometry.kind
    try:
        batch = next(file.iter_batches(_SAMPLED_ROWS, row_groups=[0], columns=list(kinds), use_threads=False), None)
        columns = [decoded(batch.column(name), kind) for name, kind in kinds.items()] if batch else []
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        return 0, 0
    if not columns:
        return 0, 0
    rows = pa.RecordBatch.from_arrays(columns, list(kinds))
    largest = max(rows.slice(at, 1).nbytes for at in range(len(rows)))
    return int(rows.nbytes // len(rows) + 1), int(largest)


def _becoming(columns: Mapping[str, Any], label: str) -> list[str]:
    """What is to be said of columns whose values are read as others: decimals as floating point, UUIDs as bytes."""
    others = {
        name: kind for name, kind in columns.items() if pa.types.is_decimal(kind) or isinstance(kind, pa.UuidType)
    }
    words = ", ".join(f"{name} ({kind} as {read_as(kind)})" for name, kind in others.items())
    return [f"{label}: columns are read as another type: {words}"] * bool(others)


def _info(path: Path, table: Table, kinds: dict[str, Any], notes: list[str], label: str) -> dict[str, Any]:
    unread = ", ".join(f"{name} ({kind})" for name, kind in table.unread.items())
    types = [ogr_type(kind) or "" for kind in kinds.values()]
    geometry = table.geometry
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
        "notes": [f"{label}: columns of types that are not read: {unread}"] * bool(unread)
        + _becoming(table.columns, label)
        + notes,
    }
