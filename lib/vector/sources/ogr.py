"""Layers that OGR reads: their header facts, every way in which one is unusable, and their batches.

Opens datasets and reads no features to plan; what a format's own files tell beside OGR is in `FORMATS`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

from lib.diagnosis import one_line
from lib.errors import DataError, SourceError, UsageError
from lib.paths import for_gdal, is_local
from lib.vector import ogr
from lib.vector.bad_rows import BadRow
from lib.vector.crs import crs_name, is_undefined, normal_crs, same_crs
from lib.vector.encoding import Texts
from lib.vector.names import field_names, geometry_column, raw_names
from lib.vector.row_checks import RowChecks
from lib.vector.sources import csv_lines, flatgeobuf, geojson, shapefile, sqlite, texts
from lib.vector.sources.facts import Given, InTable, LayerFacts, Place, Sizes, Wish
from lib.vector.sources.hidden import BY_FID, hidden_in
from lib.vector.sources.pushing import Pushed, asked_for
from lib.vector.wkb import SURFACES

_SHOWN = 20  # of names, in one line
# What OGR's interleaved or unordered readers do not give through one layer's Arrow stream.
_NOT_STREAMED = ("OSM",)
_PACKED = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip"}
# Of a dataset that is several files: those with the same stem, by the suffix of the one that is named.
_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf")
_MAPINFO_PARTS = (".tab", ".dat", ".map", ".id", ".ind", ".mif", ".mid")
_PARTS = {suffix: parts for parts in (_SHAPEFILE_PARTS, _MAPINFO_PARTS) for suffix in parts}


class _Format(Protocol):
    """What a format's own files say beside OGR, as a module."""

    def sizes(self, path: Path, info: dict[str, Any], label: str, rows: int) -> Sizes:
        """Sizes of a layer's features, by a bounded look; raises SourceError or DataError where the files are damaged."""

    def count(self, path: Path, layer: str, label: str) -> int | None:
        """Features by another way than OGR's stream; raises DataError or SourceError where that meets damage."""


FORMATS: dict[str, _Format] = {
    "GPKG": sqlite,
    "SQLite": sqlite,
    "ESRI Shapefile": shapefile,
    "FlatGeobuf": flatgeobuf,
    "GeoJSON": geojson,
    "GeoJSONSeq": texts,
    "CSV": texts,
}
# Of the others OGR's own count, which it made when it opened them, is as good.
_MOST_NUMBERS = 500  # SQLite takes expressions in a query as it takes columns: 2,000
_COUNTED_BESIDE = ("GPKG", "ESRI Shapefile", "FlatGeobuf", "GeoJSON", "GeoJSONSeq")


