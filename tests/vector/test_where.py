"""`--where`: what CQL2 text means, by three evaluations that agree, through every driver, and what is refused."""

import datetime as dt
import math
import operator
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from conftest_vector import make_job, prepared, verified_again
from cql2 import parse_text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.errors import DataError, SourceError, UsageError
from lib.vector import ogr
from lib.vector.predicates.bind import condition_of
from lib.vector.predicates.columns import mask_of
from lib.vector.predicates.rows import holds
from lib.vector.predicates.sql import asked
from lib.vector.predicates.text import read_where
from lib.vector.sources import LayerFacts, Sizes, open_source
from lib.vector.steps import Row, Tally, UndecidedError, outcome, pushed, steps_of
from lib.vector.stream import apply

TYPES = {
    "t": "OFTString", "u": "OFTString", "i": "OFTInteger", "w": "OFTInteger64", "r": "OFTReal",
    "b": "OFTInteger:OFSTBoolean", "d": "OFTDate", "s": "OFTDateTime",
}  # fmt: skip
ARROW = {
    "t": pa.string(), "u": pa.string(), "i": pa.int32(), "w": pa.int64(), "r": pa.float64(), "b": pa.bool_(),
    "d": pa.date32(), "s": pa.string(),
}  # fmt: skip
DECLARED = {"t": "TEXT COLLATE NOCASE", "u": "TEXT", "i": "MEDIUMINT", "w": "INTEGER", "r": "REAL", "b": "BOOLEAN", "d": "DATE",
            "s": "DATETIME"}  # fmt: skip
