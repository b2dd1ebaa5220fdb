"""The plan of a vector job: a pure function of the layer's facts, the job's choices and the memory left.

It chooses the most rows that make a batch faster, then the largest R-tree, of those that fit. What each term is made of, and
the measurements behind it, is in `terms.py`.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from lib.errors import DiskRefused, MemoryRefused
from lib.memory.work import BASELINE_SPREAD_BYTES
from lib.units import MIB, format_bytes, mib
from lib.vector.facts import LayerFacts
from lib.vector.terms import AREA_FACTOR, BATCH_FACTOR, UNKNOWN_MEAN_BYTES, batch_bytes_of, rtree_bytes, terms

__all__ = ["VectorPlan", "check_disk", "disk_bytes", "fit", "lower_by"]

# Rows enough to have this much in a batch, by their mean, make it as fast as more do (30,000 rows of 14 kB took 7.0 s in
# batches of 8 MiB and 8.1 s in batches of 133 MiB). Not by the largest batch: a few huge geometries would make all small.
_ENOUGH_BATCH_BYTES = 16 * MIB
_MOST_OF_IT = 0.9
# Formats that pack coordinates: 31 MiB of file geodatabase became 94 MiB of GeoPackage.
_PACKED = {"OpenFileGDB": 4}


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """What was chosen.

    Attributes:
        rows: rows of a batch, at most.
        batch_bytes: bytes of a batch, at most, as far as is known.
        rtree_bytes: memory for the GeoPackage's R-tree.
        terms: bytes by name; their sum is the projection.
        smallest_bytes: the least that any plan for this layer projects.
    """

    rows: int
    batch_bytes: int
    rtree_bytes: int
    terms: dict[str, int]
    smallest_bytes: int = 0

    @property
    def projected_bytes(self) -> int:
        """The projected peak."""
        return sum(self.terms.values())


def fit(
    facts: LayerFacts,
    *,
    sink: str,
    measures_area: bool,
    baseline_bytes: int,
    budget_bytes: int,
    most_rows: int,
    most_batch_bytes: int | None = None,
    rows_fixed: bool = False,
    margin_bytes: int = 0,
    batch_factor: float = BATCH_FACTOR,
    area_factor: float = AREA_FACTOR,
    extra: dict[str, int] | None = None,
    most_batches: int | None = None,
) -> VectorPlan:
    """The fastest plan within the budget: the most rows that make it faster, then the largest R-tree.

    Args:
        facts: of the layer.
        sink: the output's driver; empty where nothing is written.
        measures_area: whether areas are asked for.
        baseline_bytes: resident size now.
        budget_bytes: what the projection must not exceed.
        most_rows: upper bound of a batch's rows.
        most_batch_bytes: upper bound of a batch's bytes, where one is set.
        rows_fixed: whether `most_rows` was asked for, so that fewer will not do.
        margin_bytes: the host's own margin.
        batch_factor: resident bytes for each byte of a batch as it is read.
        area_factor: temporaries of areas for each byte of a batch, up to a block of vertices.
        extra: further terms, bytes by name, the same for every plan.
        most_batches: batches that are read, where not all are.

    Raises:
        MemoryRefused: with the smallest budget that would do.
    """

    def project(rows: int, rtree_share: float) -> VectorPlan:
        made = terms(
            facts,
            rows,
            rtree_share,
            sink=sink,
            measures_area=measures_area,
            baseline_bytes=baseline_bytes,
            margin_bytes=margin_bytes,
            batch_factor=batch_factor,
            area_factor=area_factor,
            most_batches=most_batches,
        )
        return VectorPlan(
            rows, batch_bytes_of(facts, rows), rtree_bytes(facts, sink, rtree_share), made | (extra or {})
        )

    candidates = [most_rows] if rows_fixed else _rows_worth_trying(facts, most_rows)
    if most_batch_bytes is not None:
        within = [rows for rows in candidates if batch_bytes_of(facts, rows) <= most_batch_bytes]
        if not within:
            fixed = f" of chunk_rows {most_rows} rows" if rows_fixed else ""
            smallest_batch = batch_bytes_of(facts, candidates[-1])
            raise MemoryRefused(
                f"{facts.label}: max_chunk_mb allows {format_bytes(most_batch_bytes)} for a batch{fixed}, the smallest takes "
                f"{format_bytes(smallest_batch)}",
                hint=f"set max_chunk_mb to {mib(smallest_batch)} or more",
                smallest_chunk_bytes=smallest_batch,
            )
        candidates = within
    # Not always the fewest rows: a FlatGeobuf's index comes into the memory that the batches had.
    smallest = min(project(rows, 0.0).projected_bytes for rows in candidates) + BASELINE_SPREAD_BYTES
    for rows in candidates:
        for share in (1.0, 0.75, 0.5, 0.25, 0.0):
            plan = project(rows, share)
            if plan.projected_bytes <= budget_bytes:
                return replace(plan, smallest_bytes=smallest)
    raise MemoryRefused(
        f"{facts.label}: {format_bytes(budget_bytes)} is not enough to stream it: "
        f"{format_bytes(smallest)} is the least",
        hint=f"raise the memory limit to {mib(smallest)} MiB",
        smallest_limit_bytes=smallest,
    )


def _rows_worth_trying(facts: LayerFacts, most_rows: int) -> list[int]:
    """The most rows, half of them and so on down to one; without those that make batches larger than is any faster."""
    halves = [max(1, most_rows >> shift) for shift in range(most_rows.bit_length())]
    mean = facts.sizes.mean_bytes or UNKNOWN_MEAN_BYTES
    return [rows for rows in halves if rows * mean <= _ENOUGH_BATCH_BYTES] or halves[-1:]


def lower_by(facts: LayerFacts, chosen: VectorPlan, **asked: Any) -> str:
    """The one setting that would lower the peak most, and by how much: what `fit` chooses with it set; empty below 1 MiB.

    Args:
        facts: of the layer.
        chosen: the plan.
        asked: what `fit` was asked for it, without its budget.
    """
    budget = {"budget_bytes": chosen.projected_bytes}
    knobs: dict[str, dict[str, Any]] = {
        f"chunk_rows {rows}": {"most_rows": rows, "rows_fixed": True}
        for rows in (chosen.rows >> shift for shift in range(1, chosen.rows.bit_length()))
    }
    if asked["sink"] == "FlatGeobuf":
        knobs["writing a .gpkg"] = {"sink": "GPKG"}
    if asked["margin_bytes"]:
        knobs["margin_mb 0"] = {"margin_bytes": 0}
    saves: dict[str, int] = {}
    for knob, change in knobs.items():
        with suppress(MemoryRefused):
            saves[knob] = chosen.projected_bytes - fit(facts, **(asked | budget | change)).projected_bytes
    worth = max(
        MIB, int(max(saves.values(), default=0) * _MOST_OF_IT)
    )  # the most rows that save about as much as one row does
    found = next((knob for knob, saved in saves.items() if saved >= worth), "")
    return f"{found} saves {format_bytes(saves[found])}" if found else ""


def disk_bytes(facts: LayerFacts, sink: str) -> int:
    """Upper estimate of the output, bytes; FlatGeobuf writes its features twice."""
    needed = facts.source_bytes * _PACKED.get(facts.driver, 1) + max(facts.count, 0) * 150 + MIB
    return needed * (2 if sink == "FlatGeobuf" else 1)


def check_disk(facts: LayerFacts, sink: str, free_bytes: int | None, *, keeps_all: bool) -> None:
    """Refuse a job whose output cannot fit into what is free on its disk, where that is known.

    Where all features are kept, their geometries must fit; what a filter keeps is not known, and no output is under 1 MiB.

    Raises:
        DiskRefused: less is free.
    """
    least = max(MIB, facts.sizes.total_bytes * (2 if sink == "FlatGeobuf" else 1) if keeps_all else 0)
    if free_bytes is not None and free_bytes < least:
        raise DiskRefused(
            f"{facts.label}: the output takes at least {format_bytes(least)}, and its disk has {format_bytes(free_bytes)} free",
            free_bytes=free_bytes,
            needed_bytes=least,
        )
