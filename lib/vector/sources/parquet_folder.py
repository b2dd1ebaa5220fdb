"""Folders of Parquet files as one layer: which files, in which order, what their folders' names say, and that they agree.

Files come by their paths, folder by folder, names compared by code points. `key=value` in the name of a folder is a field of all
that is in it (as Hive has it); what begins with a dot or an underscore is passed over, as others do that write such folders.
"""

import datetime as dt
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from lib.errors import SourceError
from lib.vector.crs import crs_name, same_crs
from lib.vector.names import folded
from lib.vector.sources.parquet_schema import Table, read_as

_SUFFIXES = (".parquet", ".geoparquet", ".parq", ".pq")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_MOST_DEPTH = 32
_SHOWN = 5
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_LEAST, _MOST = -(2**63), 2**63 - 1
_RENAMED = "rename the folders"
_ONE_SCHEMA = "write all of its files with one schema"


def holds_parquet(folder: Path) -> bool:
    """Whether a folder, or one in it, has a file by the name of a Parquet file."""
    return folder.is_dir() and any(path.lower().endswith(_SUFFIXES) for path in _files(str(folder), 0))


def _files(folder: str, depth: int, passed: list[str] | None = None) -> Iterator[str]:
    """Paths of all that is in a folder and no folder, in order; links are followed. What is passed over is added to `passed`."""
    with os.scandir(folder) as entries:
        every = sorted(entries, key=lambda each: each.name)
    for each in every:
        if each.name.startswith((".", "_")):
            if passed is not None:
                passed.append(each.path)
        elif not each.is_dir():
            yield each.path
        elif depth < _MOST_DEPTH:
            yield from _files(each.path, depth + 1, passed)
        else:
            raise SourceError(
                f"{each.path} lies more than {_MOST_DEPTH} folders deep", hint="is a link a folder that it is in?"
            )


def files_in(folder: Path, label: str) -> tuple[list[Path], list[str]]:
    """The Parquet files of a folder and of those in it, in their order; and what is to be said of those that are passed over.

    Raises:
        SourceError: there are others among them.
    """
    passed: list[str] = []
    paths = [Path(path) for path in _files(str(folder), 0, passed)]
    others = [path for path in paths if not path.name.lower().endswith(_SUFFIXES)]
    if others:
        names = ", ".join(str(path.relative_to(folder)) for path in others[:_SHOWN])
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        raise SourceError(
            f"{label} has other files than Parquet among them: {names}{more}",
            hint="move them elsewhere; names that begin with _ or . are passed over, and Parquet files end in .parquet",
        )
    hidden = [os.path.relpath(path, folder) for path in passed if path.lower().endswith(_SUFFIXES)]
    names = ", ".join(hidden[:_SHOWN]) + (f" and {len(hidden) - _SHOWN} more" if len(hidden) > _SHOWN else "")
    return paths, [f"{label}: passed over, as names that begin with _ or . are: {names}"] * bool(hidden)


def keys_of(folder: Path, paths: Sequence[Path], label: str) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """What folders' names say: Arrow types of the keys, and each file's values in their order.

    Whole numbers and dates are such where all of a key's values are written like that; what would be written otherwise (`07`)
    is text.

    Raises:
        SourceError: files have different keys, or one twice.
    """
    pairs = [_pairs(path.relative_to(folder).parts[:-1], label) for path in paths]
    names = [key for key, _ in pairs[0]]
    for path, each in zip(paths, pairs, strict=True):
        found = [key for key, _ in each]
        if found != names:
            raise SourceError(
                f"{label}: {path.relative_to(folder)} lies in folders of {_listed(found)}, "
                f"{paths[0].relative_to(folder)} in those of {_listed(names)}",
                hint="put all files into folders of the same keys, in the same order",
            )
    if len(set(map(folded, names))) < len(names):
        raise SourceError(f"{label}: a key is there twice in the names of its folders: {_listed(names)}", hint=_RENAMED)
    texts = list(zip(*([text for _, text in each] for each in pairs), strict=True))
    kinds = [_kind(column) for column in texts]
    values = [
        tuple(_value(text, kind) for text, kind in zip(row, kinds, strict=True)) for row in zip(*texts, strict=True)
    ]
    return dict(zip(names, kinds, strict=True)), values or [()] * len(paths)


