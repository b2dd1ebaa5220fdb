"""`make down`: end what `make up` runs, from another shell."""

import contextlib
import signal

import psutil

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
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(up.pid)
            process.send_signal(signal.SIGTERM)
            process.wait(_SECONDS)
    except psutil.AccessDenied as error:
        raise SwathError(f"{up.ui} belongs to another user (process {up.pid})", hint="run it as that user") from error
    except psutil.TimeoutExpired as error:
        raise SwathError(
            f"process {up.pid} has not ended after {_SECONDS:.0f} s",
            hint=f"`kill -9 {up.pid}`: what it started ends with it",
        ) from error
    say(f"down: {up.ui}")
    return 0


if __name__ == "__main__":
    run(main)
