"""Steps: what is done to each batch on its way, one module each. Adding one is its module and its line in `STEPS`.

A module has `prepare(job, facts) -> Step`; it is imported where a job asks for it only.
"""

import importlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.jobs import VectorJob
from lib.vector.bad_rows import BadRows
from lib.vector.row_checks import Found
from lib.vector.sources import LayerFacts, VectorSource
from lib.vector.wkb import NOT_READ

__all__ = [
    "STEPS",
    "Row",
    "Step",
    "Tally",
    "UndecidedError",
    "columns_of",
    "keep",
    "load",
    "outcome",
    "pushed",
    "result_of",
    "steps_of",
]

# By name, in the order in which they are done: whether a job asks for it.
STEPS: dict[str, Callable[[VectorJob], bool]] = {
    "where": lambda job: job.where is not None,
    "bbox": lambda job: job.bbox is not None,
    "intersects": lambda job: job.intersects is not None,
    "area": lambda job: job.min_area_sqm is not None or job.max_area_sqm is not None,
    "length": lambda job: job.min_length_m is not None or job.max_length_m is not None,
    "repair": lambda job: job.repair,
    "custom": lambda job: job.function is not None,
    "cast": lambda job: bool(job.cast),
    "select": lambda job: job.select is not None,
    "add_area": lambda job: job.add_area is not None,
    "simplify": lambda job: job.simplify is not None,
    "centroid": lambda job: job.centroid,
    "to_crs": lambda job: job.to_crs is not None,
}
# A result has these whatever steps there are.
_RESULT = {"features_null_area": 0, "area_mode": None, "arbitrated": 0}


@dataclass(slots=True)
class Tally:
    """What was counted on the way.

    Attributes:
        read: features that came from the source.
        geometries: those of them that had a geometry, and were not bad.
        linearised: those of them that had curves.
        kept: features given to the sink.
        batches: batches read.
        counts: what steps count, by the result's key.
        dropped: features dropped, by step.
        bad: rows that were skipped, or that end the job.
        row: the source's rows before what is worked on; None where that is not known.
        fids: feature ids of what is worked on, (rows,) int64; None where those are not known.
        places: where its rows are behind that, (rows,) int64; None where one follows the other.
        kept_rows: what the step at work has kept of its rows, as a mask, where it says so.
        error: what went wrong in the stream; the sink's library would hide it.
    """

    read: int = 0
    geometries: int = 0
    kept: int = 0
    batches: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    linearised: int = 0
    bad: BadRows = field(default_factory=BadRows)
    row: int | None = None
    fids: NDArray[np.int64] | None = None
    places: NDArray[np.int64] | None = None
    kept_rows: NDArray[np.bool_] | None = None
    error: Exception | None = None

    def take(self, found: Found) -> None:
        """Take in what was found in a batch as it was read."""
        self.batches += 1
        self.read += found.rows
        self.linearised += found.linearised
        self.bad.add(found.bad)

    def begin(self, found: Found, row: int | None, part: slice) -> None:
        """Begin with a part of a batch's rows, which has so many of the source's before it, if that is known."""
        self.places = None if found.places is None else found.places[part]
        self.fids = None if found.fids is None else found.fids[part]
        self.row = None if row is None else row + (part.start if found.places is None else 0)

    def number(self, at: int) -> int | None:
        """A row's number in the source, from 1, by its place in what is worked on; None where that is not known."""
        if self.row is None:
            return None
        return self.row + 1 + (at if self.places is None else int(self.places[at]))

    def fid(self, at: int) -> int | None:
        """Its feature id, likewise."""
        return None if self.fids is None else int(self.fids[at])

    def follow(self, before: int) -> None:
        """For the steps behind one that has dropped some of so many rows: what numbers are left."""
        mask, self.kept_rows = self.kept_rows, None
        if mask is None or len(mask) != before:
            self.row = self.fids = None
            return
        self.fids = None if self.fids is None else self.fids[mask]
        self.places = np.flatnonzero(mask) if self.places is None else self.places[mask]


class Row(NamedTuple):
    """A feature as the plain path has it.

    Attributes:
        values: its attributes, by field.
        geometry: shapely's; None for null, `wkb.NOT_READ` where GEOS does not read it.
    """

    values: Mapping[str, Any]
    geometry: Any


class UndecidedError(Exception):
    """The plain path does not decide what becomes of a row."""


