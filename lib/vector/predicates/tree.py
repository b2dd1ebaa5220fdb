"""A condition over a layer's fields, every name and type of it known. Pure."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["integer", "real", "text", "boolean", "date", "timestamp", "other"]
Operator = Literal["=", "<>", "<", "<=", ">", ">="]
NUMBERS: tuple[Kind, ...] = ("integer", "real")
_KINDS: dict[str, Kind] = {
    "OFTInteger": "integer",
    "OFTInteger64": "integer",
    "OFTReal": "real",
    "OFTString": "text",
    "OFTDate": "date",
    "OFTDateTime": "timestamp",
    "OFTInteger:OFSTBoolean": "boolean",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field's value; `typed` is its OGR type with subtype."""

    name: str
    typed: str

    @property
    def kind(self) -> Kind:
        """What it holds."""
        return _KINDS.get(self.typed) or _KINDS.get(self.typed.partition(":")[0], "other")


@dataclass(frozen=True, slots=True)
class Constant:
    """A value; a timestamp's is in UTC."""

    value: int | float | str | dt.date | dt.datetime

    @property
    def kind(self) -> Kind:
        """What it is."""
        kinds: dict[type, Kind] = {
            bool: "boolean", int: "integer", float: "real", str: "text", dt.datetime: "timestamp", dt.date: "date",
        }  # fmt: skip
        return kinds[type(self.value)]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A sum, difference, product or quotient of numbers, in double precision as IEEE 754 has it."""

    operator: Literal["+", "-", "*", "/"]
    left: "Value"
    right: "Value"

    @property
    def kind(self) -> Kind:
        """A number."""
        return "real"


Value = Field | Constant | Arithmetic


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of two values of one kind, numbers of both kinds, or dates with timestamps; text by code points."""

    operator: Operator
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Among:
    """Whether a value is one of these."""

    value: Value
    options: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """Whether text matches a pattern: `%` any characters, `_` one, a backslash before what is meant literally; by case."""

    value: Value
    pattern: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a value is missing; never unknown."""

    value: Value


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary; unknown of unknown."""

    of: "Condition"


@dataclass(frozen=True, slots=True)
class And:
    """Whether all hold."""

    of: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Whether one holds."""

    of: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """A boolean field's or constant's own value."""

    value: Field | Constant


Condition = Comparison | Among | Like | IsNull | Not | And | Or | Truth
Node = Condition | Value


def fields_of(node: Node) -> set[Field]:
    """The fields that a node looks at."""
    if isinstance(node, Field):
        return {node}
    return {field for child in _children(node) for field in fields_of(child)}


def _children(node: Node) -> Iterator[Node]:
    match node:
        case Comparison(_, left, right) | Arithmetic(_, left, right):
            yield from (left, right)
        case Not(child):
            yield child
        case And(children) | Or(children):
            yield from children
        case Among(value, _) | Like(value, _) | IsNull(value) | Truth(value):
            yield value


def tokens_of(pattern: str) -> list[tuple[str, bool]]:
    """A pattern's characters, each with whether it is a wildcard."""
    found, literal = [], False
    for each in pattern:
        if each == "\\" and not literal:
            literal = True
            continue
        found.append((each, each in "%_" and not literal))
        literal = False
    return [*found, ("\\", False)] if literal else found
