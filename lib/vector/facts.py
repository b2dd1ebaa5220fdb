"""Header facts of a vector source, and every way in which it is no usable one. Opens datasets, reads no features.

What is learnt beside OGR (SQLite's own count, the Shapefile's index, FlatGeobuf's sizes) is in `counts.py`.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.errors import SourceError
from lib.memory.cap import trim
from lib.publish import is_local
from lib.vector import counts, ogr

__all__ = ["LayerFacts", "facts_from_record", "facts_record", "is_vector", "read_facts"]

_CURVES = re.compile(r"CURVE|CIRCULARSTRING|MULTISURFACE|COMPOUND", re.IGNORECASE)
_LINEAR_HINT = "make it linear: ogr2ogr -nlt CONVERT_TO_LINEAR linear.gpkg SOURCE"
# What OGR's interleaved or unordered readers do not give through one layer's Arrow stream.
_NOT_STREAMED = ("OSM",)
_PACKED = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip"}


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a layer's header says.

    Attributes:
        source: the dataset as opened.
        label: its base name, for messages.
        driver: OGR's name of the format.
        layer: the layer's name.
        fields: names of the attributes.
        field_types: their OGR types, "OFTString" and so on, with the subtype behind a colon where there is one.
        geometry_type: OGR's name, as pyogrio has it; None where there are no geometries.
        geometry_name: the geometry column in Arrow batches; None where there is none.
        fid_column: the column that keeps feature ids; empty where the format has none.
        crs: `EPSG:…` or WKT; None where there is none.
        features: how many the header says; -1 where it does not say.
        source_bytes: size of the dataset's files.
        sizes: what is known of the features' own sizes.
        notes: what was warned of.
    """

    source: str
    label: str
    driver: str
    layer: str
    fields: tuple[str, ...]
    field_types: tuple[str, ...]
    geometry_type: str | None
    geometry_name: str | None
    fid_column: str
    crs: str | None
    features: int
    source_bytes: int
    sizes: counts.Sizes
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Features by the best count that the header gives; -1 where there is none."""
        return self.sizes.counted if self.sizes.counted >= 0 else self.features

    def at_most(self, rows: int) -> int:
        """So many rows, or all where there are fewer: OGR makes room in every column for as many as it is asked for."""
        return min(rows, max(self.count, 1)) if self.count >= 0 else rows

    @property
    def shown(self) -> dict[str, Any]:
        """The facts that a reader of the plan wants to see."""
        return {
            "driver": self.driver,
            "layer": self.layer,
            "features": self.count,
            "geometry_type": self.geometry_type,
            "crs": self.crs,
            "fields": len(self.fields),
            "source_bytes": self.source_bytes,
            "largest_feature_bytes": self.sizes.feature_bytes,
            "largest_attributes_bytes": self.sizes.attributes_bytes,
        }


def facts_record(facts: LayerFacts) -> dict[str, Any]:
    """The facts as a JSON object, as a plan carries them."""
    return asdict(facts)


def facts_from_record(record: dict[str, Any]) -> LayerFacts:
    """The facts that `facts_record` described."""
    sizes = dict(record["sizes"])
    sizes["runs"] = tuple(tuple(run) for run in sizes["runs"])
    listed = {name: tuple(record[name]) for name in ("fields", "field_types", "notes")}
    return LayerFacts(**(record | listed | {"sizes": counts.Sizes(**sizes)}))


def is_vector(path: str | Path) -> bool:
    """True where OGR opens it and finds a layer."""
    try:
        return bool(ogr.read_info(str(path))[0]["layer_name"])
    except Exception:  # noqa: BLE001 - whatever it is, it is no vector dataset
        return False


def read_facts(source: str, layer: str | None, label: str, rows: int) -> LayerFacts:
    """The facts of one layer, to be read in batches of at most `rows`.

    Raises:
        SourceError: it is missing, no vector dataset, or has not that one layer; it has curves; its files are cut short.
    """
    path = Path(source)
    if not is_local(source):
        raise SourceError(
            f"{label} is no local file: how large its features are is not known beforehand",
            hint="fetch it first, or unpack it",
        )
    _check_files(path, label)
    info, notes = _info(source, layer, label)
    if layer is None:
        _check_single(notes, label)
    if info["driver"] in _NOT_STREAMED:
        raise SourceError(
            f"{label}: {info['driver']} layers cannot be streamed one by one",
            hint="convert it first: ogr2ogr layers.gpkg SOURCE",
        )
    if info["driver"] == "OGR_VRT":
        raise SourceError(
            f"{label} is a VRT: how large the features of its sources are is not known beforehand",
            hint="name its source, or write it out: ogr2ogr out.gpkg SOURCE",
        )
    geometry_type = info["geometry_type"]
    if geometry_type and (
        _CURVES.search(geometry_type) or counts.gpkg_has_curves(path, info["driver"], info["layer_name"])
    ):
        raise SourceError(f"{label}: layer {info['layer_name']} has curve geometries", hint=_LINEAR_HINT)
    sizes = counts.read_sizes(path, info, label, rows)
    trim()  # what the driver held lies in pieces: what it holds when it is opened again would not all come into them
    subtypes = ("" if each in ("OFSTNone", "Unknown") else f":{each}" for each in info["ogr_subtypes"])
    return LayerFacts(
        source=source,
        label=label,
        driver=info["driver"],
        layer=info["layer_name"],
        fields=tuple(map(str, info["fields"])),
        field_types=tuple(kind + sub for kind, sub in zip(info["ogr_types"], subtypes, strict=True)),
        geometry_type=geometry_type,
        geometry_name=ogr.geometry_column(info) if geometry_type else None,
        fid_column=info["fid_column"],
        crs=info["crs"],
        features=int(info["features"]),
        source_bytes=counts.dataset_bytes(counts.layer_path(path, info["driver"], info["layer_name"])),
        sizes=sizes,
        notes=tuple(note for note in notes if "More than one layer" not in note),
    )


def _check_files(path: Path, label: str) -> None:
    if not path.exists():
        raise SourceError(f"source {path} does not exist", hint="check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{label} is an empty file", hint="fetch or export it again")
    if path.is_file() and (packed := _packed(path)):
        raise SourceError(
            f"{label} is packed ({packed}): how large its features are is not known beforehand", hint="unpack it first"
        )
    if ogr.is_sqlite(path) and ogr.wal_bytes(path) and "IMMUTABLE" in ogr.open_options(str(path)):
        raise SourceError(
            f"{label} has changes that are only in its write-ahead log {path.name}-wal: a program ended without closing it",
            hint=f"put them into the file: sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'",
        )


def _packed(path: Path) -> str:
    """How a file is packed, by its first bytes; empty where it is not."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for magic, name in _PACKED.items() if start.startswith(magic)), "")


