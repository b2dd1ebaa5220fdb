"""The publisher: one writer per destination, whole files or none, nobody else's work swept."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lib.errors import DestinationBusy, DestinationError, OutputError, SourceError
from lib.publish import check_destination, find_leftovers, remove_leftover, staging

ROOT = Path(__file__).resolve().parents[1]
OWNER = """
import sys
from pathlib import Path
from lib.publish import staging
with staging(Path(sys.argv[1]), overwrite=False) as staged:
    staged.path.write_text("half")
    print(staged.folder, flush=True)
    sys.stdin.read()
"""


def _owner(destination: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process that holds the staging folder of a destination, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(destination)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def _killed(destination: Path) -> Path:
    """The staging folder of an owner that was killed with -9."""
    process, folder = _owner(destination)
    process.kill()
    process.communicate()
    assert (folder / destination.name).read_text() == "half"
    return folder


def _foreign(destination: Path) -> Path:
    """A staging folder as another host leaves it on a shared disk."""
    folder = destination.parent / f".{destination.name}.swath"
    folder.mkdir()
    (folder / "owner").write_text(json.dumps({"host": "elsewhere.example", "boot": "b", "pid": 7}))
    (folder / destination.name).write_text("theirs")
    return folder


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """A destination that does not exist."""
    return tmp_path / "out.tif"


def test_a_staged_file_is_published_whole(destination: Path) -> None:
    """Nothing is at the destination before, the file is after, and no staging folder stays."""
    with staging(destination, overwrite=False) as staged:
        staged.path.write_bytes(b"pixels")
        assert not destination.exists()
        assert staged.path.suffix == destination.suffix
        assert staged.publish() == 6
    assert destination.read_bytes() == b"pixels"
    assert list(destination.parent.iterdir()) == [destination]


def test_what_is_not_published_leaves_nothing(destination: Path) -> None:
    """A job that fails leaves no destination and no staging folder."""

    def fail() -> None:
        with staging(destination, overwrite=False) as staged:
            staged.path.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(destination.parent.iterdir()) == []


def test_the_mode_is_what_the_umask_leaves(destination: Path) -> None:
    """A new file has 0666 less the umask, whatever mode it was staged with."""
    before = os.umask(0o027)
    try:
        with staging(destination, overwrite=False) as staged:
            staged.path.touch(0o600)
            staged.publish()
    finally:
        os.umask(before)
    assert stat.S_IMODE(destination.stat().st_mode) == 0o640


def test_a_replaced_file_keeps_its_mode(destination: Path) -> None:
    """An overwritten destination has the mode that it had."""
    destination.write_bytes(b"old")
    destination.chmod(0o604)
    with staging(destination, overwrite=True) as staged:
        staged.path.write_bytes(b"new")
        staged.publish()
    assert destination.read_bytes() == b"new"
    assert stat.S_IMODE(destination.stat().st_mode) == 0o604


def test_a_file_that_appeared_meanwhile_is_not_replaced(destination: Path) -> None:
    """Without overwrite, somebody else's file that came while the job ran stays as it is."""
    with staging(destination, overwrite=False) as staged:
        staged.path.write_bytes(b"ours")
        destination.write_bytes(b"theirs")
        with pytest.raises(DestinationError, match="appeared while the job ran"):
            staged.publish()
    assert destination.read_bytes() == b"theirs"


def test_an_overwrite_that_fails_leaves_the_old_file(destination: Path) -> None:
    """The existing destination is there, whole, until the new one takes its place."""
    destination.write_bytes(b"old")
    with staging(destination, overwrite=True) as staged, pytest.raises(OutputError, match=str(destination)):
        staged.publish()  # nothing was staged
    assert destination.read_bytes() == b"old"


def test_a_replace_that_fails_brings_the_sidecars_back(destination: Path) -> None:
    """A former file's mask and statistics stay with it where the rename fails, and go where it does not."""
    mask = destination.with_name(destination.name + ".msk")
    mask.write_bytes(b"mask")
    destination.mkdir()  # a file cannot take a folder's place
    with staging(destination, overwrite=True) as staged:
        staged.path.write_bytes(b"new")
        with pytest.raises(OutputError, match="Is a directory"):
            staged.publish()
    assert mask.read_bytes() == b"mask"
    destination.rmdir()
    destination.write_bytes(b"old")
    with staging(destination, overwrite=True) as staged:
        staged.path.write_bytes(b"new")
        staged.publish()
    assert list(destination.parent.iterdir()) == [destination]


