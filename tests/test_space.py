"""The disk is looked at while the staged file grows: what cannot fit ends early, in one line."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from lib import space
from lib.errors import OutputError
from lib.units import MIB


class _Usage(NamedTuple):
    free: int


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A staged file of 8 MiB, which is looked at each time."""
    monkeypatch.setattr(space, "_EVERY_SECONDS", 0)
    (tmp_path / "out.tif").write_bytes(bytes(8 * MIB))
    return tmp_path / "out.tif"


@pytest.mark.parametrize(
    ("free_mib", "done", "ends"),
    [(1, 2, True), (1, 8, False), (3, 2, False), (1, 10, False), (1, 0, False)],
    ids=["24 MiB to come, 1 free", "2 to come", "a quarter and more is free", "done", "nothing done yet"],
)
def test_it_ends_where_little_is_free_and_much_to_come(
    staged: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, done: int, ends: bool
) -> None:
    """With 8 MiB written of what would become 40, it matters what is free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(free_mib * MIB))
    looking = space.Space(staged, "scene.tif")
    if not ends:
        looking.look(done, 10)
        return
    with pytest.raises(
        OutputError, match=r"scene\.tif: the disk is nearly full: .* 8\.0 MiB after 20% .* 1\.0 MiB are free"
    ):
        looking.look(done, 10)


def test_where_the_amount_of_work_is_not_known_nothing_is_said(staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that does not know its number of features ends when the disk does."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(0))
    space.Space(staged, "lines.csv").look(5, 0)
    space.Space(staged, "lines.csv").look(5, -1)
