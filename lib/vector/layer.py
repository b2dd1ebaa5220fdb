"""What all jobs over layers share: layouts, what was measured with them, and the plan and smallest limit that follow."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lib.memory.work import Room
from lib.reports import Plan
from lib.units import MIB
from lib.vector import plan as planning
from lib.vector.plan import Layout, Task
from lib.vector.probe import Probe

# A look that reads no larger batches is no danger, whatever the limit: it tells the smallest one exactly.
_HARMLESS_BYTES = 16 * MIB
_NEAR_BYTES = 32 * MIB


class LayerWork(ABC):
    """A job over one layer or two, read one after the other.

    Attributes:
        room: what there is.
        tasks: what is done to each layer.
        layouts: how each is read.
        measured: bytes above the baseline, bytes of them that are free again between two batches, and the layouts of then.
        probe: measures them.
        calls_function: a user's, which nothing holds before there is a plan.
    """

    calls_function = False

    def __init__(self, room: Room, tasks: Sequence[Task]) -> None:
        self.room, self.tasks = room, tasks
        self.measured: tuple[int, int, Sequence[Layout]] | None = None
        self.probe = Probe(room.baseline_bytes)
        self.layouts = [planning.choose(task, self._left_bytes) for task in tasks]

    @property
    def _left_bytes(self) -> int:
        """What the budget leaves beside what opening the layers has taken."""
        return self.room.budget_bytes - self.room.baseline_bytes - self.probe.reached_bytes

    def first(self) -> Plan:
        """The plan by headers; where that leaves little, by a look, so that what a refusal names is right.

        Raises:
            DataError: what is looked at does not decode.
        """
        layers = zip(self.tasks, self.layouts, strict=True)
        batch = max(layout.batch_bytes for layout in self.layouts)
        if (
            not self.calls_function
            and batch <= _HARMLESS_BYTES
            and max(planning.needs(*layer) for layer in layers) > self._left_bytes - _NEAR_BYTES
        ):
            return self.look()
        return self.plan_of(batch, batch)

    @abstractmethod
    def look(self) -> Plan:
        """The plan by reading what is heaviest and what comes first; nothing is written."""

    def smallest(self, **without: Any) -> int:
        """The smallest limit that would do with other resources, bytes: by what was measured, else by a guess."""
        found = []
        for number, task in enumerate(self.tasks):
            resources = task.resources.model_copy(update=without)
            other = Task(task.facts, task.sink, task.steps, resources, task.per_byte)
            if self.measured is None:
                layout = planning.choose(other, 0)
                reached, freed = planning.guess(other, layout), layout.batch_bytes
            else:
                reached, freed, layout = self.measured[0], self.measured[1], self.measured[2][number]
            found.append(planning.smallest_of(other, layout, self.room, reached, freed))
        return max(found)

    def close(self) -> None:  # noqa: B027 - no duty of those who derive
        """Nothing is held open between readings."""

    def plan_of(self, reached: int, freed: int, **more: Any) -> Plan:
        """The plan for what was measured above the baseline, of which so much is free again; `more` are further fields."""
        heaviest = max(range(len(self.tasks)), key=lambda each: self.layouts[each].batch_bytes)
        task, layout = self.tasks[heaviest], self.layouts[heaviest]
        terms = planning.terms_of(task, layout, self.room, reached, freed)
        fields: dict[str, Any] = {
            "limit_bytes": self.room.limit_bytes,
            "projected_bytes": sum(terms.values()),
            "baseline_bytes": self.room.baseline_bytes,
            "disk_bytes": 0,
            "smallest_limit_bytes": self.smallest(),
            "threads": 1 + layout.is_ahead,
            "batch_rows": min(each.rows for each in self.layouts),
            "chunks": self.chunks(),
            "terms": terms,
            "facts": self.tasks[-1].facts.shown,
        }
        return Plan(**fields | more)

    def chunks(self) -> int:
        """Batches in all; 0 where not known."""
        layers = zip(self.tasks, self.layouts, strict=True)
        return sum(-(-max(task.facts.features, 0) // layout.rows) for task, layout in layers)