TEXTS = ["", "a", "A", "O'Brien", "straße", "Ä", "a%b", "a_b", "a\\b", "a[b", "a*b?", "日本", "x\ny", "--", '"']
WIDE = [0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
REALS = [0.0, -0.0, 1.0, 0.1, -2.5, 1e300, 2.0**53, math.nan, math.inf]
DATES = [dt.date(2024, 2, 29), dt.date(1969, 12, 31), dt.date(2024, 3, 1)]
TIMES = ["2024-02-29T12:00:00Z", "2024-02-29T14:00:00+02:00", "2024-02-29T12:00:00.500", "1969-12-31T23:59:59.999Z"]
POOLS: dict[str, list[Any]] = {
    "t": TEXTS, "u": TEXTS, "i": [0, 1, -1, 2**31 - 1], "w": WIDE, "r": REALS, "b": [True, False], "d": DATES, "s": TIMES,
}  # fmt: skip


def facts(label: str = "in.gpkg") -> LayerFacts:
    """A layer of all kinds of fields."""
    return LayerFacts(
        "in.gpkg",
        label,
        "GPKG",
        "in",
        tuple(TYPES),
        tuple(TYPES.values()),
        "Point",
        "geom",
        "fid",
        None,
        1,
        1,
        Sizes(1),
    )


# The oracle: Python on the tree that the library made, which shares nothing with what it judges.

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def truth(tree: Any, row: dict[str, Any]) -> Any:  # noqa: C901, PLR0911, PLR0912 - one case for each operator
    """What a JSON tree is of a row; None for unknown and for NULL."""
    if isinstance(tree, (bool, str, float, int)):
        return tree
    if "property" in tree:
        return moment(row[tree["property"]]) if tree["property"] == "s" else row[tree["property"]]
    if "date" in tree:
        return dt.date.fromisoformat(tree["date"])
    if "timestamp" in tree:
        return moment(tree["timestamp"])
    name, args = tree["op"], tree["args"]
    if name == "in":
        found = [truth({"op": "=", "args": [args[0], each]}, row) for each in args[1]]
        return True if True in found else None if None in found else False
    if name == "between":
        return truth(
            {
                "op": "and",
                "args": [{"op": o, "args": [args[0], e]} for o, e in zip((">=", "<="), args[1:], strict=True)],
            },
            row,
        )
    found = [truth(each, row) for each in args]
    if name == "isNull":
        return found[0] is None
    if name in ("and", "or"):
        decisive = name == "or"
        return decisive if decisive in found else None if None in found else not decisive
    if None in found:
        return None
    if name == "not":
        return not found[0]
    if name == "like":
        return like(found[1], found[0])
    if name in COMPARE:
        if isinstance(found[0], dt.datetime) != isinstance(found[1], dt.datetime):
            found = [each if isinstance(each, dt.datetime) else moment(f"{each}T00:00:00Z") for each in found]
        return COMPARE[name](*found)
    one, other = map(np.float64, found)
    with np.errstate(all="ignore"):
        return float({"+": one + other, "-": one - other, "*": one * other, "/": one / other}[name])


def moment(text: Any) -> Any:
    """A time with a zone: without one it is UTC."""
    if text is None:
        return None
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def like(pattern: str, text: str) -> bool:
    """LIKE by recursion."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(like(pattern[1:], text[at:]) for at in range(len(text) + 1))
    if pattern[0] == "_":
        return bool(text) and like(pattern[1:], text[1:])
    taken = 2 if pattern[0] == "\\" and len(pattern) > 1 else 1
    return text[:1] == pattern[taken - 1] and like(pattern[taken:], text[1:])


def literal(value: Any) -> str:
    """A value as CQL2 text."""
    match value:
        case bool():
            return str(value).lower()
        case dt.date():
            return f"DATE('{value}')"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case float():
            return f"{value:.20f}" if abs(value) < 1e6 else f"{value:.17e}".replace("e+", "e")
    return str(value)


def values_of(name: str) -> st.SearchStrategy[str]:
    """Literals that a field can be compared with."""
    if name == "s":
        return st.sampled_from(
            [f"TIMESTAMP('{moment(each).astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}')" for each in TIMES]
        )
    pool = [each for each in POOLS[name] if not (isinstance(each, float) and not math.isfinite(each))]
    pool += [0.5, -2.5, 9.3e18] if name == "w" else [3] if name == "r" else []
    return st.sampled_from([literal(each) for each in pool])


def conditions() -> st.SearchStrategy[str]:
    """Conditions of one operator each."""
    signs, numbers, negations = st.sampled_from(list(COMPARE)), st.sampled_from("iwr"), st.sampled_from(["", "NOT "])

    def of_field(name: str) -> st.SearchStrategy[str]:
        some = values_of(name)
        several = st.lists(some, min_size=1, max_size=3)
        found = [
            st.builds("{} {} {}".format, st.just(name), st.sampled_from(["=", "<>"]) if name == "b" else signs, some),
            st.builds(lambda few, no: f"{name} {no}IN ({', '.join(few)})", several, negations),
            st.builds("{} {} {}".format, some, st.sampled_from(["=", "<>"]) if name == "b" else signs, st.just(name)),
            st.sampled_from([f"{name} IS NULL", f"{name} IS NOT NULL"]),
        ]
        if name != "b":
            found.append(st.builds(f"{name} {{}}BETWEEN {{}} AND {{}}".format, negations, some, some))
        return st.one_of(found)

    patterns = st.lists(
        st.sampled_from(["%", "_", "a", "A", "\\%", "\\_", "\\\\", "ß", "[", "*", "?", "''"]), max_size=4
    )
    return st.one_of(
        *map(of_field, POOLS),
        st.builds("{} {} {}".format, numbers, signs, numbers),
        st.builds("{} {} {} {} {}".format, numbers, st.sampled_from("+-*/"), numbers, signs, values_of("i")),
        st.builds(
            "{} {} ({} {} {}) {} {}".format,
            numbers,
            st.sampled_from("+-*/"),
            numbers,
            st.sampled_from("+-*/"),
            values_of("i"),
            signs,
            numbers,
        ),
        st.builds("{} {} {} IS {}NULL".format, numbers, st.sampled_from("+-*/"), values_of("i"), negations),
        st.builds("{} {}BETWEEN {} AND {}".format, numbers, negations, numbers, numbers),
        st.builds("{} {}IN ({}, {}, 1)".format, numbers, negations, numbers, numbers),
        st.builds(
            lambda name, no, parts: f"{name} {no}LIKE '{''.join(parts)}'", st.sampled_from("tu"), negations, patterns
        ),
        st.sampled_from(
            [
                "b",
                "t < u",
                "d = s",
                "t IN ('a', u)",
                "b = b",
                "NOT b",
                "false",
                "t = t",
                "d < s OR d > s",
                "d < TIMESTAMP('2024-02-29T00:00:01Z')",
                "s >= DATE('2024-02-29')",
                "true",
            ]
        ),
    )


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """AND, OR and NOT about conditions."""
    return st.one_of(
        st.builds("NOT ({})".format, inner), st.builds("({}) AND ({})".format, inner, inner),
        st.builds("({}) OR ({})".format, inner, inner),
    )  # fmt: skip


ROWS = st.fixed_dictionaries({name: st.none() | st.sampled_from(pool) for name, pool in POOLS.items()})


@settings(max_examples=100, deadline=None)
@given(st.recursive(conditions(), nested, max_leaves=4), st.lists(ROWS, min_size=1, max_size=5))
@example("w = 9007199254740993", [dict.fromkeys(POOLS) | {"w": each} for each in WIDE])
@example("w < 9223372036854775808", [dict.fromkeys(POOLS) | {"w": each} for each in WIDE])
@example("r IN (0)", [dict.fromkeys(POOLS) | {"r": each} for each in (0.0, -0.0)])
@example("NOT (r > 1)", [dict.fromkeys(POOLS) | {"r": each} for each in [*REALS, None]])
def test_all_evaluations_say_what_python_says(text: str, rows: list[dict[str, Any]]) -> None:
    """The batch keeps what a plain evaluation of the same tree keeps, NULLs included; SQLite is never asked for fewer."""
    whole = parse_text(re.sub(r"(?<![\d.'\"])\b(\d{16,})\b(?![.'])", r"big('\1')", text)).to_json()
    tree = _whole(whole)
    wanted = [truth(tree, row) is True for row in rows]
    condition = condition_of(text, facts())
    assert [holds(condition, row) is True for row in rows] == wanted
    batch = pa.RecordBatch.from_pydict(
        {name: pa.array([row[name] for row in rows], kind) for name, kind in ARROW.items()}
    )
    assert mask_of(condition, batch).tolist() == wanted
    sql, _, _ = asked(condition, list(TYPES))
    if sql:
        with closing(sqlite3.connect(":memory:")) as database:
            database.execute(f"CREATE TABLE a (n, {', '.join(f'{name} {kind}' for name, kind in DECLARED.items())})")
            marks = ", ".join("?" * (1 + len(POOLS)))
            for number, row in enumerate(rows):
                stored = [each.isoformat() if isinstance(each, dt.date) else each for each in map(row.get, POOLS)]
                database.execute(f"INSERT INTO a VALUES ({marks})", [number, *stored])  # noqa: S608
            given_rows = {n for (n,) in database.execute(f"SELECT n FROM a WHERE {sql}")}  # noqa: S608
        # A NaN, which SQLite has not, is none of a GeoPackage's values.
        assert {at for at, is_wanted in enumerate(wanted) if is_wanted and rows[at]["r"] == rows[at]["r"]} <= given_rows


def _whole(tree: Any) -> Any:
    """The tree with whole numbers that have all their digits."""
    match tree:
        case {"op": "big", "args": [digits]}:
            return int(digits)
        case {"op": "*", "args": [-1.0, {"op": "big", "args": [digits]}]}:
            return -int(digits)
        case dict():
            return {key: _whole(each) for key, each in tree.items()}
        case list():
            return list(map(_whole, tree))
    return tree


# Through the drivers.

WHERES = [
    "name = 'O''Brien'", "name = 'straße' OR name = '日本'", "name <> 'a'", "name IN ('a', 'Ä')", "NOT (name IN ('a', 'Ä'))",
    "name LIKE '%a%'", "name LIKE 'a\\%b'", "NOT (name LIKE '_')", "name IS NULL", "name < 'b'", "NAME = 'A'",
    "big = 9007199254740993", "big > 9007199254740992", "big BETWEEN -1 AND 1", "big < 0.5", "NOT (big = 0)",
    "value > 0.1", "value = 0.1", "NOT (value > 0.1)", "value IS NULL", "value <> 1", "big > value", "value / 2 > 0.04",
    "flag = true", "flag", "NOT (flag)", "flag IS NULL AND big > 0",
    "seen = DATE('2024-02-29')", "seen < DATE('2024-02-29')", "NOT (seen > DATE('2024-01-01'))", "seen IS NULL",
    "seen IN (DATE('2024-02-29'), DATE('1969-12-31'))",
    "at >= TIMESTAMP('2024-02-29T12:00:00Z')", "at = TIMESTAMP('2024-02-29T12:00:00Z')", "at IS NOT NULL",
    "at > DATE('1970-01-01')",
]  # fmt: skip
DRIVERS = {"GPKG": "gpkg", "FlatGeobuf": "fgb", "ESRI Shapefile": "shp", "GeoJSON": "geojson"}
COUNT = 240


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows in every driver: all kinds of values, each null now and then."""
    folder = tmp_path_factory.mktemp("kinds")

    def column(pool: list[Any], step: int, kind: Any) -> Any:
        return pa.array([None if n % step == step - 1 else pool[n % len(pool)] for n in range(COUNT)], kind)

    texts = [each for each in TEXTS if "\n" not in each]  # a Shapefile's are of one line
    table = pa.table(
        {
            "n": pa.array(range(COUNT), pa.int32()),
            "name": column(texts, 7, pa.string()),
            "big": column(WIDE[:6], 11, pa.int64()),
            "value": column([*REALS[:6], math.nan], 13, pa.float64()),
            "flag": column([True, False], 5, pa.bool_()),
            "seen": column(DATES, 4, pa.date32()),
            "at": column([moment(each) for each in TIMES], 9, pa.timestamp("ms", "UTC")),
            "geometry": pa.array([shapely.to_wkb(shapely.Point(n, n)) for n in range(COUNT)], pa.binary()),
        }
    )
    found = {}
    for driver, suffix in DRIVERS.items():
        path = found[driver] = folder / f"in.{suffix}"
        some = table if driver != "ESRI Shapefile" else table.drop_columns(["at"])
        with ogr.collected([]):  # of NaN and large numbers, which a GeoJSON and a Shapefile have not
            pyogrio.write_arrow(
                some, path, driver=driver, geometry_name="geometry", geometry_type="Point", crs="EPSG:4326",
                **({"ENCODING": "UTF-8"} if suffix == "shp" else {}),
            )  # fmt: skip
    return found


def _kept(path: Path, text: str, *, pushes: bool) -> tuple[list[int], str]:
    """Rows that a source gives and the step keeps, in order, and how."""
    job = make_job(path, path.parent / "out.gpkg", where=text)
    source: Any = open_source(str(path), None, path.name, 64)
    steps, _ = steps_of(job, source.facts)
    ways = {"where": ""}
    if pushes:
        source, ways = pushed(source, steps)
    rows: list[int] = []
    read = 0
    with ogr.collected([]), source.batches(64, 2**20) as reader:
        for batch in reader:
            read += batch.num_rows
            rows += apply(batch, steps, Tally()).column("n").to_pylist()
    if (given_of := source.given()) is not None:
        assert given_of[0] <= read <= given_of[1]
    return rows, ways["where"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_pushed_or_evaluated_the_rows_are_the_same(driver: str, layers: dict[str, Path]) -> None:
    """Whether the driver is asked or not, the rows are those that Python finds in what pyogrio reads."""
    path = layers[driver]
    _, table = pyogrio.read_arrow(path, datetime_as_string=True)
    every = table.to_pylist()
    asked_of = 0
    for text in WHERES:
        if "at " in text and "at" not in table.column_names:
            continue
        tree = _whole(parse_text(re.sub(r"\b(\d{16,})\b", r"big('\1')", text)).to_json())
        rows = [
            {"NAME": row["name"], "at": None} | {name: _as_python(name, value) for name, value in row.items()}
            for row in every
        ]
        wanted = sorted(row["n"] for row in rows if truth(_at(tree), row | {"s": row["at"]}) is True)
        assert sorted(_kept(path, text, pushes=False)[0]) == wanted, text
        rows_of, way = _kept(path, text, pushes=True)
        assert sorted(rows_of) == wanted, text
        asked_of += way.startswith("pushed")
    assert (asked_of > 20) == (driver == "GPKG")


def _as_python(name: str, value: Any) -> Any:
    """A value as the oracle has it: a Shapefile's booleans are numbers, a FlatGeobuf's dates are times."""
    if name == "flag" and value is not None:
        return bool(value)
    return moment(value) if name == "seen" and isinstance(value, str) else value


def _at(tree: Any) -> Any:
    """The oracle knows a time by the field's name."""
    match tree:
        case {"property": "at"}:
            return {"property": "s"}
        case dict():
            return {key: _at(each) for key, each in tree.items()}
        case list():
            return list(map(_at, tree))
    return tree


def test_values_of_other_types_than_declared_are_seen_as_ogr_gives_them(tmp_path: Path) -> None:
    """A text among numbers, a number among texts, a date that is none, a boolean of 7: SQLite does not drop what OGR keeps."""
    path = tmp_path / "odd.gpkg"
    geopandas.GeoDataFrame(
        {"n": range(6), "k": range(6), "t": list("abcdef"), "f": [True] * 6},
        geometry=geopandas.points_from_xy(range(6), range(6)), crs=4326,
    ).to_file(path)  # fmt: skip
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE odd ADD COLUMN day DATE")
        for trigger in [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]:
            database.execute(f'DROP TRIGGER "{trigger}"')
        database.execute("UPDATE odd SET day = '2024-02-29'")
        database.execute("UPDATE odd SET k = 'seven', t = 5, f = 7, day = '2024/02/29' WHERE n = 3")
    for text in (
        "k = 0",
        "k <> 2",
        "t = '5'",
        "t < 'c'",
        "f = true",
        "f",
        "day = DATE('2024-02-29')",
        "day IS NULL",
        "NOT (k > 2)",
    ):
        rows, way = _kept(path, text, pushes=True)
        assert rows == _kept(path, text, pushes=False)[0], text
        assert way.startswith("pushed"), text


def test_a_job_counts_what_the_driver_dropped(run_job: Callable[..., Any], layers: dict[str, Path]) -> None:
    """Read is what the source has; the driver's share is named; verification looks the rows up in the unfiltered source."""
    text = "big > 0 AND at >= DATE('2024-01-01')"
    done = run_job(layers["GPKG"], where=text)
    result = done.outcome.result
    assert result["features_read"] == COUNT
    assert result["features_kept"] == len(geopandas.read_file(done.output)) > 0
    dropped = result["features_dropped"]
    assert dropped["driver"] > 0
    assert dropped["where"] > 0  # the times are for the batch
    assert result["features_read"] == result["features_kept"] + sum(dropped.values())
    assert result["predicates"]["where"].startswith("pushed: SQLite is asked 1 of 2 parts")
    assert done.plan.facts["where"] == text
    assert done.plan.facts["predicates"] == result["predicates"]
    job = make_job(layers["GPKG"], done.output, where=text)
    assert all(verified_again(layers["GPKG"], done, job).values())
    other = run_job(layers["FlatGeobuf"], "other.gpkg", where=text)
    assert other.outcome.result["features_dropped"] == {"where": COUNT - result["features_kept"]}
    assert other.outcome.result["features_kept"] == result["features_kept"]


def test_rows_that_a_driver_loses_fail_the_job(
    run_job: Callable[..., Any], layers: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SQLite counts of the condition itself has to come through OGR, to the row."""
    opened = ogr.open_batches

    def losing(*args: Any, where: str | None = None, **options: Any) -> Any:
        return opened(*args, where=f"({where}) AND n <> 1" if where else None, **options)

    monkeypatch.setattr(ogr, "open_batches", losing)
    with pytest.raises(DataError, match=r"has \d+ features that it was asked for, but \d+ could be read"):
        run_job(layers["GPKG"], where="n < 100")


def test_verification_sees_a_row_that_a_filter_should_have_dropped(layers: dict[str, Path]) -> None:
    """Rows are judged by their values, and left undecided where an output holds others."""
    source = open_source(str(layers["GPKG"]), None, "in.gpkg", 64)
    steps, _ = steps_of(make_job(layers["GPKG"], Path("out.gpkg"), where="big > 5"), source.facts)
    assert outcome(steps, Row({"big": 6}, None)) is not None
    assert outcome(steps, Row({"big": 5}, None)) is None
    assert outcome(steps, Row({"big": None}, None)) is None
    for values in ({"big": "6"}, {"other": 1}):
        with pytest.raises(UndecidedError):
            outcome(steps, Row(values, None))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nam = 'x'", "has no field 'nam'"),
        ("t = 1", "field 't' (text) cannot be compared by = with 1"),
        ("d = '2024-01-01'", "field 'd' (date) cannot be compared"),
        ("i", "--where: field 'i' (integer) is no condition by itself"),
        ("t LIKE 5", "LIKE"),
        ("i LIKE 'a'", "LIKE is for text"),
        ("t + 1 = 2", "+ is for numbers"),
        ("t = NULL", "nothing equals NULL"),
        ("b > true", "cannot be compared by >"),
        ("S_INTERSECTS(geom, POINT(1 2))", "S_INTERSECTS is a place"),
        ("T_AFTER(d, DATE('2024-01-01'))", "t_after is no condition"),
        ("load_extension('x') = 1", "load_extension is no condition"),
        ("d = DATE('2024-13-45')", "'2024-13-45' is no date"),
        ("1", "no condition"),
    ],
)
def test_what_says_nothing_of_the_layer_is_refused(text: str, said: str) -> None:
    """A missing field, kinds that do not go together, operators that are not allowed: one line, and what to do."""
    with pytest.raises(UsageError) as caught:
        condition_of(text, facts())
    assert said in str(caught.value)
    assert str(caught.value).startswith("--where: ")
    assert "\n" not in str(caught.value)


def test_the_nearest_field_is_suggested() -> None:
    """By likeness, whatever the case, quoted where CQL2 needs that; a field's name is exact first, then whatever its case."""
    layer = facts()
    wide = LayerFacts(
        "a",
        "a",
        "GPKG",
        "a",
        ("Height", "height m", "HEIGHT"),
        ("OFTReal",) * 3,
        None,
        None,
        "fid",
        None,
        1,
        1,
        Sizes(1),
    )
    with pytest.raises(UsageError) as caught:
        condition_of("heigth = 1", wide)
    assert caught.value.hint == "did you mean Height?"
    with pytest.raises(UsageError) as caught:
        condition_of('"height mm" = 1', wide)
    assert caught.value.hint == 'did you mean "height m"?'
    assert condition_of("HEIGHT = 1", wide).left.name == "HEIGHT"  # type: ignore[union-attr]
    assert condition_of("height = 1", wide).left.name == "Height"  # type: ignore[union-attr]
    assert condition_of("T = 'a'", layer).left.name == "t"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a =", "something is missing at its end, behind 'a ='"),
        ("a == 1", "at character 4, at '= 1', behind 'a ='"),
        ("ä = 'x' AND\nb = (select 1)", "at character 25, at '1)', behind"),
        ("a = 1; DROP TABLE x", "at character 6, at '; DROP TABLE x'"),
        ("a = 1 OR 1=1 --", "something is missing at its end"),
        ("", "it is empty"),
        ("a = 'x\0y'", "no text"),
        ("(" * 5000 + "a = 1" + ")" * 5000, "it is too long"),
        ("a" + "+1" * 10_000 + " = 2", "it is too long"),
        ("NOT " * 400 + "a = 1", "nested more than 200 levels"),
    ],
)
def test_what_does_not_parse_says_where(text: str, said: str) -> None:
    """The place is shown by its character and what stands there; what would overflow the parser's stack never reaches it."""
    with pytest.raises(ValueError, match=r"^it ") as caught:
        read_where(text)
    assert said in str(caught.value)
    with pytest.raises((UsageError, ValueError)):
        make_job(Path("a.gpkg"), Path("b.gpkg"), where=text)


@pytest.mark.parametrize(
    "text",
    [
        "name = 'x'' OR 1=1 --'", "name = '\"; DROP TABLE \"in\"; --'", "name = 'a'' UNION SELECT ''b'",
        "name LIKE '%'' OR ''1''=''1'", "name IN ('a'') OR (1=1', 'b')",
    ],
)  # fmt: skip
def test_no_sql_is_smuggled(text: str, layers: dict[str, Path]) -> None:
    """A literal is a text, whatever it says."""
    before = layers["GPKG"].read_bytes()
    rows, way = _kept(layers["GPKG"], text, pushes=True)
    assert rows == _kept(layers["GPKG"], text, pushes=False)[0]
    assert len(rows) < COUNT / 2
    assert way.startswith("pushed")
    assert layers["GPKG"].read_bytes() == before


def test_a_name_is_quoted(tmp_path: Path) -> None:
    """Names with quotes, spaces and words of SQL are names; a name that no column has is never a text."""
    path = tmp_path / "names.gpkg"
    names = ['a"b', "select", "x y", "Fläche", "it's", "1=1"]
    geopandas.GeoDataFrame(
        {name: range(4) for name in ["n", *names]}, geometry=geopandas.points_from_xy(range(4), range(4)), crs=4326
    ).to_file(path)
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        rows, way = _kept(path, f"{quoted} >= 2", pushes=True)
        assert (rows, way[:6]) == ([2, 3], "pushed"), name
    assert asked(condition_of("t = 'a'", facts()), ["u"]) == ("", 0, 1)


def test_a_long_list_of_values(layers: dict[str, Path]) -> None:
    """Ten thousand ids are looked up."""
    wanted = ", ".join(map(str, range(0, 20_000, 2)))
    assert _kept(layers["GPKG"], f"n IN ({wanted})", pushes=True)[0] == list(range(0, COUNT, 2))


def test_a_layer_without_geometries_is_filtered(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A table has attributes all the same; places it has none."""
    path = tmp_path / "table.csv"
    path.write_text("k,v\na,1\nb,2\n")
    assert run_job(path, where="k = 'b'").outcome.result["features_kept"] == 1
    with pytest.raises(SourceError, match="has no geometries"):
        prepared(make_job(path, tmp_path / "x.gpkg", bbox=(0, 0, 1, 1)))


def test_a_csv_says_how_its_fields_get_types(tmp_path: Path) -> None:
    """Its fields are text unless a .csvt says otherwise: so does the hint."""
    source = tmp_path / "a.csv"
    source.write_text("n,t\n1,a\n20,b\n")
    with pytest.raises(UsageError, match="field 'n' \\(text\\) cannot be compared") as caught:
        prepared(make_job(source, tmp_path / "out.gpkg", where="n < 5"))
    assert ".csvt" in caught.value.hint
    source.with_suffix(".csvt").write_text("Integer,String\n")
    prepared(make_job(source, tmp_path / "out.gpkg", where="n < 5"))