@dataclass(frozen=True, slots=True)
class OgrSource:
    """A layer that OGR streams.

    Attributes:
        facts: of the layer.
        path: the file that the layer is in.
        encoding: of text that the file does not declare; None where nobody says.
        checks_rows: whether text has to be UTF-8 in the end, and geometries whole and linear.
        skips_bad: whether rows that are not are left out.
        renames: whether some columns have other names here than in the file, which depend on all that there are.
        pushed: what the driver is asked for: `batches` has no others.
    """

    facts: LayerFacts
    path: Path
    encoding: str | None = None
    checks_rows: bool = True
    skips_bad: bool = False
    renames: bool = False
    pushed: Pushed = field(default_factory=Pushed)

    @classmethod
    def opened(cls, source: str, layer: str | None, label: str, rows: int, given: Given) -> Self:
        """The layer, by its header; it is to be read in batches of at most `rows`.

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
        info, notes = _info(source, layer, label, given.encoding)
        if layer is None:
            _check_single(notes, label)
        _check_streamed(info, label)
        path = _layer_path(path, info)
        sizes = _sizes(path, info, label, rows)
        facts = _facts(source, label, info, notes, path, sizes)
        return cls(with_crs(facts, given.crs), path, given.encoding, given.checks_text, given.skips_bad, _renames(info))

    def count(self) -> int | None:
        """Features by another way than OGR's Arrow stream, which ends early without an error on a corrupt page.

        Raises:
            DataError: the count itself meets damage.
        """
        facts = self.facts
        if facts.sizes.count >= 0 and facts.driver != "ESRI Shapefile":  # whose index has the deleted ones, too
            return facts.sizes.count
        if (lines := self._lines) is not None:
            lines.read()
            return lines.count
        form = _format(facts.driver, self.path) if facts.driver in _COUNTED_BESIDE else None
        if form and (counted := form.count(self.path, facts.layer, facts.label)) is not None:
            return counted
        return facts.features if facts.features >= 0 else None

    def in_table(self) -> InTable | None:
        """What a GeoPackage's table has and OGR does not show; None of other formats."""
        facts = self.facts
        if facts.driver != "GPKG" or facts.geometry_name is None:
            return None
        fields = zip(facts.fields, facts.field_types, strict=True)
        numbers = [name for name, typed in fields if typed.startswith(("OFTInteger", "OFTReal"))]
        where = self.pushed.where
        return sqlite.in_table(self.path, facts.layer, facts.geometry_name, numbers[:_MOST_NUMBERS], where)

    def narrowed(self, wish: Wish) -> tuple[Self, str]:
        """The source that gives what is wished for, and perhaps more, where the driver can be asked; and how or why not."""
        answer = asked_for(wish, self.facts, self.path, self.pushed)
        return replace(self, pushed=answer.pushed), answer.words

    @property
    def is_whole(self) -> bool:
        """Whether the driver is asked for all rows."""
        return not self.pushed

    @property
    def skipped(self) -> dict[str, int]:
        """Nothing that could be said in files and their parts."""
        return {}

    def given(self) -> tuple[int, int] | None:
        """How many features the driver has to give at least and at most, of what it is asked for; None where that is all.

        Raises:
            DataError: the count itself meets damage.
        """
        pushed, facts = self.pushed, self.facts
        if not pushed:
            return None
        if pushed.where:
            asked = sqlite.count(self.path, facts.layer, facts.label, pushed.where)
            return asked, asked
        return pushed.least or 0, facts.features if pushed.most is None else pushed.most

    def left_out(self) -> Iterator[BadRow]:
        """What OGR leaves out without a word: elements of a GeoJSON and of a sequence that are no features, a CSV's last line."""
        if (lines := self._lines) is not None:
            lines.read()
            if lines.is_unclosed:
                yield BadRow(lines.count, None, csv_lines.UNCLOSED)
            return
        if self.facts.driver not in ("GeoJSON", "GeoJSONSeq") or not self.path.is_file():
            return
        is_sequence = self.facts.driver == "GeoJSONSeq"
        every = map(texts.feature_of, texts.lines(self.path)) if is_sequence else texts.elements(self.path)
        for number, found in enumerate(every, 1):
            if not texts.is_feature(found):
                yield BadRow(number, None, "it is no GeoJSON feature")

    @contextmanager
    def batches(
        self, rows: int, batch_bytes: int, *, fids: bool = False, columns: Sequence[str] | None = None
    ) -> Iterator[Any]:
        """The layer as a reader of batches of at most so many rows; of a GeoPackage OGR holds them to the bytes, too.

        Of these columns at least.
        """
        columns = None if self.renames else columns
        with self._opened(rows, batch_bytes, fids=fids, columns=columns, **self.pushed.options) as reader:
            yield reader

    @contextmanager
    def at(self, place: Place, rows: int, batch_bytes: int) -> Iterator[Iterator[Any]]:
        """The batch at a place alone. Of a GeoPackage by feature ids: to skip rows and close early there ends in a segfault."""
        if place.fid is None:
            with self._opened(rows, batch_bytes, skip=place.row) as reader:
                yield islice(reader, 1)
        else:
            column = '"' + (self.facts.fid_column or "fid").replace('"', '""') + '"'
            where = f"{column} BETWEEN {place.fid - rows // 2} AND {place.fid + rows // 2}"
            with self._opened(rows, batch_bytes, where=where, is_again=True) as reader:
                yield reader

    @contextmanager
    def _opened(self, rows: int, batch_bytes: int, *, is_again: bool = False, **options: Any) -> Iterator[Any]:
        facts = self.facts
        limit_bytes = max(batch_bytes, facts.sizes.largest_bytes) + 2**20
        if self.checks_rows:
            options["checks"] = self._checks(int(options.get("skip", 0)), is_again=is_again)
        with (
            ogr.configured(**ogr.reading(facts.driver, limit_bytes)),
            ogr.open_batches(facts.source, facts.layer, facts.at_most(rows), encoding=self.encoding, **options) as (
                _,
                reader,
            ),
        ):
            yield reader

    def _checks(self, skipped: int, *, is_again: bool) -> RowChecks:
        """What looks at rows; those that are looked at beforehand and again are bad with their numbers, then."""
        facts, skips = self.facts, self.skips_bad or is_again
        is_numbered = self.is_whole and not is_again
        looked_at = Texts(facts.label, facts.driver, self.encoding, skipped, is_numbered=is_numbered, skips=skips)
        hidden, by_fid = hidden_in(facts, self.path), facts.driver in BY_FID and facts.geometry_name is not None
        lines = self._lines.too_long if self._lines else None
        return RowChecks(looked_at, facts.geometry_name, skips, hidden, by_fid, lines)

    @property
    def _lines(self) -> csv_lines.Lines | None:
        """What is known of a CSV's lines; None of other formats."""
        is_csv = self.facts.driver == "CSV" and self.path.is_file()
        return csv_lines.Lines(self.path, has_header=self.facts.fields[:1] != ("field_1",)) if is_csv else None


