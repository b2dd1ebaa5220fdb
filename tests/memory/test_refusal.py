"""A refusal tells what helps: not a higher limit where a setting takes the memory, or where the host has no more."""

from dataclasses import replace
from typing import Any

import pytest

from lib.errors import MemoryRefused
from lib.jobs import ProfileJob, Resources
from lib.memory.refusal import held, hinted
from lib.memory.work import Room
from lib.reports import Plan
from lib.units import KIB, MIB


class _Work:
    """Needs 100 MiB, 2 MiB a thread beyond the first, the margin, and 1 KiB for each row of a batch that may not be smaller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def smallest(self, **without: Any) -> int:
        """The closed form of the above."""
        resources = self._resources.model_copy(update=without)
        rows = resources.chunk_rows * KIB if resources.chunk_rows_fixed else 0
        return 100 * MIB + 2 * MIB * ((resources.threads or 1) - 1) + resources.margin_bytes + rows


def _refused(limit_mb: int, **resources: Any) -> MemoryRefused:
    job = ProfileJob(source="x.tif", resources=Resources(limit_bytes=limit_mb * MIB, **resources))
    work = _Work(job.resources)
    room = Room(limit_bytes=limit_mb * MIB, budget_bytes=limit_mb * MIB, baseline_bytes=0)
    need = work.smallest()
    refused = MemoryRefused("x.tif: not enough", hint=f"raise it to {need // MIB}", smallest_limit_bytes=need)
    return hinted(refused, work, job, room)  # type: ignore[arg-type] - all that a hint asks of a Work


def _plan(projected_mb: int) -> Plan:
    return Plan(
        limit_bytes=256 * MIB, projected_bytes=projected_mb * MIB, baseline_bytes=0, disk_bytes=0,
        smallest_limit_bytes=projected_mb * MIB, terms={"all": projected_mb * MIB},
    )  # fmt: skip


def test_a_plan_is_not_below_what_was_reached() -> None:
    """A lower peak changes nothing; a higher one is a term, with 1 MiB that the kernel may count late and 4 for another child."""
    assert held(_plan(100), "x.tif", 80 * MIB) == _plan(100)
    plan = held(_plan(100), "x.tif", 112 * MIB)
    assert (plan.projected_bytes, plan.smallest_limit_bytes) == (113 * MIB, 117 * MIB)
    assert plan.terms == {"all": 100 * MIB, "reached before": 13 * MIB}
    assert plan.projected_bytes == sum(plan.terms.values())


@pytest.mark.parametrize(("projected_mb", "peak_mb", "smallest_mb"), [(100, 112, 117), (130, 90, 130)])
def test_what_does_not_fit_is_refused_with_its_limit(projected_mb: int, peak_mb: int, smallest_mb: int) -> None:
    """Whether it was reached or is only planned."""
    with pytest.raises(MemoryRefused) as caught:
        held(replace(_plan(projected_mb), limit_bytes=112 * MIB), "x.tif", peak_mb * MIB)
    assert caught.value.smallest_limit_bytes == smallest_mb * MIB
    assert f"at least {smallest_mb} MiB, 112 MiB are granted" in caught.value.message
    assert f"{smallest_mb} MiB" in caught.value.hint


def test_an_ordinary_refusal_stands_as_it_is() -> None:
    """A limit that somebody chose too low is to be raised."""
    refused = _refused(80, limit_origin="flag", threads=2, margin_bytes=4 * MIB)
    assert (refused.hint, refused.facts) == ("raise it to 106", {"smallest_limit_bytes": 106 * MIB})


@pytest.mark.parametrize("limit_mb", [112, 80])
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
