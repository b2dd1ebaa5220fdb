"""Every way in which a source is no vector layer that can be streamed, in the user's terms; what OGR says of one that is."""

import difflib
import re
from pathlib import Path
from typing import Any

from lib.diagnosis import one_line, without_places
from lib.errors import SourceError
from lib.paths import for_gdal, is_packed, is_remote
from lib.vector import elsewhere, ogr
from lib.vector.names import raw_names
from lib.vector.wkb import SURFACES

# What OGR's interleaved or unordered readers do not give through one layer's Arrow stream.
_NOT_STREAMED = ("OSM",)
_CHECK = "check it with `ogrinfo`"
_MALFORMED = "database disk image is malformed"  # in GDAL's words a whole query stands before it


def _check_streamed(info: dict[str, Any], label: str) -> None:
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


def check_files(path: Path, label: str) -> None:
    """A local source is there and has bytes.

    Raises:
        SourceError: it has not.
    """
    if not path.exists():
        raise SourceError(f"source {path} does not exist", hint="check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{label} is an empty file", hint="fetch or export it again")


def check_log(path: Path, label: str) -> None:
    """An SQLite database has no changes beside it which nobody reads.

    Raises:
        SourceError: it has.
    """
    is_closed = ogr.is_immutable(path) if isinstance(path, Path) else ogr.is_sqlite(path)
    if is_closed and ogr.wal_bytes(path):
        raise SourceError(
            f"{label} has changes that are only in its write-ahead log {path.name}-wal: a program ended without closing it",
            hint=f"put them into the file: sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'",
        )


def described(
    source: str, name: str, layer: str | None, label: str, encoding: str | None
) -> tuple[dict[str, Any], list[str]]:
    """What pyogrio says of the one layer of a source, which OGR opens by this name, and what was warned of.

    Raises:
        SourceError: it is no vector dataset, or has not that one layer; it has curves, or is not to be streamed.
    """
    info, notes = _info(source, name, layer, label, encoding)
    if layer is None:
        _check_single(notes, label)
    _check_streamed(info, label)
    return info, notes


def _info(
    source: str, name: str, layer: str | None, label: str, encoding: str | None
) -> tuple[dict[str, Any], list[str]]:
    try:
        info, notes = ogr.read_info(name, layer, encoding=encoding)
        raw_names(info)
    except MemoryError:
        raise
    except Exception as error:
        words = without_places(one_line(error))
        if isinstance(error, UnicodeError):
            hint = "say how its text is encoded with --encoding, such as ISO-8859-1 or CP1252"
            if encoding:  # which OGR takes for values only
                hint = f"convert the file: iconv -f {encoding} -t UTF-8 SOURCE > COPY"
            raise SourceError(f"{label}: names of its fields are no UTF-8", hint=hint) from error
        reason, hint = elsewhere.trouble(source, words)
        if reason:
            raise SourceError(f"{label} cannot be opened: {reason}", hint=hint, path=source) from error
        if layer is not None and "could not be opened" in words:
            names = _layer_names(name)
            folded = {name.lower(): name for name in names}
            near = [folded[each] for each in difflib.get_close_matches(layer.lower(), folded, 1)]
            raise SourceError(
                f"{label} has no layer {layer!r}; it has {', '.join(names) or 'none'}",
                hint=f"did you mean {near[0]!r}?" if near else "choose one with --layer",
                layers=names,
            ) from error
        if (found := re.search(r"Geometry type is not supported: -?(\d+)", words)) and int(found[1]) % 1000 in SURFACES:
            raise SourceError(
                f"{label}: the layer is declared {SURFACES[int(found[1]) % 1000]}, a surface, which is not read",
                hint="make polygons of it: ogr2ogr -nlt MULTIPOLYGON polygons.gpkg SOURCE",
            ) from error
        if is_packed(name) and not elsewhere.unpacks(name):
            raise SourceError(
                f"{label} is damaged: it does not unpack to its end", hint="fetch or pack it again", path=source
            ) from error
        if "malformed" in words or "corrupt" in words.lower():
            words = _MALFORMED if _MALFORMED in words else words
            raise SourceError(f"{label} is damaged: {words}", hint="fetch or export it again") from error
        raise _not_vector(name, label, words) from error
    return info, notes


def _not_vector(source: str, label: str, words: str) -> SourceError:
    """Why OGR does not open it, in the user's terms."""
    path = Path(source)
    if path.is_dir():
        return SourceError(
            f"{label} is a folder and no vector dataset",
            hint="name a file, a .gdb folder, or a folder of Parquet files",
        )
    if "ERROR parsing" not in words and _is_raster(source):
        return SourceError(f"{label} is a raster", hint="use `swath raster`")
    if "not recognized" in words or "list index" in words or "out of bounds" in words:
        return SourceError(f"{label} is not a vector dataset that OGR reads", hint=_CHECK)
    hint = (
        "fetch it, if that fails again: an answer of its server may have been cut short"
        if is_remote(source)
        else _CHECK
    )
    return SourceError(f"{label} cannot be opened: {words}", hint=hint)


def _is_raster(source: str) -> bool:
    """Ask the raster library, which is only imported to word this error."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import rasterio

            with rasterio.open(for_gdal(source)):
                return True
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - then it is no raster
            return False


def _check_single(notes: list[str], label: str) -> None:
    """Several layers and none named: pyogrio warns and takes the first, we do not."""
    if names := _names_in(notes):
        raise SourceError(
            f"{label} has {len(names)} layers: {', '.join(names)}", hint="choose one with --layer", layers=names
        )


def _names_in(notes: list[str]) -> list[str]:
    """The layers' names in pyogrio's warning that there are several; none where it does not warn."""
    said = next((note for note in notes if note.startswith("More than one layer")), "")
    return re.findall(r"'(.*?)'(?= \(default\)|, '|\. Specify)", said.partition("':")[2])


def _layer_names(source: str) -> list[str]:
    try:
        info, notes = ogr.read_info(source)
    except Exception:  # noqa: BLE001 - it only words an error
        return []
    return _names_in(notes) or [info["layer_name"]]
