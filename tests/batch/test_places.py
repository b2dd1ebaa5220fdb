"""Places in the ledger that are kept between jobs, and children that are kept with them."""

import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from lib.jobs import ProfileJob, RasterJob, Resources
from lib.memory import process
from lib.memory.ledger import Disk, admission, admitted, entries
from lib.memory.process import Runner
from lib.operations import Normalise
from lib.run import run_published
from lib.units import MIB
from tests.batch.conftest import is_normalised, write_tile

BUDGET = 400 * MIB


def test_a_place_is_left_for_the_next_at_once_where_there_is_room(tmp_path: Path) -> None:
    """The old place does not count against the new one, and nobody hears of a wait."""
    first = admitted(tmp_path, 80 * MIB, 100 * MIB, "first")
    second = admitted(tmp_path, 90 * MIB, 100 * MIB, "second", pytest.fail, instead_of=first)
    assert [(each.label, each.admitted) for each in entries(tmp_path)] == [("second", True)]
    second.leave()
    second.leave()
    assert list(tmp_path.glob("*.ticket")) == []


def test_a_place_is_left_first_where_the_next_must_wait(tmp_path: Path) -> None:
    """Behind another's job: what our old place held is let go, then given up, then we wait; no two wait for each other."""
    other = admitted(tmp_path, 50 * MIB, 100 * MIB, "other")
    ours = admitted(tmp_path, 40 * MIB, 100 * MIB, "ours")
    seen: list[list[str]] = []

    def wait(before: list[Any]) -> None:
        seen.append([each.label for each in entries(tmp_path)])

    def patience() -> None:
        seen.append([each.label for each in entries(tmp_path)])
        other.leave()

    admitted(
        tmp_path, 60 * MIB, 100 * MIB, "next", wait, instead_of=ours, patience=patience
    ).leave()  # fmt: skip
    assert seen == [["other", "ours", "next"], ["other", "next"]]


def test_an_old_place_does_not_overtake_who_waits(tmp_path: Path) -> None:
    """First come, first served: a place of ours is no right to the next one."""
    ours = admitted(tmp_path, 80 * MIB, 100 * MIB, "ours")
    waits, order = threading.Event(), list[str]()

    def large() -> None:
        with admission(tmp_path, 90 * MIB, 100 * MIB, "large", lambda _: waits.set()):
            order.append("large")

    thread = threading.Thread(target=large)
    thread.start()
    assert waits.wait(10)
    admitted(tmp_path, 20 * MIB, 100 * MIB, "small", instead_of=ours).leave()
    order.append("small")
    thread.join(10)
    assert order == ["large", "small"]


def test_patience_ends_the_waiting_and_leaves_nothing(tmp_path: Path) -> None:
    """What it raises comes out, and the ticket is gone."""
    other = admitted(tmp_path, 80 * MIB, 100 * MIB, "other")

    def patience() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        admitted(tmp_path, 50 * MIB, 100 * MIB, "impatient", patience=patience)
    assert [each.label for each in entries(tmp_path)] == ["other"]
    other.leave()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger of the test's own."""
    return tmp_path / "ledger"


def _raster(tmp_path: Path, ledger: Path, name: str, limit_mb: int = 180, **choices: Any) -> RasterJob:
    write_tile(tmp_path / f"{name}.tif")
    return RasterJob(
        source=str(tmp_path / f"{name}.tif"),
        destination=str(tmp_path / f"{name}-out.tif"),
        operation=Normalise(),
        resources=Resources(limit_bytes=limit_mb * MIB, host_budget_bytes=BUDGET, ledger_path=ledger, threads=1),
        **choices,
    )