def _facts(source: str, label: str, info: dict[str, Any], notes: list[str], path: Path, sizes: Sizes) -> LayerFacts:
    subtypes = ("" if each in ("OFSTNone", "Unknown") else f":{each}" for each in info["ogr_subtypes"])
    return LayerFacts(
        source=source,
        label=label,
        driver=info["driver"],
        layer=info["layer_name"],
        fields=tuple(field_names(info)),
        field_types=tuple(kind + sub for kind, sub in zip(info["ogr_types"], subtypes, strict=True)),
        geometry_type=info["geometry_type"],
        geometry_name=geometry_column(info) if info["geometry_type"] else None,
        fid_column=info["fid_column"],
        crs=info["crs"],
        features=sizes.count if sizes.count >= 0 else _features(source, path, info, label),
        source_bytes=_dataset_bytes(path),
        sizes=sizes,
        metadata=info["layer_metadata"] or {},
        has_ids=info["driver"] in ("GeoJSON", "GeoJSONSeq") and path.is_file() and texts.has_numbers(path),
        notes=(*(note for note in notes if "More than one layer" not in note), *_renamed(info, label)),
    )


def with_crs(facts: LayerFacts, crs: str | None) -> LayerFacts:
    """The layer in the CRS that the job says it is in.

    Raises:
        SourceError: it has another one.
        UsageError: there is no such CRS.
    """
    if crs is None or facts.geometry_name is None:
        return facts
    try:
        crs = normal_crs(crs)
    except ValueError as error:
        raise UsageError(f"--assume-crs: {error}", hint="name one that PROJ knows, such as EPSG:32633") from error
    if not facts.crs or is_undefined(facts.crs):
        return replace(facts, crs=crs, is_crs_assumed=True)
    if not same_crs(facts.crs, crs):
        raise SourceError(
            f"{facts.label} has a CRS, {crs_name(facts.crs)}, and not the assumed {crs_name(crs)}",
            hint="leave --assume-crs out; where the file's own is wrong, correct it: ogr2ogr -a_srs",
        )
    return facts


def _renames(info: dict[str, Any]) -> bool:
    """Whether fields, or the geometries because of a field of that name, have other names here."""
    return raw_names(info) != field_names(info) or geometry_column(info) != (info["geometry_name"] or "wkb_geometry")


def _renamed(info: dict[str, Any], label: str) -> list[str]:
    """What is to be said of fields that have other names here."""
    pairs = [(old, new) for old, new in zip(raw_names(info), field_names(info), strict=True) if old != new]
    if not pairs:
        return []
    words = ", ".join(f"{old!r} is {new!r}" for old, new in pairs[:_SHOWN])
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return [f"{label}: fields whose names are taken, whatever their case, are renamed: {words}{more}"]


def _features(source: str, path: Path, info: dict[str, Any], label: str) -> int:
    """Features as the header counts them; else as the table bounds them, or counted: indexes are planned by them."""
    if info["features"] >= 0:
        return int(info["features"])
    if info["driver"] in ("GPKG", "SQLite") and (bound := sqlite.most_rows(path, info["layer_name"])) >= 0:
        return bound
    try:
        return int(ogr.read_info(source, info["layer_name"], count=True)[0]["features"])
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{label}: layer {info['layer_name']} cannot be counted: {one_line(error)}") from error


