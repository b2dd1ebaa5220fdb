"""An existing GeoPackage that is added to: what it has, whether rows fit into its layer, and a copy of it."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lib import provenance
from lib.errors import DestinationError
from lib.vector import ogr
from lib.vector.crs import crs_name, same_crs
from lib.vector.names import field_names, folded
from lib.vector.sources import sqlite
from lib.vector.sources.facts import LayerFacts

# Pages that are copied between two looks at the cap; SQLite takes its lock for so long.
_PAGES = 4096


@dataclass(frozen=True, slots=True)
class Existing:
    """A GeoPackage, and the layer in it that is added to.

    Attributes:
        path: the file.
        size_bytes: its size.
        layer: the layer's own name; None where it has no such layer yet.
        features: the layer's rows.
        fields: names and types of the layer's fields.
        metadata: what the layer says of itself, without provenance.
        others: rows of its other layers, by name.
    """

    path: Path
    size_bytes: int
    layer: str | None = None
    features: int = 0
    fields: list[list[str]] = field(default_factory=list)
    metadata: Mapping[str, str] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)


def looked_at(path: Path, layer: str, facts: LayerFacts, becomes: Mapping[str, tuple[str, ...]]) -> Existing:
    """What there is to add to.

    Raises:
        DestinationError: no GeoPackage, or its layer of that name is otherwise than what is added.
        DataError: a page of it is damaged.
    """
    counts = {name: sqlite.count(path, name, path.name) for name in _layers(path)}
    own = next((name for name in counts if folded(name) == folded(layer)), None)
    size = path.stat().st_size
    if own is None:
        return Existing(path, size, others=counts)
    info, _ = ogr.read_info(str(path), own)
    _check(path, own, info, facts, becomes)
    subtypes = ("" if each == "OFSTNone" else f":{each}" for each in info["ogr_subtypes"])
    fields = [
        [name, kind + sub] for name, kind, sub in zip(field_names(info), info["ogr_types"], subtypes, strict=True)
    ]
    metadata = {key: text for key, text in (info["layer_metadata"] or {}).items() if key not in provenance.KEYS}
    return Existing(path, size, own, counts.pop(own), fields, metadata, counts)


def _layers(path: Path) -> list[str]:
    """Names of a GeoPackage's tables of features and attributes."""
    try:
        with closing(_opened(path)) as database:
            query = "SELECT table_name FROM gpkg_contents WHERE data_type IN ('features', 'attributes')"
            return [name for (name,) in database.execute(query)]
    except sqlite3.DatabaseError as error:
        raise DestinationError(
            f"destination {path.name} is no GeoPackage that can be added to: {error}", hint="name another file"
        ) from error


def _check(
    path: Path, layer: str, info: Mapping[str, Any], facts: LayerFacts, becomes: Mapping[str, tuple[str, ...]]
) -> None:
    here = dict(zip(field_names(dict(info)), info["ogr_types"], strict=True))
    coming = {name: typed.partition(":")[0] for name, typed in zip(facts.fields, facts.field_types, strict=True)}
    coming = {name: becomes.get(kind, (kind,))[0] for name, kind in coming.items()}
    wrong = [f"{name} is missing in {facts.label}" for name in here if name not in coming]
    wrong += [f"{name} is only in {facts.label}" for name in coming if name not in here]
    wrong += [f"{name} is {here[name]}, not {kind}" for name, kind in coming.items() if here.get(name, kind) != kind]
    there, ours = info["geometry_type"], facts.written_type
    if there != ours and (there is None or ours is None or there != "Unknown"):
        wrong.append(f"its geometries are {there or 'none'}, not {ours or 'none'}")
    if there and ours and not same_crs(info["crs"], facts.crs):
        wrong.append(f"its CRS is {crs_name(info['crs'])}, not {crs_name(facts.crs)}")
    if wrong:
        raise DestinationError(
            f"layer {layer} of {path.name} cannot be added to: {'; '.join(wrong)}",
            hint="give the layer that is added the same fields, types and CRS, or write another file",
        )


def copied(path: Path, to: Path) -> tuple[int, ...]:
    """Copy a database page by page, which is whole whatever other programs do; the original's marks before."""
    before = marks(path)
    with closing(_opened(path)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target, pages=_PAGES)
    return before


def marks(path: Path) -> tuple[int, ...]:
    """By which a file that was changed is known."""
    seen = path.stat()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
