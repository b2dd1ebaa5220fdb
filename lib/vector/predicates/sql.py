"""What a GeoPackage's SQLite may be asked of a condition: SQL that is true of every row for which the condition is, and of more.

The batch decides again (`columns`), so that SQL only has to miss nothing. Names and literals are quoted or are numbers. What
SQLite sees otherwise than OGR (a number in a column of text, a date that is none) goes through: `_misfit`. Not asked: timestamps
(texts with zones), single floats, arithmetic (SQLite's NULL is IEEE's infinity).
"""

import datetime as dt
from collections.abc import Collection
from typing import Any

from lib.vector.predicates.tree import (
    Among,
    And,
    Comparison,
    Condition,
    Constant,
    Field,
    IsNull,
    Like,
    Node,
    Not,
    Or,
    Truth,
    Value,
    fields_of,
    tokens_of,
)

_BOUNDS = {"OFTInteger": (-(2**31), 2**31 - 1), "OFTInteger64": (-(2**63), 2**63 - 1), "OFTInteger:OFSTBoolean": (0, 1),
           "OFTInteger:OFSTInt16": (-(2**15), 2**15 - 1)}  # fmt: skip
_TEXTS = ("OFTString", "OFTString:OFSTJSON", "OFTString:OFSTUUID")
_LARGEST = 2**63
# SQLite takes no expression of more levels than 1000, and each term of a long AND or OR is one.
_MOST_TERMS = 200


class _NotAskedError(Exception):
    """SQLite is not asked this."""


def parts_of(condition: Condition) -> list[Condition]:
    """What has to hold, all of it."""
    return [part for each in condition.of for part in parts_of(each)] if isinstance(condition, And) else [condition]


def asked(condition: Condition, columns: Collection[str]) -> tuple[str, int, int]:
    """SQL for those parts of a condition that can be asked, empty for none; how many they are, and how many there are.

    Args:
        condition: all of it.
        columns: of the table: in SQLite another name in double quotes would be a text.
    """
    found, parts = [], parts_of(condition)
    for part in parts:
        fields = sorted(fields_of(part), key=lambda each: each.name)
        try:
            if not all(field.name in columns for field in fields):
                continue
            found.append(f"({' OR '.join([_sql(part), *map(_misfit, fields)])})")
        except _NotAskedError:
            continue
    found = found[:_MOST_TERMS]
    return " AND ".join(found), len(found), len(parts)


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: Any) -> str:
    """A constant as SQL has it; raises _NotAskedError.

    A float is a quotient of whole numbers: SQLite's own reading of decimals may be off by the last bit.
    """
    match value:
        case bool():
            return str(int(value))
        case int() if -_LARGEST < value < _LARGEST:
            return str(value)
        case float():
            above, below = value.as_integer_ratio()
            if max(abs(above), below) < _LARGEST:
                return f"(CAST({above} AS REAL) / CAST({below} AS REAL))"
        case dt.date() if type(value) is dt.date:
            return f"'{value.isoformat()}'"
        case str():
            return "'" + value.replace("'", "''") + "'"
    raise _NotAskedError


def _sql(node: Node) -> str:
    match node:
        case And(children) | Or(children) if len(children) <= _MOST_TERMS:
            word = " AND " if isinstance(node, And) else " OR "
            return f"({word.join(map(_sql, children))})"
        case Not(child):
            return f"(NOT {_sql(child)})"
        case IsNull(value):
            return f"({_sql(value)} IS NULL)"
        case Truth(value):
            return f"({_sql(value)} <> 0)"
        case Comparison(operator, left, right):
            if {left.kind, right.kind} == {"date", "timestamp"}:
                raise _NotAskedError
            return f"({_sql(left)}{_collation(left)} {operator} {_sql(right)})"
        case Among(value, options):
            return f"({_sql(value)}{_collation(value)} IN ({', '.join(map(_sql, options))}))"
        case Like(value, pattern):
            return f"({_sql(value)} GLOB {literal(_glob(pattern))})"
        case Field(name, typed):
            if typed not in (*_BOUNDS, *_TEXTS, "OFTReal", "OFTDate"):
                raise _NotAskedError
            return quoted(name)
        case Constant(value):
            return literal(value)
    raise _NotAskedError


def _collation(value: Value) -> str:
    """By bytes, whatever the column is declared to have."""
    return " COLLATE BINARY" if value.kind == "text" else ""


def _glob(pattern: str) -> str:
    """A LIKE pattern as GLOB has it, which minds case."""
    wild = {"%": "*", "_": "?"}
    return "".join(
        wild[each] if is_wild else f"[{each}]" if each in "*?[" else each for each, is_wild in tokens_of(pattern)
    )


def _misfit(field: Field) -> str:
    """SQL that is true where OGR may read another value than SQLite sees."""
    name = quoted(field.name)
    if field.typed in _BOUNDS:
        low, high = _BOUNDS[field.typed]
        return f"typeof({name}) NOT IN ('integer', 'null') OR {name} NOT BETWEEN {low} AND {high}"
    if field.typed == "OFTReal":
        return f"typeof({name}) NOT IN ('real', 'null')"
    if field.typed == "OFTDate":
        return f"({name} IS NOT NULL AND date({name}) IS NOT {name})"
    return f"typeof({name}) NOT IN ('text', 'null') OR instr({name}, char(0)) > 0"
