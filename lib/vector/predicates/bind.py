"""From the JSON tree of a text to a condition over a layer's fields: allowed operators, known names, kinds that go together."""

import datetime as dt
import difflib
from collections.abc import Sequence
from typing import Any, get_args

from lib.errors import UsageError
from lib.vector.names import folded
from lib.vector.predicates.text import INTEGER, read_where
from lib.vector.predicates.tree import (
    NUMBERS,
    Among,
    And,
    Arithmetic,
    Comparison,
    Condition,
    Constant,
    Field,
    IsNull,
    Kind,
    Like,
    Not,
    Operator,
    Or,
    Truth,
    Value,
)
from lib.vector.sources import LayerFacts

_ALLOWED = "AND, OR, NOT, =, <>, <, <=, >, >=, BETWEEN, IN, LIKE, IS NULL, +, -, *, /, DATE('…') and TIMESTAMP('…')"
_COMPARISONS = get_args(Operator)
_ARITHMETIC = ("+", "-", "*", "/")
_EXACT = 2**53
_SHOWN = 20
_TIMES: tuple[Kind, ...] = ("date", "timestamp")
_HINTS: dict[Kind, str] = {
    "integer": "write numbers without quotes",
    "real": "write numbers without quotes",
    "date": "write dates as DATE('2024-02-29')",
    "timestamp": "write times as TIMESTAMP('2024-02-29T12:00:00Z')",
    "text": "write text between single quotes",
    "boolean": "write true or false",
}

_CSV_HINT = (
    "a CSV's fields are text: write it between single quotes, or their types in order into a .csvt beside it, such as "
)
_CSV_HINT += "Integer,Real,String"


def condition_of(text: str, facts: LayerFacts) -> Condition:
    """What a text says of a layer.

    Raises:
        UsageError: it does not parse, names a field that there is not, or what does not go together.
    """
    try:
        tree = read_where(text)
    except ValueError as error:
        raise UsageError(f"--where: {error}") from None
    return _Binder(facts).condition(tree)


