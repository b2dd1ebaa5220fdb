"""The probe: what libraries and the user's function hold, by the kernel's high-water mark over the size after imports.

It is the job's own first batches, and beforehand the heaviest one, where the source tells where that is and it is large.
"""

from collections.abc import Callable
from typing import Any

from lib.memory.cap import trim
from lib.memory.proc import peak_bytes, process_memory
from lib.units import MIB
from lib.vector import ogr
from lib.vector.plan import LARGE_BYTES, Layout
from lib.vector.sources import VectorSource

# A batch that is so many times as large as others is worth a look beforehand.
_HEAVY = 2
_STEADY = 2
Look = Callable[[Any], None]


class Probe:
    """What was measured so far, above a baseline."""

    def __init__(self, baseline_bytes: int) -> None:
        self._baseline_bytes = baseline_bytes
        self.written_bytes = self.read_bytes = 0
        self._reached: list[int] = []

    def written(self, batch_bytes: int) -> None:
        """Remember how large batches are that have gone all the way."""
        self.written_bytes = max(self.written_bytes, batch_bytes)
        self.read_bytes += batch_bytes
        self._reached.append(self.reached_bytes)

    @property
    def is_steady(self) -> bool:
        """Whether the last two batches have added next to nothing."""
        return len(self._reached) > _STEADY and self._reached[-1] - self._reached[-1 - _STEADY] < MIB

    @property
    def reached_bytes(self) -> int:
        """The high-water mark above the baseline."""
        return max(0, peak_bytes() - self._baseline_bytes)

    def freed_bytes(self) -> int:
        """How much of it is free again now, between two batches."""
        trim()
        return max(0, peak_bytes() - process_memory().resident_bytes)

    def heaviest(self, source: VectorSource, layout: Layout, look: Look) -> None:
        """Look at the heaviest batch, where a feature is large.

        Raises:
            DataError: it does not decode.
        """
        facts = source.facts
        place, mean_bytes = facts.place(layout.rows), layout.rows * facts.sizes.mean_bytes
        is_heavy = bool(facts.sizes.runs) and layout.batch_bytes > _HEAVY * mean_bytes + LARGE_BYTES
        if place is None or facts.features <= layout.rows or not (is_heavy or facts.sizes.largest_bytes >= LARGE_BYTES):
            return
        with ogr.reads(source.facts.label), source.at(place, layout.rows, layout.batch_bytes) as reader:
            trouble: Exception | None = None
            for batch in reader:  # to its end, whatever is met: to close a GeoPackage early there ends in a segfault
                try:
                    if trouble is None:
                        look(batch)
                except Exception as error:  # noqa: BLE001 - raised below
                    trouble = error
                del batch
            if trouble is not None:
                raise trouble
        ogr.release()


def first_batches(source: VectorSource, layout: Layout, look: Look) -> None:
    """Look at the first batch, for a plan that is only looked at.

    Raises:
        DataError: it does not decode.
    """
    with ogr.reads(source.facts.label), source.batches(layout.rows, layout.batch_bytes) as reader:
        for batch in reader:
            look(batch)
            break
    ogr.release()
