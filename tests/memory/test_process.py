"""A job's way through its child: first plan, cap, probe, final plan, work; and what a death means at each station."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.jobs import ProfileJob, Resources
from lib.memory.process import Runner, run_job
from lib.reports import Report
from lib.units import MIB


@pytest.fixture(autouse=True)
def _small_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("engines")))


def _job(stem: str, limit_mb: int = 160, **resources: Any) -> ProfileJob:
    return ProfileJob(source=f"{stem}.tif", resources=Resources(limit_bytes=limit_mb * MIB, **resources))


def _refused_in_probe(report: Report, limit_mb: int) -> None:
    assert report.error is not None
    assert (report.status, report.exit_code, report.error.type) == ("refused", 137, "MemoryRefused")
    assert report.error.smallest_limit_mb is not None
    assert report.error.smallest_limit_mb > limit_mb
    assert f"needs a limit of at least {report.error.smallest_limit_mb} MiB" in report.error.message
    assert "were reached while its first chunks were measured" in report.error.message
    assert report.plan is not None
    assert (report.error.facts["reached_bytes"], report.result) == (report.memory.peak_bytes, {})


def test_a_job_is_planned_twice_and_capped_between() -> None:
    """First by its header, then, behind the probe, for good; the report has the latter, and no term of 0 bytes."""
    heard: list[tuple[str, Any]] = []
    report = run_job(_job("fits"), on_event=lambda event: heard.append((event["event"], event.get("final"))))
    assert (report.status, report.result) == ("completed", {"chunk_bytes": 64 * MIB})
    names = [each for each in heard if each[0] in {"ready", "planned", "capped", "baseline", "done"}]
    assert names == [
        ("ready", None), ("planned", False), ("capped", None), ("planned", True), ("baseline", None), ("done", None),
    ]  # fmt: skip
    assert report.plan is not None
    assert set(report.plan["terms"]) == {"fixed", "chunk"}
    assert 0 < report.seconds.startup < report.seconds.total


def test_what_the_probe_has_reached_is_in_the_final_plan() -> None:
    """A plan below the peak so far is held to it, with a term that says so."""
    report = run_job(_job("reaches_96"))
    assert report.status == "completed", report.error
    assert report.plan is not None
    assert report.plan["projected_bytes"] >= report.plan["baseline_bytes"] + 96 * MIB
    assert report.plan["terms"]["reached before"] >= 96 * MIB
    assert (report.memory.peak_bytes or 0) <= report.plan["projected_bytes"]


def test_a_plan_that_is_looked_at_is_probed_too() -> None:
    """`swath plan` runs no work, and says the final plan; what its probe cannot hold is refused the same way."""
    report = run_job(_job("reaches_96"), plan_only=True)
    assert (report.status, report.result) == ("planned", {})
    assert report.plan is not None
    assert "reached before" in report.plan["terms"]
    _refused_in_probe(run_job(_job("block_of_304"), plan_only=True), 160)


def test_a_probe_that_passes_the_limit_gets_a_smaller_plan() -> None:
    """The first rung of the ladder: 0.7 of the projection under the same limit; here that heals it."""
    before = run_job(_job("fits"))
    assert before.plan is not None
    # A child is 30 to 90 MiB large after its imports, as the page cache has its files.
    limit_mb = before.plan["baseline_bytes"] // MIB + 150
    report = run_job(_job("library_takes_thrice", limit_mb))
    assert report.status == "completed", report.error
    assert [each.outcome for each in report.attempts] == ["refused", "completed"]
    assert [each.limit_bytes for each in report.attempts] == [limit_mb * MIB] * 2
    assert report.result["chunk_bytes"] < 64 * MIB


@pytest.mark.parametrize("stem", ["block_of_304", "no_memory", "no_addresses"])
def test_a_probe_that_dies_of_memory_is_a_refusal(stem: str) -> None:
    """By the watchdog, by an allocator, by RLIMIT_AS; after the smaller plan has died as well, or was none."""
    report = run_job(_job(stem))
    _refused_in_probe(report, 160)
    assert [each.outcome for each in report.attempts] == ["refused", "refused"]


def test_a_smaller_plan_that_is_refused_leaves_what_the_first_said() -> None:
    """The smaller budget is the ladder's own: nobody is told that so much had been granted."""
    report = run_job(_job("stubborn_block_of_304"))
    _refused_in_probe(report, 160)
    assert [each.outcome for each in report.attempts] == ["refused", "refused"]
    assert "no room" not in str(report.error)


