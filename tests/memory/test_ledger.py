"""Jobs share one budget, first come first served, and a dead holder gives its share back."""

import dataclasses
import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lib.errors import HostLimitError, SettingsError
from lib.memory.ledger import Disk, Entry, admission, admitted, entries
from lib.units import MIB

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from pathlib import Path
from lib.memory.ledger import Disk, admitted
place = admitted(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "holder")
place.promised(Disk.below(Path(sys.argv[1]), int(sys.argv[4])))
print("in", flush=True)
sys.stdin.read()
"""


def _holder(folder: Path, size: int, budget: int, disk: int = 0) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(size), str(budget), str(disk)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_what_fits_is_admitted_at_once(tmp_path: Path) -> None:
    """Two jobs that fit together run together, and nothing is left in the ledger afterwards."""
    with admission(tmp_path, 60 * MIB, 100 * MIB, "a"), admission(tmp_path, 40 * MIB, 100 * MIB, "b"):
        assert [(entry.label, entry.admitted) for entry in entries(tmp_path)] == [("a", True), ("b", True)]
    assert entries(tmp_path) == []
    assert list(tmp_path.glob("*.ticket")) == []


def test_a_killed_holder_gives_its_share_back(tmp_path: Path) -> None:
    """A job waits for one in another process, and is admitted when that one is killed with -9."""
    process = _holder(tmp_path, 80 * MIB, 100 * MIB)
    waited: list[str] = []

    def on_wait(before: list[object]) -> None:
        waited.extend(entry.label for entry in before)
        _end(process)

    with admission(tmp_path, 50 * MIB, 100 * MIB, "late", on_wait):
        assert waited == ["holder"]
        assert [entry.label for entry in entries(tmp_path)] == ["late"]


def test_a_small_job_does_not_overtake_a_large_one(tmp_path: Path) -> None:
    """First come, first served: what would fit waits behind what came before it and does not."""
    process = _holder(tmp_path, 60 * MIB, 100 * MIB)
    order: list[str] = []
    large_waits, small_waits = threading.Event(), threading.Event()

    def run(label: str, size: int, waits: threading.Event) -> None:
        with admission(tmp_path, size, 100 * MIB, label, lambda _: waits.set()):
            order.append(label)

    large = threading.Thread(target=run, args=("large", 90 * MIB, large_waits))
    large.start()
    assert large_waits.wait(10)
    small = threading.Thread(target=run, args=("small", 20 * MIB, small_waits))
    small.start()
    assert small_waits.wait(10), "the small job fits beside the holder, yet must wait"
    assert order == []
    _end(process)
    large.join(10)
    small.join(10)
    assert order == ["large", "small"]


def test_more_than_the_whole_budget_is_said_beforehand(tmp_path: Path) -> None:
    """A job that could never be admitted does not wait for ever."""
    with pytest.raises(HostLimitError, match="host_budget_mb"), admission(tmp_path, 2 * MIB, MIB, "too large"):
        pass


def test_what_is_no_ticket_is_left_alone(tmp_path: Path) -> None:
    """Files that only look like numbers are neither read nor removed."""
    for name in ("\N{SUPERSCRIPT TWO}3.ticket", "x.ticket", "-1.ticket"):
        (tmp_path / name).write_text("no ticket")
    with admission(tmp_path, MIB, MIB, "a"):
        assert [entry.label for entry in entries(tmp_path)] == ["a"]
    assert len(list(tmp_path.glob("*.ticket"))) == 3


@pytest.mark.parametrize("content", ["", "no ticket", "[]", '{"bytes": "many"}'])
def test_a_held_ticket_that_cannot_be_read_is_an_error(tmp_path: Path, content: str) -> None:
    """Nobody knows what it takes: the budget is not handed out as if it were nothing."""
    path = tmp_path / "7.ticket"
    path.write_text(content)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match=r"7\.ticket"), admission(tmp_path, MIB, MIB, "a"):
            pass
    with admission(tmp_path, MIB, MIB, "a"):  # its holder is gone
        assert not path.exists()


@dataclasses.dataclass(frozen=True, slots=True)
class _Disk(Disk):
    """A disk of the test's: its free bytes are what the test says."""

    free: dict[int, int] = dataclasses.field(default_factory=dict)

    @property
    def free_bytes(self) -> int:
        return self.free[self.device]


