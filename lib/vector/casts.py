"""What a value becomes under another type of field, exactly: what would be rounded, cut or lost does not fit.

Value by value, on Python's own types as Arrow gives them. Dates with times are ISO 8601 texts, as batches have them.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

# OGR's types by the names that people know; Arrow's are in `steps/cast.py`.
OGR_TYPES = {
    "boolean": "OFTInteger:OFSTBoolean",
    "integer": "OFTInteger",
    "integer64": "OFTInteger64",
    "real": "OFTReal",
    "string": "OFTString",
    "json": "OFTString:OFSTJSON",
    "date": "OFTDate",
    "time": "OFTTime",
    "datetime": "OFTDateTime",
    "binary": "OFTBinary",
}
# What of each type may be asked for; all may stay what they are.
_NUMBERS = ("boolean", "integer", "integer64", "real")
_FROM: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_NUMBERS, (*_NUMBERS, "string", "json")),
    "string": tuple(OGR_TYPES),
    "json": ("json", "string"),
    "date": ("date", "datetime", "string"),
    "time": ("time", "string"),
    "datetime": ("datetime", "date", "string"),
    "binary": ("binary", "string"),
    "list": ("string", "json"),
}
_WHOLE, _FLAGS = re.compile(r"[+-]?\d+"), {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_RANGES = {"integer": 2**31, "integer64": 2**63}
_EXACT = 2**53
_PLAIN = 1e16  # Python itself writes larger ones with an exponent


def plain_values(column: Any) -> list[Any]:
    """An Arrow column's values as Python's own, whose times have no nanoseconds: those are cut off.

    Unsigned numbers of 64 bits are floating point, as OGR has them.
    """
    kind = column.type
    if pa.types.is_uint64(kind):
        return [None if each is None else float(each) for each in column.to_pylist()]
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    elif pa.types.is_time64(kind) and kind.unit == "ns":
        column = column.cast(pa.time64("us"), safe=False)
    return list(column.to_pylist())


def kind_of(ogr_type: str) -> str | None:
    """The name of a type of OGR's; "list" of all lists."""
    if ogr_type.partition(":")[0].endswith("List"):
        return "list"
    named = next((name for name, typed in OGR_TYPES.items() if typed == ogr_type), None)
    return named or next((name for name, typed in OGR_TYPES.items() if typed == ogr_type.partition(":")[0]), None)


def is_known(kind: str, wanted: str) -> bool:
    """Whether a type can become another at all."""
    return wanted in _FROM.get(kind, ())


def caster(wanted: str) -> Callable[[Any], Any]:
    """A function of one value; raises ValueError where it does not fit."""
    return {
        "boolean": _boolean,
        "integer": lambda value: _integer(value, "integer"),
        "integer64": lambda value: _integer(value, "integer64"),
        "real": _real,
        "string": _string,
        "json": _json,
        "date": _date,
        "time": _time,
        "datetime": _datetime,
        "binary": _binary,
    }[wanted]


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        return _FLAGS[value.strip().lower()] if value.strip().lower() in _FLAGS else _refuse()
    return bool(value) if value in (0, 1) else _refuse()


def _integer(value: Any, wanted: str) -> int:
    if isinstance(value, str):
        found = int(value) if _WHOLE.fullmatch(value.strip()) else _refuse()
    else:
        found = int(value) if math.isfinite(value) and int(value) == value else _refuse()
    return found if -_RANGES[wanted] <= found < _RANGES[wanted] else _refuse()


def _real(value: Any) -> float:
    if isinstance(value, str):
        whole = value.strip()
        if _WHOLE.fullmatch(whole) and abs(int(whole)) > _EXACT and int(float(whole)) != int(whole):
            _refuse()
        found = float(whole.replace("_", "?"))
        return found if math.isfinite(found) else _refuse()
    return float(value) if isinstance(value, float) or int(float(value)) == value else _refuse()


def _string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex().upper()
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _PLAIN else repr(value)
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)


def _json(value: Any) -> str:
    if isinstance(value, str):
        json.loads(value, parse_constant=_refuse)
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _date(value: Any) -> dt.date:
    if isinstance(value, str):
        text = value.strip().replace("/", "-")
        if "T" not in text and " " not in text:
            return dt.date.fromisoformat(text)
        value = dt.datetime.fromisoformat(text)
    if not isinstance(value, dt.datetime):
        return value if isinstance(value, dt.date) else _refuse()
    return value.date() if value.time() == dt.time(0) and value.tzinfo is None else _refuse()


def _time(value: Any) -> dt.time:
    found = dt.time.fromisoformat(value.strip()) if isinstance(value, str) else value
    if not isinstance(found, dt.time) or found.microsecond % 1000 or found.tzinfo is not None:
        _refuse()
    return found


def _datetime(value: Any) -> str:
    """As OGR has it: to the millisecond."""
    found = dt.datetime.fromisoformat(value.strip().replace("/", "-")) if isinstance(value, str) else value
    if not isinstance(found, dt.datetime):
        found = dt.datetime.combine(found, dt.time(0))
    if found.microsecond % 1000:
        _refuse()
    return found.isoformat(timespec="milliseconds" if found.microsecond else "seconds")


def _binary(value: Any) -> bytes:
    return bytes.fromhex(value) if isinstance(value, str) else bytes(value)


def _refuse(*_: Any) -> Any:
    raise ValueError("does not fit")
