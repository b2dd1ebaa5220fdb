"""What is done already: recognised by what it was made of and by its files, and by nothing less."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.batch import finished
from lib.batch.finished import NOTES, Finished, key_of
from lib.jobs import RasterJob, Resources, VectorJob
from lib.operations import Copy, Custom, Normalise
from lib.units import MIB

RESOURCES = Resources(limit_bytes=128 * MIB)


def _job(source: Path, **choices: Any) -> RasterJob:
    return RasterJob(source=str(source), destination="/out/a.tif", resources=RESOURCES, **choices)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to be read."""
    path = tmp_path / "in.tif"
    path.write_bytes(b"pixels")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for outputs."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def _staged(out: Path, name: str = "a.tif", content: bytes = b"made", key: str | None = "k", **beside: bytes) -> Path:
    """Note an output that is to be published."""
    output = out / name
    staged = output.with_name(f".{output.name}.swath") / output.name
    staged.parent.mkdir(parents=True)
    staged.write_bytes(content)
    for suffix, data in beside.items():
        staged.with_suffix(f".{suffix}").write_bytes(data)
    Finished(out).note(output, key, staged)
    return staged


def _published(staged: Path) -> Path:
    """What was noted under its name."""
    output = staged.parent.with_name(staged.name)
    for each in staged.parent.iterdir():
        each.replace(output.with_name(each.name))
    staged.parent.rmdir()
    return output


def _make(out: Path, name: str = "a.tif", content: bytes = b"made", key: str | None = "k", **beside: bytes) -> Path:
    """Note an output, publish it, and note that."""
    output = _published(_staged(out, name, content, key, **beside))
    Finished(out).note_published(output)
    return output


def test_an_output_that_is_there_is_done(out: Path) -> None:
    """Of the same key, and of no other."""
    output = _make(out)
    notes = Finished.read(out)
    assert notes.is_done(output, "k")
    assert not notes.is_done(output, "other")
    assert not notes.is_done(output, None)
    assert not notes.is_done(out / "b.tif", "k")
    assert notes.is_ours(output)
    assert not notes.is_ours(out / "b.tif")


def test_an_output_that_is_gone_or_altered_is_not(out: Path) -> None:
    """Another size, or the same size and other bytes at another time."""
    output = _make(out)
    output.write_bytes(b"mad")
    assert not Finished.read(out).is_done(output, "k")
    output.write_bytes(b"fake")
    os.utime(output, ns=(1, 1))
    assert not Finished.read(out).is_done(output, "k")
    output.unlink()
    assert not Finished.read(out).is_done(output, "k")


