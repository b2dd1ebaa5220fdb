"""The disk under a staged file: looked at again while it grows, so that a job ends before it has filled it."""

import shutil
import time
from pathlib import Path

from lib.errors import OutputError
from lib.units import format_bytes

_EVERY_SECONDS = 0.5
# An estimate counts where most of what there was is used up: what is still to come may be less than what has come.
_LEFT_SHARE = 4
_SURE_TIMES = 2


class Space:
    """The space for one staged file.

    Args:
        staged: the file; what else lies in its folder counts, too.
        label: the job's, for the error.
    """

    def __init__(self, staged: Path, label: str) -> None:
        self._folder, self._label = staged.parent, label
        self._looked_at = time.monotonic()

    def look(self, done: int, of: int) -> None:
        """Look at the disk, now and then, when so much of the work is done; `of` 0 is not known.

        Raises:
            OutputError: a fifth is left of what there was, and more than twice as much is still to come at this rate.
        """
        now = time.monotonic()
        if now - self._looked_at < _EVERY_SECONDS or not 0 < done < of:
            return
        self._looked_at = now
        free = shutil.disk_usage(self._folder).free
        written = sum(each.stat().st_size for each in self._folder.iterdir() if each.is_file())
        total = written * of // done
        if free < written // _LEFT_SHARE and total - written > _SURE_TIMES * free:
            raise OutputError(
                f"{self._label}: the disk is nearly full: the output has {format_bytes(written)} after {done / of:.0%} of the "
                f"work and is on its way to {format_bytes(total)}, {format_bytes(free)} are free",
                hint="free space there, or choose a destination on another disk",
                free_bytes=free,
            )