class Step(ABC):
    """One step over batches. What is here holds for those that drop rows and change none."""

    __slots__ = ()

    name: ClassVar[str]
    # Whether rows that stay are as they were; else whether at least their geometries are.
    is_filter: ClassVar[bool] = True
    keeps_geometry: ClassVar[bool] = True
    # Whether fields that are left have the values that they had.
    keeps_values: ClassVar[bool] = True
    # Whether the plain path decides anything, and looks at attributes for it.
    is_decided: ClassVar[bool] = True
    needs_values: ClassVar[bool] = False

    @property
    def looks_at(self) -> frozenset[str] | None:
        """The fields that it looks at; None: perhaps all."""
        return None if self.needs_values or not self.is_decided else frozenset()

    @property
    def only(self) -> tuple[str, ...] | None:
        """The fields that are left of the layer behind it; None: all."""
        return None

    def layer(self, layer: LayerFacts) -> LayerFacts:
        """What the layer is behind it: fields, types, geometry type, CRS."""
        return layer

    def schema(self, schema: Any) -> Any:
        """The Arrow schema of what comes out."""
        return schema

    def push(self, source: VectorSource) -> tuple[VectorSource, str]:
        """The source with what its driver can be asked of this step, and how, or why not; the step is done all the same."""
        return source, ""

    @abstractmethod
    def memory(self, batch_bytes: int, rows: int) -> int:
        """What it takes beside the batch, bytes."""

    @abstractmethod
    def apply(self, batch: Any, tally: Tally) -> Any:
        """What becomes of a batch; raises DataError, FunctionError."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader of the plan wants to know of it."""
        return {}

    @abstractmethod
    def reference(self, row: Row) -> Row | None:
        """By the plain path: what becomes of a row, None where it is dropped; raises UndecidedError where that is not known."""

    def result(self, tally: Tally) -> dict[str, Any]:
        """What a result says of it."""
        del tally
        return {}

    def notes(self, tally: Tally) -> list[str]:
        """What is to be warned of."""
        del tally
        return []


def load(job: VectorJob) -> None:
    """Import the steps that a job asks for, with the libraries that they need."""
    for name in (name for name, is_asked in STEPS.items() if is_asked(job)):
        importlib.import_module(f"{__name__}.{name}")


def steps_of(job: VectorJob, layer: LayerFacts) -> tuple[list[Step], LayerFacts]:
    """The steps that a job asks for, in order, each prepared for the layer as it is there; and the layer behind all of them.

    Raises:
        SourceError: the layer has nothing that one of them could be done to.
        UsageError: the user's function cannot be imported.
    """
    steps: list[Step] = []
    for name in (name for name, is_asked in STEPS.items() if is_asked(job)):
        steps.append(importlib.import_module(f"{__name__}.{name}").prepare(job, layer))
        layer = steps[-1].layer(layer)
    return steps, layer


def columns_of(steps: Sequence[Step]) -> tuple[str, ...] | None:
    """The fields that have to be read, where others are left out before any step looks at them; None: all."""
    looked_at: set[str] = set()
    for step in steps:
        if step.only is not None:
            return tuple(dict.fromkeys((*step.only, *sorted(looked_at))))
        if step.looks_at is None:
            return None
        looked_at |= step.looks_at
    return None


def pushed(source: VectorSource, steps: Sequence[Step]) -> tuple[VectorSource, dict[str, str]]:
    """The source with what its driver can be asked of the steps as long as they are filters; by step, how or why not."""
    ways: dict[str, str] = {}
    for step in steps:
        if not step.is_filter:
            break
        source, way = step.push(source)
        if way:
            ways[step.name] = way
    return source, ways


def outcome(steps: Sequence[Step], row: Row) -> Row | None:
    """What becomes of a row by all steps' plain paths: None where one of them drops it.

    Raises:
        UndecidedError: none drops it, and one does not decide.
    """
    if row.geometry is NOT_READ and steps:
        raise UndecidedError
    is_sure = True
    for step in steps:
        try:
            found = step.reference(row)
        except UndecidedError:
            if not step.is_filter:
                raise
            is_sure = False
            continue
        if found is None:
            return None
        row = found
    if not is_sure:
        raise UndecidedError
    return row


def result_of(steps: Sequence[Step], tally: Tally) -> dict[str, Any]:
    """What a result says of all steps."""
    said: dict[str, Any] = dict(_RESULT)
    for step in steps:
        said |= step.result(tally)
    return said | {"features_dropped": dict(tally.dropped)}


def keep(batch: Any, mask: Any, tally: Tally) -> Any:
    """The rows where a NumPy mask holds; the batch itself where that is all of them. The tally follows the rows' numbers.

    By Arrow's kernel itself: `batch.filter` imports `pyarrow.compute`, 0.05 s and ten thousand traces amid the work.
    """
    if mask.all():
        return batch
    tally.kept_rows = mask
    import pyarrow as pa
    from pyarrow._compute import FilterOptions, function_registry

    return function_registry().get_function("filter").call([batch, pa.array(mask)], FilterOptions("drop"))