@pytest.mark.parametrize("sweep", ["next run", "clean"])
@pytest.mark.parametrize("was_replaced", [False, True])
def test_a_kill_before_the_rename_brings_the_sidecars_back(was_replaced: bool, sweep: str, destination: Path) -> None:
    """Sidecars that a killed publisher had moved aside: back beside the old file, gone with it once it was replaced."""
    folder = _killed(destination)
    destination.write_bytes(b"old")
    (folder / "replaced").mkdir()
    (folder / "replaced" / "out.tif.msk").write_bytes(b"mask")
    if was_replaced:
        (folder / "out.tif").replace(destination)
    if sweep == "clean":
        for leftover in find_leftovers(destination.parent):
            remove_leftover(leftover)
    else:
        with staging(destination, overwrite=True):
            pass
    assert destination.with_name("out.tif.msk").exists() is not was_replaced
    assert not folder.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_staged_sidecar_is_published_beside(overwrite: bool, destination: Path) -> None:
    """A sidecar that was staged beside the file stands beside it afterwards, with its mode; a former one is gone."""
    beside = destination.with_name("out.tif.aux.xml")
    if overwrite:
        destination.write_bytes(b"old")
        destination.chmod(0o604)
        beside.write_bytes(b"old")
    with staging(destination, overwrite=overwrite) as staged:
        staged.path.write_bytes(b"new")
        staged.path.with_name("out.tif.aux.xml").write_bytes(b"beside")
        assert staged.publish() == 3
    assert (destination.read_bytes(), beside.read_bytes()) == (b"new", b"beside")
    assert stat.S_IMODE(beside.stat().st_mode) == stat.S_IMODE(destination.stat().st_mode)
    assert sorted(destination.parent.iterdir()) == [destination, beside]


def test_a_sidecar_in_the_way_is_not_replaced_unasked(destination: Path) -> None:
    """Without overwrite, a sidecar that is there without its file stays, and nothing is published."""
    beside = destination.with_name("out.tif.aux.xml")
    beside.write_bytes(b"theirs")
    with staging(destination, overwrite=False) as staged:
        staged.path.write_bytes(b"new")
        staged.path.with_name("out.tif.aux.xml").write_bytes(b"ours")
        with pytest.raises(DestinationError, match=r"out\.tif\.aux\.xml is in the way"):
            staged.publish()
    assert beside.read_bytes() == b"theirs"
    assert not destination.exists()


def test_a_sidecar_without_its_file_is_told_before_any_work(destination: Path) -> None:
    """It would speak of the new file, falsely; where an overwrite is asked for, it goes."""
    beside = destination.with_name("out.tif.aux.xml")
    beside.write_bytes(b"left over")
    with pytest.raises(DestinationError, match=r"out\.tif\.aux\.xml is in the way") as caught:
        check_destination(str(destination), None, overwrite=False)
    assert caught.value.exit_code == 2
    with staging(check_destination(str(destination), None, overwrite=True), overwrite=True) as staged:
        staged.path.write_bytes(b"new")
        staged.publish()
    assert list(destination.parent.iterdir()) == [destination]


@pytest.mark.parametrize("had_one", [False, True])
def test_a_replace_that_fails_takes_its_own_sidecar_back(had_one: bool, destination: Path) -> None:
    """Where the file cannot be renamed, its sidecar goes again, and a former one is back."""
    beside = destination.with_name("out.tif.aux.xml")
    if had_one:
        beside.write_bytes(b"old")
    destination.mkdir()  # a file cannot take a folder's place
    with staging(destination, overwrite=True) as staged:
        staged.path.write_bytes(b"new")
        staged.path.with_name("out.tif.aux.xml").write_bytes(b"beside")
        with pytest.raises(OutputError, match="Is a directory"):
            staged.publish()
    assert (beside.read_bytes() if beside.exists() else None) == (b"old" if had_one else None)


