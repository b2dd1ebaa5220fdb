"""From CQL2 text to the JSON tree that the `cql2` library makes of it, with whole numbers of any size. Jobs import it."""

import re
from typing import Any

# `cql2` recurses, and a stack that overflows ends the process (seen from some thousand operators on).
_MOST_CHARACTERS, _MOST_OPERATORS, _MOST_TERMS, _MOST_LEVELS = 2**20, 1000, 5000, 200
_PARTS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[\w.]+|.""", re.DOTALL)
_PLACE = re.compile(r"^\s*--> (\d+):(\d+)")
# Of such numbers a float, which is what `cql2` makes of each, has not all digits.
_LONG_INTEGER = re.compile(r"\d{16,}")
INTEGER = "swath_integer"
_SHOWN = 40


def read_where(text: str) -> Any:
    """The JSON tree of a text.

    Raises:
        ValueError: it does not parse, with the place; it is longer or deeper than is read.
    """
    parts = _PARTS.findall(text)
    _check_size(text, parts)
    from cql2 import ParseError, parse_text

    try:
        tree = parse_text(text).to_json()
        if any(map(_LONG_INTEGER.fullmatch, parts)):
            whole = (f"{INTEGER}('{part}')" if _LONG_INTEGER.fullmatch(part) else part for part in parts)
            tree = parse_text("".join(whole)).to_json()
    except ParseError as error:
        raise ValueError(_in_words(text, str(error))) from None
    if _levels(tree) > _MOST_LEVELS:
        raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep")
    return tree


def checked_where(text: str | None) -> str | None:
    """A text as it is, where it parses; raises ValueError."""
    if text is not None:
        read_where(text)
    return text


def _check_size(text: str, parts: list[str]) -> None:
    if not text.strip():
        raise ValueError("it is empty: write a condition in CQL2 text, such as kind = 'field' AND height > 3")
    if "\x00" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise ValueError("it has bytes that are no text")
    operators = sum(part in "+-*/%^(" or part.lower() == "not" for part in parts)
    terms = sum(part.lower() in ("and", "or") for part in parts)
    if len(text) > _MOST_CHARACTERS or operators > _MOST_OPERATORS or terms > _MOST_TERMS:
        raise ValueError(
            f"it is too long: at most {_MOST_CHARACTERS} characters, {_MOST_TERMS} ANDs and ORs, {_MOST_OPERATORS} parentheses, "
            "NOTs and arithmetic operators are read; many values of one field go into one IN (…)"
        )


def _in_words(text: str, said: str) -> str:
    """Where a text does not parse, by line and column of what the parser said."""
    found = _PLACE.match(said)
    if not found:
        return "it does not parse as CQL2 text"
    line, column = int(found[1]), int(found[2]) - 1
    lines = text.split("\n")
    at = sum(len(each) + 1 for each in lines[: line - 1]) + column
    if at >= len(text.rstrip()):
        return f"it does not parse: something is missing at its end, behind {_tail(text[:at])!r}"
    before = f", behind {_tail(text[:at])!r}" if text[:at].strip() else ""
    return f"it does not parse at character {at + 1}, at {text[at : at + _SHOWN]!r}{before}"


def _tail(text: str) -> str:
    return text.rstrip()[-_SHOWN:]


def _levels(tree: Any) -> int:
    levels, level = 0, [tree]
    while level:
        levels += 1
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
        ]
    return levels
