"""The task that tries drivers: open and create, before any work."""

from prefect import task

from lib.jobs import DriversJob
from tasks.capped import capped
from tasks.states import OPTIONS, Ended


@task(name="Validate drivers", **OPTIONS)
def validate_drivers(job: DriversJob) -> Ended:
    """Check that this build opens the source and creates with the destination's driver."""
    return capped(job)
