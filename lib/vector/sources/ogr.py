"""Layers that OGR reads: their header facts, every way in which one is unusable, and their batches.

Opens datasets and reads no features to plan; what a format's own files tell beside OGR is in `FORMATS`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

from lib.diagnosis import one_line
from lib.errors import DataError, SourceError, UsageError
from lib.paths import is_remote
from lib.vector import elsewhere, ogr
from lib.vector.bad_rows import BadRow
from lib.vector.crs import crs_name, is_undefined, normal_crs, same_crs
from lib.vector.encoding import Texts
from lib.vector.names import field_names, geometry_column, raw_names
from lib.vector.row_checks import RowChecks
from lib.vector.sources import csv_lines, flatgeobuf, geojson, shapefile, sqlite, texts
from lib.vector.sources.facts import Given, InTable, LayerFacts, Place, Sizes, Wish
from lib.vector.sources.hidden import BY_FID, hidden_in
from lib.vector.sources.opening import check_log, described
from lib.vector.sources.pushing import Pushed, asked_for

_COORDINATES = ({"x", "y"}, {"lon", "lat"}, {"longitude", "latitude"}, {"easting", "northing"})
_SHOWN = 20  # of names, in one line
# OGR goes on with a Shapefile's next record where one cannot be fetched, which takes as long again: it is heard between batches.
_ROWS_HEARD = 64
_OF_SQLITE = ("GPKG", "SQLite")
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
        origin: where that is.
        encoding: of text that the file does not declare; None where nobody says.
        checks_rows: whether text has to be UTF-8 in the end, and geometries whole and linear.
        skips_bad: whether rows that are not are left out.
        renames: whether some columns have other names here than in the file, which depend on all that there are.
        pushed: what the driver is asked for: `batches` has no others.
    """

    facts: LayerFacts
    path: Path
    origin: elsewhere.Origin
    encoding: str | None = None
    checks_rows: bool = True
    skips_bad: bool = False
    renames: bool = False
    pushed: Pushed = field(default_factory=Pushed)

    @classmethod
    def opened(cls, origin: elsewhere.Origin, layer: str | None, label: str, rows: int, given: Given) -> Self:
        """The layer, by its header; it is to be read in batches of at most `rows`.

        Raises:
            SourceError: it is missing, no vector dataset, or has not that one layer; it has curves; its files are cut short.
        """
        name = origin.name
        check_log(origin.file, label)
        info, notes = described(origin.source, name, layer, label, given.encoding)
        elsewhere.check_parts(origin.source, name, label)
        path = _layer_path(origin.file, info)
        if info["driver"] == "GeoJSONSeq" and (at := texts.torn_at(path)) is not None:
            raise SourceError(
                f"{label} is cut short: its last feature, at byte {at}, is not whole", hint=shapefile.CUT_SHORT
            )
        if info["features"] < 0:
            info["features"] = _counted(name, path, info, label)
        sizes = _sizes(path, info, label, rows)
        facts = _facts(name, label, info, notes, path, sizes)
        return cls(
            with_crs(facts, given.crs), path, origin, given.encoding, given.checks_text, given.skips_bad, _renames(info)
        )

    def count(self) -> int | None:
        """Features by another way than OGR's Arrow stream, which ends early without an error on a corrupt page.

        Raises:
            DataError: the count itself meets damage.
        """
        facts = self.facts
        self.origin.check_whole(facts.label)
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
        if self.facts.driver == "GML":
            texts.check_xml(self.path, self.facts.label)
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
        self.origin.check_unchanged()

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
        is_counted = _format(facts.driver, self.path) is not None
        if facts.driver == "ESRI Shapefile" and is_remote(self.origin.source):
            rows = min(rows, _ROWS_HEARD)
        with ogr.configured(**ogr.reading(facts.driver, limit_bytes)):
            batches = ogr.open_batches(
                facts.source, facts.layer, facts.at_most(rows), encoding=self.encoding, **options
            )
            if self.origin.is_plain and is_counted:
                with batches as (_, reader):
                    yield reader
            else:
                with elsewhere.heard(batches, self.origin, facts.label, hears_all=not is_counted) as reader:
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
        features=sizes.count if sizes.count >= 0 else int(info["features"]),
        source_bytes=_dataset_bytes(path),
        sizes=sizes,
        metadata=info["layer_metadata"] or {},
        has_ids=info["driver"] in ("GeoJSON", "GeoJSONSeq") and path.is_file() and texts.has_numbers(path),
        notes=(
            *(note for note in notes if "More than one layer" not in note),
            *_renamed(info, label),
            *_pointless(info, label),
        ),
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


def _pointless(info: dict[str, Any], label: str) -> list[str]:
    """What is to be said of a CSV with columns of coordinates that are no points."""
    names = {str(name).lower() for name in info["fields"]}
    if info["driver"] != "CSV" or info["geometry_type"] or not any(pair <= names for pair in _COORDINATES):
        return []
    return [
        f"{label} has no geometries: its columns of coordinates are points where a .csvt beside it calls them CoordX and CoordY"
    ]


def _renamed(info: dict[str, Any], label: str) -> list[str]:
    """What is to be said of fields that have other names here."""
    pairs = [(old, new) for old, new in zip(raw_names(info), field_names(info), strict=True) if old != new]
    if not pairs:
        return []
    words = ", ".join(f"{old!r} is {new!r}" for old, new in pairs[:_SHOWN])
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return [f"{label}: fields whose names are taken, whatever their case, are renamed: {words}{more}"]


def _counted(name: str, path: Path, info: dict[str, Any], label: str) -> int:
    """Features that no header counts: as the table bounds them, or counted, as indexes are planned by them."""
    if info["driver"] in _OF_SQLITE and (bound := sqlite.most_rows(path, info["layer_name"])) >= 0:
        return bound
    try:
        return int(ogr.read_info(name, info["layer_name"], count=True)[0]["features"])
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
    """Size of the files that make up a dataset, unpacked; 0 where that is not known."""
    if not isinstance(path, Path):
        return elsewhere.size(str(path))
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
