"""The engine of `profile`: finds out whether the source is a raster or a vector, and hands over.

What is read and measured is in `lib/raster/profile.py` and `lib/vector/profile.py`.
"""

from dataclasses import replace

from lib.jobs import ProfileJob
from lib.memory.proc import process_memory
from lib.memory.work import Engine, Room, Work
from lib.probe import load, probe


def prepare(job: ProfileJob, room: Room) -> Work:
    """Prepare the reading of a sample of the source's chunks; a source with a named layer is a vector.

    Raises:
        SourceError: it is missing, or neither a raster nor a vector; what its engine's header checks say.
    """
    engine: Engine = load(f"lib.{'vector' if job.layer else probe(job.source).kind}.profile")
    # What the engine's libraries weigh became known only now.
    return engine.prepare(job, replace(room, baseline_bytes=process_memory().resident_bytes))
