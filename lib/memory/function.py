"""Calling a user's function (`work.load_function` finds it): what it raises is its own failure, or memory on evidence."""

import os
import traceback
from collections.abc import Callable
from typing import Any

from lib.diagnosis import diagnose, named, words
from lib.errors import FunctionError, MemoryExceeded, SwathError
from lib.memory import cap
from lib.memory.evidence import NEAR_ADDRESS_SPACE_BYTES


def call(function: Callable[..., Any], name: str, *arguments: Any) -> Any:
    """What the function `name` (`module:name`) returns for these arguments.

    Raises:
        FunctionError: it raised anything, SystemExit and KeyboardInterrupt included.
        MemoryExceeded: it raised an allocator's refusal.
        MemoryError: it raised one.
    """
    ours = os.getpid()
    try:
        return function(*arguments)
    except (MemoryError, SwathError):
        raise
    except BaseException as error:
        at_cap = cap.is_near_address_space_cap(NEAR_ADDRESS_SPACE_BYTES)
        if diagnose(error, at_cap=at_cap, of_user=True) == "memory":
            raise MemoryExceeded(f"function {name}: an allocator was refused: {words(error)}") from error
        raise FunctionError(f"function {name} raised {named(error)}", function=name) from error
    finally:
        if os.getpid() != ours:  # a fork that came back would go on with the job's files, and close them
            traceback.print_exc()
            os._exit(1)