def _format(driver: str, path: Path) -> _Format | None:
    """What knows the format of a file; a table without its .shp is not a Shapefile to it."""
    is_whole = path.is_file() and (driver != "ESRI Shapefile" or path.suffix.lower() == ".shp")
    return FORMATS.get(driver) if is_whole else None


def _sizes(path: Path, info: dict[str, Any], label: str, rows: int) -> Sizes:
    features, overhead = int(info["features"]), 8 * (len(info["fields"]) + 1)
    mean = _dataset_bytes(path) // features + overhead if features > 0 else 0
    form = _format(info["driver"], path)
    if form is None:
        return Sizes(mean)
    found = form.sizes(path, info, label, rows)
    if form is not sqlite:
        return found
    # What was not looked at may be larger than what was: by the file's size.
    return replace(found, mean_bytes=max(mean, found.mean_bytes + overhead))


def _dataset_bytes(path: Path) -> int:
    """Size of the files that make up a dataset; 0 where they are not local."""
    if (parts := _PARTS.get(path.suffix.lower())) is not None:
        return sum(part.stat().st_size for end in parts if (part := shapefile.sibling(path, end)))
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if path.is_file() else 0


def _layer_path(path: Path, info: dict[str, Any]) -> Path:
    """The file that a layer is in: of a folder of Shapefiles, the one that bears its name; of a Shapefile's parts, its .shp."""
    if info["driver"] != "ESRI Shapefile":
        return path
    return shapefile.sibling(path / f"{info['layer_name']}.shp" if path.is_dir() else path, ".shp") or path


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


def _check_files(path: Path, label: str) -> None:
    if not path.exists():
        raise SourceError(f"source {path} does not exist", hint="check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{label} is an empty file", hint="fetch or export it again")
    if path.is_file() and (packed := _packed(path)):
        raise SourceError(
            f"{label} is packed ({packed}): how large its features are is not known beforehand", hint="unpack it first"
        )
    if ogr.wal_bytes(path) and ogr.is_immutable(path):
        raise SourceError(
            f"{label} has changes that are only in its write-ahead log {path.name}-wal: a program ended without closing it",
            hint=f"put them into the file: sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'",
        )


def _packed(path: Path) -> str:
    """How a file is packed, by its first bytes; empty where it is not."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for magic, name in _PACKED.items() if start.startswith(magic)), "")


def _info(source: str, layer: str | None, label: str, encoding: str | None) -> tuple[dict[str, Any], list[str]]:
    try:
        info, notes = ogr.read_info(source, layer, encoding=encoding)
        raw_names(info)
    except MemoryError:
        raise
    except Exception as error:
        words = one_line(error)
        if isinstance(error, UnicodeError):
            hint = "say how its text is encoded with --encoding, such as ISO-8859-1 or CP1252"
            if encoding:  # which OGR takes for values only
                hint = f"convert the file: iconv -f {encoding} -t UTF-8 SOURCE > COPY"
            raise SourceError(f"{label}: names of its fields are no UTF-8", hint=hint) from error
        if layer is not None and "could not be opened" in words:
            names = _layer_names(source)
            raise SourceError(
                f"{label} has no layer {layer!r}; it has {', '.join(names) or 'none'}",
                hint="choose one with --layer",
                layers=names,
            ) from error
        if (found := re.search(r"Geometry type is not supported: -?(\d+)", words)) and int(found[1]) % 1000 in SURFACES:
            raise SourceError(
                f"{label}: the layer is declared {SURFACES[int(found[1]) % 1000]}, a surface, which is not read",
                hint="make polygons of it: ogr2ogr -nlt MULTIPOLYGON polygons.gpkg SOURCE",
            ) from error
        if "malformed" in words or "corrupt" in words.lower():
            raise SourceError(f"{label} is damaged: {words}", hint="fetch or export it again") from error
        raise _not_vector(source, label, words) from error
    return info, notes


def _not_vector(source: str, label: str, words: str) -> SourceError:
    """Why OGR does not open it, in the user's terms."""
    path = Path(source)
    if path.is_dir():
        return SourceError(
            f"{label} is a folder and no vector dataset",
            hint="name a file, a .gdb folder, or a folder of Parquet files",
        )
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
