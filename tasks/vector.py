"""The task that filters a vector layer into its staged file."""

from pathlib import Path

from prefect import task

from lib.jobs import VectorJob
from tasks.capped import capped
from tasks.states import OPTIONS, Ended


@task(name="Filter features", **OPTIONS)
def filter_features(job: VectorJob, staged: Path) -> Ended:
    """Filter batch by batch into `staged`; nothing is published yet."""
    return capped(job, staged=staged)