def test_a_copied_folder_is_done_as_its_bytes_are(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other times, same bytes; where times are as noted, nothing is read."""
    output = _make(out)
    shutil.copytree(out, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy" / "a.tif", ns=(5, 5))
    assert Finished.read(tmp_path / "copy").is_done(tmp_path / "copy" / "a.tif", "k")
    monkeypatch.delattr(finished, "checksum")
    assert Finished.read(out).is_done(output, "k")


def test_a_note_of_nothing_claims_nothing(out: Path) -> None:
    """Killed between note and publication, with nothing there: neither done nor ours, nor is what is put there later."""
    _staged(out)
    found = Finished.read(out)
    assert (found.is_done(out / "a.tif", "k"), found.is_ours(out / "a.tif")) == (False, False)
    (out / "a.tif").write_bytes(b"somebody's")
    assert (found.is_done(out / "a.tif", "k"), found.is_ours(out / "a.tif")) == (False, False)


def test_a_note_does_not_claim_a_foreign_file(out: Path) -> None:
    """Killed, or refused, between note and publication, with another's file there, of whatever size and time."""
    (out / "a.tif").write_bytes(b"mine")
    for n in range(2):  # a rerun, which overwrites nothing
        staged = _staged(out, content=b"made")
        times = staged.stat()
        os.utime(out / "a.tif", ns=(times.st_atime_ns, times.st_mtime_ns + 1 + n))
        shutil.rmtree(staged.parent)
        found = Finished.read(out)
        assert (found.is_done(out / "a.tif", "k"), found.is_ours(out / "a.tif")) == (False, False)


@pytest.mark.parametrize("is_known", [True, False])
def test_an_old_output_stays_ours_behind_a_newer_note(out: Path, is_known: bool) -> None:
    """Killed between note and publication, twice, with an older output of ours there, whether that was noted or not."""
    output = _make(out) if is_known else _published(_staged(out))
    for _ in range(2):
        shutil.rmtree(_staged(out, content=b"anew", key="k2").parent)
        found = Finished.read(out)
        assert (found.is_done(output, "k2"), found.is_ours(output)) == (False, True)
    _published(_staged(out, content=b"anew", key="k2"))
    found = Finished.read(out)
    assert (found.is_done(output, "k2"), found.is_ours(output)) == (True, True)


def test_a_publication_that_was_not_noted_is_one(out: Path) -> None:
    """Killed between the publication and its note: the file is as noted, so it is done, and ours until somebody alters it."""
    output = _published(_staged(out))
    found = Finished.read(out)
    assert (found.is_done(output, "k"), found.is_ours(output)) == (True, True)
    os.utime(output, ns=(1, 1))
    assert Finished.read(out).is_ours(output)
    output.write_bytes(b"another's")
    assert not Finished.read(out).is_ours(output)


def test_what_was_ours_and_was_altered_is_made_again(out: Path) -> None:
    """A file that was published is the batch's to replace, but not a name where nothing is."""
    output = _make(out)
    output.write_bytes(b"damaged")
    assert Finished.read(out).is_ours(output)
    output.unlink()
    assert not Finished.read(out).is_ours(output)


def test_notes_take_little_memory(out: Path) -> None:
    """Of 100,000 outputs some 40 MB: the lines as they are."""
    with (out / NOTES).open("w", encoding="utf-8") as notes:
        for n in range(2000):
            files = {f"{n}.tif": [n, n * 10**15, f"{n:032x}"]}
            notes.write(f"{json.dumps({'output': f'{n}.tif', 'key': f'{n:064x}', 'files': files})}\n")
            notes.write(f"{json.dumps({'published': f'{n}.tif'})}\n")
    tracemalloc.start()
    try:
        found = Finished.read(out)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found.noted), len(found.published)) == (0, 2000)
    assert held < 500 * 2000


def test_a_torn_last_line_is_no_note_and_spoils_none(out: Path) -> None:
    """What a kill has cut is left out, and the next note begins a line of its own."""
    first = _make(out)
    with (out / NOTES).open("a", encoding="utf-8") as notes:
        notes.write('{"output":"b.tif","key":"k","fi')
    assert Finished.read(out).is_done(first, "k")
    second = _make(out, "b.tif")
    for torn in (
        "null\n",
        "[]\n",
        '{"output": 5}\n',
        '{"output":"a.tif","key":"k","files":7}\n',
        '{"published":7}\n',
        "\n",
    ):
        with (out / NOTES).open("a", encoding="utf-8") as notes:
            notes.write(torn)
    notes_now = Finished.read(out)
    assert notes_now.is_done(first, "k")
    assert notes_now.is_done(second, "k")


def test_notes_that_are_no_text_are_read_as_far_as_they_go(out: Path) -> None:
    """A disk that wrote zeros or noise in the middle loses those lines alone."""
    first = _make(out)
    with (out / NOTES).open("ab") as notes:
        notes.write(b"\x00\x00\xff\xfe\n")
    second = _make(out, "b.tif")
    found = Finished.read(out)
    assert (found.is_done(first, "k"), found.is_done(second, "k")) == (True, True)


def test_the_last_note_of_an_output_counts(out: Path) -> None:
    """Made again of something else, it is that."""
    _make(out)
    output = _make(out, content=b"anew", key="k2")
    assert not Finished.read(out).is_done(output, "k")
    assert Finished.read(out).is_done(output, "k2")