def test_a_child_and_its_place_are_kept_between_jobs(tmp_path: Path, ledger: Path) -> None:
    """The next job of another size takes the same child, in a place of its own size; in the end there is neither."""
    with Runner(keeps=True) as runner:
        assert run_published(_raster(tmp_path, ledger, "a"), runner=runner).ok
        pid, [kept] = runner.pid, entries(ledger)
        assert (kept.admitted, kept.bytes) == (True, 180 * MIB)
        assert run_published(_raster(tmp_path, ledger, "b", 200), runner=runner).ok
        assert runner.pid == pid
        assert [each.bytes for each in entries(ledger)] == [200 * MIB]
    assert entries(ledger) == []
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_a_full_verification_is_the_same_childs(tmp_path: Path, ledger: Path) -> None:
    """What it has written it verifies, in the same place."""
    pids: set[int | None] = set()
    with Runner(keeps=True) as runner:
        report = run_published(
            _raster(tmp_path, ledger, "a", verify="full"), lambda _: pids.add(runner.pid), runner=runner
        )
        assert (report.ok, len(pids), len(entries(ledger))) == (True, 1, 1)
    assert report.verification is not None
    assert report.verification.level == "full"
    assert is_normalised(tmp_path / "a.tif", tmp_path / "a-out.tif")


def test_a_child_is_closed_before_its_next_job_waits(tmp_path: Path, ledger: Path) -> None:
    """While others hold the budget it would hold memory that is nobody's; its ticket stands alone in the queue."""
    seen: list[tuple[int | None, list[bool]]] = []
    with Runner(keeps=True) as runner:
        assert run_published(_raster(tmp_path, ledger, "a"), runner=runner).ok
        first = runner.pid
        assert first is not None
        other = admitted(ledger, 200 * MIB, BUDGET, "other")

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "waiting":
                seen.append((runner.pid, [psutil.pid_exists(first)]))
                other.leave()

        assert run_published(_raster(tmp_path, ledger, "b", 210), hear, runner=runner).ok
        assert runner.pid != first
    assert seen == [(None, [False])]


def test_a_child_that_died_keeps_no_place(tmp_path: Path, ledger: Path) -> None:
    """A kill of the child ends its place; the next job has a new one."""
    with Runner(keeps=True) as runner:
        killed = run_published(
            _raster(tmp_path, ledger, "a"),
            lambda event: runner.kill() if event["event"] == "planned" else None,
            runner=runner,
        )
        assert (killed.ok, runner.pid, entries(ledger)) == (False, None, [])
        assert run_published(_raster(tmp_path, ledger, "b"), runner=runner).ok


