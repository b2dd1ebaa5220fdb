"""Keep features whose geometry meets a region: what `bbox` and `intersects` have in common."""

from dataclasses import dataclass
from typing import Any

from lib.errors import SourceError, UsageError
from lib.units import MIB
from lib.vector.crs import is_known
from lib.vector.region import Region
from lib.vector.sources import LayerFacts, VectorSource, Wish
from lib.vector.steps import Row, Step, Tally, keep

# Geometries that GEOS has at once, of a batch's bytes as many; the coordinates of a part of it; of each row its place.
_PER_BATCH_BYTE = 2
_BLOCK_BYTES, _ROW_BYTES = 4 * MIB, 200


@dataclass(frozen=True, slots=True)
class RegionStep(Step):
    """Keeps the rows whose geometry meets a region; null and empty ones are dropped.

    Attributes:
        label: the source's base name, for messages.
        column: the geometry column of the batches.
        region: in the layer's CRS.
        words: what it is, for readers of the plan.
    """

    label: str
    column: str
    region: Region
    words: str

    def push(self, source: VectorSource) -> tuple[VectorSource, str]:
        """Asks the driver's spatial index for what meets the region's envelope."""
        return source.narrowed(Wish(box=self.region.bounds))

    def memory(self, batch_bytes: int, rows: int) -> int:
        """A block of vertices, and what GEOS makes of the rows that envelopes do not decide."""
        return min(_BLOCK_BYTES, 8 * batch_bytes) + _PER_BATCH_BYTE * batch_bytes + rows * _ROW_BYTES

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The rows that meet the region.

        Raises:
            DataError: bytes that are no geometry, or one that GEOS does not read.
        """
        if batch.num_rows == 0:
            return batch
        met = self.region.meets(batch.column(batch.schema.get_field_index(self.column)), self.label)
        tally.counts[f"{self.name} met"] += int(met.sum())
        return keep(batch, met, tally)

    @property
    def facts(self) -> dict[str, Any]:
        """The region."""
        return {self.name: self.words}

    def notes(self, tally: Tally) -> list[str]:
        """Of a region that nothing meets: its axes may be swapped, which no CRS tells."""
        if tally.counts[f"{self.name} met"]:
            return []
        swapped = ": x (longitude, easting) comes before y" if self.name == "bbox" else ""
        return [f"{self.label}: nothing meets --{self.name} {self.words}{swapped}"]

    def reference(self, row: Row) -> Row | None:
        """By shapely, polygon by polygon."""
        import shapely

        if row.geometry is None or row.geometry.is_empty:
            return None
        return (
            row
            if any(
                shapely.intersects(shapely.from_wkb(shapely.to_wkb(each)), row.geometry)
                for each in self.region.polygons
            )
            else None
        )


def geometry_column(facts: LayerFacts, flag: str) -> str:
    """The geometry column of a layer.

    Raises:
        SourceError: it has none.
    """
    if facts.geometry_name is None:
        raise SourceError(
            f"{facts.label}: layer {facts.layer} has no geometries that could meet anything", hint=f"leave {flag} out"
        )
    return facts.geometry_name


def known_crs(facts: LayerFacts, flag: str) -> str:
    """The layer's CRS.

    Raises:
        UsageError: it has none, so that nothing in another CRS can be brought to it.
    """
    if not facts.crs or not is_known(facts.crs):
        raise UsageError(
            f"{flag}: {facts.label} has no CRS itself, so that nothing of another CRS has a place in it",
            hint="say which it is with --assume-crs",
        )
    return facts.crs
