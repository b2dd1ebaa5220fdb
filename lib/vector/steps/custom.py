"""Keep features by a user's function, which is given each batch and returns a mask or rows of it; of frames see `frames.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.errors import FunctionError
from lib.jobs import VectorJob
from lib.memory.function import call
from lib.memory.work import load_function
from lib.vector.sources import LayerFacts
from lib.vector.steps import Row, Step, Tally, UndecidedError, keep


def prepare(job: VectorJob, facts: LayerFacts) -> Step:
    """The step, of batches or of frames as the function asks.

    Raises:
        UsageError: the function cannot be imported, or declares what cannot be.
    """
    assert job.function is not None  # noqa: S101 - for mypy: it was asked for
    function = load_function(job.function)
    if getattr(function, "frame", False):
        from lib.vector.steps.frames import frame_step  # pandas and geopandas: 65 MiB

        return frame_step(function, job.function, facts)
    return CustomStep(function, job.function)


@dataclass(frozen=True, slots=True)
class CustomStep(Step):
    """Keeps what a function keeps.

    Attributes:
        function: the user's.
        function_name: `module:name`, for messages.
    """

    function: Callable[..., Any]
    function_name: str

    name: ClassVar[str] = "custom"
    is_decided: ClassVar[bool] = False

    def memory(self, batch_bytes: int, rows: int) -> int:
        """A function's memory is measured, not known."""
        del rows
        return batch_bytes

    def apply(self, batch: Any, tally: Tally) -> Any:
        """The rows that the function keeps.

        Raises:
            FunctionError: it raised, or returned neither a mask nor rows of the batch's schema.
        """
        if batch.num_rows == 0:
            return batch
        answer = call(self.function, self.function_name, batch)
        if isinstance(answer, pa.Table):
            answer = (answer.combine_chunks().to_batches() or [batch.slice(0, 0)])[0]
        if isinstance(answer, pa.RecordBatch):
            if not answer.schema.equals(batch.schema):
                raise FunctionError(
                    f"function {self.function_name} returned columns {answer.schema.names}, not {batch.schema.names}",
                    hint="return a boolean mask, or rows of the batch that was given, with its schema",
                )
            return answer
        return keep(batch, self._mask(answer, batch.num_rows), tally)

    def _mask(self, answer: Any, rows: int) -> NDArray[np.bool_]:
        if isinstance(answer, (pa.Array, pa.ChunkedArray)):
            answer = answer.fill_null(False) if pa.types.is_boolean(answer.type) else answer
            answer = answer.to_numpy(zero_copy_only=False) if isinstance(answer, pa.Array) else answer.to_numpy()
        mask = np.asarray(answer)
        if mask.dtype != np.bool_ or mask.shape != (rows,):
            raise FunctionError(
                f"function {self.function_name} returned {mask.dtype} of shape {mask.shape} for {rows} rows",
                hint="return a boolean mask of the batch's length, or a filtered batch",
            )
        return mask

    @property
    def facts(self) -> dict[str, Any]:
        """Its name."""
        return {"function": self.function_name}

    def reference(self, row: Row) -> Row | None:
        """Not known here."""
        del row
        raise UndecidedError