@pytest.mark.parametrize("was_published", [False, True])
def test_a_kill_before_the_rename_takes_the_new_sidecar_back(was_published: bool, destination: Path) -> None:
    """A sidecar that a killed publisher had placed goes, unless its file had come, too: by a link whose other end still stood."""
    folder, beside = _killed(destination), destination.with_name("out.tif.aux.xml")
    (folder / "beside").mkdir()
    (folder / "beside" / beside.name).write_bytes(b"beside")
    beside.write_bytes(b"beside")
    if was_published:
        os.link(folder / "out.tif", destination)
    with staging(destination, overwrite=True):
        pass
    assert beside.exists() is was_published


def test_a_link_is_replaced_and_not_what_it_points_to(destination: Path, tmp_path: Path) -> None:
    """A destination that is a symbolic link becomes a file; the link's target is untouched."""
    target = tmp_path / "precious.tif"
    target.write_bytes(b"precious")
    destination.symlink_to(target)
    with staging(check_destination(str(destination), None, overwrite=True), overwrite=True) as staged:
        staged.path.write_bytes(b"new")
        staged.publish()
    assert target.read_bytes() == b"precious"
    assert not destination.is_symlink()
    assert destination.read_bytes() == b"new"


def test_a_second_job_to_one_destination_is_refused(destination: Path) -> None:
    """The lock says whose it is; the first job's staged file is untouched, and the lock goes with its owner."""
    process, folder = _owner(destination)
    try:
        with pytest.raises(DestinationBusy, match=f"pid {process.pid}") as caught, staging(destination, overwrite=True):
            pass
        assert str(destination) in caught.value.message
        assert caught.value.exit_code == 1
        assert (folder / destination.name).read_text() == "half"
    finally:
        process.communicate("")
    with staging(destination, overwrite=False):
        pass


def test_two_jobs_in_one_process_exclude_each_other_too(destination: Path) -> None:
    """Flows run tasks in threads of one process: the lock holds between them as well."""
    with staging(destination, overwrite=False) as staged:
        staged.path.write_bytes(b"first")
        with pytest.raises(DestinationBusy), staging(destination, overwrite=False):
            pass
        assert staged.publish() == 5


def test_a_dead_owners_folder_is_swept_by_the_next_run(destination: Path) -> None:
    """What a killed job left is gone when the next one stages, folders in it too."""
    folder = _killed(destination)
    (folder / "tmp").mkdir()
    (folder / "tmp" / "part").touch()
    with staging(destination, overwrite=False) as staged:
        assert staged.folder == folder
        assert [entry.name for entry in folder.iterdir()] == ["owner"]
        assert json.loads((folder / "owner").read_text())["pid"] == os.getpid()
    assert not folder.exists()


def test_sweeping_follows_no_link(destination: Path, tmp_path: Path) -> None:
    """A link in a dead owner's folder is removed, not what it points to."""
    folder = _killed(destination)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (folder / "link").symlink_to(precious)
    with staging(destination, overwrite=False):
        pass
    assert (precious / "file").exists()


def test_another_hosts_folder_is_left_alone(destination: Path) -> None:
    """Its lock cannot be seen from here: the run is refused, says so, and touches nothing."""
    folder = _foreign(destination)
    with pytest.raises(DestinationBusy, match=r"elsewhere\.example") as caught, staging(destination, overwrite=True):
        pass
    assert "swath clean" in caught.value.hint
    assert (folder / destination.name).read_text() == "theirs"


def test_leftovers_tell_the_dead_from_the_living_and_the_foreign(tmp_path: Path) -> None:
    """`find_leftovers` looks below a folder; dead is what this host's killed job left, and only that."""
    below = tmp_path / "sub"
    below.mkdir()
    dead, foreign = _killed(below / "dead.tif"), _foreign(tmp_path / "foreign.tif")
    process, living = _owner(tmp_path / "living.tif")
    try:
        found = {each.folder: each for each in find_leftovers(tmp_path)}
    finally:
        process.communicate("")
    assert {folder: each.dead for folder, each in found.items()} == {dead: True, foreign: False, living: False}
    assert found[dead].bytes == sum(entry.stat().st_size for entry in dead.iterdir())
    assert 0 <= found[dead].age_seconds < 60
    assert found[foreign].owner["host"] == "elsewhere.example"


