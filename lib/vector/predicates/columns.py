"""A condition on an Arrow batch, by Arrow's kernels: what decides which rows are kept.

By the kernels' registry: `pyarrow.compute` would be 0.05 s and ten thousand traces (lib/MEASURED.md).
"""

from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow._compute import CastOptions, JoinOptions, MatchSubstringOptions, SetLookupOptions, call_function

from lib.vector.predicates.tree import (
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
    tokens_of,
)

_KERNELS = {
    "=": "equal",
    "<>": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
}
_MIRRORED: dict[Operator, Operator] = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TIMES = pa.timestamp("us", "UTC")
_TYPES: dict[Kind, Any] = {
    "integer": pa.int64(),
    "real": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": _TIMES,
}
_LEAST, _MOST = -(2**63), 2**63 - 1
_EXACT = 2**53
_ZONED = MatchSubstringOptions("(Z|[+-][0-9]{2}(:?[0-9]{2})?)$")


def mask_of(condition: Condition, batch: Any) -> NDArray[np.bool_]:
    """Rows of which a condition is true, not false and not unknown, (rows,) bool."""
    found = _spread(_holds(condition, batch), batch.num_rows)
    return _flags(found)


def _spread(found: Any, rows: int) -> Any:
    return pa.repeat(found, rows) if isinstance(found, pa.Scalar) else found


def _holds(condition: Condition, batch: Any) -> Any:
    """True, false and null of each row, (rows,) Arrow bool, or one of them for all."""
    match condition:
        case And(children):
            return reduce(lambda one, other: call_function("and_kleene", [one, other]), _each(children, batch))
        case Or(children):
            return reduce(lambda one, other: call_function("or_kleene", [one, other]), _each(children, batch))
        case Not(child):
            return call_function("invert", [_holds(child, batch)])
        case IsNull(value):
            return call_function("is_null", [_value(value, batch)])
        case Truth(value):
            return _value(value, batch)
        case Comparison(operator, left, right):
            return _compared(operator, left, right, batch)
        case Among(value, options):
            return _among(value, options, batch)
        case Like(value, pattern):
            options = MatchSubstringOptions(_expression(pattern))
            return call_function("match_substring_regex", [_value(value, batch)], options)


def _each(children: tuple[Condition, ...], batch: Any) -> Any:
    return (_holds(child, batch) for child in children)


def _value(value: Value, batch: Any) -> Any:
    """A column of the type of its kind, or a scalar."""
    match value:
        case Constant(constant):
            if value.kind == "integer" and not _LEAST <= int(constant) <= _MOST:  # type: ignore[arg-type]
                return pa.scalar(float(constant), pa.float64())  # type: ignore[arg-type] # beyond all of a column's
            return pa.scalar(constant, _TYPES.get(value.kind))
        case Field(name):
            return _column(batch.column(batch.schema.get_field_index(name)), value.kind)
        case Arithmetic(operator, left, right):
            sides = [_cast(_value(each, batch), pa.float64()) for each in (left, right)]
            return call_function(_KERNELS[operator], sides)


def _column(column: Any, kind: Kind) -> Any:
    column = column.storage if isinstance(column.type, pa.BaseExtensionType) else column
    if kind == "timestamp" and not pa.types.is_timestamp(column.type):
        zoned = call_function("match_substring_regex", [column], _ZONED)
        as_utc = call_function("binary_join_element_wise", [column, pa.scalar("Z"), pa.scalar("")], JoinOptions())
        column = call_function("if_else", [zoned, column, as_utc])
    return _cast(column, _TYPES.get(kind, column.type))


def _cast(column: Any, kind: Any) -> Any:
    """As another type; integers beyond 2^53 lose digits as Python's do."""
    return (
        column
        if column.type == kind
        else call_function("cast", [column], CastOptions(kind, allow_float_truncate=True, allow_time_truncate=True))
    )


def _compared(operator: Operator, left: Value, right: Value, batch: Any) -> Any:
    one, other = _value(left, batch), _value(right, batch)
    if one.type == pa.int64() and other.type == pa.float64():
        return _exactly(operator, one, other)
    if one.type == pa.float64() and other.type == pa.int64():
        return _exactly(_MIRRORED[operator], other, one)
    if one.type != other.type and {one.type, other.type} == {pa.date32(), _TIMES}:
        one, other = _cast(one, _TIMES), _cast(other, _TIMES)
    return call_function(_KERNELS[operator], [one, other])


