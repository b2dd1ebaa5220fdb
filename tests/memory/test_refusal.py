"""A refusal tells what helps: not a higher limit where a setting takes the memory, or where the host has no more."""

from typing import Any

import pytest

from lib.errors import MemoryRefused
from lib.jobs import ProfileJob, Resources
from lib.memory.refusal import plan
from lib.memory.work import Room
from lib.reports import Plan
from lib.units import KIB, MIB


class _Engine:
    """Needs 100 MiB, 2 MiB a thread beyond the first, the margin, and 1 KiB for each row of a batch that may not be smaller."""

    def plan(self, job: Any, room: Room) -> Plan:
        """A plan, or what would do."""
        need = 100 * MIB + 2 * MIB * ((job.resources.threads or 1) - 1) + job.resources.margin_bytes
        need += job.resources.chunk_rows * KIB if job.resources.chunk_rows_fixed else 0
        if need > room.budget_bytes:
            raise MemoryRefused("x.tif: not enough", hint=f"raise it to {need // MIB}", smallest_limit_bytes=need)
        return Plan(
            limit_bytes=room.limit_bytes,
            projected_bytes=need,
            baseline_bytes=0,
            disk_bytes=0,
            smallest_limit_bytes=need,
        )

    def run(self, *_: Any) -> Any:
        """Nothing."""


def _planned(limit_mb: int, peak_mb: int = 0, **resources: Any) -> Plan:
    job = ProfileJob(source="x.tif", resources=Resources(limit_bytes=limit_mb * MIB, **resources))
    room = Room(limit_bytes=limit_mb * MIB, budget_bytes=limit_mb * MIB, baseline_bytes=0)
    return plan(_Engine(), job, room, lambda: peak_mb * MIB)


def _refused(limit_mb: int, peak_mb: int = 0, **resources: Any) -> MemoryRefused:
    with pytest.raises(MemoryRefused) as caught:
        _planned(limit_mb, peak_mb, **resources)
    return caught.value


def test_a_plan_is_not_below_what_making_it_took() -> None:
    """9 MiB above the peak; the smallest limit has 4 MiB more for another child. A lower peak changes nothing."""
    assert _planned(256, 80).projected_bytes == 100 * MIB
    made = _planned(256, 112)
    assert (made.projected_bytes, made.smallest_limit_bytes) == (121 * MIB, 125 * MIB)
    assert made.terms == {"reading headers": 21 * MIB}


@pytest.mark.parametrize("limit_mb", [120, 80])
def test_headers_that_do_not_fit_are_refused_with_their_limit(limit_mb: int) -> None:
    """Whether or not the work itself would fit."""
    refused = _refused(limit_mb, 112)
    assert refused.smallest_limit_bytes == 125 * MIB
    assert "125 MiB to read its headers" in refused.message
    assert "125 MiB" in refused.hint


def test_an_ordinary_refusal_stands_as_it_is() -> None:
    """A limit that somebody chose too low is to be raised."""
    refused = _refused(80, limit_origin="flag", threads=2, margin_bytes=4 * MIB)
    assert (refused.hint, refused.facts) == ("raise it to 106", {"smallest_limit_bytes": 106 * MIB})


@pytest.mark.parametrize("limit_mb", [256, 80])
@pytest.mark.parametrize(
    ("culprit", "resources"),
    [
        ("threads", {"threads": 99999}),
        ("margin_mb", {"margin_bytes": 99_999_999 * MIB}),
        ("margin_mb", {"margin_bytes": 200 * MIB}),
        ("chunk_rows", {"chunk_rows": 1_000_000, "chunk_rows_fixed": True}),
    ],
)
def test_the_setting_that_takes_the_memory_is_named(culprit: str, resources: dict[str, int], limit_mb: int) -> None:
    """Not "raise the limit to 175098 MiB": what the job needs without the setting is told."""
    refused = _refused(limit_mb, **resources)
    assert refused.culprit == culprit
    assert culprit in refused.hint
    assert "100 MiB would do" in refused.hint
    assert refused.smallest_limit_bytes > limit_mb * MIB


def test_the_host_is_named_where_it_lowered_the_limit() -> None:
    """A limit that nobody chose cannot be raised beyond the host."""
    refused = _refused(60, limit_origin="host")
    assert refused.culprit == "host"
    assert "the host leaves no more" in refused.message
    assert "host_reserve_fraction" in refused.hint
    assert refused.smallest_limit_bytes == 100 * MIB


def test_a_shared_budget_is_named_where_it_lowered_the_limit() -> None:
    """host_budget_mb may be what left no more."""
    refused = _refused(60, limit_origin="host", host_budget_bytes=60 * MIB)
    assert "host_budget_mb" in refused.hint