def test_the_ladder_climbs_to_the_highest_limit_that_is_allowed() -> None:
    """Higher limits follow the smaller plan, each at least what the probe before had reached."""
    report = run_job(_job("block_of_304", 160, limit_max_bytes=640 * MIB))
    assert report.status == "completed", report.error
    limits = [each.limit_bytes for each in report.attempts]
    assert limits[0] == 160 * MIB
    assert limits == sorted(limits)
    assert 300 * MIB < limits[-1] <= 640 * MIB


def test_a_refusal_in_a_used_child_is_tried_in_a_fresh_one() -> None:
    """A used child is larger: what it cannot do says nothing of the job."""
    with Runner() as runner:
        assert runner.run(_job("fits")).status == "completed"
        heard: list[str] = []
        report = runner.run(_job("no_memory"), on_event=lambda event: heard.append(event["event"]))
        assert heard.count("ready") >= 1
        _refused_in_probe(report, 160)
        assert runner.run(_job("fits")).status == "completed"


def test_a_final_plan_that_does_not_fit_is_refused_with_its_limit() -> None:
    """`settle` refuses: one attempt, as no smaller plan was asked for, and the limit that would do."""
    report = run_job(_job("needs_500"))
    assert report.error is not None
    assert (report.status, report.error.smallest_limit_mb, len(report.attempts)) == ("refused", 504, 1)
    assert "reached_bytes" not in report.error.facts


@pytest.mark.parametrize(
    ("culprit", "resources"),
    [
        ("margin_mb", {"margin_bytes": 400 * MIB}),
        ("threads", {"threads": 200}),
        ("chunk_rows", {"chunk_rows": 400_000, "chunk_rows_fixed": True}),
        ("host", {"limit_origin": "host", "limit_mb": 32}),
    ],
)
def test_a_refusal_names_what_takes_the_memory(culprit: str, resources: dict[str, Any]) -> None:
    """The setting without which it would fit, or the host that lowered the limit."""
    report = run_job(_job("fits", **resources))
    assert report.error is not None
    assert (report.status, report.error.facts["culprit"]) == ("refused", culprit)
    assert report.error.smallest_limit_mb


def test_a_header_larger_than_the_limit_is_refused_with_what_it_took() -> None:
    """Before the first plan only the start-up ceiling holds; the plan is held to what making it has reached."""
    report = run_job(_job("large_header"))
    assert report.error is not None
    assert (report.status, len(report.attempts)) == ("refused", 1)
    assert 300 < (report.error.smallest_limit_mb or 0) < 400


def test_memory_that_runs_out_in_the_work_is_exceeded() -> None:
    """Behind `settle` it is a death like any other, by the watchdog."""
    report = run_job(_job("grows_in_the_work"))
    assert report.error is not None
    assert (report.status, report.exit_code, report.error.type) == ("exceeded", 137, "MemoryExceeded")
    assert {each.outcome for each in report.attempts} == {"exceeded"}


@pytest.mark.parametrize(
    ("stem", "error", "resources"),
    [
        ("crashes", "ChildDied", {}),
        ("damaged", "DataError", {}),
        ("hangs", "ChildStalled", {"stall_seconds": 0.5}),
        ("hangs", "TimedOut", {"timeout_seconds": 2.0}),
        ("slow_to_open", "ChildStalled", {"startup_seconds": 1.5, "stall_seconds": 0.1}),
    ],
)
def test_what_is_no_memory_in_the_probe_stays_what_it_is(stem: str, error: str, resources: dict[str, Any]) -> None:
    """One attempt, exit 1; the start-up deadline holds until the first plan, the stall deadline from then on."""
    report = run_job(_job(stem, limit_max_bytes=1024 * MIB, **resources))
    assert report.error is not None
    assert (report.exit_code, report.error.type, len(report.attempts)) == (1, error, 1)
    assert (report.plan is None) == (stem == "slow_to_open")
    assert ("startup_seconds" in report.error.message) == (stem == "slow_to_open")


def test_a_failed_check_fails_the_job_after_its_work() -> None:
    """The engine only records its checks; the shell raises for the first that failed."""
    report = run_job(_job("wrong"))
    assert report.error is not None
    assert (report.exit_code, report.error.type, report.error.facts["check"]) == (1, "VerificationFailed", "sum")
    assert report.verification is not None
    assert [(each.name, each.passed) for each in report.verification.checks] == [("sum", False)]


def test_a_traceback_is_kept_beside_the_record() -> None:
    """For --debug it is there; no dump, no fact, no error rebuilt from JSON has it."""
    report = run_job(_job("damaged"))
    assert report.error is not None
    assert "small.py" in (report.error.traceback or "")
    assert "Traceback" not in json.dumps(report.to_record()) + report.model_dump_json()
    assert report.to_record(debug=True)["error"]["traceback"] == report.error.traceback
    assert report.error.to_error().traceback == report.error.traceback