def test_a_worn_child_is_renewed(tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with residue above the tolerance, and one that has taken its share of jobs."""
    monkeypatch.setattr(process, "_JOBS_PER_CHILD", 2)
    pids = []
    with Runner(keeps=True) as runner:
        for name in ("a", "b", "c"):
            assert run_published(_raster(tmp_path, ledger, name), runner=runner).ok
            pids.append(runner.pid)
        assert pids[0] == pids[1] != pids[2]
        worn = _raster(tmp_path, ledger, "d")
        worn = worn.model_copy(update={"resources": worn.resources.model_copy(update={"residual_tolerance_bytes": 0})})
        report = run_published(worn, runner=runner)
        assert report.ok
        if (report.memory.residual_bytes or 0) > 0:
            assert (runner.pid, entries(ledger)) == (None, [])


def test_without_keeping_nothing_is_held_between_jobs(tmp_path: Path, ledger: Path) -> None:
    """As flows and single jobs do: no child and no place."""
    with Runner() as runner:
        assert run_published(_raster(tmp_path, ledger, "a"), runner=runner).ok
        assert (runner.pid, entries(ledger)) == (None, [])


def test_a_header_is_looked_at_without_a_place(tmp_path: Path, ledger: Path) -> None:
    """Many plans by one child, each by the header alone; a source that is none is a report like any other."""
    with Runner() as runner:
        first = runner.foresee(_raster(tmp_path, ledger, "a"))
        pid = runner.pid
        assert (first.status, entries(ledger)) == ("planned", [])
        assert first.plan is not None
        assert first.plan["projected_bytes"] > first.plan["disk_bytes"] > 0
        broken = _raster(tmp_path, ledger, "b")
        Path(broken.source).write_bytes(b"no raster")
        assert runner.foresee(broken).exit_code == 2
        assert runner.foresee(_raster(tmp_path, ledger, "c")).status == "planned"
        assert runner.pid == pid
        small = runner.foresee(_raster(tmp_path, ledger, "d", limit_mb=8))
        assert (small.status, small.exit_code) == ("refused", 137)


def test_jobs_that_fit_on_a_disk_alone_follow_each_other(tmp_path: Path, ledger: Path) -> None:
    """One waits behind its plan for whoever was promised the disk, says so, and is planned anew; afterwards it holds none."""
    free = Disk.below(tmp_path, 0).free_bytes
    other = admitted(ledger, MIB, BUDGET, "other")
    other.promised(Disk.below(tmp_path, 2 * free))
    heard: list[dict[str, Any]] = []
    staged: list[list[str]] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append(event)
        if event["event"] == "waiting":
            staged.append([each.name for each in (tmp_path / ".a-out.tif.swath").iterdir() if each.suffix == ".tif"])
            other.leave()

    job = _raster(tmp_path, ledger, "a", verify="full")
    job = job.model_copy(update={"resources": job.resources.model_copy(update={"timeout_seconds": 60.0})})
    with Runner(keeps=True) as runner:
        assert run_published(job, hear, runner=runner).ok
        [kept] = entries(ledger)
        assert (kept.admitted, kept.disk_bytes, kept.has_disk) == (True, 0, False)
    names = [event["event"] for event in heard]
    assert names.index("waiting") < names.index("planned")
    [waiting] = [event for event in heard if event["event"] == "waiting"]
    plan = next(event["plan"] for event in heard if event["event"] == "planned")
    assert waiting == {"event": "waiting", "for": "disk", "bytes": plan["disk_bytes"], "behind": 1}
    assert staged == [[]], "nothing was written before"
    assert is_normalised(tmp_path / "a.tif", tmp_path / "a-out.tif")
    assert entries(ledger) == []


def test_what_was_written_meanwhile_is_no_longer_free(
    tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has waited decides by what is free then: it is refused before it writes, and its place is gone."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("full")))
    other = admitted(ledger, MIB, BUDGET, "other")
    other.promised(Disk.below(tmp_path, 2 * Disk.below(tmp_path, 0).free_bytes))

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "waiting":
            (tmp_path / "full").touch()
            other.leave()

    report = run_published(_raster(tmp_path, ledger, "a"), hear)
    assert report.error is not None
    assert (report.error.type, report.exit_code) == ("DiskRefused", 1)
    assert "has 0 B free" in report.error.message
    assert (entries(ledger), (tmp_path / "a-out.tif").exists()) == ([], False)


@pytest.fixture
def _small_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(process.__file__).parents[2] / "tests" / "memory" / "engines"))


@pytest.mark.usefixtures("_small_engine")
def test_a_job_that_climbs_waits_behind_who_waits(ledger: Path) -> None:
    """It leaves its place with its child, and gets a larger one when its turn comes, within the budget."""
    resources = Resources(
        limit_bytes=160 * MIB, limit_max_bytes=390 * MIB, host_budget_bytes=BUDGET, ledger_path=ledger
    )
    other = admitted(ledger, 100 * MIB, BUDGET, "other")
    held: list[int] = []
    waited: list[list[str]] = []

    def hear(event: dict[str, Any]) -> None:
        held.append(sum(each.bytes for each in entries(ledger) if each.admitted))
        if event["event"] == "waiting":
            waited.append([each.label for each in entries(ledger)])
            other.leave()

    with Runner(keeps=True) as runner:
        report = runner.run(ProfileJob(source="block_of_304.tif", resources=resources), on_event=hear)
    assert report.ok, report.error
    assert report.attempts[0].limit_bytes == 160 * MIB
    assert report.attempts[-1].limit_bytes > 304 * MIB
    assert waited == [["other", "profile block_of_304.tif"]]
    assert max(held) <= BUDGET
    assert entries(ledger) == []
