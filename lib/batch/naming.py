"""Where outputs go: a template of names in one folder, no two files with one name, none that is found as an input again."""

import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from lib.batch.inputs import Inputs, Item, is_taken
from lib.errors import DestinationError, UsageError
from lib.units import file_label

# What a batch writes there further to its outputs.
REPORTS, TABLE = "swath-reports.jsonl", "swath-reports.csv"
TEMPLATES = {"raster": "{stem}.tif", "vector": "{stem}.gpkg"}
# What a template may name: the source's name without and with its suffix, that suffix, its folder's name, its number from 1.
FIELDS = ("stem", "name", "suffix", "folder", "number")


def destinations(inputs: Inputs, into: Path, template: str) -> list[Path]:
    """The output of each input, in their order.

    Args:
        inputs: the files to do.
        into: the folder, absolute.
        template: with fields in braces; folders in it are made where missing.

    Raises:
        UsageError: the template names what it has not, or two inputs have one output.
        DestinationError: an output leaves the folder, is an input, or would be found as one the next time.
    """
    _check(template)
    found: dict[Path, Item] = {}
    for number, item in enumerate(inputs.items, 1):
        name = item.destination or _filled(template, item.source, number)
        path = Path(os.path.normpath(into / name))
        if PurePath(name).is_absolute() or into not in path.parents or "\0" in name:
            raise DestinationError(
                f"{_of(item)}: output {name} lies outside {into}", hint="name it below the folder of --into"
            )
        if (other := found.setdefault(path, item)) is not item:
            raise UsageError(
                f"{_of(other)} and {_of(item)} would both be written to {path}",
                hint="tell them apart by --template, such as {folder}_{stem}.tif, or by a manifest's column destination",
            )
    sources = {os.path.abspath(item.source) for item in inputs.items}  # noqa: PTH100 - no links resolved
    _check_own(into, inputs.patterns, found)
    for path, item in found.items():
        pattern = is_taken(path, inputs.patterns)
        if pattern or str(path) in sources:
            raise DestinationError(
                f"output {path} of {_of(item)} {f'would be found by {pattern} the next time' if pattern else 'is a source'}",
                hint="let --into be a folder that no input is looked for in, or give outputs another suffix or place",
            )
    return list(found)


def _check_own(into: Path, patterns: Sequence[str], found: Mapping[Path, Item]) -> None:
    """No folder that is made, nor a file of reports, would be found the next time, nor has a report's name an output."""
    reports = (into / REPORTS, into / TABLE)
    for path in (*reports, *dict.fromkeys(folder for output in found for folder in output.parents)):
        if path in found:
            raise DestinationError(
                f"output {path} of {_of(found[path])} is the batch's own file", hint="name it otherwise"
            )
        if pattern := is_taken(path, patterns):
            raise DestinationError(
                f"{path}, {'reports' if path in reports else 'a folder of outputs'}, would be found by {pattern} the next time",
                hint="let --into be a folder that no input is looked for in, or name inputs by suffix, such as *.tif",
            )


def _of(item: Item) -> str:
    return f"{item.source}{f' ({item.where})' if item.where else ''}"


def _check(template: str) -> None:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UsageError(f"template {template!r}: {error}", hint=_hint()) from error
    for name in names:
        if name not in FIELDS:
            raise UsageError(f"template {template!r} has no field {{{name}}}", hint=_hint())


def _hint() -> str:
    return f"its fields are {', '.join(f'{{{each}}}' for each in FIELDS)}, such as {{stem}}_norm.tif"


def _filled(template: str, source: str, number: int) -> str:
    name = file_label(source)
    path = PurePath(name)
    folder = PurePath(source).parent.name or "."
    fields = {"stem": path.stem, "name": name, "suffix": path.suffix.lstrip("."), "folder": folder, "number": number}
    try:
        return template.format(**fields)
    except (ValueError, LookupError) as error:  # a format that the field has not, or a field in a format
        raise UsageError(f"template {template!r}: {error}", hint=_hint()) from error


def folders_of(paths: Sequence[Path]) -> set[Path]:
    """The folders that outputs lie in."""
    return {path.parent for path in paths}
