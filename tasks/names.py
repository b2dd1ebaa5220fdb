"""What a task run is called: `Transform T32UQD.tif`."""

from collections.abc import Callable
from typing import Any

from lib.units import file_label


def task_name(verb: str, of: str = "job.label") -> Callable[..., str]:
    """A task's `task_run_name`: the verb, then the base name of what `of` leads to from the task's parameters."""

    def name(*, parameters: dict[str, Any]) -> str:
        first, *attributes = of.split(".")
        what = parameters.get(first)
        for attribute in attributes:
            what = getattr(what, attribute, None)
        return f"{verb} {file_label(str(what))}" if what else verb

    return name
