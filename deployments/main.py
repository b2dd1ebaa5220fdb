"""How a command of this package ends: one line for an error, with its exit code; below it a log's last lines, if it has them."""

import sys
from collections.abc import Callable

from lib.errors import SwathError, shown_lines


def run(work: Callable[[], int | None]) -> None:
    """Run a command; an error is a line on stderr and its exit code."""
    try:
        code = work()
    except SwathError as error:
        sys.stderr.write(f"swath: {error}{f'; {error.hint}' if error.hint else ''}\n")
        if error.traceback:
            sys.stderr.write(f"{shown_lines(error.traceback)}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code or 0)
