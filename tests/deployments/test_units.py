"""The parts of operating that need no server: addresses, what is up, deployments that are complete, units of systemd."""

import contextlib
import datetime as dt
import inspect
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import zoneinfo
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from cronsim import CronSim
from prefect.flows import load_flow_from_entrypoint

from deployments import database, postgres, up
from deployments.apply import pool_limit
from deployments.automations import FLOWS, webhook_address
from deployments.main import run
from deployments.processes import end, same, spawn
from deployments.server import check_port, check_server
from lib import running
from lib.errors import SwathError, UsageError
from lib.running import Running
from tests.servers import free_port, until

_ROOT = Path(__file__).resolve().parents[2]
_FILE: dict[str, Any] = yaml.safe_load((_ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))
_DEPLOYMENTS: list[dict[str, Any]] = _FILE["deployments"]


def _name(deployment: dict[str, Any]) -> str:
    return f"{deployment['entrypoint'].partition(':')[2]}/{deployment['name']}"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("postgres://u:p%40ss@db:5432/prefect", "postgresql+asyncpg://u:p%40ss@db:5432/prefect"),
        ("postgresql://db/prefect?sslmode=require", "postgresql+asyncpg://db/prefect?ssl=require"),
        ("postgresql+asyncpg://u@/d?host=/run/x", "postgresql+asyncpg://u@/d?host=%2Frun%2Fx"),
        ("sqlite:////var/lib/x.db", "sqlite+aiosqlite:////var/lib/x.db"),
    ],
)
def test_an_address_is_taken_as_people_write_it(given: str, taken: str) -> None:
    """Other tools' schemes and libpq's sslmode become what Prefect's drivers take."""
    assert database.prefect_address(given, "DATABASE_URL") == taken


@pytest.mark.parametrize("given", ["mysql://u:secret@db/x", "db.example:5432", "postgresql://u:secret@db:port/x"])
def test_an_address_that_is_none_is_said_without_it(given: str) -> None:
    """The message names the variable and what to write; the address may hold a password and is not repeated."""
    with pytest.raises(UsageError) as raised:
        database.prefect_address(given, "DATABASE_URL")
    assert "DATABASE_URL" in raised.value.message
    assert "secret" not in raised.value.message + raised.value.hint


def test_a_database_that_is_away_is_said_without_its_password() -> None:
    """Where it is and why it cannot be reached, in a line; never user or password."""
    address = f"postgresql+asyncpg://prefect:hunter2@127.0.0.1:{free_port()}/prefect"
    with pytest.raises(SwathError, match="cannot be reached") as raised:
        database.check(address, "DATABASE_URL")
    assert "PostgreSQL database prefect on 127.0.0.1:" in raised.value.message
    assert "hunter2" not in raised.value.message


def test_a_database_of_another_prefect_is_refused(tmp_path: Path) -> None:
    """A schema whose revision none of this Prefect's migrations makes: which version is needed. A known one is taken."""
    path = tmp_path / "prefect.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    with pytest.raises(SwathError, match=r"another version of Prefect.*3\.9"):
        database.check(f"sqlite+aiosqlite:///{path}", "DATABASE_URL")
    import prefect.server.database as package

    files = (Path(package.__path__[0]) / "_migrations" / "versions" / "sqlite").glob("20*.py")
    known = max(files).name.split("_")[4]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (known,))
    database.check(f"sqlite+aiosqlite:///{path}", "DATABASE_URL")


def test_a_server_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which it is, which is needed; a patch version more or less is fine."""
    monkeypatch.setattr("deployments.server.version_of", lambda _api: "3.8.4")
    with pytest.raises(SwathError, match=r"is Prefect 3\.8\.4; .* needs a server 3\.9\.x"):
        check_server("http://127.0.0.1:1/api")
    monkeypatch.setattr("deployments.server.version_of", lambda _api: "3.9.99")
    check_server("http://127.0.0.1:1/api")


def test_a_port_that_another_program_has_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that listens there and does not answer, and a port that is free."""
    monkeypatch.setattr("deployments.server._ASK_SECONDS", 0.2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SwathError, match=f"is taken by .*process {os.getpid()}") as raised:
            check_port(taken.getsockname()[1])
    assert "make up PORT=" in raised.value.hint


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_bad_usage(text: str) -> None:
    """Exit code 2, before anything is started."""
    with pytest.raises(UsageError, match=f"PORT={text}"):
        up.main([f"--port={text}"])


def test_a_stale_file_is_not_believed(tmp_path: Path) -> None:
    """What a killed one wrote counts for nothing without its lock, even where somebody has its process id by now."""
    said = Running(
        os.getpid(), "http://127.0.0.1:1", "http://127.0.0.1:1/api", "x", {"server": (os.getpid(), 1.0)}, True
    )
    with running.hold(tmp_path) as is_free:
        assert is_free
        running.write(tmp_path, said)
        assert running.running(tmp_path) == said
    assert running.running(tmp_path) is None
    assert running.last(tmp_path) == said
    assert same(os.getpid(), 1.0) is None
    assert same(os.getpid(), psutil.Process().create_time()) is not None
    (tmp_path / "up.json").write_text("{")
    assert running.last(tmp_path) is None


