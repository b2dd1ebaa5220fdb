"""The plain path: a condition on one row, in Python, with None for what is not known."""

import datetime as dt
import math
import operator
import re
from collections.abc import Mapping
from typing import Any

from lib.vector.predicates.tree import (
    Among,
    And,
    Arithmetic,
    Comparison,
    Condition,
    Constant,
    Field,
    IsNull,
    Like,
    Not,
    Or,
    Truth,
    Value,
    tokens_of,
)

_COMPARE = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TYPES: dict[str, Any] = {"integer": int, "real": (int, float), "text": str}


class UnlikeError(Exception):
    """A row has another field, or a value of another kind, than the condition was made for."""


def holds(condition: Condition, values: Mapping[str, Any]) -> bool | None:
    """Whether a row meets a condition; None where that is unknown.

    Raises:
        UnlikeError: the row is none of the layer's.
    """
    match condition:
        case And(children):
            found = [holds(child, values) for child in children]
            return False if False in found else None if None in found else True
        case Or(children):
            found = [holds(child, values) for child in children]
            return True if True in found else None if None in found else False
        case Not(child):
            inner = holds(child, values)
            return None if inner is None else not inner
        case IsNull(value):
            return _value(value, values) is None
        case Truth(value):
            return _value(value, values)  # type: ignore[no-any-return]
        case Comparison(name, left, right):
            return _compared(name, _value(left, values), _value(right, values))
        case Among(value, options):
            one = _value(value, values)
            return None if one is None else any(_compared("=", one, option.value) for option in options)
        case Like(value, pattern):
            text = _value(value, values)
            return None if text is None else re.fullmatch(_expression(pattern), text, re.DOTALL) is not None


def _compared(name: str, left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    if isinstance(left, dt.datetime) != isinstance(right, dt.datetime):
        left, right = _as_time(left), _as_time(right)
    return bool(_COMPARE[name](left, right))


def _as_time(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)


def _value(value: Value, values: Mapping[str, Any]) -> Any:
    match value:
        case Constant(constant):
            return constant
        case Field(name):
            if name not in values:
                raise UnlikeError(name)
            found = values[name]
            return None if found is None else _as_kind(found, value)
        case Arithmetic(name, left, right):
            one, other = _value(left, values), _value(right, values)
            return None if one is None or other is None else _calculated(name, float(one), float(other))


def _as_kind(found: Any, field: Field) -> Any:
    """A value as its field has it: an output may hold a date as text, or a boolean as a number."""
    try:
        match field.kind:
            case "boolean":
                return bool(found)
            case "date":
                return found if type(found) is dt.date else dt.date.fromisoformat(found)
            case "timestamp":
                moment = found if isinstance(found, dt.datetime) else dt.datetime.fromisoformat(found)
                return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    except (TypeError, ValueError) as error:
        raise UnlikeError(field.name) from error
    if field.kind in _TYPES and not isinstance(found, _TYPES[field.kind]):
        raise UnlikeError(field.name)
    return found


def _calculated(name: str, one: float, other: float) -> float:
    match name:
        case "+":
            return one + other
        case "-":
            return one - other
        case "*":
            return one * other
    if other != 0:
        return one / other
    if one == 0 or math.isnan(one) or math.isnan(other):
        return math.nan
    return math.copysign(math.inf, one) * math.copysign(1.0, other)


def _expression(pattern: str) -> str:
    """A LIKE pattern as a regular expression."""
    wild = {"%": ".*", "_": "."}
    return "".join(wild[each] if is_wild else re.escape(each) for each, is_wild in tokens_of(pattern))