# Label, MiB, device.
_ASKED = (("1st", 70, 1), ("2nd", 60, 1), ("3rd", 20, 1), ("other", 90, 2))


def test_disk_that_is_promised_is_not_promised_twice(tmp_path: Path) -> None:
    """Two jobs that each fit, but not together, follow each other, in their order; on another file system nobody waits."""
    free = {1: 100 * MIB, 2: 100 * MIB}
    first, second, third, other = (admitted(tmp_path, MIB, 100 * MIB, name) for name in ("1st", "2nd", "3rd", "other"))
    disks = {name: _Disk(size * MIB, tmp_path, device, free) for name, size, device in _ASKED}
    assert first.promise(disks["1st"]) == []
    assert [entry.label for entry in second.promise(disks["2nd"])] == ["1st"]
    assert [entry.label for entry in third.promise(disks["3rd"])] == ["1st", "2nd"], "it would fit, and must wait"
    assert other.promise(disks["other"]) == []
    assert [entry.has_disk for entry in entries(tmp_path)] == [True, False, False, True]
    free[1] = 30 * MIB  # what was written by the first
    first.leave()
    assert [entry.label for entry in third.promise(disks["3rd"])] == ["2nd"]
    assert second.promise(disks["2nd"]) == [], "nobody writes there: its own plan decides"
    assert [entry.label for entry in third.promise(disks["3rd"])] == ["2nd"]
    second.release_disk()
    assert third.promise(disks["3rd"]) == []
    assert [(entry.label, entry.disk_bytes // MIB) for entry in entries(tmp_path)] == [
        ("2nd", 0), ("3rd", 20), ("other", 90),
    ]  # fmt: skip
    for place in (second, third, other):
        place.leave()


def test_a_killed_holder_gives_its_disk_back(tmp_path: Path) -> None:
    """Who waits is told for whom, once, and goes on as soon as that one is killed with -9."""
    size = Disk.below(tmp_path, 0).free_bytes
    process = _holder(tmp_path, MIB, 100 * MIB, size)
    waited: list[str] = []

    def on_wait(before: list[Entry]) -> None:
        waited.extend(entry.label for entry in before)
        _end(process)

    place = admitted(tmp_path, MIB, 100 * MIB, "late")
    place.promised(Disk.below(tmp_path, size // 2), on_wait)
    assert waited == ["holder"]
    assert [(entry.label, entry.disk_bytes, entry.has_disk) for entry in entries(tmp_path)] == [
        ("late", size // 2, True)
    ]
    place.leave()


def test_patience_ends_the_waiting_for_disk(tmp_path: Path) -> None:
    """What it raises comes out; the place is its owner's to leave."""
    disk = _Disk(60 * MIB, tmp_path, 1, {1: 100 * MIB})
    first, second = admitted(tmp_path, MIB, 100 * MIB, "first"), admitted(tmp_path, MIB, 100 * MIB, "second")
    first.promised(disk, pytest.fail)

    def patience() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        second.promised(disk, patience=patience)
    second.leave()
    first.leave()


def test_an_older_versions_ticket_says_nothing_of_disk(tmp_path: Path) -> None:
    """It is read, and nobody waits for what it does not say."""
    (tmp_path / "3.ticket").write_text('{"bytes": 1048576, "admitted": true, "pid": 1, "label": "old"}')
    with (tmp_path / "3.ticket").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        place = admitted(tmp_path, MIB, 100 * MIB, "new")
        assert place.promise(_Disk(60 * MIB, tmp_path, 1, {1: 0})) == []
        assert [(entry.label, entry.disk_bytes, entry.device) for entry in entries(tmp_path)] == [
            ("old", 0, None), ("new", 60 * MIB, 1),
        ]  # fmt: skip
        place.leave()
