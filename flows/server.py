"""Which Prefect server a flow from the terminal runs on, decided before Prefect is imported and reads its settings; its run."""

import contextlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import terminal
from lib import request
from lib.errors import SwathError
from lib.running import running

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


def choose_server() -> None:
    """Use the server that `make up` runs, where neither the environment nor Prefect's active profile names one."""
    named = os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE") or _profile_names_one()
    up = None if named else running()
    # Else every three minutes: the automation would call a run dead that has only been silent.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    if up and up.ready:
        os.environ["PREFECT_API_URL"] = up.api
        terminal.tell(f"swath: the run is on the server of `make up`: {up.ui}")


def state_of(flow: Any, parameters: Mapping[str, Any]) -> "State[Any]":
    """The final state of a flow's run in this process; its own log says how it goes.

    Raises:
        SwathError: the API does not answer.
    """
    from tasks.states import cancelled_by_signal

    terminal.leave_to_flow()
    run = flow.with_options(on_crashed=[cancelled_by_signal])
    with request.at_terminal(), answering():
        state: State[Any] = run(return_state=True, **parameters)
    return state


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Prefect's words for an API that does not answer, in ours.

    Raises:
        SwathError: it does not.
    """
    try:
        yield
    except RuntimeError as error:
        if "reach API" not in str(error):
            raise
        problem = f"the Prefect API in PREFECT_API_URL does not answer: {' '.join(str(error).split())}"
        hint = "start that server, or unset PREFECT_API_URL to run on `make up`'s or an embedded one"
        raise SwathError(problem, hint=hint) from error


def _profile_names_one() -> bool:
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        found = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
        return "PREFECT_API_URL" in found["profiles"][found["active"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
