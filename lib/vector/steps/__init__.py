"""Steps: what is done to each batch on its way, one module each. Adding one is its module and its line in `STEPS`.

A module has `prepare(job, facts) -> Step`; it is imported where a job asks for it only.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lib.jobs import VectorJob
from lib.vector.sources import LayerFacts

__all__ = ["STEPS", "Step", "Tally", "keep", "result_of", "steps_of"]

# By name, in the order in which they are done: whether a job asks for it.
STEPS: dict[str, Callable[[VectorJob], bool]] = {
    "area": lambda job: job.min_area_sqm is not None or job.max_area_sqm is not None,
    "custom": lambda job: job.function is not None,
}
# A result has these whatever steps there are.
_RESULT = {"features_null_area": 0, "area_mode": None, "arbitrated": 0}


@dataclass(slots=True)
class Tally:
    """What was counted on the way.

    Attributes:
        read: features that came from the source.
        geometries: those of them that had a geometry.
        kept: features given to the sink.
        batches: batches read.
        counts: what steps count, by the result's key.
        dropped: features dropped, by step.
        row: the source's rows before what is worked on; None where that is not known.
        error: what went wrong in the stream; the sink's library would hide it.
    """

    read: int = 0
    geometries: int = 0
    kept: int = 0
    batches: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    row: int | None = None
    error: Exception | None = None


class Step(Protocol):
    """One step over batches."""

    name: str

    def schema(self, schema: Any) -> Any:
        """The Arrow schema of what comes out."""

    def memory(self, batch_bytes: int, rows: int) -> int:
        """What it takes beside the batch, bytes."""

    def apply(self, batch: Any, tally: Tally) -> Any:
        """What becomes of a batch; raises DataError, FunctionError."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader of the plan wants to know of it."""

    def reference(self, geometry: Any) -> bool | None:
        """By the plain path: whether a feature stays, by its geometry (shapely's); None where that does not decide."""

    def result(self, tally: Tally) -> dict[str, Any]:
        """What a result says of it."""

    def notes(self, tally: Tally) -> list[str]:
        """What is to be warned of."""


def steps_of(job: VectorJob, facts: LayerFacts) -> list[Step]:
    """The steps that a job asks for, in order.

    Raises:
        SourceError: the layer has nothing that one of them could be done to.
        UsageError: the user's function cannot be imported.
    """
    asked = [name for name, is_asked in STEPS.items() if is_asked(job)]
    return [importlib.import_module(f"{__name__}.{name}").prepare(job, facts) for name in asked]


def result_of(steps: Sequence[Step], tally: Tally) -> dict[str, Any]:
    """What a result says of all steps."""
    said: dict[str, Any] = dict(_RESULT)
    for step in steps:
        said |= step.result(tally)
    return said | {"features_dropped": dict(tally.dropped)}


def keep(batch: Any, mask: Any) -> Any:
    """The rows where a NumPy mask holds; the batch itself where that is all of them.

    By Arrow's kernel itself: `batch.filter` imports `pyarrow.compute`, 0.05 s and ten thousand traces amid the work.
    """
    if mask.all():
        return batch
    import pyarrow as pa
    from pyarrow._compute import FilterOptions, function_registry

    return function_registry().get_function("filter").call([batch, pa.array(mask)], FilterOptions("drop"))
