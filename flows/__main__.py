"""Entry point of `swath` and `python -m flows`: holds signals until the imports, which take half a second, are done.

A Ctrl-C amid an import would be a traceback, and leave modules that cannot be imported again to say it better. So nothing
of ours is imported before signals are held: on a busy machine that alone took 0.15 s.
"""

import itertools
import os
import signal
import sys

_KINDS = {"raster", "vector", "verify", "profile", "drivers"}
_NOT_DIRECT = {"--flow", "--help", "-h", "--version"}


def main() -> None:
    """Import the command line and hand it the signals that came meanwhile; those ignored stay ignored (nohup, `&`)."""
    held: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, lambda came, _: held.append(came))

    # pydantic would look for plugins in every package that is installed (MEASURED, "Start-up of a direct job").
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    _launch_child(sys.argv[1:])
    from flows import cli

    cli.main(heard, held)


def _launch_child(arguments: list[str]) -> None:
    """Let a direct job's child import GIS libraries while we import the command line; a wrong guess is ended."""
    words = arguments[1:] if arguments[:1] == ["plan"] else arguments
    if not words or words[0] not in _KINDS or _NOT_DIRECT & {word.split("=")[0] for word in words}:
        return
    from lib.memory.launch import launch_early
    from lib.units import file_label

    named = list(itertools.takewhile(lambda word: not word.startswith("-"), words[1:]))
    if words[0] == "drivers":
        launch_early("drivers", ",".join(named) or "all")
    elif named:
        launch_early(words[0], file_label(named[0]))


if __name__ == "__main__":
    main()
