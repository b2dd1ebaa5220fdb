"""A refusal of one step is told for all of them."""

import pytest

from flows.steps import _for_all_steps
from lib.errors import MemoryRefused
from lib.jobs import RasterJob, Resources
from lib.reports import Report
from lib.units import MIB


@pytest.mark.parametrize(
    ("facts", "hint"), [({}, "raise the memory limit to 128 MiB"), ({"culprit": "threads"}, "lower threads")]
)
def test_a_step_s_refusal_names_the_limit_for_all_or_the_culprit(
    facts: dict[str, str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest of the steps' smallest limits; where a setting takes the memory, that is still what is told."""
    job = RasterJob(source="a.tif", destination="b.tif", resources=Resources(limit_bytes=MIB))
    refused = MemoryRefused("too small", hint="lower threads", smallest_limit_bytes=100 * MIB, **facts)
    refused.report = Report.of_error(refused)
    plan = Report.of_error(MemoryRefused("too small", smallest_limit_bytes=120 * MIB))
    monkeypatch.setattr("flows.steps.run_job", lambda *_, **__: plan)
    told = _for_all_steps(refused, job, profile=True)
    assert (told.hint, told.smallest_limit_bytes) == (hint, 128 * MIB)
