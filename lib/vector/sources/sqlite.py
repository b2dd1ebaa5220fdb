"""What SQLite itself says of a GeoPackage's or SpatiaLite's layer: how many features, and how large, by a bounded look."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lib.diagnosis import DAMAGED_HINT, one_line
from lib.errors import DataError
from lib.units import MIB
from lib.vector import elsewhere, ogr
from lib.vector.sources.facts import InTable, Place, Sizes

# A look at all of a million parcels' geometries takes 0.23 s, at their texts twice as much; what is not seen in time is bounded
# while it is read. Of the processor's time, so that a busy host sees as much.
_GEOMETRY_SECONDS, _TEXT_SECONDS = 0.06, 0.04
_GEOMETRY_ROWS, _TEXT_ROWS = 16_384, 256
_CLOCK_STEP = 2_000  # of SQLite's virtual machine, between two looks at the clock
_LEAST_ROW_BYTES = 24
# A geometry's flags where it is empty: bits 4, and of a type of its own 5; any byte order and envelope.
_EMPTY = "(" + ", ".join(f"'{flags:02X}'" for flags in range(256) if flags & 0x10) + ")"
# A layer of curves is read as chords: a circle of two arcs is 93 bytes, and 1,466 then.
_CURVED = ("CIRCULARSTRING", "COMPOUNDCURVE", "CURVEPOLYGON", "MULTICURVE", "MULTISURFACE", "CURVE", "SURFACE")
_CHORDS = 16
_WKB_HEAD_BYTES, _Z_AND_M = 5, 1000
# Steps from one stretch to the next, round the table: one that does not divide their number comes by all of them.
_PRIMES = (61, 67, 71, 73)


class _Look(NamedTuple):
    """Of the rows that were looked at: how many, their bytes in all, the largest and its rowid; whether that were all rows."""

    rows: int
    total_bytes: int
    largest_bytes: int
    rowid: int | None
    is_whole: bool


def sizes(path: Path, info: dict[str, Any], label: str, rows: int) -> Sizes:
    """The largest feature and the mean, from as many stretches of the table as fit into the time, spread over all of it.

    Of a geometry's length SQLite reads no overflow page; of a text's it does. Any column may hold a text.

    Raises:
        DataError: a page is damaged.
    """
    del rows
    if not isinstance(path, Path):  # a look at stretches through GDAL would fetch or unpack all before them
        return Sizes(0)
    name = _quoted(info["layer_name"])
    geometry = f"LENGTH({_quoted(info['geometry_name'])})" if info["geometry_name"] else "0"
    texts = _added_up([_length(_quoted(str(field))) for field in info["fields"]])
    try:
        with _database(path) as database:
            shapes = _look(database, name, geometry, _GEOMETRY_ROWS, _GEOMETRY_SECONDS)
            others = _look(database, name, texts, _TEXT_ROWS, _TEXT_SECONDS)
    except sqlite3.DatabaseError as error:
        raise _damaged(error, path, info["layer_name"], label) from error
    chords = _CHORDS if declared_type(path, info["layer_name"]) in _CURVED else 1
    looked_at = ((shapes, chords), (others, 1))
    mean = sum(look.total_bytes * factor // look.rows for look, factor in looked_at if look.rows)
    rowid = max(shapes, others, key=lambda each: each.largest_bytes).rowid
    return Sizes(
        mean_bytes=mean,
        largest_bytes=shapes.largest_bytes * chords + others.largest_bytes,
        total_bytes=shapes.total_bytes,
        count=shapes.rows if shapes.is_whole else -1,
        place=None if rowid is None else Place(fid=rowid),
    )


def _look(database: sqlite3.Connection, name: str, length: str, step: int, seconds: float) -> _Look:
    """A look at a length over stretches of a table, until the time is over; nothing where only GDAL's SQLite can read it."""
    deadline = time.thread_time() + seconds
    database.set_progress_handler(lambda: int(time.thread_time() > deadline), _CLOCK_STEP)
    rows = total = largest = 0
    rowid, which = None, ""
    try:
        for which in _stretches(database, name, step):
            where, some, most, summed = database.execute(
                f"SELECT {'rowid' if which else 'NULL'}, COUNT(*), MAX({length}), SUM({length}) FROM {name} {which}"  # noqa: S608 - quoted
            ).fetchone()
            rows, total = rows + some, total + (summed or 0)
            if (most or 0) > largest:
                largest, rowid = int(most), where
    except sqlite3.OperationalError:
        where, most = _first_large(database, name, length, which) if which else (None, 0)
        if most > largest:
            largest, rowid = most, where
        return _Look(rows, total, largest, rowid, is_whole=False)
    return _Look(rows, total, largest, rowid, is_whole=True)