def test_a_shapefile_is_done_with_all_its_files(out: Path) -> None:
    """One that has lost its table, or has another one, is not."""
    output = _make(out, "a.shp", dbf=b"rows", shx=b"index")
    note = json.loads((out / NOTES).read_text(encoding="utf-8").splitlines()[0])
    assert set(note["files"]) == {"a.shp", "a.dbf", "a.shx"}
    assert Finished.read(out).is_done(output, "k")
    (out / "a.dbf").write_bytes(b"other rows")
    assert not Finished.read(out).is_done(output, "k")
    (out / "a.dbf").unlink()
    assert not Finished.read(out).is_done(output, "k")


def test_outputs_in_subfolders_have_names_of_their_own(out: Path) -> None:
    """Notes are by the path below the folder."""
    first, second = _make(out, "x/a.tif", b"1"), _make(out, "y/a.tif", b"2", "k2")
    found = Finished.read(out)
    assert found.is_done(first, "k")
    assert found.is_done(second, "k2")
    assert not found.is_done(second, "k")


def _same(one: RasterJob | VectorJob, other: RasterJob | VectorJob) -> bool:
    found = key_of(one), key_of(other)
    assert None not in found
    return found[0] == found[1]


def test_a_key_is_of_what_an_output_is_made_of(source: Path) -> None:
    """Choices count; where it goes, what memory it may have, and whether it replaces do not."""
    plain = _job(source, operation=Normalise())
    assert _same(plain, _job(source, operation=Normalise()))
    assert _same(plain, plain.model_copy(update={"destination": "/other/b.tif", "overwrite": True}))
    assert _same(plain, plain.model_copy(update={"resources": Resources(limit_bytes=MIB, threads=4)}))
    assert not _same(plain, _job(source, operation=Normalise(scale=5000)))
    assert not _same(plain, _job(source, operation=Copy()))
    assert not _same(plain, _job(source, operation=Normalise(), block_size=256))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"more pixels"),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.with_name("in.tif.msk").write_bytes(b"mask"),
        lambda path: path.with_suffix(".tfw").write_bytes(b"10"),
        lambda path: path.with_suffix(".dat").write_bytes(b"a part"),
        lambda path: path.with_suffix(".IGE").write_bytes(b"a part"),
    ],
)
def test_a_source_that_has_changed_is_another(source: Path, change: Callable[[Path], Any]) -> None:
    """Its size, its time, and what lies beside it and is read along."""
    before = key_of(_job(source))
    change(source)
    assert key_of(_job(source)) not in {before, None}


def test_another_version_makes_another_output(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older swath has made is made again."""
    before = key_of(_job(source))
    monkeypatch.setattr(finished, "__version__", "99")
    assert key_of(_job(source)) != before


def test_further_sources_count(source: Path, tmp_path: Path) -> None:
    """A layer to intersect with, a raster laid over: changed, the output is another."""
    other = tmp_path / "other.gpkg"
    other.write_bytes(b"x")
    job = VectorJob(
        source=str(source), destination="/o.gpkg", driver="GPKG", resources=RESOURCES, intersects=str(other)
    )
    mosaic = _job(source, sources=(str(other),))
    before = key_of(job), key_of(mosaic)
    other.write_bytes(b"xy")
    assert key_of(job) != before[0]
    assert key_of(mosaic) != before[1]


def test_what_cannot_be_known_has_no_key(source: Path, tmp_path: Path) -> None:
    """A URL, a VRT, whose files are elsewhere, and a file that is gone: they are done again."""
    vrt = tmp_path / "a.vrt"
    vrt.write_text("<VRTDataset/>", encoding="utf-8")
    for each in ("https://example.org/a.tif", str(vrt), str(tmp_path / "gone.tif")):
        assert key_of(_job(Path("x")).model_copy(update={"source": each})) is None


def test_a_function_counts_by_its_text(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's function that was edited makes another output; one that cannot be found is never the same."""
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "mine.py"
    module.write_text("def double(block): return block * 2\n", encoding="utf-8")
    job = _job(source, operation=Custom(function="mine:double"))
    before = key_of(job)
    assert key_of(job) == before
    module.write_text("def double(block): return block * 3\n", encoding="utf-8")
    assert key_of(job) != before
    lost = _job(source, operation=Custom(function="no_such_module_at_all:f"))
    assert key_of(lost) != key_of(lost)
