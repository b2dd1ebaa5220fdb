"""What raster jobs that write nothing share (profile, verification): a plan of own terms and of what readers hold."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any

from lib.memory.work import BASELINE_SPREAD_BYTES, Room, with_probed
from lib.reports import Plan


class ReadingWork(ABC):
    """A prepared raster job that only reads.

    Args:
        room: what there is.
        margin_bytes: the job's.
        stack: closes what is open.
    """

    def __init__(self, room: Room, margin_bytes: int, stack: ExitStack) -> None:
        self.room = room
        self._margin_bytes, self._open = margin_bytes, stack

    def close(self) -> None:
        """Close all that was opened."""
        self._open.close()

    def smallest(self, **without: Any) -> int:
        """The smallest limit with other resources, bytes; none but the margin changes it."""
        margin: int = without.get("margin_bytes", self._margin_bytes)
        return self._plan().smallest_limit_bytes - self._margin_bytes + margin

    def first(self) -> Plan:
        """The plan by headers; where it does not fit and no block is a danger, measured, so that the limit named is right."""
        plan = self._plan()
        if plan.projected_bytes > self.room.budget_bytes and self.largest_bytes() <= self.room.limit_bytes // 4:
            return self.look()
        return plan

    @abstractmethod
    def largest_bytes(self) -> int:
        """The largest block that is read, decoded."""

    @abstractmethod
    def _plan(self) -> Plan:
        """The plan by what is known so far."""

    @abstractmethod
    def look(self) -> Plan:
        """The final plan, by reading where it is heaviest."""

    def plan_of(self, opened_bytes: int, own: dict[str, int], held_bytes: int, **more: Any) -> Plan:
        """The plan.

        Args:
            opened_bytes: resident size with all open.
            own: terms in closed form, bytes by name.
            held_bytes: what readers hold beside them, measured or guessed.
            more: further fields of it.
        """
        baseline = self.room.baseline_bytes
        opening = {"baseline": baseline, "opening the source": max(0, opened_bytes - baseline)}
        terms = opening | own | {"margin": self._margin_bytes}
        projected = with_probed(sum(terms.values()), held_bytes)
        return Plan(
            limit_bytes=self.room.limit_bytes,
            projected_bytes=projected,
            baseline_bytes=baseline,
            disk_bytes=0,
            smallest_limit_bytes=projected + BASELINE_SPREAD_BYTES,
            terms=terms | {"libraries": projected - sum(terms.values())},
            **more,
        )