def _first_large(database: sqlite3.Connection, name: str, length: str, which: str) -> tuple[int | None, int]:
    """The first large row of a stretch for which the time was too short, with its rowid: long texts make one so."""
    database.set_progress_handler(None, 0)
    query = f"SELECT rowid, {length} FROM {name} {which} LIMIT {_TEXT_ROWS}"  # noqa: S608 - quoted
    return next(((where, size) for where, size in database.execute(query) if size >= MIB), (None, 0))


def _stretches(database: sqlite3.Connection, name: str, step: int) -> Iterator[str]:
    """Conditions for stretches of a table's rowids, spread over it; of a view, which has none, one for all."""
    try:
        ends = f"SELECT (SELECT MIN(rowid) FROM {name}), (SELECT MAX(rowid) FROM {name})"  # noqa: S608 - quoted; each by itself is quick
        first, last = database.execute(ends).fetchone()
    except sqlite3.OperationalError:
        first = None
    if first is None:
        yield ""
        return
    count = -(-(last - first + 1) // step)
    stride = next(each for each in _PRIMES if count % each)
    for number in range(count):
        start = first + number * stride % count * step
        yield f"WHERE rowid BETWEEN {start} AND {start + step - 1}"


def count(path: Path, layer: str, label: str, where: str = "") -> int:
    """The rows of a layer, of those for which a condition holds.

    Raises:
        DataError: a page is damaged.
    """
    try:
        with _database(path) as database:
            query = f"SELECT COUNT(*) FROM {_quoted(layer)}{_where(where)}"  # noqa: S608 - quoted
            return int(database.execute(query).fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise _damaged(error, path, layer, label) from error


def _damaged(error: sqlite3.DatabaseError, path: Path, layer: str, label: str) -> DataError:
    """What is said of a layer's damage: between which features it is, as far as their ids can be read from either end."""
    ends = next((ends for what in ("rowid", "rowid, *") if (ends := _readable(path, layer, what))), ())
    words = {
        (False, False): "",
        (True, False): " behind the feature of id {}",
        (False, True): " before the feature of id {1}",
        (True, True): " between the features of id {} and {}",
    }[(any(ends[:1]), any(ends[1:]))]
    hint = (
        f"{DAMAGED_HINT}; --skip-bad skips no damaged pages, `sqlite3 {label} .recover` may save what is on the others"
    )
    return DataError(f"{label}: layer {layer} is damaged{words.format(*ends)}: {one_line(error)}", hint=hint)


def _readable(path: Path, layer: str, what: str) -> tuple[int, int] | tuple[()]:
    """The last feature ids that can be read from either end, 0 where none can; nothing where all can."""
    ends = [0, 0]
    for at, order in enumerate(("ASC", "DESC")):
        try:
            with _database(path) as database:
                for row in database.execute(f"SELECT {what} FROM {_quoted(layer)} ORDER BY rowid {order}"):  # noqa: S608 - quoted
                    ends[at] = row[0]
        except sqlite3.DatabaseError:
            continue
        return ()
    return ends[0], ends[1]


def in_table(path: Path, layer: str, geometry: str, numbers: Sequence[str], where: str = "") -> InTable | None:
    """What a layer's table has in its geometry column and in its columns of numbers; None where it cannot be asked.

    Of those rows for which a condition holds. Numbers sort before texts and blobs, so that to compare with an empty text asks for
    the type, at half the price of `typeof`; which column has one is asked only then (lib/MEASURED.md, "Counts beside the pass").
    """
    table, within = _quoted(layer), _where(where)
    columns = [f"{table}.{_quoted(name)}" for name in numbers]
    is_text = " OR ".join(f"+{column} >= ''" for column in columns) or "0"
    query = (
        f"SELECT COUNT(*), COUNT({table}.{_quoted(geometry)}), COUNT(*) FILTER (WHERE {is_text}) FROM {table}{within}"  # noqa: S608 - quoted
    )
    firsts = ", ".join(f"MIN(rowid) FILTER (WHERE +{column} >= '')" for column in columns)
    try:
        with _database(path) as database:
            rows, geometries, texts = database.execute(query).fetchone()
            each = f"SELECT {firsts} FROM {table}{within}"  # noqa: S608 - quoted
            first = database.execute(each).fetchone() if texts else [None] * len(numbers)
    except sqlite3.DatabaseError:  # damage is for `count` to tell
        return None
    return InTable(rows, geometries, {name: row for name, row in zip(numbers, first, strict=True) if row is not None})


def with_geometry(path: Path, layer: str, geometry: str, first: int, last: int) -> list[int]:
    """The feature ids, of those from the first to the last, whose geometry is not NULL; none where the table has no ids."""
    column = f"{_quoted(layer)}.{_quoted(geometry)}"
    query = f"SELECT rowid FROM {_quoted(layer)} WHERE rowid BETWEEN ? AND ? AND {column} IS NOT NULL"  # noqa: S608 - quoted
    try:
        with _database(path) as database:
            return [fid for (fid,) in database.execute(query, (first, last))]
    except sqlite3.DatabaseError:  # damage is for `count` to tell
        return []


def most_rows(path: Path, layer: str) -> int:
    """What bounds the rows of a layer that keeps no count of them, without reading it; -1 where nothing does."""
    try:
        with _database(path) as database:
            last = database.execute(f"SELECT MAX(rowid) FROM {_quoted(layer)}").fetchone()[0]  # noqa: S608 - quoted
    except sqlite3.DatabaseError:
        return -1
    return min(int(last or 0), path.stat().st_size // _LEAST_ROW_BYTES)


def declared_type(path: Path, layer: str) -> str:
    """The geometry type that a GeoPackage declares, which OGR shows linearised; empty where it has none."""
    query = "SELECT geometry_type_name FROM gpkg_geometry_columns WHERE lower(table_name) = lower(?)"
    try:
        with _database(path) as database:
            row = database.execute(query, (layer,)).fetchone()
    except sqlite3.DatabaseError:
        return ""
    return str(row[0]).upper() if row else ""


def types_in(path: Path, layer: str, geometry: str) -> set[int]:
    """Types of a GeoPackage's geometries as their WKB has them, Z and M aside; empty where the table cannot be asked.

    Behind a header whose flags say how long its envelope is (OGC 12-128r19, 2.1.3).
    """
    shape = f"{_quoted(layer)}.{_quoted(geometry)}"
    flag = f"substr({shape}, 4, 1)"
    number = f"instr(x'{bytes(range(256)).hex()}', {flag}) - 1"
    start = f"9 + CASE ({number}) >> 1 & 7 WHEN 0 THEN 0 WHEN 1 THEN 32 WHEN 4 THEN 64 ELSE 48 END"
    # With a flat envelope, little-endian, they come first: half the time.
    start = f"CASE {flag} WHEN x'03' THEN 41 ELSE {start} END"
    query = f"SELECT DISTINCT substr({shape}, {start}, 5) FROM {_quoted(layer)} WHERE {shape} IS NOT NULL"  # noqa: S608 - quoted
    try:
        with _database(path) as database:
            heads = [bytes(head) for (head,) in database.execute(query) if isinstance(head, bytes)]
    except sqlite3.DatabaseError:  # damage is for `count` to tell
        return set()
    whole = (head for head in heads if len(head) == _WKB_HEAD_BYTES)
    return {int.from_bytes(head[1:], "little" if head[0] else "big") % _Z_AND_M for head in whole}


def _where(where: str) -> str:
    return f" WHERE {where}" if where else ""


def columns(path: Path, layer: str) -> list[str]:
    """The columns of a layer's table, as they are written there; none where texts are not UTF-8, which orders them otherwise."""
    try:
        with _database(path) as database:
            if database.execute("PRAGMA encoding").fetchone()[0] != "UTF-8":
                return []
            return [str(name) for (name,) in database.execute("SELECT name FROM pragma_table_info(?)", (layer,))]
    except sqlite3.DatabaseError:
        return []


def takes(path: Path, layer: str, where: str) -> bool:
    """Whether SQLite understands a condition."""
    try:
        with _database(path) as database:
            database.execute(f"EXPLAIN SELECT 1 FROM {_quoted(layer)} WHERE {where}").fetchone()  # noqa: S608 - quoted
    except sqlite3.DatabaseError:
        return False
    return True


def box_condition(
    path: Path, layer: str, geometry: str, fid: str, box: tuple[float, float, float, float]
) -> str | None:
    """SQL for rows whose envelopes in the spatial index meet a box; None where there is no index, or it lacks geometries.

    A GeoPackage's index has every geometry that is neither NULL nor flagged as empty (OGC 12-128r19, F.3, 2.1.3).
    """
    table, index = _quoted(layer), _quoted(f"rtree_{layer}_{geometry}")
    shape = f"{table}.{_quoted(geometry)}"
    filled = f"SELECT COUNT(*) FROM {table} WHERE {shape} IS NOT NULL AND hex(substr({shape}, 4, 1)) NOT IN {_EMPTY}"  # noqa: S608 - quoted
    try:
        with _database(path) as database:
            indexed = database.execute(f"SELECT COUNT(*) FROM {index}").fetchone()[0]  # noqa: S608 - quoted
            every = f"SELECT COUNT(*) FROM {table}"  # noqa: S608 - quoted; ten times as quick, and enough where none is empty
            if not fid or all(indexed < database.execute(query).fetchone()[0] for query in (every, filled)):
                return None
    except sqlite3.DatabaseError:
        return None
    left, low, right, high = (format(each, ".17g") for each in box)
    meets = f"maxx >= {left} AND minx <= {right} AND maxy >= {low} AND miny <= {high}"
    return f"{_quoted(fid)} IN (SELECT id FROM {index} WHERE {meets})"  # noqa: S608 - quoted


def indexed(path: Path, condition: str) -> int:
    """How many envelopes meet the box of a condition that `box_condition` made."""
    with _database(path) as database:
        inner = condition[condition.index("(SELECT") :]
        return int(database.execute(f"SELECT COUNT(*) FROM {inner}").fetchone()[0])  # noqa: S608 - quoted


class _ThroughOgr:
    """A database of a virtual file system, which only GDAL's SQLite can open; one row is asked for, or one column."""

    def __init__(self, name: str) -> None:
        self._name = name

    def execute(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The rows; raises DatabaseError, also where OGR ends without a word."""
        for value in values:
            literal = str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
            query = query.replace("?", literal, 1)
        said: list[str] = []
        try:
            with elsewhere.listening(said), ogr.open_sql(self._name, query) as reader:
                rows = [tuple(row) for batch in reader for row in zip(*map(_values, batch.columns), strict=True)]
        except Exception as error:
            raise sqlite3.DatabaseError(one_line(error)) from error
        if said:
            raise sqlite3.DatabaseError(said[-1].rpartition(": ")[2].strip())
        return _Rows(rows)


class _Rows(list[tuple[Any, ...]]):
    def fetchone(self) -> tuple[Any, ...]:
        if not self:
            raise sqlite3.DatabaseError("it cannot be read to its end")
        return self[0]


def _values(column: Any) -> list[Any]:
    return list(column.to_pylist())


@contextmanager
def _database(path: Path) -> Iterator[Any]:
    if not isinstance(path, Path):
        yield _ThroughOgr(str(path))
        return
    mode = "immutable=1" if ogr.is_immutable(path) else "mode=ro"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as database:
        yield database


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _length(column: str) -> str:
    """SQL for a value's bytes where it is a text or a blob, whatever its column is declared to hold; else 0."""
    return f"CASE WHEN typeof({column}) IN ('text', 'blob') THEN LENGTH(CAST({column} AS BLOB)) ELSE 0 END"


def _added_up(terms: list[str]) -> str:
    """SQL for a sum; in groups, as SQLite takes no expression of more than 1000 levels."""
    groups = [" + ".join(terms[start : start + 100]) for start in range(0, len(terms), 100)]
    return " + ".join(f"({group})" for group in groups) or "0"
