"""What a batch is to read: files, URLs, globs, folders, and manifests with choices of their own in each row."""

import csv
import difflib
import functools
import glob
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path, PurePath
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from lib.errors import SourceError, UsageError
from lib.jobs import RasterJob, VectorJob
from lib.knobs import Knob
from lib.paths import is_local
from lib.request import job_knobs

Wing = Literal["raster", "vector"]
KINDS: dict[str, type[RasterJob | VectorJob]] = {"raster": RasterJob, "vector": VectorJob}
# Of a folder those files; more are named by a glob.
SUFFIXES = {
    "raster": (".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg", ".img", ".nc", ".grib", ".grib2", ".grb", ".hdf"),
    "vector": (".gpkg", ".fgb", ".shp", ".parquet", ".geoparquet", ".geojson", ".geojsonl", ".gml", ".kml", ".gdb"),
}  # fmt: skip
_MANIFESTS = (".csv", ".jsonl", ".ndjson")
# What a row may say beside the choices of its kind.
_SOURCE, _DESTINATION = "source", "destination"
_MAGIC = re.compile(r"[*?\[]")
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Item:
    """One file to do.

    Attributes:
        source: a path or a URL.
        destination: its output, below the batch's folder; None: by the template.
        options: its own choices, by the names of knobs.
        where: the row that it is of, for messages; "" of one that is of no manifest.
    """

    source: str
    destination: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All files to do, in order.

    Attributes:
        items: they.
        patterns: globs, and folders as such, by which they were found: an output must not be found by one.
    """

    items: list[Item]
    patterns: list[str]


def gather(inputs: Sequence[str], wing: Wing) -> Inputs:
    """The files that are meant.

    Raises:
        UsageError: there are none, one appears twice, or a manifest's row cannot be used.
        SourceError: a file does not exist, or a manifest cannot be read.
    """
    if not inputs:
        raise UsageError("a batch needs files", hint="name files, globs, folders or a manifest")
    items: list[Item] = []
    patterns: list[str] = []
    for each in inputs:
        if is_local(each) and not os.path.lexists(each) and _MAGIC.search(each):
            found = sorted(glob.glob(each, recursive=True))  # noqa: PTH207 - a pattern may be absolute
            items += _found(each, found, f"no file matches {each}")
            patterns.append(each)
        elif is_local(each) and Path(each).is_dir() and Path(each).suffix.lower() not in SUFFIXES[wing]:
            items += _found(each, _files_in(each, wing), f"folder {each} has no file of {', '.join(SUFFIXES[wing])}")
            patterns += [str(Path(glob.escape(each)) / f"*{suffix}") for suffix in SUFFIXES[wing]]
        elif is_local(each) and (rows := manifest(each, wing)) is not None:
            items += rows
        elif is_local(each) and not Path(each).exists():
            raise SourceError(f"source {each} does not exist", hint="check the path", path=each)
        else:
            items.append(Item(each))
    _check_once(items)
    return Inputs(items, patterns)


def _found(asked: str, paths: Sequence[str], nothing: str) -> list[Item]:
    if not paths:
        raise UsageError(nothing, hint=f"looked for it from {Path.cwd()}", asked=asked)
    return [Item(path) for path in paths]


def _files_in(folder: str, wing: Wing) -> list[str]:
    return sorted(each.path for each in os.scandir(folder) if PurePath(each.name).suffix.lower() in SUFFIXES[wing])


def _check_once(items: Sequence[Item]) -> None:
    """No source appears twice, but in rows that say where each output goes or what is done for it."""
    seen: dict[str, Item] = {}
    for each in items:
        name = os.path.abspath(each.source) if is_local(each.source) else each.source  # noqa: PTH100 - links are names
        before = seen.setdefault(name, each)
        if before is not each and not (each.destination and before.destination):
            where = " and ".join(filter(None, dict.fromkeys((before.where, each.where))))
            raise UsageError(
                f"source {each.source} appears twice{f' ({where})' if where else ''}",
                hint="name it once; in a manifest, rows of one source each need a destination",
            )


def is_taken(path: Path, patterns: Sequence[str]) -> str | None:
    """The pattern by which a path would be found, if there is one."""
    return next((each for each in patterns if _regex(os.path.abspath(each)).fullmatch(str(path))), None)  # noqa: PTH100


@functools.cache
def _regex(pattern: str) -> re.Pattern[str]:
    """A glob with `**` for any folders, as `glob.glob` takes it."""
    parts = [".*" if part == "**" else translate(part)[4:-3].replace(".*", "[^/]*") for part in pattern.split("/")]
    return re.compile("/".join(parts).replace("/.*/", "(?:/.*)?/"), re.DOTALL)


def manifest(path: str, wing: Wing) -> list[Item] | None:
    """The rows of a CSV or of JSON lines that name sources; None where a file is no such manifest.

    Sources, and files among the choices, are from the manifest's folder.

    Raises:
        UsageError: a column that no choice has, or a row that cannot be used; names its line.
        SourceError: it cannot be read.
    """
    file = Path(path)
    if file.suffix.lower() not in _MANIFESTS or not file.is_file():
        return None
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = _csv_rows(lines, file.name) if file.suffix.lower() == ".csv" else _json_rows(lines, file.name)
            first = next(rows, None)
            if wing == "vector" and (first is None or _SOURCE not in first[1]):  # a layer in a CSV, features in lines
                return None
            if first is None:
                raise UsageError(f"manifest {file.name} has no row", hint="give it a row for each source")
            choices = _choices(wing)
            return [_item(each, first, file, choices) for each in _chained(first, rows)]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"manifest {path} cannot be read: {error}", hint="it is a CSV or JSON lines, in UTF-8"
        ) from error


def _chained(first: tuple[int, dict[str, Any]], rest: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Any]:
    yield first
    yield from rest


def _csv_rows(lines: Any, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        columns = [each.strip() for each in reader.fieldnames or []]
        if twice := next((each for each in columns if columns.count(each) > 1), None):
            raise UsageError(f"manifest {name}: column {twice!r} is there twice", hint="name each column once")
        reader.fieldnames = columns
        for row in reader:
            if None in row or None in row.values():
                raise UsageError(
                    f"manifest {name}, line {reader.line_num}: {'more' if None in row else 'fewer'} values than columns",
                    hint="quote values that have commas",
                )
            yield reader.line_num, {key: value for key, value in row.items() if value != ""}
    except csv.Error as error:
        raise UsageError(
            f"manifest {name}, line {reader.line_num + 1}: {error}", hint="is a quote left open?"
        ) from error


def _json_rows(lines: Any, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"manifest {name}, line {number}: no JSON: {error}", hint="one object a line") from error
        if not isinstance(row, dict):
            raise UsageError(f"manifest {name}, line {number}: no JSON object", hint="one object a line")
        yield number, {key: value for key, value in row.items() if value is not None}


def _choices(wing: Wing) -> dict[str, Knob]:
    apart = {"source", "destination", "config", "overwrite", "append"}
    return {each.name: each for each in job_knobs(KINDS[wing]) if each.name not in apart}


def _item(numbered: tuple[int, dict[str, Any]], first: Any, file: Path, choices: Mapping[str, Knob]) -> Item:
    number, row = numbered
    where = f"manifest {file.name}, line {number}"
    for name in row:
        if name not in choices and name not in {_SOURCE, _DESTINATION}:
            near = difflib.get_close_matches(name, [*choices, _SOURCE, _DESTINATION], 1)
            shown = f"did you mean {near[0]}?" if near else f"columns are source, destination, {', '.join(choices)}"
            of = f"manifest {file.name}" if numbered is first else where
            raise UsageError(f"{of}: unknown column {name!r}", hint=shown)
    source = row.get(_SOURCE)
    if not source or not isinstance(source, str):
        raise UsageError(f"{where}: it names no source", hint="give each row a source")
    source = _from(file.parent, source)
    if is_local(source) and not Path(source).exists():
        raise UsageError(f"{where}: source {source} does not exist", hint="check the path")
    destination = row.get(_DESTINATION)
    if not isinstance(destination, str | None):
        raise UsageError(f"{where}: destination {destination!r} is no path", hint="name it as text")
    options = {name: _value(row[name], choices[name], where) for name in row if name in choices}
    options |= {name: _paths_from(file.parent, value, choices[name]) for name, value in options.items()}
    return Item(source, destination, options, where)


def _from(folder: Path, name: str) -> str:
    """A path from a folder; what is no path is as it is."""
    there = folder / name
    return str(there) if is_local(name) or os.path.lexists(there) else name


def _paths_from(folder: Path, value: Any, knob: Knob) -> Any:
    """A choice, its paths from a folder."""
    if knob.path_at is None:
        return value
    if not isinstance(value, str):
        return [_paths_from(folder, each, knob) for each in value] if isinstance(value, list | tuple) else value
    at = knob.path_at(value)
    return value if at is None else value[:at] + _from(folder.absolute(), value[at:])


@functools.cache
def _adapter(_name: str, type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def _value(given: Any, knob: Knob, where: str) -> Any:
    """A cell as its knob takes it: text as a flag's, lists as JSON or with spaces between as a flag's values."""
    value = given
    is_list = any(getattr(each, "__origin__", each) is tuple for each in (knob.bare_type, *get_args(knob.bare_type)))
    if isinstance(given, str) and given[:1] in "[{":
        try:
            value = json.loads(given)
        except ValueError:
            value = given
    for each in (value, value.split() if is_list and isinstance(value, str) else value):
        try:
            _adapter(knob.name, knob.type).validate_python(each)
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        else:
            return each
    raise UsageError(f"{where}: {knob.name}: {problem}", hint=f"it is: {knob.words}")