class _Binder:
    """Makes nodes, for one layer."""

    def __init__(self, facts: LayerFacts) -> None:
        self._label, self._types = facts.label, dict(zip(facts.fields, facts.field_types, strict=True))
        self._is_csv = facts.driver == "CSV"

    def condition(self, tree: Any) -> Condition:
        """A node that is true, false or unknown."""
        if isinstance(tree, bool):
            return Truth(Constant(tree))
        if isinstance(tree, dict) and "property" in tree:
            field = self._field(tree["property"])
            if field.kind != "boolean":
                raise UsageError(
                    f"--where: {_words(field)} is no condition by itself", hint=f"compare it, such as {field.name} = …"
                )
            return Truth(field)
        match tree:
            case {"op": "and", "args": children}:
                return And(tuple(map(self.condition, children)))
            case {"op": "or", "args": children}:
                return Or(tuple(map(self.condition, children)))
            case {"op": "not", "args": [child]}:
                return Not(self.condition(child))
            case {"op": "isNull", "args": [child]}:
                return IsNull(self._value(child))
            case {"op": "between", "args": [child, low, high]}:
                value = self._value(child)
                return And(
                    (self._compared(">=", value, self._value(low)), self._compared("<=", value, self._value(high)))
                )
            case {"op": "in", "args": [child, list(options)]}:
                return self._among(self._value(child), options)
            case {"op": "like", "args": [child, str(pattern)]}:
                return self._like(self._value(child), pattern)
            case {"op": operator, "args": [left, right]} if operator in _COMPARISONS:
                return self._compared(operator, self._value(left), self._value(right))
        raise _refused(tree)

    def _value(self, tree: Any) -> Value:
        match tree:
            case None:
                raise UsageError("--where: nothing equals NULL", hint="write IS NULL or IS NOT NULL")
            case bool() | str():
                return Constant(tree)
            case int() | float():
                return Constant(int(tree) if float(tree).is_integer() and abs(tree) < _EXACT else float(tree))
            case {"property": str(name)}:
                return self._field(name)
            case {"date": str(text)}:
                return Constant(_moment(text, dt.date))
            case {"timestamp": str(text)}:
                moment = _moment(text, dt.datetime)
                return Constant(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))
            case {"op": "*", "args": [-1.0, {"op": name, "args": [str(digits)]}]} if name == INTEGER:
                return Constant(-int(digits))
            case {"op": name, "args": [str(digits)]} if name == INTEGER and digits.isdecimal():
                return Constant(int(digits))
            case {"op": operator, "args": [left, right]} if operator in _ARITHMETIC:
                return self._calculated(operator, self._value(left), self._value(right))
        raise _refused(tree)

    def _field(self, name: str) -> Field:
        """A field by its name, exactly, else whatever the case."""
        found = (
            name if name in self._types else next((each for each in self._types if folded(each) == folded(name)), None)
        )
        if found is None:
            near = difflib.get_close_matches(folded(name), list(map(folded, self._types)), 1)
            likely = next((each for each in self._types if near and folded(each) == near[0]), None)
            raise UsageError(
                f"--where: {self._label} has no field {name!r}; it has {_listed(list(self._types))}",
                hint=f"did you mean {_quoted(likely)}?"
                if likely
                else "name a field of the layer; text is between single quotes",
            )
        return Field(found, self._types[found])

    def _calculated(self, operator: Any, left: Value, right: Value) -> Value:
        for each in (left, right):
            if each.kind not in NUMBERS:
                raise UsageError(f"--where: {operator} is for numbers, and {_words(each)} is none")
        return Arithmetic(operator, left, right)

    def _compared(self, operator: Any, left: Value, right: Value) -> Comparison:
        kinds = {left.kind, right.kind}
        is_alike = len(kinds) == 1 or kinds <= set(NUMBERS) or kinds <= set(_TIMES)
        if "other" in kinds or not is_alike or (kinds == {"boolean"} and operator not in ("=", "<>")):
            named = (each.kind for each in (left, right) if isinstance(each, Field))
            hint = next((_HINTS[kind] for kind in named if kind in _HINTS), "")
            hint = _CSV_HINT if self._is_csv and "text" in kinds else hint
            raise UsageError(
                f"--where: {_words(left)} cannot be compared by {operator} with {_words(right)}", hint=hint
            )
        return Comparison(operator, left, right)

    def _among(self, value: Value, options: Sequence[Any]) -> Condition:
        values = [self._value(option) for option in options]
        for each in values:
            self._compared("=", value, each)
        constants = tuple(each for each in values if isinstance(each, Constant))
        if len(constants) == len(values) and len({each.kind for each in (value, *values)} - {"integer", "real"}) < 2:  # noqa: PLR2004
            return Among(value, constants)
        return Or(tuple(Comparison("=", value, each) for each in values))

    def _like(self, value: Value, pattern: str) -> Like:
        if value.kind != "text":
            raise UsageError(f"--where: LIKE is for text, and {_words(value)} is none")
        return Like(value, pattern)


def _moment(text: str, kind: Any) -> Any:
    try:
        return kind.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--where: {text!r} is no {'date' if kind is dt.date else 'time'}: {error}") from None


def _refused(tree: Any) -> UsageError:
    """What is not understood, by its operator."""
    name = str(tree.get("op", next(iter(tree), ""))) if isinstance(tree, dict) else repr(tree)
    if name.startswith("s_") or name in ("type", "bbox"):
        return UsageError(
            f"--where: {name.upper()} is a place, not an attribute", hint="use --intersects or --bbox for it"
        )
    if isinstance(tree, dict) and name in (
        *_COMPARISONS,
        *_ARITHMETIC,
        "and",
        "or",
        "not",
        "in",
        "like",
        "between",
        "isNull",
    ):
        return UsageError(f"--where: {name.upper()} is not understood at this place", hint=f"what is: {_ALLOWED}")
    return UsageError(f"--where: {name} is no condition or value that is understood", hint=f"what is: {_ALLOWED}")


def _words(value: Value) -> str:
    """A value as messages name it."""
    match value:
        case Field(name, typed):
            kind = value.kind if value.kind != "other" else typed.removeprefix("OFT")
            return f"field {name!r} ({kind})"
        case Constant(constant):
            return (
                f"{constant!r} ({value.kind})"
                if isinstance(constant, (int, float, str))
                else f"{constant} ({value.kind})"
            )
    return "a number"


def _quoted(name: str) -> str:
    """A name as CQL2 takes it."""
    return name if name.isidentifier() else '"' + name.replace('"', '""') + '"'


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(map(_quoted, names[:_SHOWN])) or "none") + more
