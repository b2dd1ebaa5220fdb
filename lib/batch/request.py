"""From flat choices to a batch: its files, its outputs, and each one's job. Opens no dataset."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import request
from lib.batch.finished import Finished
from lib.batch.inputs import KINDS, Inputs, Item, Wing, gather
from lib.batch.naming import TEMPLATES, destinations, folders_of
from lib.errors import DestinationError, UsageError
from lib.jobs import RasterJob, VectorJob
from lib.paths import absolute
from lib.publish import check_destination
from lib.settings import Settings, settings_knobs

_FREE = os.urandom(8).hex()
_SETTINGS = frozenset({"config", *(each.name for each in settings_knobs(Settings.model_fields))})
_MAKE: dict[str, Callable[..., RasterJob | VectorJob]] = {"raster": request.raster_job, "vector": request.vector_job}


@dataclass(frozen=True, slots=True)
class Batch:
    """What there is to do.

    Attributes:
        wing: of all its files.
        into: the folder of its outputs.
        items: the files.
        outputs: theirs, in the same order.
        base: a job by the choices that all have in common, of the first file.
        given: those choices.
        word: what choices are called in errors.
        finished: what is done already.
        folders: of the outputs', each with itself, or where it is missing, as when it is only planned, the nearest that is there.
        force: whether that is done again.
    """

    wing: Wing
    into: Path
    items: Sequence[Item]
    outputs: Sequence[Path]
    base: RasterJob | VectorJob
    given: Mapping[str, Any]
    word: str
    finished: Finished
    folders: Mapping[Path, Path]
    force: bool = False

    def job(self, at: int) -> RasterJob | VectorJob:
        """The job of one file, by its place.

        Raises:
            SwathError: it cannot be: its output is there and none of ours, or its own choices are of no use.
        """
        item, output = self.items[at], self.outputs[at]
        replaces = bool(self.given.get("overwrite")) or self.finished.is_ours(output)
        output = _in(self.folders[output.parent], output)
        if item.options or output.suffix != Path(self.base.destination).suffix:
            given = {**self.given, **item.options, "overwrite": replaces}
            if _SETTINGS.isdisjoint(item.options):  # else they are merged anew, with this host's memory looked at
                return _MAKE[self.wing](
                    item.source, str(output), word=self.word, **given, resources=self.base.resources
                )
            made = _MAKE[self.wing](item.source, str(output), word=self.word, **given)
            return made.model_copy(update={"resources": _in_batch(made)})
        check_destination(str(output), item.source, overwrite=replaces)
        changed = {"source": absolute(item.source), "destination": str(output), "overwrite": replaces}
        return self.base.model_copy(update=changed)


def batch_of(
    wing: Wing,
    inputs: Sequence[str],
    into: str,
    *,
    template: str | None = None,
    force: bool = False,
    word: str = "flag",
    makes_folders: bool = True,
    **given: Any,
) -> Batch:
    """A batch of flat choices, by the names of their knobs.

    Raises:
        UsageError: there is nothing to do, a choice cannot be used, or two files have one output.
        DestinationError: the folder cannot be written, or an output cannot be where it would be.
        HostLimitError: an explicit limit above what the host leaves.
    """
    folder = Path(into).absolute()
    if folder.exists() and not folder.is_dir():
        raise DestinationError(f"--into {into} is no folder", hint="name a folder; it is made where it is missing")
    found: Inputs = gather(inputs, wing)
    outputs = destinations(found, folder, template or TEMPLATES[wing])
    first = found.items[0]
    common = {key: value for key, value in given.items() if key != "overwrite"}
    place = _in(nearest(outputs[0].parent), outputs[0])
    base = _MAKE[wing](first.source, str(place), word=word, **common, overwrite=True)
    base = base.model_copy(update={"resources": _in_batch(base)})
    try:
        for each in {folder, *folders_of(outputs)} if makes_folders else ():
            each.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(f"folder {into} cannot be made: {error.strerror}", hint="choose another") from error
    folders = {each: nearest(each) for each in folders_of(outputs)}
    return Batch(wing, folder, found.items, outputs, base, given, word, Finished.read(folder), folders, force)


def nearest(folder: Path) -> Path:
    """The folder, or of those above it the first that is there."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _in(folder: Path, output: Path) -> Path:
    """The output; or, where its folder is missing, one of a name that is free."""
    return output if folder == output.parent else folder / f".{_FREE}-{output.name}"


def _in_batch(job: RasterJob | VectorJob) -> Any:
    """Its limit is what the ladder may climb to; one thread where nobody says how many: files run beside each other."""
    resources = job.resources
    most = max(resources.limit_bytes, resources.limit_max_bytes or 0)
    most = min(most, resources.host_budget_bytes or most)
    threads = resources.threads or 1
    return resources.model_copy(
        update={
            "limit_bytes": most,
            "limit_max_bytes": most,
            "threads": threads,
            "threads_max": threads,
        }
    )


def kind_of(wing: Wing) -> type[RasterJob | VectorJob]:
    """The kind of job.

    Raises:
        UsageError: there is none of that name.
    """
    if wing not in KINDS:
        raise UsageError(f"unknown kind {wing!r}", hint="use raster or vector")
    return KINDS[wing]
