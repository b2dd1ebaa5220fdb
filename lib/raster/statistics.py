"""Statistics of the valid pixels that are written, gathered while they stream by: count, lowest, highest, mean, deviation.

Count, lowest and highest are exact, and so are the sums of integers. The rest is merged as Chan, Golub and LeVeque do ("Updating
formulae and a pairwise algorithm for computing sample variances", 1979), from the deviations of pieces of a window from
their own means. The writer merges chunks in their order, so workers change no digit.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 16 * 1024  # float64 of so many pixels stay in a core's cache
SCRATCH_BYTES = (3 * 8 + 1) * PIECE  # a piece as it is and as float64, ones, and what is hidden of it
_DIGITS = 12  # of floating point; the next ones depend on where windows end
_WIDE_BYTES, _MOST_APART = 8, 2**63
_CANCELLED = 1e4  # so much of a difference of squares may have cancelled out


@dataclass(slots=True)
class Statistics:
    """Of one band's valid pixels so far.

    Attributes:
        count: of valid pixels.
        lowest: the smallest; None where there are none.
        highest: the largest.
        total: their sum, a Python integer of integers; of floating point their mean.
        deviation: the sum of squares of their differences from their mean.
    """

    count: int = 0
    lowest: Any = None
    highest: Any = None
    total: Any = 0
    deviation: float = 0.0

    @property
    def mean(self) -> float | None:
        """Their mean; None where there are none."""
        if not self.count:
            return None
        return float(self.total) if isinstance(self.total, float) else self.total / self.count

    def add(self, other: "Statistics") -> None:
        """Take in those of other pixels of the same dtype."""
        if not other.count:
            return
        if not self.count:
            self.count, self.lowest, self.highest = other.count, other.lowest, other.highest
            self.total, self.deviation = other.total, other.deviation
            return
        mine, its = self.count, other.count
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        if isinstance(self.total, float):
            apart = other.total - self.total
            self.total += apart * (its / (mine + its))
        else:  # a quotient of integers is rounded once, however long they are
            apart = (other.total * mine - self.total * its) / (mine * its)
            self.total += other.total
        self.deviation += other.deviation + apart * apart * (mine * its / (mine + its))
        self.count = mine + its

    def record(self, pixels: int) -> dict[str, Any]:
        """As a report has them, of so many pixels; what is not finite is None. The deviation is the population's, as GDAL's."""
        deviation = math.sqrt(self.deviation / self.count) if self.count else None
        return {
            "min": _shown(self.lowest),
            "max": _shown(self.highest),
            "mean": _rounded(self.mean) if isinstance(self.total, float) else self.mean,
            "std": _rounded(deviation),
            "valid_pixels": self.count,
            "valid_percent": round(100 * self.count / pixels, 4),
        }


class Gatherer:
    """Takes statistics of windows; one for each thread, as it has scratch of its own.

    Args:
        dtype: of the pixels.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._piece, self._work = np.empty(PIECE, dtype), np.empty(PIECE, np.float64)
        self._piece.fill(0)  # every page is touched, as of other buffers
        self._work.fill(0)
        self._ones, self._hidden = np.ones(PIECE, np.float64), np.zeros(PIECE, np.bool_)

    def of(self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None) -> Statistics:
        """Those of a band's window, `(height, width)` both; None: all are valid."""
        found = Statistics()
        flat, good = pixels.reshape(-1), None if valid is None else valid.reshape(-1)
        with np.errstate(all="ignore"):
            for start in range(0, flat.size, PIECE):
                piece = flat[start : start + PIECE]
                some = None if good is None else good[start : start + PIECE]
                count = piece.size if some is None else int(np.count_nonzero(some))
                if some is None or count == piece.size:
                    found.add(self._of_piece(piece, count, piece[0]))
                elif count:
                    first, size = piece[int(some.argmax())], piece.size
                    hidden, copied = np.logical_not(some, out=self._hidden[:size]), self._piece[:size]
                    np.copyto(copied, piece)
                    np.copyto(copied, first, where=hidden)
                    found.add(self._of_piece(copied, count, first))
        return found

    def _of_piece(self, piece: NDArray[Any], count: int, first: Any) -> Statistics:
        """Of a piece in which `count` pixels are valid, and the others are all `first`, which is one of the valid ones."""
        lowest, highest, from_first = piece.min().item(), piece.max().item(), first.item()
        work = self._work[: piece.size]
        is_wide = piece.dtype.kind != "f" and piece.itemsize == _WIDE_BYTES
        whole = _sum(piece) - (piece.size - count) * from_first if is_wide else None  # before it makes room
        if is_wide and highest - lowest < _MOST_APART:  # right in 64 bits, whatever the signs
            np.copyto(work, np.subtract(piece, first, out=self._piece[: piece.size]).view(np.int64))
        else:
            np.copyto(work, piece)  # and not while it is subtracted, which takes twice the time
            np.subtract(work, float(from_first), out=work)
        total, squares = float(np.dot(work, self._ones[: piece.size])), float(np.dot(work, work))
        about_first = total * total / count
        deviation = squares - about_first
        if deviation * _CANCELLED < about_first:  # the first lies far away from the others
            np.subtract(work, total / count, out=work)
            deviation = float(np.dot(work, work)) - (piece.size - count) * (total / count) ** 2
        if whole is None:
            whole = from_first + total / count if piece.dtype.kind == "f" else from_first * count + int(total)
        return Statistics(count, lowest, highest, whole, 0.0 if deviation < 0 else deviation)


def _sum(piece: NDArray[Any]) -> int:
    """The sum of integers of 64 bits, exactly: by their halves."""
    halves = np.right_shift(piece, 32), np.bitwise_and(piece, 2**32 - 1)
    high, low = (int(each.sum()) for each in halves)
    return high * 2**32 + low


def _shown(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
