"""`python -m deployments.apply`: give the server in PREFECT_API_URL the work pool, the deployments and the automations.

Safe to repeat: nothing is doubled, and what an operator has changed of the pool stays: a pause, and its limit where
SWATH_POOL_LIMIT says none.
"""

import os
import subprocess
import sys
from pathlib import Path

from deployments import automations
from deployments.main import run
from deployments.server import check_server, server_address
from lib.errors import SwathError, UsageError

ROOT = Path(__file__).resolve().parents[1]
POOL = "default"
_DEPLOY = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml"]


def apply_all(api: str) -> str:
    """Apply everything to a server; what was applied, in words.

    Raises:
        SwathError: the server is not there or of another version, or something could not be applied.
    """
    check_server(api)
    limit = make_pool()
    deployed = deploy(api)
    made = automations.apply()
    alerts = f"{len(made)} automation{'' if len(made) == 1 else 's'}"
    return f"{deployed} deployments, {alerts}; work pool {POOL}, {limit}"


def make_pool() -> str:
    """Create the work pool where it is missing, with room for as many runs as there are cores; its limit in words.

    Raises:
        SwathError: SWATH_POOL_LIMIT is no number of runs, or there is a pool of that name whose runs are no processes.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    wanted = pool_limit()
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_work_pool(POOL)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            wish = WorkPoolCreate(
                name=POOL,
                type="process",
                description="swath's runs, each a process on the worker's host",
                base_job_template=template,
                concurrency_limit=wanted or os.cpu_count() or 1,
            )
            pool = client.create_work_pool(wish)
        if pool.type != "process":
            raise SwathError(
                f"the work pool {POOL} of {client.api_url} is of type {pool.type}; runs of swath are processes",
                hint="rename or delete it, or apply to a server of swath's own",
            )
        if wanted and pool.concurrency_limit != wanted:
            client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=wanted))
            pool = client.read_work_pool(POOL)
    limit = pool.concurrency_limit
    return "no limit" if limit is None else f"at most {limit} runs at once"


def pool_limit() -> int | None:
    """What SWATH_POOL_LIMIT says; None where it says nothing.

    Raises:
        UsageError: it is no number of runs.
    """
    text = os.environ.get("SWATH_POOL_LIMIT", "").strip()
    if text and not (text.isdecimal() and int(text)):
        raise UsageError(f"SWATH_POOL_LIMIT={text} is no number of runs", hint="write a whole number from 1 on")
    return int(text) if text else None


def deploy(api: str) -> int:
    """Apply deployments/prefect.yaml as `prefect deploy --all` does; how many there are.

    Raises:
        SwathError: one could not be applied.
    """
    done = subprocess.run(
        [sys.executable, *_DEPLOY],
        cwd=ROOT,
        env=os.environ | {"PREFECT_API_URL": api},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(line.strip() for line in (done.stdout + done.stderr).splitlines()[-3:])
        raise SwathError(f"deployments/prefect.yaml could not be applied to {api}: {said}", hint="mend what it says")
    return done.stdout.count("successfully created")


def main() -> None:
    """Apply everything, and say so in a line."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    api = server_address()
    with temporary_settings({PREFECT_API_URL: api}):
        sys.stdout.write(f"swath: applied to {api}: {apply_all(api)}\n")


if __name__ == "__main__":
    run(main)
