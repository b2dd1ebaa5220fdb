"""What the host leaves, read from fake `/proc` and `/sys` trees: physical memory, cgroup v1, cgroup v2."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lib.errors import HostLimitError
from lib.memory.budget import HostMemory, grant_limit, host_memory
from lib.memory.ledger import Entry, admission, entries
from lib.memory.proc import MARK
from lib.settings import load_settings
from lib.units import MIB

GIB = 1024 * MIB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with 16 GiB, 12 of them available, and no cgroups."""
    _write(tmp_path / "proc/meminfo", f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n")
    return tmp_path


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of our own: jobs that happen to run on this host are none of these tests' business."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"swath-ledger-{os.getuid()}"


@pytest.fixture
def child() -> Iterator[psutil.Process]:
    """A child of this process that does a job, and holds 60 MiB."""
    program = "held = bytearray(60 * 2**20); print('held', flush=True); input()"
    command, env = [sys.executable, "-c", program], os.environ | {MARK: "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield psutil.Process(process.pid)
        process.kill()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _v2(root: Path, group: str, limit: int | str, usage: int, inactive: int = 0) -> None:
    mount = root / "sys/fs/cgroup"
    _write(mount / "cgroup.controllers", "cpu memory\n")
    _write(root / "proc/self/cgroup", f"0::{group}\n")
    folder = mount / group.lstrip("/")
    _write(folder / "memory.max", f"{limit}\n")
    _write(folder / "memory.current", f"{usage}\n")
    _write(folder / "memory.stat", f"anon 1\ninactive_file {inactive}\n")


def _v1(root: Path, group: str, limit: int, usage: int, inactive: int = 0, *, folder: str | None = None) -> None:
    _write(root / "proc/self/cgroup", f"12:cpu,cpuacct:/other\n5:memory:{group}\n")
    mount = root / "sys/fs/cgroup/memory" / (group if folder is None else folder).lstrip("/")
    _write(mount / "memory.limit_in_bytes", f"{limit}\n")
    _write(mount / "memory.usage_in_bytes", f"{usage}\n")
    _write(mount / "memory.stat", f"total_inactive_file {inactive}\n")


def test_without_cgroups_physical_memory_is_the_bound(root: Path) -> None:
    """MemTotal and MemAvailable, in bytes."""
    assert host_memory(root) == HostMemory(16 * GIB, 12 * GIB, "physical")


def test_a_cgroup_v2_limit_is_the_bound(root: Path) -> None:
    """A container's memory.max; what its page cache could give back counts as available."""
    _v2(root, "/", GIB, 600 * MIB, inactive=500 * MIB)
    assert host_memory(root) == HostMemory(GIB, GIB - 100 * MIB, "cgroup v2")


def test_what_can_be_freed_is_available(root: Path) -> None:
    """Of 950 MiB used, 850 are page cache in use lately and kernel caches: the kernel frees them for whoever asks."""
    _v2(root, "/", GIB, 950 * MIB, inactive=50 * MIB)
    with (root / "sys/fs/cgroup/memory.stat").open("a") as stat:
        stat.write(f"active_file {700 * MIB}\nslab_reclaimable {100 * MIB}\nslab_unreclaimable {20 * MIB}\n")
    assert host_memory(root).available_bytes == GIB - 100 * MIB


def test_what_can_be_freed_is_available_under_v1(root: Path) -> None:
    """The same with v1's hierarchical counts."""
    _v1(root, "/docker/abc", GIB, 950 * MIB, inactive=50 * MIB)
    with (root / "sys/fs/cgroup/memory/docker/abc/memory.stat").open("a") as stat:
        stat.write(f"active_file 1\ntotal_active_file {800 * MIB}\n")
    assert host_memory(root).available_bytes == GIB - 100 * MIB


@pytest.mark.parametrize(("high", "total"), [(str(GIB), GIB), ("max", 2 * GIB), (str(3 * GIB), 2 * GIB)])
def test_memory_high_bounds_too(root: Path, high: str, total: int) -> None:
    """Past memory.high the kernel slows a group down until it stands still: the lower of it and memory.max counts."""
    _v2(root, "/", 2 * GIB, 0)
    _write(root / "sys/fs/cgroup/memory.high", high + "\n")
    assert host_memory(root).total_bytes == total


def test_a_hybrid_hosts_v2_is_found(root: Path) -> None:
    """Beside v1 the v2 tree is mounted at `unified`; its memory counts where the controller is there."""
    _write(root / "proc/self/cgroup", "5:cpu:/other\n0::/unit\n")
    unified = root / "sys/fs/cgroup/unified"
    _write(unified / "cgroup.controllers", "memory\n")
    _write(unified / "unit/memory.max", f"{GIB}\n")
    _write(unified / "unit/memory.current", f"{100 * MIB}\n")
    assert host_memory(root) == HostMemory(GIB, GIB - 100 * MIB, "cgroup v2")


def test_a_limit_whose_usage_cannot_be_read_is_a_limit(root: Path) -> None:
    """Nothing is known to be used of it; it does not count as no limit."""
    _v2(root, "/", GIB, 0)
    (root / "sys/fs/cgroup/memory.current").unlink()
    assert host_memory(root) == HostMemory(GIB, GIB, "cgroup v2")


def test_malformed_lines_are_passed_over(root: Path) -> None:
    """A line of /proc/self/cgroup without its colons, a blank one in memory.stat: the others count."""
    _v2(root, "/unit", GIB, 600 * MIB)
    _write(root / "proc/self/cgroup", "\nodd\n7:\n0::/unit\n")
    _write(root / "sys/fs/cgroup/unit/memory.stat", f"\n\nanon\ninactive_file {500 * MIB}\n")
    assert host_memory(root) == HostMemory(GIB, GIB - 100 * MIB, "cgroup v2")


def test_the_tightest_of_nested_groups_counts(root: Path) -> None:
    """A limit on a group above ours holds us as well."""
    _v2(root, "/slice", 2 * GIB, 0)
    _v2(root, "/slice/unit", 3 * GIB, 0)
    assert host_memory(root).total_bytes == 2 * GIB


def test_the_least_total_and_the_least_left_may_be_of_different_bounds(root: Path) -> None:
    """An empty cgroup of 8 GiB on a host with 500 MiB available leaves 500 MiB, and so does one below a full parent."""
    _v2(root, "/", 8 * GIB, 0)
    _write(root / "proc/meminfo", f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {500 * 1024} kB\n")
    assert host_memory(root) == HostMemory(8 * GIB, 500 * MIB, "cgroup v2")
    _write(root / "proc/meminfo", f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n")
    _v2(root, "/slice", 9 * GIB, 9 * GIB - 100 * MIB)
    _v2(root, "/slice/unit", 8 * GIB, 0)
    assert host_memory(root).available_bytes == 100 * MIB


def test_the_ladder_climbs_no_higher_than_the_host() -> None:
    """What memory_limit_max_mb asks for is cut to the budget, and a shared budget above the host is an error."""
    host = HostMemory(16 * GIB, 12 * GIB, "physical")
    assert grant_limit(load_settings(given={"memory_limit_mb": 256}, environ={}), host).budget_bytes == 12 * GIB
    with pytest.raises(HostLimitError, match="host_budget_mb"):
        grant_limit(load_settings(given={"host_budget_mb": 9_000_000}, environ={}), host)


def test_max_is_no_limit(root: Path) -> None:
    """memory.max of `max` leaves physical memory as the bound."""
    _v2(root, "/unit", "max", GIB)
    assert host_memory(root).bound == "physical"


def test_a_cgroup_v1_limit_is_the_bound(root: Path) -> None:
    """memory.limit_in_bytes of the memory controller's own group, not another controller's."""
    _v1(root, "/docker/abc", 2 * GIB, GIB, inactive=512 * MIB)
    assert host_memory(root) == HostMemory(2 * GIB, 2 * GIB - 512 * MIB, "cgroup v1")


def test_in_a_container_the_group_may_be_the_mount(root: Path) -> None:
    """Inside a container the path in /proc is the host's: the limit stands at the mount itself."""
    _v1(root, "/docker/abc", 2 * GIB, GIB, folder="/")
    assert host_memory(root).total_bytes == 2 * GIB


def test_cgroup_v1s_no_limit_is_none(root: Path) -> None:
    """v1 writes "no limit" as the largest multiple of a page below 2**63."""
    _v1(root, "/", 9223372036854771712, GIB)
    assert host_memory(root).bound == "physical"


@pytest.mark.parametrize("text", ["", "garbage\n", "-\n"])
def test_a_file_that_says_nothing_is_passed_over(root: Path, text: str) -> None:
    """Unreadable numbers bound nothing."""
    _v2(root, "/", GIB, 0)
    (root / "sys/fs/cgroup/memory.max").write_text(text)
    assert host_memory(root).bound == "physical"


def test_usage_above_the_limit_leaves_nothing(root: Path) -> None:
    """Available memory is never negative."""
    _v2(root, "/", GIB, 2 * GIB)
    assert host_memory(root).available_bytes == 0


@pytest.mark.parametrize(
    ("total", "available", "fraction", "budget"),
    [
        (32 * GIB, 32 * GIB, 0.25, 24 * GIB),  # the source text's 8 of 32 GB
        (32 * GIB, 10 * GIB, 0.25, 10 * GIB),  # what is not there cannot be had
        (512 * MIB, 512 * MIB, 0.25, 256 * MIB),  # the reserve is at least 256 MiB
        (200 * MIB, 200 * MIB, 0.25, 0),
        (4 * GIB, 4 * GIB, 0.0, 4 * GIB - 256 * MIB),
    ],
)
def test_the_budget_leaves_the_reserve(total: int, available: int, fraction: float, budget: int) -> None:
    """What is available, and never the reserve: a share of the total, at least 256 MiB."""
    assert HostMemory(total, available, "physical").budget_bytes(fraction) == budget


def test_a_default_limit_is_lowered_to_the_host() -> None:
    """In a 1 GiB container the default of 2048 MiB becomes what the host leaves, with origin "host"."""
    grant = grant_limit(load_settings(environ={}), HostMemory(GIB, 900 * MIB, "cgroup v2"))
    assert grant == (768 * MIB, "host", 768 * MIB)


def test_a_limit_that_fits_is_granted_as_it_is() -> None:
    """Its origin is the layer that chose it."""
    host = HostMemory(16 * GIB, 12 * GIB, "physical")
    assert grant_limit(load_settings(given={"memory_limit_mb": 256}, environ={}), host)[:2] == (256 * MIB, "flag")
    assert grant_limit(load_settings(environ={}), host)[:2] == (2048 * MIB, "default")


@pytest.mark.parametrize("layer", ["flag", "environment"])
def test_an_explicit_limit_above_the_host_is_an_error(layer: str) -> None:
    """Whoever chose it is told by how much, exit 2; it is not lowered in silence."""
    given = {"memory_limit_mb": 4096} if layer == "flag" else {}
    environ = {"BATCH_MEMORY_LIMIT_MB": "4096"} if layer == "environment" else {}
    with pytest.raises(HostLimitError, match="4096 MiB") as caught:
        grant_limit(load_settings(given=given, environ=environ), HostMemory(GIB, GIB, "cgroup v1"))
    assert layer in caught.value.message
    assert "cgroup v1" in caught.value.message
    assert caught.value.exit_code == 2
    assert caught.value.budget_bytes == 768 * MIB


def test_what_jobs_hold_is_theirs_to_share(child: psutil.Process) -> None:
    """The pages of an admitted job's child are not available, and yet of the budget; a waiting job's are not counted."""
    host = HostMemory(16 * GIB, 4 * GIB, "physical")
    admitted, waiting = (Entry(1, 256 * MIB, admitted, os.getpid(), "job") for admitted in (True, False))
    assert host.budget_bytes(0.25, [waiting]) == 4 * GIB
    shared = host.budget_bytes(0.25, [admitted])
    # Other children of this process, such as a test server, are held to what the job was granted.
    assert 60 * MIB <= child.memory_info().rss <= shared - 4 * GIB <= 256 * MIB


def test_a_job_counts_for_no_more_than_it_was_granted(child: psutil.Process) -> None:
    """Whatever else its owner has started."""
    host = HostMemory(16 * GIB, 4 * GIB, "physical")
    assert (
        host.budget_bytes(0.25, [Entry(1, 5 * MIB, admitted=True, pid=os.getpid(), label="job")]) == 4 * GIB + 5 * MIB
    )


def test_what_the_owners_take_goes_off(child: psutil.Process) -> None:
    """Each owner's own process, once, whether its jobs run or wait: a flow's interpreter is no part of a job's limit."""
    host = HostMemory(16 * GIB, 16 * GIB, "physical")
    sharing = [Entry(number, MIB, number == 1, child.pid, "job") for number in (1, 2, 3)]
    assert host.budget_bytes(0.25, sharing) == pytest.approx(12 * GIB - child.memory_info().rss, abs=MIB)


def test_twenty_runs_of_the_default_limit_do_not_start_at_once(ledger: Path) -> None:
    """On a host of 24 GiB with a reserve of a quarter eight are admitted: nine would leave nothing for their owners."""
    host = HostMemory(24 * GIB, 22 * GIB, "physical")
    together, most, changed, release = [0], [0], threading.Condition(), threading.Event()

    def run(number: int) -> None:
        with admission(ledger, 2048 * MIB, lambda sharing: host.budget_bytes(0.25, sharing), f"run {number}"):
            with changed:
                together[0] += 1
                most[0] = max(most[0], together[0])
                changed.notify_all()
            release.wait(30)
            with changed:
                together[0] -= 1

    runs = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for each in runs:
        each.start()
    with changed:
        assert changed.wait_for(lambda: together[0] == 8, timeout=30)
    while len(entries(ledger)) < len(runs):
        assert all(each.is_alive() for each in runs)
    release.set()
    for each in runs:
        each.join(30)
    assert most[0] == 8
    assert entries(ledger) == []


def test_a_default_limit_is_not_lowered_because_jobs_run(ledger: Path, child: psutil.Process) -> None:
    """What they hold is shared: a further job waits for its turn and gets the whole default."""
    host = HostMemory(4 * GIB, 2048 * MIB - 30 * MIB, "physical")
    assert grant_limit(load_settings(environ={}), host).origin == "host"
    with admission(ledger, 512 * MIB, 3 * GIB, "running"):
        assert grant_limit(load_settings(environ={}), host)[:2] == (2048 * MIB, "default")
    unshared = load_settings(given={"host_budget_mb": "off"}, environ={})
    with admission(ledger, 512 * MIB, 3 * GIB, "running"):
        assert grant_limit(unshared, host).origin == "host"