def test_what_is_started_dies_with_its_starter(tmp_path: Path) -> None:
    """After kill -9 of a process that started another, the kernel ends that one."""
    code = (
        "import pathlib, sys, time; from deployments.processes import spawn; "
        f"print(spawn(['sleep', '600'], pathlib.Path({str(tmp_path / 'log')!r}), {{}}).pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=_ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        starter.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert gone == [child] or alive[0].status() == psutil.STATUS_ZOMBIE


def test_what_does_not_end_is_killed_with_all_below(tmp_path: Path) -> None:
    """A process that ignores SIGTERM, and its child, are gone after the time that they are given."""
    shell = spawn(["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"], tmp_path / "log", os.environ)
    process = psutil.Process(shell.pid)
    (below,) = until(process.children, what="the shell has begun its sleep")
    end(process, signal.SIGTERM, seconds=0.5)
    shell.wait(10)
    assert not process.is_running()
    assert not below.is_running() or below.status() == psutil.STATUS_ZOMBIE


def test_a_long_state_folder_gets_a_short_socket(tmp_path: Path) -> None:
    """A socket's path has 107 bytes at most."""
    folder = tmp_path / ("deep" * 25)
    folder.mkdir()
    cluster = postgres.Cluster(folder, Path("/usr"), None)
    assert len(os.fsencode(cluster.sockets / ".s.PGSQL.5432")) <= 107
    assert str(cluster.sockets) in cluster.address


@pytest.mark.parametrize("deployment", _DEPLOYMENTS, ids=_name)
def test_a_deployment_is_complete(deployment: dict[str, Any]) -> None:
    """Its parameters are the flow's, none that is required is missing, and what a person or a page needs is there."""
    signature = inspect.signature(load_flow_from_entrypoint(deployment["entrypoint"]).fn)
    given = [
        deployment.get("parameters", {}),
        *(each.get("parameters", {}) for each in deployment.get("schedules", [])),
    ]
    required = {each.name for each in signature.parameters.values() if each.default is inspect.Parameter.empty}
    assert all(set(each) <= set(signature.parameters) for each in given)
    assert required <= set(given[0])
    assert deployment["description"].endswith(".")
    assert deployment["tags"][0] in {"ad-hoc", "scheduled"}
    assert deployment["work_pool"]["name"] == "default"
    assert load_flow_from_entrypoint(deployment["entrypoint"]).name in FLOWS


@pytest.mark.parametrize("deployment", [each for each in _DEPLOYMENTS if "schedules" in each], ids=_name)
def test_a_scheduled_deployment_can_run_every_night(deployment: dict[str, Any]) -> None:
    """Each schedule has a slug, by which it is replaced; writing runs overwrite; one at a time; retries for what passes."""
    slugs = [each["slug"] for each in deployment["schedules"]]
    assert len(set(slugs)) == len(slugs)
    for schedule in deployment["schedules"]:
        assert next(CronSim(schedule["cron"], dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))
        assert schedule["timezone"] == "{{ zone.stdout }}"
    if "destination" in deployment["parameters"]:
        assert deployment["parameters"]["overwrite"] is True
    assert deployment["concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_limit"]["collision_strategy"] in {"ENQUEUE", "CANCEL_NEW"}
    environment = deployment["work_pool"]["job_variables"]["env"]
    assert int(environment["PREFECT_FLOWS_DEFAULT_RETRIES"]) > 0
    assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_folders_and_zone_have_defaults() -> None:
    """The build steps print what the environment says, else a folder and a zone that exist everywhere."""
    for step, name, default in zip(
        _FILE["build"], ("SWATH_DATA", "SWATH_TIMEZONE"), ("/srv/swath", "UTC"), strict=True
    ):
        script = step["prefect.deployments.steps.run_shell_script"]["script"]
        for environment, said in (({}, default), ({name: "Europe/Vienna"}, "Europe/Vienna")):
            done = subprocess.run(
                ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=True
            )
            assert done.stdout == said
    assert "UTC" in zoneinfo.available_timezones()


@pytest.mark.parametrize("unit", ["swath-server.service", "swath-worker.service"])
def test_a_unit_is_one_that_systemd_takes(unit: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say, with the programs and the user that the unit names put in their place."""
    assert shutil.which("systemd-analyze"), "install systemd (.ci/run does): the units cannot be linted without it"
    text = (_ROOT / "deployments" / "systemd" / unit).read_text(encoding="utf-8")
    (tmp_path / unit).write_text(text.replace("/opt/swath/.venv/bin/prefect", sys.executable), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("Restart=", "EnvironmentFile=", "NoNewPrivileges=yes", "ProtectSystem=strict", "MemoryHigh="):
        assert f"\n{line}" in text


def test_a_sqlite_file_that_cannot_be_made_is_said_before_a_server_starts() -> None:
    """One line that names it, instead of the server's traceback."""
    with pytest.raises(SwathError, match=r"SQLite file /proc/swath.db \(DATABASE_URL\) cannot be reached"):
        database.check("sqlite+aiosqlite:////proc/swath.db", "DATABASE_URL")


def test_a_logs_last_lines_stand_below_the_error_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is one line; what a log ends with keeps its lines."""

    def fail() -> None:
        raise SwathError("the server has ended", hint="see server.log, which ends with", traceback="    one\n    two")

    with pytest.raises(SystemExit):
        run(fail)
    assert capsys.readouterr().err == (
        "swath: the server has ended; see server.log, which ends with\n    one\n    two\n"
    )


@pytest.mark.parametrize("text", ["x", "0", "-2", "1.5"])
def test_a_pool_limit_that_is_no_number_is_said(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the variable, instead of a traceback in a log."""
    monkeypatch.setenv("SWATH_POOL_LIMIT", text)
    with pytest.raises(UsageError, match=f"SWATH_POOL_LIMIT={text} is no number of runs"):
        pool_limit()


def test_a_webhook_that_is_no_address_is_said_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each alert would fail where nobody looks."""
    monkeypatch.setenv("SWATH_ALERT_WEBHOOK", "hooks.example/s3cret")
    with pytest.raises(UsageError, match="SWATH_ALERT_WEBHOOK is no web address") as raised:
        webhook_address()
    assert "s3cret" not in str(raised.value)
