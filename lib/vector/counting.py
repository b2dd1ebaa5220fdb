"""Count conservation: what came from a source against what it has by another count, taken in a thread beside the pass."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lib.errors import DataError
from lib.vector.bad_rows import LISTED, BadRow, error_of
from lib.vector.sources import VectorSource
from lib.vector.sources.facts import InTable
from lib.vector.steps import Tally

# Of the features dropped those that the source's driver did not give: it was asked for fewer.
DRIVER = "driver"


class Counts(NamedTuple):
    """Features in all, as many as the driver has to give where it is asked for fewer, and what else is in the table."""

    features: int | None
    given: tuple[int, int] | None
    table: InTable | None


class Counting:
    """The source's own counts, in a thread beside the pass."""

    def __init__(self, source: VectorSource) -> None:
        self._source = source
        self._pool = ThreadPoolExecutor(1, "swath-count")
        self._counts = self._pool.submit(self._counted)

    def count(self) -> Counts:
        """All of them; raises what counting raised."""
        self._pool.shutdown(wait=False)
        return self._counts.result()

    def _counted(self) -> Counts:
        source = self._source
        if (table := source.in_table()) is None:
            return Counts(source.count(), source.given(), None)
        # What the table was asked was of the same rows: they are not gone through twice.
        if source.is_whole:
            return Counts(table.rows, None, table)
        return Counts(source.count(), (table.rows, table.rows), table)


def reconcile(source: VectorSource, tally: Tally, counted: Counts) -> None:
    """Features read against what the source has by another count; a partial read must not pass as a whole one.

    What the driver dropped is what the source has beside that.

    Raises:
        DataError: they differ, or rows that the driver has left out are bad.
    """
    facts, has = source.facts, counted.features
    least, most = counted.given or (has, has)
    if least is not None and most is not None and tally.read < least:
        _left_out(source, tally, most - tally.read)
    if least is not None and most is not None and not least <= tally.read <= most:
        asked = " that it was asked for" if counted.given else ""
        raise DataError(
            f"{facts.label}: layer {facts.layer} has {_between(least, most)} features{asked}, but {tally.read} could be read",
            features=most,
            features_read=tally.read,
        )
    if counted.given and has is not None:
        tally.dropped[DRIVER] += has - tally.read
    if (table := counted.table) is not None and table.geometries > tally.geometries + tally.bad.count:
        raise DataError(
            f"{facts.label}: {table.geometries - tally.geometries} geometries of layer {facts.layer} do not decode",
            hint="`ogrinfo -al` shows their rows without one: mend or remove them",
        )


def _left_out(source: VectorSource, tally: Tally, missing: int) -> None:
    """Bad rows that the driver has left out by itself, where they are all that is missing; as many are listed as are told.

    Raises:
        DataError: they are not to be skipped.
    """
    first: list[BadRow] = []
    found = 0
    for each in source.left_out():
        if not tally.bad.skips:
            raise error_of(each, tally.bad.label)
        first += [each] if len(first) < LISTED else []
        found += 1
    if found == missing:
        tally.bad.add(first)
        tally.bad.count += found - len(first)
        tally.read += found


def _between(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"
