"""What is done already: a note of each output, made of what it was made of, by which choices, and how its files are.

The notes are lines of a file in the batch's folder, added before an output is published: one whose publication never came is
none, as its files are not there. A file with the size and time of its note is taken for what it was; else its bytes are read.
A second line says that it was published: from then on what has its name is the batch's to replace. Without it, as after a kill
between the two, only a file that is as one of its notes says is: whatever else is there is somebody else's.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import __version__
from lib.jobs import RasterJob, VectorJob, user_function
from lib.operations import Clip, Expression
from lib.paths import is_local
from lib.publish import sidecars

NOTES = ".swath-finished.jsonl"
_PIECE = 1 << 20
# What drivers read beside a source, further to what an output may have: world files, headers, projections, the parts of MapInfo's
# and of Imagine's files, of which the one that is named may stay as it is; a database's log.
_BESIDE = (".tfw", ".tifw", ".wld", ".hdr", ".prj", ".dat", ".map", ".id", ".ind", ".mid", ".ige", ".rrd")
_LIVE = ("-wal", "-journal")


def key_of(job: RasterJob | VectorJob) -> str | None:
    """What an output is made of, in one number: source, choices, version; None where a source's state cannot be known.

    A source is known by path, size and time of its files; a function by its module's text.
    """
    work = job.model_dump(mode="json", exclude={"resources", "overwrite", "destination"})
    states = []
    for each in _read_by(job):
        if not is_local(each) or (state := _state(Path(each))) is None:
            return None
        states.append(state)
    made_of = {"version": __version__, "work": work, "sources": states, "function": _function(job)}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _read_by(job: RasterJob | VectorJob) -> Iterator[str]:
    """All that a job reads."""
    yield job.source
    if isinstance(job, VectorJob):
        yield from filter(None, [job.intersects])
        return
    yield from job.sources
    match job.operation:
        case Expression(sources=sources):
            yield from (each.split("=", 1)[1] for each in sources)
        case Clip(mask=str(mask)):
            yield mask


def _state(path: Path) -> list[Any] | None:
    """Path, size and time of a source's files; None where there is none, or its parts are elsewhere."""
    if path.suffix.lower() == ".vrt":  # its files are named in it
        return None
    try:
        if path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.is_file())
        else:
            beside = (path.with_name(path.stem + suffix) for name in _BESIDE for suffix in (name, name.upper()))
            live = (path.with_name(path.name + suffix) for suffix in _LIVE)
            files = [path, *sidecars(path), *(each for each in (*beside, *live) if each.is_file())]
        return [str(path), *([each.name, *_marks(each)] for each in files)]
    except OSError:
        return None


def _function(job: RasterJob | VectorJob) -> str | None:
    name = user_function(job)
    if name is None:
        return None
    with contextlib.suppress(ImportError, ValueError, OSError):
        here = Path.cwd() / (name.partition(":")[0].replace(".", "/") + ".py")
        spec = None if here.is_file() else importlib.util.find_spec(name.partition(":")[0])
        origin = here if here.is_file() else Path((spec.origin if spec else None) or "")
        return hashlib.sha256(origin.read_bytes()).hexdigest()
    return os.urandom(8).hex()  # not to be known: done again


def _marks(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def checksum(path: Path) -> str:
    """BLAKE2b of a file, 128 bits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(slots=True)
class Finished:
    """The notes of a folder.

    Attributes:
        folder: where outputs go.
        published: by output, as a path below the folder, its line as it is in the file, half of what it takes when parsed.
        noted: likewise the lines of those that are not known to have been published since.
    """

    folder: Path
    published: dict[str, bytes] = field(default_factory=dict)
    noted: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Finished":
        """Those that are there; a line that a kill has cut is none."""
        found = cls(folder)
        with contextlib.suppress(FileNotFoundError), (folder / NOTES).open("rb") as lines:
            for line in lines:
                try:
                    found._take(json.loads(str(line, "utf-8")), line)
                except (ValueError, KeyError, TypeError):
                    continue
        return found

    def _take(self, said: dict[str, Any], line: bytes) -> None:
        if "published" in said:
            name = str(said["published"])
            lines = self.noted.pop(name, b"")
            self.published[name] = lines[lines.rfind(b"\n", 0, -1) + 1 :]  # the last of them
            return
        name, _, _ = str(said["output"]), said["key"], dict(said["files"])  # all of it, or it is nobody's note
        self.noted[name] = self.noted.get(name, b"") + line

    def is_ours(self, output: Path) -> bool:
        """Whether what is there under that name was made by a batch into this folder, or was put where one had put its own."""
        if not os.path.lexists(output):
            return False
        return self._name(output) in self.published or any(
            _is_as_noted(output, note["files"].get(output.name)) for note in self._notes_of(output)
        )

    def is_done(self, output: Path, key: str | None) -> bool:
        """Whether the output is there, whole, and made of just that."""
        return key is not None and any(
            bool(note["files"])
            and all(_is_as_noted(output.with_name(name), said) for name, said in note["files"].items())
            for note in self._notes_of(output)
            if note["key"] == key
        )

    def _notes_of(self, output: Path) -> list[dict[str, Any]]:
        name = self._name(output)
        lines = self.noted.get(name, b"").splitlines() + self.published.get(name, b"").splitlines()
        return [json.loads(line) for line in lines]

    def note(self, output: Path, key: str | None, staged: Path) -> None:
        """Note an output that is about to be published, by its staged file, for the next batch."""
        files = {each.name: [*_marks(each), checksum(each)] for each in [staged, *sidecars(staged)]}
        self._add({"output": self._name(output), "key": key, "files": files})

    def note_published(self, output: Path) -> None:
        """Note that it was."""
        self._add({"published": self._name(output)})

    def _add(self, record: dict[str, Any]) -> None:
        with (self.folder / NOTES).open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                cut = file.read(1) != b"\n"
            line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
            file.write(b"\n" + line if size and cut else line)

    def _name(self, output: Path) -> str:
        return str(output.relative_to(self.folder))


def _is_as_noted(path: Path, said: Any) -> bool:
    try:
        size, time_ns, digest = said
        found = _marks(path)
        return bool(found[0] == size and (found[1] == time_ns or checksum(path) == digest))
    except (OSError, ValueError, TypeError):  # it is not there; or nobody's note
        return False
