"""`reclassify`: classes for ranges of values or single ones. Integers stay integers; what no entry takes is nodata.

Pixels of 8 and 16 bits go through a table of all their values, others are sought among the ranges' ends.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.errors import UsageError
from lib.operations import Reclassify
from lib.raster.block import Block
from lib.raster.operations.base import Operation, Outputs, check_nodata, fits
from lib.raster.sources.dataset import RasterSource

_TABLE_BITS = 16
_MOST_ENTRIES = 10_000
_HINT = "write ranges and values such as 0:1000=1,1000:5000=2,5000:=3,7=70,*=0"

Number = int | float


class Entry(NamedTuple):
    """One line of a table: pixels from `low` on and below `high` (or exactly `low`, where `high` is None) become `value`."""

    low: Number
    high: Number | None
    value: Number

    def __str__(self) -> str:
        return f"{self.low}" if self.high is None else f"{_end(self.low)}:{_end(self.high)}"


class Reclassified(Operation):
    """Looks each pixel up; per band."""

    def __init__(self, model: Reclassify, source: RasterSource, nodata: float | None) -> None:
        entries, rest = parse(model.table)
        values = [entry.value for entry in entries] + ([] if rest is None else [rest])
        dtype = _dtype(values, source.dtype, nodata)
        declared = {source.part(band)[0].validity.nodata[source.part(band)[1] - 1] for band in source.bands}
        own = next(iter(declared)) if len(declared) == 1 else None
        value = _nodata(values, dtype, own) if nodata is None else check_nodata(nodata, dtype)
        self.outputs = Outputs(dtype=dtype, nodata=value)
        self._entries, self._rest = entries, rest
        self._table = None
        if source.dtype.kind in "iu" and source.dtype.itemsize * 8 <= _TABLE_BITS:
            limits = np.iinfo(source.dtype)
            every = np.arange(limits.min, limits.max + 1).astype(source.dtype)
            # By the bits of a pixel, so that negative ones need no shift.
            every = every[np.argsort(every.view(f"u{source.dtype.itemsize}"))]
            self._table = self._sought(every)

    def memory(self, pixels: int, bands: int) -> int:
        """Where they lie among the ranges' ends, of wider pixels."""
        return 0 if self._table else pixels * bands * (8 + 8 + 1)

    def apply(self, block: Block, out: Block) -> Block:
        """Look up; a pixel that no entry takes is not valid."""
        if self._table is None:
            found, taken = self._sought(block.pixels.reshape(-1))
            out.pixels.reshape(-1)[:], out.valid.reshape(-1)[:] = found, taken
        else:
            bits = block.pixels.view(f"u{block.pixels.dtype.itemsize}")
            np.take(self._table[0], bits, out=out.pixels)
            np.take(self._table[1], bits, out=out.valid)
        if not block.all_valid:
            np.logical_and(out.valid, block.valid, out=out.valid)
        out.all_valid = False
        return out

    def _sought(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """What pixels become, and whether an entry takes them."""
        lows = np.array([entry.low for entry in self._entries])
        which = np.searchsorted(lows, pixels, side="right") - 1
        highs = np.array([entry.low if entry.high is None else entry.high for entry in self._entries])
        single = np.array([entry.high is None for entry in self._entries])
        at = np.maximum(which, 0)
        below = (pixels < highs[at]) | np.isposinf(highs[at])  # a range without an upper end has infinity, too
        taken = (which >= 0) & np.where(single[at], pixels == lows[at], below)
        found = np.array([entry.value for entry in self._entries]).astype(self.outputs.dtype)[at]
        if self._rest is not None:
            np.copyto(found, self._rest, where=~taken, casting="unsafe")
            taken = ~np.isnan(pixels)
        return found, taken

    def reference(self, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Entry by entry over the whole window."""
        pixels = block.pixels
        found = np.zeros(pixels.shape, self.outputs.dtype)
        taken = np.zeros(pixels.shape, np.bool_)
        for entry in self._entries:
            if entry.high is None:
                here = pixels == entry.low
            else:
                here = (pixels >= entry.low) & ((pixels < entry.high) | (entry.high == math.inf))
            found[here] = entry.value
            taken |= here
        if self._rest is not None:
            found[~taken] = self._rest
            taken[:] = True
        return found, taken & block.valid


def parse(text: str) -> tuple[list[Entry], Number | None]:
    """Entries in the order of their ranges, and what all other values become, None for nodata.

    Raises:
        UsageError: it is no table, or two entries take the same value.
    """
    entries, rest = [], None
    for part in filter(None, (each.strip() for each in text.replace("\n", ",").split(","))):
        pixels, equals, value = part.rpartition("=")
        if not equals:
            raise _wrong(f"{part!r} has no =")
        if pixels.strip() == "*":
            rest = _number(value, part)
            continue
        low, colon, high = (each.strip() for each in pixels.partition(":"))
        start = _number(low, part) if low else -math.inf
        entry = Entry(start, (_number(high, part) if high else math.inf) if colon else None, _number(value, part))
        if entry.high is not None and entry.high <= entry.low:
            raise _wrong(f"range {entry} is empty")
        entries.append(entry)
    if not entries:
        raise _wrong("has no entry")
    if len(entries) > _MOST_ENTRIES:
        raise _wrong(f"has {len(entries):,} entries, more than {_MOST_ENTRIES:,}")
    entries.sort(key=lambda entry: (entry.low, entry.high is not None))
    for one, other in itertools.pairwise(entries):
        if one.low == other.low or (one.high is not None and other.low < one.high):
            raise _wrong(f"entries {one} and {other} overlap")
    return entries, rest


def _number(text: str, part: str) -> Number:
    text = text.strip()
    try:
        number: Number = int(text) if text.removeprefix("-").removeprefix("+").isdigit() else float(text)
    except ValueError:
        raise _wrong(f"{text!r} in {part!r} is no number") from None
    if isinstance(number, float) and math.isnan(number):
        raise _wrong(f"{part!r}: nan is no class; leave it out, and it is nodata")
    return number


def _dtype(values: list[Number], source: np.dtype[Any], nodata: float | None) -> np.dtype[Any]:
    """The source's own dtype where it is one of integers that holds all values; else the smallest that does."""
    if any(value != int(value) for value in values if math.isfinite(value)) or not all(map(math.isfinite, values)):
        exact = all(float(np.float32(value)) == value for value in values)
        return np.dtype(np.float32 if exact or source == np.float32 else np.float64)
    wanted = [*values, nodata] if nodata is not None and math.isfinite(nodata) else values
    low, high = min(wanted), max(wanted)
    names = [source.name] if source.kind in "iu" else []
    for name in [*names, "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]:
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return np.dtype(name)
    return np.dtype(np.float64)


def _nodata(values: list[Number], dtype: np.dtype[Any], declared: Number | None) -> int | float:
    """The source's nodata value where no class has it; else NaN, or an end of the dtype that no class has."""
    if dtype.kind == "f":
        return math.nan
    limits = np.iinfo(dtype)
    lowest, highest = int(limits.min), int(limits.max)
    ends = [lowest, highest] if lowest else [highest, lowest]
    if declared is not None and fits(declared, dtype):
        ends = [int(declared), *ends]
    taken = set(values)
    free = (each for each in itertools.chain(ends, range(highest - 1, lowest, -1)) if each not in taken)
    return next(free)


def _end(number: Number) -> str:
    return "" if isinstance(number, float) and math.isinf(number) else str(number)


def _wrong(problem: str) -> UsageError:
    return UsageError(f"--table {problem}", hint=_HINT)
