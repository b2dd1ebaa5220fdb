"""Job → Report inside a task's function: what is logged and what comes back. Children are real, the server is not needed."""

import logging

import pytest

from lib.errors import MemoryRefused
from lib.jobs import DriversJob, Resources
from lib.reports import Report
from lib.units import MIB
from tasks import capped as module
from tasks.capped import measured
from tasks.drivers import validate_drivers
from tasks.states import settled

_RESOURCES = Resources(limit_bytes=512 * MIB)


def test_a_task_function_returns_the_report() -> None:
    """Called outside a run, a task's function runs the child and returns its report."""
    report = settled(validate_drivers.fn(DriversJob(names=("GTiff",), create=("GTiff",), resources=_RESOURCES)))
    assert isinstance(report, Report)
    assert (report.status, report.exit_code) == ("completed", 0)
    assert report.memory.peak_bytes
    assert report.memory.peak_bytes < 512 * MIB


def test_too_small_a_limit_is_raised_by_settled() -> None:
    """A refused job's state carries the smallest limit that would do."""
    job = DriversJob(names=("GTiff",), resources=Resources(limit_bytes=20 * MIB))
    with pytest.raises(MemoryRefused) as raised:
        settled(validate_drivers.fn(job))
    assert raised.value.report.error.smallest_limit_mb > 20


def _say(monkeypatch: pytest.MonkeyPatch, *events: dict[str, object], fail: BaseException | None = None) -> None:
    def run_job(job, *, staged=None, plan_only=False, on_event=None):
        for event in events:
            on_event(event)
        if fail:
            raise fail
        return Report(status="completed", exit_code=0, job=job.model_dump(mode="json"), warnings=["stayed"])

    monkeypatch.setattr(module, "run_job", run_job)


def test_a_run_is_told_in_sentences(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No raw JSON: a failed check is an error in words, the child's words pass, warnings and the end come last; no secrets."""
    check = {"event": "check", "name": "counts", "passed": False, "detail": "3 of 4"}
    waiting = {"event": "waiting", "for": "memory", "bytes": 512 * MIB, "behind": 2}
    _say(monkeypatch, waiting, check, {"event": "stderr", "text": "one\ntwo AWS_SECRET_ACCESS_KEY=s3cr3t"})
    with caplog.at_level(logging.INFO, logger="swath"):
        measured(DriversJob(resources=_RESOURCES))
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said[:4] == [
        ("INFO", "waiting for 512.0 MiB of the host's memory budget, behind 2 job(s)"),
        ("ERROR", "check 'counts' FAILED: 3 of 4"),
        ("INFO", "child: one"),
        ("INFO", "child: two AWS_SECRET_ACCESS_KEY=***"),
    ]
    assert said[4] == ("WARNING", "stayed")
    assert said[5][1].startswith("drivers job done in ")
    assert not any("{" in words for _, words in said)


def test_a_cancelled_job_leaves_a_report_of_what_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancellation passes through, after an artifact with plan, baseline and samples so far."""
    emitted: list[Report] = []
    monkeypatch.setattr(module, "show", lambda report, _logger: emitted.append(report))
    plan = {"limit_bytes": 9, "projected_bytes": 8}
    _say(
        monkeypatch,
        {"event": "planned", "plan": plan, "final": False},
        {"event": "baseline", "resident_bytes": 70 * MIB, "chunks": 4},
        {
            "event": "allocators",
            "top": [{"location": "a:1", "size_bytes": 5, "blocks": 1}],
            "attribution": {"resident_bytes": 80 * MIB},
            "resident_bytes": 80 * MIB,
            "tracing_stopped": None,
        },
        fail=KeyboardInterrupt(),
    )
    with pytest.raises(KeyboardInterrupt):
        measured(DriversJob(resources=_RESOURCES))
    (report,) = emitted
    assert (report.status, report.exit_code, report.plan) == ("cancelled", 130, plan)
    assert report.memory.baseline_bytes == 70 * MIB
    assert [size for _, size in report.memory.samples] == [70 * MIB, 80 * MIB]
    assert report.memory.peak_bytes == 80 * MIB
    assert report.memory.top_allocators[0].location == "a:1"
