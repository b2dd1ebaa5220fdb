"""Expressions over bands: text → a tree of known operations, never evaluated as Python; and what a tree makes of arrays.

Names are `b1`, `b2`, … of the selected bands, and `other.b1` of a further source. A tree works on pieces that stay in the CPU's
cache. What is not finite (a division by zero, a root of -1) is not valid: that is the operation's business.
"""

import ast
import difflib
import functools
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from lib.errors import UsageError

_MOST_CHARACTERS = 4000
_MOST_DEPTH = 100
_BAND = re.compile(r"b[1-9]\d*")

Array = NDArray[Any]


class Band(NamedTuple):
    """A band as an expression names it: its source's name, "" for the job's own, and its number from 1."""

    source: str
    number: int

    def __str__(self) -> str:
        return f"{self.source}.b{self.number}".removeprefix(".")


def _where(condition: Any, one: Any, other: Any) -> Any:
    return np.where(np.asarray(condition) != 0, one, other)


def _clip(value: Any, low: Any, high: Any) -> Any:
    return np.minimum(np.maximum(value, low), high)


def _bitand(value: Any, mask: Any) -> Any:
    """Bits that both have, of whole numbers; in the dtype that they come in."""
    return np.bitwise_and(np.asarray(value).astype(np.int64), np.asarray(mask).astype(np.int64)).astype(value.dtype)


@dataclass(frozen=True, slots=True)
class _Function:
    does: Callable[..., Any]
    arguments: int


_FUNCTIONS = {
    "abs": _Function(np.absolute, 1),
    "sqrt": _Function(np.sqrt, 1),
    "exp": _Function(np.exp, 1),
    "log": _Function(np.log, 1),
    "log2": _Function(np.log2, 1),
    "log10": _Function(np.log10, 1),
    "sin": _Function(np.sin, 1),
    "cos": _Function(np.cos, 1),
    "tan": _Function(np.tan, 1),
    "arcsin": _Function(np.arcsin, 1),
    "arccos": _Function(np.arccos, 1),
    "arctan": _Function(np.arctan, 1),
    "arctan2": _Function(np.arctan2, 2),
    "hypot": _Function(np.hypot, 2),
    "floor": _Function(np.floor, 1),
    "ceil": _Function(np.ceil, 1),
    "round": _Function(np.rint, 1),
    "sign": _Function(np.sign, 1),
    "radians": _Function(np.radians, 1),
    "degrees": _Function(np.degrees, 1),
    "minimum": _Function(np.minimum, 2),
    "maximum": _Function(np.maximum, 2),
    "bitand": _Function(_bitand, 2),
    "clip": _Function(_clip, 3),
    "where": _Function(_where, 3),
}
_SHORT = {"min": "minimum", "max": "maximum", "ln": "log", "atan2": "arctan2", "atan": "arctan"}
_BINARY: dict[type, Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.remainder,
    ast.Pow: np.power,
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
    ast.BitXor: np.logical_xor,
}
_BITWISE = (ast.BitAnd, ast.BitOr, ast.BitXor)
_UNARY: dict[type, Any] = {
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Not: np.logical_not,
    ast.Invert: np.logical_not,
}
_COMPARE: dict[type, Any] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_ALLOWED = "numbers, b1, b2, …, + - * / // % **, < <= > >= == !=, and or not, brackets, and functions"


class Node(NamedTuple):
    """A part of a tree: a band, a number, or what a function makes of other parts."""

    value: Band | float | None = None
    does: Callable[..., Any] | None = None
    parts: "tuple[Node, ...]" = ()

    def bands(self) -> set[Band]:
        """The bands that it names."""
        found = {self.value} if isinstance(self.value, Band) else set()
        return found.union(*(each.bands() for each in self.parts))

    def __call__(self, of: Mapping[Band, Array], dtype: type[Any]) -> Any:
        """Its value where bands have these; numbers are of `dtype`, truths are taken for 1 and 0."""
        if isinstance(self.value, Band):
            return of[self.value]
        if self.does is None:
            return dtype(self.value)
        found = self.does(*(each(of, dtype) for each in self.parts))
        return found.astype(dtype) if found.dtype == np.bool_ else found


def parse(text: str) -> list[Node]:
    """The trees of an expression; several, one for each band that is written, have a semicolon between them.

    Raises:
        UsageError: it is none, or has what no expression may have.
    """
    if len(text) > _MOST_CHARACTERS:
        raise _wrong(f"has {len(text):,} characters, more than {_MOST_CHARACTERS:,}", "split it into several steps")
    parts = [each.strip() for each in text.split(";")]
    if not all(parts):
        raise _wrong("is empty" if len(parts) == 1 else "has an empty part between semicolons", f"write {_ALLOWED}")
    trees = [_parse_one(each) for each in parts]
    for tree, part in zip(trees, parts, strict=True):
        if not tree.bands():
            raise _wrong(f"{part!r} names no band", "its bands are b1, b2, …")
    return trees


def named(trees: list[Node]) -> list[Band]:
    """The bands that trees name, in the order in which they are read: the job's own source first."""
    return sorted(set().union(*(tree.bands() for tree in trees)))