def _info(source: str, layer: str | None, label: str) -> tuple[dict[str, Any], list[str]]:
    try:
        return ogr.read_info(source, layer)
    except MemoryError:
        raise
    except Exception as error:
        words = ogr.one_line(error)
        if layer is not None and "could not be opened" in words:
            names = _layer_names(source)
            raise SourceError(
                f"{label} has no layer {layer!r}; it has {', '.join(names) or 'none'}",
                hint="choose one with --layer",
                layers=names,
            ) from error
        if "malformed" in words or "corrupt" in words.lower():
            raise SourceError(f"{label} is damaged: {words}", hint="fetch or export it again") from error
        raise _not_vector(source, label, words) from error


def _not_vector(source: str, label: str, words: str) -> SourceError:
    """Why OGR does not open it, in the user's terms."""
    path = Path(source)
    if path.is_dir():
        return SourceError(f"{label} is a folder and no vector dataset", hint="name a file, or a .gdb folder")
    if _is_raster(source):
        return SourceError(f"{label} is a raster", hint="use `swath raster`")
    if "not recognized" in words or "list index" in words or "out of bounds" in words:
        return SourceError(f"{label} is not a vector dataset that OGR reads", hint="check it with `ogrinfo`")
    return SourceError(f"{label} cannot be opened: {words}", hint="check it with `ogrinfo`")


def _is_raster(source: str) -> bool:
    """Ask the raster library, which is only imported to word this error."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import rasterio

            with rasterio.open(source):
                return True
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - then it is no raster
            return False


def _check_single(notes: list[str], label: str) -> None:
    """Several layers and none named: pyogrio warns and takes the first, we do not."""
    for note in notes:
        if note.startswith("More than one layer"):
            names = re.findall(r"'([^']*)'", note.partition("':")[2])
            raise SourceError(
                f"{label} has {len(names)} layers: {', '.join(names)}", hint="choose one with --layer", layers=names
            )


def _layer_names(source: str) -> list[str]:
    try:
        info, notes = ogr.read_info(source)
    except Exception:  # noqa: BLE001 - it only words an error
        return []
    for note in notes:
        if note.startswith("More than one layer"):
            return re.findall(r"'([^']*)'", note.partition("':")[2])
    return [info["layer_name"]]
