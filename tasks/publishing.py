"""The task that publishes a staged file: the one without a child, as it needs no GIS library and next to no memory."""

from prefect import task

from lib.publish import Staging
from lib.reports import Report
from lib.run import published
from tasks.names import task_name
from tasks.states import OPTIONS, Ended, ended


@task(name="Publish output", task_run_name=task_name("Publish", "staged.destination"), **OPTIONS)
def publish(report: Report, staged: Staging) -> Ended:
    """Move the staged file to its destination: fsync, rename, fsync of the folder."""
    return ended(published(report, staged))