def _exactly(operator: Operator, integers: Any, reals: Any) -> Any:
    """Whole numbers against floats, as in mathematics: as doubles two that differ may be equal."""
    whole, real = _numbers(integers, np.int64), _numbers(reals, np.float64)
    null = _nulls(integers) | _nulls(reals)
    with np.errstate(invalid="ignore"):
        up = operator in ("<", ">=")
        edge = np.ceil(real) if up else np.floor(real)
        inside = (edge >= _LEAST) & (edge < 2.0**63)
        limit = np.where(inside, edge, 0).astype(np.int64)
        if operator in ("=", "<>"):
            found = (inside & (edge == real) & (whole == limit)) == (operator == "=")
        elif operator in ("<", "<="):
            found = np.where(inside, whole < limit if up else whole <= limit, real > 0)
        else:
            found = np.where(inside, whole >= limit if up else whole > limit, real < 0)
    found, null = np.broadcast_arrays(np.atleast_1d(found), np.atleast_1d(null))
    answer = pa.array(found, mask=null)
    return answer if isinstance(integers, pa.Array) or isinstance(reals, pa.Array) else answer[0]


def _numbers(values: Any, kind: Any) -> Any:
    """Numbers as NumPy has them, nulls as 0."""
    filled = call_function("coalesce", [values, pa.scalar(0, values.type)])
    if isinstance(filled, pa.Scalar):
        return kind(filled.as_py())
    return np.frombuffer(filled.buffers()[1], kind, len(filled), filled.offset * np.dtype(kind).itemsize)


def _nulls(values: Any) -> Any:
    found = call_function("is_null", [values])
    return _flags(found) if isinstance(found, pa.Array) else found.as_py()


def _flags(array: Any) -> NDArray[np.bool_]:
    """Where an Arrow array of booleans is true: its `to_numpy` and `pa.scalar(False)` import pandas, 40 MiB."""
    end = array.offset + len(array)
    valid, values = (
        None if each is None else np.unpackbits(np.frombuffer(each, np.uint8), count=end, bitorder="little")
        for each in array.buffers()
    )
    assert values is not None  # noqa: S101 - for mypy: the second buffer is there
    flags: NDArray[np.uint8] = values if valid is None else values & valid
    return flags[array.offset :].view(np.bool_)


def _among(value: Value, options: tuple[Constant, ...], batch: Any) -> Any:
    column = _value(value, batch)
    if column.type == pa.int64():
        wanted = [int(each.value) for each in options if _is_whole(each)]  # type: ignore[arg-type]
    elif column.type == pa.float64():
        reals: list[Any] = [each.value for each in options if _is_double(each)]
        wanted = reals + [-0.0] * (0 in reals)  # Arrow looks it up by its bits
    else:
        wanted = [each.value for each in options]  # type: ignore[misc]
    looked_up = SetLookupOptions(pa.array(wanted, column.type), skip_nulls=True)
    found = call_function("is_in", [column], looked_up)
    return call_function("if_else", [call_function("is_null", [column]), pa.scalar(None, pa.bool_()), found])


def _is_whole(option: Constant) -> bool:
    """Whether a column of 64-bit integers can have it."""
    number: Any = option.value
    return bool(number == number // 1 and _LEAST <= number <= _MOST) if np.isfinite(float(number)) else False


def _is_double(option: Constant) -> bool:
    """Whether a double can be it."""
    number: Any = option.value
    return isinstance(number, float) or abs(number) <= _EXACT or int(float(number)) == number


def _expression(pattern: str) -> str:
    """A LIKE pattern as RE2 has it: characters by number, wildcards for any, line ends among them."""
    wild = {"%": ".*", "_": "."}
    parts = (wild[each] if is_wild else rf"\x{{{ord(each):x}}}" for each, is_wild in tokens_of(pattern))
    return rf"(?s)\A{''.join(parts)}\z"
