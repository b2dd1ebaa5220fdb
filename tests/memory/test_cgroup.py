"""The cgroup v2 leaf, on a fake tree: this machine delegates none, so that the kernel's part is not tested here."""

from pathlib import Path

import pytest

from lib.errors import SettingsError
from lib.jobs import DriversJob, Resources
from lib.memory.process import run_job
from lib.units import MIB


def _job(parent: Path) -> DriversJob:
    return DriversJob(names=("GTiff",), resources=Resources(limit_bytes=400 * MIB, cgroup_parent=parent))


def test_the_child_enters_its_leaf_and_limits_it(tmp_path: Path) -> None:
    """A leaf is made below cgroup_parent, holds the child's pid and the limit without swap, and is named in the report."""
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    report = run_job(_job(tmp_path))
    assert report.status == "completed", report.error
    (leaf,) = [each for each in tmp_path.iterdir() if each.is_dir()]
    assert (leaf / "cgroup.procs").read_text().isdigit()
    assert (leaf / "memory.max").read_text() == str(400 * MIB)
    assert (leaf / "memory.swap.max").read_text() == "0"
    assert (leaf / "memory.oom.group").read_text() == "1"
    assert report.memory.cap is not None
    assert "cgroup v2" in report.memory.cap.mechanism


@pytest.mark.parametrize("control", [None, "cpu io\n"])
def test_a_folder_that_is_not_delegated_is_a_setting_that_cannot_be_used(tmp_path: Path, control: str | None) -> None:
    """Without the memory controller handed down, the error names cgroup_parent."""
    if control is not None:
        (tmp_path / "cgroup.subtree_control").write_text(control)
    with pytest.raises(SettingsError, match="cgroup_parent"):
        run_job(_job(tmp_path))
