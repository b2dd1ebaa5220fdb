"""The task that tries drivers: open and create, before any work."""

from prefect import task

from lib.jobs import DriversJob
from tasks.capped import capped
from tasks.names import task_name
from tasks.retries import READING
from tasks.states import OPTIONS, Ended


@task(name="Validate drivers", task_run_name=task_name("Validate drivers for"), **OPTIONS | READING)
def validate_drivers(job: DriversJob) -> Ended:
    """Check that this build opens the source and creates with the destination's driver."""
    return capped(job)
