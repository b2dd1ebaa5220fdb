"""Entry point of `swath` and `python -m flows`: holds signals until the imports, which take half a second, are done.

A Ctrl-C amid an import would be a traceback, and leave modules that cannot be imported again to say it better.
"""

import os
import signal

__all__ = ["main"]


def main() -> None:
    """Import the command line and hand it the signals that came meanwhile; those ignored stay ignored (nohup, `&`)."""
    held: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, lambda came, _: held.append(came))

    # pydantic would look for plugins in every package that is installed (MEASURED, "Start-up of a direct job").
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from flows import cli

    cli.main(heard, held)


if __name__ == "__main__":
    main()