def _pairs(folders: Sequence[str], label: str) -> list[tuple[str, str | None]]:
    named = [name.partition("=") for name in folders if "=" in name and not name.startswith("=")]
    try:
        return [
            (unquote(key, errors="strict"), None if text == _NULL else unquote(text, errors="strict"))
            for key, _, text in named
        ]
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{label}: the name of a folder in {'/'.join(folders)} is no UTF-8 where its % codes are decoded",
            hint="rename it, or write the folders again",
        ) from error


def _kind(texts: Sequence[str | None]) -> Any:
    """The type of a key by its values' texts."""
    known = [text for text in texts if text is not None]
    for kind, is_one in ((pa.int64(), _is_whole), (pa.date32(), _is_day)):
        if known and all(map(is_one, known)):
            return kind
    return pa.string()


def _is_whole(text: str) -> bool:
    try:
        return str(int(text)) == text and _LEAST <= int(text) <= _MOST
    except ValueError:
        return False


def _is_day(text: str) -> bool:
    try:
        return bool(_DAY.fullmatch(text) and dt.date.fromisoformat(text))
    except ValueError:
        return False


def _value(text: str | None, kind: Any) -> Any:
    if text is None or kind == pa.string():
        return text
    return int(text) if kind == pa.int64() else dt.date.fromisoformat(text)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "no keys"


def merged(one: Table, other: Table, first: PurePosixPath, path: PurePosixPath, label: str) -> Table:
    """The table of both: rows of both, types of geometries of both, no box.

    A column without any value has whatever type the other has; texts and blobs may be wide or not, columns in another order.

    Raises:
        SourceError: they differ; `first` and `path` are their files.
    """
    geometry = _merged_geometry(one, other, first, path, label)
    _check_columns(one, other, first, path, label)
    columns = {name: other.columns[name] if pa.types.is_null(kind) else kind for name, kind in one.columns.items()}
    return replace(
        one,
        columns=columns,
        unread={name: kind for name, kind in one.unread.items() if name not in columns},
        geometry=geometry,
        metadata={key: text for key, text in one.metadata.items() if other.metadata.get(key) == text},
        rows=one.rows + other.rows,
    )


def _check_columns(one: Table, other: Table, first: PurePosixPath, path: PurePosixPath, label: str) -> None:
    here, there = {**one.columns, **one.unread}, {**other.columns, **other.unread}
    for (has, lacks), names in (((first, path), here.keys() - there), ((path, first), there.keys() - here)):
        if names:
            raise SourceError(f"{label}: {lacks} has no column {min(names)!r}, which {has} has", hint=_ONE_SCHEMA)
    for name, kind in here.items():
        if not _is_alike(kind, there[name]):
            raise SourceError(
                f"{label}: column {name!r} is {there[name]} in {path}, and {kind} in {first}", hint=_ONE_SCHEMA
            )


def _is_alike(one: Any, other: Any) -> bool:
    is_without_values = pa.types.is_null(one) or pa.types.is_null(other)
    return bool(is_without_values or _plain(read_as(one)) == _plain(read_as(other)))


def _plain(kind: Any) -> Any:
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def _merged_geometry(one: Table, other: Table, first: PurePosixPath, path: PurePosixPath, label: str) -> Any:
    here, there = one.geometry, other.geometry
    if here is None or there is None:
        if here is there:
            return None
        has, lacks = (first, path) if here else (path, first)
        raise SourceError(
            f"{label}: {lacks} has no GeoParquet metadata, so no geometries, and {has} has", hint=_ONE_SCHEMA
        )
    if here.name != there.name:
        raise SourceError(
            f"{label}: the geometries are column {there.name!r} of {path}, and {here.name!r} of {first}",
            hint=_ONE_SCHEMA,
        )
    if here.crs != there.crs and not same_crs(here.crs, there.crs):
        raise SourceError(
            f"{label}: the CRS of {path} is {crs_name(there.crs)}, and that of {first} {crs_name(here.crs)}",
            hint="bring them to one with --to-crs, each in a run of its own",
        )
    known = [table.geometry.types for table in (one, other) if table.rows and table.geometry]
    types = frozenset[str]().union(*known) if all(known) else frozenset()
    kind = pa.large_binary() if here.kind != there.kind else here.kind
    return replace(here, kind=kind, types=types, box=None)
