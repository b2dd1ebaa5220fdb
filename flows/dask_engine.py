"""Dask as a batch's engine, by prefect-dask: a scheduler's address, or a cluster on this host for one run.

A worker that declares the resource MEMORY (`dask worker --resources MEMORY=8e9`) is given no more than that at once. On each host
the ledger has the last word.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from lib.errors import UsageError

_ANSWER_SECONDS = 10
_MEMORY = "MEMORY"


@contextlib.contextmanager
def dask_runner(address: str | None, workers: int, limit_bytes: int) -> Iterator[tuple[Any, int | None]]:
    """The task runner, and the most bytes that one of its workers declares; None where none declares any.

    Raises:
        UsageError: prefect-dask is not installed, or nothing answers at the address.
    """
    try:
        import distributed
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise UsageError(
            f"engine dask needs prefect-dask: {error}",
            hint="install the checkout with the extra dask: pip install -e '.[dask]'",
        ) from error
    for name in ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny", "distributed.core"):
        logging.getLogger(name).setLevel(logging.WARNING)  # two dozen lines of comings and goings
    if address is None:
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # in its workers' processes, too
        declared = {"n_workers": workers, "threads_per_worker": 1, "resources": {_MEMORY: limit_bytes}}
        quiet = {"dashboard_address": "127.0.0.1:0", "memory_limit": None, "silence_logs": 40}
        runner = DaskTaskRunner(cluster_kwargs=declared | quiet)
    else:
        _check_answers(distributed, address)
        runner = DaskTaskRunner(address=address)
    with runner:
        info = runner.client.scheduler_info(n_workers=-1)["workers"].values()
        sizes = [int(each["resources"][_MEMORY]) for each in info if _MEMORY in each.get("resources", {})]
        if address is not None and not info:
            raise UsageError(f"the Dask scheduler at {address} has no workers", hint="start some: dask worker")
        yield runner, max(sizes, default=None)


def _check_answers(distributed: Any, address: str) -> None:
    try:
        with distributed.Client(address, timeout=_ANSWER_SECONDS, set_as_default=False):
            pass
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"dask_address {address} does not answer within {_ANSWER_SECONDS} s: {error}",
            hint="check the address, such as tcp://host:8786, and that its scheduler runs",
        ) from error


@contextlib.contextmanager
def needing(runner: Any, size_bytes: int) -> Iterator[None]:
    """What is submitted meanwhile waits for a worker that has so many bytes left, where workers declare any."""
    from dask.base import annotate

    info = runner.client.scheduler_info(n_workers=-1)["workers"].values()
    if not any(_MEMORY in each.get("resources", {}) for each in info):
        yield
        return
    with annotate(resources={_MEMORY: size_bytes}):
        yield
