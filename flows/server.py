"""Which Prefect server a flow from the terminal runs on, decided before Prefect is imported and reads its settings."""

import os
import tomllib
from pathlib import Path

from flows import terminal
from lib.running import running


def choose_server() -> None:
    """Use the server that `make up` runs, where neither the environment nor Prefect's active profile names one."""
    named = os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE") or _profile_names_one()
    up = None if named else running()
    # Else every three minutes: the automation would call a run dead that has only been silent.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    if up and up.ready:
        os.environ["PREFECT_API_URL"] = up.api
        terminal.tell(f"swath: the run is on the server of `make up`: {up.ui}")


def _profile_names_one() -> bool:
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        found = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
        return "PREFECT_API_URL" in found["profiles"][found["active"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