def test_removing_a_leftover_spares_a_living_owner(tmp_path: Path) -> None:
    """A folder whose owner lives is not removed even when asked; a dead or foreign one is."""
    dead, foreign = _killed(tmp_path / "dead.tif"), _foreign(tmp_path / "foreign.tif")
    process, living = _owner(tmp_path / "living.tif")
    try:
        for leftover in find_leftovers(tmp_path):
            remove_leftover(leftover)
        assert living.exists()
    finally:
        process.communicate("")
    assert not dead.exists()
    assert not foreign.exists()


def test_a_folder_without_an_owner_is_a_dead_leftover(tmp_path: Path) -> None:
    """A job killed before it wrote its name leaves an empty folder: found, and removed."""
    folder = tmp_path / ".out.tif.swath"
    folder.mkdir()
    (leftover,) = find_leftovers(tmp_path)
    assert leftover.dead
    remove_leftover(leftover)
    assert not folder.exists()


def test_a_destination_is_checked_before_any_work(tmp_path: Path) -> None:
    """Each unusable destination or source has its own line; a usable one comes back absolute."""
    source, existing = tmp_path / "in.tif", tmp_path / "there.tif"
    source.touch()
    existing.touch()
    bad = {
        "is the source itself": (source, source),
        "is a folder": (tmp_path, source),
        "exists": (existing, source),
        "does not exist": (tmp_path / "none" / "out.tif", source),
        "is not a local path": ("s3://bucket/out.tif", source),
    }
    for problem, (destination, origin) in bad.items():
        with pytest.raises(DestinationError, match=problem):
            check_destination(str(destination), str(origin), overwrite=False)
    with pytest.raises(SourceError, match="does not exist"):
        check_destination(str(tmp_path / "out.tif"), str(tmp_path / "none.tif"), overwrite=False)
    with pytest.raises(DestinationError, match="is the source itself"):
        check_destination(str(source), str(source), overwrite=True)
    assert check_destination(str(existing), str(source), overwrite=True) == existing
    assert check_destination(os.path.relpath(tmp_path / "out.tif"), None, overwrite=False) == tmp_path / "out.tif"


def test_the_source_by_another_name_is_still_the_source(tmp_path: Path) -> None:
    """A link or a hard link to the source is the source."""
    source, link, hard = tmp_path / "in.tif", tmp_path / "link.tif", tmp_path / "hard.tif"
    source.touch()
    link.symlink_to(source)
    hard.hardlink_to(source)
    for destination in (link, hard):
        with pytest.raises(DestinationError, match="is the source itself"):
            check_destination(str(destination), str(source), overwrite=True)


def test_a_missing_staged_file_is_an_error_not_an_empty_output(destination: Path) -> None:
    """A retry that trusts a cached result must find the staged file, or fail."""
    with staging(destination, overwrite=False) as staged:
        staged.path.write_bytes(b"x")
        shutil.rmtree(staged.folder)
        with pytest.raises(OutputError):
            staged.publish()
    assert not destination.exists()


@pytest.mark.parametrize(("picture", "world"), [("a.png", "a.pgw"), ("a.jpg", "a.JGW"), ("a.jpeg", "a.jpegw")])
def test_a_world_file_is_a_pictures_sidecar(tmp_path: Path, picture: str, world: str) -> None:
    """GDAL would place a new picture by the world file of the former one: it goes with that; a `.wld` may be another file's."""
    destination = tmp_path / picture
    for name in (picture, world):
        (tmp_path / name).write_text("former", encoding="ascii")
    with staging(destination, overwrite=True) as staged:
        staged.path.write_text("new", encoding="ascii")
        staged.publish()
    assert [each.name for each in tmp_path.iterdir()] == [picture]
    destination.unlink()
    for name in (world, "a.wld"):
        (tmp_path / name).write_text("former", encoding="ascii")
        with pytest.raises(DestinationError, match=f"{name} is in the way"):
            check_destination(str(destination), None, overwrite=name == "a.wld")
        (tmp_path / name).unlink()