def _parse_one(text: str) -> Node:
    try:
        return _Parser(text).visit(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        at = f" at {text[error.offset - 1 : error.offset + 11]!r}" if error.offset and error.offset <= len(text) else ""
        raise _wrong(f"{_cut(text)!r} is no expression: {error.msg}{at}", f"write {_ALLOWED}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise _wrong(f"{_cut(text)!r} is no expression", f"write {_ALLOWED}") from error


class _Parser(ast.NodeVisitor):
    """Python's syntax tree → ours; what has no method here is refused."""

    def __init__(self, text: str) -> None:
        self._text, self._depth = text, 0

    def visit(self, node: ast.AST) -> Node:
        """Go one deeper."""
        if self._depth == _MOST_DEPTH:
            raise _wrong(f"is nested deeper than {_MOST_DEPTH}", "split it into several steps")
        self._depth += 1
        found: Node = super().visit(node)
        self._depth -= 1
        return found

    def generic_visit(self, node: ast.AST) -> NoReturn:
        """Nothing else is allowed."""
        shown = _cut(ast.get_source_segment(self._text, node) or self._text)
        raise _wrong(f"may not have {shown!r}", f"write {_ALLOWED}")

    def visit_Constant(self, node: ast.Constant) -> Node:
        return _number(node.value) if isinstance(node.value, (int, float)) else self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> Node:
        return Node(_band("", node.id))

    def visit_Attribute(self, node: ast.Attribute) -> Node:
        if isinstance(node.value, ast.Name) and _BAND.fullmatch(node.attr):
            return Node(_band(node.value.id, node.attr))
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> Node:
        if isinstance(node.op, _BITWISE) and not (_is_truth(node.left) and _is_truth(node.right)):
            raise _of_bits(node)
        found = self._made(_BINARY, node, node.op, node.left, node.right)
        if isinstance(node.op, ast.Pow) and not found.bands():
            with np.errstate(all="ignore"):
                power = found({}, np.float64)
            if not np.isfinite(power):
                raise _wrong(
                    f"has a power that is no finite number: {_cut(ast.unparse(node))}", "numbers go up to 1.8e308"
                )
        return found

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Node:
        if isinstance(node.op, ast.Invert) and not _is_truth(node.operand):
            raise _of_bits(node)
        return self._made(_UNARY, node, node.op, node.operand)

    def visit_BoolOp(self, node: ast.BoolOp) -> Node:
        does = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return functools.reduce(lambda one, other: Node(None, does, (one, other)), map(self.visit, node.values))

    def visit_Compare(self, node: ast.Compare) -> Node:
        """`a < b < c` is `a < b and b < c`."""
        pairs = zip(node.ops, itertools.pairwise([node.left, *node.comparators]), strict=True)
        found = [self._made(_COMPARE, node, op, *pair) for op, pair in pairs]
        return functools.reduce(lambda one, other: Node(None, np.logical_and, (one, other)), found)

    def visit_IfExp(self, node: ast.IfExp) -> Node:
        return Node(None, _where, tuple(map(self.visit, (node.test, node.body, node.orelse))))

    def visit_Call(self, node: ast.Call) -> Node:
        if not isinstance(node.func, ast.Name) or node.keywords:
            return self.generic_visit(node)
        function = _function(node.func.id)
        if len(node.args) != function.arguments:
            problem = f"{node.func.id} takes {function.arguments} arguments, not {len(node.args)}"
            raise _wrong(problem, f"write {_ALLOWED}")
        return Node(None, function.does, tuple(map(self.visit, node.args)))

    def _made(self, known: Mapping[type, Any], node: ast.AST, op: ast.AST, *parts: ast.expr) -> Node:
        if type(op) not in known:
            self.generic_visit(node)
        return Node(None, known[type(op)], tuple(map(self.visit, parts)))


def _function(name: str) -> _Function:
    if function := _FUNCTIONS.get(_SHORT.get(name, name)):
        return function
    known = [*_FUNCTIONS, *_SHORT]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise _wrong(f"calls an unknown function {name}", f"{hint}it may call {', '.join(sorted(known))}")


def _is_truth(node: ast.AST) -> bool:
    """Whether a part is true or false, and no number."""
    if isinstance(node, (ast.BinOp, ast.UnaryOp)):
        return isinstance(node.op, (*_BITWISE, ast.Not, ast.Invert))
    return isinstance(node, (ast.Compare, ast.BoolOp))


def _of_bits(node: ast.AST) -> UsageError:
    """`b1 > 1 & b2 < 3` is `b1 > (1 & b2) < 3` in Python's grammar, and numbers have bits for that only as integers."""
    hint = "write and, or, not, or brackets around comparisons; bits of a pixel: bitand(b1, 8) != 0"
    return _wrong(f"has & | ^ ~ of numbers: {_cut(ast.unparse(node))!r}", hint)


def _number(value: float) -> Node:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not np.isfinite(number):
        raise _wrong(f"has a number that is too large: {_cut(str(value))}", "numbers go up to 1.8e308")
    return Node(number)


def _band(source: str, name: str) -> Band:
    if not _BAND.fullmatch(name):
        raise _wrong(
            f"names {f'{source}.{name}'.removeprefix('.')}, which is no band",
            "bands are b1, b2, … and other.b1, other.b2, …",
        )
    return Band(source, int(name[1:]))


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _wrong(problem: str, hint: str) -> UsageError:
    return UsageError(f"--expr {problem}", hint=hint)
