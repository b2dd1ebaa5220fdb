"""What every test stands on: no settings, Prefect home or history of the person who runs them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# A time limit for each example fails where the machine is busy, and says nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before anything imports Prefect, which reads its settings once.
_HOME = tempfile.mkdtemp(prefix="swath-tests-")
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "BATCH_"))]:
    del os.environ[_name]
os.environ |= {
    "PREFECT_HOME": f"{_HOME}/prefect",
    "XDG_STATE_HOME": f"{_HOME}/state",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "BATCH_HISTORY_PATH": "off",
    "BATCH_FUNCTION_MODULES": "tests",
    "BATCH_LEDGER_PATH": f"{_HOME}/ledger",
}


def pytest_unconfigure() -> None:
    """Remove the temporary home."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """One Prefect test server for the whole session: it takes about nine seconds to start."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(autouse=True)
def _no_meter_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A meter that a test has begun and not finished would look on, and end the tracing of the tests that follow."""
    from lib.memory.meter import Meter

    made: list[Meter] = []
    begin = Meter.__init__

    def noted(self: Meter, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        made.append(self)

    monkeypatch.setattr(Meter, "__init__", noted)
    yield
    for meter in made:
        meter.note_failure()
