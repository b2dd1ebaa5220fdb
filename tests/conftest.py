"""What every test stands on: no settings, Prefect home or history of the person who runs them; servers that modules share."""

import gc
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # they bring Prefect, which most tests do without
    from tests.servers import Listener, Prefect, Up

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


def pytest_collection_finish() -> None:
    """As a child does: the meter's collections need not walk all that pytest holds."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Remove the temporary home."""
    shutil.rmtree(_HOME, ignore_errors=True)


# Files whose quick tests take longest, as they start processes.
_LONG = ("tests/batch/", "tests/conformance/", "tests/faults/", "tests/test_cli.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What one worker of pytest-xdist does together: modules of a server, all flows, and the quick tests of a file.

    Flows share a test server, of which each worker that gets one would start its own; quick tests of a file share what the
    file makes; slow ones are dealt out one by one. What takes longest begins first, so that nobody waits for it at the end.
    """
    if not config.getoption("loadgroup", default=False):
        return
    groups: dict[pytest.Item, str] = {}
    for item in items:
        if named := item.get_closest_marker("xdist_group"):
            groups[item] = named.args[0]
        elif item.get_closest_marker("flow"):
            groups[item] = "flow"
        elif not item.get_closest_marker("slow"):
            groups[item] = item.nodeid.partition("::")[0]
    sizes = Counter(groups.values())

    def turn(item: pytest.Item) -> tuple[bool, bool, int]:
        group = groups.get(item, "")
        return group.endswith(".py"), not group.startswith(_LONG), -sizes[group]

    items.sort(key=turn)
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """One Prefect test server for the whole session: it takes about nine seconds to start."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def listener() -> "Iterator[Listener]":
    """Somebody who is told of failed runs."""
    from tests.servers import Listener

    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def data() -> Iterator[Path]:
    """The folder that SWATH_DATA names, as schedules expect it; in SCENES where pictures want a name."""
    with tempfile.TemporaryDirectory(prefix="scenes-") as made:
        folder = Path(os.environ.get("SCENES", made))
        for name in ("incoming", "published"):
            (folder / name).mkdir()
        yield folder


@pytest.fixture(scope="session")
def up(listener: "Listener", data: Path) -> "Iterator[Up]":
    """`make up` once for the modules of group "up". Its server looks every 2 s whether a run that waits for another may begin."""
    from tests.servers import Up

    running = Up(
        SWATH_DATA=str(data), SWATH_TIMEZONE="Europe/Vienna", SWATH_ALERT_WEBHOOK=listener.url, SWATH_POOL_LIMIT="3",
        PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS="2",
    )  # fmt: skip
    yield running
    running.stop()


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Prefect]":
    """A server and a worker once for the modules of group "server", as patient with the API as `make up` and the units."""
    from tests.servers import Prefect

    home = tmp_path_factory.mktemp("prefect")
    running = Prefect(home, PREFECT_CLIENT_MAX_RETRIES="8", SWATH_DATA=str(home))
    yield running
    running.stop()


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
