"""`make down`: end what `make up` runs, from another shell."""

import contextlib
import os
import signal
import time

from deployments.main import run
from deployments.up import say
from lib import running
from lib.errors import SwathError

_SECONDS = 90.0


def main() -> int:
    """Ask it to end, and wait until it has.

    Raises:
        SwathError: it belongs to another user, or does not end.
    """
    folder = running.state_folder()
    up = running.running(folder)
    if up is None:
        say("nothing is up")
        return 0
    try:
        with contextlib.suppress(ProcessLookupError):
            os.kill(up.pid, signal.SIGTERM)
    except PermissionError as error:
        raise SwathError(f"{up.ui} belongs to another user (process {up.pid})", hint="run it as that user") from error
    deadline = time.monotonic() + _SECONDS
    while running.running(folder):  # its lock: a process that nobody has waited for yet has an id, and is gone
        if time.monotonic() > deadline:
            raise SwathError(
                f"process {up.pid} has not ended after {_SECONDS:.0f} s",
                hint=f"`kill -9 {up.pid}`: what it started ends with it",
            )
        time.sleep(0.1)
    say(f"down: {up.ui}")
    return 0


if __name__ == "__main__":
    run(main)
