"""What a condition may be of rows of which only bounds are known, as the statistics of a Parquet row group tell them. Pure.

Never too little: a row group is passed over only where no row of it can be one of which the condition is true. What `columns`
makes of NULL and NaN holds here, too.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile
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
    Operator,
    Or,
    Truth,
    Value,
    tokens_of,
)

_Outcomes = frozenset[bool | None]
_EITHER: _Outcomes = frozenset({True, False})
_UNKNOWN: _Outcomes = frozenset({None})
_MIRRORED: dict[Operator, Operator] = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Range:
    """What is known of a value in some rows.

    Attributes:
        low: no value is below; None where that is not known.
        high: no value is above, likewise; a NaN is neither.
        has_null: some may be null.
        has_value: some may be none.
        may_be_nan: some may be no number.
    """

    low: Any = None
    high: Any = None
    has_null: bool = True
    has_value: bool = True
    may_be_nan: bool = False

    @property
    def is_bounded(self) -> bool:
        """Whether both bounds are known."""
        return self.low is not None and self.high is not None


Known = Callable[[Field], Range]


def may_hold(condition: Condition, known: Known) -> bool:
    """Whether a condition can be true of a row, by what is known of each field."""
    return True in _outcomes(condition, known)


def _outcomes(condition: Condition, known: Known) -> _Outcomes:
    """True, false and unknown, as far as each is possible."""
    match condition:
        case And(children):
            return reduce(_both, [_outcomes(child, known) for child in children])
        case Or(children):
            return _contrary(reduce(_both, [_contrary(_outcomes(child, known)) for child in children]))
        case Not(child):
            return _contrary(_outcomes(child, known))
        case IsNull(value):
            of = _range(value, known)
            return frozenset([True] * of.has_null + [False] * of.has_value)
        case Truth(value):
            of = _range(value, known)
            return _of_values(_matches("=", of, _point(True)), of)
        case Comparison(operator, left, right):
            one, other = _alike(_range(left, known), _range(right, known))
            return _of_values(_matches(operator, one, other), one, other)
        case Among(value, options):
            of = _range(value, known)
            found = [_matches("=", of, _point(option.value)) for option in options]
            is_sure = frozenset({True}) in found
            return _of_values(frozenset([True] * any(True in each for each in found) + [False] * (not is_sure)), of)
        case Like(value, pattern):
            of = _range(value, known)
            return _of_values(_EITHER if _may_begin(of, pattern) else frozenset({False}), of)


def _both(one: _Outcomes, other: _Outcomes) -> _Outcomes:
    """What "and" makes of them, each with each."""
    return frozenset(
        False if False in pair else None if None in pair else True for pair in ((a, b) for a in one for b in other)
    )


def _contrary(found: _Outcomes) -> _Outcomes:
    return frozenset(None if each is None else not each for each in found)


def _of_values(found: _Outcomes, *ranges: Range) -> _Outcomes:
    """Of values what was found, of nulls unknown."""
    answer = found if all(each.has_value for each in ranges) else frozenset()
    return answer | _UNKNOWN if any(each.has_null for each in ranges) else answer


def _point(value: Any) -> Range:
    return Range(value, value, has_null=False)


def _range(value: Value, known: Known) -> Range:
    match value:
        case Constant(constant):
            return _point(constant)
        case Field():
            return known(value)
        case Arithmetic(_, left, right):
            sides = [_range(each, known) for each in (left, right)]
            return Range(
                has_null=any(each.has_null for each in sides),
                has_value=all(each.has_value for each in sides),
                may_be_nan=True,
            )


def _alike(one: Range, other: Range) -> tuple[Range, Range]:
    """Dates beside timestamps as midnight in UTC."""
    kinds = {isinstance(each.low, dt.datetime) for each in (one, other) if isinstance(each.low, dt.date)}
    return (_as_times(one), _as_times(other)) if len(kinds) > 1 else (one, other)


def _as_times(of: Range) -> Range:
    def time(day: Any) -> Any:
        return day if isinstance(day, dt.datetime) else dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)

    return Range(time(of.low), time(of.high), of.has_null, of.has_value) if of.is_bounded else of


def _matches(operator: Operator, one: Range, other: Range) -> _Outcomes:
    """What a comparison of a value of each may be."""
    if not (one.is_bounded and other.is_bounded):
        return _EITHER
    found = _by_bounds(operator, one, other)
    is_nan = one.may_be_nan or other.may_be_nan
    return found | {operator == "<>"} if is_nan else found


def _by_bounds(operator: Operator, one: Range, other: Range) -> _Outcomes:
    match operator:
        case "=":
            is_one = one.low == one.high == other.low == other.high
            can_be = one.low <= other.high and other.low <= one.high
            return frozenset([True] * can_be + [False] * (not is_one))
        case "<>":
            return _contrary(_by_bounds("=", one, other))
        case "<":
            return frozenset([True] * (one.low < other.high) + [False] * (one.high >= other.low))
        case "<=":
            return frozenset([True] * (one.low <= other.high) + [False] * (one.high > other.low))
        case _:
            return _by_bounds(_MIRRORED[operator], other, one)


def _may_begin(of: Range, pattern: str) -> bool:
    """Whether a text can begin as a pattern does before its first wildcard."""
    start = "".join(each for each, _ in takewhile(lambda token: not token[1], tokens_of(pattern)))
    return not of.is_bounded or (of.low[: len(start)] <= start and of.high >= start)
