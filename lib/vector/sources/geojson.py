"""Elements of a GeoJSON's collection, counted by a pass over the bytes that parses nothing: OGR leaves some out in silence.

By the depths of brackets outside quotes, in NumPy (RFC 8259): a fifth of OGR's own time for such a file, beside that.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.vector.sources.texts import sizes

__all__ = ["count", "sizes"]

_BLOCK_BYTES = 256 * 1024
_QUOTE, _OPEN, _CLOSE, _COMMA = 1, 2, 3, 4
_KINDS = np.zeros(256, np.uint8)
for _kind, _marks in ((_QUOTE, b'"'), (_OPEN, b"{["), (_CLOSE, b"}]"), (_COMMA, b",")):
    _KINDS[list(_marks)] = _kind
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_NAMED = re.compile(rb'"features"\s*:\s*$')
_IS_COLLECTION = re.compile(rb'"type"\s*:\s*"FeatureCollection"')
_TAIL_BYTES = 256  # of a block: a name and what stands behind it may lie across two
_MEMBER = 2  # how deep the members of the collection's own members are


def count(path: Path, layer: str, label: str) -> int | None:
    """Elements of the collection's `features`, whatever they are; None of a text that is no collection."""
    del layer, label
    found = _Elements()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            found.add(block)
    return found.count if found.is_collection else None


@dataclass(slots=True)
class _Elements:
    """What was seen so far.

    Attributes:
        count: elements of `features`.
        is_collection: the text says that it is one.
    """

    count: int = 0
    is_collection: bool = False
    _escape: bytes = b""
    _inside: bool = False
    _depth: int = 0
    _tail: bytes = b""
    _is_open: bool = False
    _is_filled: bool = False

    def add(self, block: bytes) -> None:
        """Take a block of the text in."""
        text = self._escape + block
        if b"\\" in text:
            text = _ESCAPED.sub(b"  ", text)
        self._escape = b"\\" if text.endswith(b"\\") else b""
        kinds = _KINDS[np.frombuffer(text, np.uint8)]
        places = np.flatnonzero(kinds)
        kinds = kinds[places]
        inside = np.logical_xor.accumulate(kinds == _QUOTE) ^ self._inside if len(kinds) else np.zeros(0, bool)
        self._inside = bool(inside[-1]) if len(inside) else self._inside
        outside = ~inside & (kinds != _QUOTE)
        places, kinds = places[outside], kinds[outside]
        depths = self._depth + np.cumsum((kinds == _OPEN).astype(np.int64) - (kinds == _CLOSE))
        self._look_for_type(text, places, depths)
        self._count(text, places, kinds, depths)
        self._depth = int(depths[-1]) if len(depths) else self._depth
        self._tail = (self._tail + text)[-_TAIL_BYTES:]

    def _look_for_type(self, text: bytes, places: NDArray[np.int64], depths: NDArray[np.int64]) -> None:
        for match in () if self.is_collection else _IS_COLLECTION.finditer(self._tail + text):
            if (end := match.end() - len(self._tail)) > 0:  # else it was looked at with the block before
                before = int(np.searchsorted(places, end)) - 1
                self.is_collection |= (int(depths[before]) if before >= 0 else self._depth) == 1

    def _count(self, text: bytes, places: NDArray[np.int64], kinds: NDArray[Any], depths: NDArray[np.int64]) -> None:
        """Commas between elements, from where `features` opens to where it closes."""
        commas = np.concatenate([[0], np.cumsum((kinds == _COMMA) & (depths == _MEMBER))])
        turns = np.flatnonzero(((kinds == _OPEN) & (depths == _MEMBER)) | ((kinds == _CLOSE) & (depths == 1)))
        first = start = 0
        for turn in (*turns.tolist(), len(places)):
            end = int(places[turn]) if turn < len(places) else len(text)
            if self._is_open:
                self.count += int(commas[turn] - commas[first])
                if not self._is_filled and text[start:end].strip():
                    self._is_filled = True
                    self.count += 1
            if turn < len(places):
                before = (self._tail + text[:end])[-_TAIL_BYTES:]
                self._is_open = text[end : end + 1] == b"[" and bool(_NAMED.search(before))
                self._is_filled, first, start = False, turn, end + 1
